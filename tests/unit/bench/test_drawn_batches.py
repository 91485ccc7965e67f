"""What each kind of traffic draws stays as it is: rows, bags, whose turn it is, what is pinned."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from torch import Tensor

from harness import models
from harness.bench import batch, hot_rows, rotation
from harness.bench.tables import Tables
from harness.records import Cell, Dataset
from harness.traces.stretches import Stretches
from harness.validation import validated
from harness.workload import Workload
from tests.unit.recorded_traces import MODEL, laid_out, with_traces

Laid = tuple[Cell, Path]
"""A cell, and the folder where its traces lie."""
Make = Callable[..., Cell]
Kind = Callable[[Make, Path], Laid]
L2_BYTES, PINNED, BATCHES = 20_000, 5, 3


def uniform(cell: Make, folder: Path) -> Laid:
    return cell(dataset=Dataset("random")), folder


def skewed(cell: Make, folder: Path) -> Laid:
    return cell(dataset=Dataset("skewed"), bags="ragged", index_dtype="int32"), folder


def mixed(cell: Make, folder: Path) -> Laid:
    return cell(dataset=Dataset("mixed"), tables=5, hot_rows="oracle"), folder


def trace(cell: Make, folder: Path) -> Laid:
    np.save(folder / "mine.npy", np.arange(997) ** 2 % 1999)
    return cell(dataset=Dataset("mine", "mine.npy")), folder


def model_file(cell: Make, folder: Path) -> Laid:
    """One that ships, and a batch of it that is small."""
    found = models.read("dlrm_dcnv2")
    work = validated(Workload, found.workload(2000) | {"batch": 32, "device": "cpu"}, "dlrm_dcnv2")
    return dataclasses.replace(cell(dataset=Dataset("skewed")), workload=work), folder


def laws(cell: Make, folder: Path) -> Laid:
    """Of tables in a model's file, and bags of several kinds."""
    tables = """tables = [
        { rows = 300, dim = 4, count = 2, pooling = 3, zipf_s = 1.1, zipf_q = 2.0 },
        { rows = 50, dim = 8, features = 2, pooling = 4, bags = "normal", deviation = 2.0, coverage = 0.7 },
        { rows = 90, dim = 4, pooling = 2, hottest = [0.3, 0.1], zipf_s = 0.8 },"""
    return laid_out(folder, MODEL[: MODEL.index("tables")] + tables + "\n]\n")


def own_bags(cell: Make, folder: Path) -> Laid:
    return laid_out(with_traces(folder))


def own_bags_of_a_shared_trace(cell: Make, folder: Path) -> Laid:
    """One feature lays bags of its own over it, the others replay those in it."""
    text = MODEL.replace('trace = "deeper/item", bags', 'count = 2, trace = "user", bags').replace(
        "\n]\n", '\n    { rows = 20, dim = 4, trace = "user", pooling = 2 },\n]\n'
    )
    return laid_out(with_traces(folder), text)


def own_bags_over_other_rows(cell: Make, folder: Path) -> Laid:
    return laid_out(with_traces(folder), name="random")


class Drawn(NamedTuple):
    """Beginnings of SHA-256 are of row numbers as 64 bits."""

    rows_and_bags: str
    pinned: str
    pinned_bytes: int
    batches: int
    bytes_between_turns: float
    bytes_until_trace_repeats: float


KINDS: dict[Kind, Drawn] = {
    uniform: Drawn("ba0e69225e4b98e2", "963b6fa43033b8db", 120, 2, 84949.33333333333, 84949.33333333333),
    skewed: Drawn("3f0551503007c1aa", "ec863b0e1e3d23df", 120, 3, 63040, 63040),
    mixed: Drawn("4e466a602361aa45", "5e64e61ba9ed63f0", 600, 2, 97638.40000000001, 97638.40000000001),
    trace: Drawn("52f2d5dde1775200", "c6350529d4ec4f85", 360, 2, 96512, 96512),
    model_file: Drawn("295365aed3e16ffb", "74aaa375d5fb5595", 1_040, 2, 2426624, 2426624),
    laws: Drawn("feadf2d59c1bc8d3", "37eeed3bfb1cc92d", 200, 129, 64992, 36344),
    own_bags: Drawn("e1030cade76358f1", "b2c403c260a76bee", 240, 1_025, 115200, 480),
    own_bags_of_a_shared_trace: Drawn("365d2ecdb9ef53f0", "3a95606c6c602bc0", 480, 257, 62240, 672),
    own_bags_over_other_rows: Drawn("e720feb376ced992", "a147ed6480af1cf6", 80, 1_025, 115472, 7840),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_kind_of_traffic_is_drawn_as_it_always_was(cell: Make, tmp_path: Path, kind: Kind) -> None:
    one, root = kind(cell, tmp_path)
    stretches = Stretches.read(one, root)
    made = [batch.make(one, stretches, Tables([]), number) for number in range(BATCHES)]
    chosen = hot_rows.choose(one, stretches, made, PINNED)
    planned = rotation.plan(one, stretches, L2_BYTES)
    found = Drawn(
        digest(tensor for drawn in made for tensor in (*drawn.indices, drawn.offsets)),
        digest(rows for tables in chosen for rows in tables),
        hot_rows.held_bytes(one, stretches, BATCHES, PINNED),
        planned.batches,
        planned.facts["bytes_between_turns"],
        planned.facts["bytes_until_trace_repeats"],
    )
    assert found == KINDS[kind]


def digest(tensors: Iterable[Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.numpy().astype("<i8").tobytes())
    return found.hexdigest()[:16]
