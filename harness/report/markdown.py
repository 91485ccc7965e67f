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
    """Text that Markdown shows as it is, in a table's cell too.

    A code host would make links of @name and #1 however they are escaped, and tell whoever is called so: a
    space of no width keeps them apart.
    """
    text = re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", value.replace("&", "&amp;").replace("\n", " "))
    return re.sub(r"(?<!\w)@(?=\w)|#(?=\d)", lambda mark: f"{mark[0]}&#8203;", text)
