"""Commands about what there is and what can be made of it: designs, doctor, compile, check, build."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.shared import DesignName, PathName, print_json
from harness.errors import BadInputError


@click.command(short_help="List the designs under opt_designs/.")
@click.argument("names", nargs=-1, type=DesignName(), metavar="[DESIGN]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def designs(names: tuple[str, ...], as_json: bool) -> None:
    """List the designs under opt_designs/, a line each; or say all about those that are named."""
    from harness import console
    from harness.designs import get, readable

    others, broken = ({}, {}) if names else readable()
    found = [get(name) for name in names] or list(others.values())
    for name, why in broken.items():
        click.echo(f"The design {name} is left out: {why}", err=True)
    if as_json:
        rows = [
            {
                "name": d.name,
                "kind": d.kind,
                "title": d.title,
                "summary": d.summary,
                "paper": d.paper,
                "max_registers": d.max_registers,
                "tunables": {n: {"default": t.default, "values": t.values} for n, t in d.tunables.items()},
                "prepares": d.prepares,
                "source_hash": d.source_hash,
            }
            for d in found
        ]
        return print_json(rows)
    if names:
        for design in found:
            console.design_details(design)
        return
    console.designs_table(found)
    click.echo("All about one: harness designs NAME")


@click.command(short_help="List models: tables, rows looked up for a sample, bytes.")
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def models(names: tuple[str, ...], as_json: bool) -> None:
    """List models: tables, rows looked up for a sample, bytes. Default: those in experiments/models/.

    A MODEL is a name or a file: TOML like those, or the JSON of FBGEMM's TBEDataConfig.
    `harness trace model` makes one of traffic.

    \b
      harness models --json dlrm_dcnv2                       every kind of table
      harness run --model dlrm_dcnv2 --design fused --set model.max_rows=3_000_000
    """
    from harness import console
    from harness import models as files

    found = [files.read(name) for name in names or files.names()]
    if as_json:
        return print_json([files.as_plain(model) for model in found])
    console.models_table(found)


@click.command(short_help="Check what this machine can do, and how to mend the rest.")
@click.option("--gpu", default="0", show_default=True, help="Index or UUID of the GPU that runs would use.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def doctor(gpu: str, as_json: bool) -> None:
    """Check what this machine can do: Docker, buildx, GPU, driver, disk, compilers.

    Exits with 5 when something that `harness run` needs is missing, and prints the command that mends it.
    """
    from harness import console
    from harness.doctor import examine

    findings = examine(gpu)
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        console.findings_table(findings)
    if any(not finding.ok and finding.required for finding in findings):
        raise SystemExit(5)


@click.command("compile", short_help="Compile designs; show registers, spills, occupancy.")
@click.argument("names", nargs=-1, type=DesignName(), metavar="[DESIGN]...")
@click.option("--toolchain", "versions", multiple=True, help="NVRTC version; repeatable. Default: all.")
@click.option(
    "--arch", "archs", multiple=True, help="For example sm_90; repeatable. Default: the toolchain's."
)
@click.option("--output", type=PathName(), help="Also copy the compiled designs here.")
@click.option(
    "--every", is_flag=True, help="Show every type and tunable, not only float32 with int64 indices."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of a table; every type and tunable."
)
def compile_(
    names: tuple[str, ...],
    versions: tuple[str, ...],
    archs: tuple[str, ...],
    output: Path | None,
    every: bool,
    as_json: bool,
) -> None:
    """Compile designs to cubins and show registers, spills, shared memory and occupancy.

    Needs neither a GPU nor a CUDA toolkit: NVRTC comes from its wheels, one version beside the other.
    """
    from harness import console
    from harness.build import kernels

    with console.Steps("Compiling") as steps:
        whole = every or as_json or output is not None
        compiled = kernels.compile_all(names, versions, archs, usual_only=not whole, progress=steps)
    if output is not None:
        kernels.export(compiled, output)
    rows = kernels.rows(compiled, all_instances=every or as_json)
    if as_json:
        return print_json(rows)
    if every:
        return console.kernels_table(rows)
    console.usual_kernels_table(rows)
    click.echo("Every type and tunable, and shared memory: --every")


@click.command(short_help="Run designs' kernels on the CPU, every access watched.")
@click.argument("names", nargs=-1, type=DesignName(), metavar="[DESIGN]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def check(names: tuple[str, ...], as_json: bool) -> None:
    """Run designs' kernels on the CPU: their sums, and that nothing is read or written outside.

    Needs no GPU but a C++ compiler. Exits with 2 where a kernel is wrong, and says which thread did what.
    """
    from harness import console
    from harness.emulator.check import examine_all

    with console.Steps("Checking") as steps:
        findings = examine_all(names, progress=steps)
    if as_json:
        print_json([vars(finding) for finding in findings])
    else:
        console.checks_table(findings)
    if any(finding.wrong for finding in findings):
        raise SystemExit(BadInputError.exit_code)


@click.command(short_help="Build one Docker image per design and toolchain.")
@click.argument("names", nargs=-1, type=DesignName(), metavar="[DESIGN]...")
@click.option("--toolchain", "versions", multiple=True, help="NVRTC version; repeatable. Default: all.")
@click.option("--force", is_flag=True, help="Build also what is up to date.")
@click.option("--json", "as_json", is_flag=True, help="Print what was built as JSON.")
def build(names: tuple[str, ...], versions: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Build one Docker image per design and toolchain; only those that are missing or stale.

    \b
    Settings, from the environment, so that `harness run` builds with them too:
      HARNESS_WHEELHOUSE     folder of Python packages; then no download
      HARNESS_BASE_IMAGE     in place of NVIDIA's CUDA image
      HARNESS_TORCH_IMAGE    an image that already has python3 and PyTorch
      HARNESS_TORCH_VERSION  another PyTorch than the pinned one
      HARNESS_ARCHS          GPU architectures, for example "sm_80 sm_90"
      HARNESS_PRECOMPILED=1  compile kernels here, not within the build
    """
    from harness import console
    from harness.build import images

    targets = images.targets(names, versions)
    with console.Steps("Building images") as steps:
        outcome = images.build(targets, force=force, progress=steps)
    if as_json:
        return print_json(outcome)
    console.images_table(outcome)
