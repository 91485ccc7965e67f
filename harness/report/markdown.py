"""Markdown: tables and text that shows as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers; cells are escaped here."""
    head, *body = [[escaped(cell) for cell in row] for row in (columns, *rows)]
    rule = ["---"] + ["---:"] * (len(columns) - 1)
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *body))


def escaped(value: str) -> str:
    """Text that Markdown shows as it is, in a table's cell too."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", value.replace("\n", " "))
