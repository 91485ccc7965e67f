"""Rows that are fetched and not added up: their addresses, what is checked of them, what a run asks for."""

from __future__ import annotations

import functools
import json
import operator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness import fetched
from harness.bench import environment, fetched_rows
from harness.bench.batch import Batch
from harness.bench.failures import CellError
from harness.bench.fetched_rows import ORDERS, addresses, layout, of_first_chunk
from harness.bench.tables import Tables
from harness.errors import BadInputError, MachineError
from harness.records import Cell, Dataset, Timing, Workload, to_json


def test_every_form_has_its_rows_in_flight_before_one_is_used() -> None:
    text = fetched_rows.PTX.read_text(encoding="utf-8")
    for form in fetched_rows.FORMS:
        body = text.partition(f".entry {form}")[2].partition(".entry")[0]
        loads = [at for at, line in enumerate(body.splitlines()) if "ld.global.nc.v4.u32" in line]
        uses = [at for at, line in enumerate(body.splitlines()) if "xor.b32" in line and at > loads[0]]
        assert len(loads) == int(form.split("_")[1])
        assert loads[-1] < uses[0]


@pytest.mark.parametrize(
    ("row_bytes", "lanes", "vectors"),
    [(64, 4, 4), (256, 16, 16), (512, 32, 32), (384, 32, 24), (1024, 32, 64)],
)
def test_a_row_lies_on_as_many_lanes_as_it_has_vectors(row_bytes: int, lanes: int, vectors: int) -> None:
    found = layout(row_bytes)
    assert (found.lanes, found.vectors) == (lanes, vectors)


@pytest.mark.parametrize("row_bytes", [16, 72, 8])
def test_rows_that_are_not_fetched_are_named(row_bytes: int) -> None:
    with pytest.raises(CellError, match=f"Rows of {row_bytes} bytes are not fetched"):
        layout(row_bytes)


def batch_of(dim: int, dtype: torch.dtype, lookups: int) -> Batch:
    """Two tables, the first of which has fewer lookups than a chunk has rows."""
    torch.manual_seed(dim)
    tables = [torch.randn(40, dim).to(dtype) for _ in range(2)]
    indices = [torch.randint(0, 40, (count,)) for count in (20, lookups)]
    return Batch(Workload(tables=2, dim=dim), Tables(tables), indices, torch.zeros(1), [None, None])


@pytest.mark.parametrize("order", list(ORDERS))
def test_addresses_are_of_the_rows_in_their_order(order: str) -> None:
    one = batch_of(8, torch.float32, 90)
    found = addresses(one, ORDERS[order]).tolist()
    wanted = [
        table[row].data_ptr()
        for table, rows in zip(one.weights, one.indices, strict=True)
        for row in (rows.sort().values if order == "sorted" else rows).tolist()
    ]
    assert found == wanted


@pytest.mark.parametrize(("dim", "dtype"), [(16, torch.float32), (96, torch.float32), (256, torch.float16)])
@pytest.mark.parametrize("lookups", [90, 7])
def test_what_lanes_have_read_is_told_by_hand(dim: int, dtype: torch.dtype, lookups: int) -> None:
    one = batch_of(dim, dtype, lookups)
    how = layout(dim * one.weights[0].element_size())
    rows = [table[row] for table, rows in zip(one.weights, one.indices, strict=True) for row in rows.tolist()]
    rows = [*rows, *[rows[-1]] * 64][:64]
    words = [row.view(torch.int32).view(-1, 4).tolist() for row in rows]
    for lane, found in enumerate(of_first_chunk(one, ORDERS["in_order"], how).tolist()):
        mine = [
            vector
            for number, row in enumerate(words)
            for at, vector in enumerate(row)
            if number % (32 // how.lanes) == lane // how.lanes and at % how.lanes == lane % how.lanes
        ]
        assert found == [functools.reduce(operator.xor, column, 0) for column in zip(*mine, strict=True)] or (
            not mine and found == [0] * 4
        )


def run_of(tmp_path: Path) -> Path:
    work = Workload(batch=64)
    for replicate in range(2):
        for design, device in (("fused", "cuda"), ("stock", "cuda"), ("slow", "cpu")):
            cell = Cell(
                f"{design}-r{replicate}",
                design,
                "13.0",
                Dataset("random"),
                replace(work, device=device),  # type: ignore[arg-type]
                Timing(),
                replicate,
                1,
            )
            folder = tmp_path / "cells" / cell.id
            folder.mkdir(parents=True)
            (folder / "cell.json").write_text(to_json(cell), encoding="utf-8")
    return tmp_path


def test_each_workload_is_fetched_once(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert [cell.id for cell in fetched.cells_of(run, "fused")] == ["fused-r0"]
    with pytest.raises(BadInputError, match="has no cells of slow on a GPU"):
        fetched.measure(run, tmp_path / "new.json", "slow")


def test_what_is_written_already_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path)
    (run / fetched.FILE).write_text("mine", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["fetched", str(run)])
    assert fetched.main() == BadInputError.exit_code
    assert (run / fetched.FILE).read_text(encoding="utf-8") == "mine"


def test_without_a_gpu_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["fetched", str(run_of(tmp_path))])
    assert fetched.main() == MachineError.exit_code
    assert capsys.readouterr().err == "Rows are fetched on a GPU, and PyTorch finds none here.\n"


def test_what_is_not_fetched_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path)
    cell = fetched.cells_of(run, "fused")[0]
    other = replace(cell, dataset=Dataset("skewed"), id="fused-skewed-r0")
    (run / "cells" / other.id).mkdir()
    (run / "cells" / other.id / "cell.json").write_text(to_json(other), encoding="utf-8")

    class Pretended:
        def __init__(self, root: Path) -> None:
            pass

        def measure(self, cell: Cell) -> dict[str, dict[str, float]]:
            if cell.dataset.name == "random":
                raise CellError("Tables of 2 widths are not fetched as one.")
            return {order: {"form": 1.234} for order in ORDERS}

    monkeypatch.setattr(fetched_rows, "FetchedRows", Pretended)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(environment, "gpu_uuid", lambda: "GPU-1")
    here = replace(environment.bare("cpu"), gpu="A GPU", gpu_uuid="GPU-1")
    monkeypatch.setattr(environment, "collect", lambda device, nvml: here)
    fetched.measure(run, run / fetched.FILE, "fused")
    told = json.loads((run / fetched.FILE).read_text(encoding="utf-8"))
    assert [cell["dataset"] for cell in told["cells"]] == ["skewed"]
    assert told["gpu"] == "A GPU"
    assert capsys.readouterr().err == "random: left out. Tables of 2 widths are not fetched as one.\n"
