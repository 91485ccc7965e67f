"""The command that holds a run against all that can be recomputed of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from harness.cli.shared import RunName, find_run, print_json, say, shipped_runs

_MARKS = {"holds": "✓", "not known": "!", "broken": "✕"}


@click.command(short_help="Recompute what can be recomputed of a run.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=RunName())
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def verify(runs: tuple[Path, ...], as_json: bool) -> None:
    """Recompute what can be recomputed of a run, and say what does not hold.

    \b
      harness verify results/A
      harness verify reference    every run that ships with the project

    The plan from its experiment; cells and records against the plan; every file against the manifest that
    the run ended with; what records say of their samples; the traces from seed or file, and what limits
    take from them; sources against those of today.

    \b
    Exit codes: 0  nothing is broken; marked ! is what could not be told,
                   and sources that changed since
                3  something is
                2  bad input
                1  a defect of ours
    """
    from harness.run import verify as verifying

    folders = [
        one for run in runs for one in (shipped_runs() if str(run) == "reference" else [find_run(run) or run])
    ]
    found = {str(folder): verifying.verify(folder) for folder in folders}
    if as_json:
        print_json({run: [dataclasses.asdict(one) for one in of] for run, of in found.items()})
    else:
        for run, of in found.items():
            say(run)
            for one in of:
                say(f"  {_MARKS[one.level]} {one.what}: {one.detail}")
    broken = any(one.level == "broken" for of in found.values() for one in of)
    raise SystemExit(3 if broken else 0)
