"""A folder with a trace for each table as the traffic of a model. Features are called as the traces are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from harness.errors import BadInputError
from harness.files import beside
from harness.imports import traffic
from harness.imports.traffic import Feature, Traffic
from harness.text import readable, shown
from harness.traces import formats, sources, streams
from harness.traces.trace import Progress, array_blocks, refuse_existing, write_trace

_LONGEST_NAME = 255
"""Bytes that file systems take."""


def features(folder: Path, pooling: int | None, progress: Progress | None = None) -> Traffic:
    """The traces in a folder, in the order of their names: folders made by `harness trace import`, .npy files
    and text. What begins with a dot is passed over.

    `pooling`: rows of the bags that are laid over traces without bags of their own. BadInputError where there
    are such and it is None, where traces with bags are of different numbers of samples, or one is no trace.
    """
    called = readable(folder)
    try:
        inside = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise BadInputError(f"{called}: cannot be read: {error.strerror}.") from error
    paths = [Path(beside(folder, name)) for name in inside]
    names = traffic.check_names(called, (_name(path) for path in paths))
    found = []
    for number, (name, path) in enumerate(zip(names, paths, strict=True)):
        found.append(_feature(name, path, pooling))
        if progress:
            progress((number + 1) / len(names))
    samples: dict[int, str] = {}
    for feature in found:
        if feature.own_bags:
            samples.setdefault(len(feature.lengths), feature.name)
    if len(samples) > 1:
        (some, first), (more, second) = list(samples.items())[:2]
        raise BadInputError(
            f"{called}: {first} has {some:,} bags and {second} {more:,}; the features of a model have one "
            "each for every sample."
        )
    return Traffic(called, tuple(found))


def check_can_be_written(traffic: Traffic, out: Path) -> None:
    """BadInputError where `write` could not make the folder: it is there, or a feature's name is none that a
    file could have."""
    refuse_existing(out)
    for name in (feature.name for feature in traffic.features):
        if name.startswith(".") or "/" in name or len(os.fsencode(name)) > _LONGEST_NAME:
            raise BadInputError(
                f"{traffic.called}: {shown(name)!r} is no name for a trace's folder, since it holds a /, "
                "begins with a dot or is too long; rename the feature, or leave out --traces."
            )


def write(traffic: Traffic, rows: Mapping[str, int], out: Path) -> None:
    """Writes a trace folder for each feature of which `rows` tells how many its table has, into the folder
    `out`, which appears when it is complete. What they hold is in order, with its bags."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        for feature in traffic.features:
            if feature.name in rows:
                write_trace(
                    part / feature.name,
                    array_blocks(feature.indices),
                    rows=rows[feature.name],
                    origin=f"{traffic.called}, feature {feature.name}",
                    offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(feature.lengths)]),
                )
        part.rename(out)
    except OSError as error:
        raise BadInputError(f"{readable(out)}: cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _name(path: Path) -> str:
    """Without the ending of a format; check_names refuses what is no text."""
    name = path.name
    if path.is_dir() or formats.format_of(path) is None:
        return name
    packing = next((end for end in streams.PACKINGS if name.lower().endswith(end)), "")
    return os.path.splitext(name[: len(name) - len(packing)])[0]


def _feature(name: str, path: Path, pooling: int | None) -> Feature:
    if not path.is_dir() and not path.is_file():  # a pipe would be waited for
        raise BadInputError(f"{readable(path)}: is no file and no folder; take it out of the folder.")
    if path.is_dir() and not (path / "trace.json").is_file():
        raise BadInputError(f"{readable(path)}: is no file, no imported trace; take it out of the folder.")
    source = sources.at(path, None)
    if source.offsets is not None:
        return Feature(name, source.indices, np.diff(source.offsets), source.rows)
    if pooling is None:
        raise BadInputError(f"{readable(path)}: has no bags of its own; say with --pooling how long.")
    bags = len(source.indices) // pooling
    if not bags:
        raise BadInputError(
            f"{readable(path)}: its {len(source.indices):,} row numbers are less than a bag of --pooling "
            f"{pooling}."
        )
    lengths = np.full(bags, pooling, dtype=np.int64)
    bagged, rest = np.split(source.indices, [bags * pooling])
    return Feature(name, bagged, lengths, source.rows, own_bags=False, unbagged=rest)
