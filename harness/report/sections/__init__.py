"""The subjects of a report, a module each; a new one is a file in this folder and nothing else.

A module may have functions: `page(report)` gives a section of the page, or None where there is nothing to
say; `brief(report, run)` gives what terminal and Markdown show of one run, and `closing(report)` what they
show after all runs. `PLACE` says where it stands among the others.

Of more than two runs the page has a section for each, with the subjects folded away in it, and of many all of
a run in one fold; `TOGETHER = True` keeps a subject that is about all runs in one. Of a run that the verdict
rests on, a subject with `OPEN = True` is not folded away, and `picture(run)`, the chart of a page's first
screen, stands in the open.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import ModuleType

from harness.analysis.report import Report, Run
from harness.modules import in_order
from harness.report import names, verdict
from harness.report.blocks import Block, Charts, Findings, Fold, Paragraph, Section

_BESIDE = 2
"""So many runs stand beside one another, subject by subject; more have a section each."""
_IN_THE_OPEN = 6
"""Of more runs than this a page would be longer than anybody scrolls: each is one fold then, but for those
that the verdict rests on."""
_ALL_OF_IT = "Speedups, times, what speaks for and against the run"


def modules() -> list[ModuleType]:
    """In the order of the page."""
    return in_order(__name__, __path__)


def page(report: Report) -> Iterator[Section]:
    """Every section that has something to say."""
    if len(report.runs) <= _BESIDE:
        yield from _subjects(report, modules())
        return
    together = [module for module in modules() if getattr(module, "TOGETHER", False)]
    others = [module for module in modules() if module not in together]
    rests = verdict.of(report)
    first = rests.runs if rests else []
    for number, run in sorted(enumerate(report.runs), key=lambda one: one[1] not in first):
        made = _of_run(report, number, run, others, run in first)
        folded = len(report.runs) > _IN_THE_OPEN and run not in first
        about, *rest = made.blocks
        yield replace(made, blocks=[about, Fold(_ALL_OF_IT, rest)]) if folded else made
    for section in _subjects(report, together):
        yield replace(section, blocks=[Fold(section.link or section.title, section.blocks)])


def _subjects(report: Report, those: Iterable[ModuleType]) -> Iterator[Section]:
    return (section for _, section in _made(report, those))


def _made(report: Report, those: Iterable[ModuleType]) -> Iterator[tuple[ModuleType, Section]]:
    for module in those:
        if (make := getattr(module, "page", None)) and (section := make(report)):
            yield module, section


def _of_run(
    report: Report, number: int, run: Run, those: Iterable[ModuleType], verdict_rests: bool
) -> Section:
    """All that is known of one run; pictures in the open where the verdict rests on it."""
    alone = replace(report, runs=[run], beside=[], claims=None)
    about = f"{names.work(run.protocol.workload)}, on {names.where(run)}."
    found: list[Block] = [Paragraph(about, "caption"), Findings(run.findings)]
    for module, section in _made(alone, those):
        drawn = module.picture(run) if hasattr(module, "picture") else None
        pictures = [Charts([drawn], alone=True)] if drawn else []
        found += pictures if verdict_rests else []
        within = section.blocks if verdict_rests else [*pictures, *section.blocks]
        opened = verdict_rests and getattr(module, "OPEN", False)
        found.append(Fold(section.title, within, unfolded=opened))
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
