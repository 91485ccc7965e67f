"""In what a record contradicts itself: its samples what it says of them, its outcome what it holds."""

from __future__ import annotations

import math
import statistics

from harness.records import MEASURED, STOCK, CellRecord
from harness.run.findings import CLOSE

_LONGER = 1.25
"""Times its stage that the kernels of a pass may take: the two are timed in turns, and clocks move. In the
runs that ship with the project it is 1.02 at most."""
FILLED = 0.8
"""Of a stage, by its kernels; in those runs it is 0.95 at least."""


def of_outcome(record: CellRecord) -> str:
    """Why what a record holds does not belong to how its cell ended; empty where it does."""
    if record.status not in MEASURED:
        if not record.message:
            return f"{record.status}, and does not say why"
        return f"{record.status}, and has samples all the same" if record.samples else ""
    check = record.check
    if check is None or not check.passed:
        return "not shown to be right, and timed all the same"
    if check.max_error > 1:
        return f"errs by {check.max_error:.4g} of what rounding explains, and is said to be right"
    if not check.elements:
        return "shown to be right by no element of its output"
    ran, planned = record.kernel.name if record.kernel else "", record.cell.design
    if record.environment and record.environment.device == "cuda" and ran != planned != STOCK:
        return f"{ran or 'no kernel that it names'} ran, and {planned} was planned"
    return ""


def of_samples(record: CellRecord) -> str:
    """In what a measured record's samples and facts disagree; empty where they agree."""
    kernel, stage = record.samples.get("kernel_us", []), record.samples.get("stage_us", [])
    passes, tables = len(stage), record.cell.workload.tables
    if not kernel or not passes or len(kernel) not in (passes, passes * tables):
        return f"{len(kernel)} samples of the kernel do not belong to {passes} passes of {tables} tables"
    if "passes" in record.facts and record.facts["passes"] != passes:
        return f"{passes} passes are not the {record.facts['passes']:.0f} that were taken"
    if beyond := [at for at in record.throttled_passes if at >= passes]:
        return f"pass {beyond[0]} is said to be throttled, of {passes}"
    watched = [_per_pass(kernel, passes), stage]
    if graph := record.samples.get("e2e_graph_us"):
        watched.append(graph)
    told = record.facts.get("relative_interval")
    if told is not None:
        found = max(_relative_interval(values) for values in watched)
        if not math.isclose(found, told, rel_tol=CLOSE):
            return f"their interval is {found:.4g} of the median and not the recorded {told:.4g}"
    return _longer_than_stage(record)


def leaves_gaps(record: CellRecord) -> bool:
    """Whether its kernels and what prepares them fill so little of their stage that one wonders what does."""
    share = _share_of_stage(record)
    return share is not None and share < FILLED


def _longer_than_stage(record: CellRecord) -> str:
    share = _share_of_stage(record)
    if share is None or share <= _LONGER:
        return ""
    return f"kernels take {share:.3g} times as long as the stage that they are part of"


def _share_of_stage(record: CellRecord) -> float | None:
    """Median time of kernels and of what prepares them ÷ that of the stage; None where no events of a GPU
    timed both, or there is nothing to divide by."""
    stage, tables = record.samples.get("stage_us", []), record.cell.workload.tables
    if record.environment is None or record.environment.device != "cuda" or not any(stage):
        return None
    spent = 0.0
    for name in ("kernel_us", "prepare_us"):
        if of := record.samples.get(name, []):
            # One sample a table; of a lookup of all tables at once one a pass, its mean per table.
            spent += statistics.median(_per_pass(of, len(stage))) * tables * len(stage) / len(of)
    whole = statistics.median(stage)
    return spent / whole if whole else None


def _per_pass(samples: list[float], passes: int) -> list[float]:
    calls = max(1, len(samples) // passes)
    return [sum(samples[at : at + calls]) for at in range(0, len(samples), calls)]


def _relative_interval(values: list[float]) -> float:
    """As `harness.bench.timing` has it: half the median's interval by order statistics ÷ the median."""
    ordered, count = sorted(values), len(values)
    reach = 1.96 * math.sqrt(count) / 2
    low, high = math.floor(count / 2 - reach), math.ceil(1 + count / 2 + reach)
    if low < 1 or high > count:
        return math.inf
    width, median = ordered[high - 1] - ordered[low - 1], statistics.median(ordered)
    if width == 0:
        return 0.0
    return width / 2 / median if median > 0 else math.inf
