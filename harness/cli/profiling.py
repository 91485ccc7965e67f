"""The command that looks inside kernels: profile."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from harness.cli.obstacles import records_are_safe
from harness.cli.shared import (
    RESULTS_DIR,
    DesignName,
    analysed,
    experiment_of,
    find_run,
    newest_run,
    print_json,
    runner_options,
)
from harness.errors import CellsFailedError
from harness.text import readable


@click.command(short_help="Look inside kernels with Nsight Compute.")
@click.argument("what", required=False, metavar="[RUN|EXPERIMENT]")
@click.option("--design", "names", multiple=True, type=DesignName(), help="This design; repeatable.")
@click.option("--toolchain", default="12.1", show_default=True, help="NVRTC version for --design.")
@click.option("--arm", "arms", multiple=True, help="Only this arm, for example combined@12.1; repeatable.")
@click.option("--dataset", "datasets", multiple=True, help="Only this dataset; repeatable.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="For example workload.tables=4.")
@click.option(
    "--counters",
    type=click.Choice(["all", "memory", "compute"]),
    default="all",
    show_default=True,
    help="compute: registers, warps, instructions (one pass); memory: bytes and cache hits, too (two); "
    "all: what warps wait for, too (five or so).",
)
@runner_options
@click.option(
    "--allow-sys-admin",
    is_flag=True,
    help="With a driver before 565: give containers CAP_SYS_ADMIN, by which a design has root's power here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def profile(
    what: str | None,
    names: tuple[str, ...],
    toolchain: str,
    arms: tuple[str, ...],
    datasets: tuple[str, ...],
    overrides: tuple[str, ...],
    counters: str,
    local: bool,
    gpu: str,
    wait: bool,
    no_build: bool,
    output: Path | None,
    allow_sys_admin: bool,
    as_json: bool,
) -> None:
    """Look inside the lookup kernels with Nsight Compute: registers, warps, caches, memory, stalls.

    Profiles the cells of a RUN, where the report then shows them beside the speed, or of an EXPERIMENT or
    --design (beside baseline and stock) in a run of their own. Default: the newest run under results/.

    \b
      harness profile                                   the newest run's designs
      harness profile paper-20260101… --dataset medium  one dataset of that run
      harness profile --design combined --local         without Docker
      harness profile --counters memory                 bytes and cache hits only

    The program runs once for every pass of the counters, and each launch finds the caches as the launches
    before it left them. Interrupted, it keeps the arms that have had all their passes, and says how to go on
    with the others. A profile takes the place of the one before, whatever counters that had. Needs Nsight
    Compute on this machine (HARNESS_NCU names its folder, if it is not found) and, where the driver asks
    for it, an administrator. Its containers then run as root, with the one capability CAP_PERFMON, and can
    write nothing of this machine."""
    from harness import console
    from harness.run import campaign, ncu, profiling, runner

    if what is not None and names:
        raise click.UsageError("Give one of: a RUN or EXPERIMENT, or --design.")
    found = None if names else newest_run() if what is None else find_run(Path(what))
    root, of_run = found or Path(), found is not None
    if of_run and (overrides or output is not None):
        raise click.UsageError("--set and --output go with an EXPERIMENT or --design; a RUN has its own.")
    profiler = dataclasses.replace(ncu.find(), metrics=ncu.COUNTERS[counters])
    chosen = runner.choose(
        local=local, gpu=gpu, wait=wait, build=not no_build, allow_sys_admin=allow_sys_admin
    )
    options = [] if counters == "all" else ["--counters", counters]
    flags = {"local": local, "wait": wait, "no-build": no_build, "allow-sys-admin": allow_sys_admin}
    options += [f"--{name}" for name, is_set in flags.items() if is_set]
    options += ["--gpu", gpu] if gpu != "0" else []
    with console.Steps("Profiling") as steps:
        if not of_run:
            planned = experiment_of(what, names, toolchain, overrides)
            # One replicate: counters hardly differ between processes.
            planned = dataclasses.replace(planned, replicates=1)
            root = output or campaign.new_folder(RESULTS_DIR, planned)
            campaign.start(planned, chosen, root, measure=False, progress=steps)
        made = profiling.profile(
            root, chosen, profiler, arms=arms, datasets=datasets, options=options, progress=steps
        )
    with records_are_safe(root):
        _show(root, as_json)
    if failed := [one for one in made if one.status != "ok"]:
        raise CellsFailedError(
            f"{len(failed)} of {len(made)} cells were not profiled, for example {failed[0].cell.id}: "
            f"{failed[0].message}"
        )


def _show(root: Path, as_json: bool) -> None:
    from harness.report import terminal
    from harness.report.sections import profile as inside

    found = analysed([root])
    if as_json:
        print_json(
            [dataclasses.asdict(one) for run in found.runs if run.profile for one in run.profile.counters]
        )
    else:
        terminal.put(inside.shown(found))
    from harness.report import page

    written = page.write(found, root / "report.html")
    if not as_json:
        click.echo(f"Report: {readable(written)}")
