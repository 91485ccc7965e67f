"""Traces that a model's tables replay, looked at where its file is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.text import readable
from harness.traces.reading import open_trace


def filled_in(table: TableGroup, folder: Path) -> TableGroup:
    """A table of a model's file in this folder with what its trace says: where it is, of what contents, how
    long its bags are. BadInputError, beginning with the field, where it cannot be replayed."""
    if table.trace_sha256 or table.rows_per_own_bag:
        field = "trace_sha256" if table.trace_sha256 else "rows_per_own_bag"
        raise BadInputError(f"{field}: follows from the trace; leave it out.")
    path = str((folder / table.trace).absolute())
    if path != readable(path):
        raise BadInputError(
            f"trace: {readable(path)}: is no UTF-8, as the files of a run are; move it to another place."
        )
    if not Path(path, "trace.json").is_file():
        raise BadInputError(
            f"trace: {path}: is no folder of a trace; `harness trace import` and `harness trace model` make "
            "some."
        )
    try:
        trace = open_trace(Path(path))
    except BadInputError as error:
        raise BadInputError(f"trace: {error}") from error
    rows_per_bag = 0.0
    if table.bags == "own":
        if trace.offsets is None:
            raise BadInputError(
                f"bags: {path} has no bags of its own; give their length as pooling, and leave "
                'bags = "own" out.'
            )
        rows_per_bag = len(trace.indices) / (len(trace.offsets) - 1)
    return dataclasses.replace(
        table, trace=path, trace_sha256=trace.header.sha256, rows_per_own_bag=rows_per_bag
    )


def traces_of(tables: Iterable[TableGroup]) -> list[TableGroup]:
    """Of tables that replay traces one for each, with the fewest rows, and with own bags where any has."""
    found: dict[str, TableGroup] = {}
    for table in tables:
        if table.trace:
            known = found.get(table.trace_file, table)
            bags = "own" if "own" in (known.bags, table.bags) else known.bags
            found[table.trace_file] = dataclasses.replace(known, rows=min(known.rows, table.rows), bags=bags)
    return list(found.values())
