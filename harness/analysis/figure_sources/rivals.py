"""Our designs beside the libraries that somebody may use instead."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis import peers, results
from harness.analysis.figures import COMPARED, METRICS, estimated
from harness.analysis.results import Located, Measured
from harness.records import STOCK, Variant

PLACE = 20


def figures_of(found: Measured) -> Iterator[Located]:
    """How many times as fast as today's PyTorch, and as the fastest library, each design of ours is."""
    if found.run.on_cpu:
        return
    rivals = {(peer.dataset, peer.metric): peer.variant for peer in peers.find_of_all(found)}
    for (variant, dataset, metric), ours in found.measurements.items():
        if peers.is_peer(variant) or metric not in COMPARED:
            continue
        for name, title, rival in (
            (peers.over_stock(metric), "PyTorch of today", Variant(STOCK)),
            (peers.over_peer(metric), "the fastest path of another library", rivals.get((dataset, metric))),
        ):
            theirs = found.at(rival, dataset, metric) if rival else None
            if theirs is not None:
                ratio = results.speedup_over(theirs, ours)
                what, ids = f"speedup over {title} by {METRICS[metric]}", ratio.records
                yield variant, dataset, estimated(name, what, ratio.estimate, "×", "ratio", ids)
