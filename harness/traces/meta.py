"""Tables of Meta's public traces (`dlrm_datasets`, `*.pt.gz`): a gzipped torch file of three tensors.

`indices` holds the row numbers of all tables, one table after the other; `lengths` [tables, bags] how many
each bag has; `offsets` [tables · bags + 1] where each bag begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.errors import BadInputError
from harness.traces import torch_saved
from harness.traces.trace import Block, array_blocks, check_offsets

if TYPE_CHECKING:
    import torch


def meta_table(path: Path, called: str, table: int | None) -> tuple[Iterator[Block], npt.NDArray[np.int64]]:
    """Row numbers and offsets [bags + 1] of one table. `called`: what messages call the file.

    Nothing in the file is executed. Raises BadInputError where it is damaged or holds something else. The
    blocks can be read as long as the file is there.
    """
    loaded = torch_saved.load(path, called, "tensors")
    indices, offsets, lengths = checked(called, loaded, path.stat().st_size)
    tables, bags = lengths.shape
    if table is None or not 0 <= table < tables:
        raise BadInputError(f"{called}: holds {tables} tables; give the number of one, 0 to {tables - 1}.")
    own = offsets[table * bags : (table + 1) * bags + 1].astype(np.int64)
    return array_blocks(indices[own[0] : own[-1]]), own - own[0]


def checked(
    called: str, loaded: Any, file_bytes: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """The three tensors that a file held as arrays (no copies), of 32 or 64-bit whole numbers: indices
    [accesses], offsets [tables · bags + 1] and lengths [tables, bags].

    BadInputError, naming the file as `called`, where they are none, do not fit together, or are larger than
    its `file_bytes`."""
    import torch

    parts = list(loaded) if isinstance(loaded, tuple | list) else []
    if len(parts) != 3 or not all(isinstance(p, torch.Tensor) and _is_plain(p) for p in parts):
        raise BadInputError(
            f"{called}: does not hold the three integer tensors indices, offsets and lengths."
        )
    # A few bytes can be given any shape, by strides of 0.
    if sum(part.numel() * part.element_size() for part in parts) > file_bytes:
        raise BadInputError(f"{called}: its tensors are larger than the file that they are in.")
    indices, offsets, lengths = (part.numpy() for part in parts)
    if (indices.ndim, offsets.ndim, lengths.ndim) != (1, 1, 2) or len(offsets) != lengths.size + 1:
        raise BadInputError(
            f"{called}: indices {list(indices.shape)}, offsets {list(offsets.shape)} and lengths"
            f" {list(lengths.shape)} are not [accesses], [tables · bags + 1] and [tables, bags]."
        )
    check_offsets(offsets, len(indices), called)
    if (np.diff(offsets) != lengths.reshape(-1)).any():
        raise BadInputError(f"{called}: the lengths of the bags are not the distances between their offsets.")
    return indices, offsets, lengths


def _is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is made of whole numbers that lie in memory as they are."""
    import torch

    return (
        tensor.dtype in (torch.int64, torch.int32)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and type(tensor) is torch.Tensor
    )
