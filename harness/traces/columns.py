"""What the values of a column are, whatever file it is in: row numbers, or categories that become some."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Literal, NoReturn

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.text import exactly

Mapping = Literal["rows", "first_appearance"]
"""What a column's values are. "rows": row numbers. "first_appearance": categories; the first value that
appears is row 0, the next new one row 1, and so on; a missing value counts as a value."""
Warn = Callable[[str], None]
"""Told a sentence about what is read all the same, but may not be meant."""

_NAMES_SHOWN = 20


class Column:
    """One column of one source: turns its values, part by part, into row numbers."""

    def __init__(self, source: str, name: str, mapping: Mapping, rows: int) -> None:
        self.mapping = mapping
        self.rows = rows
        self._source, self._name = source, exactly(name)
        self._done = 0
        self._row_of = _RowOf()

    @property
    def where(self) -> str:
        """The column, for messages."""
        return f"{self._source}: column '{self._name}'"

    def categories(self, values: Iterable[Hashable], count: int) -> npt.NDArray[np.int64]:
        """The rows of `count` categories; the same category has the same row in every part."""
        numbers = np.fromiter(map(self._row_of.__getitem__, values), np.int64, count)
        if len(self._row_of) > self.rows:
            raise BadInputError(f"{self.where}: has more than {self.rows} different values; give more rows.")
        return numbers

    def row_numbers(
        self, texts: Sequence[str | None], line_of: Callable[[int], int] | None = None
    ) -> npt.NDArray[np.int64]:
        """The rows of values as they stand in the source (None: is missing); BadInputError for the first that
        is none. `line_of`: the line on which the value of that index stands."""
        numbers = [_row_number(text, self.rows) for text in texts]
        if None in numbers:
            at = numbers.index(None)
            self.refuse(at, texts[at], line_of(at) if line_of else None)
        return self.counted(np.array(numbers, dtype=np.int64))

    def counted(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """These row numbers, which count for the place of values to come."""
        self._done += len(numbers)
        return numbers

    def refuse_name(self, line: int) -> NoReturn:
        """BadInputError for a line that gives the column's own name in place of a value."""
        raise BadInputError(
            f"{self._source}: line {line}: names column '{self._name}' again; where files were joined, take "
            "this line away, and where it is a value, give the column another name in line 1."
        )

    def refuse(self, at: int, text: str | None, line: int | None = None) -> NoReturn:
        """BadInputError for the value of that index in this part, which is no row."""
        where = self._source if line is None else f"{self._source}: line {line}"
        value = f"{where}: column '{self._name}': value {self._done + at + 1}"
        if text and (digits := text.strip(" ").removeprefix("-")).isdigit() and digits.isascii():
            raise BadInputError(f"{value}: row {exactly(text)} is not in the table (0 to {self.rows - 1}).")
        what = f"is '{exactly(text)}'" if text and text.strip() else "is missing"
        if line == 1 and self._name.startswith("#"):
            raise BadInputError(
                f"{value} {what}, not a row number from 0 to {self.rows - 1}; if line 1 names the columns, "
                "say which by its name there."
            )
        raise BadInputError(
            f"{value} {what}, not a row number from 0 to {self.rows - 1}; where values are categories, use "
            'the mapping "first_appearance".'
        )


class _RowOf(dict[Hashable, int]):
    """Categories by their rows; asking for a new one gives it the next."""

    def __missing__(self, category: Hashable) -> int:
        return self.setdefault(category, len(self))


def place_of(column: str, names: list[str], source: str) -> int:
    """Where the column of that name stands among `names`, from 0; BadInputError unless there is just one."""
    found = [place for place, name in enumerate(names) if name == column]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInputError(
            f"{source}: {len(found)} columns are called '{exactly(column)}', number {found[0] + 1} and "
            f"number {found[1] + 1} for example; rename the one that you mean."
        )
    some = ", ".join(_listed(name) for name in names[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    raise BadInputError(f"{source}: has no column '{exactly(column)}'; it has: {some}{more}.")


def _listed(name: str) -> str:
    """A column's name among others; in quotation marks where its blanks would not be seen."""
    return exactly(name) if name and name == name.strip() else f"'{exactly(name)}'"


def _row_number(text: str | None, rows: int) -> int | None:
    """The row that a text stands for; None where it is none of the table's."""
    text = (text or "").strip(" ")
    if not text.isascii() or not text.isdigit():
        return None
    digits = text.lstrip("0")
    if len(digits) > len(str(rows)):  # Python takes long to read the longest, or refuses to
        return None
    number = int(digits or "0")
    return number if number < rows else None
