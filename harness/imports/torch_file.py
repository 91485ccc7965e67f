"""Traffic that was saved with torch.save: nothing in the file is executed, whatever it holds.

TorchRec's classes are not among those that `weights_only` admits. Plain stand-ins, which have no methods,
take their places, so neither TorchRec is needed nor any code of it runs.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import BadInputError, HarnessError, MachineError
from harness.imports.traffic import Indices

_TORCHREC = "torchrec.sparse.jagged_tensor"


class Keyed:
    """In place of a KeyedJaggedTensor: what its attributes held."""


class _Jagged:
    """In place of a JaggedTensor, of which a KeyedJaggedTensor may keep some."""


def load(path: Path, called: str) -> Any:
    """What a file of torch.save holds, tensors mapped into memory where they can be; a KeyedJaggedTensor as
    `Keyed`. BadInputError where it is damaged or holds other things."""
    try:
        import torch
    except ImportError as error:
        raise MachineError("Reading .pt files needs PyTorch; install it with: pip install torch") from error
    known: list[Any] = [(Keyed, f"{_TORCHREC}.KeyedJaggedTensor"), (_Jagged, f"{_TORCHREC}.JaggedTensor")]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(known):
            warnings.simplefilter("ignore")  # about old formats, which are read all the same
            # A file of PyTorch before 1.6 is no zip archive and cannot be mapped.
            mappable = zipfile.is_zipfile(path)
            if mappable and _is_compressed(path):
                raise BadInputError(f"{called}: is a compressed archive inside, as torch files never are.")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mappable)
    except HarnessError:
        raise
    except Exception as error:  # torch.load says in very many ways that it cannot make sense of a file
        raise BadInputError(
            f"{called}: is damaged, or holds other things than tensors and a KeyedJaggedTensor; nothing in "
            "it was executed."
        ) from error


def check_sizes(called: str, tensors: Iterable[Any], file_bytes: int) -> None:
    """BadInputError where tensors are larger than their file: a few bytes can be given any shape."""
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > file_bytes:
        raise BadInputError(
            f"{called}: its tensors are larger than the file that they are in; where some share memory, or "
            "a batch is there twice, save clones of them."
        )


def is_plain(value: Any) -> bool:
    """Whether it is a tensor that lies in memory as it is."""
    import torch

    return type(value) is torch.Tensor and value.layout == torch.strided and value.device.type == "cpu"


def whole_numbers(value: Any) -> Indices | None:
    """A plain tensor of 32 or 64-bit whole numbers as an array, no copy; None where it is none."""
    import torch

    if not is_plain(value) or value.dtype not in (torch.int64, torch.int32):
        return None
    array: Indices = value.numpy()
    return array


def _is_compressed(path: Path) -> bool:
    """Whether any entry of a zip archive is compressed, and might unpack to anything."""
    with zipfile.ZipFile(path) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
