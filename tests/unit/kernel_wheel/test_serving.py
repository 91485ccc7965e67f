"""The serving comparison, on the CPU at tiny sizes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.served_package import ek, import_torchrec
from tests.unit.embedding_kernels import plans

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("torchrec") is None, reason="needs TorchRec (`make setup`)"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
MODEL = """
title = "Small"
source = "made up"
tables = [{ rows = 50, dim = 16, pooling = 3, count = 2 }, { rows = 20, dim = 16, features = 2 }]

[dense]
dense_features = 5
bottom = [8, 16]
top = [8, 1]
"""
CROSS = "cross_layers = 1\ncross_rank = 4\n"


@pytest.fixture
def compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command: exit code, and what it says."""
    import_torchrec()
    from kernel_wheel import serving

    def run(*arguments: str, model: str = MODEL + CROSS) -> tuple[int, str]:
        path = tmp_path / "small.toml"
        path.write_text(model, encoding="utf-8")
        given = [str(tmp_path / "out"), "--model", str(path), "--blocks", "2", "--passes", "3", *arguments]
        monkeypatch.setattr(sys, "argv", ["serving", *given])
        code = serving.main()
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


@pytest.mark.parametrize("row_type", ["float32", "int8"])
def test_a_record_of_every_batch_size(compare: Any, tmp_path: Path, row_type: str) -> None:
    code, told = compare("--device", "cpu", "--batch", "1", "4", "--row-type", row_type)
    assert code == 0, told
    record = json.loads((tmp_path / "out" / "serving.json").read_text(encoding="utf-8"))
    assert [each["batch"] for each in record["batches"]] == [1, 4]
    assert record["packages"]["torch"] == torch.__version__
    assert record["row_type"] == row_type
    assert {"commit", "dirty", "gpu", "at", "seed"} <= record.keys()
    for each in record["batches"]:
        assert set(each["models"]) == {"torchrec_fbgemm", "embedding_kernels"}
        assert each["largest_differences"]["embeddings"] < 1e-3
        for model in each["models"].values():
            found = model["eager"]
            assert len(found["us"]) == 6
            assert len(found["rates"]) == 2
            assert min(found["us"]) - 0.01 <= found["p50_us"] <= found["p95_us"] <= found["p99_us"]
            assert found["samples_per_s"] > 0
            assert model["why_no_graph"] == "there is no GPU"
    code, told = compare("--device", "cpu")
    assert code == 2
    assert "is there already; name another folder" in told


def test_the_models_are_the_same_and_one_is_swapped(compare: Any, tmp_path: Path) -> None:
    from harness import tuning
    from harness.errors import HarnessError
    from kernel_wheel import torchrec_model

    (tmp_path / "dot.toml").write_text(MODEL, encoding="utf-8")
    what = tuning.asked(str(tmp_path / "dot.toml"), batch=4)
    with torch.no_grad():
        pair = torchrec_model.make_pair(what, "float16", "cpu", None)
        asked = torchrec_model.requests(what, tuning.batches_of(what, "cpu", None), "cpu")
        found = pair.largest_differences(asked)
        theirs: Any = pair.theirs
        ours: Any = pair.ours
        assert found.keys() == {"embeddings", "logits"}
        assert isinstance(ours.sparse_arch.embedding_bag_collection, ek.EmbeddingTables)
        assert not isinstance(theirs.sparse_arch.embedding_bag_collection, ek.EmbeddingTables)
        assert theirs(*asked[0]()).abs().max() > 0
        ours.sparse_arch.embedding_bag_collection.weight(1).fill_(1)
        with pytest.raises(HarnessError, match=r"The embeddings of the two models differ by .*nothing is"):
            pair.largest_differences(asked)


@pytest.mark.parametrize(
    ("arguments", "model", "code", "words"),
    [
        ((), MODEL, 5, "PyTorch"),
        (("--device", "cpu"), MODEL.split("[dense]")[0], 2, "has no dense part"),
        (("--device", "cpu", "--batch", "0"), MODEL, 2, "are 1 at the least"),
        (("--device", "cpu", "--plan", "PLAN"), MODEL, 2, "The plan is not of this model and GPU"),
        (("--device", "cpu", "--plan", "none.json"), MODEL, 2, "none.json: cannot be read"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    compare: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    model: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan = tmp_path / "plan.json"
    plans.plan(plans.group("", plans.shape(50, 16))).save(plan)
    given = [str(plan) if argument == "PLAN" else argument for argument in arguments]
    found, told = compare(*given, model=model)
    assert found == code, told
    assert words in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out" / "serving.json").exists()


def test_tables_beyond_the_memory_are_refused(compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernel_wheel import serving

    tables = 2 * 50 * 16 * 4 + 20 * 16 * 4
    monkeypatch.setattr(serving, "free_host_bytes", lambda: 3 * tables - 1)
    code, told = compare("--device", "cpu")
    assert code == 5
    assert "are free; cut its tables down with --max-rows" in told
    monkeypatch.setattr(serving, "free_host_bytes", lambda: 3 * tables)
    code, told = compare("--device", "cpu", "--batch", "1")
    assert code == 0, told
