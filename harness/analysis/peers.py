"""Other libraries: the fastest path of each on every dataset, and how much faster ours are than that.

A library may look rows up by several paths. Each is measured as a variant of one design that brings no kernel
of ours, and whoever uses the library may take the one that is fastest for their traffic. So a design of ours
is compared with the fastest of them, dataset by dataset, and that is named. Which one it is, the compared
times themselves decide: where two are alike, that picks the luckier one, which favours the library.

A PyTorch's own kernel taken out of an older version (`stock@2.1.0`) is none of these: nobody has to use it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.analysis import results
from harness.analysis.figures import COMPARED
from harness.analysis.results import Measured, Measurement
from harness.records import PYTORCH, Variant


@dataclass(frozen=True)
class Peer:
    """The fastest path of a library on a dataset."""

    design: str
    """The library."""
    dataset: str
    metric: str
    variant: Variant
    """The path."""
    ties: list[Variant]
    """Its other paths whose interval does not separate them from it."""
    paths: int
    """How many of its paths were measured."""


def is_peer(variant: Variant) -> bool:
    """Whether it is another library as it is today, PyTorch among them."""
    return variant.toolchain == PYTORCH


def over_stock(metric: str) -> str:
    """The name of the figure that tells how many times as fast as today's PyTorch a variant is."""
    return f"over_stock_{metric}"


def over_peer(metric: str) -> str:
    """The same against the fastest path of the fastest library on that dataset, PyTorch among them."""
    return f"over_peer_{metric}"


def fastest(found: Measured, design: str, dataset: str, metric: str = "") -> Peer | None:
    """The fastest path of a library on a dataset by a metric, the run's headline where none is named; None
    where it was not measured there."""
    metric = metric or found.headline
    return _fastest(design, _measured(found, dataset, metric, design))


def fastest_of_all(found: Measured, dataset: str, metric: str = "") -> Peer | None:
    """The same of all libraries together: `design` is that of the fastest, `paths` and `ties` are of all."""
    metric = metric or found.headline
    measured = _measured(found, dataset, metric)
    return _fastest(results.fastest(measured)[0].variant.design, measured) if measured else None


def find(found: Measured) -> list[Peer]:
    """By each library, dataset and metric that variants are compared by; on the CPU none, where every design
    is PyTorch's own operator."""
    designs = dict.fromkeys(variant.design for variant in found.run.variants if is_peer(variant))
    places = ((design, dataset) for design in designs for dataset in found.run.datasets)
    every = (fastest(found, *place, metric) for place in places for metric in COMPARED)
    return [] if found.run.on_cpu else [peer for peer in every if peer]


def find_of_all(found: Measured) -> list[Peer]:
    """By each dataset and metric that variants are compared by; on the CPU none."""
    every = (fastest_of_all(found, dataset, metric) for dataset in found.run.datasets for metric in COMPARED)
    return [] if found.run.on_cpu else [peer for peer in every if peer]


def _measured(found: Measured, dataset: str, metric: str, design: str = "") -> list[Measurement]:
    asked = (v for v in found.run.variants if is_peer(v) and design in ("", v.design))
    return [measured for variant in asked if (measured := found.at(variant, dataset, metric))]


def _fastest(design: str, measured: Iterable[Measurement]) -> Peer | None:
    if not (paths := list(measured)):
        return None
    best, ties = results.fastest(paths)
    others = [tie.variant for tie in ties]
    return Peer(design, best.dataset, best.metric, best.variant, others, len(paths))
