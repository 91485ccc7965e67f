"""What the costs' record is made of, with a clock from here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.errors import BadInputError
from tests.served_package import ek  # noqa: F401


class PretendedClock:
    """A pass takes as long as the module's way with bad indices had when it was captured."""

    def __init__(self) -> None:
        self.turns = 0

    def capture(self, passes: Any) -> list[str]:
        return [one()() for one in passes.of_batch]

    def graph_us(self, captured: list[str], turns: Sequence[int]) -> list[float]:
        self.turns += len(turns)
        return [{"count": 102.0, "assert": 100.0}[captured[turn]] for turn in turns]


class Module:
    """Tells how bad indices were dealt with when it was called."""

    on_bad_index = "count"

    def __call__(self, indices: Any, offsets: Any) -> str:
        return self.on_bad_index


def test_counting_and_asserting_take_turns_on_the_same_batches() -> None:
    from kernel_wheel import costs

    clock: Any = PretendedClock()
    module: Any = Module()
    assert costs.counting_us(module, [(1, 2), (3, 4)], clock) == {"count": 102.0, "assert": 100.0}
    assert clock.turns == (20 + 1) * 2 * 8


def test_calls_in_a_row_begin_on_an_idle_gpu_and_take_turns() -> None:
    from kernel_wheel import costs

    done: list[str] = []
    calls = {name: partial(done.append, name) for name in ("ours", "theirs")}
    found = costs.returned_us(calls, 4, partial(done.append, "wait"))
    assert done == ["wait", *["ours"] * 4, "wait", *["theirs"] * 4] * 500
    assert found.keys() == calls.keys()


def test_what_is_there_is_not_written_over_and_a_wheel_has_to_be_one(tmp_path: Path) -> None:
    from kernel_wheel import costs

    (tmp_path / "costs.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInputError, match=r"costs\.json: is there already"):
        costs.measured(tmp_path, None)
    with pytest.raises(BadInputError, match=r"none\.whl: is no file; `make wheel` builds one"):
        costs.measured(None, tmp_path / "none.whl")
