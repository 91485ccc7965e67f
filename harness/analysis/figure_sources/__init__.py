"""Where the figures about a variant on a dataset come from, a module each; a further one is a file in this
folder and nothing else, and is then in the JSON and the CSV.

A module has `figures_of(found)`, which yields variant, dataset and `Figure`, and `PLACE`, a number: where its
figures stand among the others'.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.modules import in_order

if TYPE_CHECKING:
    from harness.analysis.results import Located, Measured


def every_figure(found: Measured) -> Iterator[Located]:
    """Of every variant on every dataset, at the experiment's own workload and tunables."""
    for module in in_order(__name__, __path__):
        yield from module.figures_of(found)
