"""Where the records of one run come from machines, designs or libraries that are not the same."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass

from harness.analysis.frame import LoadedRun
from harness.records import Environment, Variant

_EXPECTED_TO_DIFFER = ("image",)  # a design has an image of its own


@dataclass(frozen=True)
class Difference:
    """A field of the environment that is not the same in all records of a run."""

    field: str
    values: dict[str, list[str]]
    """Value as text → ids of the cells that saw it."""


def differences(run: LoadedRun) -> list[Difference]:
    """Where the environment was not the same for all records; the image may differ between designs."""
    seen: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in run.records:
        if record.environment is not None:
            for field in dataclasses.fields(Environment):
                value = as_text(getattr(record.environment, field.name))
                if field.name not in _EXPECTED_TO_DIFFER:
                    seen[field.name][value].append(record.cell.id)
    found = [Difference(name, dict(values)) for name, values in seen.items() if len(values) > 1]
    return found + _differences_within_variants(run)


def as_text(value: object) -> str:
    """A field of the environment as people read it."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _differences_within_variants(run: LoadedRun) -> list[Difference]:
    """What may differ between variants, not between records of one: image, source, compiler, libraries."""
    seen: dict[tuple[Variant, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in run.records:
        facts = {"image": record.environment.image} if record.environment else {}
        if record.kernel:
            facts |= {"design source": record.kernel.source_hash, "compiler": record.kernel.compiler}
            facts |= record.kernel.libraries
        for name, value in facts.items():
            seen[record.cell.variant, name][value].append(record.cell.id)
    return [
        Difference(f"{name} of {variant.label}", dict(values))
        for (variant, name), values in seen.items()
        if len(values) > 1
    ]
