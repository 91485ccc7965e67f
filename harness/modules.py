"""Packages whose files nothing else names: the subjects of a report, and the sources of its figures."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from types import ModuleType


def in_order(package: str, folders: Iterable[str]) -> list[ModuleType]:
    """The modules in a package's folders by their number `PLACE`, then by name."""
    made = [importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(folders)]
    return sorted(made, key=lambda module: (module.PLACE, module.__name__))
