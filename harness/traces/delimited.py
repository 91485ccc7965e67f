"""Columns of comma- and tab-separated values, with every line's fields counted.

Comma-separated values are read by RFC 4180: a field in quotation marks may hold commas, line breaks, and
quotation marks written twice. In tab-separated values a quotation mark is a character like any other.
Every line has as many fields as the first; one that has not is refused by its number, since it would give
another column's values. A blank line is a missing value where there is one column, and nothing where there
are more. The first line of another file, joined to the first, is no line of values.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.text import exactly, shown
from harness.traces import streams
from harness.traces.columns import Column, Mapping, Warn, place_of
from harness.traces.text import BLOCK_BYTES, parse_numbers, whole_lines
from harness.traces.trace import Block

Places = npt.NDArray[np.int64]

_RULES: dict[bool, dict[str, Any]] = {
    False: {"delimiter": ",", "strict": True},
    True: {"delimiter": "\t", "strict": True, "quoting": csv.QUOTE_NONE},
}
"""Of commas, and of tabs."""
_TOLD = {
    "expected after": "a quotation mark within a quoted field is not written twice",
    "new-line character": "a carriage return (or, where these end lines, a newline) stands in the middle; "
    "end lines throughout in one way, or quote the field",
    "unexpected end": "a quotation mark opens a field that does not end",
    "field limit": f"has a field of more than {BLOCK_BYTES:,} characters; close its quotation mark",
}
"""What the csv module says, in words that help."""
_BY_RETURN = {
    False: re.compile(rb'[^\r\n"]*(?:"[^"]*"[^\r\n"]*)*\r(?!\r*\n)'),
    True: re.compile(rb"[^\r\n]*\r(?!\r*\n)"),
}
"""A line that ends in a carriage return alone. Some programs write two of them before a newline."""
_QUOTED = re.compile(r'"(?:[^"]|"")*"\s*')
"""A line that is one field in quotation marks."""
_BEGINS = re.compile(rb"^" + codecs.BOM_UTF8, re.MULTILINE)
"""A line as files begin."""
_MAX_DIGITS = 18
"""More columns than that has no line."""


def delimited_blocks(
    source: Path, column: str, mapping: Mapping, rows: int, *, tabs: bool, warn: Warn | None = None
) -> Iterator[Block]:
    """A column of comma-separated values, with `tabs` of tab-separated ones, as row numbers.

    `column` is a name in the first line, or "#N", the N-th column (from 1) of a file without such a line.
    BadInputError names the line of what is wrong.
    """
    name = streams.called(source)
    convert = Column(name, column, mapping, rows)
    with streams.opened(source) as stream:
        lines = whole_lines(stream, _BY_RETURN[tabs])
        heading = _heading(name, next(lines), column, tabs, warn)
        # What names a column may be one of its numbers, too, but hardly one of its texts.
        called = column if heading.lines and not column.strip().isdigit() else None
        blocks = _of_one_file(name, heading.lines + 1, chain([heading.rest], lines))
        for values in _Reader(name, heading, tabs, warn).read(blocks):
            yield _rows(convert, values, called), stream.share()


@dataclass(frozen=True)
class _Heading:
    """What the first line tells."""

    columns: int
    place: int
    """Of the column that is meant, from 0."""
    lines: int
    """How many lines name columns: none where the column is told by its number."""
    rest: bytes
    """The lines that follow, as far as they have been read."""


@dataclass(frozen=True)
class _Values:
    """A column's values on some lines, in order."""

    count: int
    joined: bytes
    """Each followed by a newline."""
    texts: Callable[[], list[str]]
    """The same one by one, as they stand in the file."""
    line: Callable[[int], int]
    """The line of the file that each is on, from 1."""


def _rows(column: Column, values: _Values, called: str | None) -> npt.NDArray[np.int64]:
    """The rows of values; BadInputError where one is what line 1 calls the column."""
    if column.mapping == "rows":
        numbers = parse_numbers(values.joined) if values.count else np.zeros(0, np.int64)
        if numbers is not None and len(numbers) == values.count and (numbers < column.rows).all():
            return column.counted(numbers)
    texts = values.texts()
    if called is not None and called in texts:
        column.refuse_name(values.line(texts.index(called)))
    if column.mapping == "first_appearance":
        return column.categories(texts, values.count)
    return column.row_numbers(texts, values.line)


def _of_one_file(source: str, line: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Blocks of whole lines, from that line on; BadInputError where another file begins within them."""
    for block in blocks:
        if found := _BEGINS.search(block):
            at = line + block.count(b"\n", 0, found.start())
            raise BadInputError(
                f"{source}: line {at}: begins with U+FEFF, as files do; where files were joined, take it "
                "away, and a line of names behind it."
            )
        line += block.count(b"\n")
        yield block


def _other_separator(line: str, tabs: bool) -> str:
    """By what else than it should a line may be meant to be separated, and what to do then; mostly empty."""
    others = {",": "commas; then say --format csv"} if tabs else {"\t": "tabs; then say --format tsv"}
    unread = {"::": "double colons", ";": "semicolons", "|": "vertical bars"}
    others |= {mark: f"{what}; then write commas or tabs in their place" for mark, what in unread.items()}
    quoted = _QUOTED.fullmatch(line)
    return next((what for mark, what in others.items() if mark in line and not quoted), "")


def _heading(source: str, block: bytes, column: str, tabs: bool, warn: Warn | None = None) -> _Heading:
    read: list[str] = []

    def lines() -> Iterator[str]:
        for line in _lines(block):
            read.append(line)
            yield line

    csv.field_size_limit(BLOCK_BYTES)  # the module's own is less than some texts have
    try:
        names = next(csv.reader(lines(), **_RULES[tabs]))
    except csv.Error as error:
        _refuse(source, 1, len(read), error)
    by_number = column.startswith("#") and column[1:].isascii() and column[1:].isdigit()
    if not names and not by_number:
        raise BadInputError(f"{source}: line 1: is blank; it should name the columns.")
    names = names or [""]
    other = _other_separator(read[0], tabs) if len(names) == 1 else ""
    if not by_number:
        if other and column != names[0]:
            raise BadInputError(
                f"{source}: line 1: is one column, '{exactly(names[0])}', unless it is separated by {other}."
            )
        if len(read) > 1 and warn:
            warn(_of_break(source, 1, len(read)))
        rest = block[len("".join(read).encode("utf-8", "surrogateescape")) :]
        return _Heading(len(names), place_of(column, names, source), len(read), rest)
    if other and warn:
        warn(f"{source}: line 1: is one value, '{exactly(names[0])}', unless it is separated by {other}.")
    if not 1 <= (number := int(column[1:_MAX_DIGITS])) <= len(names):
        raise BadInputError(
            f"{source}: has no column '{shown(column)}'; the columns of line 1 are #1 to #{len(names)}."
        )
    return _Heading(len(names), number - 1, 0, block)


class _Reader:
    """Takes a column out of lines: at once where they are plain, otherwise record by record."""

    def __init__(self, source: str, heading: _Heading, tabs: bool, warn: Warn | None) -> None:
        self._source = source
        self._columns, self._place = heading.columns, heading.place
        self._tabs = tabs
        self._warn = warn
        self._line = heading.lines + 1
        """The number of the next line."""

    def read(self, blocks: Iterator[bytes]) -> Iterator[_Values]:
        """The values of blocks of whole lines."""
        for block in blocks:
            if block:
                yield self._at_once(block) or self._by_record(block, blocks)

    def _at_once(self, block: bytes) -> _Values | None:
        """The values where no field is quoted and every line has as many as it should; otherwise None."""
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        if b"\r" in block or (b'"' in block and not self._tabs):
            return None
        characters = np.frombuffer(block, dtype=np.uint8)
        newline = characters == ord("\n")
        ends = np.flatnonzero(newline | (characters == ord(_RULES[self._tabs]["delimiter"])))
        if len(ends) % self._columns:
            return None
        grid = ends.reshape(-1, self._columns)
        ends_line = newline[grid]
        if not ends_line[:, -1].all() or ends_line[:, :-1].any():
            return None
        begins = np.concatenate(([0], ends[:-1] + 1)).reshape(grid.shape)
        joined = _cut_out(characters, begins[:, self._place], grid[:, self._place])
        first = self._line
        self._line += len(grid)
        return _Values(len(grid), joined, lambda: _text(joined).split("\n")[:-1], lambda at: first + at)

    def _by_record(self, block: bytes, more: Iterator[bytes]) -> _Values:
        """The values by the rules of the format; takes `more` where a field goes on into the next block."""
        read = done = 0

        def lines() -> Iterator[str]:
            nonlocal read
            for part in chain([block], more):
                for line in _lines(part):
                    read += 1
                    yield line
                if read == done:  # no record is open
                    return

        texts: list[str] = []
        places: list[int] = []
        try:
            for record in csv.reader(lines(), **_RULES[self._tabs]):
                first, last, done = self._line + done, self._line + read - 1, read
                if last > first:
                    self._tell_of_break(first, last)
                if not record and self._columns == 1:
                    record = [""]
                if record:  # else a blank line
                    texts.append(self._value(record, first))
                    places.append(first)
        except csv.Error as error:
            _refuse(self._source, self._line + done, self._line + read - 1, error)
        self._line += read
        joined = "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogateescape")
        return _Values(len(texts), joined, lambda: texts, places.__getitem__)

    def _value(self, record: list[str], line: int) -> str:
        if len(record) == self._columns:
            return record[self._place]
        where = f"{self._source}: line {line}"
        if len(record) == self._columns + 1 and not record[-1]:
            raise BadInputError(
                f"{where}: ends in a separator, which makes {len(record)} fields where line 1 has "
                f"{self._columns}; take it away, or give line 1 a name for the last column."
            )
        raise BadInputError(
            f"{where}: has {_count(len(record))} where line 1 has {self._columns}"
            + ("." if self._tabs else "; a field that holds a comma belongs in quotation marks.")
        )

    def _tell_of_break(self, first: int, last: int) -> None:
        if self._warn:
            self._warn(_of_break(self._source, first, last))
            self._warn = None  # one is enough


def _cut_out(characters: npt.NDArray[np.uint8], begins: Places, ends: Places) -> bytes:
    """The parts of a text from `begins` to before `ends`, each followed by a newline. [n], [m], [m]"""
    lengths = ends - begins + 1
    stops = np.cumsum(lengths)
    parts = characters[np.arange(stops[-1]) + np.repeat(begins - (stops - lengths), lengths)]
    parts[stops - 1] = ord("\n")
    return bytes(parts)


def _lines(block: bytes) -> Iterator[str]:
    """Lines of text. The csv module refuses a carriage return within one, where it is not quoted."""
    return io.StringIO(_text(block), newline="\n")


def _text(block: bytes) -> str:
    """Whatever the other columns are written in; bytes that are no UTF-8 keep what they are."""
    return block.decode("utf-8", "surrogateescape")


def _refuse(source: str, first: int, last: int, error: csv.Error) -> NoReturn:
    line = f"line {first}" if last <= first else f"lines {first} to {last}"
    why = next((told for said, told in _TOLD.items() if said in str(error)), str(error))
    raise BadInputError(f"{source}: {line}: {why}.") from error


def _of_break(source: str, first: int, last: int) -> str:
    return (
        f"{source}: line {first}: a quoted field goes on to line {last}, as a field may; if the quotation "
        "mark belongs to a text, values are lost here: double it there."
    )


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"
