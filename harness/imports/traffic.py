"""What the features of a model look up, whatever file it was read from, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.text import first_hidden, shown

Indices = npt.NDArray[np.integer[Any]]
MOST_FEATURES = 10_000
_MOST_NAME = 200


@dataclass(frozen=True)
class Feature:
    """One feature's lookups in a table of its own."""

    name: str
    indices: Indices
    """Row numbers, bag after bag: [lookups]."""
    lengths: npt.NDArray[np.int64]
    """Rows of each bag: [bags]. They add up to the lookups."""
    rows: int | None = None
    """Of the table, where its source tells."""
    own_bags: bool = True
    """False where bags were laid over row numbers that had none."""
    unbagged: Indices = field(default_factory=lambda: np.zeros(0, np.int64))
    """Row numbers behind the last whole bag that was laid. They are rows of the table, and in no bag."""


@dataclass(frozen=True)
class Traffic:
    """Of a whole model, its features in the order of their outputs."""

    called: str
    """What messages call the source."""
    features: tuple[Feature, ...]
    weighted: bool = False
    """Whether every index has a weight of its own."""

    @property
    def index_dtype(self) -> str:
        """int32 where all indices are."""
        narrow = all(feature.indices.dtype == np.int32 for feature in self.features)
        return "int32" if narrow else "int64"


def split(
    called: str, names: list[str], values: Indices, lengths: npt.NDArray[np.integer[Any]]
) -> tuple[Feature, ...]:
    """Features that lie one after the other in `values`, [lookups], with bags of `lengths` [features, bags].
    BadInputError where lengths are negative, larger than all, or do not add up."""
    if (wrong := np.flatnonzero((lengths < 0).any(axis=1))).size:
        raise BadInputError(f"{called}: feature {shown(names[int(wrong[0])])}: has a bag of negative length.")
    lengths = lengths.astype(np.int64)
    if (wrong := np.flatnonzero((lengths > len(values)).any(axis=1))).size:  # the sum might not fit 64 bits
        raise BadInputError(
            f"{called}: feature {shown(names[int(wrong[0])])}: has a bag of {int(lengths[wrong[0]].max()):,} "
            f"row numbers, and there are {len(values):,} in all."
        )
    if (total := int(lengths.sum())) != len(values):
        raise BadInputError(
            f"{called}: its bags hold {total:,} row numbers by their lengths, and there are {len(values):,}."
        )
    ends = np.cumsum(lengths.sum(axis=1))
    parts = np.split(values, ends[:-1])
    return tuple(Feature(name, part, own) for name, part, own in zip(names, parts, lengths, strict=True))


def check_names(called: str, names: Iterable[Any]) -> list[str]:
    """The names of features; BadInputError where one is none that can be shown, or stands twice."""
    seen: dict[str, None] = {}
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name.strip() or len(name) > _MOST_NAME or first_hidden(name):
            raise BadInputError(
                f"{called}: feature {number} is called {shown(name)!r}; a name is a text of 1 to {_MOST_NAME}"
                " visible characters."
            )
        if name in seen:
            raise BadInputError(f"{called}: two features are called {shown(name)!r}; rename one.")
        seen[name] = None
        if len(seen) > MOST_FEATURES:
            raise BadInputError(f"{called}: holds more than {MOST_FEATURES:,} features.")
    if not seen:
        raise BadInputError(f"{called}: holds no features.")
    return list(seen)
