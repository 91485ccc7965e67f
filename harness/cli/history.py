"""Commands over many runs: runs, history."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from harness.cli.shared import (
    RESULTS_DIR,
    ExperimentName,
    PathName,
    begun,
    folders_below,
    newest_run,
    own_runs,
    print_json,
    put,
    say,
    shipped_runs,
    short_name,
)
from harness.cli.verdicts import METRICS, WHOLE, threshold_option
from harness.errors import BadInputError
from harness.text import readable


@click.command(short_help="List runs, the latest first.")
@click.argument("folder", required=False, type=PathName(), metavar="[FOLDER]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def runs(folder: Path | None, as_json: bool) -> None:
    """List runs, the latest first: what each measured, where, how far it came and its best speedup over its
    reference, one row alone (one_item) aside.

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


@click.command(short_help="One experiment over time: what became faster or slower, and when.")
@click.argument("experiment", required=False, type=ExperimentName(), metavar="[EXPERIMENT]")
@click.option(
    "--in",
    "folder",
    type=PathName(exists=True, file_okay=False),
    metavar="FOLDER",
    help="Only the runs in this folder, however deep. Default: those under results/ and those that ship "
    "with the project.",
)
@click.option(
    "--metric",
    type=click.Choice([*METRICS, *WHOLE]),
    help="As for compare. Default: that by which the report of such runs compares.",
)
@threshold_option
@click.option("--output", type=PathName(), help="Default: results/history-EXPERIMENT.html, or in --in.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead, and write no page.")
def history(
    experiment: str | None,
    folder: Path | None,
    metric: str | None,
    threshold: float,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show all runs of one EXPERIMENT over time: a line per design and dataset, every change in a sentence.

    Default: the experiment of the newest run, of your own where there are any. Only runs that measured the
    same thing are joined: on one model of GPU, of the same work and rows, by the same protocol; the others
    stand in a section of their own.

    \b
      harness history                    the newest run's experiment
      harness history kernels            every run of experiments/kernels.toml
      harness history kernels --in /srv/nightly

    A change is what `harness compare` calls faster or slower between a run and the one before it, answering
    for all designs and datasets of the run; its page needs neither network nor anything beside it.
    """
    from harness import console
    from harness.analysis import history as listing
    from harness.analysis import over_time, timeline
    from harness.experiment import slug
    from harness.report import history as telling
    from harness.report import page, terminal

    own = own_runs() if folder is None else []
    found = [*own, *shipped_runs()] if folder is None else folders_below(folder)
    if not found:
        raise BadInputError(f"{folder}: holds no run; make one with `harness run`.")
    if experiment is None:
        newest = newest_run() if own else max(found, key=begun)
        experiment = listing.experiment_of(newest)
    with console.Steps("History") as steps:
        made = over_time.find(
            {_called(one, folder): one for one in found},
            experiment,
            metric=metric or "",
            threshold=threshold / 100,
            progress=steps,
        )
        if as_json:
            return print_json(timeline.as_json(made))
        steps.now("drawing charts")
        text = page.of_history(made)
    written = output or (folder or RESULTS_DIR) / f"history-{slug(experiment)}.html"
    put(text, written)
    terminal.put(telling.terminal(made))
    say(f"Page: {written}")


def _called(run: Path, folder: Path | None) -> str:
    """Its path within the folder, or its short name."""
    return short_name(run) if folder is None or run == folder else readable(run.relative_to(folder))
