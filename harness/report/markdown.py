"""Blocks as Markdown, for a pull request: tables and text that shows as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from harness.analysis.report import Report
from harness.report import sections, summary
from harness.report.blocks import Block, Cell, Findings, Heading, Items, Paragraph, Strong, Table

_MARKS = {"good": "✓", "note": "**!**", "bad": "**✕**"}


def of(report: Report) -> str:
    """The runs one after the other, then how they compare, as text that ends in a line break."""
    told = [[Heading(run.title), *sections.brief(report, run)] for run in report.runs]
    first = [*summary.blocks(report), *([summary.matrix(report)] if len(report.runs) > 1 else [])]
    return text([*first, *(block for run in told for block in run), *sections.closing(report)])


def text(blocks: Iterable[Block]) -> str:
    """Blocks as text that ends in a line break."""
    return "\n".join(filter(None, _written(blocks)))


def _written(blocks: Iterable[Block]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Heading):
            yield f"### {escaped(block.text)}\n"
        elif isinstance(block, Table) and block.only != "terminal":
            yield _table(block)
            yield f"{escaped(block.label)}\n" if block.label else ""
        elif isinstance(block, Paragraph) and block.only != "terminal":
            parts = [block.text] if isinstance(block.text, str) else block.text
            yield "".join(map(_part, parts)) + "\n"
        elif isinstance(block, Items):
            yield "".join(f"- {escaped(item.text)}\n" for item in block.items)
        elif isinstance(block, Findings):
            found = (f"- {_MARKS[f.level]} {escaped(f.what)}: {escaped(f.detail)}\n" for f in block.findings)
            yield "".join(found)


def _table(table: Table) -> str:
    numbers = [any("number" in row[n].kind for row in table.rows) for n in range(len(table.columns))]
    head = [escaped(name) for name in table.columns]
    rule = ["---:" if number else "---" for number in numbers]
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *rows))


def _cell(cell: Cell) -> str:
    if "verdict" in cell.kind:
        return f"**{escaped(cell.text)}**" + (f": {escaped(cell.detail)}" if cell.detail else "")
    if "under" in cell.kind and cell.title:
        return escaped(f"{cell.title}, {cell.text}")
    return escaped(cell.text + (f" ({cell.detail})" if cell.detail else ""))


def _part(part: str) -> str:
    return f"**{escaped(part)}**" if isinstance(part, Strong) else escaped(part)


def escaped(value: str) -> str:
    """Text that Markdown shows as it is, in a table's cell too.

    A code host would make links of @name and #1 however they are escaped, and tell whoever is called so: a
    space of no width keeps them apart.
    """
    text = re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", value.replace("&", "&amp;").replace("\n", " "))
    return re.sub(r"(?<!\w)@(?=\w)|#(?=\d)", lambda mark: f"{mark[0]}&#8203;", text)
