"""The command line: wiring only. Each command imports what it needs, so that `harness --help` is instant."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from harness import __version__
from harness.errors import BadInputError, CellsFailedError, HarnessError

RESULTS_DIR = Path("results")
REFERENCE_DIR = Path(__file__).resolve().parent.parent / "results" / "reference"


class DesignName(click.ParamType[str]):
    """The name of a folder under opt_designs/, completed by the shell."""

    name = "design"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from harness.designs import DESIGNS_DIR

        names = sorted(path.parent.name for path in DESIGNS_DIR.glob("*/design.toml"))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Measures embedding-lookup kernels on GPUs, each design in a container of its own.

    \b
    A first walk:
      harness doctor               what this machine can do, and what is missing
      harness designs              the kernel variants there are
      harness compile              compile them, on any machine; registers and occupancy
      harness run --design combined    measure baseline and combined; writes report.html
    """


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def designs(as_json: bool) -> None:
    """List the designs under opt_designs/: what each does and how it is tuned."""
    from harness import console
    from harness.designs import discover

    found = list(discover().values())
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
        return _print_json(rows)
    console.designs_table(found)


@cli.command()
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
        _print_json([vars(finding) for finding in findings])
    else:
        console.findings_table(findings)
    if any(not finding.ok and finding.required for finding in findings):
        raise SystemExit(5)


@cli.command("compile")
@click.argument("names", nargs=-1, type=DesignName(), metavar="[DESIGN]...")
@click.option("--toolchain", "versions", multiple=True, help="NVRTC version; repeatable. Default: all.")
@click.option(
    "--arch", "archs", multiple=True, help="For example sm_90; repeatable. Default: the toolchain's."
)
@click.option("--output", type=click.Path(path_type=Path), help="Also copy the compiled designs here.")
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
        compiled = kernels.compile_all(names, versions, archs, progress=steps)
    if output is not None:
        kernels.export(compiled, output)
    rows = kernels.rows(compiled, all_instances=every or as_json)
    if as_json:
        return _print_json(rows)
    console.kernels_table(rows)


@cli.command()
@click.argument("names", nargs=-1, type=DesignName(), metavar="[DESIGN]...")
@click.option("--toolchain", "versions", multiple=True, help="NVRTC version; repeatable. Default: all.")
@click.option("--force", is_flag=True, help="Build also what is up to date.")
@click.option("--json", "as_json", is_flag=True, help="Print what was built as JSON.")
def build(names: tuple[str, ...], versions: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Build one Docker image per design and toolchain; only those that are missing or stale.

    \b
    Settings come from the environment, so that `harness run` builds with the same:
      HARNESS_WHEELHOUSE     folder of Python packages; the build then downloads nothing
      HARNESS_BASE_IMAGE     in place of NVIDIA's CUDA image
      HARNESS_TORCH_IMAGE    an image that already has python3 and PyTorch
      HARNESS_TORCH_VERSION  another PyTorch than the pinned one
      HARNESS_ARCHS          GPU architectures, for example "sm_80 sm_90"
      HARNESS_PRECOMPILED=1  compile kernels on this machine instead of within the build
    """
    from harness import console
    from harness.build import images

    targets = images.targets(names, versions)
    with console.Steps("Building images") as steps:
        outcome = images.build(targets, force=force, progress=steps)
    if as_json:
        return _print_json(outcome)
    console.images_table(outcome)


@cli.command()
@click.argument("experiment", required=False, metavar="[EXPERIMENT]")
@click.option("--design", "names", multiple=True, type=DesignName(), help="Measure this design; repeatable.")
@click.option("--toolchain", default="12.1", show_default=True, help="NVRTC version for --design.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="For example workload.tables=4.")
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with this run's unmeasured cells.")
@click.option("--retry-failed", is_flag=True, help="With --resume: measure failed cells again, too.")
@click.option("--local", is_flag=True, help="Run on this machine itself instead of in containers.")
@click.option("--gpu", default="0", show_default=True, help="Index or UUID of the GPU.")
@click.option("--wait", is_flag=True, help="Wait while another run uses the GPU.")
@click.option("--no-build", is_flag=True, help="Refuse stale images instead of building them.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="The run's folder. Default: results/NAME-TIME."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def run(
    experiment: str | None,
    names: tuple[str, ...],
    toolchain: str,
    overrides: tuple[str, ...],
    resume: Path | None,
    retry_failed: bool,
    local: bool,
    gpu: str,
    wait: bool,
    no_build: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure: an EXPERIMENT (a file, or the name of one in experiments/), or designs against the baseline.

    \b
      harness run paper                      the paper's matrix
      harness run --design combined          baseline and combined, interleaved, on the five datasets
      harness run smoke --local              seconds, on any machine, on the CPU
      harness run --resume results/paper-…   go on where a run was stopped
    """
    from harness import console
    from harness import experiment as experiments
    from harness.run import campaign, runner

    if sum((experiment is not None, bool(names), resume is not None)) != 1:
        raise click.UsageError("Give one of: an EXPERIMENT, --design or --resume.")
    chosen = runner.choose(local=local, gpu=gpu, wait=wait, build=not no_build)
    with console.Steps("Measuring") as steps:
        if resume is not None:
            root = campaign.resume(resume, chosen, retry_failed=retry_failed, progress=steps)
        else:
            what = (
                experiments.of_designs(names, toolchain, overrides)
                if experiment is None
                else experiments.read(experiments.find(experiment), overrides)
            )
            root = campaign.start(
                what, chosen, output or campaign.new_folder(RESULTS_DIR, what), progress=steps
            )
    _finish(root, as_json)


def _finish(root: Path, as_json: bool) -> None:
    """Report and summary of a run; CellsFailedError where some cells carry no measurement."""
    from harness.analysis import frame, summary
    from harness.report import page, terminal

    written = page.render([root], root / "report.html")
    loaded = frame.load([root])
    if as_json:
        _print_json(summary.summary(loaded))
    else:
        terminal.show(loaded)
        click.echo(f"Report: {written}")
    if failed := [r.cell.id for r in loaded.records if r.status not in ("ok", "inconclusive")]:
        raise CellsFailedError(
            f"{len(failed)} of {len(loaded.records)} cells carry no measurement, for example {failed[0]}; "
            f"the report says why."
        )


@cli.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="Default: report.html in the (first) run.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON; writes no page.")
def report(runs: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Render the HTML comparison of one or several RUNS. Default: the newest under results/.

    `reference` stands for the measurements that ship with the project.
    """
    from harness.analysis import frame, summary
    from harness.report import page, terminal

    folders = [folder for name in runs for folder in _run_folders(name)] or [_newest_run()]
    if as_json:
        return _print_json(summary.summary(frame.load(folders)))
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    written = page.render(folders, output or folders[0] / "report.html")
    terminal.show(frame.load(folders))
    click.echo(f"Report: {written}")


def _run_folders(name: Path) -> list[Path]:
    """One run's folder, or those of every run that ships with the project."""
    if str(name) == "reference":
        if found := sorted(path.parent for path in REFERENCE_DIR.glob("*/*/plan.json")):
            return found
        raise BadInputError(f"{REFERENCE_DIR}: holds no reference measurements.")
    if not (name / "plan.json").is_file():
        raise BadInputError(f"{name}: is not the folder of a run (it has no plan.json).")
    return [name]


def _newest_run() -> Path:
    found = sorted(RESULTS_DIR.glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise BadInputError(f"{RESULTS_DIR}: holds no run yet; make one with `harness run`.")
    return found[-1].parent


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=1, default=str))


def main() -> None:
    """Entry point: a user's mistake or a machine's lack is one sentence and an exit code, not a traceback."""
    try:
        sys.exit(cli.main(standalone_mode=False))
    except HarnessError as error:
        click.echo(f"harness: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("harness: interrupted.", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
