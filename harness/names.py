"""Names of files as text that can go anywhere."""

from __future__ import annotations

import re
from pathlib import Path

_BYTE = re.compile("[\udc80-\udcff]")


def readable(name: str | Path) -> str:
    """A file's name with its bytes that are no UTF-8 spelt out, for example `\\xff`.

    Python keeps such bytes as halves of characters, which no file, page or JSON may hold. To show only: the
    file is not found by this.
    """
    return _BYTE.sub(lambda half: f"\\x{ord(half[0]) - 0xDC00:02x}", str(name))
