"""Commands over a run's folder: merge, pack, unpack."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.shared import PathName, RunName, find_run, run_folder, say


@click.command(short_help="Join parts of one plan that several machines measured.")
@click.argument("runs", nargs=-1, required=True, type=RunName())
@click.option("--output", required=True, type=PathName(), help="The joined run's folder; a new one.")
def merge(runs: tuple[Path, ...], output: Path) -> None:
    """Join RUNS of one plan, which several people or machines have measured in parts.

    \b
      harness run paper --part 1/2        here
      harness run paper --part 2/2        there
      harness merge HERE THERE --output results/paper-joined

    Refuses runs that do not belong together: of another experiment, plan, trace or source, on another model
    of GPU, with a cell measured twice, or with a replicate whose cells come from several boards. Records and
    logs are copied as they are; `harness run --resume` measures what is still missing. Raw reports of the
    profiler stay where they are.
    """
    from harness import console
    from harness.run import merging

    with console.Steps("Joining") as steps:
        count = merging.merge([find_run(run) or run for run in runs], output, progress=steps)
    say(f"Joined: {output}, {count} cells with a record (`harness report {output}` shows it)")


@click.command(short_help="Put a finished run's cells into one file.")
@click.argument("runs", nargs=-1, required=True, type=RunName())
def pack(runs: tuple[Path, ...]) -> None:
    """Put the cells of finished RUNS into one file each, cells.zip, in place of their folders.

    Packed runs are reported, compared, listed, verified and joined like others, and manifest.json stays
    valid; nothing is added to them until `harness unpack`. Equal cells make an equal file.
    """
    from harness import console
    from harness.run import packing

    for run in runs:
        with console.Steps("Packing") as steps:
            packed = packing.pack(run_folder(run), progress=steps)
        say(f"Packed: {packed}, {packed.stat().st_size / 2**10:,.1f} KiB")


@click.command(short_help="Make folders of a packed run's cells again.")
@click.argument("runs", nargs=-1, required=True, type=RunName())
def unpack(runs: tuple[Path, ...]) -> None:
    """Make folders of the cells of packed RUNS again, as they were, so that the runs can go on."""
    from harness import console
    from harness.run import packing

    for run in runs:
        with console.Steps("Unpacking") as steps:
            cells = packing.unpack(run_folder(run), progress=steps)
        say(f"Unpacked: {cells}")
