"""Commands that pass judgement, for people and for gates: compare, selftest."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import click
from click.decorators import FC

from harness.cli.obstacles import records_are_safe
from harness.cli.shared import (
    RESULTS_DIR,
    DesignName,
    RunName,
    against_option,
    other_side,
    print_json,
    reference_of,
    run_folder,
    runner_options,
)

METRICS = ("total_us", "kernel_us", "stage_us")
WHOLE = ("e2e_us", "e2e_graph_us")


class _Percent(click.FloatRange):
    """From 0 to below 100; what is not a number is in no range, though click finds it in all."""

    def __init__(self) -> None:
        super().__init__(min=0, max=100, max_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return found


def threshold_option(command: FC) -> FC:
    """How large a difference has to be to matter."""
    return click.option(
        "--threshold",
        type=_Percent(),
        default=1.0,
        show_default=True,
        metavar="PERCENT",
        help="A difference below this does not matter.",
    )(command)


@click.command(short_help="Judge B against A: faster, slower, same, inconclusive.")
@click.argument("run_a", type=RunName())
@click.argument("run_b", required=False, type=RunName())
@click.option("--a", "arm_a", metavar="ARM", help="The arm on side A, for example baseline@12.1.")
@click.option("--b", "arm_b", metavar="ARM", help="The arm on side B, for example combined@12.1.")
@click.option("--dataset", "datasets", multiple=True, help="Only this dataset; repeatable.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    type=click.Choice([*METRICS, *WHOLE]),
    default=("total_us",),
    show_default=True,
    help="Prepare + kernel, kernel alone, the embedding stage, or whole inferences, eager and as a CUDA "
    "graph; repeatable, each is judged.",
)
@threshold_option
@against_option
@click.option("--allow-different", is_flag=True, help="Compare across GPUs, drivers, work and sampling.")
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
    against: Path | None,
    allow_different: bool,
    form: str,
    as_json: bool,
) -> None:
    """Judge B against A, dataset by dataset: faster, slower, same or inconclusive.

    \b
      harness compare RUN_A RUN_B              every arm of both
      harness compare RUN                      every arm with its reference
      harness compare RUN --a optmt@12.1 --b combined@12.1
      harness compare RUN --against reference  A is ours, B is RUN

    Slower or faster: the estimate lies beyond the threshold, and the interval, corrected for the number of
    comparisons, leaves out "no difference". Same: the whole 95 % interval lies within the threshold.
    Anything else is inconclusive, with the reason. Runs on different GPUs, boards or drivers, of different
    work, traces or protocols are refused.

    \b
    Exit codes: 0  everything is the same or faster
                3  something is slower
                4  none shown to be slower, but not all could be told
                2  bad input, or a comparison that is refused
                1  a defect of ours
    """
    from harness.analysis import compare as comparing
    from harness.analysis import frame
    from harness.report import markdown, terminal, verdicts

    if against is not None:
        if run_b is not None:
            raise click.UsageError("Give two runs, or one and --against.")
        run_a, run_b = other_side(against, run_a), run_a
    elif str(run_a) == "reference" and run_b is not None:
        run_a = reference_of(run_b)
    runs = frame.load([run_folder(run) for run in (run_a, run_b) if run is not None])
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
        click.echo(markdown.text(verdicts.comparison(outcome)), nl=False)
    else:
        terminal.put(verdicts.comparison(outcome), beside=140)
    raise SystemExit(outcome.exit_code)


@click.command(short_help="Find out how often verdicts here are wrong.")
@click.option("--design", type=DesignName(), default="combined", show_default=True, help="What to repeat.")
@click.option("--toolchain", default="12.1", show_default=True, help="NVRTC version of the design.")
@click.option(
    "--dataset", "datasets", multiple=True, default=("one_item", "medium", "random"), show_default=True
)
@click.option("--processes", type=click.IntRange(min=4), default=36, show_default=True, help="Fresh ones.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="For example workload.tables=4.")
@click.option("--from", "source", type=RunName(), metavar="RUN", help="Measure nothing new.")
@click.option("--arm", "arms", multiple=True, help="With --from: only this arm; repeatable.")
@click.option(
    "--replicates", type=click.IntRange(min=2), default=3, show_default=True, help="Processes on each side."
)
@click.option("--splits", type=click.IntRange(min=1), default=500, show_default=True, help="Of each order.")
@click.option("--metric", type=click.Choice(METRICS), default="total_us", show_default=True)
@threshold_option
@runner_options
@click.option("--json", "as_json", is_flag=True, help="Print selftest.json instead of tables.")
def selftest(
    design: str,
    toolchain: str,
    datasets: tuple[str, ...],
    processes: int,
    overrides: tuple[str, ...],
    source: Path | None,
    arms: tuple[str, ...],
    replicates: int,
    splits: int,
    metric: str,
    threshold: float,
    local: bool,
    gpu: str,
    wait: bool,
    no_build: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Find out how often verdicts on this machine are wrong: one design under two names.

    Measures one design in many fresh processes, lets some stand as A and others as B, many times, and judges
    them as `harness compare` would. Reports how often it would have cried wolf, and how often it found a
    slowdown of 1, 2 and 5 % that was injected by making every sample of B so much longer. Writes
    selftest.json into the run's folder.

    \b
      harness selftest              on the GPU, in containers
      harness selftest --from RUN   with the processes of a run that is there

    \b
    Exit codes: 0  at most 5 % false verdicts, and of 100 slowdowns
                   of 5 % at least 95 found
                3  cries wolf more often
                4  does not, but misses slowdowns more often
                2  bad input
                1  a defect of ours
                5  this machine cannot do it
                7  measured, but not judged or shown; --from does it later
    """
    from harness import console
    from harness import experiment as experiments
    from harness.analysis import frame
    from harness.analysis import selftest as testing
    from harness.records import write_whole
    from harness.report import terminal, verdicts
    from harness.run import campaign, runner

    safe: contextlib.AbstractContextManager[None]
    if source is None:
        if arms:
            raise click.UsageError("--arm chooses among the arms of a run: give --from, too.")
        if processes < 2 * replicates:
            raise click.UsageError(
                f"--processes {processes}: two sides of {replicates} need {2 * replicates}."
            )
        chosen = runner.choose(local=local, gpu=gpu, wait=wait, build=not no_build)
        what = experiments.of_repeats(design, toolchain, datasets, processes, overrides)
        with console.Steps("Measuring") as steps:
            source = campaign.start(
                what, chosen, output or campaign.new_folder(RESULTS_DIR, what), progress=steps
            )
        safe = records_are_safe(source, "harness selftest --from")
    else:
        safe = contextlib.nullcontext()
    with safe:
        source = run_folder(source)
        run = frame.load_run(source)
        with console.Steps("Judging") as steps:
            tests = [
                testing.examine(
                    run,
                    variant,
                    metric=metric,
                    replicates=replicates,
                    splits=splits,
                    threshold=threshold / 100,
                    progress=steps,
                )
                for variant in [run.variant(label) for label in arms] or run.variants
            ]
        found = testing.as_json(tests)
        write_whole(source / "selftest.json", json.dumps(found, indent=1) + "\n")
        if as_json:
            print_json(found)
        else:
            terminal.put([verdicts.selftest(tested) for tested in tests], beside=140)
            click.echo(f"Written: {source / 'selftest.json'}")
    raise SystemExit(testing.exit_code(tests))
