"""A model's traces are made side by side, and are what one after the other would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.records import Cell, Dataset, Timing, Workload
from harness.traces import replay, synth
from harness.workload import summary

SEED = 5
USER = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5])
ITEM = np.arange(10, 19)
LAW = TableGroup(300, 4, pooling=3, zipf_s=1.1, zipf_q=2.0)
DRAWN = tuple(
    TableGroup(rows, 4, count=2, pooling=pooling) for rows, pooling in ((700, 2), (90, 5), (4000, 3))
)


def cell(dataset: str, *groups: TableGroup) -> Cell:
    work = Workload(**{**summary(groups), "groups": groups, "batch": 16})  # type: ignore[arg-type]
    return Cell("x", "stock", "pytorch", Dataset(dataset), work, Timing(), 0, SEED)


def recorded(name: str, rows: int) -> TableGroup:
    return TableGroup(rows, 8, trace=name, trace_sha256="0" * 64)


def keep(folder: Path, one: Cell, trace: replay.Rows) -> None:
    """Lays the trace of the cell's last table where a run has it."""
    path = folder / one.workload.groups[-1].trace_file
    path.parent.mkdir(exist_ok=True)
    np.save(path, trace)


@pytest.mark.parametrize("dataset", ["random", "skewed", "mixed", "medium", "own"])
def test_side_by_side_as_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    one = cell(dataset, LAW, *DRAWN, recorded("user", 10))
    keep(tmp_path, one, USER)
    for workers in (1, 8):
        monkeypatch.setattr(replay, "_at_once", lambda longest, workers=workers: workers)
        found = replay.read_traces(one, tmp_path)
        due = []
        for number, feature in enumerate(one.workload.features):
            rows, own = feature.group.rows, dataset == "own"
            name = "random" if own else synth.dataset_of_table(dataset, number)
            length = len(found[number])
            if own and feature.group.trace:
                due.append(USER)
            elif own and feature.group.zipf_s:
                due.append(synth.zipf(rows, length, SEED, s=1.1, q=2.0))
            else:
                due.append(synth.synthesize(name, rows, length, SEED))
        assert [made.tolist() for made in found] == [made.tolist() for made in due]
        shared = len(found) - len({id(made) for made in found})
        assert shared == (0 if dataset == "mixed" else 3)


def test_of_several_bad_traces_the_first_one_is_named(tmp_path: Path) -> None:
    groups = recorded("item", 20), recorded("large", 16), recorded("gone", 20), recorded("lost", 20)
    keep(tmp_path, cell("own", *groups[:1]), ITEM)
    keep(tmp_path, cell("own", *groups[1:2]), ITEM)
    with pytest.raises(BadInputError, match=r"traces/large-0+\.npy: access 7: row 16 is outside the table"):
        replay.read_traces(cell("own", *groups), tmp_path)
    with pytest.raises(BadInputError, match=r"traces/gone-0+\.npy: cannot be read"):
        replay.read_traces(cell("own", groups[0], *groups[2:]), tmp_path)


def test_long_traces_are_made_a_few_at_once() -> None:
    assert replay._at_once(2**26) == replay._at_once(2**40) == 1
    assert replay._at_once(0) >= replay._at_once(2**24) >= 1


@pytest.mark.parametrize("begin", [0, 3, 6, 7, 40])
@pytest.mark.parametrize("count", [-2, 0, 1, 4, 7, 8, 30])
def test_what_is_taken_wraps_round(begin: int, count: int) -> None:
    trace = np.arange(7) ** 2
    assert replay.taken(trace, begin, begin + count).tolist() == [
        trace[at % 7] for at in range(begin, begin + count)
    ]
