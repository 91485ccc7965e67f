"""Where the figures about a variant on a dataset come from, a module each; a further one is a file in this
folder and nothing else, and is then in the JSON and the CSV.

A module has `figures_of(found)`, which yields variant, dataset and `Figure`, and `PLACE`, a number: where its
figures stand among the others'.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.analysis.results import Located, Measured


def modules() -> list[ModuleType]:
    """In the order of their figures."""
    made = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return sorted(made, key=lambda module: (module.PLACE, module.__name__))


def every_figure(found: Measured) -> Iterator[Located]:
    """Of every variant on every dataset, at the experiment's own workload and tunables."""
    for module in modules():
        yield from module.figures_of(found)
