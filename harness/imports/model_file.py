"""A model's file made of traffic: each table with the rows, the bags and the popularity that it has there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness import bag_counts, codec, groups, models
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.imports import popularity, trace_folders
from harness.imports.traffic import Feature, Traffic
from harness.models import ModelFile
from harness.outputs import write as write_output
from harness.text import clean, readable, shown
from harness.traces.sources import UNTOLD_ROWS
from harness.traces.trace import Progress, check_rows, refuse_existing

_BATCH = 2048
NAMED = 8
"""Features that are named beside their tables, and in a sentence about several."""


@dataclass(frozen=True)
class Wanted:
    """What traffic does not tell of a model. Maps are by the name of a feature; "" is for all others."""

    dims: Mapping[str, int]
    rows: Mapping[str, int]
    """Of tables; where there is none, what the source tells, or as many as the largest row number needs."""
    batch: int | None = None
    """None: as many samples as the traffic has, at most 2048."""
    mode: str = "sum"
    dtype: str = "float32"
    skip_empty: bool = False
    """Leave out features that look nothing up."""
    traces: Path | None = None
    """Where each feature's row numbers and bags are written, too."""
    replay: bool = False
    """Have the tables replay these traces in order, in place of rows and bags that are as likely."""


@dataclass(frozen=True)
class Made:
    """The model, and how near it is to the traffic."""

    model: ModelFile
    rows: dict[str, int]
    """Of the table of each feature."""
    left_out: tuple[str, ...]
    """Features that look nothing up."""
    unbagged: dict[str, int]
    """How many row numbers of a feature are in no bag, where there are any."""
    distinct_seen: float
    """Distinct rows that a batch of the traffic looks up in all tables, on average."""
    distinct_expected: float
    """The same in the model's own traffic; of one that replays the traffic, 0."""


def write(traffic: Traffic, wanted: Wanted, out: Path, progress: Progress | None = None) -> Made:
    """Writes the model of this traffic, and its traces where they are wanted, whole or not at all.
    BadInputError, naming feature and access, where a row number is not in its table, a feature looks nothing
    up, or `out` exists or is called as no model's file is."""
    if out.suffix != ".toml":
        raise BadInputError(f"{readable(out)}: a model's file ends in .toml; name it so.")
    refuse_existing(out)
    _check_known(traffic, wanted)
    if wanted.traces is not None:
        trace_folders.check_can_be_written(traffic, wanted.traces)
    kept, left_out = _looked_up(traffic, wanted.skip_empty)
    batch = wanted.batch or min(_BATCH, *(len(feature.lengths) for feature in kept))
    tables, seen, expected = [], 0.0, 0.0
    for number, feature in enumerate(kept):
        table = _table(traffic, feature, wanted)
        lookups = table.lookups(batch)
        seen += popularity.distinct(feature.indices, min(lookups, len(feature.indices)))
        if wanted.replay:
            assert wanted.traces is not None
            trace = _beside(wanted.traces / feature.name, out.parent)
            tables.append(TableGroup(table.rows, table.dim, bags="own", trace=trace))
        else:
            law = popularity.measured(feature.indices, table.rows, lookups)
            tables.append(replace(table, **law._asdict()))
            some = np.array([min(lookups, len(feature.indices))])
            expected += float(popularity.expected(law, table.rows, some)[0])
        if progress:
            progress((number + 1) / len(kept))
    text = _text(traffic, wanted, batch, tables, [feature.name for feature in kept])
    rows = {feature.name: table.rows for feature, table in zip(kept, tables, strict=True)}
    with contextlib.ExitStack() as undone:
        if wanted.traces is not None:
            trace_folders.write(traffic, rows, wanted.traces)
            undone.callback(shutil.rmtree, wanted.traces, ignore_errors=True)
        try:
            write_output(out, text)
        except OSError as error:
            raise BadInputError(f"{readable(out)}: cannot be written: {error.strerror or error}.") from error
        undone.callback(out.unlink)
        try:
            model = models.read(str(out))
        except BadInputError as error:  # of a file that is then gone
            what = str(error).removeprefix(f"{out}: ")
            raise BadInputError(f"{traffic.called}: makes no model with these options: {what}") from error
        undone.pop_all()
    unbagged = {feature.name: len(feature.unbagged) for feature in kept if len(feature.unbagged)}
    return Made(model, rows, left_out, unbagged, seen, expected)


def _beside(trace: Path, folder: Path) -> str:
    """A trace as a model's file in that folder names it: what lies in the folder may be moved with it."""
    trace, folder = trace.absolute(), folder.absolute()
    return str(trace.relative_to(folder) if trace.is_relative_to(folder) else trace)


def _check_known(traffic: Traffic, wanted: Wanted) -> None:
    names = {feature.name for feature in traffic.features}
    for option, given in (("--dim", wanted.dims), ("--rows", wanted.rows)):
        if unknown := next((name for name in given if name and name not in names), ""):
            raise BadInputError(f"{option} {shown(unknown)}: {traffic.called} has no feature of that name.")
    if "" not in wanted.dims and (left := next((n for n in sorted(names) if n not in wanted.dims), "")):
        raise BadInputError(f"--dim: say how many columns the table of {shown(left)} has.")


def _looked_up(traffic: Traffic, skip_empty: bool) -> tuple[list[Feature], tuple[str, ...]]:
    kept = [feature for feature in traffic.features if len(feature.indices)]
    left_out = tuple(feature.name for feature in traffic.features if not len(feature.indices))
    if not kept:
        raise BadInputError(f"{traffic.called}: no feature looks anything up.")
    if left_out and not skip_empty:
        raise BadInputError(
            f"{traffic.called}: feature {shown(left_out[0])} looks nothing up; --skip-empty leaves such out."
        )
    return kept, left_out


def _table(traffic: Traffic, feature: Feature, wanted: Wanted) -> TableGroup:
    """The table with the bags of the feature, and no traffic of its own yet."""
    where = f"{traffic.called}: feature {shown(feature.name)}"
    rows = wanted.rows.get(feature.name, wanted.rows.get("", feature.rows))
    largest = max(int(feature.indices.max()), int(feature.unbagged.max(initial=0)))
    if rows is None and largest >= UNTOLD_ROWS:
        raise BadInputError(f"{where}: holds row {largest:,}; say with --rows that its table is so large.")
    rows = largest + 1 if rows is None else rows
    check_rows(feature.indices, rows, where, 0)
    check_rows(feature.unbagged, rows, where, len(feature.indices))
    dim = wanted.dims.get(feature.name) or wanted.dims[""]
    return replace(_bags(feature), rows=rows, dim=dim)


def _bags(feature: Feature) -> TableGroup:
    """A table whose bags are the feature's, and nothing else."""
    full = feature.lengths[feature.lengths > 0]
    lengths, bags = np.unique(full, return_counts=True)
    coverage = len(full) / len(feature.lengths)
    if len(lengths) == 1:
        return TableGroup(1, 1, pooling=int(lengths[0]), coverage=coverage)
    counts = bag_counts.text(dict(zip(lengths.tolist(), bags.tolist(), strict=True)))
    return TableGroup(1, 1, bags="counted", counts=counts, coverage=coverage)


def _text(
    traffic: Traffic, wanted: Wanted, batch: int, tables: Sequence[TableGroup], names: Sequence[str]
) -> str:
    import tomli_w

    name = Path(traffic.called).name or traffic.called
    what = "rows, bags and popularity of each table; not the order of its lookups"
    if wanted.replay:
        what = "rows of each table, and its lookups in their order, with their bags"
    head: dict[str, Any] = {
        "title": clean(f"The traffic of {name}")[:200],
        "source": clean(f"{name}: {what}")[:400],
        "dtype": wanted.dtype,
        "index_dtype": traffic.index_dtype,
        "mode": wanted.mode,
        "weighted": traffic.weighted,
        "batch": batch,
    }
    parts = [tomli_w.dumps(head)]
    for group in groups.grouped(tables):
        own = [names[place] for place in groups.numbers(group.places)]
        more = f" and {len(own) - NAMED} more" if len(own) > NAMED else ""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in codec.fields(group).items()}
        parts.append(f"# {', '.join(map(shown, own[:NAMED]))}{more}\n[[tables]]\n{tomli_w.dumps(fields)}")
    return "\n".join(parts)
