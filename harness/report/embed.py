"""What the page carries inside itself: the chart library, charts, figures, and the policy over them."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import vl_convert

from harness.analysis import references
from harness.analysis.frame import Run
from harness.analysis.results import Results
from harness.build import cache
from harness.errors import MachineError
from harness.report.charts import Chart
from harness.report.tables import Table

OWN = ("data", "height", "usermeta")
"""What charts of one kind may differ in."""
LONG = ("times", "speedups", "shares", "cells")
"""Lists in the summary that the page carries packed."""
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
    """Every chart in what a template is given, in its order."""
    if isinstance(value, Run | Table):  # hold none, and are large
        return
    if isinstance(value, Chart):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from charts_in(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from charts_in(item)
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
    if data is None or "values" not in data:
        return data
    return packed(data["values"])


def packed(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Objects of many keys as `{"names": [...], "rows": [[...], ...]}`; what a row lacks is null."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {"names": names, "rows": [[_short(row.get(name)) for name in names] for row in rows]}


def _short(value: Any) -> Any:
    """Six significant figures are more than anything measured has."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def ratios(results: Results) -> list[dict[str, Any]]:
    """Per run, for every reference: value, low and high of every arm and dataset, by metric."""
    found = []
    for run in results.loaded.runs:
        metrics = [*results.compared(run), *results.whole(run)] if len(run.arms) > 1 else []
        by_metric = {metric: references.ratios(results, run, metric).values for metric in metrics}
        found.append(
            {
                "run": run.name,
                "reference": run.reference,
                "arms": run.arms,
                "datasets": run.datasets,
                "metrics": {name: _nested(values.tolist()) for name, values in by_metric.items()},
            }
        )
    return found


def _nested(value: Any) -> Any:
    """Nested lists with shortened numbers; the innermost one is null where it holds no numbers."""
    if isinstance(value[0], float):
        return None if math.isnan(value[0]) else [_short(number) for number in value]
    return [_nested(inner) for inner in value]
