"""What other libraries and their paths are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.analysis.report import Run
from harness.records import STOCK, Variant
from harness.report import names


def name(design: str) -> str:
    """A library by the design that stands for it."""
    return {STOCK: "PyTorch", "fbgemm": "FBGEMM"}.get(design, design)


def terms(variants: Iterable[Variant]) -> str:
    """What the tunables in the names of libraries' paths mean; empty where nothing needs to be said."""
    fbgemm = {key: v.tunables[key] for v in variants if v.design == "fbgemm" for key in v.tunables}
    told = ["path=0: FBGEMM's inference (n-bit), 1 and 2: its training forward (v1, v2)"] * ("path" in fbgemm)
    told += ["index_bits=32: int32 row numbers"] * ("index_bits" in fbgemm)
    return "; ".join(told)


def path(fastest: Variant, ties: Sequence[Variant]) -> str:
    """The fastest path of a library, and those that cannot be told from it."""
    tied = f" (tied with {names.labels(ties)})" if ties else ""
    return f"{fastest.label}{tied}"


def short_path(run: Run, fastest: Variant, ties: Sequence[Variant]) -> str:
    """The same by the tunables alone in which the library's paths differ, for example "path=1 or path=2"."""
    paths = [variant.tunables for variant in run.variants if variant.design == fastest.design]
    differing = [key for key in fastest.tunables if len({str(path.get(key)) for path in paths}) > 1]

    def told(variant: Variant) -> str:
        own = [f"{key}={variant.tunables[key]}" for key in differing if key in variant.tunables]
        return ", ".join(own) or variant.label

    return " or ".join(map(told, (fastest, *ties)))


def designs(run: Run) -> list[str]:
    """The libraries that the run measured by its headline."""
    return list(dict.fromkeys(peer.design for peer in run.peers if peer.metric == run.headline))
