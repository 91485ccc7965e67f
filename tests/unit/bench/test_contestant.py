"""What a pass calls, and that the design is given the batch as it lies in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import patch
from harness.bench import batch, check
from harness.bench.batch import Batch
from harness.bench.design import Contestant
from harness.bench.tables import TableStore
from harness.patch import manifest
from harness.patch.quantise import QuantisedTables
from harness.records import Cell
from harness.traces.stretches import Stretches


@pytest.fixture
def made(cell: Callable[..., Cell]) -> Callable[..., Batch]:
    def make(**changes: object) -> Batch:
        one = cell(**changes)
        trace = np.random.default_rng(3).integers(0, one.workload.rows, 500)
        stretches = Stretches(one, [trace] * one.workload.tables)
        return batch.make(one, stretches, TableStore().get(one.workload, one.seed))

    return make


@pytest.fixture
def fused(compiled_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Contestant:
    """A design for all tables, whose kernel is a loop on the CPU."""

    def embedding_bags(
        weights: Sequence[Tensor] | QuantisedTables,
        indices: Tensor,
        offsets: Tensor,
        *,
        mode: str,
        per_sample_weights: Tensor | None,
        output_dtype: torch.dtype,
    ) -> Tensor:
        count = len(weights.data) if isinstance(weights, QuantisedTables) else len(weights)
        bags = (len(offsets) - 1) // count
        outputs = []
        for table in range(count):
            part = slice(int(offsets[table * bags]), int(offsets[(table + 1) * bags]))
            if isinstance(weights, QuantisedTables):
                values = weights.dequantise(table)
            else:
                values = weights[table].float()
            starts = offsets[table * bags : (table + 1) * bags] - part.start
            scales = None if per_sample_weights is None else per_sample_weights[part]
            outputs.append(
                torch.nn.functional.embedding_bag(
                    indices[part], values, starts, mode=mode, per_sample_weights=scales
                )
            )
        return torch.cat(outputs, dim=1).to(output_dtype)

    monkeypatch.setattr(patch, "embedding_bags", embedding_bags)
    found = dataclasses.replace(manifest.read(compiled_folder), all_tables=True)
    return Contestant(compiled=found)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize(
    ("mode", "weighted", "index_dtype"),
    [("sum", False, "int64"), ("sum", True, "int32"), ("mean", False, "int64")],
)
def test_a_design_for_all_tables_is_one_call_and_passes_the_check(
    made: Callable[..., Batch], fused: Contestant, dtype: str, index_dtype: str, mode: str, weighted: bool
) -> None:
    given = made(dtype=dtype, index_dtype=index_dtype, mode=mode, weighted=weighted, bags="ragged")
    (call,) = fused.binder(given)(given)
    assert call().shape == (32, 3 * 16)
    found = check.run(given, bind=fused.binder(given))
    assert found.passed, found.worst
    assert found.elements == (3 + 2) * 32 * 16


def test_any_other_is_a_call_for_each_table(made: Callable[..., Batch]) -> None:
    given = made()
    calls = Contestant().binder(given)(given)
    assert [torch.equal(call(), given.lookup(table)) for table, call in enumerate(calls)] == [True] * 3
