"""Blocks on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from harness.analysis.report import Report
from harness.report import sections, summary, units
from harness.report.blocks import Block, Cell, Findings, Paragraph, Table

_MARKS = {"good": ("✓", "green"), "note": ("!", "yellow"), "bad": ("✕", "red")}
_COLOURS = {"faster": "green", "slower": "red", "unsure": "yellow", "aside": "dim", "under": "dim"}
LEAST, MOST, WIDTH = 14, 24, 80
"""Columns of a terminal that a variant's name takes before it is folded, where all else is numbers, as far
as those leave room in a terminal of the usual width."""


def show(report: Report, console: Console | None = None) -> None:
    """Prints the report to stdout, or to the console given, such that it fits a screen.

    One run: its results; several: a line each; two: how they compare as well. The page has the rest."""
    told = list(summary.blocks(report))
    if len(report.runs) == 1:
        told += sections.brief(report, report.runs[0])
    else:
        told.append(summary.short_matrix(report))
    if len(report.runs) <= 2:
        told += sections.closing(report)
    put(told, console)


def put(blocks: Iterable[Block], console: Console | None = None, *, beside: int | None = None) -> None:
    """Prints blocks to stdout, or to the console given. `beside`: columns where stdout is no terminal."""
    width = None if sys.stdout.isatty() else beside
    (console or Console(highlight=False, width=width)).print(Group(*_rendered(blocks)))


def _rendered(blocks: Iterable[Block]) -> Iterator[RenderableType]:
    for block in blocks:
        if isinstance(block, Table) and block.only != "markdown":
            yield from _grids(block)
        elif isinstance(block, Paragraph) and block.only != "markdown" and block.text:
            yield Text("".join(block.text))
        elif isinstance(block, Findings):
            if good := [found.what for found in block.findings if found.level == "good"]:
                yield Text.assemble((f"{_MARKS['good'][0]} ", _MARKS["good"][1]), ", ".join(good))
            for found in block.findings:
                mark, colour = _MARKS[found.level]
                if found.level != "good":
                    yield Text.assemble((f"{mark} ", colour), (f"{found.what}: ", "dim"), found.detail)


def _grids(table: Table) -> Iterator[RenderableType]:
    """A table; where rows of one cell head those after them, those parts under one another, columns alike."""
    if all(len(row) == len(table.columns) for row in table.rows):
        yield _grid(table)
        return
    whole = [row for row in table.rows if len(row) == len(table.columns)]
    widths = [
        max(len(name), *(len(_text(row[number]).plain) for row in whole))
        for number, name in enumerate(table.columns)
    ]
    part: list[Sequence[Cell]] = []
    first = True
    for row in [*table.rows, [Cell("")]]:
        if len(row) == len(table.columns):
            part.append(row)
            continue
        if part:
            yield _grid(replace(table, rows=part, title="", caption=""), widths, heads=first)
            part, first = [], False
        if row[0].text:
            yield Text(row[0].text, "bold")


def _grid(table: Table, widths: Sequence[int] | None = None, heads: bool = True) -> Grid:
    grid = Grid(
        show_header=heads,
        title=Text(table.title),
        caption=Text(table.caption),
        title_justify="left",
        caption_justify="left",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, "dense" not in table.kind, 0, 0),
        pad_edge=False,
    )
    columns = [[row[number] for row in table.rows] for number in range(len(table.columns))]
    numbers = [any("number" in cell.kind for cell in column) for column in columns]
    taken = [
        max(len(name), *(len(_text(cell).plain) for cell in column), 0) + 1
        for name, column, number in zip(table.columns, columns, numbers, strict=True)
        if number
    ]
    most = max(LEAST, min(MOST, WIDTH - sum(taken)))
    for name, column, number in zip(table.columns, columns, numbers, strict=True):
        longest = max((len(line) for cell in column for line in _name(cell)), default=0)
        place = len(grid.columns)
        naming = name == "fastest" or (not number and numbers.count(False) == 1)
        grid.add_column(
            Text(name),
            justify="right" if number else "left",
            # A run's name stays whole at the others' cost; a least width would make the table too wide.
            no_wrap=(number and "firm" in table.kind) or (name == "run" and longest <= MOST),
            overflow="ellipsis" if number else "fold",
            min_width=widths[place] if widths else min(max(LEAST, longest), most) if naming else None,
        )
    for row in table.rows:
        grid.add_row(*map(_text, row))
    return grid


def _name(cell: Cell) -> list[str]:
    return [] if "under" in cell.kind else cell.text.split("\n")


def _text(cell: Cell) -> Text:
    style = next((colour for kind, colour in _COLOURS.items() if kind in cell.kind.split()), "")
    text = Text("  " * ("under" in cell.kind) + cell.text, style)
    if cell.within is not None:
        text.append(f" {units.within(cell.within)}", "dim")
        if "wide" in cell.kind.split():
            text.stylize("dim")
    elif "verdict" in cell.kind and cell.detail:
        text.append(f": {cell.detail}", "dim")
    return text
