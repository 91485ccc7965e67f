"""Commands about where the baseline comes from: the kernel in PyTorch's published wheels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.shared import RESULTS_DIR, PathName, print_json, runner_options
from harness.cli.verdicts import threshold_option
from harness.errors import BadInputError

if TYPE_CHECKING:
    from harness.analysis.compare import Outcome
    from harness.run.runner import Runner

DIFFERS, INCONCLUSIVE = 3, 4  # exit codes


@click.group(short_help="Hold the baseline against the kernel in PyTorch's wheels.")
def baseline() -> None:
    """Hold the baseline against the kernel in PyTorch's published wheels.

    The paper starts from PyTorch 2.1.0. `pip download torch==2.1.0 --no-deps --python-version 3.11
    --only-binary=:all:` gets its wheel, of 670 MB.
    """


@baseline.command(short_help="Make the kernel in a PyTorch WHEEL an arm of its own.")
@click.argument("sources", nargs=-1, required=True, type=PathName(), metavar="WHEEL...")
@click.option("--output", type=PathName(), help="Also copy the kernels here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table; every type.")
def extract(sources: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Take PyTorch's EmbeddingBag kernel out of a WHEEL, so that it can be measured.

    A WHEEL may also be the folder `torch` of an installed PyTorch, or what this made with --output: some
    megabytes, to be carried to another machine in place of the wheel. Experiments may then name the kernel as
    an arm, by design "stock" and its PyTorch's version for a toolchain: stock@2.1.0+cu121.
    """
    from harness import console
    from harness.build import kernels, published

    with console.Steps("Taking kernels out") as steps:
        steps.expect(len(sources))
        taken = []
        for source in sources:
            taken.append(published.take(source, steps))
            steps.advance()
    if output is not None:
        kernels.export(taken, output)
    rows = kernels.rows(taken, all_instances=as_json)
    if as_json:
        return print_json(rows)
    console.kernels_table(rows)


@baseline.command(short_help="Hold our baseline against the kernel in a PyTorch WHEEL.")
@click.argument("source", type=PathName(), metavar="WHEEL")
@click.option("--toolchain", default="12.1", show_default=True, help="NVRTC version of our baseline.")
@click.option("--time", "timed", is_flag=True, help="Also measure both on a GPU, in five processes each.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With --time: as of `run`.")
@threshold_option
@runner_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def verify(
    source: Path,
    toolchain: str,
    timed: bool,
    overrides: tuple[str, ...],
    threshold: float,
    local: bool,
    gpu: str,
    wait: bool,
    no_build: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Hold our baseline against the kernel in PyTorch's WHEEL: registers, spills, and with --time speed.

    The WHEEL may also be the folder `torch` of an installed PyTorch, or what `extract --output` made. Kernels
    are alike where both take as many registers and spill nothing, for every architecture and type that both
    have; their speeds, where the whole interval of the ratio lies within the threshold on every dataset.

    \b
    Exit codes: 0  alike, and with --time as fast
                3  they differ
                4  alike, but whether they are as fast could not be told
                2  bad input
                1  a defect of ours
                5  this machine cannot do it
    """
    from harness import console, designs
    from harness.analysis import compare as comparing
    from harness.build import kernels, likeness, published
    from harness.patch import manifest
    from harness.report import terminal
    from harness.report import verdicts as told
    from harness.run import runner

    if overrides and not timed:
        raise click.UsageError("--set goes with --time.")
    with console.Steps("Reading and compiling") as steps:
        theirs = manifest.read(published.take(source, steps))
        ours = manifest.read(kernels.compile_design(designs.get("baseline"), toolchain, progress=steps))
    pairs = likeness.pairs(theirs, ours)
    alike = all(pair.alike for pair in pairs)
    if not as_json:
        console.likeness_table(theirs, ours, pairs)
        click.echo(f"Alike: {sum(pair.alike for pair in pairs)} of {len(pairs)} kernels that both have.")
    outcome = None
    if timed:
        chosen = runner.choose(local=local, gpu=gpu, wait=wait, build=not no_build)
        outcome = _measured(theirs.toolchain, toolchain, overrides, chosen, output, threshold / 100)
        if not as_json:
            terminal.put(told.comparison(outcome), beside=140)
    if as_json:
        print_json(
            {
                "pytorch": theirs.toolchain,
                "compiler": theirs.compiler,
                "baseline": f"baseline@{toolchain}",
                "alike": alike,
                "kernels": [{**dataclasses.asdict(pair), "alike": pair.alike} for pair in pairs],
                "timing": outcome and comparing.as_json(outcome),
            }
        )
    verdicts = {found.verdict for found in outcome.comparisons} if outcome else {"same"}
    if not alike or verdicts & {"faster", "slower"}:
        raise SystemExit(DIFFERS)
    raise SystemExit(0 if verdicts == {"same"} else INCONCLUSIVE)


def _measured(
    version: str,
    toolchain: str,
    overrides: Sequence[str],
    chosen: Runner,
    output: Path | None,
    threshold: float,
) -> Outcome:
    """Measures the baseline beside the kernel that was taken out of a PyTorch, and judges their times."""
    from harness import console, experiment
    from harness.analysis import compare as comparing
    from harness.analysis import frame
    from harness.run import campaign

    what = experiment.of_published(version, toolchain, overrides)
    if what.workload.device != "cuda":
        raise BadInputError("--time measures kernels of GPUs; leave workload.device as it is.")
    root = output or campaign.new_folder(RESULTS_DIR, what)
    with console.Steps("Measuring") as steps:
        campaign.start(what, chosen, root, progress=steps)
    click.echo(f"Measured: {root} (`harness report {root}` shows it)", err=True)
    run = frame.load_run(root)
    sides = comparing.pairs(run, run, *(arm.label for arm in what.arms))
    return comparing.compare(sides, metrics=["kernel_us"], threshold=threshold)
