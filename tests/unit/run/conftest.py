"""A small experiment that needs no GPU, and a runner that stands in for containers."""

from __future__ import annotations

import pytest

from harness.experiment import Experiment
from harness.records import Timing, Variant, Workload
from tests.pretended_runner import FakeRunner


@pytest.fixture
def experiment() -> Experiment:
    """Two arms, two datasets, two replicates: eight cells in four launches."""
    return Experiment(
        name="small",
        title="A small one",
        arms=(Variant("baseline", "12.1"), Variant("stock", "pytorch")),
        reference="baseline@12.1",
        datasets=("one_item", "random"),
        workload=Workload(tables=2, rows=1000, dim=16, batch=8, pooling=4, device="cpu"),
        timing=Timing(max_seconds=0.05),
        replicates=2,
    )


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()
