"""Makes PyTorch's wheels for tests, small and without code: cubins, fat binaries, libraries, whole wheels."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import zstandard
from lz4 import block

Packing = Literal["plain", "lz4", "zstandard"]
FLAGS: Mapping[Packing, int] = {"plain": 0x11, "lz4": 0x2011, "zstandard": 0x8011}
PARAMETERS = (8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 4, 8, 8, 8, 8, 8)
_TYPES = {"float32": "f", "float16": "N3c104HalfE", "bfloat16": "N3c108BFloat16E", "float64": "d"}


@dataclass(frozen=True)
class Facts:
    """What a cubin says of a kernel."""

    registers: int = 74
    stack_bytes: int = 0
    shared_bytes: int = 0
    parameter_bytes: tuple[int, ...] = PARAMETERS


def symbol(dtype: str = "float32", index_dtype: str = "int64", source: str = "56f7cc96") -> str:
    """The mangled name of PyTorch's kernel."""
    row, index = _TYPES[dtype], {"int64": "l", "int32": "i"}[index_dtype]
    # How a mangled name refers back to types that it named before depends on how many there are.
    s = ("7", "8", "5", "C", "A") if len(row) > 1 else ("5", "6", "3", "A", "8")
    types = f"PKT0_S{s[0]}_PKT_PS{s[1]}_PS{s[2]}_llllliS{s[3]}_S{s[4]}_lS{s[2]}_l"
    unit = f"_GLOBAL__N__9af91b36_15_EmbeddingBag_cu_{source}"
    name = "EmbeddingBag_updateOutputKernel_sum_mean"
    return f"_ZN2at6native{len(unit)}{unit}{len(name)}{name}I{row}{index}EEv{types}"


def embedding_bag(registers: int = 74, **changes: Any) -> dict[str, Facts]:
    """The kernels that EmbeddingBag.cu makes, and another one; `changes`: of their facts."""
    found = {"_ZN2at6native40EmbeddingBag_accGradParametersKernel_maxIflEEvPKT0_": Facts(30, 0, 0, (8, 8))}
    for dtype in _TYPES:
        for index_dtype, size in (("int64", 8), ("int32", 4)):
            facts = Facts(registers, parameter_bytes=(*PARAMETERS[:14], size, 8))
            found[symbol(dtype, index_dtype)] = replace(facts, **changes)
    return found


def cubin(kernels: Mapping[str, Facts]) -> bytes:
    """An ELF file with the sections that describe these kernels."""
    names = list(kernels)
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    at, symbols = 1, bytes(24)
    for name in names:
        symbols += struct.pack("<IBBHQQ", at, 0x12, 0, 0, 0, 0)
        at += len(name) + 1
    info = b""
    for number, facts in enumerate(kernels.values(), start=1):
        info += struct.pack("<BBHII", 4, 0x2F, 8, number, facts.registers)
        info += struct.pack("<BBHII", 4, 0x11, 8, number, facts.stack_bytes)
    sections = [
        Section(".strtab", 3, strings),
        Section(".symtab", 2, symbols, link=1, entry_bytes=24),
        Section(".nv.info", 0x70000000, info, link=2),
    ]
    for name, facts in kernels.items():
        sections.append(Section(f".text.{name}", 1, bytes(64), link=2))
        sections.append(Section(f".nv.info.{name}", 0x70000000, _own_info(facts), link=2))
        if facts.shared_bytes:
            sections.append(Section(f".nv.shared.{name}", 1, bytes(facts.shared_bytes)))
    return _elf(sections)


def _own_info(facts: Facts) -> bytes:
    info = struct.pack("<BBH", 3, 0x1B, 255)  # the most registers: a value in place
    offset = sum(facts.parameter_bytes)
    for ordinal, size in reversed(list(enumerate(facts.parameter_bytes))):
        offset -= size
        info += struct.pack("<BBHIHHI", 4, 0x17, 12, 0, ordinal, offset, size << 18 | 0x1F000)
    return info


class Section(NamedTuple):
    """Of an ELF file."""

    name: str
    kind: int
    content: bytes
    link: int = 0
    entry_bytes: int = 0


def _elf(sections: Sequence[Section]) -> bytes:
    """An ELF file of these sections, the first numbered 1; a table of their names is added as the last."""
    names = [section.name for section in sections] + [".shstrtab"]
    titles = b"".join(b"\0" + name.encode() for name in names) + b"\0"
    body, headers = bytearray(64), bytes(64)
    for section in [*sections, Section(".shstrtab", 3, titles)]:
        headers += struct.pack(
            "<IIQQQQIIQQ",
            titles.index(b"\0" + section.name.encode() + b"\0") + 1,
            section.kind,
            0,
            0,
            len(body),
            len(section.content),
            section.link,
            1,
            8,
            section.entry_bytes,
        )
        body += section.content + bytes(-len(section.content) % 8)
    ident = b"\x7fELF\x02\x01\x01\x33\x07" + bytes(7)
    body[:64] = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, 190, 1, 0, 0, len(body), 0x5A055A, 64, 0, 0, 64, len(names) + 1, len(names)
    )
    return bytes(body) + headers


def entry(
    arch: int, payload: bytes, packing: Packing = "lz4", *, kind: int = 2, header: int = 64, **fields: int
) -> bytes:
    """An entry of a fat binary. `fields`: "padded", "packed" or "size" in place of what is true."""
    packed = payload
    if packing == "lz4":
        packed = block.compress(payload, store_size=False)
    elif packing == "zstandard":
        packed = zstandard.ZstdCompressor().compress(payload)
    plain = packing == "plain"
    told = {
        "padded": -(-len(packed) // 8) * 8,
        "packed": 0 if plain else len(packed),
        "size": 0 if plain else len(payload),
    } | fields
    head = struct.pack(
        "<HHIQI8xI8xQ8xQ",
        kind,
        0x101,
        header,
        told["padded"],
        told["packed"],
        arch,
        FLAGS[packing],
        told["size"],
    )
    return head + bytes(header - 64) + packed + bytes(-len(packed) % 8)


def fat_binary(entries: Iterable[bytes], **fields: int) -> bytes:
    """`fields`: "size" in place of the true one."""
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, fields.get("size", len(body))) + body


def library(*fat_binaries: bytes, before: int = 4096) -> bytes:
    """A shared library as far as fat binaries are concerned: so many bytes of other things, and then they."""
    return b"\x7fELF" + bytes(before - 4) + b"".join(fat_binaries) + b"the end"


def libtorch_cuda(cubins: Mapping[int, bytes], packing: Packing = "lz4") -> bytes:
    """A library with these cubins, by architecture, between others."""
    other = fat_binary(entry(arch, cubin({"_Z5otherv": Facts(12)}), packing) for arch in cubins)
    entries = [entry(arch, code, packing) for arch, code in cubins.items()]
    return library(other, fat_binary([*entries, entry(90, b".version 8.1", kind=1)]), other)


def version_file(version: str = "2.1.0+cu121", cuda: str | None = "12.1") -> str:
    return (
        "from typing import Optional\n\n__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']\n"
        f"__version__ = {version!r}\ndebug = False\ncuda: Optional[str] = {cuda!r}\n"
        "git_version = '7bcf7da3a268b435777fe87c7794c382f444e86d'\nhip: Optional[str] = None\n"
    )


def write_wheel(
    path: Path, libraries: Mapping[str, bytes], version: str = "2.1.0+cu121", cuda: str | None = "12.1"
) -> Path:
    """A wheel with these files below torch/lib/."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("torch/version.py", version_file(version, cuda))
        archive.writestr("torch/lib/libc10.so", b"\x7fELF" + bytes(100))
        for name, content in libraries.items():
            archive.writestr(f"torch/lib/{name}", content)
    return path


def published(
    path: Path, registers: int = 74, version: str = "2.1.0+cu121", packing: Packing = "lz4"
) -> Path:
    """A whole wheel: PyTorch's kernels with so many registers each, for the GPUs of the real one."""
    code = cubin(embedding_bag(registers))
    libraries = {"libtorch_cuda.so": libtorch_cuda({arch: code for arch in (50, 80, 86, 90)}, packing)}
    return write_wheel(path, libraries, version)


class Trickle(io.BytesIO):
    """A file that hands out a few bytes at a time, as one in a wheel may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1000 if size is None or size < 0 else min(size, 1000))
