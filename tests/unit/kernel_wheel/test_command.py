"""What `python -m kernel_wheel` says of wrong input."""

from __future__ import annotations

import sys

import pytest

from kernel_wheel import __main__ as program


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["--arch", "75"],
            2,
            "--arch 75: is none that kernels are compiled for; they are 80, 86, 89, 90, 100, 120.",
        ),
        (
            ["--here"],
            5,
            "--here: PyTorch finds no NVIDIA GPU on this machine; name an architecture by --arch.",
        ),
    ],
)
def test_wrong_input_is_one_sentence(
    arguments: list[str],
    code: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["kernel_wheel", *arguments])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert program.main() == code
    assert capsys.readouterr().err == f"{words}\n"
