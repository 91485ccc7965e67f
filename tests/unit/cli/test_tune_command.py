"""`harness tune`: what it takes, and a plan by a clock that the tests wind up."""

from __future__ import annotations

import contextlib
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from harness import tuning
from harness.cli import cli
from harness.errors import BadInputError, MachineError
from harness.run import gpu as gpus
from harness.run import lease
from tests.served_package import Choice, Plan, ek
from tests.unit.embedding_kernels.plans import WoundUp

MODEL = """
title = "Small"
source = "made up"
batch = 6
tables = [
    { rows = 50, dim = 8, pooling = 3, count = 2 },
    { rows = 20, dim = 4, features = 2, bags = "normal", pooling = 4, deviation = 2.0 },
]
"""


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["tune", *arguments], catch_exceptions=True)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "small.toml"
    path.write_text(MODEL, encoding="utf-8")
    return str(path)


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes this machine's CPU for a GPU, and its times from the test."""
    board = gpus.Gpu(0, "GPU-test", "NVIDIA TEST", "580.1", 1, 1)
    monkeypatch.setattr(gpus, "find", lambda choice: [board])
    monkeypatch.setattr(lease, "gpu", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    clock = WoundUp(fused=10, own=20, vectorized=8, float16=5)
    monkeypatch.setattr(tuning, "tune", functools.partial(tuning.tune, device="cpu", clock=clock))


@pytest.mark.usefixtures("on_the_cpu")
@pytest.mark.parametrize("traffic", [(), ("--traffic", "skewed"), ("--traffic", "rows.npy")])
def test_a_plan_is_written_that_optimize_takes(
    model: str, traffic: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("rows.npy", np.arange(400) % 20)
    result = harness(model, *traffic, "--output", "new/plan.json")
    assert result.exit_code == 0, result.output
    assert "vectorized, 8.0 µs (" in result.stdout
    assert 'optimize(model, plan="new/plan.json")' in result.stdout
    made = Plan.load("new/plan.json")
    (group,) = made.groups
    assert [(each.count, each.rows, each.dim) for each in group.tables] == [(2, 50, 8), (2, 20, 4)]
    monkeypatch.setattr(Plan, "differences", lambda self, device: "")
    shared = torch.nn.EmbeddingBag(20, 4, mode="sum")
    bags = [torch.nn.EmbeddingBag(50, 8, mode="sum") for _ in range(2)]
    served = ek.optimize([*bags, shared, shared], plan="new/plan.json", strict=True)
    assert set(served.kernels) == {"vectorized"}


@pytest.mark.usefixtures("on_the_cpu")
def test_options_and_json(model: str) -> None:
    result = harness(model, "--row-type", "float16", "--batch", "3", "--max-rows", "30", "--graph", "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads(Path("plan.json").read_text(encoding="utf-8"))
    assert printed["protocol"]["decided_by"] == "graph"
    (group,) = Plan.load("plan.json").groups
    assert group.choice == Choice("fused", "float16")
    assert group.tables[0].rows == 30


@pytest.mark.usefixtures("on_the_cpu")
def test_when_memory_is_crowded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("long.toml").write_text(
        'title = "Long"\nsource = "made up"\nbatch = 40\n'
        "tables = [{ rows = 500, dim = 128, pooling = 70, count = 2 }]\n",
        encoding="utf-8",
    )
    clock = WoundUp(fused=10, own=20, crowded450=5)
    monkeypatch.setattr(tuning, "tune", functools.partial(tuning.tune.func, device="cpu", clock=clock))  # type: ignore[attr-defined]
    result = harness("long.toml")
    assert result.exit_code == 0, result.output
    assert "fused crowded_clocks=450, 5.0 µs (" in result.stdout
    (group,) = Plan.load("plan.json").groups
    assert group.choice == Choice("fused", "unchanged", crowded_clocks=450)
    tried = {each.choice.crowded_clocks for each in group.candidates}
    assert tried == {None, 0, 300, 450, 800, 2**24 - 1}


@pytest.mark.usefixtures("on_the_cpu")
def test_weighted_models_and_half_tables(model: str) -> None:
    Path(model).write_text(f'weighted = true\ndtype = "float16"\n{MODEL}', encoding="utf-8")
    result = harness(model)
    assert result.exit_code == 0, result.output
    (group,) = Plan.load("plan.json").groups
    assert [each.why_not for each in group.candidates] == ["", "", ""]


def test_dry_run_says_what_would_be_measured(model: str) -> None:
    result = harness(model, "--dry-run", "--row-type", "int8")
    assert result.exit_code == 0, result.output
    assert "Nothing was measured (--dry-run)." in result.stdout
    assert (
        "fused, also with other limits; vectorized, or rows converted to int8; PyTorch's own lookup"
        in result.stdout
    )
    printed = json.loads(harness(model, "--dry-run", "--json").stdout)
    assert printed["features"] == 4
    assert printed["traffic"] == "random"
    assert not Path("plan.json").exists()
    own = json.loads(harness("recflex_a", "--dry-run", "--json").stdout)
    assert own["traffic"] == "random"


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (["none"], BadInputError, "is neither a model's file nor one of those"),
        (["MODEL", "--traffic", "none"], BadInputError, "--traffic none: is no file and no trace's folder"),
        (["MODEL", "--gpu", "0,1"], BadInputError, "--gpu 0,1: a plan is of one GPU"),
        (["MODEL", "--batch", "9999999"], BadInputError, "make it smaller"),
        (["MODEL"], MachineError, "harness tune measures on an NVIDIA GPU, and this machine has none"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    model: str, arguments: list[str], kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> list[Any]:
        raise MachineError("There is no NVIDIA GPU with a working driver.")

    monkeypatch.setattr(gpus, "gpus", none)
    result = harness(*(model if argument == "MODEL" else argument for argument in arguments))
    assert isinstance(result.exception, kind), result.output
    assert words in str(result.exception)


def test_quantised_models_are_refused(model: str) -> None:
    Path(model).write_text('dtype = "int8"\n' + MODEL.replace("dim = 4", "dim = 8"), encoding="utf-8")
    result = harness(model, "--dry-run")
    assert isinstance(result.exception, BadInputError)
    assert "allow the rows with --row-type int8" in str(result.exception)


def test_there_are_more_batches_where_narrower_rows_are_tried(tmp_path: Path) -> None:
    path = tmp_path / "wide.toml"
    path.write_text(
        'title = "Wide"\nsource = "made up"\nbatch = 64\n'
        "tables = [{ rows = 100_000, dim = 128, pooling = 20 }]\n",
        encoding="utf-8",
    )
    several = [
        len(tuning.batches_of(tuning.asked(str(path), row_types=types), "cpu", l2_bytes=10**6))
        for types in ((), ("float16",), ("float16", "int8"))
    ]
    assert several == sorted(set(several)), "a batch touches half as much, then a quarter"


@pytest.mark.usefixtures("on_the_cpu")
def test_a_trace_of_other_tables_is_refused(model: str) -> None:
    np.save("rows.npy", np.arange(400))
    result = harness(model, "--traffic", "rows.npy")
    assert isinstance(result.exception, BadInputError)
    assert "rows.npy" in str(result.exception)


def test_the_package_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "embedding_kernels", None)
    with pytest.raises(MachineError, match="embedding-kernels: it is not installed; `make wheel` builds it"):
        tuning.package()
