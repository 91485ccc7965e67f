"""Commands over many runs: runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from harness.cli.shared import folders_below, own_runs, print_json, shipped_runs, short_name
from harness.errors import BadInputError


@click.command(short_help="List runs, the latest first.")
@click.argument("folder", required=False, type=click.Path(path_type=Path), metavar="[FOLDER]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def runs(folder: Path | None, as_json: bool) -> None:
    """List runs, the latest first: what each measured, where, how far it came and its best speedup.

    Default: those under results/ and those that ship with the project. The best speedup is of medians; the
    report has its interval.
    """
    from harness import console
    from harness.analysis import history

    found = [*own_runs(), *shipped_runs()] if folder is None else folders_below(folder)
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
    console.runs_table({short_name(Path(line.folder)): line for line in lines})
