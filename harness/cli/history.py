"""Commands over many runs: runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from harness.cli.shared import RESULTS_DIR, folders_below, print_json, run_folders
from harness.errors import BadInputError


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def runs(folder: Path | None, as_json: bool) -> None:
    """List runs, the latest first: what each measured, where, how far it came and its best speedup.

    Default: those under results/ and those that ship with the project. The best speedup is of medians; the
    report has its interval.
    """
    from harness import console
    from harness.analysis import history

    found = folders_below(RESULTS_DIR if folder is None else folder)
    if folder is None:
        own = {run.resolve() for run in found}
        found += [run for run in run_folders(Path("reference")) if run.resolve() not in own]
    if not found:
        raise BadInputError(f"{folder}: holds no run; make one with `harness run`.")
    with console.Steps("Runs") as steps:
        steps.expect(len(found))
        lines = []
        for one in found:
            lines.append(history.line(one))
            steps.advance()
    lines.sort(key=lambda line: line.began, reverse=True)
    if as_json:
        return print_json([dataclasses.asdict(line) for line in lines])
    console.runs_table(lines)
