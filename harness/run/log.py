"""A launch's output as lines, up to a deadline: in linear time whatever comes, and no more of it than was
agreed."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from harness import wall

MOST_LINE_BYTES = 16 * 2**10
MOST_LAUNCH_BYTES = 16 * 2**20
MOST_LAUNCH_LINES = 200_000
MOST_RUN_BYTES = 512 * 2**20
TICK_S = 1.0
"""How often whoever follows a launch looks up from its log."""
_AT_ONCE = 2**16
_CHUNKS = 16
"""Pieces of the stream that wait to be cut into lines; a launch that writes faster is made to wait."""
_ANNOUNCED = re.compile(rf"^{wall.ANNOUNCEMENT}[^\n]*$".encode(), re.MULTILINE)
_LONGEST_ANNOUNCEMENT = 1024
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def blocks_of(descriptor: int) -> Iterator[bytes]:
    """The output of a pipe as it arrives; closes the pipe at its end."""
    try:
        while block := os.read(descriptor, _AT_ONCE):
            yield block
    finally:
        os.close(descriptor)


@dataclass
class Allowance:
    """How much of its launches' logs a run still keeps."""

    left_bytes: int = MOST_RUN_BYTES

    def of_launch(self) -> Lines:
        """Cuts the log of the next launch."""
        return Lines(self)


class Lines:
    """Cuts a stream that comes in pieces into whole lines.

    A line longer than `MOST_LINE_BYTES` is cut, and says so. Of a log longer than what is allowed only
    announcements are handed on, after a line that says so."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._bytes = min(MOST_LAUNCH_BYTES, allowance.left_bytes)
        self._lines = MOST_LAUNCH_LINES
        self._limit = (
            f"its launch's log is longer than {MOST_LAUNCH_BYTES // 2**20} MiB or {MOST_LAUNCH_LINES} lines"
            if self._bytes == MOST_LAUNCH_BYTES
            else f"the logs of its run are longer than {MOST_RUN_BYTES // 2**20} MiB"
        )
        self._held = bytearray()
        self._lost = 0
        self._full = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that this piece ends."""
        if self._full:
            yield from self._announcements(chunk)
            return
        begin = 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            self._hold(chunk, begin, end)
            begin = end + 1
            yield self._line()
            if self._bytes <= 0 or self._lines <= 0:
                self._full = True
                yield f"(The rest was not kept: {self._limit}.)"
                yield from self._announcements(chunk[begin:])
                return
        self._hold(chunk, begin, len(chunk))

    def end(self) -> Iterator[str]:
        """What came after the last line's end."""
        if self._full:
            yield from self._announcements(b"\n")
        elif self._held:
            yield self._line()

    def _hold(self, chunk: bytes, begin: int, end: int) -> None:
        room = MOST_LINE_BYTES - len(self._held)
        self._held += chunk[begin : min(end, begin + room)]
        self._lost += max(0, end - begin - room)

    def _line(self) -> str:
        kept = len(self._held) + 1
        self._bytes -= kept
        self._allowance.left_bytes -= kept
        self._lines -= 1
        # What would steer a terminal is shown and not obeyed by whoever prints the log.
        text = CONTROL.sub("\N{REPLACEMENT CHARACTER}", self._held.decode(errors="replace").rstrip("\r"))
        if self._lost:
            text += f" (and {self._lost} bytes more, which were not kept)"
        self._held.clear()
        self._lost = 0
        return text

    def _announcements(self, chunk: bytes) -> Iterator[str]:
        text = bytes(self._held) + chunk
        whole = text.rfind(b"\n") + 1
        if wall.ANNOUNCEMENT.encode() in text:
            for found in _ANNOUNCED.finditer(text, 0, whole):
                yield found[0][:_LONGEST_ANNOUNCEMENT].decode(errors="replace")
        self._held = bytearray(text[whole : whole + _LONGEST_ANNOUNCEMENT])


def follow(
    stream: Iterable[bytes],
    lines: Lines,
    on_line: Callable[[str], None],
    until: float,
    on_tick: Callable[[], bool] = lambda: False,
) -> bool:
    """Hands the stream's lines to `on_line` as they come; True where it ended, or `on_tick`, asked about
    every `TICK_S`, says that this is enough; False where `until` (monotonic) passes first.

    The stream is read by a thread of its own: a read that waits could not be given a deadline, nor be
    interrupted."""
    with _pumped(stream) as chunks:
        looked = time.monotonic()
        while (left := until - (now := time.monotonic())) > 0:
            if now - looked >= TICK_S:
                looked = now
                if on_tick():
                    return True
            try:
                chunk = chunks.get(timeout=min(left, TICK_S))
            except queue.Empty:
                continue
            for line in lines.end() if chunk is None else lines.feed(chunk):
                on_line(line)
            if chunk is None:
                return True
    return False


@contextlib.contextmanager
def _pumped(stream: Iterable[bytes]) -> Iterator[queue.Queue[bytes | None]]:
    """The stream's pieces in a queue that ends with None."""
    chunks: queue.Queue[bytes | None] = queue.Queue(_CHUNKS)
    stopped = threading.Event()

    def put(chunk: bytes | None) -> None:
        while not stopped.is_set():
            try:
                chunks.put(chunk, timeout=0.1)
                return
            except queue.Full:
                continue

    def read() -> None:
        try:
            for chunk in stream:
                put(chunk)
                if stopped.is_set():
                    return
        except Exception as error:
            # Whatever breaks the stream (a daemon that goes away, most of all) ends it; why it ended is found
            # out by asking how the launch fares.
            put(f"(the log broke off: {error})\n".encode())
        finally:
            # Whoever writes into it is not kept waiting for a reader that is gone.
            getattr(stream, "close", lambda: None)()
            put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        yield chunks
    finally:
        stopped.set()
