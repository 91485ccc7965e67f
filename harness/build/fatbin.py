"""Reads what nvcc packs into a shared library: fat binaries, each one source's machine code for several GPUs.

NVIDIA documents the tool that lists them (cuobjdump) and not the format. It is known from public readers of
it, such as the Rust crate `fatbinary`:

* A fat binary is a header (magic number, version, its own size, size of what follows) and then entries. In a
  library one lies behind the other, each at a multiple of 8 bytes.
* An entry is a header, whose first 64 bytes hold the fields below, and its payload: a cubin or PTX text, as
  it is or compressed, as an LZ4 block by the nvcc of CUDA 12, as a Zstandard frame by that of CUDA 13.

The library is read once, from start to end, so that it can be read straight from a wheel while that is
unpacked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from harness.errors import BadInputError, MachineError

_HEADER = struct.Struct("<IHHQ")
_MAGIC = _HEADER.pack(0xBA55ED50, 1, _HEADER.size, 0)[:8]
"""Magic number, version and header size: these eight bytes begin every fat binary."""
_ALIGNMENT = 8
_ENTRY = struct.Struct("<HHIQI8xI8xQ8xQ")
"""Kind, version, header size, payload size with padding, payload size without where it is compressed, number
of the architecture, flags, size once unpacked."""
_CUBIN = 2
_LZ4, _ZSTANDARD = 0x2000, 0x8000  # flags
_MOST = 1 << 30
"""Bytes of a fat binary, or of a cubin once unpacked: several times those of any library that we know."""
_CHUNK = 1 << 22


class FatbinError(BadInputError):
    """A library's machine code cannot be read; the message says at which byte and why."""


@dataclass(frozen=True)
class Entry:
    """A cubin in a fat binary."""

    arch: str
    """For example "sm_90"."""
    flags: int
    payload: memoryview
    size: int
    """Bytes once unpacked."""
    where: str
    """File and position, for messages."""

    def cubin(self) -> bytes:
        """The ELF file; FatbinError where it cannot be unpacked, MachineError without what unpacks it."""
        try:
            if self.flags & _LZ4:
                from lz4 import block

                code = bytes(block.decompress(self.payload, uncompressed_size=self.size))
            elif self.flags & _ZSTANDARD:
                import zstandard

                code = zstandard.ZstdDecompressor().decompress(self.payload, max_output_size=self.size)
            else:
                code = bytes(self.payload)
        except ImportError as error:
            raise MachineError(
                f"{self.where}: is compressed, and {error.name} is not installed here; "
                "`pip install 'embedding-harness[wheels]'` adds it."
            ) from error
        except Exception as error:  # each library has exceptions of its own
            raise FatbinError(f"{self.where}: does not unpack ({error}); the file is damaged.") from error
        if self.size and len(code) != self.size:
            raise FatbinError(
                f"{self.where}: unpacks to {len(code)} bytes and not {self.size}; the file is damaged."
            )
        return code


def binaries(library: IO[bytes], name: str) -> Iterator[tuple[int, memoryview]]:
    """Every fat binary of a library, in order: its position in the file, and its entries' bytes.

    `name`: of the file, for messages. FatbinError where one is cut short.
    """
    window, start, at_end = bytearray(), 0, False  # bytes read and not yet dealt with; their position

    def fill(needed: int) -> bool:
        nonlocal at_end
        while len(window) < needed and not at_end:
            piece = library.read(max(_CHUNK, needed - len(window)))
            window.extend(piece)
            at_end = not piece
        return len(window) >= needed

    while fill(len(_MAGIC)):
        at = window.find(_MAGIC)
        if at < 0 or (start + at) % _ALIGNMENT:
            # Nothing here; but what is sought may have begun in the last bytes.
            done = at + 1 if at >= 0 else len(window) - len(_MAGIC) + 1
            del window[:done]
            start += done
            if at < 0 and not fill(len(window) + 1):
                return
            continue
        del window[:at]
        start += at
        if not fill(_HEADER.size):
            raise FatbinError(f"{name}: ends within a fat binary at byte {start}; the file is cut short.")
        size = _HEADER.unpack_from(window)[3]
        if size > _MOST:
            raise FatbinError(
                f"{name}: at byte {start}: no fat binary has {size} bytes; the file is damaged."
            )
        whole = _HEADER.size + size
        if not fill(whole):
            raise FatbinError(
                f"{name}: the fat binary at byte {start} has {whole} bytes, of which the file holds "
                f"{len(window)}; it is cut short."
            )
        yield start, memoryview(bytes(window[_HEADER.size : whole]))
        del window[:whole]
        start += whole


def entries(binary: memoryview, name: str, position: int) -> Iterator[Entry]:
    """The cubins of a fat binary; PTX is passed over. FatbinError where its headers contradict it."""
    at = 0
    while at < len(binary):
        where = f"{name}: at byte {position + _HEADER.size + at}"
        if len(binary) - at < _ENTRY.size:
            raise FatbinError(
                f"{where}: the last entry of a fat binary has no whole header; the file is damaged."
            )
        kind, _, header, padded, packed, arch, flags, size = _ENTRY.unpack_from(binary, at)
        compressed = bool(flags & (_LZ4 | _ZSTANDARD))
        taken = packed if compressed else padded
        if header < _ENTRY.size or taken > padded or padded > len(binary) - at - header or size > _MOST:
            raise FatbinError(f"{where}: an entry reaches beyond its fat binary; the file is damaged.")
        begin = at + header
        if kind == _CUBIN:
            payload = binary[begin : begin + taken]
            yield Entry(f"sm_{arch}", flags, payload, size if compressed else 0, where)
        at = begin + padded
