"""What stops a cell, as a status and one sentence that a user understands."""

from __future__ import annotations

import torch

from harness.errors import HarnessError
from harness.records import Status
from harness.wall import Provenance


class CellError(HarnessError):
    """The cell ends here without a measurement, with this status; the message says why."""

    def __init__(self, message: str, status: Status = "failed") -> None:
        super().__init__(message)
        self.status: Status = status


def require_gpu() -> None:
    """Initialises CUDA; CellError, naming the remedy, where that fails."""
    place = "container" if Provenance.told().runner == "docker" else "process"
    if torch.version.cuda is None:
        raise CellError(
            f"This PyTorch ({torch.__version__}) was built without CUDA: install a CUDA build,"
            ' or set device = "cpu" in the workload.',
        )
    try:
        torch.cuda.init()
        torch.cuda.synchronize()  # only this makes the context, which the driver's calls need
    except (RuntimeError, AssertionError) as error:
        raise CellError(_why_no_gpu(_first_line(error), place)) from error


def _why_no_gpu(said: str, place: str) -> str:
    lowered = said.lower()
    if "too old" in lowered or "driver version is insufficient" in lowered:
        return (
            f"The NVIDIA driver is too old for CUDA {torch.version.cuda} of PyTorch {torch.__version__}:"
            f" update the driver ({said})"
        )
    if any(sign in lowered for sign in ("no nvidia driver", "no cuda gpus", "no cuda-capable", "libcuda")):
        remedy = (
            "start it with --gpus and the NVIDIA Container Toolkit installed"
            if place == "container"
            else "check nvidia-smi and CUDA_VISIBLE_DEVICES"
        )
        return f'No NVIDIA GPU is visible in this {place}: {remedy}, or set device = "cpu" in the workload.'
    return f"CUDA could not be initialised in this {place}: {said}"


def describe(error: BaseException) -> tuple[Status, str]:
    """The status and the sentence for whatever ended a cell."""
    if isinstance(error, CellError):
        return error.status, str(error)
    if isinstance(error, HarnessError):
        return "failed", str(error)
    said = _first_line(error)
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in said:
        return "oom", f"The memory ran out while the cell was measured: {said}"
    if "CUDA error" in said:
        return "failed", f"The GPU reported an error while the cell was measured: {said}"
    if type(error) is RuntimeError:  # a sentence of PyTorch's or of the patch's, from C++
        return "failed", said
    return "failed", f"The measurement broke off with {type(error).__name__}: {said}"


def context_lost() -> bool:
    """Whether an earlier error has made this process' GPU context unusable (no later cell can run here)."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
