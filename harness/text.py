"""Text from outside, made fit to be shown: on a terminal, in a chart, in a file's or a reader's eyes.

Containers, result folders and file names may hold what moves a terminal's cursor, turns the direction of
writing round, or breaks the XML of a drawing. `clean` makes all of that visible instead. It is applied where
text enters: to every string of a JSON file (`harness.records.load`), to the names of runs, to messages that
the program ends with. What a format takes for its own marks is escaped by that format's writer.
"""

from __future__ import annotations

import difflib
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_BYTE = re.compile("[\udc80-\udcff]")
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and format characters, lone surrogates, and its own line breaks."""
_HARMLESS = "\n\t\u200c\u200d"
"""Line breaks and tabs; joiners, without which some scripts and emoji fall apart."""
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 2, 60, 60, 40


def clean(text: str) -> str:
    """The text with everything that is no visible character spelt out, for example `\\x1b` or `\\u202e`.

    Line breaks and tabs stay, colours of a terminal go.
    """
    if text.isprintable():
        return text
    text = _COLOUR.sub("", readable(text)).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(_escaped(c) if is_hidden(c) else c for c in text)


def readable(name: str | Path) -> str:
    """A file's name with its bytes that are no UTF-8 spelt out, for example `\\xff`, and the rest as it is.

    Python keeps such bytes as halves of characters, which no file, page or JSON may hold. To show only: the
    file is not found by this.
    """
    return _BYTE.sub(lambda half: f"\\x{ord(half[0]) - 0xDC00:02x}", str(name))


def is_hidden(character: str) -> bool:
    """Whether a character cannot be seen by a reader, or carried by XML."""
    if character in _HARMLESS:
        return False
    number = ord(character)
    nobody = number & 0xFFFE == 0xFFFE or 0xFDD0 <= number <= 0xFDEF  # Unicode's "noncharacters"
    return nobody or unicodedata.category(character) in _HIDDEN


def first_hidden(text: str) -> str:
    """The first character that could not be seen, as "U+001B"; empty where there is none."""
    if text.isprintable():
        return ""
    return next((f"U+{ord(c):04X}" for c in text if is_hidden(c)), "")


def shown(value: Any) -> str:
    """A value from outside within a message: short, in one line, whatever it is."""
    if isinstance(value, str):
        one_line = " ".join(clean(value[:200]).split())
        return one_line if len(one_line) <= 60 else f"{one_line[:59]}…"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"  # of which Python would refuse to print the longest
    return clean(_SHORT.repr(value))[:100]


def quoted(value: Any) -> str:
    """As `shown`, but a text in quotation marks, so that '5' is not taken for 5."""
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def meant(name: str, known: Iterable[str]) -> str:
    """ " Did you mean 'fused'?" where an unknown name resembles a known one; otherwise empty. What differs in
    capitals alone is the nearest."""
    some = list(known)
    near = [one for one in some if one.casefold() == name.casefold()]
    near = near or difflib.get_close_matches(name, some, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def exactly(text: str) -> str:
    """A text as `shown`, but with every space: tabs and line breaks are spelt out, and none is taken away.

    For what was compared character by character, where a blank or a colour may be all that is wrong.
    """
    spelt = "".join(_escaped(c) if is_hidden(c) else c for c in readable(text[:200]))
    spelt = spelt.replace("\t", "\\t").replace("\n", "\\n")
    return spelt if len(spelt) <= 60 else f"{spelt[:59]}…"


def _escaped(character: str) -> str:
    number = ord(character)
    return (
        f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 65536 else f"\\U{number:08x}"
    )
