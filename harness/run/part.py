"""One machine's part of an experiment's replicates: the others are measured elsewhere, and joined by "
"`merge`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from harness.bounds import Range
from harness.codec import SCHEMA_VERSION, parse
from harness.errors import BadInputError
from harness.files import Folder
from harness.plan import Launch
from harness.records import to_json

FILE = "part.json"
"""In the folder of a run that measures a part."""
_MOST_BYTES = 2**12
_Number = Annotated[int, Range(1, 10_000)]


@dataclass(frozen=True)
class Part:
    """Every `of`-th replicate, from the `number`-th on."""

    number: _Number = 1
    of: _Number = 1
    schema_version: int = SCHEMA_VERSION

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, launch: Launch) -> bool:
        """Whether the launch is to be measured here."""
        return launch.replicate % self.of == self.number - 1


WHOLE = Part()


def of_text(text: str, replicates: int) -> Part:
    """The part that is written like 2/3; BadInputError where it is not a part, or holds no replicate."""
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    number, of = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= of:
        raise BadInputError(f"--part {text!a}: is no part of a whole; write for example 2/3.")
    if of > replicates:
        raise BadInputError(
            f"--part {text}: the experiment's {replicates} replicates make {replicates} parts at most; ask "
            f"for more with --set replicates={of}."
        )
    return Part(number, of)


def write(part: Part, root: Folder) -> None:
    """Notes it in the run's folder, for whoever resumes the run."""
    root.write_whole(FILE, to_json(part))


def read(root: Folder) -> Part:
    """The part that the run measures; all of it where nothing else was said."""
    if not root.kind(FILE):
        return WHOLE
    return parse(Part, root.read(FILE, _MOST_BYTES), root.path / FILE)
