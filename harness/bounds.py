"""Bounds of numbers, told in the types of the fields that hold them: `rows: Annotated[int, Range(1, 2**40)]`.

Whoever reads a dataclass from outside holds its numbers against them: `harness.records.load` for JSON,
pydantic for TOML and flags (`harness.validation`). Standard library only, since containers read with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any

from harness.text import shown


@dataclass(frozen=True)
class Range:
    """The least and the most that makes sense, both included. Nothing that is not a number is within."""

    least: float
    most: float

    def problem(self, value: float) -> str:
        """What is wrong with a value, as the end of a sentence; empty where it is within."""
        if value != value:
            return "is not a number"
        if not value >= self.least:
            return f"{_text(value)} is less than {_text(self.least)}"
        return f"{_text(value)} is more than {_text(self.most)}" if value > self.most else ""

    def first_problem(self, values: Collection[float]) -> str:
        """The same of the first that is not within, fast where there are many."""
        if not values or (
            math.isfinite(sum(values)) and self.least <= min(values) and max(values) <= self.most
        ):
            return ""
        return next(filter(None, map(self.problem, values)), "")

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, value: float) -> float:
        if problem := self.problem(value):
            raise ValueError(problem)
        return value


Count = Annotated[int, Range(0, 2**63 - 1)]
"""A number of things, of bytes, a place in a list."""
Int32 = Annotated[int, Range(0, 2**31 - 1)]
"""What kernels and launches take as an int, and never below 0."""
Amount = Annotated[float, Range(0, 1e18)]
"""Of whatever unit, never below 0."""
Microseconds = Annotated[float, Range(0, 1e13)]
"""A time; the most is a third of a year."""


def _text(value: float) -> str:
    return shown(value) if isinstance(value, int) else f"{value:g}"
