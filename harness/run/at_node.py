"""What a job of Slurm's does on its node: measures one replicate of a run, in a folder of its own."""

from __future__ import annotations

import os
from pathlib import Path

from harness import experiment as experiments
from harness.errors import HarnessError
from harness.files import Folder
from harness.run import campaign, runner
from harness.run.part import Part

JOBS = "jobs"
"""In the run's folder: what jobs leave there until it is taken into the run."""
MOST_WORDS = 2**14


def folder_of(replicate: int) -> str:
    """In `JOBS`, where a replicate is measured."""
    return f"r{replicate}"


def words_of(replicate: int) -> str:
    """In `JOBS`, why a replicate could not be measured."""
    return f"r{replicate}.txt"


def measure(root: str, replicate: int, of: int, local: bool, podman: bool) -> None:
    """Measures a replicate, one of so many, from its beginning: what an earlier job left of it may be of
    another board, and a replicate is of one."""
    run = Path(root)
    with Folder.open(run) as folder, folder.inner(JOBS, create=True) as jobs:
        jobs.remove(folder_of(replicate))
        jobs.remove(words_of(replicate))
        try:
            # Slurm says so which GPUs the job was given; a replicate takes one.
            gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0] or "0"
            chosen = runner.choose(local=local, podman=podman, gpu=gpu, wait=True, build=False)
            experiment = experiments.of_run(run)
            campaign.start(
                experiment, chosen, run / JOBS / folder_of(replicate), part=Part(replicate + 1, of)
            )
        except HarnessError as error:
            jobs.write_whole(words_of(replicate), str(error)[:MOST_WORDS])
            raise
