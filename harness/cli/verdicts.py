"""Commands that pass judgement, for people and for gates: compare, selftest."""

from __future__ import annotations

from pathlib import Path

import click
from click.decorators import FC

from harness.cli.shared import print_json, reference_of, run_folder

METRICS = ("total_us", "kernel_us", "stage_us")


def threshold_option(command: FC) -> FC:
    """How large a difference has to be to matter."""
    return click.option(
        "--threshold",
        type=click.FloatRange(min=0, max=100, max_open=True),
        default=1.0,
        show_default=True,
        metavar="PERCENT",
        help="A difference below this does not matter.",
    )(command)


@click.command()
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", required=False, type=click.Path(path_type=Path))
@click.option("--a", "arm_a", metavar="ARM", help="The arm on side A, for example baseline@12.1.")
@click.option("--b", "arm_b", metavar="ARM", help="The arm on side B, for example combined@12.1.")
@click.option("--dataset", "datasets", multiple=True, help="Only this dataset; repeatable.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    type=click.Choice(METRICS),
    default=("total_us",),
    show_default=True,
    help="Prepare + kernel, kernel alone, or the embedding stage; repeatable, each is judged.",
)
@threshold_option
@click.option("--allow-different", is_flag=True, help="Compare across GPUs, drivers, work and protocols.")
@click.option("--format", "form", type=click.Choice(["table", "md"]), default="table", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")
def compare(
    run_a: Path,
    run_b: Path | None,
    arm_a: str | None,
    arm_b: str | None,
    datasets: tuple[str, ...],
    metrics: tuple[str, ...],
    threshold: float,
    allow_different: bool,
    form: str,
    as_json: bool,
) -> None:
    """Judge B against A, dataset by dataset: faster, slower, same or inconclusive.

    \b
      harness compare RUN_A RUN_B              every arm that both runs have
      harness compare RUN                      every arm against the run's reference
      harness compare RUN --a optmt@12.1 --b combined@12.1
      harness compare reference RUN            against the measurements that ship with the project

    Slower or faster: the estimate lies beyond the threshold, and the interval, corrected for the number of
    comparisons, leaves out "no difference". Same: the whole 95 % interval lies within the threshold.
    Anything else is inconclusive, with the reason. Runs on different GPUs, boards or drivers, of different
    work, traces or protocols are refused.

    \b
    Exit codes: 0  everything is the same or faster
                3  something is slower
                4  nothing was shown to be slower, but not everything could be told
                2  bad input, or a comparison that is refused
                1  an error of the program
    """
    from harness.analysis import compare as comparing
    from harness.analysis import frame
    from harness.report import comparison

    if str(run_a) == "reference" and run_b is not None:
        run_a = reference_of(run_b)
    runs = frame.load([run_folder(run) for run in (run_a, run_b) if run is not None]).runs
    outcome = comparing.compare(
        comparing.pairs(runs[0], runs[-1], arm_a, arm_b),
        metrics=list(dict.fromkeys(metrics)),
        datasets=datasets,
        threshold=threshold / 100,
        allow_different=allow_different,
    )
    if as_json:
        print_json(comparing.as_json(outcome))
    elif form == "md":
        click.echo(comparison.markdown(outcome), nl=False)
    else:
        comparison.show(outcome)
    raise SystemExit(outcome.exit_code)
