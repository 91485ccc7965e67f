"""What other libraries and their paths are called."""

from __future__ import annotations

from collections.abc import Sequence

from harness.analysis.peers import is_peer
from harness.analysis.report import Run
from harness.records import STOCK, Variant


def name(design: str) -> str:
    """A library by the design that stands for it."""
    return {STOCK: "PyTorch", "fbgemm": "FBGEMM"}.get(design, design)


def called(run: Run, variant: Variant) -> str:
    """A variant where people read: a library's path by the names that they have for it, "FBGEMM v1"; all
    else, and what could be taken for another of the run, by its label."""
    told = _called(run, variant)
    return told if [_called(run, other) for other in run.variants].count(told) == 1 else variant.label


def _called(run: Run, variant: Variant) -> str:
    if not is_peer(variant) or variant.design == STOCK:
        return variant.label
    named = (one.tunable for one in run.named if one.design == variant.design)
    keys = _differing(run, variant) or [key for key in named if key in variant.tunables][:1]
    return " ".join([name(variant.design), ", ".join(_value(run, variant, key) for key in keys)]).strip()


def path(run: Run, fastest: Variant, ties: Sequence[Variant]) -> str:
    """A library by its fastest path, and those that cannot be told from it: "FBGEMM v1 or v2"."""
    told = name(fastest.design)
    return f"{told} {short_path(run, fastest, ties)}" if _differing(run, fastest) else told


def short_path(run: Run, fastest: Variant, ties: Sequence[Variant]) -> str:
    """The same without the library, by the tunables alone in which its paths differ, and by the names that
    people have for their values: "v1 or v2", "path=1 or path=2"."""
    differing = _differing(run, fastest)

    def told(variant: Variant) -> str:
        own = [_value(run, variant, key) for key in differing if key in variant.tunables]
        return ", ".join(own) or variant.label

    return " or ".join(map(told, (fastest, *ties)))


def _differing(run: Run, one: Variant) -> list[str]:
    paths = [variant.tunables for variant in run.variants if variant.design == one.design]
    return [key for key in one.tunables if len({str(path.get(key)) for path in paths}) > 1]


def _value(run: Run, variant: Variant, key: str) -> str:
    value = variant.tunables[key]
    for named in run.named:
        if (named.design, named.tunable) == (variant.design, key) and value in named.values:
            return named.names[named.values.index(value)]
    return f"{key}={value}"


def designs(run: Run) -> list[str]:
    """The libraries that the run measured by its headline."""
    return list(dict.fromkeys(peer.design for peer in run.peers if peer.metric == run.headline))
