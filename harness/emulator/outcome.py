"""How a run on the CPU ended, as its process tells it, and as a sentence."""

from __future__ import annotations

import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, ClassVar

from harness.emulator.arguments import Memory

_ENDS = ("returned", "asserted", "fault", "undefined", "deadlock", "deadline", "died")
_NULL, _STACK = -2, -3  # in the place of a buffer's number


@dataclass(frozen=True)
class Outcome:
    """`Outcome` of device/memory.h."""

    end: str
    signal: int
    buffer: int
    access: str
    """reads, writes or touches."""
    offset: int
    block: tuple[int, int]
    thread: tuple[int, int]
    text: str
    prefetches: int

    _LAYOUT: ClassVar = struct.Struct("<IiiIqIIIIII")

    @classmethod
    def read(cls, stream: IO[bytes]) -> Outcome:
        """The next one; EOFError where the process has gone."""
        end, number, buffer, is_write, offset, *places, text, prefetches = cls._LAYOUT.unpack(
            exactly(stream, cls._LAYOUT.size)
        )
        return cls(
            _ENDS[end],
            number,
            buffer,
            ("reads", "writes", "touches")[is_write],
            offset,
            (places[0], places[1]),
            (places[2], places[3]),
            exactly(stream, text).decode(errors="replace"),
            prefetches,
        )

    def told(self, memories: Sequence[Memory], seconds: float) -> str:
        """What went wrong, as a clause."""
        if self.end == "deadlock":
            return "some threads wait for ever: not all of them come to the same barrier or exchange"
        if self.end == "died":
            return f"its process was ended from outside ({_name(self.signal)})"
        return f"thread {self.thread} of block {self.block} {self._did(memories, seconds)}"

    def _did(self, memories: Sequence[Memory], seconds: float) -> str:
        if self.end == "deadline":
            return f"has not ended after {seconds:g} s of the processor's time: a loop has no end"
        if self.end == "undefined":
            return self.text
        if self.signal not in (signal.SIGSEGV, signal.SIGBUS):
            return f"ends by {_name(self.signal)}"
        if self.buffer == _NULL:
            return f"{self.access} through a null pointer: offset2bag, bag_size, sample_weights may be null"
        if self.buffer == _STACK:
            return "needs more stack than there is: a recursion without end, or a large array of its own"
        if self.buffer < 0:
            return "touches an address that cannot be: it is wild, or no multiple of what is accessed"
        memory = memories[self.buffer]
        if 0 <= self.offset < memory.span and self.access == "writes":
            return f"writes into {memory.name}, which is for reading alone"
        remedy = f": {memory.remedy}" if memory.remedy else ""
        return f"{self.access} outside {memory.where(self.offset)}{remedy}"


def exactly(stream: IO[bytes], size: int) -> bytes:
    """So many bytes; EOFError where there are fewer."""
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _name(number: int) -> str:
    return f"signal {number}, {signal.strsignal(number)}"
