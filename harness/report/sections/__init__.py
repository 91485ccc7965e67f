"""The subjects of a report, a module each; a new one is a file in this folder and nothing else.

A module may have two functions: `page(report)` gives a section of the page, or None where there is nothing to
say; `brief(report, run)` gives what terminal and Markdown show of one run, and `closing(report)` what they
show after all runs. `PLACE` says where it stands among the others. Of more than two runs the page has a
section for each, with the subjects folded away in it; `TOGETHER = True` keeps a subject that is about all
runs in one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import ModuleType

from harness.analysis.report import Report, Run
from harness.report import names, verdict
from harness.report.blocks import Block, Findings, Fold, Paragraph, Section

_BESIDE = 2
"""So many runs stand beside one another, subject by subject; more have a section each."""


def modules() -> list[ModuleType]:
    """In the order of the page."""
    names = [found.name for found in pkgutil.iter_modules(__path__)]
    made = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return sorted(made, key=lambda module: (module.PLACE, module.__name__))


def page(report: Report) -> Iterator[Section]:
    """Every section that has something to say."""
    if len(report.runs) <= _BESIDE:
        yield from _subjects(report, modules())
        return
    together = [module for module in modules() if getattr(module, "TOGETHER", False)]
    others = [module for module in modules() if module not in together]
    for number, run in enumerate(report.runs):
        yield _of_run(report, number, run, others)
    for section in _subjects(report, together):
        yield replace(section, blocks=[Fold(section.link or section.title, section.blocks)])


def _subjects(report: Report, those: Iterable[ModuleType]) -> Iterator[Section]:
    for module in those:
        if (make := getattr(module, "page", None)) and (section := make(report)):
            yield section


def _of_run(report: Report, number: int, run: Run, those: Iterable[ModuleType]) -> Section:
    """All that is known of one run, the first subject in the open where the verdict rests on it."""
    alone = replace(report, runs=[run], beside=[], claims=None)
    about = f"{names.work(run.protocol.workload)}, on {names.where(run)}."
    found: list[Block] = [Paragraph(about, "caption"), Findings(run.findings)]
    rests = verdict.of(report)
    open_ = rests is not None and run in rests.runs
    for place, section in enumerate(_subjects(alone, those)):
        found.append(Fold(section.title, section.blocks, unfolded=open_ and place == 0))
    return Section(f"run-{number}", run.title, found, run.name)


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
