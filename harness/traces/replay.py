"""What a cell's tables look up: which trace each replays, and from where."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.groups import OWN_TRAFFIC, TableGroup
from harness.records import Cell
from harness.traces import synth
from harness.traces.arrays import open_array
from harness.traces.reading import check_all_rows, check_offsets

Rows = npt.NDArray[np.int64]
_Key = tuple[str, TableGroup]
"""A dataset's name or a recorded trace's file, and of a table its rows and the traffic of its own that it
replays."""
_BATCHES, _LONG = 64, 2**24
"""Of a model's table a trace holds so many batches, or so many accesses where that is less."""
_MOST_AT_ONCE = 2**26
"""Accesses of the traces that are made at once; each takes up to 100 bytes of memory meanwhile."""


def read_traces(cell: Cell, root: Path) -> list[Rows]:
    """The row numbers that each table replays: one period of a synthetic trace, or a file's.

    All tables share one trace, but those of "mixed", which replay several in turn, and those of a
    model, which differ in rows and may have traffic of their own, recorded traces among it.
    BadInputError where a file is not there, holds no row numbers, or one lies outside the table.
    """
    rows, tables = cell.workload.rows, cell.workload.tables
    if cell.dataset.path is not None:
        fewest = min(kind.rows for kind in cell.workload.kinds)
        return [_read_file(root, cell.dataset.path, fewest)] * tables
    if cell.workload.groups:
        return _of_model(cell, root)
    names = [synth.dataset_of_table(cell.dataset.name, table) for table in range(tables)]
    made = {n: synth.synthesize(n, rows, synth.period_length(n, rows), cell.seed) for n in set(names)}
    return [made[name] for name in names]


def read_bags(cell: Cell, root: Path) -> dict[int, Rows]:
    """By feature whose bags are a trace's own, where each of them begins, and the end: [bags + 1].

    BadInputError where a file is not there, or holds no boundaries of bags."""
    features = cell.workload.features
    own = {place: feature.group for place, feature in enumerate(features) if feature.group.bags == "own"}
    read: dict[str, Rows] = {}
    for group in own.values():
        if group.bags_file not in read:
            offsets = open_array(root / group.bags_file, group.bags_file)
            accesses = len(open_array(root / group.trace_file, group.trace_file))
            check_offsets(offsets, accesses, group.bags_file)
            read[group.bags_file] = np.array(offsets, dtype=np.int64)
    return {place: read[group.bags_file] for place, group in own.items()}


def replays_own(cell: Cell, group: TableGroup) -> bool:
    """Whether tables look up the row numbers of a trace of their own."""
    return cell.dataset.name == OWN_TRAFFIC and cell.dataset.path is None and bool(group.trace)


def _of_model(cell: Cell, root: Path) -> list[Rows]:
    wanted, lengths = _wanted_of_model(cell)
    fewest: dict[_Key, int] = {}
    for key, feature in zip(wanted, cell.workload.features, strict=True):
        fewest[key] = min(fewest.get(key, feature.group.rows), feature.group.rows)

    def made(key: _Key) -> Rows:
        name, alike = key
        if alike.trace:
            return _read_file(root, name, fewest[key])
        return _of_tables(name, alike, lengths[key], cell.seed)

    # Side by side, for NumPy works without Python's lock; errors come in order, as one after the other.
    with ThreadPoolExecutor(_at_once(max(lengths.values()))) as pool:
        of_key = dict(zip(lengths, pool.map(made, lengths), strict=True))
    return [of_key[key] for key in wanted]


def _at_once(longest: int) -> int:
    """How many traces, none with more accesses, are made at once."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, _MOST_AT_ONCE // max(1, longest)))


def accesses_of_model(cell: Cell, root: Path) -> int:
    """In all traces that a model's tables replay, without making or reading them. BadInputError where one of
    a file cannot be read."""
    return sum(
        len(open_array(root / key[0], key[0])) if key[1].trace else length
        for key, length in _wanted_of_model(cell)[1].items()
    )


def _wanted_of_model(cell: Cell) -> tuple[list[_Key], dict[_Key, int]]:
    """What each feature replays, and how long each of these traces is.

    Tables of the same rows and traffic share a trace: of a period, or of more where that is less than
    `_BATCHES` batches of the table that looks up most. A recorded one is as long as it is, here 0."""
    work = cell.workload
    wanted: list[_Key] = []
    most: dict[_Key, int] = {}
    for number, (group, _, _) in enumerate(work.features):
        own = cell.dataset.name == OWN_TRAFFIC and group.own_traffic
        name = "random" if cell.dataset.name == OWN_TRAFFIC else cell.dataset.name
        if replays_own(cell, group):
            key = group.trace_file, TableGroup(1, 1, trace=group.trace, trace_sha256=group.trace_sha256)
        elif own:
            law = TableGroup(group.rows, 1, zipf_s=group.zipf_s, zipf_q=group.zipf_q, hottest=group.hottest)
            key = OWN_TRAFFIC, law
        else:
            key = synth.dataset_of_table(name, number), TableGroup(group.rows, 1)
        wanted.append(key)
        most[key] = max(most.get(key, 0), group.lookups(work.batch))
    return wanted, {
        (name, table): 0
        if table.trace
        else max(synth.period_length(name, table.rows), min(_BATCHES * lookups, _LONG))
        for (name, table), lookups in most.items()
    }


def _of_tables(name: str, alike: TableGroup, length: int, seed: int) -> Rows:
    if name == OWN_TRAFFIC:
        return synth.zipf(alike.rows, length, seed, s=alike.zipf_s, q=alike.zipf_q, hottest=alike.hottest)
    return synth.synthesize(name, alike.rows, length, seed)


def taken(trace: Rows, begin: int, end: int) -> Rows:
    """The accesses from `begin` to before `end` of a trace that wraps round; none where `end` is less. Where
    it does not wrap round between them a part of the trace itself."""
    first, count = begin % len(trace), max(0, end - begin)
    if first + count <= len(trace):
        return trace[first : first + count]
    rounds, rest = divmod(first + count, len(trace))
    return np.concatenate([trace[first:], *[trace] * (rounds - 1), trace[:rest]])


def _read_file(root: Path, path: str, rows: int) -> Rows:
    trace = open_array(root / path, path)
    check_all_rows(trace, rows, path)
    return np.array(trace, dtype=np.int64)
