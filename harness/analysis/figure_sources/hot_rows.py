"""What it costs a pinning design not to know beforehand which rows will be hot.

Held-out rows are the hottest of the accesses that are not timed, the oracle's are the hottest of those that
are. Two variants that differ in nothing else are held against each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from harness.analysis import figures, stats
from harness.analysis.figures import Figure
from harness.analysis.results import Located, Measured
from harness.records import MEASURED, Variant

PLACE = 60

ROWS, SHARE, COST = "pinned_rows", "pinned_share", "oracle_cost"
"""Figures: rows pinned of each table, on average over processes; timed accesses that meet one of them ÷ all;
and prepare + kernel of held-out ÷ that of the oracle."""


def figures_of(found: Measured) -> Iterator[Located]:
    """Of every variant that pins, on every dataset."""
    for variant in found.run.variants:
        for dataset in found.run.datasets:
            records = [r for r in found.run.at(variant, dataset) if r.status in MEASURED and SHARE in r.facts]
            if not records:
                continue
            ids = [record.cell.id for record in records]
            rows, share = (sum(r.facts[name] for r in records) / len(records) for name in (ROWS, SHARE))
            yield variant, dataset, Figure(ROWS, "rows pinned of each table", rows, "", "count", records=ids)
            yield (
                variant,
                dataset,
                Figure(SHARE, "accesses met by a pinned row", share, "", "share", records=ids),
            )
            if cost := _cost(found, variant, dataset):
                yield variant, dataset, cost


def oracle_of(variant: Variant) -> Variant:
    """The one that does the same with hot rows that an oracle names."""
    return dataclasses.replace(variant, hot_rows="oracle")


def _cost(found: Measured, variant: Variant, dataset: str) -> Figure | None:
    oracle = oracle_of(variant)
    held_out, known = (found.at(one, dataset, "total_us") for one in (variant, oracle))
    if held_out is None or known is None or variant == oracle:
        return None
    ratio = stats.speedup(held_out.sampled, known.sampled)
    title = "time with rows chosen beforehand ÷ time with the oracle's"
    return figures.estimated(COST, title, ratio, "×", "ratio", held_out.records + known.records)
