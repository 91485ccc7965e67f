"""A design compiled for this CPU, and the process that runs its kernels."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self, cast

import numpy as np

from harness.build import instances
from harness.build.instances import Instance
from harness.designs import Design
from harness.emulator.arguments import Array, Memory, Packed
from harness.emulator.compilation import compiled
from harness.emulator.outcome import Outcome, exactly
from harness.errors import BadInputError, HarnessError

SECONDS = 10.0
"""Of the processor's time, after which a kernel counts as one that never ends; ours take less than 0.1."""


class DeviceError(BadInputError):
    """A kernel did what none may; the message says what, and which thread of which block."""


@dataclass(frozen=True)
class Ran:
    """What is known of a run that ended as a kernel may end."""

    refused: str
    """The sentence of the assertion that failed; empty where none did."""
    prefetched: Array
    """The addresses that were prefetched, in order."""
    addresses: dict[Memory, int]
    """Where each buffer lay."""


class Program:
    """One design's kernels. The process that runs them is started when it is first needed."""

    def __init__(self, design: Design, seconds: float = SECONDS) -> None:
        """Compiles the design; raises as `compiled` does. `seconds`: processor's time that a run may take."""
        self.design, self.seconds = design, seconds
        self.instances = instances.of(design)
        self._executable = compiled(design, self.instances).program
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        if self._server is not None:
            for pipe in (self._server.stdin, self._server.stdout):
                cast(IO[bytes], pipe).close()
            self._server.wait()
            self._server = None

    def run(
        self,
        instance: Instance,
        args: Packed,
        grid: tuple[int, int],
        threads: tuple[int, int],
    ) -> Ran:
        """Runs the whole grid, and writes into every `written` Memory what the kernel wrote there.

        DeviceError where it touches what it may not, waits for ever, or does not end in time.
        """
        memories = _reached(args)
        server = self._running()
        requests, outcomes = cast(IO[bytes], server.stdin), cast(IO[bytes], server.stdout)
        try:
            requests.write(
                _request(self.instances.index(instance), args, memories, grid, threads, self.seconds)
            )
            requests.flush()
            outcome = Outcome.read(outcomes)
            addresses = {}
            for memory in memories if outcome.end != "died" else ():
                (addresses[memory],) = struct.unpack("<Q", exactly(outcomes, 8))
                if memory.written:
                    content = exactly(outcomes, memory.array.nbytes)
                    memory.array[...] = np.frombuffer(content, memory.array.dtype).reshape(memory.array.shape)
            prefetched = np.frombuffer(exactly(outcomes, 8 * outcome.prefetches), np.uint64)
        except (OSError, EOFError) as error:
            self.close()
            raise HarnessError(
                f"The process that runs {self.design.name} on the CPU has gone; try again."
            ) from error
        if outcome.end == "died":
            self.close()
        if outcome.end not in ("returned", "asserted"):
            raise DeviceError(f"{instance.expression}: {outcome.told(memories, self.seconds)}.")
        return Ran(outcome.text if outcome.end == "asserted" else "", prefetched, addresses)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            self._server = subprocess.Popen(
                [self._executable],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pipesize=1 << 20,  # most requests in one piece
            )
        return self._server


def _reached(args: Packed) -> list[Memory]:
    """All memory that the arguments lead to, each once."""
    found: list[Memory] = []
    waiting = [memory for _, memory in args.pointers]
    while waiting:
        memory = waiting.pop(0)
        if memory not in found:
            found.append(memory)
            waiting += [other for _, other in memory.pointers]
    return found


def _request(
    kernel: int,
    args: Packed,
    memories: Sequence[Memory],
    grid: tuple[int, int],
    threads: tuple[int, int],
    seconds: float,
) -> bytes:
    """`Request` of device/serve.h and what follows it."""
    number = {memory: n for n, memory in enumerate(memories)}
    pointers = [(-1, at, number[memory]) for at, memory in args.pointers]
    pointers += [(n, at, number[other]) for memory, n in number.items() for at, other in memory.pointers]
    parts = [
        struct.pack("<8Id", kernel, len(memories), len(pointers), len(args.content), *grid, *threads, seconds)
    ]
    for memory in memories:
        rows = len(memory.array) if memory.stride else 1
        row_bytes = memory.array.nbytes // max(rows, 1)
        layout = rows, row_bytes, memory.stride, memory.alignment or memory.array.itemsize
        parts.append(struct.pack("<4Q2I", *layout, memory.written, memory.ends_at_guard))
        parts.append(memory.array.tobytes())
    parts.append(args.content)
    parts += [struct.pack("<2i2Q", where, to, at, 0) for where, at, to in pointers]
    return b"".join(parts)
