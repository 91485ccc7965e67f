"""What the page carries inside itself: the chart library, charts, figures, and the policy over them."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import vl_convert

from harness.analysis.report import Report
from harness.analysis.timeline import History
from harness.build import cache
from harness.errors import MachineError
from harness.report import libraries
from harness.report import names as called
from harness.report.blocks import Table
from harness.report.charts import Chart

OWN = ("data", "height", "usermeta")
"""What charts of one kind may differ in."""
_EXPORTS = "window.vegaEmbed = vegaEmbed;"


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script; safe inside a script element.

    Kept in the cache, for bundling takes longer than all the rest of a page.
    """

    def make(folder: Path) -> None:
        (folder / "bundle.js").write_text(_bundled(), encoding="utf-8")

    name = hashlib.sha256(f"{metadata.version('vl-convert-python')} {_EXPORTS}".encode()).hexdigest()[:16]
    try:
        folder = cache.make_once(cache.cache_dir() / "charts" / name, make)
        return (folder / "bundle.js").read_text(encoding="utf-8")
    except (OSError, MachineError):  # a cache that cannot be used is no reason to go without a page
        return _bundled()


def _bundled() -> str:
    text: str = vl_convert.javascript_bundle(_EXPORTS)
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def policy(*scripts: str) -> str:
    """A content security policy under which only these scripts run and nothing is fetched.

    Vega compiles expressions of the specifications, which needs 'unsafe-eval'; those are ours alone.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    return f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"


def charts_in(value: object) -> Iterator[Chart]:
    """Every chart among blocks, in their order."""
    if isinstance(value, Table):  # holds none, and is large
        return
    if isinstance(value, Chart):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from charts_in(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from charts_in(item)


def charts(found: Iterable[Chart]) -> dict[str, Any]:
    """Charts as the page's script takes them: `templates`, and by id which of them with which data.

    Charts that differ in their rows alone share a template.
    """
    templates: dict[str, int] = {}
    drawn = {}
    for chart in found:
        rest = {name: value for name, value in chart.spec.items() if name not in OWN}
        number = templates.setdefault(json.dumps(rest, sort_keys=True), len(templates))
        own = {name: chart.spec[name] for name in OWN if name in chart.spec}
        drawn[chart.id] = {"template": number, **own, "data": _packed(own.get("data"))}
    return {"templates": [json.loads(text) for text in templates], "charts": drawn}


def _packed(data: Mapping[str, Any] | None) -> object:
    """Rows as columns of names and lists of values, which takes a third of the space."""
    return data if data is None or "values" not in data else _table(data["values"])


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Objects of many keys as `{"names": [...], "rows": [[...], ...]}`; what a row lacks is null."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {"names": names, "rows": [[_short(row.get(name)) for name in names] for row in rows]}


def _short(value: Any) -> Any:
    """Six significant figures are more than anything measured has."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def data(report: Report) -> Any:
    """The report itself, with lists of objects packed; but for logs, which the page shows as text."""
    runs = [
        dataclasses.replace(run, cells=[dataclasses.replace(cell, log="") for cell in run.cells])
        for run in report.runs
    ]
    return packed(dataclasses.asdict(dataclasses.replace(report, runs=runs)))


def packed(value: Any) -> Any:
    """Lists of objects with the same keys as tables, at every depth; numbers shortened."""
    if isinstance(value, dict):
        return {name: packed(item) for name, item in value.items()}
    if not isinstance(value, list | tuple):
        return _short(value)
    items = [packed(item) for item in value]
    if len(items) > 1 and all(isinstance(item, dict) and item.keys() == items[0].keys() for item in items):
        return {"names": list(items[0]), "rows": [list(item.values()) for item in items]}
    return items


def names(report: Report) -> dict[str, Any]:
    """What the page's script has to know by name: each run's variants, its reference and, of every variant,
    what it is called where runs stand together; all datasets; what files with the data are called."""
    runs = [(run, [variant.label for variant in run.variants]) for run in report.runs]
    contestants: dict[str, list[str]] = {}
    for run, labels in runs:
        for variant, label in zip(run.variants, labels, strict=True):
            known = contestants.setdefault(label, [label])
            # The second: in a section of this run alone.
            for name in (called.contestant(report, run, variant), libraries.called(run, variant)):
                if name not in known:
                    known.append(name)
    told = [
        {
            "variants": labels,
            "reference": run.reference.label,
            "called": [called.called(run, variant) for variant in run.variants],
        }
        for run, labels in runs
    ]
    datasets = dict.fromkeys(name for run in report.runs for name in run.datasets)
    files = {"json": "report.json", "csv": "cells.csv"}
    return {"runs": told, "contestants": contestants, "datasets": list(datasets), "files": files}


def history_names(found: History) -> dict[str, Any]:
    """The same of a history, which has no runs of its own to switch the reference of."""
    labels = dict.fromkeys(variant.label for setting in found.settings for variant in setting.variants)
    datasets = dict.fromkeys(name for setting in found.settings for name in setting.datasets)
    return {
        "runs": [],
        "contestants": {label: [label] for label in labels},
        "datasets": list(datasets),
        "files": {"json": "history.json", "csv": "history.csv"},
    }
