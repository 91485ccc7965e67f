"""What counters say of a design beside other libraries: who reads how much from memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.analysis.peers import is_peer
from harness.analysis.profiles import Counters, Profiled
from harness.analysis.report import Run
from harness.report import libraries, units

READ = "dram_read_bytes"
_ALIKE = 0.005
"""Parts that differ by less are called equal: percents are whole."""


def sentences(run: Run, profile: Profiled) -> Iterator[str]:
    """By dataset: the bytes that the fastest design of ours reads from memory for a table and batch, beside
    the fastest path of each library of which they were counted, and beside each row and row number once.
    Nothing of datasets where one of the two was not profiled, or their reads were not counted."""
    for dataset in run.datasets:
        counted = [of for of in profile.counters if of.dataset == dataset and of.figure(READ)]
        ours = _fastest(run, (of for of in counted if not is_peer(of.variant)))
        theirs = (of for of in counted if is_peer(of.variant))
        by_library: dict[str, list[Counters]] = {}
        for of in theirs:
            by_library.setdefault(of.variant.design, []).append(of)
        rivals = [fastest for paths in by_library.values() if (fastest := _fastest(run, paths))]
        if ours and rivals:
            told = " and ".join(_against(run, ours, rival) for rival in rivals)
            reads = f"{ours.variant.label} reads {units.megabytes(_read(ours))} from memory, {told}"
            yield f"On {dataset}, {reads}{_least(run, dataset)}."


def _fastest(run: Run, found: Iterable[Counters]) -> Counters | None:
    """By the run's own times; of those without one the first."""

    def time(of: Counters) -> float:
        measured, _ = run.timed(of.variant, of.dataset, run.headline)
        return measured.value if measured else float("inf")

    return min(found, key=time, default=None)


def _against(run: Run, ours: Counters, rival: Counters) -> str:
    """For example "22 % less than FBGEMM v1 (153 MB)"."""
    own, other = _read(ours), _read(rival)
    name = f"{libraries.called(run, rival.variant)} ({units.megabytes(other)})"
    if not other:
        return f"beside {name}"
    more = own / other - 1
    if abs(more) < _ALIKE:
        return f"as much as {name}"
    return f"{abs(more) * 100:,.0f} % {'more' if more > 0 else 'less'} than {name}"


def _read(of: Counters) -> float:
    figure = of.figure(READ)
    return figure.value if figure else 0.0


def _least(run: Run, dataset: str) -> str:
    """What the limit has to read; outputs, which it counts as well, are written."""
    limit = run.limit(dataset)
    once = next((need.bytes for need in limit.needs if need.part == "memory"), 0.0) if limit else 0.0
    work = run.protocol.workload
    read = once - work.output_bytes
    what = "row, row number and weight" if work.weighted else "row and row number"
    return f"; each {what} once is {units.megabytes(read)}" if read > 0 else ""
