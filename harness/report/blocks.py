"""What a report consists of, whoever prints it: paragraphs, tables, charts, and what groups them.

Sections make blocks from the report; page, terminal and Markdown print them. A block knows no colours, no
columns of a terminal and no tags; a chart is Vega-Lite, which only the page draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from markupsafe import Markup

from harness.analysis import trust
from harness.analysis.figures import Figure
from harness.analysis.report import Report, Run
from harness.analysis.trust import Finding, Level
from harness.records import Variant
from harness.report import libraries, units
from harness.report.charts import Chart

Medium = Literal["", "terminal", "markdown"]
"""What a block is for alone; empty: for all."""


@dataclass(frozen=True)
class Source:
    """The records that a figure comes from."""

    run: str
    records: Sequence[str]


@dataclass(frozen=True)
class Over:
    """Marks a speedup: on the page it follows when the reader takes another reference."""

    run: str
    metric: str
    variant: Variant
    dataset: str
    at: Literal["text", "detail"] = "text"
    """Where in its cell that speedup stands."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    detail: str = ""
    """Smaller, below the text or behind it."""
    title: str = ""
    """Shown on hover, where no source is."""
    kind: str = ""
    """Words of: "number", "absent", "best", "faster", "slower", "unsure", "good", "path", "code", "words";
    "verdict": its detail says why; "under": belongs to the row above, "aside": matters less; "wide": its
    interval says nothing."""
    source: Source | None = None
    over: Over | None = None
    within: float | None = None
    """Half the interval ÷ figure, which the terminal shows in place of the detail."""


@dataclass(frozen=True)
class Table:
    """A table with a header row; the first cell of a row names it. A row of one cell heads those after it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    """How to read it."""
    title: str = ""
    """Of its own where it stands among others, as on the terminal."""
    label: str = ""
    """Read aloud where there is no caption; what it shows, below it in Markdown."""
    kind: str = ""
    """Words of: "prose", "compact", "cells" on the page; "dense" without room between columns, "firm" with
    numbers in one piece on the terminal."""
    only: Medium = ""


class Strong(str):
    """Words of a paragraph that stand out."""


@dataclass(frozen=True)
class Paragraph:
    """Text, or words one after the other; for the page alone it may hold tags."""

    text: str | Markup | Sequence[str]
    kind: Literal["", "aside", "caption", "empty"] = ""
    only: Medium = ""


@dataclass(frozen=True)
class Heading:
    """Of what follows, within a section."""

    text: str | Markup
    level: int = 3


@dataclass(frozen=True)
class Findings:
    """What speaks for and against a run."""

    findings: Sequence[Finding]

    @property
    def worst(self) -> Level:
        """The level of the gravest."""
        return trust.verdict(self.findings)


@dataclass(frozen=True)
class Charts:
    """Charts beside one another. `numbers`: their rows are offered as a table, where none stands beside
    them."""

    charts: Sequence[Chart]
    numbers: bool = False
    wide: bool = False
    """Each as wide as half of the page at least."""
    alone: bool = False
    """One, as wide as the page."""


@dataclass(frozen=True)
class Columns:
    """Blocks side by side where there is room."""

    parts: Sequence[Sequence[Block]]


@dataclass(frozen=True)
class Group:
    """What belongs together: gone when nothing of it is picked."""

    blocks: Sequence[Block]


@dataclass(frozen=True)
class Fold:
    """Folded away behind its summary."""

    summary: str | Markup
    blocks: Sequence[Block]
    unfolded: bool = False
    kind: str = ""
    variant: Variant | None = None
    """What all of it is about; None where it is about several."""
    dataset: str = ""


@dataclass(frozen=True)
class Item:
    """Of a list."""

    text: str | Markup
    variant: Variant | None = None
    dataset: str = ""


@dataclass(frozen=True)
class Items:
    """A list; whole sentences get wider columns."""

    items: Sequence[Item]
    kind: Literal["", "sentences"] = ""


@dataclass(frozen=True)
class Terms:
    """Names and what they stand for."""

    terms: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Log:
    """Output of a program, as it came."""

    text: str


Block = Table | Paragraph | Heading | Findings | Charts | Chart | Columns | Group | Fold | Items | Terms | Log


@dataclass(frozen=True)
class Section:
    """One subject on the page."""

    id: str
    title: str
    """Its heading."""
    blocks: Sequence[Block]
    link: str = field(default="")
    """What leads to it; the title where nothing is said."""


ABSENT = Cell(units.NONE, kind="number absent")


def matrix(
    run: Run,
    cell: Callable[[Variant, str], Cell | None],
    *,
    variants: Iterable[Variant] | None = None,
    caption: str = "",
    title: str = "",
    label: str = "",
) -> Table:
    """Variants in rows, datasets in columns; a dash where there is no cell."""
    rows = [
        [
            Cell(libraries.called(run, variant)),
            *(cell(variant, dataset) or ABSENT for dataset in run.datasets),
        ]
        for variant in (run.variants if variants is None else variants)
    ]
    return Table(["design", *run.datasets], rows, caption, title, label)


def number(run: Run, figure: Figure | None, kind: str = "", detail: str | None = None) -> Cell:
    """A figure as it is, with its interval below it (or another detail); a dash where there is none."""
    if figure is None:
        return ABSENT
    if detail is None:
        detail = units.interval(figure)
    source = Source(run.name, figure.records) if figure.records else None
    # An interval that says nothing leaves the figure saying little: grey, neither faster nor slower.
    wide = figure.low is not None and figure.high is not None and not units.sensible(figure.low, figure.high)
    kinds = "number wide" if wide else f"number {kind}".strip()
    return Cell(units.text(figure), detail, kind=kinds, source=source, within=units.half_width(figure))


def per_run(report: Report, told: Callable[[Run], Sequence[Block]], level: int = 3) -> list[Block]:
    """What a section says of each run of which it says anything, under its title where there are several;
    without such a title its own headings move up to that level."""
    found = [(run, own) for run in report.runs if (own := told(run))]
    if len(report.runs) > 1:
        return [Group([Heading(run.title, level), *own]) for run, own in found]
    return [Group([_raised(block) for block in own]) for _, own in found]


def _raised(block: Block) -> Block:
    """With its headings one level higher; those of what is folded away or in columns, too."""
    if isinstance(block, Heading):
        return replace(block, level=max(3, block.level - 1))
    if isinstance(block, Group | Fold):
        return replace(block, blocks=[_raised(one) for one in block.blocks])
    if isinstance(block, Columns):
        return replace(block, parts=[[_raised(one) for one in part] for part in block.parts])
    return block
