"""The report as one HTML file that opens from disk, with charts, tables, raw data and nothing to fetch."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness import __version__
from harness.analysis import timeline
from harness.analysis.figures import METRICS
from harness.analysis.report import Report
from harness.analysis.timeline import History
from harness.errors import unwritable
from harness.records import write_whole
from harness.report import charts, embed, first_screen, history, names, sections, summary, units, verdict
from harness.report.blocks import Over, Section, Source
from harness.report.charts import Chart
from harness.text import readable

TEMPLATES = Path(__file__).resolve().parent / "templates"


def write(report: Report, out: Path) -> Path:
    """Writes the page to `out` and returns it; BadInputError where it cannot be written, MachineError where
    the disk is full."""
    text = html(report)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text)
    except OSError as error:
        raise unwritable(out, error) from error
    return out


def html(report: Report) -> str:
    """The page as text."""
    picture = first_screen.picture(report)
    return _laid_out(
        _environment(report),
        list(sections.page(report)),
        embed.names(report),
        embed.data(report),
        first="first_screen.html.j2",
        title=first_screen.title(report),
        tab=first_screen.tab(report),
        report=report,
        verdict=verdict.of(report),
        picture=picture,
        runs=report.runs,
        counted=len(report.runs),
        by_hand=" but the paper's claims",
        arms=_every([variant.label for run in report.runs for variant in run.variants]),
        datasets=_every([name for run in report.runs for name in run.datasets]),
    )


def of_history(found: History) -> str:
    """The page of a history as text."""
    named = embed.history_names(found)
    return _laid_out(
        _environment(None),
        list(history.sections(found)),
        named,
        embed.packed(timeline.as_json(found)),
        first="history.html.j2",
        title=history.title(found),
        tab=history.tab(found),
        history=found,
        told=history,
        picture=None,
        runs=[],
        counted=found.runs,
        by_hand="",
        arms=list(named["contestants"]),
        datasets=named["datasets"],
    )


def _laid_out(
    environment: jinja2.Environment,
    shown: Sequence[Section],
    named: object,
    data: object,
    *,
    picture: Chart | None,
    **told: object,
) -> str:
    """`named`, `data`: for the page's script; `told`: for its templates."""
    script = _source("page.js")
    return readable(  # paths are on it, which may be no UTF-8
        environment.get_template("report.html.j2").render(
            sections=shown,
            picture=picture,
            embedded={
                "charts": embed.charts(embed.charts_in([picture, *shown])),
                "theme": charts.theme(charts.ROLES),
                "names": named,
                "data": data,
            },
            style=Markup(_source("page.css")),
            bundle=Markup(embed.bundle()),
            script=Markup(script),
            policy=embed.policy(embed.bundle(), script),
            version=__version__,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            **told,
        )
    )


def _every(found: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(found))


def _environment(report: Report | None) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    compact = {"allow_nan": False, "sort_keys": False, "separators": (",", ":")}
    environment.policies["json.dumps_kwargs"] = compact
    known = report.runs if report else []
    every = ((run.name, cell.id) for run in known for cell in run.cells)
    anchors = {place: f"cell-{number}" for number, place in enumerate(every)}
    runs = {run.name: (number, run) for number, run in enumerate(known)}

    def told(source: Source) -> str:
        """The records behind a figure, in words."""
        first, more = ", ".join(source.records[:8]), len(source.records) - 8
        return f"from {first}" + (f" and {more} more" if more > 0 else "")

    def anchor(source: Source) -> str:
        """The row of the first of them in the appendix of all cells."""
        return anchors.get((source.run, source.records[0]), "")

    def over(one: Over) -> str:
        """Where the page's script finds a speedup by one of the metrics that the run is compared by."""
        number, run = runs[one.run]
        places = run.variants.index(one.variant), run.datasets.index(one.dataset)
        return f"{number}/{one.metric}/{places[0]}/{places[1]}"

    environment.filters.update(
        count=units.count, told=told, anchor=anchor, over=over, shape=lambda block: type(block).__name__
    )
    environment.globals.update(names=names, first_screen=first_screen, summary=summary, metrics=METRICS)
    return environment


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
