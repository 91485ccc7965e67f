"""What the page shows of one run, as plain values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.analysis import trust
from harness.analysis.frame import Run
from harness.analysis.limits import Limits
from harness.analysis.results import Results
from harness.report import advice, heatmaps, limits, provenance, roofline, tables
from harness.report.charts import Chart
from harness.report.tables import Anchors, Table

VERDICTS = {
    "good": "Nothing speaks against these figures.",
    "note": "Read with care: see the points marked !.",
    "bad": "Do not cite before the points marked ✕ are mended.",
}


@dataclass(frozen=True)
class Compared:
    """A chart, and the table with its figures."""

    chart: Chart | None
    table: Table


@dataclass(frozen=True)
class RunView:
    """What the page shows of one run."""

    run: Run
    index: int
    """Its place among the runs of the page."""
    headline: str
    """The metric that its arms are compared by."""
    references: list[str]
    """Arms that the reader may take as reference: the run's own, and whatever was measured."""
    where: str
    """The GPU, or the CPU, by name."""
    software: str
    """Driver, PyTorch and CUDA."""
    on_cpu: bool
    prepares: bool
    """Whether any design prepares, so that pin time is a matter."""
    winners: list[tables.Card]
    advice: advice.Advice | None
    """What to use; None where no design won."""
    no_winner: str
    """Why there are no winners, where there are none."""
    findings: list[trust.Finding]
    verdict: str
    verdict_text: str
    speedups: list[Compared]
    times: list[Table]
    """By the headline first."""
    kernel_times: list[Table]
    """Of prepare and of the kernel alone, where a design prepares."""
    roofline: Chart | None
    limits: Compared | None
    """Shares of the limit; None where no limit is known."""
    model: Table | None
    """What the limits come from."""
    rates: str
    """The ceilings that they were computed with."""
    beaten: list[str]
    """What is faster than its limit, in words."""
    pins: Table | None
    protocol: list[tuple[str, str]]


def of(derived: Results, found: Limits, run: Run, findings: list[trust.Finding], at: Anchors) -> RunView:
    own = [finding for finding in findings if finding.run == run.name]
    verdict = trust.verdict(own)
    prepares = derived.prepares(run)
    headline = derived.compared(run)[0]
    timed = dict.fromkeys([headline, "total_us" if prepares else "kernel_us", "stage_us"])
    winners = tables.winners(derived, found, run, at)
    drawn = heatmaps.shares(derived, run, found)
    return RunView(
        run=run,
        index=derived.loaded.runs.index(run),
        headline=headline,
        references=[
            arm
            for arm in run.arms
            if arm == run.reference or any(derived.measurement(run, arm, d, headline) for d in run.datasets)
        ],
        where=where(run),
        software=software(run),
        on_cpu=run.on_cpu,
        prepares=prepares,
        winners=winners,
        advice=advice.of(derived, run),
        no_winner=_no_winner(run),
        findings=own,
        verdict=verdict,
        verdict_text=VERDICTS[verdict],
        speedups=[
            Compared(
                heatmaps.speedups(derived, run, metric),
                tables.speedups(derived, run, metric, at),
            )
            for metric in (derived.compared(run) if len(run.arms) > 1 else [])
        ],
        times=[tables.times(derived, run, metric, at) for metric in timed],
        kernel_times=[
            tables.times(derived, run, metric, at)
            for metric in (("prepare_us", "kernel_us") if prepares else ())
        ],
        roofline=roofline.chart(derived, run, found),
        limits=Compared(drawn, limits.shares(derived, run, found, at)) if drawn else None,
        model=limits.model(run, found),
        rates=limits.rates(run),
        beaten=limits.beaten(found, run),
        pins=limits.pin_table(derived, run, at),
        protocol=provenance.protocol(run),
    )


def where(run: Run) -> str:
    """The hardware that the run's records name."""
    seen = [record.environment for record in run.records if record.environment]
    if not seen:
        return "a machine that no record names"
    return _either(e.gpu if e.device == "cuda" else e.cpu for e in seen)


def software(run: Run) -> str:
    """What the run's records were made with; empty where no record says."""
    seen = [record.environment for record in run.records if record.environment]
    if not seen:
        return ""
    names = [f"PyTorch {_either(e.torch for e in seen)}"]
    if not run.on_cpu:
        names = [
            f"driver {_either(e.driver for e in seen)}",
            *names,
            f"CUDA {_either(e.cuda for e in seen)}",
        ]
    return ", ".join(names)


def _either(values: Iterable[str]) -> str:
    return " or ".join(dict.fromkeys(value or "unnamed" for value in values))


def _no_winner(run: Run) -> str:
    if run.on_cpu:
        return (
            "On the CPU every design runs PyTorch's own operator: no design wins, and differences are noise."
        )
    if not run.records:
        return "Nothing has been measured yet."
    return "No dataset has two measured designs to compare."
