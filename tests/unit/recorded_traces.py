"""Two small traces, a model whose tables replay them, and what the tests beside it do with these."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from harness import models, tuning
from harness.bench import batch
from harness.bench.batch import Batch
from harness.bench.tables import Tables
from harness.cli import cli
from harness.errors import BadInputError
from harness.records import Cell, Dataset, Timing
from harness.traces import copies, recorded
from harness.traces.stretches import Stretches
from harness.traces.trace import array_blocks, write_trace

USER = [[3, 1], [], [4], [1, 5, 9], [2, 6], [], [5]]
"""Row numbers of each bag."""
ITEM = [[10], [11, 12], [13], [], [14], [15, 16, 17], [18]]
MODEL = """
title = "Mine"
source = "me"
batch = 3
tables = [
    { rows = 10, dim = 8, trace = "user", bags = "own" },
    { rows = 20, dim = 4, trace = "deeper/item", bags = "own" },
]
"""
CPU = ("workload.device=cpu", "replicates=1", "timing.max_seconds=0.05", "timing.min_passes=3")


def trace(folder: Path, bags: Sequence[Sequence[int]], rows: int, *, own: bool = True) -> Path:
    indices = np.array([row for bag in bags for row in bag], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])]) if own else None
    write_trace(folder, array_blocks(indices), rows=rows, origin="by hand", offsets=offsets)
    return folder


def with_traces(folder: Path) -> Path:
    """The folder, with the model's traces in it."""
    trace(folder / "user", USER, 10)
    trace(folder / "deeper" / "item", ITEM, 20)
    return folder


def model(folder: Path, text: str = MODEL) -> Path:
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return folder / "mine.toml"


def refused(folder: Path, text: str = MODEL) -> str:
    with pytest.raises(BadInputError) as error:
        models.read(str(model(folder, text)))
    return str(error.value)


def run(folder: Path, *options: str, text: str = MODEL) -> tuple[int, str]:
    command = ["run", "--model", str(model(folder, text)), "--design", "stock", "--local", *options]
    command += ["--output", str(folder / "run"), *(part for one in CPU for part in ("--set", one))]
    ran = CliRunner().invoke(cli, command)
    if isinstance(ran.exception, BadInputError):
        return 2, str(ran.exception)
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.output


def laid_out(folder: Path, text: str = MODEL, name: str = "own", **changes: object) -> tuple[Cell, Path]:
    """A cell of the model on the CPU, and a folder with the copies that a run has of its traces."""
    work = models.read(str(model(folder, text))).example()
    work = dataclasses.replace(work, device="cpu", **changes)  # type: ignore[arg-type]
    root = folder / "laid out"
    (root / "traces").mkdir(parents=True, exist_ok=True)
    for table in recorded.traces_of(work.groups):
        copies.copy(table, partial(tuning.write, root))
    return Cell("a", "stock", "pytorch", Dataset(name), work, Timing(), 0, 1), root


def batches(cell: Cell, root: Path, count: int) -> list[Batch]:
    stretches = Stretches.read(cell, root)
    return [batch.make(cell, stretches, Tables([]), number) for number in range(count)]


def bags_of(made: Batch, feature: int) -> list[list[int]]:
    """Row numbers of each bag, as the operator meets them."""
    begins = made.starts(feature).tolist()
    rows = made.indices[feature].tolist()
    return [rows[begin:end] for begin, end in zip(begins, [*begins[1:], len(rows)], strict=True)]
