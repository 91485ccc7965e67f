"""The patch in PyTorch, without a GPU: here it replaces the CPU's kernels, whose tables no design takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import patch
from harness.errors import BadInputError, HarnessError, MachineError
from harness.patch import build, definition

ENTRIES = ("aten::_embedding_bag", "aten::_embedding_bag_forward_only")


def apply_on_cpu(folder: Path) -> None:
    patch._apply(folder, {}, "CPU")


def kernels_of_pytorch() -> list[str]:
    return [torch._C._dispatch_dump(name) + torch._C._dispatch_dump_table(name) for name in ENTRIES]


def lookup(weight: torch.Tensor, mode: int = 0) -> tuple[torch.Tensor, ...]:
    return torch.embedding_bag(weight, torch.tensor([1, 2, 4, 5]), torch.tensor([0, 0, 3]), mode=mode)


def test_both_operators_are_replaced_and_pytorchs_kernel_answers_what_the_design_cannot(
    make_design: Any,
) -> None:
    weight = torch.randn(10, 3)
    trained = weight.clone().requires_grad_()
    expected, expected_trained = lookup(weight, mode=2), lookup(trained, mode=2)
    (gradient,) = torch.autograd.grad(expected_trained[0].sum(), trained)

    apply_on_cpu(make_design())
    assert patch.active() == "two_way"
    assert patch.calls() == {"design": 0, "stock": 0, "kernel": "", "arch": "", "fallback": ""}
    got = lookup(weight, mode=2)
    assert patch.calls()["stock"] == 1
    got_trained = lookup(trained, mode=2)
    assert patch.calls()["stock"] == 2
    assert patch.calls()["fallback"] == "the table is not on a CUDA device"
    assert all(torch.equal(a, b) for a, b in zip(got + got_trained, expected + expected_trained, strict=True))
    (got_gradient,) = torch.autograd.grad(got_trained[0].sum(), trained)
    assert torch.equal(got_gradient, gradient)


def test_what_pytorch_refuses_it_still_refuses_in_its_own_words(make_design: Any) -> None:
    def refused() -> str:
        with pytest.raises(RuntimeError) as caught:
            torch.embedding_bag(torch.randn(10, 3), torch.tensor([1, 11]), torch.tensor([0]))
        return str(caught.value)

    expected = refused()
    apply_on_cpu(make_design())
    assert refused() == expected
    assert patch.calls()["stock"] == 1


def test_remove_leaves_pytorch_as_it_was_however_often(make_design: Any) -> None:
    folder, other = make_design(), make_design("other")
    patch.remove()
    before = kernels_of_pytorch()
    for key in ("CPU", "CUDA", "CPU"):
        patch._apply(folder, {}, key)
        assert all(now != was for now, was in zip(kernels_of_pytorch(), before, strict=True))
        patch._apply(other, {}, key)  # takes the first one's place
        patch._apply(folder, {}, key)
        patch._apply(other, {}, key)
        assert patch.active() == "other"
        patch.remove()
        patch.remove()
        assert patch.active() is None
        assert kernels_of_pytorch() == before
    lookup(torch.randn(10, 3))
    assert patch.calls()["stock"] == 0


def test_nothing_is_said_about_the_kernels_replaced_but_other_such_warnings_are(make_design: Any) -> None:
    folder = make_design()
    torch.set_warn_always(True)
    try:
        apply_on_cpu(folder)  # warnings are errors in these tests
        library = torch.library.Library("aten", "IMPL")
        with pytest.warns(UserWarning, match="Overriding a previously registered kernel"):
            library.impl("_embedding_bag", lambda *arguments: None, "CPU")
        library._destroy()
    finally:
        torch.set_warn_always(False)


def test_threads_may_look_up_at_once(make_design: Any) -> None:
    apply_on_cpu(make_design())
    weight = torch.randn(10, 3)
    expected = lookup(weight)[0]
    wrong: list[torch.Tensor] = []

    def work() -> None:
        for _ in range(200):
            if not torch.equal(result := lookup(weight)[0], expected):
                wrong.append(result)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert patch.calls()["stock"] == 1 + 4 * 200


def manifest_says(text: str, other: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        assert text in path.read_text(encoding="utf-8")
        path.write_text(path.read_text(encoding="utf-8").replace(text, other))

    return change


@pytest.mark.parametrize(
    ("tunables", "break_it", "said"),
    [
        ({"distanse": 2}, None, "no tunable 'distanse'; known: distance, pinned_rows"),
        ({"distance": 3}, None, "not compiled for distance = 3; compiled: 2, 4"),
        ({}, lambda folder: (folder / "manifest.json").unlink(), "manifest.json: cannot be read"),
        ({}, lambda folder: (folder / "sm_90.cubin").unlink(), "sm_90.cubin: is not the file"),
        ({}, lambda folder: (folder / "sm_80.cubin").write_bytes(b"cut"), "sm_80.cubin: is not the file"),
        ({}, manifest_says('"all_tables": false', '"all_tables": true'), "lists no lookup_tables"),
        ({}, manifest_says('"arch": "sm_90"', '"arch": "ninety"'), "'ninety' is not an architecture"),
    ],
)
def test_a_wrong_design_or_tunable_is_one_sentence_and_leaves_pytorch_alone(
    make_design: Any, tunables: dict[str, int], break_it: Callable[[Path], None] | None, said: str
) -> None:
    folder = make_design()
    before = kernels_of_pytorch()
    if break_it:
        break_it(folder)
    with pytest.raises(BadInputError, match=said):
        patch.apply(folder, tunables)
    assert patch.active() is None
    assert kernels_of_pytorch() == before


def test_tunables_choose_among_the_compiled_kernels_and_others_pass(make_design: Any) -> None:
    folder = make_design()
    patch.apply(folder, {"distance": 4, "pinned_rows": 5})
    chosen = definition.chosen(patch.manifests.read(folder), {"distance": 4, "pinned_rows": 5}, folder)
    assert {e.tunables["distance"] for e in chosen if e.function == "lookup"} == {4}
    assert len([e for e in chosen if e.function == "prepare"]) == 4  # two architectures, two dtypes


@pytest.mark.parametrize(
    ("weight", "rows", "renew_every", "said"),
    [
        (torch.zeros(10, 4), torch.tensor([1, 10]), 1, "Hot row 10 is not in the table, which has 10 rows"),
        (torch.zeros(10, 4), torch.tensor([-1, 3]), 1, "Hot row -1 is not in the table"),
        (torch.zeros(10, 4), torch.tensor([1.0]), 1, r"an integer tensor \[n\]; got torch.float32 \[1\]"),
        (torch.zeros(10, 4), torch.tensor([[1]]), 1, r"got torch.int64 \[1, 1\]"),
        (torch.zeros(10, 4), torch.tensor([True]), 1, "got torch.bool"),
        (torch.zeros(10, 4), torch.tensor([1]), -1, "renew_every is -1"),
        (torch.zeros(4, 10).t(), torch.tensor([1]), 1, "whose rows are contiguous"),
        (torch.zeros(10), torch.tensor([1]), 1, "whose rows are contiguous"),
    ],
)
def test_wrong_hot_rows_are_refused_when_they_are_set(
    make_design: Any, weight: torch.Tensor, rows: torch.Tensor, renew_every: int, said: str
) -> None:
    patch.apply(make_design())
    with pytest.raises(BadInputError, match=said):
        patch.set_hot_rows(weight, rows, renew_every)


def test_hot_rows_that_would_pin_nothing_are_refused(make_design: Any) -> None:
    with pytest.raises(BadInputError, match="pin nothing: no design is applied"):
        patch.set_hot_rows(torch.zeros(10, 4), torch.tensor([1]))
    patch.apply(make_design("plain", prepares=False))
    with pytest.raises(BadInputError, match="pin nothing: design plain prepares nothing"):
        patch.set_hot_rows(torch.zeros(10, 4), torch.tensor([1]))


def test_prepare_names_what_is_missing(make_design: Any) -> None:
    apply_on_cpu(make_design())
    weight = torch.zeros(10, 4)
    with pytest.raises(RuntimeError, match="No hot rows are set for this table"):
        patch.prepare(weight)
    patch.set_hot_rows(weight, torch.tensor([1, 2]))
    with pytest.raises(RuntimeError, match="No hot rows are set for this table"):
        patch.prepare(weight.clone())
    patch.set_hot_rows(weight, None)
    with pytest.raises(RuntimeError, match="No hot rows are set for this table"):
        patch.prepare(weight)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_torch_brings_the_design_that_the_environment_names(make_design: Any) -> None:
    result = python(
        "import torch; from harness import patch; print(patch.active(), torch.cuda.is_initialized())",
        HARNESS_DESIGN=str(make_design()),
    )
    assert (result.stdout, result.stderr) == ("two_way False\n", "")


def test_import_torch_brings_nothing_unless_asked() -> None:
    result = python(
        "import sys; import harness.patch; assert 'torch' not in sys.modules; import torch;"
        "print(harness.patch.active(), harness.patch._operators)",
        HARNESS_DESIGN="",
    )
    assert (result.stdout, result.stderr) == ("None None\n", "")


def test_import_torch_fails_with_a_sentence_where_the_design_is_wrong(tmp_path: Path) -> None:
    result = python("import torch", HARNESS_DESIGN=str(tmp_path))
    assert result.returncode != 0
    assert result.stderr.startswith(f"HARNESS_DESIGN={tmp_path}: {tmp_path}/manifest.json: cannot be read")
    assert "Traceback" not in result.stderr


def test_a_wrong_design_that_is_caught_leaves_other_tracebacks_alone(tmp_path: Path) -> None:
    code = "try:\n    import torch\nexcept RuntimeError as error:\n    print(error.__cause__)\n1 / 0"
    result = python(code, HARNESS_DESIGN=str(tmp_path))
    assert f"HARNESS_DESIGN={tmp_path}" in result.stdout
    assert "Traceback" in result.stderr
    assert "ZeroDivisionError" in result.stderr


def test_a_missing_compiler_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    with pytest.raises(MachineError, match=r"'no-such-compiler' here; install one .apt-get install g"):
        build.build_op(tmp_path / "op.so")


def test_a_build_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(HarnessError, match="does not build with false"):
        build.build_op(tmp_path / "op.so")
    assert not list(tmp_path.iterdir())


def test_the_shared_header_is_asked_for_where_it_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HARNESS_LOOKUP_ARGS_DIR", str(tmp_path))
    with pytest.raises(BadInputError, match=r"holds no lookup_args\.h; set HARNESS_LOOKUP_ARGS_DIR"):
        build.build_op(tmp_path / "op.so")


@pytest.mark.parametrize(
    ("content", "said"), [(None, "is not a file"), ("text", "was not built for this PyTorch")]
)
def test_a_wrong_prebuilt_library_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_design: Any, content: str | None, said: str
) -> None:
    library = tmp_path / "op.so"
    if content is not None:
        library.write_text(content, encoding="utf-8")
    monkeypatch.setenv("HARNESS_OP_LIBRARY", str(library))
    monkeypatch.setattr(patch, "_operators", None)
    with pytest.raises(BadInputError, match=said):
        patch.apply(make_design())
