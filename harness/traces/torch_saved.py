"""Loads what one torch.save has written: nothing in the file is executed, and nothing passed over."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadInputError, HarnessError, MachineError

_END_BYTES = 22
"""Of the record that ends a zip archive which has no comment; torch.save writes none."""


def load(path: Path, called: str, what: str, classes: Sequence[tuple[type, str]] = ()) -> Any:
    """What the file holds, tensors mapped into memory where they can be.

    `what` is expected in it, for messages, which call the file `called`; `classes` take the places of those
    of these names. BadInputError where it is damaged, holds other things, or more than one torch.save wrote.
    """
    try:
        import torch
    except ImportError as error:
        raise MachineError("Reading .pt files needs PyTorch; install it with: pip install torch") from error
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(classes)):
            warnings.simplefilter("ignore")  # about old formats, which are read all the same
            if zipfile.is_zipfile(path):
                _check_archive(path, called)
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            # A file of PyTorch before 1.6, which cannot be mapped.
            with path.open("rb") as file:
                loaded = torch.load(file, map_location="cpu", weights_only=True)
                if file.tell() != os.fstat(file.fileno()).st_size:
                    raise _holds_more(called)
                return loaded
    except HarnessError:
        raise
    except Exception as error:  # torch.load says in very many ways that it cannot make sense of a file
        raise BadInputError(
            f"{called}: is damaged, or holds other things than {what}; nothing in it was executed."
        ) from error


def _check_archive(path: Path, called: str) -> None:
    """BadInputError where a zip archive is compressed, and might unpack to anything, or is not all of the
    file: only the last of several archives would be read."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise BadInputError(f"{called}: is a compressed archive inside, as torch files never are.")
    with path.open("rb") as file:
        file.seek(-_END_BYTES, os.SEEK_END)
        end = file.read()
    ends_there = end.startswith(b"PK\5\6") and end.endswith(b"\0\0")
    if not ends_there or min((entry.header_offset for entry in entries), default=0):
        raise _holds_more(called)


def _holds_more(called: str) -> BadInputError:
    return BadInputError(
        f"{called}: holds more than one torch.save wrote; where files were joined, keep each on its own."
    )
