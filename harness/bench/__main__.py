"""`python -m harness.bench --root ROOT --cells CELLS --output OUTPUT --deadline S CELL_ID...`

Measures cells in this process, in order: reads CELLS/<id>.json and writes OUTPUT/<id>.json, each as soon as
it is measured. stdout is a log, in which `::cell <id>` announces the next cell. Exit code 0 where every
cell has a record, failed or not. Ends by itself at the deadline, whether or not somebody is left to end it.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable
from pathlib import Path

from harness import wall
from harness.bench import ending
from harness.errors import BadInputError
from harness.records import Cell, CellRecord, load, to_json, write_whole


def main(order: wall.Order) -> int:
    """Measures the cells that are named; 1 where one could not even be read."""
    unread = 0
    measure: Callable[[Cell], CellRecord] | None = None
    for cell_id in order.ids:
        print(wall.announce(cell_id), flush=True)
        try:
            cell = load(Cell, order.cells / wall.file_of(cell_id))
        except BadInputError as error:
            print(error, flush=True)
            unread += 1
            continue
        measure = measure or _bench(order.root)
        write_whole(order.output / wall.file_of(cell_id), to_json(measure(cell)))
    return 1 if unread else 0


def _bench(root: Path) -> Callable[[Cell], CellRecord]:
    """What measures a cell. Where PyTorch or the patch in it cannot be loaded, what records that."""
    gc.disable()  # what is imported stays: to look through it again and again takes a tenth of the import
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
    finally:
        gc.freeze()
        gc.enable()
    return Bench(root).measure


if __name__ == "__main__":
    given = wall.parse(wall.BENCH, __doc__)
    ending.at_deadline(given.deadline_s)
    ending.on_sigterm()
    ending.now(main(given))
