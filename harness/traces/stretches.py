"""Which part of its trace each feature of a cell looks up in which batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from harness.records import Cell
from harness.traces import replay
from harness.traces.replay import Rows
from harness.traces.stack import distinct

_NO_BAGS: Mapping[int, Rows] = {}
"""Where no feature has the own bags of a trace."""


class Stretches:
    """Batches are consecutive stretches of each feature's trace, which wraps round.

    Feature t of T begins its trace at t ÷ T of the length. Those that replay recorded traces of their own
    begin at the first access, so that what was looked up together stays together; of N that replay the same
    one the n-th begins at n ÷ N of it. Own bags wrap round as a whole."""

    def __init__(self, cell: Cell, traces: Sequence[Rows], bags: Mapping[int, Rows] = _NO_BAGS) -> None:
        """`traces` and `bags`: what `replay.read_traces` and `replay.read_bags` give."""
        self.traces = traces
        self._work, self._bags = cell.workload, bags
        self._begins = _begins(cell)
        self._recorded = [replay.replays_own(cell, feature.group) for feature in cell.workload.features]

    @classmethod
    def read(cls, cell: Cell, root: Path) -> Stretches:
        """Of the traces that the cell's seed makes or that lie in a run's folder; BadInputError where one of
        these cannot be read."""
        return cls(cell, replay.read_traces(cell, root), replay.read_bags(cell, root))

    @cached_property
    def distinct_rows(self) -> list[int]:
        """In each feature's whole trace; counted once for features that share one."""
        apart = {id(trace): trace for trace in self.traces}
        found = {key: distinct(trace) for key, trace in apart.items()}
        return [found[id(trace)] for trace in self.traces]

    def count(self, feature: int, number: int, batches: int = 1) -> int:
        """Lookups of one feature in batch `number` and those behind it, `batches` in all."""
        return self._before(feature, number + batches) - self._before(feature, number)

    def rows(self, feature: int, number: int, batches: int = 1) -> Rows:
        """The row numbers of these lookups, in order; perhaps a part of the trace itself."""
        begin = self._first_access(feature) + self._before(feature, number)
        return replay.taken(self.traces[feature], begin, begin + self.count(feature, number, batches))

    def distinct(self, features: Sequence[int], number: int, batches: int = 1) -> int:
        """Rows that these features, which share a table, look up in these batches."""

        def takes_all(feature: int) -> bool:
            return self.count(feature, number, batches) >= len(self.traces[feature])

        if len({id(self.traces[feature]) for feature in features}) == 1 and any(map(takes_all, features)):
            return self.distinct_rows[features[0]]
        parts = [
            self.traces[feature] if takes_all(feature) else self.rows(feature, number, batches)
            for feature in features
        ]
        return distinct(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def rest(self, feature: int, number: int, batches: int = 1) -> Rows:
        """The accesses of the trace that these lookups leave out, in order, beginning behind them; empty
        where they take the whole trace or more."""
        begin = self._first_access(feature) + self._before(feature, number)
        end = begin + self.count(feature, number, batches)
        return replay.taken(self.traces[feature], end, begin + len(self.traces[feature]))

    def lengths(self, feature: int, number: int) -> Rows:
        """Rows of each bag of batch `number`, [batch]; of a feature with own bags."""
        offsets, batch = self._bags[feature], self._work.batch
        first = self._first_bag(feature) + number * batch
        bags = np.arange(first, first + batch) % (len(offsets) - 1)
        return offsets[bags + 1] - offsets[bags]

    def in_trace(self, feature: int) -> int:
        """Batches until accesses of the trace come again."""
        if feature in self._bags and self._recorded[feature]:
            return (len(self._bags[feature]) - 1) // self._work.batch
        lookups = self._work.features[feature].group.lookups(self._work.batch)
        return len(self.traces[feature]) // max(1, lookups)

    def _before(self, feature: int, number: int) -> int:
        """Lookups of all batches before this one."""
        if feature not in self._bags:
            group = self._work.features[feature].group
            return number * group.lookups(self._work.batch)
        first = self._first_bag(feature)
        return self._accesses(feature, first + number * self._work.batch) - self._accesses(feature, first)

    def _accesses(self, feature: int, bags: int) -> int:
        """In so many bags from the trace's first one on."""
        offsets = self._bags[feature]
        rounds, left = divmod(bags, len(offsets) - 1)
        return rounds * int(offsets[-1]) + int(offsets[left])

    def _first_bag(self, feature: int) -> int:
        place, of = self._begins[feature]
        return place * (len(self._bags[feature]) - 1) // of

    def _first_access(self, feature: int) -> int:
        """Where a feature begins its trace; with own bags of the very row numbers in them, at a bag."""
        if feature in self._bags and self._recorded[feature]:
            return int(self._bags[feature][self._first_bag(feature)])
        place, of = self._begins[feature]
        return place * len(self.traces[feature]) // of


def _begins(cell: Cell) -> list[tuple[int, int]]:
    """Of each feature: at which place, of how many, it begins its trace."""
    features = cell.workload.features
    sharing: dict[str, list[int]] = {}
    for place, feature in enumerate(features):
        if replay.replays_own(cell, feature.group):
            sharing.setdefault(feature.group.trace_file, []).append(place)
    found = [(place, len(features)) for place in range(len(features))]
    for places in sharing.values():
        for nth, place in enumerate(places):
            found[place] = nth, len(places)
    return found
