"""What goes to a file instead of a terminal: whole lines, and nothing besides."""

from __future__ import annotations

import pytest

from harness import console


def test_progress_in_a_file_is_a_line_for_each_change(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = "stock-random-r0: oom: The workload needs more memory than is free. " + "word " * 40
    with console.Steps("Measuring") as steps:
        steps.expect(2)
        steps.now("stock, random")
        steps.now("stock, random")
        steps.advance()
        steps.say(sentence)
    assert capsys.readouterr().err.splitlines() == ["Measuring: stock, random", sentence]
