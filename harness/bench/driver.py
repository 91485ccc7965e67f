"""The few calls of NVIDIA's driver that PyTorch has no words for. They act on PyTorch's context.

The patch can do some of them too, but PyTorch unpatched is measured as well."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness.errors import HarnessError

_MAX_PERSISTING_L2_CACHE_SIZE = 108  # CUdevice_attribute
_PERSISTING_L2_CACHE_SIZE = 6  # CUlimit


class DriverError(HarnessError):
    """The driver refused a call; the message names both."""


class Kernel:
    """A kernel out of a file of PTX, run on PyTorch's current stream."""

    def __init__(self, ptx: Path, name: str) -> None:
        """Loads PTX text; the driver translates it for the GPU at hand, whatever its architecture."""
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        _call("cuModuleLoadData", ctypes.byref(module), ptx.read_bytes() + b"\0")
        _call("cuModuleGetFunction", ctypes.byref(self._function), module, name.encode())

    def launch(self, blocks: int, threads: int, arguments: Sequence[Tensor | int]) -> None:
        """Queues the kernel. Tensors are passed as their addresses, numbers as int."""
        values = [_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _call("cuLaunchKernel", self._function, blocks, 1, 1, threads, 1, 1, 0, stream, pointers, None)


def _argument(value: Tensor | int) -> ctypes.c_void_p | ctypes.c_int:
    if isinstance(value, int):
        return ctypes.c_int(value)
    return ctypes.c_void_p(value.data_ptr())


def reset_persisting_l2() -> None:
    """Makes every persisting line of L2 an ordinary one; in effect when it returns."""
    _call("cuCtxResetPersistingL2Cache")


def max_persisting_l2_bytes() -> int:
    """Most L2 that can be set aside for persisting lines; 0 where the GPU has no such thing."""
    value = ctypes.c_int()
    device = ctypes.c_int()
    _call("cuCtxGetDevice", ctypes.byref(device))
    _call("cuDeviceGetAttribute", ctypes.byref(value), _MAX_PERSISTING_L2_CACHE_SIZE, device)
    return value.value


def set_aside_l2(size: int) -> None:
    """Sets L2 bytes aside for persisting lines. The driver rounds up and refuses more than the most."""
    _call("cuCtxSetLimit", _PERSISTING_L2_CACHE_SIZE, ctypes.c_size_t(size))


def l2_set_aside() -> int:
    """L2 bytes that are set aside now."""
    size = ctypes.c_size_t()
    _call("cuCtxGetLimit", ctypes.byref(size), _PERSISTING_L2_CACHE_SIZE)
    return size.value


def _call(name: str, *arguments: object) -> None:
    library = ctypes.CDLL("libcuda.so.1")
    failed = getattr(library, name)(*arguments)
    if failed:
        said = ctypes.c_char_p()
        library.cuGetErrorString(failed, ctypes.byref(said))
        raise DriverError(f"{name}: CUDA error {failed}: {(said.value or b'unknown').decode()}.")
