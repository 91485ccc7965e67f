"""What each design makes of the GPU's bandwidth: bytes a second, and the share of what the GPU can give."""

from __future__ import annotations

from collections.abc import Iterator

from harness.analysis import limits
from harness.analysis.figures import HEADLINE, Figure, estimated
from harness.analysis.limits import Limit, Need
from harness.analysis.results import Located, Measured, Measurement
from harness.analysis.stats import Estimate

PLACE = 30


def figures_of(found: Measured) -> Iterator[Located]:
    """Of every variant on a GPU, by prepare + kernel, none where the cost of events decides what is left of a
    time:

    * `lookup_gbps`: bytes of every row looked up, of indices, sample weights and outputs ÷ time. Benchmarks
      of embedding lookups print it as their bandwidth; most of those rows come out of caches, so it may well
      exceed what memory can give.
    * `achieved_gbps`: bytes that must pass where the limit binds, each once (`Limit.binding`), ÷ time.
    * `limit_share`: the same as a share of the peak there, which is limit ÷ time; `limit_share_kernel`: by
      the kernel alone (for a design that pins, preparing fetches some of the rows).
    """
    if found.run.on_cpu:
        return
    known = {limit.dataset: limit for limit in found.limits}
    for (variant, dataset, metric), total in found.measurements.items():
        records = found.run.at(variant, dataset)
        if metric != HEADLINE or limits.events_decide(records):
            continue
        asked = limits.every_lookup_bytes(records[0].cell.workload)
        rate = _rate(asked, total.time)
        told = estimated("lookup_gbps", "bandwidth of lookups", rate, "GB/s", "rate", total.records)
        yield variant, dataset, told
        if limit := known.get(dataset):
            kernel = found.measurements[variant, dataset, "kernel_us"]
            yield from ((variant, dataset, figure) for figure in of_limit(limit, total, kernel))


def of_limit(limit: Limit, total: Measurement, kernel: Measurement) -> Iterator[Figure]:
    """What is made of the peak where a limit binds: by prepare + kernel, and by the kernel alone."""
    need, ids = limit.binding, total.records
    achieved = _rate(need.bytes, total.time)
    title = f"bandwidth achieved, {need.part}"
    yield estimated("achieved_gbps", title, achieved, "GB/s", "rate", ids)
    yield estimated("limit_share", "share of the limit", _share(need, total.time), "", "share", ids)
    alone = "limit_share_kernel", "share by kernel alone", need.us / kernel.time.value
    yield Figure(*alone, "", "share", records=kernel.records)


def _rate(moved: float, took: Estimate) -> Estimate:
    """GB/s of so many bytes in so many µs."""
    rate, low, high = (moved / us / 1e3 for us in (took.value, took.high, took.low))
    return Estimate(rate, low, high, took.replicates)


def _share(limit: Need, took: Estimate) -> Estimate:
    return Estimate(limit.us / took.value, limit.us / took.high, limit.us / took.low, took.replicates)
