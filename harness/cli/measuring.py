"""Commands that measure and show what was measured: run, report."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import forecast
from harness.cli.obstacles import records_are_safe
from harness.cli.shared import (
    RESULTS_DIR,
    DesignName,
    ExperimentName,
    PathName,
    RunName,
    against_option,
    analysed,
    as_overrides,
    as_text,
    dataset_option,
    experiment_of,
    find_run,
    newest_run,
    other_side,
    print_json,
    put,
    run_folders,
    runner_options,
    say,
)
from harness.errors import CellsFailedError

if TYPE_CHECKING:
    from harness.analysis.report import Report


@click.command(short_help="Measure an EXPERIMENT, or designs beside the baseline.")
@click.argument("experiment", required=False, type=ExperimentName(), metavar="[EXPERIMENT]")
@click.option("--design", "names", multiple=True, type=DesignName(), help="Measure this design; repeatable.")
@click.option("--model", default="", help="With --design: on the tables of this model; see `harness models`.")
@click.option("--toolchain", default="12.1", show_default=True, help="NVRTC version for --design.")
@dataset_option
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="For example workload.tables=4.")
@click.option("--dry-run", is_flag=True, help="Only say what would be measured, and how long.")
@click.option("--resume", type=RunName(), metavar="RUN", help="Go on with this run's unmeasured cells.")
@click.option(
    "--part", metavar="K/N", help="Only every N-th replicate, from the K-th on; `harness merge` joins parts."
)
@click.option("--podman", is_flag=True, help="Run in Podman's containers; see `harness images`.")
@click.option("--slurm", metavar="KEY=VALUE,…", help="Have Slurm measure: partition=gpu,gres=gpu:1.")
@click.option("--cancel", is_flag=True, help="With --resume: cancel the run's jobs.")
@click.option("--retry-failed", is_flag=True, help="With --resume: measure failed cells again, too.")
@runner_options
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def run(
    experiment: str | None,
    names: tuple[str, ...],
    model: str,
    toolchain: str,
    datasets: tuple[str, ...],
    overrides: tuple[str, ...],
    dry_run: bool,
    resume: Path | None,
    part: str | None,
    retry_failed: bool,
    slurm: str | None,
    cancel: bool,
    podman: bool,
    local: bool,
    gpu: str,
    wait: bool,
    no_build: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure an EXPERIMENT, or designs beside the baseline and PyTorch's kernel.

    An EXPERIMENT is a file, or the name of one in experiments/.

    \b
      harness run kernels                   ours, PyTorch's and FBGEMM's kernels
      harness run kernels --dataset traces/mine   on your own traffic
      harness run paper                     the paper's matrix
      harness run paper --gpu all           replicates side by side on all GPUs
      harness run --design combined         beside baseline and stock PyTorch
      harness run --model dlrm_dcnv2 --design fused    on a model's tables
      harness run paper --dry-run           what that measures, and how long
      harness run smoke --local             seconds, on any machine's CPU
      harness run --resume paper-20260101…  go on where a run was stopped

    Exits with 6 where cells carry no measurement, and with 7 where everything was measured but the report
    could not be made: the records are there, and `harness report` makes it later.
    """
    from harness import console
    from harness.run import campaign, runner, squeue
    from harness.run import part as parts
    from harness.run import slurm as jobs

    if model and not names:
        raise click.UsageError(
            "--model goes with --design, which says what is measured on it: --design fused, for example; an "
            "experiment names its own, as [model] name."
        )
    if sum((experiment is not None, bool(names), resume is not None)) != 1:
        raise click.UsageError("Give one of: an EXPERIMENT, --design or --resume.")
    if retry_failed and resume is None:
        raise click.UsageError("--retry-failed goes with --resume RUN.")
    if not names and _given("toolchain"):
        raise click.UsageError("--toolchain goes with --design; an experiment's arms name their own.")
    if part is not None and resume is not None:
        raise click.UsageError("--part goes with a new run; a RUN that measures a part goes on with that.")
    if podman and local:
        raise click.UsageError("Give one of: --podman or --local.")
    besides = {"--dataset": datasets, "--set": overrides, "--dry-run": dry_run}
    if resume is not None and (others := [name for name, value in besides.items() if value]):
        raise click.UsageError(
            f"--resume goes on with a run as it was begun: leave out {', '.join(others)}. "
            "`harness runs` tells how far a run came."
        )
    resume = resume and (find_run(resume) or resume)
    if cancel and (resume is None or not jobs.is_of_slurm(resume)):
        raise click.UsageError("--cancel goes with --resume RUN, of a run that was begun with --slurm.")
    if slurm is not None and (resume is not None or part is not None or gpu != "0"):
        raise click.UsageError("--slurm goes with a new run, and without --part and --gpu.")
    if cancel and resume is not None:
        return say(f"Cancelled: {jobs.cancel(resume)} jobs of {resume}")
    overrides = (*as_overrides(datasets, overrides), *overrides)
    if dry_run:
        what = experiment_of(experiment, names, toolchain, overrides, model)
        own = parts.WHOLE if part is None else parts.of_text(part, what.replicates)
        return forecast.show(what, own, local=local, as_json=as_json)
    chosen = runner.choose(local=local, podman=podman, gpu=gpu, wait=wait, build=not no_build, several=True)
    with console.Steps("Measuring") as steps:
        if resume is not None and jobs.is_of_slurm(resume):
            if retry_failed:
                raise click.UsageError("--retry-failed goes with runs of one machine; start a new run.")
            root = jobs.follow(resume, progress=steps)
        elif slurm is not None:
            asked = squeue.options_of(slurm)
            what = experiment_of(experiment, names, toolchain, overrides, model)
            folder = output or campaign.new_folder(RESULTS_DIR, what)
            root = jobs.start(what, folder, asked, local=local, podman=podman, progress=steps)
        elif resume is not None:
            root = campaign.resume(resume, chosen, retry_failed=retry_failed, progress=steps)
        else:
            what = experiment_of(experiment, names, toolchain, overrides, model)
            own = parts.WHOLE if part is None else parts.of_text(part, what.replicates)
            folder = output or campaign.new_folder(RESULTS_DIR, what)
            root = campaign.start(what, chosen, folder, part=own, progress=steps)
    with records_are_safe(root):
        _finish(root, as_json)


def _given(option: str) -> bool:
    """Whether the user gave it, and it is not the default that stands there."""
    source = click.get_current_context().get_parameter_source(option)
    return source is not click.core.ParameterSource.DEFAULT


def _finish(root: Path, as_json: bool) -> None:
    """Summary and report of a run, in this order, since what draws charts may be missing; CellsFailedError
    where some cells carry no measurement."""
    found = analysed([root])
    (run,) = found.runs
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        from harness.report import terminal

        terminal.show(found)
    from harness.report import page

    written = page.write(found, root / "report.html")
    if not as_json:
        say(f"Report: {written}")
        if not run.on_cpu:  # ours are all of GPUs
            say(f"Beside our own measurements: harness report {root} --against reference")
    recorded = [cell for cell in run.cells if cell.record]
    if failed := [cell.id for cell in recorded if not cell.measured]:
        raise CellsFailedError(
            f"{len(failed)} of {len(recorded)} cells carry no measurement, for example {failed[0]}; "
            f"the report says why, and `harness run --resume {root} --retry-failed` measures them again."
        )


@click.command(short_help="Render the HTML comparison of runs.")
@click.argument("runs", nargs=-1, type=RunName())
@click.option("--output", type=PathName(), help="Default: report.html in the (first) run.")
@click.option(
    "--figures",
    type=PathName(),
    metavar="DIR",
    help="Also write every chart here as SVG and PNG, with its figures as CSV.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["html", "md", "json", "csv"]),
    default="html",
    show_default=True,
    help="md (for a pull request), json (docs/report.schema.json) and csv (a row per figure) go to "
    "stdout, or into --output.",
)
@against_option
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def report(
    runs: tuple[Path, ...],
    output: Path | None,
    figures: Path | None,
    form: str,
    against: Path | None,
    as_json: bool,
) -> None:
    """Render the HTML comparison of one or several RUNS. Default: the newest under results/.

    `reference` stands for the measurements that ship with the project. Of several runs the page also says how
    the first and each of the others compare, and what else differs between them.

    \b
      harness report --against reference     the newest run beside ours
      harness report BEFORE AFTER            two runs side by side
      harness report RUN --format md         for a pull request

    A RUN is the path of its folder, the folder's name under results/, or of those that ship with the
    project for example reference/kernels. `harness runs` lists them.
    """
    from harness import console

    # Records are very many objects that stay to the end of this process, which is near: collecting them over
    # and over takes a tenth of the time.
    gc.disable()
    click.get_current_context().call_on_close(gc.enable)
    folders = [folder for name in runs for folder in run_folders(name)] or [newest_run()]
    if against is not None:
        folders.append(other_side(against, folders[0]))
    with console.Steps("Report") as steps:
        steps.now("reading records and drawing intervals")
        found = analysed(folders)
        if form == "html" and not as_json:
            steps.now("drawing charts")
            written = _write_page(found, output, folders[0])
        if figures is not None:
            from harness.report import figures as on_paper

            steps.now("drawing figures")
            on_paper.write(found, figures)
    if as_json or form == "json":
        return put(as_text(dataclasses.asdict(found)), output)
    if form == "csv":
        from harness.report import tidy

        return put(tidy.csv(found), output)
    if form == "md":
        from harness.report import markdown

        return put(markdown.of(found), output)
    from harness.report import terminal

    terminal.show(found)
    say(f"Report: {written}")
    if figures is not None:
        say(f"Figures: {figures}")


def _write_page(report: Report, output: Path | None, folder: Path) -> Path:
    """The page where the user wants it, otherwise in the run's folder, where no link is followed."""
    from harness.report import page

    if output is None:
        return page.write(report, folder / "report.html")
    put(page.html(report), output)
    return output
