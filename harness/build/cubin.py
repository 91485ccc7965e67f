"""What a cubin says of its kernels, whoever compiled it: registers, stack, shared memory, parameters."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from harness.errors import BadInputError, MachineError

# Attributes in .nv.info and .nv.info.KERNEL: format, kind, and a value or the size of what follows.
_SIZED = 4  # format
_STACK_FRAME, _PARAMETER, _REGISTERS = 0x11, 0x17, 0x2F  # kinds


@dataclass(frozen=True)
class Kernel:
    """One kernel of a cubin."""

    registers: int
    """Per thread."""
    stack_bytes: int
    """Stack frame of a thread, in local memory. Where it is 0 the kernel spills nothing."""
    shared_bytes: int
    """Static shared memory per block."""
    parameter_bytes: tuple[int, ...]
    """Size of every parameter, in order."""


def kernels(cubin: bytes, where: str) -> dict[str, Kernel]:
    """Every kernel by its mangled name.

    BadInputError where the bytes are no cubin; `where` names them. MachineError without what reads ELF files.
    """
    try:
        from elftools.elf.elffile import ELFFile
        from elftools.elf.sections import SymbolTableSection
    except ImportError as error:
        raise MachineError(
            "pyelftools, which reads machine code's files, is not installed here; "
            "`pip install 'embedding-harness[wheels]'` adds it."
        ) from error
    try:
        elf = ELFFile(io.BytesIO(cubin))
        sections = {section.name: section for section in elf.iter_sections()}
        table = sections[".symtab"]
        assert isinstance(table, SymbolTableSection)
        symbols = [symbol.name for symbol in table.iter_symbols()]
        registers: dict[str, int] = {}
        stacks: dict[str, int] = {}
        for kind, value in _attributes(sections[".nv.info"].data()):
            if kind in (_REGISTERS, _STACK_FRAME):
                symbol, number = struct.unpack_from("<II", value)
                (registers if kind == _REGISTERS else stacks)[symbols[symbol]] = number
        return {
            name: Kernel(
                registers[name],
                stacks.get(name, 0),
                sections[shared]["sh_size"] if (shared := f".nv.shared.{name}") in sections else 0,
                _parameters(section.data()),
            )
            for title, section in sections.items()
            if (name := title.removeprefix(".nv.info.")) != title
        }
    except Exception as error:  # a reader of files that others wrote fails in as many ways as they do
        raise BadInputError(
            f"{where}: is no cubin, or a damaged one ({type(error).__name__}: {error})."
        ) from error


def _attributes(info: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of every attribute that has a value of its own."""
    at = 0
    while at < len(info):
        form, kind, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == _SIZED:
            yield kind, info[at : at + size]
            at += size


def _parameters(info: bytes) -> tuple[int, ...]:
    sizes = {}
    for kind, value in _attributes(info):
        if kind == _PARAMETER:
            _, ordinal, _, packed = struct.unpack_from("<IHHI", value)
            sizes[ordinal] = packed >> 18
    return tuple(sizes[ordinal] for ordinal in sorted(sizes))
