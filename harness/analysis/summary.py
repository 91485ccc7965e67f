"""The figures of runs as plain data, for programs (`--json`) and inside the page."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from harness.analysis import claims, hot_rows, inference, limits, pins, profiles, results, sweeps, trust
from harness.analysis.document import SCHEMA_VERSION
from harness.analysis.frame import Loaded, Run
from harness.analysis.stats import DRAWS, LEVEL, Estimate
from harness.records import MEASURED


def summary(loaded: Loaded, derived: results.Results | None = None) -> dict[str, Any]:
    """What the report shows, as JSON-ready data; `harness.analysis.document` describes every key."""
    derived = derived or results.derive(loaded)
    findings = trust.examine(derived)
    found = limits.find(derived)
    return {
        "schema_version": SCHEMA_VERSION,
        "method": {
            "speedup": "time of the run's reference ÷ time of the arm, per dataset",
            "time": "geometric mean over replicates of the median over passes",
            "interval": "hierarchical bootstrap: replicates, then passes",
            "level": LEVEL,
            "draws": DRAWS,
            "headline": results.HEADLINE,
            "metrics": dict(results.METRICS),
        },
        "runs": [_run(derived, run, [f for f in findings if f.run == run.name]) for run in loaded.runs],
        "times": [
            {
                **_place(m),
                **_estimate(m.time),
                "replicates": m.replicates,
                "records": m.records,
            }
            for m in derived.measurements.values()
        ],
        "speedups": [
            {
                **_place(s),
                "reference": s.reference,
                **_estimate(s.ratio),
                "verdict": s.verdict,
                "records": s.records,
            }
            for s in derived.speedups.values()
        ],
        "winners": [
            _winner(won)
            for run in loaded.runs
            for dataset in run.datasets
            for metric in results.COMPARED
            if (won := derived.winner(run, dataset, metric))
        ],
        "limits": [_limit(limit) for limit in found.limits.values()],
        "shares": [_share(share) for share in found.shares.values()],
        "pins": [_pin(pin) for pin in pins.find(derived)],
        "latencies": [dataclasses.asdict(found) for found in inference.latencies(derived)],
        "splits": [dataclasses.asdict(found) for found in inference.splits(derived)],
        "hot_rows": [dataclasses.asdict(found) for found in hot_rows.find(derived)],
        "claims": _claims(derived),
        "sweeps": [_swept(swept) for swept in sweeps.find(derived)],
        "profiles": [
            dataclasses.asdict(figures)
            for run in loaded.runs
            for figures in profiles.find(run).figures.values()
        ],
        "cells": cells(loaded),
    }


def cells(loaded: Loaded) -> list[dict[str, Any]]:
    """One object per cell; a missing number is null."""
    return [{str(k): _plain(v) for k, v in row.items()} for row in loaded.cells.to_dict("records")]


def _plain(value: Any) -> Any:
    """A table's value as JSON has it: whole numbers whole, nothing as null, times to the nanosecond."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else round(value, 6)
    return value


def _run(derived: results.Results, run: Run, findings: list[trust.Finding]) -> dict[str, Any]:
    whole = run.whole
    measured = sum(record.status in MEASURED for record in whole.records)
    return {
        "name": run.name,
        "title": run.title,
        "reference": run.reference,
        "headline": derived.headline(run),
        "arms": run.arms,
        "datasets": run.datasets,
        "planned": len(whole.records) + len(whole.pending),
        "measured": measured,
        "verdict": trust.verdict(findings),
        "findings": [_without_run(finding) for finding in findings],
        "environment_differences": [_without_run(difference) for difference in trust.differences(run)],
    }


def _without_run(value: trust.Finding | trust.Difference) -> dict[str, Any]:
    return {key: item for key, item in dataclasses.asdict(value).items() if key != "run"}


def _place(value: results.Measurement | results.Speedup) -> Mapping[str, str]:
    return {"run": value.run, "arm": value.arm, "dataset": value.dataset, "metric": value.metric}


def _estimate(value: Estimate) -> dict[str, Any]:
    return {
        "value": value.value,
        "low": value.low,
        "high": value.high,
        "covers_processes": value.covers_processes,
    }


def _winner(won: results.Winner) -> dict[str, Any]:
    ratio = won.speedup.ratio if won.speedup else None
    return {
        "run": won.run,
        "dataset": won.dataset,
        "metric": won.metric,
        "arm": won.best.arm,
        "ties": won.ties,
        "value": ratio.value if ratio else None,
        "low": ratio.low if ratio else None,
        "high": ratio.high if ratio else None,
    }


def _limit(limit: limits.Limit) -> dict[str, Any]:
    return {
        "run": limit.run,
        "dataset": limit.dataset,
        "us": limit.binding.us,
        "part": limit.binding.part,
        "needs": [dataclasses.asdict(need) for need in limit.needs],
        "any_order": [dataclasses.asdict(need) for need in limit.any_order],
        "any_order_us": limit.binding_in_any_order.us,
        "compulsory_bytes": limit.compulsory_bytes,
        "every_lookup_us": limit.every_lookup.us,
        "batch_distinct_rows": limit.demand.batch_distinct_rows,
        "tables_examined": limit.demand.tables,
    }


def _share(share: limits.Share) -> dict[str, Any]:
    return {
        "run": share.run,
        "arm": share.arm,
        "dataset": share.dataset,
        "part": share.part,
        **_estimate(share.share),
        "kernel_share": share.kernel_share,
        "any_order_share": share.any_order.value,
        "beats_limit": share.beats,
        "beats_any_order": share.beats_any_order,
        "records": share.records,
    }


def _pin(pin: pins.Pin) -> dict[str, Any]:
    return {**dataclasses.asdict(pin), "lookups": _estimate(pin.lookups) if pin.lookups else None}


def _swept(swept: sweeps.Swept) -> dict[str, Any]:
    return {
        "run": swept.run.name,
        "gpu": swept.gpu,
        "points": [
            {
                "arm": place.cell.arm,
                "dataset": place.cell.dataset.name,
                "point": place.cell.point,
                "settings": {key: place.value(key) for key in place.cell.swept},
                "metric": place.measurement.metric,
                **_estimate(place.measurement.time),
                "speedup": _estimate(place.speedup.ratio) if place.speedup else None,
                "records": place.measurement.records,
            }
            for place in swept.places
        ],
        "best": [
            {
                "arm": best.arm,
                "dataset": best.dataset,
                "metric": best.metric,
                "key": best.key,
                "held": best.held,
                "value": best.best.value(best.key),
                "ties": best.ties,
                "default": best.default,
                "gain": _estimate(best.gain),
            }
            for best in swept.best
        ],
        "wins": [
            {
                "dataset": win.dataset,
                "point": win.point,
                "metric": win.metric,
                "arm": win.best.cell.arm,
                "ties": win.ties,
            }
            for win in swept.wins
        ],
        "losses": [
            {
                "dataset": loss.dataset,
                "point": loss.place.cell.point,
                "metric": loss.metric,
                "arm": loss.place.cell.arm,
                "ratio": _estimate(loss.ratio),
            }
            for loss in swept.losses
        ],
        "against_stock": len(swept.beside_stock),
    }


def _claims(derived: results.Results) -> list[dict[str, Any]]:
    if not claims.CLAIMS_FILE.is_file():
        return []
    return [
        {
            "id": claim.id,
            "claim": claim.claim,
            "value": claim.value,
            "ours": [dataclasses.asdict(ours) for ours in claims.beside(claim, derived)],
        }
        for claim in claims.read().claims
    ]
