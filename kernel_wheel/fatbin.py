"""A small binding to nvFatbin, NVIDIA's packer as a library: machine code for several GPUs into one file.

The driver takes from the file what its GPU runs, unpacks it, and compiles the PTX where nothing does.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping

from harness.build.cache import cache_dir, make_once
from harness.build.toolchain import Toolchain, _fetch
from harness.errors import HarnessError, MachineError

_PACKER = Toolchain("nvfatbin", ("nvidia-nvfatbin==13.0.85",), minimum_driver="", archs=())


def pack(cubins: Mapping[int, bytes], ptx: Mapping[int, bytes]) -> bytes:
    """One fat binary of cubins and PTX, by the numbers of their architectures, compressed for size."""
    library = _library()
    handle = ctypes.c_void_p()
    options = (ctypes.c_char_p * 4)(b"-64", b"-host=linux", b"-compress-all", b"-compress-mode=size")
    _call(library, "nvFatbinCreate", ctypes.byref(handle), options, len(options))
    try:
        for arch, code in cubins.items():
            _call(
                library,
                "nvFatbinAddCubin",
                handle,
                code,
                len(code),
                str(arch).encode(),
                f"sm_{arch}".encode(),
            )
        for arch, code in ptx.items():
            name = f"compute_{arch}".encode()
            _call(library, "nvFatbinAddPTX", handle, code, len(code), str(arch).encode(), name, b"")
        size = ctypes.c_size_t()
        _call(library, "nvFatbinSize", handle, ctypes.byref(size))
        packed = ctypes.create_string_buffer(size.value)
        _call(library, "nvFatbinGet", handle, packed)
        return packed.raw
    finally:
        library.nvFatbinDestroy(ctypes.byref(handle))


def _call(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    called = getattr(library, function)
    called.restype = ctypes.c_int
    given = [ctypes.c_size_t(a) if isinstance(a, int) else a for a in arguments]
    if failed := called(*given):
        raise HarnessError(f"{function}: failed with nvFatbin's error {failed}.")


def _library() -> ctypes.CDLL:
    folder = cache_dir() / "toolchains" / _PACKER.packages[0].replace("==", "-")
    make_once(folder, lambda scratch: _fetch(_PACKER, scratch))
    found = sorted(folder.glob("nvidia/*/lib/libnvfatbin.so.*"))
    if len(found) != 1:
        raise MachineError(
            f"{folder}: holds {len(found)} nvFatbin libraries instead of one; delete the folder."
        )
    return ctypes.CDLL(str(found[0]))
