"""What several commands share: arguments, folders of runs, JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from harness.codec import read_json
from harness.errors import BadInputError, unwritable
from harness.text import clean

if TYPE_CHECKING:
    from harness.analysis.report import Report
    from harness.experiment import Experiment

RESULTS_DIR = Path("results")
REFERENCE_DIR = Path(__file__).resolve().parents[2] / "results" / "reference"


class DesignName(click.ParamType[str]):
    """The name of a folder under opt_designs/, completed by the shell."""

    name = "design"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from harness.design_source import DESIGNS_DIR

        names = sorted(path.parent.name for path in DESIGNS_DIR.glob("*/design.toml"))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def runner_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where and on which GPU to measure, and into which folder: alike for every command that measures."""
    options = [
        click.option("--local", is_flag=True, help="Run on this machine itself instead of in containers."),
        click.option(
            "--gpu",
            default="0",
            show_default=True,
            help="GPU by index or UUID; for run 0,1,3 or all, too.",
        ),
        click.option("--wait", is_flag=True, help="Wait while another run uses the GPU."),
        click.option("--no-build", is_flag=True, help="Refuse stale images instead of building them."),
        click.option(
            "--output",
            type=click.Path(path_type=Path),
            help="The run's folder. Default: results/NAME-TIME.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def experiment_of(
    what: str | None, names: Sequence[str], toolchain: str, overrides: Sequence[str], model: str = ""
) -> Experiment:
    """The experiment that is called `what`, or without one that of these designs beside the baseline, on the
    tables of `model` where one is named."""
    from harness import experiment

    if what is None:
        return experiment.of_designs(names, toolchain, overrides, model)
    return experiment.read(experiment.find(what), overrides)


def run_folders(name: Path) -> list[Path]:
    """One run's folder, or those of every run that ships with the project, as they were measured in time.

    A self-test is no comparison of designs: it counts only where its folder is named.
    """
    if str(name) == "reference":
        runs = (path.parent for path in REFERENCE_DIR.glob("*/*/plan.json"))
        if found := sorted((run for run in runs if not (run / "selftest.json").exists()), key=_begun):
            return found
        raise BadInputError(f"{REFERENCE_DIR}: holds no reference measurements.")
    return [run_folder(name)]


def folders_below(folder: Path) -> list[Path]:
    """The runs in a folder, however deep, in the order of their paths."""
    return sorted(path.parent for path in folder.rglob("plan.json"))


def _begun(folder: Path) -> str:
    """When its first record was begun; damaged ones say nothing of it."""
    found = []
    for path in sorted(folder.glob("cells/*/record.json")):
        with contextlib.suppress(BadInputError):
            raw = read_json(path)
            found.append(str(raw.get("started_at", "")) if isinstance(raw, dict) else "")
    return min(filter(None, found), default="")


def run_folder(name: Path) -> Path:
    """The folder of one run; BadInputError where it is none."""
    if not (name / "plan.json").is_file():
        raise BadInputError(f"{name}: is not the folder of a run (it has no plan.json).")
    return name


def against_option(command: Callable[..., None]) -> Callable[..., None]:
    """What else to put beside a run."""
    return click.option(
        "--against",
        metavar="RUN|reference",
        help="Beside this run; `reference`: the one that ships with the project and is of the same work.",
    )(command)


def other_side(name: str, folder: Path) -> Path:
    """What `--against` names, for the run in `folder`."""
    other = reference_of(folder) if name == "reference" else run_folder(Path(name))
    if other.resolve() == folder.resolve():
        raise BadInputError(f"--against {name}: is {folder} itself; name another run.")
    return other


def analysed(folders: Sequence[Path]) -> Report:
    """What is known of these runs, held beside the designs of today."""
    from harness import designs
    from harness.analysis.analyse import analyse

    return analyse(folders, today=designs.source_hashes())


def reference_of(folder: Path) -> Path:
    """The run that ships with the project and is of the same work as the run in `folder`."""
    from harness.analysis import history

    return history.nearest(run_folder(folder), run_folders(Path("reference")))


def newest_run() -> Path:
    found = sorted(RESULTS_DIR.glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise BadInputError(f"{RESULTS_DIR}: holds no run yet; make one with `harness run`.")
    return found[-1].parent


def say(line: str) -> None:
    """Prints a line on stdout; names in it may hold what moves a terminal's cursor."""
    click.echo(clean(line))


def print_json(value: Any) -> None:
    click.echo(as_text(value), nl=False)


def as_text(value: Any) -> str:
    """JSON as it is printed everywhere; a number that is none would be no JSON, and is a defect."""
    return json.dumps(value, indent=1, default=str, allow_nan=False) + "\n"


def put(text: str, output: Path | None) -> None:
    """Writes the text into the file, whole or not at all, or to stdout where none is named."""
    from harness import outputs

    if output is None:
        return click.echo(text, nl=False)
    try:
        outputs.write(output, text)
    except OSError as error:
        raise unwritable(output, error) from error
