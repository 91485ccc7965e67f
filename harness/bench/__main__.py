"""`python -m harness.bench --root ROOT CELL_ID...`: measures cells of a run in this process, in order.

Reads ROOT/cells/<id>/cell.json and writes ROOT/cells/<id>/record.json, each as soon as it is measured. stdout
is a log, in which `::cell <id>` announces the next cell. Exit code 0 where every cell has a record, failed or
not.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.errors import BadInputError
from harness.records import Cell, CellRecord, load, to_json, write_whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the cells that are named; 1 where one could not even be read."""
    parser = argparse.ArgumentParser(prog="python -m harness.bench", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="the run's folder")
    parser.add_argument("cells", nargs="+", metavar="CELL_ID")
    given = parser.parse_args(arguments)
    unread = 0
    measure: Callable[[Cell], CellRecord] | None = None
    for cell_id in given.cells:
        print(f"::cell {cell_id}", flush=True)
        folder = given.root / "cells" / cell_id
        try:
            cell = load(Cell, folder / "cell.json")
        except BadInputError as error:
            print(error, flush=True)
            unread += 1
            continue
        measure = measure or _bench(given.root)
        write_whole(folder / "record.json", to_json(measure(cell)))
    return 1 if unread else 0


def _bench(root: Path) -> Callable[[Cell], CellRecord]:
    """What measures a cell. Where PyTorch or the patch in it cannot be loaded, what records that."""
    try:
        from harness.bench.cell import Bench
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # PyTorch wraps what its extensions raise
            cause = cause.__cause__
        said = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        message = f"PyTorch, or the design in it, cannot be loaded: {said}"
        trail = traceback.format_exc()
        print(trail, flush=True)
        return lambda cell: CellRecord(cell, "failed", message, trail)
    return Bench(root).measure


def _end_on_sigterm() -> None:
    """Ends the process at once when it is told to; records already written stay.

    As a container's first process it would be deaf to the signal by default, and a handler in Python would
    wait for the GPU call in progress. So a thread waits for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    _end_on_sigterm()
    sys.exit(main())
