"""Files of Python packages that are installed beside this program, found without importing them."""

from __future__ import annotations

import hashlib
from importlib.machinery import PathFinder
from pathlib import Path, PurePosixPath


def hash_of(name: str) -> str | None:
    """SHA-256 of a package's file, by path from where packages lie, such as `fbgemm_gpu/fbgemm.so`; None
    where there is no such file, or none can have that name, or `name` leads elsewhere."""
    parts = PurePosixPath(name).parts
    if len(parts) < 2 or not parts[0].isidentifier() or ".." in parts:
        return None
    spec = PathFinder.find_spec(parts[0])
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder, *parts[1:])
        try:
            if path.is_file():
                with path.open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:  # a longer name than files have, or one that may not be read
            continue
    return None
