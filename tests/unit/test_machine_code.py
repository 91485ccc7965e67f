"""Runs stay of today's sources where these are compiled to the kernels that were measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness import designs
from harness.analysis import machine_code, sources
from harness.analysis.machine_code import Calls, Compiled, MachineCode, Special
from harness.design_source import COMMON_DIR
from harness.groups import TableGroup
from harness.records import Cell, CellRecord, Dataset, KernelFacts, Timing, Workload
from tests import synthetic_run as synthetic
from tests.machine_code import CONSTANT_LOADS, _without_addresses, of_the_host, of_today

KEY = "NVRTC 13.0.88 sm_90 float32"
HALVES = KEY.replace("32", "16")
CODE = {"lookup int64": "code"}
THEN = Compiled("launch", [], {KEY: CODE, HALVES: {"lookup int64": "half"}})
WIDE, NARROW = (Special("lookup_more", [], [Calls(columns=limits)], "s") for limits in ((129, 0), (0, 129)))
"""Of wide rows alone, and of those of a workload that says nothing else."""
STREAM = Special("lookup_more", [], [Calls(rows_per_bag=(0, 32)), Calls(alike=False)], "s")
"""Of short bags, and of tables that differ."""


def record(source_hash: str = "then", **changes: str) -> CellRecord:
    """Of float32 rows on an sm_90."""
    cell = Cell("fused", "fused", "13.0", Dataset("random"), Workload(), Timing(), 0, 1)
    told: dict[str, Any] = {
        "source_hash": source_hash,
        "compiler": "NVRTC 13.0.88",
        "arch": "sm_90",
        **changes,
    }
    kernel = KernelFacts(
        "fused", **told, registers=0, spill_bytes=0, shared_bytes=0, occupancy=0, cubin_sha256=""
    )
    return replace(synthetic.cpu_record(cell), kernel=kernel)


@pytest.mark.parametrize(
    ("now", "older"),
    [
        (THEN, []),
        (replace(THEN, kernels=THEN.kernels | {HALVES: {"lookup int64": "other"}}), []),
        (replace(THEN, kernels=THEN.kernels | {KEY: {"lookup int64": "other"}}), ["fused"]),
        (replace(THEN, kernels=THEN.kernels | {KEY: CODE | {"lookup int32": "more"}}), ["fused"]),
        (replace(THEN, launch="launched otherwise"), ["fused"]),
        (replace(THEN, kernels={}), ["fused"]),
        (Compiled("launch", [WIDE], {KEY: CODE | {"lookup_more int64": "more"}}), []),
        (replace(THEN, special=[replace(WIDE, when=[*WIDE.when, Calls(columns=(8, 9))])]), []),
        (Compiled("launch", [STREAM], {KEY: CODE | {"lookup_more int64": "more"}}), []),
        (replace(THEN, special=[replace(NARROW, dtypes=["float16"])]), []),
        (replace(THEN, special=[NARROW]), ["fused"]),
        (replace(THEN, special=[replace(WIDE, when=[*WIDE.when, Calls(columns=(128, 129))])]), ["fused"]),
        (replace(THEN, special=[replace(STREAM, when=[Calls(rows_per_bag=(0, 151))])]), ["fused"]),
        (replace(THEN, special=[replace(STREAM, when=[Calls(alike=True)])]), ["fused"]),
        (None, ["fused"]),
    ],
)
def test_a_change_that_leaves_the_measured_kernels_alone_makes_no_run_older(
    monkeypatch: pytest.MonkeyPatch, now: Compiled | None, older: list[str]
) -> None:
    table = MachineCode({"fused": {"then": THEN} | ({"now": now} if now else {})})
    monkeypatch.setattr(machine_code, "known", lambda: table)
    assert sources.older([record()], {"fused": "now"}) == older
    assert sources.older([record()], {"fused": "then"}) == []
    for unknown in ({"source_hash": "before"}, {"arch": "sm_80"}, {"compiler": "NVRTC 12.1.105"}):
        assert sources.older([record(**unknown)], {"fused": "now"}) == ["fused"]


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, False),
        ({"pooling": 31}, True),
        ({"pooling": 32}, False),
        ({"dim": 36}, True),
        ({"weighted": True}, True),
        ({"bags": "ragged"}, True),
        ({"groups": (TableGroup(9, 128, 12, pooling=150),)}, False),
        ({"groups": (TableGroup(9, 128, 6, pooling=1), TableGroup(9, 128, 6, pooling=62))}, True),
        ({"groups": (TableGroup(9, 128, 6, pooling=1), TableGroup(9, 128, 6, pooling=63))}, False),
        ({"groups": (TableGroup(9, 128, 6, pooling=99), TableGroup(9, 64, 6, pooling=99))}, True),
        ({"groups": (TableGroup(9, 128, 12, bags="own", rows_per_own_bag=99),)}, True),
    ],
)
def test_a_kernel_is_for_what_may_come_to_it(changes: dict[str, Any], may: bool) -> None:
    assert (STREAM.takes(replace(Workload(), **changes)) is not False) is may


@pytest.mark.parametrize(
    ("first", "changes", "older"),
    [
        (Calls(bags_per_sm=(0, 0)), {}, []),
        (Calls(bags_per_sm=(0, 0), alike=True, columns=(128, 129), rows_per_bag=(150, 151)), {}, []),
        (Calls(), {}, ["fused"]),
        (Calls(bags_per_sm=(3, 0)), {}, ["fused"]),
        (Calls(bags_per_sm=(0, 0), columns=(129, 0)), {}, ["fused"]),
        (Calls(bags_per_sm=(0, 0), rows_per_bag=(151, 0)), {}, ["fused"]),
        (Calls(bags_per_sm=(0, 0), alike=False), {}, ["fused"]),
        (Calls(bags_per_sm=(0, 0)), {"weighted": True}, ["fused"]),
        (Calls(bags_per_sm=(0, 0)), {"bags": "ragged"}, ["fused"]),
        (Calls(bags_per_sm=(0, 0)), {"rows": 2**31}, ["fused"]),
    ],
)
def test_no_call_gets_past_a_kernel_that_takes_them_all(
    monkeypatch: pytest.MonkeyPatch, first: Calls, changes: dict[str, Any], older: list[str]
) -> None:
    specials = [Special("lookup_first", [], [first], "s"), Special("lookup_more", [], [Calls()], "s")]
    then, now = (
        Compiled("launch", specials, {KEY: CODE | {"lookup_more int64": more}}) for more in ("code", "other")
    )
    monkeypatch.setattr(machine_code, "known", lambda: MachineCode({"fused": {"then": then, "now": now}}))
    one = record()
    workload = replace(one.cell.workload, **changes)
    measured = replace(one, cell=replace(one.cell, workload=workload))
    assert sources.older([measured], {"fused": "now"}) == older


def test_what_the_host_tells_kernels_counts() -> None:
    (told,) = of_the_host(COMMON_DIR / "tables_args.h")
    assert told.startswith("constexpr lookup_int64 crowded_clocks(")
    assert "//" not in told
    assert of_the_host(COMMON_DIR / "lookup_args.h") == []


def test_addresses_of_sentences_are_no_instructions() -> None:
    load, add = CONSTANT_LOADS[0] | 4 << 54 | 0xCC00 << 32, 0x221 | 0xCC00 << 32
    moved = [number ^ 0x1800 << 32 for number in (load, add)]
    there, elsewhere = (
        list(_without_addresses(b"".join(number.to_bytes(16, "little") for number in numbers)))
        for numbers in ((load, add), moved)
    )
    assert [one == other for one, other in zip(there, elsewhere, strict=True)] == [True, False]


@pytest.mark.nvrtc
def test_the_file_has_what_todays_sources_are_compiled_to() -> None:
    """As far as it speaks of them: whoever changes a kernel need not write it anew."""
    told = machine_code.known()
    made = of_today(told)
    for design, compiled in told.designs.items():
        today = designs.get(design).source_hash
        if today in compiled:
            assert compiled[today] == made.designs[design][today], design
