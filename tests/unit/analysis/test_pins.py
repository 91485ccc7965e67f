"""Which design pins in vain, and which would pay if its pins lasted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from harness.analysis import frame, pins, results
from harness.analysis.results import Measured
from harness.experiment import Experiment
from harness.records import Cell, CellRecord, Timing, Variant
from tests import synthetic_run as synthetic

SPILLS = {"optmt": 380, "l2p_optmt": 380, "rpf_optmt": 368, "combined": 368, "baseline": 0}


OPTMT, L2P, RPF, COMBINED = (
    Variant(name, "12.1") for name in ("optmt", "l2p_optmt", "rpf_optmt", "combined")
)


def spilling(cell: Cell) -> CellRecord:
    """As the compiler does: a kernel spills the same with pins and without."""
    record = synthetic.record(cell)
    assert record.kernel is not None
    kernel = dataclasses.replace(record.kernel, spill_bytes=SPILLS[cell.design])
    return dataclasses.replace(record, kernel=kernel)


def derived(folder: Path, what: Experiment | None = None, make: object = spilling) -> Measured:
    assert callable(make)
    run = synthetic.write_run(folder / "run", what or synthetic.experiment(), make)
    return results.measure(frame.load_run(run))


def test_counterparts_follow_from_what_the_compiler_made(tmp_path: Path) -> None:
    found = derived(tmp_path)
    assert pins.counterpart(found.run, L2P) == OPTMT
    assert pins.counterpart(found.run, COMBINED) == RPF
    assert pins.counterpart(found.run, OPTMT) is None  # pins nothing
    assert {(pin.variant, pin.without) for pin in pins.find(found)} == {(L2P, OPTMT), (COMBINED, RPF)}


def test_nothing_is_said_where_two_arms_fit(tmp_path: Path) -> None:
    found = derived(tmp_path, make=synthetic.record)  # optmt and rpf_optmt look alike to the compiler
    assert pins.find(found) == []


def test_a_pin_pays_after_its_cost_divided_by_the_gain(tmp_path: Path) -> None:
    found = derived(tmp_path)
    pin = next(p for p in pins.find(found) if (p.variant, p.dataset) == (L2P, "random"))
    time = {
        name: found.measurements[variant, "random", metric].time.value
        for name, variant, metric in (
            ("with", L2P, "kernel_us"),
            ("pin", L2P, "prepare_us"),
            ("without", OPTMT, "kernel_us"),
        )
    }
    assert pin.saved_us == pytest.approx(time["without"] - time["with"])
    assert pin.lookups is not None
    assert pin.lookups.value == pytest.approx(time["pin"] / (time["without"] - time["with"]))
    assert pin.lookups.low < pin.lookups.value < pin.lookups.high


def test_without_a_gain_it_never_pays(tmp_path: Path) -> None:
    def in_vain(cell: Cell) -> CellRecord:
        record = spilling(cell)
        slow = [value * 1.2 for value in record.samples["kernel_us"]]
        pinned = "prepare_us" in record.samples
        return dataclasses.replace(record, samples=record.samples | ({"kernel_us": slow} if pinned else {}))

    found = pins.find(derived(tmp_path, make=in_vain))
    assert len(found) == 10
    assert all(pin.lookups is None and pin.saved_us < 0 for pin in found)


def test_nothing_is_said_of_cold_lookups(tmp_path: Path) -> None:
    assert pins.find(derived(tmp_path, synthetic.experiment(timing=Timing(cache="cold")))) == []
