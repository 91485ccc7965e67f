"""The serving comparison, on the CPU at tiny sizes."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import signal
import sys
import types
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
    assert [each["batch"] for each in record["batches"]] == record["asked_batches"] == [1, 4]
    assert record["finished"] is True
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


def _of(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "out" / "serving.json").read_text(encoding="utf-8"))


def test_it_says_what_it_does(compare: Any) -> None:
    code, told = compare("--device", "cpu", "--batch", "4")
    assert code == 0, told
    said = [line.removeprefix("Serving: ") for line in told.splitlines() if line.startswith("Serving: ")]
    batch = [line.removeprefix("batch 4: ") for line in said if line.startswith("batch 4: ")]
    assert said[:5] == [
        "PyTorch is loaded",
        "TorchRec and FBGEMM are loaded",
        "3 tables are made, 0.0 GB",
        "FBGEMM's tables of float32 are made of them",
        "the same model after optimize is made",
    ]
    assert batch[:4] == [
        "requests are made",
        "outputs of both are compared on 2 requests",
        "torchrec_fbgemm, CUDA graphs of 2 requests",
        "embedding_kernels, CUDA graphs of 2 requests",
    ]
    warming = {f"{name}, eager, warming up" for name in ("torchrec_fbgemm", "embedding_kernels")}
    assert set(batch[4:6]) == warming
    assert batch[6].startswith("2 blocks of torchrec_fbgemm eager, embedding_kernels eager; about ")


class Interrupted:
    """Ends the command by a signal when it comes to a batch size, and counts those measured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from harness.run.checkout import Commit
        from kernel_wheel import comparison, side_by_side

        self.at = 0
        self.measured: list[int] = []
        self.commit = Commit("c0ffee", dirty=False)
        measured = side_by_side.measured

        def stand_in(models: Any, asked: Any, how: Any, *others: Any) -> Any:
            if how.batch == self.at:
                signal.raise_signal(signal.SIGTERM)
            self.measured.append(how.batch)
            return measured(models, asked, how, *others)

        monkeypatch.setattr(side_by_side, "measured", stand_in)
        monkeypatch.setattr(comparison, "commit_of", lambda *_, **__: self.commit)


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    return Interrupted(monkeypatch)


def test_interrupted_it_keeps_what_it_has_and_goes_on(
    compare: Any, tmp_path: Path, interrupted: Interrupted
) -> None:
    arguments = ("--device", "cpu", "--batch", "1", "4", "2")
    interrupted.at = 4
    code, told = compare(*arguments)
    target = tmp_path / "out" / "serving.json"
    assert code == 130
    assert told.splitlines()[-1] == (
        f"Interrupted; 2 of 3 batch sizes are kept in {target}, and the same command goes on with the others."
    )
    first = _of(tmp_path)
    assert first["finished"] is False
    assert [each["batch"] for each in first["batches"]] == [1, 2]
    assert [path.name for path in target.parent.iterdir()] == ["serving.json"]

    interrupted.at = 0
    code, told = compare(*arguments)
    assert code == 0, told
    assert interrupted.measured == [1, 2, 4]
    second = _of(tmp_path)
    assert second["finished"] is True
    assert [each["batch"] for each in second["batches"]] == [1, 2, 4]
    assert second["batches"][:2] == first["batches"]
    assert second["at"] == first["at"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"--blocks": "3"}, "was begun with another blocks; name another folder"),
        ({"--row-type": "float16", "--seed": "5"}, "was begun with another row_type, seed; name"),
    ],
)
def test_other_arguments_do_not_go_on_with_it(
    compare: Any, tmp_path: Path, interrupted: Interrupted, changed: dict[str, str], words: str
) -> None:
    interrupted.at = 4
    assert compare("--device", "cpu", "--batch", "1", "4")[0] == 130
    before = _of(tmp_path)
    given = [word for pair in changed.items() for word in pair]
    code, told = compare("--device", "cpu", "--batch", "1", "4", *given)
    assert code == 2
    assert words in told
    assert _of(tmp_path) == before


@pytest.mark.parametrize(("asked", "measured"), [(["1"], [1]), (["2", "1"], [1, 2]), (["2"], [1, 2])])
def test_other_batch_sizes_may_be_asked_for_when_it_goes_on(
    compare: Any, tmp_path: Path, interrupted: Interrupted, asked: list[str], measured: list[int]
) -> None:
    interrupted.at = 4
    assert compare("--device", "cpu", "--batch", "1", "4")[0] == 130
    code, told = compare("--device", "cpu", "--batch", *asked)
    assert code == 0, told
    record = _of(tmp_path)
    assert [each["batch"] for each in record["batches"]] == record["asked_batches"] == measured
    assert record["finished"] is True


def test_too_little_memory_for_a_batch_keeps_the_others(
    compare: Any, tmp_path: Path, interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kernel_wheel import comparison, torchrec_model

    made = torchrec_model.requests

    def requests(what: Any, *given: Any) -> Any:
        if what.work.batch == 4:
            raise torch.OutOfMemoryError
        return made(what, *given)

    monkeypatch.setattr(comparison, "requests", requests)
    code, told = compare("--device", "cpu", "--batch", "1", "4")
    assert code == 5
    assert " twice at batch 4; 1 of 2 batch sizes are kept in " in told
    assert told.endswith("Cut its tables down with --max-rows, or leave such batches out.\n")
    assert [each["batch"] for each in _of(tmp_path)["batches"]] == interrupted.measured == [1]


def test_neither_another_commit_nor_changed_sources_nor_another_gpu_go_on_with_it(
    compare: Any, tmp_path: Path, interrupted: Interrupted, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.run.checkout import Commit
    from kernel_wheel import side_by_side

    arguments = ("--device", "cpu", "--batch", "1", "4")
    interrupted.at = 4
    assert compare(*arguments)[0] == 130
    interrupted.commit = Commit("another", dirty=False)
    assert "was begun with another commit; name" in compare(*arguments)[1]
    interrupted.commit = Commit("c0ffee", dirty=False)
    with monkeypatch.context() as patched:
        other = dataclasses.replace(side_by_side.CpuClock.gpu, driver="580.2")
        patched.setattr(side_by_side.CpuClock, "gpu", other)
        assert "was begun with another gpu; name" in compare(*arguments)[1]
    assert [each["batch"] for each in _of(tmp_path)["batches"]] == [1]

    (tmp_path / "out" / "serving.json").unlink()
    interrupted.commit = Commit("c0ffee", dirty=True)
    code, told = compare(*arguments)
    assert code == 130
    assert "but of sources that are no commit's, so that no other command goes on with it." in told
    code, told = compare(*arguments)
    assert code == 2
    assert "which may have changed since; name another folder" in told


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 2}'])
def test_what_is_no_record_is_left_alone(compare: Any, tmp_path: Path, text: str) -> None:
    target = tmp_path / "out" / "serving.json"
    target.parent.mkdir()
    target.write_text(text, encoding="utf-8")
    code, told = compare("--device", "cpu", "--batch", "1")
    assert code == 2
    assert f"{target}: is no " in told
    assert "name another folder, or remove it." in told
    assert target.read_text(encoding="utf-8") == text


def test_interrupted_before_anything_is_measured_it_says_so(compare: Any, interrupted: Interrupted) -> None:
    interrupted.at = 1
    code, told = compare("--device", "cpu", "--batch", "1")
    assert (code, told.splitlines()[-1]) == (130, "Interrupted; nothing had been measured.")


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
    sentences = [line for line in told.splitlines() if not line.startswith("Serving: ")]
    assert len(sentences) == 1
    assert not (tmp_path / "out" / "serving.json").exists()


def test_tables_beyond_the_memory_are_refused(compare: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from kernel_wheel import comparison

    tables = 2 * 50 * 16 * 4 + 20 * 16 * 4
    monkeypatch.setattr(comparison, "free_host_bytes", lambda: 3 * tables - 1)
    code, told = compare("--device", "cpu")
    assert code == 5
    assert "are free; cut its tables down with --max-rows" in told
    monkeypatch.setattr(comparison, "free_host_bytes", lambda: 3 * tables)
    code, told = compare("--device", "cpu", "--batch", "1")
    assert code == 0, told


def test_a_library_without_a_distribution_tells_its_version_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernel_wheel import comparison

    module = types.ModuleType("nobodys_library")
    assert comparison._version("nobodys-library") == ""
    monkeypatch.setitem(sys.modules, "nobodys_library", module)
    assert comparison._version("nobodys-library") == ""
    module.__version__ = "1.2"  # type: ignore[attr-defined]
    assert comparison._version("nobodys-library") == "1.2"
