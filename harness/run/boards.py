"""Shares a run's launches out among several boards, which work side by side.

Boards of one model differ by more than many a change of a kernel, so what is compared is measured on one: a
share, which is all variants of a replicate for the same workload, goes to one board as a whole. It stays
there when the run is resumed. A board that is free takes the next share."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInputError
from harness.plan import Launch
from harness.progress import Progress
from harness.records import Cell, CellRecord, Workload
from harness.run.attempt import CalledOffError
from harness.run.gpu import Gpu
from harness.run.log import TICK_S
from harness.signals import held_back

Unit = tuple[int, Workload]
"""Replicate and workload: the least that may not be split."""
Measure = Callable[[Launch], None]


@dataclass(frozen=True)
class Share:
    """Launches that one board measures one after the other."""

    launches: tuple[Launch, ...]
    uuid: str = ""
    """Of the board that has measured a part of it already; empty: any may take it."""


def shares(
    launches: Sequence[Launch], done: Mapping[str, CellRecord], boards: Sequence[Gpu], root: Path
) -> list[Share]:
    """The launches in shares; of one board, or none, a single one in the plan's order.

    A replicate of a sweep is split by workload where its replicates alone would leave boards idle.
    BadInputError where cells that are still to be measured belong to others of a board that is not here."""
    begun = _begun_on(done)
    here = {board.uuid for board in boards}
    for cell in (cell for launch in launches for cell in launch.cells):
        if here and (uuid := begun.get(_unit(cell), "")) and uuid not in here:
            raise BadInputError(
                f"{root}: replicate {cell.replicate + 1} was begun on GPU {uuid}, and is compared within one "
                f"board; name that one with --gpu {uuid}, or start a new run."
            )
    if len(boards) < 2:
        return [Share(tuple(launches))]
    found = []
    for replicate in sorted({launch.replicate for launch in launches}):
        own = [launch for launch in launches if launch.replicate == replicate]
        units = list(dict.fromkeys(_unit(cell) for launch in own for cell in launch.cells))
        for uuid in dict.fromkeys(begun[unit] for unit in units if unit in begun):
            found.append(Share(_cut(own, {unit for unit in units if begun.get(unit) == uuid}), uuid))
        free = [unit for unit in units if unit not in begun]
        # As many parts as make the shares of all replicates equal over the boards.
        parts = len(boards) // math.gcd(len(boards), len({launch.replicate for launch in launches}))
        found += [Share(_cut(own, set(free[part::parts]))) for part in range(min(parts, len(free)))]
    return found


def _unit(cell: Cell) -> Unit:
    return cell.replicate, cell.workload


def _begun_on(done: Mapping[str, CellRecord]) -> dict[Unit, str]:
    """The board that has measured (most) cells of each unit."""
    seen: dict[Unit, Counter[str]] = {}
    for record in done.values():
        where = record.environment
        if where is not None and where.gpu_uuid and not where.mig:  # a part of a board has a name of its own
            seen.setdefault(_unit(record.cell), Counter())[where.gpu_uuid] += 1
    return {unit: counts.most_common(1)[0][0] for unit, counts in seen.items()}


def _cut(launches: Sequence[Launch], units: set[Unit]) -> tuple[Launch, ...]:
    """The launches with only the cells of these units."""
    cut = (
        dataclasses.replace(launch, cells=tuple(cell for cell in launch.cells if _unit(cell) in units))
        for launch in launches
    )
    return tuple(launch for launch in cut if launch.cells)


def carry_out(
    shared: Sequence[Share],
    boards: Sequence[Gpu],
    at: Callable[[Gpu | None, Progress, threading.Event], Measure],
    progress: Progress,
) -> None:
    """Measures every share. `at`: how a launch is measured on a board.

    Several boards work at the same time, each in a thread of its own. What ends the run on one of them, or
    comes to this thread, ends it on all, and is raised once nothing is running any more."""
    called_off = threading.Event()
    if len(boards) < 2:
        measure = at(boards[0] if boards else None, progress, called_off)
        for launch in (launch for share in shared for launch in share.launches):
            measure(launch)
        return
    waiting = _Waiting(shared)

    def work(board: Gpu) -> None:
        measure = at(board, _OnBoard(progress, board), called_off)
        while (share := waiting.take(board.uuid)) is not None:
            for launch in share.launches:
                if called_off.is_set():
                    return
                measure(launch)

    with ThreadPoolExecutor(len(boards), "board") as pool, _set_at_the_end(called_off):
        at_work = [pool.submit(work, board) for board in boards]
        try:
            # Waking now and then: a signal that another thread took is seen only by a main thread that wakes.
            while wait(at_work, TICK_S, FIRST_EXCEPTION).not_done and not any(map(_failed, at_work)):
                pass
        finally:
            with held_back():
                called_off.set()
                wait(at_work)
    errors = [error for one in at_work if (error := one.exception()) is not None]
    # One of them was the first, and the others are what came of it.
    for error in sorted(errors, key=lambda error: isinstance(error, CalledOffError)):
        raise error


def _failed(one: Future[None]) -> bool:
    return one.done() and one.exception() is not None


@contextlib.contextmanager
def _set_at_the_end(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


class _Waiting:
    """Shares that nobody has taken yet."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._shares = list(shares)
        self._lock = threading.Lock()

    def take(self, uuid: str) -> Share | None:
        """The next for this board: what it has begun before, then what any may take."""
        with self._lock:
            for wanted in (uuid, ""):
                for number, share in enumerate(self._shares):
                    if share.uuid == wanted:
                        return self._shares.pop(number)
            return None


class _OnBoard:
    """Progress that says which board it speaks of."""

    def __init__(self, progress: Progress, board: Gpu) -> None:
        self._progress = progress
        self._board = board

    def expect(self, steps: int) -> None:
        """As it is."""
        self._progress.expect(steps)

    def now(self, what: str) -> None:
        """With the board's number."""
        self._progress.now(f"GPU {self._board.index}: {what}")

    def advance(self, steps: int = 1) -> None:
        """As it is."""
        self._progress.advance(steps)

    def say(self, line: str) -> None:
        """With the board's number."""
        self._progress.say(f"GPU {self._board.index}: {line}")
