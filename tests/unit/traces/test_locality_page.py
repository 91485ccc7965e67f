"""docs/traces.md shows the synthetic traces beside the published ones; its table is made anew here."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np

from harness.traces import synth
from harness.traces.stats import describe

PAGE = Path(__file__).parents[3] / "docs" / "traces.md"
DATA = Path(__file__).parents[2] / "data" / "published_locality.toml"
PUBLISHED: dict[str, Any] = tomllib.loads(DATA.read_text(encoding="utf-8"))


def figures(name: str) -> dict[str, str]:
    """What the published file says of a dataset, told of our trace with seed 1."""
    rows, facts = PUBLISHED["rows"], PUBLISHED[name]
    trace = synth.synthesize(name, rows, synth.period_length(name, rows), 1)
    found = describe(trace, PUBLISHED["pooling"])
    hottest, hits = np.sort(np.bincount(trace))[::-1].cumsum() / len(trace), dict(found.hit_rate)
    return {
        "distinct rows": f"{found.distinct_rows:,}",
        **{f"accesses to the hottest {int(k):,}": f"{hottest[int(k) - 1]:.3f}" for k in facts["coverage"]},
        **{f"LRU hit rate, {int(k):,} rows": f"{hits[int(k)]:.3f}" for k in facts["hit_rate"]},
        "median LRU stack distance": f"{found.median_stack_distance:,.0f}",
        "repeats within a bag of 150": f"{found.bag_repeats:.3f}",
        "distinct rows in a batch of 2048 bags": f"{len(np.unique(trace[:307_200])):,}",
    }


def published(name: str) -> dict[str, str]:
    """The same figures as published."""
    facts = PUBLISHED[name]
    return {
        "distinct rows": f"{facts['distinct_rows']:,}",
        **{f"accesses to the hottest {int(k):,}": f"{v:.3f}" for k, v in facts["coverage"].items()},
        **{f"LRU hit rate, {int(k):,} rows": f"{v:.3f}" for k, v in facts["hit_rate"].items()},
        "median LRU stack distance": f"{facts['median_stack_distance']:,}",
        "repeats within a bag of 150": f"{facts['bag_repeats']:.3f}",
        "distinct rows in a batch of 2048 bags": f"about {facts['distinct_rows_of_a_batch']:,}",
    }


def test_the_table_of_the_page_is_what_the_traces_are() -> None:
    columns = [columns for name in ("medium", "low") for columns in (published(name), figures(name))]
    lines = [f"| {what} | {' | '.join(column[what] for column in columns)} |" for what in columns[0]]
    assert "\n".join(lines) in PAGE.read_text(encoding="utf-8")
