"""A small binding to NVRTC, NVIDIA's compiler as a library: CUDA C++ in, machine code (cubin) or PTX out.

Needs no GPU, no driver and no CUDA toolkit. Every `Nvrtc` loads its own file, so several versions live
side by side in one process.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInputError, HarnessError, MachineError


class CompilationError(BadInputError):
    """The compiler refused a source; the message carries what it said."""


@dataclass(frozen=True)
class Compiled:
    """The result of one compilation."""

    code: bytes
    """A cubin, or PTX where that was asked for."""
    log: str
    """Warnings and, where asked for by an option, ptxas' report."""
    symbols: dict[str, str]
    """The mangled name of every name expression that was asked for."""


@contextlib.contextmanager
def _locale_of_this_thread_kept() -> Iterator[None]:
    """NVRTC 12.1 leaves the calling thread in the locale "C", where Python takes texts for ASCII."""
    uselocale = ctypes.CDLL(None).uselocale
    uselocale.argtypes, uselocale.restype = [ctypes.c_void_p], ctypes.c_void_p
    before = uselocale(None)  # changes nothing
    try:
        yield
    finally:
        uselocale(before)


def _c_strings(texts: Collection[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))


class Nvrtc:
    """One version of the compiler. Safe to use from several threads."""

    def __init__(self, library: Path) -> None:
        """Loads the shared library; MachineError where that fails."""
        try:
            # NVRTC opens its built-in headers' library by name alone; once loaded from here, it is found.
            self._builtins = [ctypes.CDLL(str(p)) for p in library.parent.glob("libnvrtc-builtins.so.*")]
            self._library = ctypes.CDLL(str(library))
        except OSError as error:
            raise MachineError(f"{library}: NVRTC cannot be loaded: {error}.") from error
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def version(self) -> str:
        """Major and minor, for example "12.1"."""
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def supported_archs(self) -> list[str]:
        """What it can compile for, for example ["sm_80", "sm_90"], ascending."""
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", numbers)
        return [f"sm_{number}" for number in numbers]

    def compile(
        self,
        source: str,
        name: str,
        options: Sequence[str],
        expressions: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        ptx: bool = False,
    ) -> Compiled:
        """Compiles `source` (called `name` in messages) and instantiates the template `expressions`; to PTX
        for a virtual architecture. `headers`: what it may include besides files, texts by their names.

        CompilationError, with the compiler's words, where the source is refused.
        """
        program = ctypes.c_void_p()
        headers = headers or {}
        texts, names = _c_strings(headers.values()), _c_strings(headers)
        self._call(
            "nvrtcCreateProgram",
            ctypes.byref(program),
            source.encode(),
            name.encode(),
            len(headers),
            texts,
            names,
        )
        try:
            for expression in expressions:
                self._call("nvrtcAddNameExpression", program, expression.encode())
            given = _c_strings(options)
            with _locale_of_this_thread_kept():
                failed = self._library.nvrtcCompileProgram(program, len(options), given)
            log = self._bytes(program, "nvrtcGetProgramLog").rstrip(b"\0").decode(errors="replace")
            if failed:
                raise CompilationError(f"{name}: {self._words(failed)}:\n{log.strip()}")
            symbols = {expression: self._symbol(program, expression) for expression in expressions}
            code = self._bytes(program, "nvrtcGetPTX" if ptx else "nvrtcGetCUBIN")
            return Compiled(code, log, symbols)
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _symbol(self, program: ctypes.c_void_p, expression: str) -> str:
        lowered = ctypes.c_char_p()
        self._call("nvrtcGetLoweredName", program, expression.encode(), ctypes.byref(lowered))
        return (lowered.value or b"").decode()

    def _bytes(self, program: ctypes.c_void_p, getter: str) -> bytes:
        """What `getter` hands out; NVRTC tells the size in a call of its own, named after it."""
        size = ctypes.c_size_t()
        self._call(f"{getter}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self._call(getter, program, buffer)
        return buffer.raw

    def _call(self, function: str, *arguments: Any) -> None:
        failed = getattr(self._library, function)(*arguments)
        if failed:
            raise HarnessError(f"{function}: {self._words(failed)}.")

    def _words(self, code: int) -> str:
        return bytes(self._library.nvrtcGetErrorString(code)).decode()
