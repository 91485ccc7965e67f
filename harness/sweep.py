"""Sweeps: a workload's fields and designs' tunables as axes of an experiment, and the points they make.

One axis at a time, around the experiment's own workload and tunables (its base point, which is always
measured); with `grid = true` every combination instead. An axis of a tunable concerns the arms that have it;
the others have no points along it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.designs import Design
from harness.errors import BadInputError
from harness.records import TUNABLES, WORKLOAD, Workload
from harness.text import shown
from harness.validation import FORBID_UNKNOWN, validated

Value = bool | int | float | str
_MOST_AXES = 100
_MOST_VALUES = 10_000
_MOST_TUNABLE = 2**31 - 1
"""Kernels take tunables as int."""
_FIXED = ("device", "groups", "model", "max_rows")
"""Fields of a workload that no sweep varies: one run is of one machine and one model."""


@dataclass(frozen=True)
class Axis:
    """One thing that a sweep varies."""

    __pydantic_config__ = FORBID_UNKNOWN
    key: str
    """A field of the workload or a tunable: `workload.batch`, `tunables.distance`."""
    values: tuple[Value, ...]
    hold: dict[str, Value] = field(default_factory=dict)
    """Other fields of the workload that have a value of their own along this axis: `{ tables = 2 }`."""
    arms: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of a tunable: by arm that has it, its default and after that those of the values that the arm can take.
    Filled in from the designs."""

    @property
    def name(self) -> str:
        """The key's last part, as labels have it."""
        return self.key.partition(".")[2]


@dataclass(frozen=True)
class Point:
    """Where a sweep puts one cell of an arm."""

    label: str
    """For example "batch=16"; empty: the experiment's own workload and tunables."""
    workload: Workload
    tunables: dict[str, int]
    """The arm's swept ones, each with its value here."""
    keys: tuple[str, ...]
    """What the sweep sets in cells of this arm."""


def points(base: Workload, axes: Sequence[Axis], grid: bool, arm: str) -> list[Point]:
    """The points at which an arm (by its label) is measured, the base first; no two do the same."""
    own = [axis for axis in axes if axis.key.startswith(WORKLOAD) or arm in axis.arms]
    defaults = {axis.name: axis.arms[arm][0] for axis in own if axis.key.startswith(TUNABLES)}
    keys = tuple(dict.fromkeys(key for axis in own for key in (axis.key, *(WORKLOAD + n for n in axis.hold))))

    def point(settings: Mapping[str, Value]) -> Point:
        work = {n.removeprefix(WORKLOAD): v for n, v in settings.items() if n.startswith(WORKLOAD)}
        tuned = {n.removeprefix(TUNABLES): int(v) for n, v in settings.items() if n.startswith(TUNABLES)}
        label = ",".join(f"{key.partition('.')[2]}={_text(value)}" for key, value in settings.items())
        return Point(label, dataclasses.replace(base, **work), defaults | tuned, keys)  # type: ignore[arg-type]

    found: dict[tuple[Workload, tuple[tuple[str, int], ...]], Point] = {}
    for settings in itertools.chain([{}], _settings(own, grid, arm)):
        made = point(settings)
        found.setdefault((made.workload, tuple(sorted(made.tunables.items()))), made)
    return list(found.values())


def count(axes: Sequence[Axis], grid: bool, arm: str) -> int:
    """As many points as `points` can give, without making them: a grid's grow beyond all bounds."""
    own = [
        len(axis.arms[arm]) - 1 if arm in axis.arms else len(axis.values)
        for axis in axes
        if axis.key.startswith(WORKLOAD) or arm in axis.arms
    ]
    return 1 + (math.prod(own) if grid else sum(own))


def _settings(axes: Sequence[Axis], grid: bool, arm: str) -> Iterator[dict[str, Value]]:
    values = [axis.arms[arm][1:] if arm in axis.arms else axis.values for axis in axes]
    if grid:
        for combination in itertools.product(*values) if axes else ():
            yield {axis.key: value for axis, value in zip(axes, combination, strict=True)}
        return
    for axis, own in zip(axes, values, strict=True):
        for value in own:
            yield {axis.key: value} | {WORKLOAD + name: held for name, held in axis.hold.items()}


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def checked(
    axes: Sequence[Axis],
    grid: bool,
    base: Workload,
    arms: Mapping[str, tuple[Design, Mapping[str, int]]],
    source: Path | str,
) -> tuple[Axis, ...]:
    """The axes with every tunable's arms filled in; BadInputError where an axis does not fit.

    `arms`: by label, each with its design and the tunables that it sets itself.
    """
    if grid and not axes:
        raise BadInputError(f"{source}: grid: there is no sweep whose axes could span one.")
    if len(axes) > _MOST_AXES:
        raise BadInputError(f"{source}: sweep: has {len(axes)} axes, and may have {_MOST_AXES}.")
    seen: set[tuple[str, str]] = set()
    found = []
    for number, axis in enumerate(axes):
        where = f"{source}: sweep.{number}"
        if len(axis.values) > _MOST_VALUES:
            raise BadInputError(f"{where}.values: are {len(axis.values)}, and may be {_MOST_VALUES} at most.")
        if axis.key.startswith(WORKLOAD):
            done = _workload_axis(axis, base, where)
        elif axis.key.startswith(TUNABLES):
            done = _tunable_axis(axis, base, arms, where)
        else:
            raise BadInputError(
                f"{where}.key: {shown(axis.key)!r} is neither a field of the workload, such as "
                "workload.batch, nor a tunable, such as tunables.distance."
            )
        if axis.arms not in ({}, done.arms):
            raise BadInputError(f"{where}.arms: follows from the designs; remove the key.")
        if doubled := [value for value, count in Counter(done.values).items() if count > 1]:
            raise BadInputError(f"{where}.values: {doubled[0]} is named twice.")
        if grid and axis.hold:
            raise BadInputError(f"{where}.hold: goes with one axis at a time; a grid holds nothing.")
        name = (axis.key, "" if grid else str(sorted(done.hold.items())))
        if name in seen:
            raise BadInputError(f"{where}.key: {axis.key} is an axis already; put all its values there.")
        seen.add(name)
        found.append(done)
    return tuple(found)


def _workload_axis(axis: Axis, base: Workload, where: str) -> Axis:
    held = _held(axis, base, where)
    if axis.name not in (names := _fields()):
        raise BadInputError(
            f"{where}.key: there is no {shown(axis.key)} to sweep; there are: {', '.join(names)}."
        )
    if not axis.values:
        raise BadInputError(f"{where}.values: is empty.")
    works = [_workload(held, {axis.name: value}, f"{where}.values") for value in axis.values]
    values = tuple(getattr(work, axis.name) for work in works)
    return Axis(axis.key, values, {name: getattr(held, name) for name in axis.hold})


def _tunable_axis(
    axis: Axis, base: Workload, arms: Mapping[str, tuple[Design, Mapping[str, int]]], where: str
) -> Axis:
    held = _held(axis, base, where)
    having = {label: (d, own) for label, (d, own) in arms.items() if axis.name in d.tunables}
    if not having:
        raise BadInputError(f"{where}.key: none of the arms has a tunable {shown(axis.name)!r}.")
    if not axis.values:
        raise BadInputError(f"{where}.values: is empty.")
    for label, (_, own) in having.items():
        if axis.name in own:
            raise BadInputError(
                f"{where}.key: {label} sets {axis.name} itself; leave it to the sweep, or to the arm."
            )
    taken: dict[str, tuple[int, ...]] = {}
    for label, (design, _) in having.items():
        tunable = design.tunables[axis.name]
        fit = (
            v
            for v in axis.values
            if type(v) is int and 0 <= v <= _MOST_TUNABLE and (not tunable.values or v in tunable.values)
        )
        taken[label] = (tunable.default, *(v for v in fit if isinstance(v, int)))
    possible = {value for values in taken.values() for value in values[1:]}
    if unknown := [value for value in axis.values if type(value) is not int or value not in possible]:
        raise BadInputError(
            f"{where}.values: {unknown[0]!r} is a value of {axis.name} that none of the arms can take."
        )
    return Axis(axis.key, axis.values, {name: getattr(held, name) for name in axis.hold}, taken)


def _held(axis: Axis, base: Workload, where: str) -> Workload:
    """The base workload with what the axis holds."""
    for name in axis.hold:
        if name not in _fields() or WORKLOAD + name == axis.key:
            why = "is what the axis varies" if WORKLOAD + name == axis.key else "is no field of the workload"
            raise BadInputError(f"{where}.hold: {shown(name)} {why}.")
    return _workload(base, axis.hold, f"{where}.hold")


def _workload(base: Workload, changes: Mapping[str, Value], where: str) -> Workload:
    return validated(Workload, dataclasses.asdict(base) | dict(changes), where)


def _fields() -> list[str]:
    return [f.name for f in dataclasses.fields(Workload) if f.name not in _FIXED]
