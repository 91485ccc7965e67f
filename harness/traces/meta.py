"""Tables of Meta's public traces (`dlrm_datasets`, `*.pt.gz`): a gzipped torch file of three tensors.

`indices` holds the row numbers of all tables, one table after the other; `lengths` [tables, bags] how many
each bag has; `offsets` [tables · bags + 1] where each bag begins.
"""

from __future__ import annotations

import gzip
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError, MachineError
from harness.traces.trace import Block, Progress, array_blocks, check_offsets

_AT_ONCE = 1 << 22
_UNPACKS_TO = 50
"""Row numbers pack to a tenth or so; a file that unpacks to more times its size than this is no trace."""
_ALWAYS_UNPACKED = 1 << 26
"""So much is unpacked of any file: tiny ones may pack better."""
_DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
)
"""What torch.load raises for files that are cut short, garbled or no torch files at all."""


def meta_table(
    path: Path, table: int | None, scratch: Path, progress: Progress | None = None
) -> tuple[Iterator[Block], npt.NDArray[np.int64]]:
    """Row numbers and offsets [bags + 1] of one table. `scratch`: a folder for the unpacked file.

    Nothing in the file is executed. Raises BadInputError where it is damaged, unpacks to far more than a
    trace would, or holds something else. The blocks can be read until `scratch` is removed.
    """
    try:
        import torch
    except ImportError as error:
        raise MachineError("Reading .pt files needs PyTorch; install it with: pip install torch") from error

    unpacked = _unpacked(path, scratch, progress)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats, which are read all the same
            # A file of PyTorch before 1.6 is no zip archive and cannot be mapped.
            mappable = zipfile.is_zipfile(unpacked)
            if mappable and _is_compressed(unpacked):
                raise BadInputError(f"{path}: is a compressed archive inside, as torch files never are.")
            loaded = torch.load(unpacked, map_location="cpu", weights_only=True, mmap=mappable)
    except _DAMAGED as error:
        raise BadInputError(
            f"{path}: is damaged, or holds other things than tensors; nothing in it was executed."
        ) from error
    indices, offsets, lengths = _checked(path, loaded)
    tables, bags = lengths.shape
    if table is None or not 0 <= table < tables:
        raise BadInputError(f"{path}: holds {tables} tables; give the number of one, 0 to {tables - 1}.")
    own = offsets[table * bags : (table + 1) * bags + 1].astype(np.int64)
    return array_blocks(indices[own[0] : own[-1]]), own - own[0]


def _unpacked(path: Path, scratch: Path, progress: Progress | None) -> Path:
    """The torch file itself, unpacked into `scratch` where it is gzipped."""
    try:
        with path.open("rb") as packed:
            if packed.read(2) != b"\x1f\x8b":
                return path
            packed.seek(0)
            size = path.stat().st_size
            limit = max(_ALWAYS_UNPACKED, _UNPACKS_TO * size)
            target = scratch / "unpacked.pt"
            with gzip.open(packed) as source, target.open("wb") as out:
                told = (lambda: progress(packed.tell() / size)) if progress else (lambda: None)
                if not _copy(cast(IO[bytes], source), out, limit, told):
                    raise BadInputError(
                        f"{path}: unpacks to more than {limit:,} bytes, which no trace of its size does."
                    )
            return target
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInputError(f"{path}: is cut short or damaged and cannot be unpacked.") from error
    except OSError as error:
        raise BadInputError(f"{path}: cannot be unpacked: {error.strerror or error}.") from error


def _is_compressed(path: Path) -> bool:
    """Whether any entry of a zip archive is compressed, and might unpack to anything."""
    with zipfile.ZipFile(path) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())


def _copy(source: IO[bytes], out: IO[bytes], limit: int, after_each: Callable[[], None]) -> bool:
    """Copies up to `limit` bytes; whether that was all."""
    done = 0
    while block := source.read(_AT_ONCE):
        done += len(block)
        if done > limit:
            return False
        out.write(block)
        after_each()
    return True


def _checked(path: Path, loaded: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """The three tensors as arrays (no copies), if they fit together."""
    import torch

    parts = list(loaded) if isinstance(loaded, tuple | list) else []
    kinds = (torch.int64, torch.int32)
    if len(parts) != 3 or not all(isinstance(p, torch.Tensor) and p.dtype in kinds for p in parts):
        raise BadInputError(f"{path}: does not hold the three integer tensors indices, offsets and lengths.")
    indices, offsets, lengths = (part.numpy() for part in parts)
    if (indices.ndim, offsets.ndim, lengths.ndim) != (1, 1, 2) or len(offsets) != lengths.size + 1:
        raise BadInputError(
            f"{path}: indices {list(indices.shape)}, offsets {list(offsets.shape)} and lengths"
            f" {list(lengths.shape)} are not [accesses], [tables · bags + 1] and [tables, bags]."
        )
    check_offsets(offsets, len(indices), str(path))
    if (np.diff(offsets) != lengths.reshape(-1)).any():
        raise BadInputError(f"{path}: the lengths of the bags are not the distances between their offsets.")
    return indices, offsets, lengths
