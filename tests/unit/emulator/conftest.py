"""Designs compiled for this CPU."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import pytest

from harness import designs
from harness.emulator.program import Program


@pytest.fixture(scope="session")
def program() -> Iterator[Callable[[str], Program]]:
    """One of our designs by name; its process ends with the tests."""
    with contextlib.ExitStack() as open_programs:

        @functools.cache
        def compiled(name: str) -> Program:
            return open_programs.enter_context(Program(designs.get(name)))

        yield compiled
