"""The tables of a model whose tables differ: how many are alike, and where they stand. Standard library only.

A group is so many tables of the same rows, columns and bags. Each table is looked up by one feature or by
several, each with bags of its own; features are numbered in the order in which their outputs stand side by
side.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from statistics import NormalDist
from typing import Annotated, Literal, NamedTuple

from harness import bag_counts
from harness.bounds import Range
from harness.codec import LATER

MOST_FEATURES = 10_000
MOST_LOOKUPS = 2**28
"""Of a feature and batch: 2 GiB of indices."""
OWN_TRAFFIC = "own"
"""The dataset in which every table is looked up by its own law; those without one as by "random"."""
TAIL = 2.0
"""Exponent of the tail of ragged bags: one is longer than n with a probability that falls as n to this
power."""
_LONGEST_NAME = 100
"""Of a trace's, in the name of the run's copy."""
_FORBID_UNKNOWN = {"extra": "forbid"}
_PLACES = re.compile(r"\d{1,6}(-\d{1,6})?(, ?\d{1,6}(-\d{1,6})?)*")


@dataclass(frozen=True)
class TableGroup:
    """Tables of a model that are alike."""

    __pydantic_config__ = _FORBID_UNKNOWN
    rows: Annotated[int, Range(1, 2**40)]
    """Of each table."""
    dim: Annotated[int, Range(1, 2**16)]
    """Columns of each table."""
    count: Annotated[int, Range(1, MOST_FEATURES)] = field(default=1, metadata=LATER)
    """Tables."""
    features: Annotated[int, Range(1, MOST_FEATURES)] = field(default=1, metadata=LATER)
    """So many look up each of the tables."""
    pooling: Annotated[int, Range(1, MOST_LOOKUPS)] = field(default=1, metadata=LATER)
    """Rows per bag that is not empty; of "normal" bags before they are cut off, of ragged ones on average; of
    counted ones it says nothing."""
    bags: Literal["fixed", "ragged", "normal", "counted", "own"] = field(default="fixed", metadata=LATER)
    """"fixed": `pooling` rows each. "ragged": as those of a workload. "normal": normally distributed about
    `pooling`, cut off below 1 and above `longest`. "counted": as `counts` says. "own": those of the `trace`,
    in order."""
    counts: str = field(default="", metadata=LATER)
    """Of "counted" bags: how many there are of each length among those that are not empty, as "1:500, 7:20":
    lengths in ascending order."""
    deviation: Annotated[float, Range(0, 1e9)] = field(default=0.0, metadata=LATER)
    """Standard deviation of "normal" bags' lengths, in rows, before they are cut off."""
    longest: Annotated[int, Range(0, MOST_LOOKUPS)] = field(default=0, metadata=LATER)
    """Of "normal" bags; 0: none is too long."""
    coverage: Annotated[float, Range(0, 1)] = field(default=1.0, metadata=LATER)
    """Share of bags that are not empty: of samples that have the feature at all."""
    zipf_s: Annotated[float, Range(0, 64)] = field(default=0.0, metadata=LATER)
    """Of the tables' own traffic: the row of rank x = 1, 2 … is looked up in proportion to
    (x + zipf_q)^-zipf_s; 0: all rows alike."""
    zipf_q: Annotated[float, Range(0, 1e12)] = field(default=0.0, metadata=LATER)
    hottest: tuple[Annotated[float, Range(0, 1)], ...] = field(default=(), metadata=LATER)
    """Of their own traffic: the share of lookups that goes to each of the first rows, which the law leaves
    out."""
    trace: str = field(default="", metadata=LATER)
    """Of their own traffic: the folder of the trace whose row numbers they look up, in order."""
    trace_sha256: str = field(default="", metadata=LATER)
    """Of the trace's contents; filled in where a model's file is read."""
    rows_per_own_bag: Annotated[float, Range(0, MOST_LOOKUPS)] = field(default=0.0, metadata=LATER)
    """Of "own" bags, on average over the trace; filled in where a model's file is read."""
    places: str = field(default="", metadata=LATER)
    """Numbers of its features, counted from 0, those of each table together: "0-2, 5". Empty: those behind
    the group before it."""

    @property
    def own_traffic(self) -> bool:
        """Whether the tables have any."""
        return bool(self.zipf_s or self.hottest or self.trace)

    @property
    def trace_file(self) -> str:
        """Where a run's folder has the row numbers of the trace."""
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", PurePath(self.trace).name)[:_LONGEST_NAME]
        return f"traces/{name}-{self.trace_sha256[:16]}.npy"

    @property
    def bags_file(self) -> str:
        """Where it has the boundaries of the trace's own bags."""
        return f"{self.trace_file.removesuffix('.npy')}.bags.npy"

    @property
    def all_features(self) -> int:
        """Of all its tables."""
        return self.count * self.features

    @property
    def rows_per_bag(self) -> float:
        """On average over a large batch, empty bags included."""
        return self.lookups(_LARGE) / _LARGE

    def lengths(self, batch: int) -> tuple[int, ...]:
        """Rows of each of so many bags, in ascending order: the quantiles of how bags are distributed. Not of
        "own" bags, which are in the trace alone."""
        assert self.bags != "own"
        if self.bags == "counted":
            return bag_counts.lengths(self.counts, self._full(batch), batch)
        return _lengths(batch, self._full(batch), *self._shape)

    @property
    def _shape(self) -> tuple[int, str, float, int]:
        """How bags are distributed that are not empty."""
        return self.pooling, self.bags, self.deviation, self.longest

    def _full(self, batch: int) -> int:
        """Bags that are not empty, among so many."""
        return min(batch, max(1, round(self.coverage * batch)))

    def lookups(self, batch: int) -> int:
        """Rows that one feature looks up in a batch; of "own" bags, which differ from batch to batch, on
        average."""
        if self.bags == "fixed" and self.coverage == 1:
            return batch * self.pooling
        if self.bags == "own":
            return max(1, round(batch * self.rows_per_own_bag))
        if self.bags == "counted":
            return bag_counts.rows(self.counts, self._full(batch))
        return _rows(batch, self._full(batch), *self._shape)

    @property
    def most_rows_per_bag(self) -> float:
        """A bound of the rows in any bag; of ragged, counted and own ones, on average."""
        if self.bags == "own":
            return self.rows_per_own_bag
        if self.bags == "counted":
            return bag_counts.rows(self.counts, 1)
        return min(self.longest or MOST_LOOKUPS, self.pooling + 10 * self.deviation)

    def problem(self) -> str:
        """What is wrong with its values taken together, beginning with a field; empty where nothing is."""
        if self.bags != "normal" and (self.deviation or self.longest):
            return 'bags: deviation and longest are of bags = "normal"'
        if self.bags == "normal" and not self.deviation:
            return 'deviation: bags = "normal" need one; without it they are "fixed"'
        if self.bags == "counted":
            if self.pooling != 1:
                return "pooling: follows from counts; leave it out"
            if why := bag_counts.problem(self.counts):
                return f"counts: {why}"
        elif self.counts:
            return 'counts: are of bags = "counted"'
        if problem := self._problem_of_trace():
            return problem
        if len(self.hottest) >= self.rows or sum(self.hottest) > 1 + 1e-6:
            return "hottest: are as many as there are rows, or more than all lookups"
        if self.zipf_s * math.log10(self.rows + self.zipf_q) > _MOST_DIGITS:
            return (
                f"zipf_s: (rows + zipf_q)^-zipf_s is below 10^-{_MOST_DIGITS}, which is no number any more; "
                "make zipf_s or zipf_q smaller"
            )
        if self.coverage == 0:
            return "coverage: is 0, so that nothing is looked up; leave the tables out"
        if self.places and not _PLACES.fullmatch(self.places):
            return 'places: is no list of numbers such as "0-2, 5"'
        return ""

    def _problem_of_trace(self) -> str:
        if self.bags == "own" and not self.trace:
            return 'trace: is missing; bags = "own" are those of a trace'
        if self.bags == "own" and self.pooling != 1:
            return "pooling: follows from the trace's own bags; leave it out"
        if self.bags == "own" and self.coverage != 1:
            return "coverage: follows from the trace's own bags; leave it out"
        if self.trace and (self.zipf_s or self.zipf_q or self.hottest):
            return "trace: is the tables' traffic; leave zipf_s, zipf_q and hottest out"
        if self.trace and not re.fullmatch(r"[0-9a-f]{64}", self.trace_sha256):
            return "trace_sha256: is none; name the trace in a model's file, which fills it in"
        if bool(self.rows_per_own_bag) != (self.bags == "own"):
            return 'rows_per_own_bag: is of bags = "own", and filled in where a model\'s file is read'
        return ""


_MOST_DIGITS = 280
"""Of what a row's share is computed by, in float64."""
_LARGE = 1024
"""A batch whose bags are as good as the distribution that they are of."""


class Feature(NamedTuple):
    """One lookup of a pass: a table, and bags of its own."""

    group: TableGroup
    kind: int
    """Number of the group."""
    table: int
    """Number of the table, in the order in which tables are first looked up. Features that share one have
    the same."""


@functools.lru_cache(maxsize=1024)
def _lengths(
    batch: int, full: int, pooling: int, bags: str, deviation: float, longest: int
) -> tuple[int, ...]:
    quantiles = [(n + 0.5) / full for n in range(full)]
    if bags == "normal":
        normal = NormalDist(pooling, deviation)
        low = normal.cdf(0.5)
        width = (normal.cdf(longest + 0.5) if longest else 1.0) - low
        most = longest or MOST_LOOKUPS
        drawn = [round(normal.inv_cdf(low + q * width)) for q in quantiles] if width > 0 else [most] * full
        lengths = [min(max(1, length), most) for length in drawn]
    elif bags == "ragged":
        wanted = list(itertools.accumulate((1 - q) ** (-1 / TAIL) - 1 for q in quantiles))
        ends = [int(end * pooling * full / wanted[-1]) for end in wanted[:-1]] + [pooling * full]
        lengths = [end - begin for begin, end in itertools.pairwise([0, *ends])]
    else:
        lengths = [pooling] * full
    return (*[0] * (batch - full), *lengths)


@functools.lru_cache(maxsize=1024)
def _rows(batch: int, full: int, pooling: int, bags: str, deviation: float, longest: int) -> int:
    return sum(_lengths(batch, full, pooling, bags, deviation, longest))


def numbers(places: str) -> Iterator[int]:
    """Those that `places` lists."""
    for part in filter(None, places.replace(" ", "").split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def places(found: Iterable[int]) -> str:
    """The shortest text that `numbers` makes the same ascending numbers of."""
    runs: list[list[int]] = []
    for number in found:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def grouped(tables: Sequence[TableGroup]) -> tuple[TableGroup, ...]:
    """Single tables, in order, as groups of those that are alike, each at its place."""
    kinds: dict[TableGroup, list[int]] = {}
    first = 0
    for table in tables:
        kinds.setdefault(table, []).extend(range(first, first + table.features))
        first += table.features
    return tuple(
        replace(kind, count=len(found) // kind.features, places=places(found))
        for kind, found in kinds.items()
    )


@functools.lru_cache(maxsize=256)
def features(groups: tuple[TableGroup, ...]) -> tuple[Feature, ...]:
    """Every feature, in order. The groups have no `problem`."""
    placed: dict[int, tuple[int, int]] = {}
    for kind, group in enumerate(groups):
        for nth, place in enumerate(_places_of(group, placed)):
            placed[place] = kind, nth // group.features
    known: dict[tuple[int, int], int] = {}
    return tuple(
        Feature(groups[placed[place][0]], placed[place][0], known.setdefault(placed[place], len(known)))
        for place in range(len(placed))
    )


def _places_of(group: TableGroup, before: Iterable[int]) -> Iterable[int]:
    if group.places:
        return numbers(group.places)
    first = max(before, default=-1) + 1
    return range(first, first + group.all_features)


def problem(groups: tuple[TableGroup, ...]) -> str:
    """What is wrong with groups taken together, as the end of a sentence; empty where nothing is."""
    if (count := sum(group.all_features for group in groups)) > MOST_FEATURES:
        return f"look up tables {count:,} times, and {MOST_FEATURES:,} is the most"
    seen: set[int] = set()
    for number, group in enumerate(groups):
        # One more than there may be tells that there are too many; a short text can list a million.
        found = list(itertools.islice(_places_of(group, seen), group.all_features + 1))
        if len(found) != group.all_features:
            return f"number {number} needs {group.all_features} places for its features, and has others"
        if len(set(found)) < len(found):
            twice = next(place for place in found if found.count(place) > 1)
            return f"number {number} names place {twice} twice"
        if doubled := seen & set(found):
            return f"number {number} stands at place {min(doubled)}, which is another's"
        seen |= set(found)
    if gaps := set(range(len(seen))) - seen:
        return f"leave place {min(gaps)} empty"
    return ""
