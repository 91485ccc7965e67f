"""Whether a GPU can run the kernels, asked before anything is served, and loading them before the first
lookup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from embedding_kernels import _operators
from embedding_kernels._layout import KERNELS, ROW_TYPES


@dataclass(frozen=True)
class Readiness:
    """What `check` found."""

    ready: bool
    device: str
    why_not: str
    """What is missing and how to mend it; empty where it is ready."""

    def __bool__(self) -> bool:
        return self.ready


def check(device: torch.device | str | int = "cuda") -> Readiness:
    """Whether lookups on this device run here. Starts CUDA where there is one, and raises nothing.

    A CPU always can, by plain code, for development.
    """
    try:
        named = _device(device)
    except (RuntimeError, TypeError, ValueError):
        return Readiness(False, str(device), f"PyTorch knows no device {device!r}.")
    if named.type == "cpu":
        return Readiness(True, "cpu", "")
    if named.type != "cuda":
        return Readiness(
            False, str(named), f"embedding_kernels runs on CUDA and the CPU, not on {named.type}."
        )
    if torch.version.cuda is None:
        return Readiness(False, str(named), "This PyTorch is built without CUDA; install one that is.")
    if not torch.cuda.is_available():
        return Readiness(False, str(named), "PyTorch finds no NVIDIA GPU and driver here.")
    index = torch.cuda.current_device() if named.index is None else named.index
    if index >= torch.cuda.device_count():
        return Readiness(
            False, str(named), f"There is no GPU {index} here; there are {torch.cuda.device_count()}."
        )
    why = _operators.refusal(index)
    return Readiness(not why, f"cuda:{index}", why)


def warm_up(
    device: torch.device | str | int = "cuda",
    row_types: str | Sequence[str] = ROW_TYPES,
    kernels: str | Sequence[str] = KERNELS[:1],
) -> None:
    """Loads kernels (see `EmbeddingTables`) for these types of rows onto a GPU, so that no first lookup waits
    for it.

    ValueError for an unknown type of rows or kernel, RuntimeError where the device cannot run them (see
    `check`).
    """
    row_types = [row_types] if isinstance(row_types, str) else row_types
    kernels = [kernels] if isinstance(kernels, str) else kernels
    if unknown := sorted(set(row_types) - set(ROW_TYPES)):
        raise ValueError(f"There are no rows of {unknown[0]}; there are {', '.join(ROW_TYPES)}.")
    if unknown := sorted(set(kernels) - set(KERNELS)):
        raise ValueError(f"There are no kernels {unknown[0]!r}; there are {', '.join(KERNELS)}.")
    found = check(device)
    if not found:
        raise RuntimeError(found.why_not)
    if found.device == "cpu":
        return
    named = torch.device(found.device)
    torch.cuda.init()
    for kernel in kernels:
        rows = [ROW_TYPES.index(row_type) for row_type in row_types]
        _operators.load(named.index, rows, KERNELS.index(kernel))


def _device(device: torch.device | str | int) -> torch.device:
    return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
