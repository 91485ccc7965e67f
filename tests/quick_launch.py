"""What runs in place of the bench where only its records matter: `quick_launch.py NOTED ARGUMENTS...`.

Leaves a good record of each cell after a moment, and then notes the cell and the record's own number in the
file NOTED. The other arguments are the bench's. The board is the one that it was given, in name alone.
"""

import os
import random
import sys
import time

from harness import wall
from harness.records import Cell, CellRecord, Check, Environment, KernelFacts, load, to_json, write_whole

ENVIRONMENT = Environment(
    device="cpu",
    gpu="",
    gpu_uuid=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    driver="",
    multiprocessors=0,
    l2_bytes=0,
    memory_bytes=0,
    persisting_l2_bytes=0,
    mig=False,
    other_processes=0,
    torch="",
    cuda="",
    python="",
    cpu="",
    runner="",
    image="",
    git_commit="",
    git_dirty=False,
)

order = wall.parse("quick", None, sys.argv[2:])
for cell_id in order.ids:
    print(wall.announce(cell_id), flush=True)
    time.sleep(0.15)  # what stands for measuring
    number = float(random.SystemRandom().randrange(2**50))
    record = CellRecord(
        load(Cell, order.cells / wall.file_of(cell_id)),
        "ok",
        samples={"kernel_us": [1.0, 1.0], "stage_us": [2.0]},
        check=Check(True, 0.1, "", 1),
        kernel=KernelFacts("pytorch", "", "PyTorch", "cpu", 0, 0, 0, 0.0, ""),
        environment=ENVIRONMENT,
        facts={"number": number},
    )
    write_whole(order.output / wall.file_of(cell_id), to_json(record))
    with open(sys.argv[1], "a", encoding="utf-8") as noted:
        noted.write(f"{cell_id} {number}\n")
