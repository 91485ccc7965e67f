"""Refuses runs of others, under results/sent, that cannot be believed: `make check-sent`.

They come by pull request, as results/sent/GPU/WHO-RUN, and are input like any other: nothing is trusted.
First there have to be small plain files of known names alone, then all that `harness verify` recomputes has
to hold, then what the table of GPUs would say of them.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from harness import cell_files, plan, wall
from harness.analysis import kind_demand
from harness.cli.shared import SENT_DIR
from harness.errors import BadInputError
from harness.experiment import slug
from harness.records import MEASURED, Cell
from harness.run import manifest
from harness.run import verify as verifying
from harness.traces import demand

FILES = {
    wall.PLAN: 2**24,
    wall.EXPERIMENT: 2**20,
    wall.PACKED: 2**25,
    manifest.FILE: 2**24,
    demand.FILE: 2**24,
    kind_demand.FILE: 2**24,
}
"""What a run consists of, and how many bytes it may have."""
NEEDED = (wall.PLAN, wall.EXPERIMENT, wall.PACKED, manifest.FILE)
MUST_HOLD = ("plan", "cells", "files", "samples", "outputs", "times", "traces", "commit")
"""Questions of `harness verify`. "sources" may have changed since: the table of GPUs says so."""
NAME = re.compile(r"[a-z0-9]{1,39}-[a-z0-9_]{1,60}")
GPU = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
README = "README.md"
SHOWN = {
    "gpu": r"[A-Za-z0-9][A-Za-z0-9 .()/_-]{0,79}",
    "driver": r"[0-9.]{1,20}",
    "torch": r"[0-9A-Za-z.+]{1,40}",
    "git_commit": r"[0-9a-f]{40}",
}
"""What a page shows of a record's environment as it stands there, and what that may consist of."""


def main() -> int:
    """Prints what is refused, one sentence a line; 1 where anything is."""
    refused = list(of_all(SENT_DIR))
    for sentence in refused:
        print(sentence, file=sys.stderr)
    if not refused:
        print(f"{SENT_DIR}: every run there can be believed.")
    return 1 if refused else 0


def of_all(sent: Path) -> Iterator[str]:
    """Of each run the first thing that is wrong, and what is no run."""
    for gpu in _inside(sent):
        if gpu.name == README and _is_small_file(gpu, 2**16):
            continue
        if not _is_folder(gpu) or not GPU.fullmatch(gpu.name):
            yield f"{gpu}: is not the folder of a GPU; runs lie in {sent.name}/GPU/WHO-RUN."
            continue
        for run in _inside(gpu):
            try:
                refuse(run)
            except BadInputError as error:
                yield str(error)


def refuse(run: Path) -> None:
    """BadInputError with what is wrong with this run, where anything is."""
    _plain_files(run)
    cells = plan.read(run / wall.PLAN).cells
    if own := next((cell.dataset.name for cell in cells if _replays(cell)), ""):
        raise BadInputError(f"{run}: is of a trace of its own, {own}, which nobody can make anew.")
    answers = verifying.verify(run)
    for found in answers:
        if found.level == "broken" or (found.level != "holds" and found.what in MUST_HOLD):
            raise BadInputError(
                f"{run}: {found.what}: {found.detail.rstrip('.')}; `harness verify` shows all."
            )
    answered = {found.what for found in answers}
    if silent := [what for what in MUST_HOLD if what not in answered]:
        raise BadInputError(f"{run}: nothing can be said of its {silent[0]}; measure it anew.")
    with cell_files.opened(run) as files:
        records = [cell_files.record(files, cell) for cell in cells]
    seen = [record.environment for record in records if record.status in MEASURED and record.environment]
    if not seen or any(one.device != "cuda" for one in seen):
        raise BadInputError(f"{run}: has no cell that a GPU measured, or some that a CPU did.")
    for what, allowed in SHOWN.items():
        told = sorted({str(getattr(one, what)) for one in seen})
        if strange := next((text for text in told if not re.fullmatch(allowed, text)), None):
            raise BadInputError(f"{run}: its records call their {what} {strange[:100]!a}, which is no name.")
    gpus = sorted({one.gpu for one in seen})
    if [folder_of(gpu) for gpu in gpus] != [run.parent.name]:
        named = ", ".join(gpus)
        raise BadInputError(f"{run}: was measured on {named!a}; its folder is {folder_of(gpus[0])!r}.")


def _replays(cell: Cell) -> bool:
    """Whether it looks up what somebody recorded, in one table or in those of a model."""
    return bool(cell.dataset.path) or any(group.trace for group in cell.workload.groups)


def folder_of(gpu: str) -> str:
    """What the folder of a GPU's runs is called."""
    return slug(gpu).lower()


def _plain_files(run: Path) -> None:
    if not NAME.fullmatch(run.name) or not _is_folder(run):
        raise BadInputError(
            f"{run.parent}: holds {run.name[:100]!a}, which is not the folder of a run; call it WHO-RUN, in "
            "small letters."
        )
    for path in _inside(run):
        if path.name not in FILES:
            raise BadInputError(
                f"{run}: holds {path.name[:100]!a}, which is no part of a packed run; remove it."
            )
        if not _is_small_file(path, FILES[path.name]):
            most = FILES[path.name] / 2**20
            raise BadInputError(f"{path}: is no plain file of at most {most:.0f} MiB.")
    if missing := [name for name in NEEDED if not (run / name).is_file()]:
        raise BadInputError(f"{run}: lacks {', '.join(missing)}; finish the run, then `harness pack` it.")


def _inside(folder: Path) -> list[Path]:
    """What lies in it, without following links; nothing where there is no folder."""
    return sorted(Path(entry.path) for entry in os.scandir(folder)) if _is_folder(folder) else []


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _is_small_file(path: Path, most_bytes: int) -> bool:
    found = path.lstat()
    return stat.S_ISREG(found.st_mode) and found.st_size <= most_bytes


if __name__ == "__main__":
    sys.exit(main())
