"""Reads registers and shared memory from a cubin's ELF, to check what ptxas reports against what it wrote."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_SYMBOL_TABLE = 2  # section type
_REGISTER_COUNT = 0x2F04  # attribute of .nv.info: format 4 (sized value), kind 0x2f


def registers(cubin: bytes) -> dict[str, int]:
    """Registers per thread by mangled name."""
    sections = dict(_sections(cubin))
    names = _symbols(cubin)
    info = sections[".nv.info"]
    found, at = {}, 0
    while at < len(info):
        attribute, size = struct.unpack_from("<HH", info, at)
        sized = attribute & 0xFF == 4
        if attribute == _REGISTER_COUNT:
            symbol, count = struct.unpack_from("<II", info, at + 4)
            found[names[symbol]] = count
        at += 4 + (size if sized else 0)
    return found


def shared_bytes(cubin: bytes) -> dict[str, int]:
    """Static shared memory per block by mangled name; kernels without any are absent."""
    return {
        name.removeprefix(".nv.shared."): _sizes(cubin)[name]
        for name, _ in _sections(cubin)
        if name.startswith(".nv.shared.") and not name.startswith(".nv.shared.reserved")
    }


def _headers(cubin: bytes) -> Iterator[tuple[int, ...]]:
    """(name, type, flags, address, offset, size, link, ...) of every section."""
    assert cubin[:5] == b"\x7fELF\x02", "a cubin is a 64-bit ELF file"
    (start,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count = struct.unpack_from("<HH", cubin, 0x3A)
    for i in range(count):
        yield struct.unpack_from("<IIQQQQIIQQ", cubin, start + i * size)


def _name(cubin: bytes, table: tuple[int, ...], offset: int) -> str:
    begin = table[4] + offset
    return cubin[begin : cubin.index(b"\0", begin)].decode()


def _sections(cubin: bytes) -> Iterator[tuple[str, bytes]]:
    headers = list(_headers(cubin))
    (names,) = struct.unpack_from("<H", cubin, 0x3E)
    for header in headers:
        yield _name(cubin, headers[names], header[0]), cubin[header[4] : header[4] + header[5]]


def _sizes(cubin: bytes) -> dict[str, int]:
    return {name: header[5] for (name, _), header in zip(_sections(cubin), _headers(cubin), strict=True)}


def _symbols(cubin: bytes) -> list[str]:
    headers = list(_headers(cubin))
    table = next(h for h in headers if h[1] == _SYMBOL_TABLE)
    entries = range(table[4], table[4] + table[5], 24)
    return [_name(cubin, headers[table[6]], struct.unpack_from("<I", cubin, at)[0]) for at in entries]
