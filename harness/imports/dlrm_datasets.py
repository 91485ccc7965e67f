"""A file of Meta's public traces (`dlrm_datasets`) as the traffic of a model of all its tables.

The format: `harness.traces.meta`, which reads one table of it. Tables are called by their numbers, from 0.
"""

from __future__ import annotations

from typing import Any

from harness.imports import traffic
from harness.imports.traffic import Traffic
from harness.traces import meta


def is_one(loaded: Any) -> bool:
    """Whether this is what `features` takes apart."""
    return isinstance(loaded, tuple | list)


def features(loaded: Any, called: str, file_bytes: int) -> Traffic:
    """The traffic in what a file held; BadInputError where it is none."""
    indices, _, lengths = meta.checked(called, loaded, file_bytes)
    names = traffic.check_names(called, (f"table {number}" for number in range(len(lengths))))
    return Traffic(called, traffic.split(called, names, indices, lengths))
