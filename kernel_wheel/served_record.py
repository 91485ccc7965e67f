"""The record of `kernel_wheel.serving`: written whole after every batch size, and gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import BadInputError, unwritable

SCHEMA_VERSION = 2
NAME = "serving.json"
_MOST_BYTES = 2**27
_DIFFERS_ANYHOW = ("at", "asked_batches")
"""When it was begun, and what is to be measured besides, says nothing about what was measured."""

Record = dict[str, Any]
"""`schema_version`; `finished`: whether all `asked_batches` are in `batches`; the circumstances; `batches`:
what was found, by size."""


def require_unfinished(target: Path) -> None:
    """BadInputError where the record is there and complete, or is none."""
    if (record := _read(target)) is not None and record["finished"]:
        raise BadInputError(f"{target}: is there already; name another folder.")


def begun(target: Path, circumstances: Mapping[str, Any]) -> Record:
    """An empty record, or the unfinished one that is there, where its circumstances are these. What is
    measured there already stays, whether or not it is asked for now.

    BadInputError where they are others, or where it cannot be told whether the sources are the same.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(target.parent, error) from error
    now: Record = json.loads(json.dumps(circumstances, allow_nan=False))
    found = _read(target)
    if found is None:
        return {"schema_version": SCHEMA_VERSION, "finished": False, **now, "batches": []}
    differing = [
        name for name, value in now.items() if name not in _DIFFERS_ANYHOW and found.get(name) != value
    ]
    if differing:
        raise BadInputError(
            f"{target}: is unfinished, and was begun with another {', '.join(differing)}; name another "
            "folder, or remove it to begin again."
        )
    if not _of_a_commit(found):
        raise BadInputError(
            f"{target}: is unfinished, and of sources that are no commit's, which may have changed since; "
            "name another folder, or remove it to begin again."
        )
    there = [each["batch"] for each in found["batches"]]
    found["asked_batches"] = sorted({*now["asked_batches"], *there})
    return found


def left(record: Record) -> list[int]:
    """The batch sizes that are to be measured."""
    there = {each["batch"] for each in record["batches"]}
    return [batch for batch in record["asked_batches"] if batch not in there]


def add(target: Path, record: Record, found: Mapping[str, Any]) -> None:
    """Writes the record with one more batch size."""
    record["batches"] = sorted([*record["batches"], found], key=lambda each: each["batch"])
    write(target, record)


def write(target: Path, record: Record) -> None:
    """Replaces the file by the record as it is, which is finished where nothing is left."""
    record["finished"] = not left(record)
    try:
        files.write_whole(target, json.dumps(record, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise unwritable(target, error) from error


def kept(target: Path) -> str:
    """How the sentence ends that says why no more was measured: what there is, and how to go on."""
    try:
        record = _read(target)
    except BadInputError:
        record = None
    if record is None or not record["batches"]:
        return "; nothing had been measured."
    have = f"; {len(record['batches'])} of {len(record['asked_batches'])} batch sizes are kept in {target}"
    if record["finished"]:
        return f"{have}."
    if not _of_a_commit(record):
        return f"{have}, but of sources that are no commit's, so that no other command goes on with it."
    return f"{have}, and the same command goes on with the others."


def _of_a_commit(record: Record) -> bool:
    """Only then can it be told that the sources are the same; changes on top of a commit may be others."""
    return bool(record["commit"]) and not record["dirty"]


def _read(target: Path) -> Record | None:
    """None where there is none; BadInputError where it is something else."""
    try:
        record = json.loads(files.read_plain(target, _MOST_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInputError(f"{target}: cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise BadInputError(f"{target}: is no JSON; name another folder, or remove it.") from error
    if not _is_record(record):
        raise BadInputError(
            f"{target}: is no record of version {SCHEMA_VERSION} of this command's; name another folder, or "
            "remove it."
        )
    return record  # type: ignore[no-any-return]


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        return False
    kinds = {"finished": bool, "commit": str, "dirty": bool, "asked_batches": list, "batches": list}
    if not all(isinstance(record.get(name), kind) for name, kind in kinds.items()):
        return False
    there = [each.get("batch") if isinstance(each, dict) else None for each in record["batches"]]
    return all(batch in record["asked_batches"] for batch in there)
