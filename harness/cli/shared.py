"""What several commands share: arguments, folders of runs, JSON."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from harness.errors import BadInputError, unwritable
from harness.text import clean, meant, readable

if TYPE_CHECKING:
    from harness.analysis.report import Report
    from harness.console import Steps
    from harness.experiment import Experiment
    from harness.traces.trace import Progress

RESULTS_DIR = Path("results")
SYNTHETIC = ("one_item", "high", "medium", "low", "random", "skewed")
"""Those of harness.traces.synth, which takes NumPy, and so too long, to import."""
PARTS = 100
"""Steps that the progress of reading or writing traces is shown in."""
EXPERIMENTS_DIR = Path(__file__).resolve().parents[2] / "experiments"
REFERENCE_DIR = Path(__file__).resolve().parents[2] / "results" / "reference"
SENT_DIR = REFERENCE_DIR.with_name("sent")
"""Runs of others, checked by tests/check_sent.py."""


class DesignName(click.ParamType[str]):
    """The name of a folder under opt_designs/, completed by the shell."""

    name = "design"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from harness.design_source import DESIGNS_DIR

        names = sorted(path.parent.name for path in DESIGNS_DIR.glob("*/design.toml"))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class ExperimentName(click.ParamType[str]):
    """An experiment: the name of one under experiments/, completed by the shell, or a file."""

    name = "experiment"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = sorted({path.stem for path in EXPERIMENTS_DIR.glob("*.toml")} - {"claims"})
        fitting = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return fitting or [CompletionItem(incomplete, type="file")]


class PathName(click.Path):
    """A path. An empty one, which is what a shell makes of a variable that is not set, is no path, though it
    would be taken for the working directory."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("The path is empty.", param, ctx)
        return super().convert(value, param, ctx)


def argument(path: str | Path) -> str:
    """A path as it stands in a command that is proposed: for a shell, and not to be taken for an option."""
    return shlex.quote(f"./{path}" if str(path).startswith("-") else str(path))


class RunName(click.ParamType[Path]):
    """A run, by its path or its short name; the shell completes both."""

    name = "run"

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if value == "":
            self.fail("The name is empty.", param, ctx)
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = [short_name(run) for run in [*own_runs(), *shipped_runs()]]
        fitting = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return fitting or [CompletionItem(incomplete, type="dir")]


class DatasetName(click.ParamType[str]):
    """A dataset: the name of a synthetic trace, or a trace's file or folder; the shell completes all of
    them."""

    name = "dataset"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        names = [CompletionItem(name) for name in (*SYNTHETIC, "mixed") if name.startswith(incomplete)]
        return [CompletionItem(incomplete, type="file"), *names]


def as_overrides(datasets: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """`--dataset` given so often, as the assignment that does the same; none where it was not given.
    BadInputError where `overrides` say it too."""
    if datasets and any(override.partition("=")[0].strip() == "datasets" for override in overrides):
        raise BadInputError("--dataset and --set datasets say the same; leave one of them out.")
    # Quoted as JSON is, which TOML understands; a name's odd bytes stay for what reads it to refuse.
    return [f"datasets={json.dumps(list(datasets), ensure_ascii=False)}"] if datasets else []


def dataset_option(command: Callable[..., None]) -> Callable[..., None]:
    """Which rows are looked up, in place of the experiment's datasets."""
    return click.option(
        "--dataset",
        "datasets",
        multiple=True,
        type=DatasetName(),
        metavar="NAME|TRACE",
        help="Measure on this: one_item, high, medium, low, random, skewed, mixed, own, a file of "
        "row numbers, or what `harness trace import` made; repeatable. Default: the experiment's.",
    )(command)


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
            type=PathName(),
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
        if found := sorted(
            (run for run in shipped_runs() if not (run / "selftest.json").exists()), key=begun
        ):
            return found
        raise BadInputError(f"{REFERENCE_DIR}: holds no reference measurements.")
    return [run_folder(name)]


def folders_below(folder: Path) -> list[Path]:
    """The runs in a folder, however deep, in the order of their paths."""
    return sorted(path.parent for path in folder.rglob("plan.json"))


def begun(folder: Path) -> str:
    """When its first record was begun; empty where nothing says so, or it is no run that can be read."""
    from harness.analysis import frame

    with contextlib.suppress(BadInputError):
        return frame.load_run(folder).began
    return ""


def run_folder(name: Path) -> Path:
    """The folder of one run, by its path or its short name; BadInputError where there is no such run."""
    if found := find_run(name):
        return found
    known = [short_name(folder) for folder in [*own_runs(), *shipped_runs()]]
    raise BadInputError(
        f"{name}: is not the folder of a run (it has no plan.json), nor the name of one under {RESULTS_DIR}/ "
        f"or reference/.{meant(str(name), known)}"
    )


def find_run(name: Path) -> Path | None:
    """The run that is called so: by its path, by its folder's name under results/, or of those that ship
    with the project as reference/kernels or reference/GPU/kernels; None where there is none.

    BadInputError where several GPUs have a run of that name.
    """
    if _is_run(name):
        return name
    if name.is_absolute() or ".." in name.parts:
        return None
    if _is_run(RESULTS_DIR / name):
        return RESULTS_DIR / name
    if name.parts[:1] != ("reference",):
        return None
    found = [run for run in shipped_runs() if name.parts[1:] in ((run.name,), (run.parent.name, run.name))]
    if len(found) > 1:
        raise BadInputError(
            f"{name}: is measured on several GPUs; name one: {', '.join(map(short_name, found))}."
        )
    return found[0] if found else None


def short_name(folder: Path) -> str:
    """The shortest name by which `find_run` finds a run; its path where it lies elsewhere."""
    resolved = folder.resolve()
    if resolved.is_relative_to(REFERENCE_DIR.resolve()):
        shipped = [run.name for run in shipped_runs()]
        once = shipped.count(resolved.name) == 1
        return f"reference/{resolved.name}" if once else f"reference/{resolved.parent.name}/{resolved.name}"
    if resolved.is_relative_to(RESULTS_DIR.resolve()):
        return readable(resolved.relative_to(RESULTS_DIR.resolve()))
    return readable(folder)


def _is_run(folder: Path) -> bool:
    return (folder / "plan.json").is_file()


def own_runs() -> list[Path]:
    """Those under results/ that are the user's own."""
    others = REFERENCE_DIR.resolve(), SENT_DIR.resolve()
    below = folders_below(RESULTS_DIR)
    return [run for run in below if not any(run.resolve().is_relative_to(other) for other in others)]


def shipped_runs() -> list[Path]:
    """Those that ship with the project."""
    return sorted(path.parent for path in REFERENCE_DIR.glob("*/*/plan.json"))


def against_option(command: Callable[..., None]) -> Callable[..., None]:
    """What else to put beside a run."""
    return click.option(
        "--against",
        type=RunName(),
        metavar="RUN|reference",
        help="Beside this run; `reference`: the one that ships with the project and is of the same work.",
    )(command)


def other_side(name: Path, folder: Path) -> Path:
    """What `--against` names, for the run in `folder`."""
    other = reference_of(folder) if str(name) == "reference" else run_folder(name)
    if other.resolve() == folder.resolve():
        raise BadInputError(f"--against {name}: is {folder} itself; name another run.")
    return other


def analysed(folders: Sequence[Path]) -> Report:
    """What is known of these runs, held beside the designs of today."""
    from harness import designs
    from harness.analysis.analyse import analyse

    return analyse(folders, today=designs.source_hashes(), tunables=designs.named_tunables())


def reference_of(folder: Path) -> Path:
    """The run that ships with the project and is of the same work as the run in `folder`."""
    from harness.analysis import history

    return history.nearest(run_folder(folder), run_folders(Path("reference")))


def newest_run() -> Path:
    found = sorted(RESULTS_DIR.glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise BadInputError(f"{RESULTS_DIR}: holds no run yet; make one with `harness run`.")
    return found[-1].parent


def parts(steps: Steps) -> Progress:
    """Moves the bar by `PARTS` steps in all, as the told share grows from 0 to 1."""
    done = 0

    def tell(share: float) -> None:
        nonlocal done
        if (now := int(share * PARTS)) > done:
            steps.advance(now - done)
            done = now

    return tell


def say(line: str) -> None:
    """Prints a line on stdout; names in it may hold what moves a terminal's cursor."""
    click.echo(clean(line))


def print_json(value: Any) -> None:
    click.echo(as_text(value), nl=False)


def as_text(value: Any) -> str:
    """JSON as it is printed everywhere; NaN and infinity are not JSON, and would be a defect."""
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
