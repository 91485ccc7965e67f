"""The report: one HTML file that opens from disk, with charts, tables, raw data and nothing to fetch."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import vl_convert
from markupsafe import Markup

from harness import __version__
from harness.analysis import frame, limits, results, stats, summary, trust
from harness.analysis.frame import Loaded, Run
from harness.analysis.limits import Limits
from harness.analysis.results import METRICS, Results
from harness.errors import BadInputError
from harness.records import PYTORCH, Workload, write_whole
from harness.report import charts, provenance, tables, units
from harness.report import limits as roofline
from harness.report.charts import Chart
from harness.report.tables import Anchors, Table

TEMPLATES = Path(__file__).resolve().parent / "templates"
VERDICTS = {
    "good": "Nothing speaks against these figures.",
    "note": "Read with care: see the points marked !.",
    "bad": "Do not cite before the points marked ✕ are mended.",
}


@dataclass(frozen=True)
class Compared:
    """Speedups of one run by one metric: the chart and the table behind it."""

    chart: Chart | None
    table: Table


@dataclass(frozen=True)
class RunView:
    """What the page shows of one run."""

    run: Run
    where: str
    """The GPU, or the CPU, by name."""
    software: str
    """Driver, PyTorch and CUDA."""
    on_cpu: bool
    prepares: bool
    """Whether any design prepares, so that pin time is a matter."""
    winners: list[tables.Card]
    no_winner: str
    """Why there are no winners, where there are none."""
    findings: list[trust.Finding]
    verdict: str
    verdict_text: str
    speedups: list[Compared]
    times: list[Table]
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


def render(runs: Sequence[Path], out: Path) -> Path:
    """Writes the comparison of these runs to `out` and returns it.

    BadInputError where a folder holds no run, a record cannot be read, or `out` cannot be written.
    """
    return write(results.derive(frame.load(runs)), out)


def write(derived: Results, out: Path) -> Path:
    """Writes the page of these runs to `out` and returns it; BadInputError where it cannot be written."""
    text = html(derived)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text)
    except OSError as error:
        raise BadInputError(f"{out}: cannot be written: {error.strerror}.") from error
    return out


def html(derived: Results) -> str:
    """The page of these runs."""
    loaded = derived.loaded
    at = tables.anchors(derived)
    findings = trust.examine(derived)
    found = limits.find(derived)
    views = [_run_view(derived, found, run, findings, at) for run in loaded.runs]
    comparison = _time_charts(derived)
    slowest = _slowest_dataset(derived)
    occupancy = charts.occupancy(derived, loaded.runs, slowest) if slowest else None
    claimed = tables.claims_table(derived, at)
    script = _source("page.js")
    drawn = [c.chart for view in views for c in (*view.speedups, view.limits) if c and c.chart] + comparison
    return str(
        _environment()
        .get_template("report.html.j2")
        .render(
            title=loaded.runs[0].title if len(views) == 1 else f"{len(views)} runs side by side",
            views=views,
            several=len(views) > 1,
            subtitle=_subtitle(loaded),
            metrics=METRICS,
            level=f"{stats.LEVEL * 100:.0f} %",
            time_charts=comparison,
            limited=any(view.limits for view in views),
            pins=any(view.pins for view in views),
            occupancy=occupancy,
            story=tables.compiler_story(derived),
            compilers=tables.compilers(derived, at),
            claims=claimed,
            other_gpus=_other_gpus(loaded, claimed[0].source.gpu) if claimed else "",
            ceilings=provenance.ceilings(derived),
            datasets=provenance.datasets(derived, found),
            failures=provenance.failures(derived, at),
            pending=[(run.name, cell.id) for run in loaded.runs for cell in run.pending],
            environments=provenance.environments(derived),
            differences=provenance.differences(derived),
            builds=provenance.builds(derived),
            cells=provenance.all_cells(derived),
            charts=[*drawn, *([occupancy] if occupancy else [])],
            chart_theme=charts.theme(charts.ROLES),
            data=summary.summary(loaded, derived),
            style=Markup(_source("page.css")),
            bundle=Markup(_bundle()),
            script=Markup(script),
            policy=_policy(_bundle(), script),
            version=__version__,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "sort_keys": False}
    environment.filters["count"] = units.count
    return environment


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


_EXPORTS = "window.vegaEmbed = vegaEmbed;"


@functools.cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script; safe inside a script element."""
    text: str = vl_convert.javascript_bundle(_EXPORTS)
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(*scripts: str) -> str:
    """A content security policy under which only these scripts run and nothing is fetched.

    Vega compiles expressions of the specifications, which needs 'unsafe-eval'; those are ours alone.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"


def _run_view(
    derived: Results, found: Limits, run: Run, findings: list[trust.Finding], at: Anchors
) -> RunView:
    own = [finding for finding in findings if finding.run == run.name]
    verdict = trust.verdict(own)
    prepares = derived.prepares(run)
    timed = ["kernel_us", "prepare_us", "total_us"] if prepares else ["kernel_us"]
    drawn = roofline.chart(derived, run, found)
    return RunView(
        run=run,
        where=_where(run),
        software=_software(run),
        on_cpu=run.on_cpu,
        prepares=prepares,
        winners=tables.winners(derived, found, run, at),
        no_winner=_no_winner(run),
        findings=own,
        verdict=verdict,
        verdict_text=VERDICTS[verdict],
        speedups=[
            Compared(
                charts.speedups(derived, run, metric, f"By {METRICS[metric]}"),
                tables.speedups(derived, run, metric, at),
            )
            for metric in (derived.compared(run) if len(run.arms) > 1 else [])
        ],
        times=[tables.times(derived, run, metric, at) for metric in [*timed, "stage_us"]],
        limits=Compared(drawn, roofline.shares(derived, run, found, at)) if drawn else None,
        model=roofline.model(run, found),
        rates=roofline.rates(run),
        beaten=roofline.beaten(found, run),
        pins=roofline.pin_table(derived, run, at),
        protocol=provenance.protocol(run),
    )


def _where(run: Run) -> str:
    """The hardware that the run's records name."""
    seen = [record.environment for record in run.records if record.environment]
    if not seen:
        return "a machine that no record names"
    return _either(e.gpu if e.device == "cuda" else e.cpu for e in seen)


def _software(run: Run) -> str:
    """What the run's records were made with; empty where no record says."""
    seen = [record.environment for record in run.records if record.environment]
    if not seen:
        return ""
    software = [f"PyTorch {_either(e.torch for e in seen)}"]
    if not run.on_cpu:
        software = [
            f"driver {_either(e.driver for e in seen)}",
            *software,
            f"CUDA {_either(e.cuda for e in seen)}",
        ]
    return ", ".join(software)


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


def _subtitle(loaded: Loaded) -> str:
    """How much was compared."""
    cells = loaded.cells
    compilers = len(set(cells["toolchain"]) - {PYTORCH})
    under = f" under {units.count(compilers, 'compiler')}" if compilers else ""
    runs = f" in {units.count(len(loaded.runs), 'run')}" if len(loaded.runs) > 1 else ""
    designs, datasets = (units.count(cells[name].nunique(), name) for name in ("design", "dataset"))
    return f"{designs}{under} on {datasets}{runs}, {units.count(len(cells), 'cell')}"


def _other_gpus(loaded: Loaded, gpu: str) -> str:
    """The GPUs of the records that are not the one that the paper used."""
    model = gpu.rsplit(" ", 1)[-1]
    return " and ".join(name for name in tables.gpus(loaded.runs) if model not in name)


def _time_charts(derived: Results) -> list[Chart]:
    """Bars per dataset; runs share a chart where machine and workload are the same, to be compared."""
    settings: dict[tuple[str, str, Workload], list[Run]] = {}
    for run in derived.loaded.runs:
        cell = run.records[0].cell if run.records else run.pending[0]
        settings.setdefault((_where(run), _software(run), cell.workload), []).append(run)
    found = []
    for runs in settings.values():
        for dataset in dict.fromkeys(name for run in runs for name in run.datasets):
            found.append(charts.times(derived, runs, dataset))
    return [chart for chart in found if chart is not None]


def _slowest_dataset(derived: Results) -> str:
    """Where the kernel takes longest, so that designs differ most; empty where nothing was measured."""
    slowest = max(
        (m for m in derived.measurements.values() if m.metric == "kernel_us"),
        key=lambda m: m.time.value,
        default=None,
    )
    return slowest.dataset if slowest else ""
