"""The subjects of a report, a module each; a new one is a file in this folder and nothing else.

A module may have two functions: `page(report)` gives a section of the page, or None where there is nothing to
say; `brief(report, run)` gives what terminal and Markdown show of one run, and `closing(report)` what they
show after all runs. `PLACE` says where it stands among the others.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

from harness.analysis.report import Report, Run
from harness.report.blocks import Block, Section


def modules() -> list[ModuleType]:
    """In the order of the page."""
    names = [found.name for found in pkgutil.iter_modules(__path__)]
    made = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return sorted(made, key=lambda module: (module.PLACE, module.__name__))


def page(report: Report) -> Iterator[Section]:
    """Every section that has something to say."""
    for module in modules():
        if (make := getattr(module, "page", None)) and (section := make(report)):
            yield section


def brief(report: Report, run: Run) -> Iterator[Block]:
    """What terminal and Markdown show of a run."""
    for module in modules():
        if make := getattr(module, "brief", None):
            yield from make(report, run)


def closing(report: Report) -> Iterator[Block]:
    """What they show after all runs."""
    for module in modules():
        if make := getattr(module, "closing", None):
            yield from make(report)
