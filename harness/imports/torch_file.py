"""Traffic that was saved with torch.save: nothing in the file is executed, whatever it holds.

TorchRec's classes are not among those that `weights_only` admits. Plain stand-ins, which have no methods,
take their places, so neither TorchRec is needed nor any code of it runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import BadInputError
from harness.imports.traffic import Indices
from harness.traces import torch_saved

_TORCHREC = "torchrec.sparse.jagged_tensor"


class Keyed:
    """In place of a KeyedJaggedTensor: what its attributes held."""


class _Jagged:
    """In place of a JaggedTensor, of which a KeyedJaggedTensor may keep some."""


def load(path: Path, called: str) -> Any:
    """What a file of torch.save holds, tensors mapped into memory where they can be; a KeyedJaggedTensor as
    `Keyed`. BadInputError where it is damaged or holds other things, or more than one of them."""
    known = [(Keyed, f"{_TORCHREC}.KeyedJaggedTensor"), (_Jagged, f"{_TORCHREC}.JaggedTensor")]
    return torch_saved.load(path, called, "tensors and a KeyedJaggedTensor", known)


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
