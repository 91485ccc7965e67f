"""Blocks on what was measured of the package `embedding-kernels` itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedding_kernels._statistics import PROCESS
from harness.report import units
from kernel_wheel import served_record, sources
from tests.written.runs import NotMeasuredError, Place, table

WAYS = {"eager": "eager", "graph": "CUDA graph"}
"""How a model is served, and in words."""
THEIRS, OURS = "torchrec_fbgemm", "embedding_kernels"


def serving(place: Place) -> str:
    """Each comparison with TorchRec on FBGEMM's tables: latencies and rates, eager and as CUDA graphs."""
    found = [_told(json.loads(file.read_text(encoding="utf-8"))) for file in place.files("*/serving.json")]
    if not found:
        raise NotMeasuredError
    return "\n".join(found)


def served(place: Place) -> str:
    """The gain of each comparison in a sentence, at its least and its largest batch; not of those
    whose sources have changed since."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in place.files("*/serving.json")]
    if not (today := [record for record in records if not _changed(record)]):
        raise NotMeasuredError
    return "\n".join(map(_in_short, today))


def _in_short(record: dict[str, Any]) -> str:
    ends = [record["batches"][0], record["batches"][-1]]
    gains = []
    for way, how in WAYS.items():
        if all(way in batch["models"][of] for batch in ends for of in (THEIRS, OURS)):
            gains.append(f"{how} {' and '.join(_gain(batch, way) for batch in ends)}")
    batches = " and ".join(f"{batch['batch']:,}" for batch in ends)
    model = Path(record["model"]).stem
    return (
        f"On {record['gpu']['name']}, TorchRec's {model} gains, whole, p50 at batches {batches}: "
        f"{'; '.join(gains)}.\n"
    )


def _gain(batch: dict[str, Any], way: str) -> str:
    """Theirs ÷ ours, or that they are level as far as one process can tell."""
    theirs, ours = (batch["models"][of][way]["p50_us"] for of in (THEIRS, OURS))
    return "level" if abs(theirs / ours - 1) < PROCESS else units.ratio(theirs / ours)


def costs(place: Place) -> str:
    """What a call, a cold start and counting bad indices cost, by each record of `kernel_wheel.costs`."""
    found = [_costs(json.loads(file.read_text(encoding="utf-8"))) for file in place.files("costs.json")]
    if not found:
        raise NotMeasuredError
    return "\n".join(found)


def plans(place: Place) -> str:
    """What `harness tune` chose for each group of tables, in every plan below tuned/."""
    found = [_plan(file) for file in place.files("tuned/*.json")]
    if not found:
        raise NotMeasuredError
    return "\n".join(found)


def _plan(file: Path) -> str:
    plan = json.loads(file.read_text(encoding="utf-8"))
    decided = plan["protocol"]["decided_by"]
    ways, rows = [decided, *(way for way in WAYS if way != decided)], []
    for group in plan["groups"]:
        tried = {str(one["choice"]): one for one in group["candidates"]}
        tables = sum(kind["count"] for kind in group["tables"])
        chosen = tried.get(str(group["choice"]))
        own = next((one for one in group["candidates"] if one["choice"]["kernel"] == "own"), None)
        named = ", ".join(filter(None, (file.stem, group["path"])))
        times = [_median(one and one[f"{how}_us"]) for how in ways for one in (chosen, own)]
        rows.append([named, str(tables), _choice(group["choice"]), *times])
    gpu = plan["gpu"]
    told = f"{gpu['name']}, driver {gpu['driver']}, PyTorch {plan['torch_version']}; {plan['tuned_at']}.\n"
    heads = ["tables", "chosen"]
    heads += [f"{WAYS[way]}: {what}µs" for way in ways for what in ("", "what stood there, ")]
    return table(heads, rows, "plan") + f"\n{told}"


def _choice(choice: dict[str, Any]) -> str:
    rows = "" if choice["row_type"] == "unchanged" else f", rows of {choice['row_type']}"
    names = ("few_rows", "many_bags", "crowded_clocks")
    moved = "".join(f" {name}={choice[name]}" for name in names if choice.get(name) is not None)
    return f"`{choice['kernel']}{moved}`{rows}"


def _median(times: dict[str, float] | None) -> str:
    return units.NONE if times is None else units.us(times["median"])


def _told(record: dict[str, Any]) -> str:
    version, known = record["schema_version"], served_record.SCHEMA_VERSION
    if version != known:
        raise ValueError(f"serving.json is of version {version} and not {known}")
    rows = [row for batch in record["batches"] for row in _rows(batch)]
    heads = [
        *("TorchRec on FBGEMM: p50 / p95 / p99, µs", "after `optimize`: p50 / p95 / p99, µs", "p50"),
        *("TorchRec on FBGEMM: samples/s", "after `optimize`: samples/s"),
    ]
    return table(heads, rows, "batch") + f"\n{_circumstances(record)}"


def _rows(batch: dict[str, Any]) -> Iterator[list[str]]:
    theirs, ours = batch["models"][THEIRS], batch["models"][OURS]
    for way, how in WAYS.items():
        if way in theirs or way in ours:
            both = way in theirs and way in ours
            gain = _gain(batch, way) if both else units.NONE
            times = [_times(of[way]) if way in of else units.NONE for of in (theirs, ours)]
            rates = [f"{of[way]['samples_per_s']:,.0f}" if way in of else units.NONE for of in (theirs, ours)]
            yield [f"{batch['batch']}, {how}", *times, gain, *rates]


def _times(found: dict[str, float]) -> str:
    return " / ".join(units.us(found[f"{percent}_us"]) for percent in ("p50", "p95", "p99"))


def _circumstances(record: dict[str, Any]) -> str:
    gpu = record["gpu"]
    where = f"{gpu['name']}, driver {gpu['driver']}" if gpu["driver"] else gpu["name"]
    versions = ", ".join(f"{name} {version}" for name, version in record["packages"].items())
    rows = f", tables cut down to {record['max_rows']:,} rows" if record["max_rows"] else ""
    plan = "by a plan of `harness tune`" if record["plan"] else "without a plan"
    traffic = record["traffic"] or "its own"
    return (
        f"Model {Path(record['model']).stem}, {record['row_type']}{rows}, traffic {traffic}, {plan}; "
        f"{where}; {versions}; {record['blocks']} blocks of {record['passes']} passes; {_commit(record)}.\n"
        f"{_unfinished(record)}"
    )


def _unfinished(record: dict[str, Any]) -> str:
    """A sentence where the comparison was ended before all batch sizes were measured."""
    if record["finished"]:
        return ""
    left = ", ".join(f"{batch:,}" for batch in served_record.left(record))
    return f"Unfinished: not measured at batches of {left}.\n"


def _commit(record: dict[str, Any]) -> str:
    """And whether kernels or package have changed since."""
    text = f"commit {record['commit'][:12]}{' with changes' if record['dirty'] else ''}"
    changed = _changed(record)
    return text + (f", of older sources: {' and '.join(changed)} changed since" if changed else "")


def _changed(record: dict[str, Any]) -> list[str]:
    today = sources.of_today()
    return [name for name, then in record.get("sources", {}).items() if today.get(name) != then]


def _costs(record: dict[str, Any]) -> str:
    rows = [[f"host, a call over {count} tables", f"{us:,.1f} µs"] for count, us in record["host_us"].items()]
    queued = record["queued_host_us"]
    rows += [[f"host, {count} tables, behind other calls", f"{us:,.1f} µs"] for count, us in queued.items()]
    behind = {"idle": "", "queued": ", behind other calls"}
    rows += [
        [f"host, PyTorch's least operation{behind[how]}", f"{us:,.1f} µs"]
        for how, us in record["torch_host_us"].items()
    ]
    load = record["load_ms"]
    rows += [[f"first load of the kernels for {what} rows", f"{ms:,.1f} ms"] for what, ms in load.items()]
    if counting := record.get("counting_us"):
        percent = round((counting["count"] / counting["assert"] - 1) * 100, 1)
        share = f"{percent:+.1f} %".replace("-", "−") if percent else "0.0 %"
        rows.append(
            [
                "counting bad indices beside asserting, the paper's tables on uniform rows",
                f"{counting['count']:,.1f} µs beside {counting['assert']:,.1f} µs ({share})",
            ]
        )
    if size := record.get("wheel_bytes"):
        rows.append(["the wheel", units.megabytes(size)])
    where = f"{record['gpu']}, driver {record['driver']}, PyTorch {record['torch']}; {_commit(record)}."
    return table(["costs"], rows) + f"\n{where}\n"
