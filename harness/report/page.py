"""The report: one HTML file that opens from disk, with charts, tables, raw data and nothing to fetch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from harness import __version__
from harness.analysis import frame, limits, results, stats, summary, trust
from harness.analysis.frame import Loaded, Run
from harness.analysis.results import METRICS, Results
from harness.errors import unwritable
from harness.records import PYTORCH, Workload, write_whole
from harness.report import (
    charts,
    embed,
    hot_rows,
    inference,
    occupancy,
    profile,
    provenance,
    side_by_side,
    sweeps,
    tables,
    timings,
    units,
    views,
)
from harness.report.charts import Chart
from harness.text import readable

TEMPLATES = Path(__file__).resolve().parent / "templates"


def render(runs: Sequence[Path], out: Path) -> Path:
    """Writes the comparison of these runs to `out` and returns it.

    BadInputError where a folder holds no run, a record cannot be read, or `out` cannot be written.
    """
    return write(results.derive(frame.load(runs)), out)


def write(derived: Results, out: Path) -> Path:
    """Writes the page of these runs to `out` and returns it; BadInputError where it cannot be written,
    MachineError where the disk is full."""
    text = html(derived)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, text)
    except OSError as error:
        raise unwritable(out, error) from error
    return out


def html(derived: Results) -> str:
    """The page of these runs."""
    shown = content(derived)
    script = _source("page.js")
    data = summary.summary(derived.loaded, derived)
    return readable(  # paths are on it, which may be no UTF-8
        _environment()
        .get_template("report.html.j2")
        .render(
            **shown,
            metrics=METRICS,
            level=f"{stats.LEVEL * 100:.0f} %",
            draws=stats.DRAWS,
            embedded={
                "charts": embed.charts(embed.charts_in(shown)),
                "theme": charts.theme(charts.ROLES),
                "ratios": embed.ratios(derived),
                "contestants": _contestants(derived.loaded),
                "data": data | {name: embed.packed(data[name]) for name in embed.LONG},
            },
            style=Markup(_source("page.css")),
            bundle=Markup(embed.bundle()),
            script=Markup(script),
            policy=embed.policy(embed.bundle(), script),
            version=__version__,
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def content(derived: Results) -> dict[str, Any]:
    """What the page shows, by the name under which its template knows it: plain values, tables, charts."""
    loaded = derived.loaded
    at = tables.anchors(derived)
    findings = trust.examine(derived)
    found = limits.find(derived)
    shown = [views.of(derived, found, run, findings, at) for run in loaded.runs]
    slowest = _slowest_dataset(derived)
    claimed = tables.claims_view(derived, at)
    return {
        "title": loaded.runs[0].title if len(shown) == 1 else f"{len(shown)} runs side by side",
        "subtitle": _subtitle(loaded),
        "views": shown,
        "several": len(shown) > 1,
        "arms": list(dict.fromkeys(arm for run in loaded.runs for arm in run.arms)),
        "datasets": list(dict.fromkeys(name for run in loaded.runs for name in run.datasets)),
        "time_charts": _per_dataset(derived, timings.times),
        "sample_charts": _per_dataset(derived, timings.distributions),
        "sweeps": sweeps.views(derived, at),
        "limited": any(view.limits for view in shown),
        "pins": any(view.pins for view in shown),
        "occupancy": occupancy.pair(derived, loaded.runs, slowest),
        "story": tables.compiler_story(derived),
        "compilers": tables.compilers(derived, at),
        "profiles": profile.views(derived),
        "inferences": inference.views(derived, at),
        "hot_rows": hot_rows.views(derived, at),
        "besides": side_by_side.views(derived),
        "claims": claimed,
        "other_gpus": _other_gpus(loaded, claimed.source.gpu) if claimed else "",
        "ceilings": provenance.ceilings(derived),
        "traces": provenance.datasets(derived, found),
        "failures": provenance.failures(derived, at),
        "pending": [(run.name, cell) for run in loaded.runs for cell in run.whole.pending],
        "environments": provenance.environments(derived),
        "differences": provenance.differences(derived),
        "builds": provenance.builds(derived),
        "cells": provenance.all_cells(derived),
    }


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    compact = {"allow_nan": False, "sort_keys": False, "separators": (",", ":")}
    environment.policies["json.dumps_kwargs"] = compact
    environment.filters["count"] = units.count
    return environment


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _contestants(loaded: Loaded) -> dict[str, list[str]]:
    """Every arm's names on the page."""
    names: dict[str, list[str]] = {}
    for run in loaded.runs:
        for arm in run.arms:
            known = names.setdefault(arm, [arm])
            if (name := loaded.contestant(run.name, arm)) not in known:
                known.append(name)
    return names


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


def _per_dataset(
    derived: Results, draw: Callable[[Results, Sequence[Run], str], Chart | None]
) -> list[Chart]:
    """A chart per dataset; runs share it where machine and workload are the same, to be compared."""
    settings: dict[tuple[str, str, Workload], list[Run]] = {}
    for run in derived.loaded.runs:
        cell = run.records[0].cell if run.records else run.pending[0]
        settings.setdefault((views.where(run), views.software(run), cell.workload), []).append(run)
    return [
        chart
        for runs in settings.values()
        for dataset in dict.fromkeys(name for run in runs for name in run.datasets)
        if (chart := draw(derived, [run for run in runs if dataset in run.datasets], dataset))
    ]


def _slowest_dataset(derived: Results) -> str:
    """Where the kernel takes longest, so that designs differ most; empty where nothing was measured."""
    slowest = max(
        (m for m in derived.measurements.values() if m.metric == "kernel_us"),
        key=lambda m: m.time.value,
        default=None,
    )
    return slowest.dataset if slowest else ""
