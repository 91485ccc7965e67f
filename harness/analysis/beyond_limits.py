"""Times beyond the limit, which no kernel can have had."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from harness.analysis import limits
from harness.analysis.figures import HEADLINE
from harness.analysis.frame import passes
from harness.analysis.limits import WELL_PAST_L2, Limit
from harness.analysis.results import Measured
from harness.records import MEASURED, CellRecord, Variant

MOST = 1.05
"""Rates and times are known to a few per cent; more than this of the limit is nobody's."""


class _Time(NamedTuple):
    where: str
    limit: Limit
    us: float
    """By prepare + kernel."""
    records: list[str]


def find(measured: Measured) -> dict[str, list[str]] | None:
    """Where times are further beyond the limit than the rates may be off by, and of which records; None where
    that can be asked of none.

    It is asked of what touches so much that L2 can have kept next to nothing of it.
    """
    asked = [
        one
        for one in itertools.chain(_own(measured), _at_points(measured))
        if one.limit.past_l2 >= WELL_PAST_L2
    ]
    if not asked:
        return None
    return {one.where: one.records for one in asked if one.limit.binding.us / one.us > MOST}


def _own(measured: Measured) -> Iterator[_Time]:
    known = {limit.dataset: limit for limit in measured.limits}
    for (variant, dataset, metric), one in measured.measurements.items():
        if metric == HEADLINE and (limit := known.get(dataset)):
            yield _Time(f"{variant.label} on {dataset}", limit, one.time.value, one.records)


def _at_points(measured: Measured) -> Iterator[_Time]:
    """At a sweep's other points, where limits are known."""
    points: dict[tuple[Variant, str, str], list[CellRecord]] = {}
    for record in measured.run.whole.records:
        cell = record.cell
        if cell.point and record.status in MEASURED and HEADLINE in passes(record):
            points.setdefault((cell.variant, cell.dataset.name, cell.point), []).append(record)
    for (variant, dataset, point), found in points.items():
        limit = measured.every_limit.get((dataset, found[0].cell.workload))
        if limit and not limits.events_decide(found):
            us = statistics.geometric_mean(float(np.median(passes(one)[HEADLINE])) for one in found)
            where = f"{variant.label} on {dataset} at {point}"
            yield _Time(where, limit, us, [one.cell.id for one in found])
