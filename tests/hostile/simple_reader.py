"""The oracle: a reader of records that shares nothing with the program's, slow and simple.

`read` gives the plain value that a file stands for, with what it leaves out filled in, or raises
RefusedError. Text is compared after `seen`, which says whether all of it can be seen at all.
"""

from __future__ import annotations

import json
import math
import unicodedata
from typing import Any

NEEDED = object()


class RefusedError(Exception):
    """The simple reader does not take it."""


class Int:
    def __init__(self, least: int = 0, most: int = 2**63 - 1) -> None:
        self.least, self.most = least, most

    def read(self, raw: Any) -> int:
        if type(raw) is not int or not self.least <= raw <= self.most:
            raise RefusedError(raw)
        return raw


class Float:
    def __init__(self, least: float = 0, most: float = 1e18) -> None:
        self.least, self.most = least, most

    def read(self, raw: Any) -> float:
        if type(raw) not in (int, float) or not math.isfinite(float(raw)):
            raise RefusedError(raw)
        if not self.least <= raw <= self.most:
            raise RefusedError(raw)
        return float(raw)


class Bool:
    def read(self, raw: Any) -> bool:
        if type(raw) is not bool:
            raise RefusedError(raw)
        return raw


class Text:
    def read(self, raw: Any) -> str:
        if type(raw) is not str or len(raw) > 2**20 or any(0xD800 <= ord(c) < 0xE000 for c in raw):
            raise RefusedError(raw)
        return raw


class OneOf:
    def __init__(self, *known: str) -> None:
        self.known = known

    def read(self, raw: Any) -> str:
        if type(raw) is not str or raw not in self.known:
            raise RefusedError(raw)
        return raw


class Maybe:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def read(self, raw: Any) -> Any:
        return None if raw is None else self.inner.read(raw)


class Many:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def read(self, raw: Any) -> list[Any]:
        if type(raw) is not list:
            raise RefusedError(raw)
        return [self.inner.read(item) for item in raw]


class ByName:
    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def read(self, raw: Any) -> dict[str, Any]:
        if type(raw) is not dict or not all(map(seen, raw)):
            raise RefusedError(raw)
        return {key: self.inner.read(item) for key, item in raw.items()}


class Fields:
    """Field → (its reader, what it is where it is left out)."""

    def __init__(self, **fields: tuple[Any, Any]) -> None:
        self.fields = fields

    def read(self, raw: Any) -> dict[str, Any]:
        if type(raw) is not dict or set(raw) - set(self.fields):
            raise RefusedError(raw)
        found = {}
        for name, (reader, otherwise) in self.fields.items():
            if name not in raw and otherwise is NEEDED:
                raise RefusedError(name)
            found[name] = reader.read(raw[name]) if name in raw else otherwise
        return found


WIDTH, PASSES = Int(1, 2**20), Int(3, 2**31 - 1)
VERSION = (Int(1, 1), 1)
GROUP = Fields(
    rows=(Int(1, 2**40), NEEDED),
    dim=(Int(1, 2**16), NEEDED),
    count=(Int(1, 10_000), 1),
    features=(Int(1, 10_000), 1),
    pooling=(Int(1, 2**28), 1),
    bags=(OneOf("fixed", "ragged", "normal"), "fixed"),
    deviation=(Float(0, 1e9), 0.0),
    longest=(Int(0, 2**28), 0),
    coverage=(Float(0, 1), 1.0),
    zipf_s=(Float(0, 64), 0.0),
    zipf_q=(Float(0, 1e12), 0.0),
    hottest=(Many(Float(0, 1)), []),
    places=(Text(), ""),
)
WORKLOAD = Fields(
    tables=(Int(1, 10_000), 12),
    rows=(Int(1, 2**40), 500_000),
    dim=(Int(1, 2**16), 128),
    batch=(Int(1, 2**28), 2048),
    pooling=(Int(1, 2**28), 150),
    dtype=(OneOf("float32", "float16", "bfloat16", "int8", "int4"), "float32"),
    index_dtype=(OneOf("int64", "int32"), "int64"),
    mode=(OneOf("sum", "mean"), "sum"),
    weighted=(Bool(), False),
    device=(OneOf("cuda", "cpu"), "cuda"),
    bags=(OneOf("fixed", "ragged"), "fixed"),
    groups=(Many(GROUP), []),
    model=(Text(), ""),
    max_rows=(Int(0, 2**40), 0),
)
TIMING = Fields(
    cache=(OneOf("rotating", "steady", "cold"), "rotating"),
    warmup_passes=(Int(1, 2**31 - 1), 5),
    min_passes=(PASSES, 30),
    max_passes=(PASSES, 2000),
    max_seconds=(Float(0, 1e7), 3.0),
    relative_interval=(Float(0, 1e7), 0.005),
)
MODEL = Fields(
    dense_features=(WIDTH, 13),
    bottom=(Many(WIDTH), [256, 128, 128]),
    top=(Many(WIDTH), [128, 64, 1]),
    cross_layers=(Int(0, 100), 0),
    cross_rank=(Int(0, 2**20), 0),
)
CELL = Fields(
    id=(Text(), NEEDED),
    design=(Text(), NEEDED),
    toolchain=(Text(), NEEDED),
    dataset=(Fields(name=(Text(), NEEDED), path=(Maybe(Text()), None), origin=(Text(), "")), NEEDED),
    workload=(WORKLOAD, NEEDED),
    timing=(TIMING, NEEDED),
    replicate=(Int(), NEEDED),
    seed=(Int(), NEEDED),
    tunables=(ByName(Int(0, 2**31 - 1)), {}),
    point=(Text(), ""),
    swept=(Many(Text()), []),
    hot_rows=(OneOf("held_out", "oracle"), "held_out"),
    model=(Maybe(MODEL), None),
    schema_version=VERSION,
)
RECORD = Fields(
    cell=(CELL, NEEDED),
    status=(OneOf("ok", "inconclusive", "failed", "timeout", "invalid", "oom"), NEEDED),
    message=(Text(), ""),
    log_tail=(Text(), ""),
    samples=(ByName(Many(Float(0, 1e13))), {}),
    check=(
        Maybe(
            Fields(
                passed=(Bool(), NEEDED),
                max_error=(Float(0, 1e300), NEEDED),
                worst=(Text(), NEEDED),
                elements=(Int(), NEEDED),
            )
        ),
        None,
    ),
    kernel=(
        Maybe(
            Fields(
                **{name: (Text(), NEEDED) for name in ("name", "source_hash", "compiler", "arch")},
                **{name: (Int(), NEEDED) for name in ("registers", "spill_bytes", "shared_bytes")},
                occupancy=(Float(0, 1), NEEDED),
                cubin_sha256=(Text(), NEEDED),
                libraries=(ByName(Text()), {}),
            )
        ),
        None,
    ),
    environment=(
        Maybe(
            Fields(
                device=(OneOf("cuda", "cpu"), NEEDED),
                **{
                    name: (Text(), NEEDED)
                    for name in (
                        *("gpu", "gpu_uuid", "driver", "torch", "cuda"),
                        *("python", "cpu", "runner", "image", "git_commit"),
                    )
                },
                **{
                    name: (Int(), NEEDED)
                    for name in (
                        *("multiprocessors", "l2_bytes", "memory_bytes"),
                        *("persisting_l2_bytes", "other_processes"),
                    )
                },
                mig=(Bool(), NEEDED),
                git_dirty=(Bool(), NEEDED),
                hostname=(Text(), ""),
                mps=(Bool(), False),
                display=(Bool(), False),
            )
        ),
        None,
    ),
    gpu=(
        Many(
            Fields(
                after_pass=(Int(-1), NEEDED),
                sm_clock_mhz=(Int(), NEEDED),
                memory_clock_mhz=(Int(), NEEDED),
                temperature_c=(Int(-273, 1000), NEEDED),
                power_w=(Float(), NEEDED),
                throttle_reasons=(Many(Text()), NEEDED),
            )
        ),
        [],
    ),
    throttled_passes=(Many(Int()), []),
    ceilings=(ByName(Float()), {}),
    facts=(ByName(Float()), {}),
    started_at=(Text(), ""),
    finished_at=(Text(), ""),
    neighbours=(Many(Text()), []),
    schema_version=VERSION,
)


def read(kind: Fields, content: bytes) -> dict[str, Any]:
    """What the file's content stands for."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise RefusedError(pairs)
        return dict(pairs)

    try:
        return kind.read(json.loads(content.decode("utf-8"), object_pairs_hook=unique))
    except (ValueError, RecursionError, OverflowError) as error:
        raise RefusedError(error) from error


def seen(text: str) -> bool:
    """Whether every character can be seen, or breaks a line."""
    hidden = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return all(
        c in "\n\t\u200c\u200d"
        or (
            unicodedata.category(c) not in hidden
            and ord(c) & 0xFFFE != 0xFFFE
            and not 0xFDD0 <= ord(c) <= 0xFDEF
        )
        for c in text
    )


def same(read: Any, simple: Any) -> bool:
    """Whether the program read what the simple reader did; text that cannot be seen, it has spelt out."""
    if isinstance(simple, str) and isinstance(read, str):
        return read == simple if seen(simple) else seen(read)
    if isinstance(simple, dict) and isinstance(read, dict):
        return read.keys() == simple.keys() and all(same(read[key], simple[key]) for key in simple)
    if isinstance(simple, list) and isinstance(read, list | tuple):
        return len(read) == len(simple) and all(map(same, read, simple))
    return type(read) is type(simple) and bool(read == simple)
