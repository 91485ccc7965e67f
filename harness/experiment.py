"""An experiment: what to measure, read from `experiments/*.toml` and from flags, validated."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any

from harness import codec, designs, files, models, sweep, wall
from harness.bounds import Count, Range
from harness.build.toolchain import toolchains
from harness.errors import BadInputError
from harness.groups import OWN_TRAFFIC
from harness.records import (
    PYTORCH,
    SCHEMA_VERSION,
    STOCK,
    Dataset,
    Model,
    SchemaVersion,
    Timing,
    Variant,
    Workload,
    is_torch_version,
)
from harness.sweep import Axis
from harness.text import meant, readable, shown
from harness.validation import FORBID_UNKNOWN, parse_toml, read_toml, validated

EXPERIMENTS_DIR = Path(__file__).resolve().parent.parent / "experiments"
_MOST_ARMS = 1_000
MOST_CELLS = 100_000
_MOST_LAUNCHES = 90
"""Of a pass, for the bench to queue it whole; see `harness.bench.queue`."""
PAPER_DATASETS = ("one_item", "high", "medium", "low", "random")
SYNTHETIC_DATASETS = (*PAPER_DATASETS, "skewed", "mixed", OWN_TRAFFIC)


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run. Datasets are names of synthetic traces, or paths of traces."""

    __pydantic_config__ = FORBID_UNKNOWN
    name: str
    title: str
    arms: tuple[Variant, ...]
    reference: str
    """Label of the arm that speedups are taken against."""
    datasets: tuple[str, ...] = PAPER_DATASETS
    workload: Workload = field(default_factory=Workload)
    sweep: tuple[Axis, ...] = ()
    """What is varied around the workload and the designs' tunables, one at a time; see harness.sweep."""
    grid: bool = False
    """Whether every combination of the sweep's axes is measured instead."""
    model: Model | None = None
    """The model round the embedding stage; None: the stage is measured alone."""
    timing: Timing = field(default_factory=Timing)
    replicates: Annotated[int, Range(1, MOST_CELLS)] = 3
    """Fresh processes in which every cell is measured again."""
    seed: Count = 1
    deadline_s: Annotated[float, Range(1, 1e7)] = 600.0
    """A launch that has not finished by then is stopped; its unmeasured cells become `timeout`."""
    schema_version: SchemaVersion = SCHEMA_VERSION


def of_run(root: Path) -> Experiment:
    """That which a run's folder holds. BadInputError as of `read`, and where a link is in its place."""
    return read(root / wall.EXPERIMENT, follow=False)


def read(path: Path, overrides: Sequence[str] = (), *, follow: bool = True) -> Experiment:
    """Reads an experiment file; `overrides` are assignments such as `workload.tables=4`.

    BadInputError names file and key path of what does not fit, or that the file is a link, without `follow`.
    """
    raw = {"name": path.stem, **read_toml(path, follow=follow)}
    version = raw.get("schema_version")
    if isinstance(version, int | float) and version > SCHEMA_VERSION:
        raise BadInputError(
            f"{path}: schema_version: {shown(version)} is newer than this program's {SCHEMA_VERSION}."
        )
    if isinstance(names := raw.get("datasets"), list):
        raw["datasets"] = [_beside(name, path.parent) for name in names]
    return _from_raw(raw, overrides, path)


def find(name: str) -> Path:
    """An experiment's file: a path as given, or the name of one in `experiments/`."""
    known = {path.stem: path for path in sorted(EXPERIMENTS_DIR.glob("*.toml")) if path.stem != "claims"}
    if Path(name).is_file():
        return Path(name)
    if name in known:
        return known[name]
    raise BadInputError(
        f"{name}: is neither an experiment's file nor one of those in experiments/: {', '.join(known)}."
        f"{meant(name, known)}"
    )


def of_designs(
    names: Sequence[str], toolchain: str, overrides: Sequence[str] = (), model: str = ""
) -> Experiment:
    """An experiment made of design names: the baseline first, as the reference, then each of them, and
    PyTorch's own kernel, without which nobody could say whether they are worth using. `model`: a model's name
    or file; empty: on the paper's tables. A model of more tables than can be launched one by one ahead of a
    GPU has the first design as its reference instead, and stands without PyTorch's kernel."""
    one_by_one = not model or models.read(model).example().tables <= _MOST_LAUNCHES
    wanted = list(dict.fromkeys(["baseline", *names, STOCK] if one_by_one else names))
    arms = [{"design": n, "toolchain": toolchain if designs.get(n).compiled else PYTORCH} for n in wanted]
    compiled = [name for name in wanted if designs.get(name).compiled]
    beside = [name for name in wanted if name not in compiled]
    title = f"{' and '.join(compiled)} under NVRTC {toolchain}" if compiled else ""
    if beside:
        title = f"{title}, beside {' and '.join(beside)}" if title else " and ".join(beside)
    name = "-".join(dict.fromkeys(names))
    reference = Variant(arms[0]["design"], arms[0]["toolchain"]).label
    raw: dict[str, Any] = {"name": name, "title": title, "arms": arms, "reference": reference}
    if model:
        raw |= {"name": f"{slug(PurePath(model).stem)}-{name}", "model": {"name": model}}
    return _from_raw(raw, overrides, "the command line")


def dataset_of(name: str) -> Dataset:
    """A synthetic trace by its name, or a trace by its path (a copy of it is in the run, under `traces/`)."""
    if name in SYNTHETIC_DATASETS:
        return Dataset(name, origin="synthetic")
    stem = PurePath(name).stem
    return Dataset(stem, path=f"traces/{slug(stem)}.npy", origin=name)


def no_dataset_name(name: str) -> str:
    """Why a trace of somebody's own may not be called so in a run; empty: it may."""
    short = slug(name)
    if short in SYNTHETIC_DATASETS:
        return f"is called as the synthetic trace {short}"
    return "" if short else "has no plain letter or digit"


def slug(text: str) -> str:
    """The text with a dash for whatever might trouble a file system."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-")


def of_repeats(
    design: str, toolchain: str, datasets: Sequence[str], processes: int, overrides: Sequence[str] = ()
) -> Experiment:
    """One design measured in so many fresh processes, to see how much they differ by themselves."""
    variant = Variant(design, toolchain if designs.get(design).compiled else PYTORCH)
    title = f"{variant.label}, measured in {processes} processes"
    arms = [{"design": variant.design, "toolchain": variant.toolchain}]
    raw: dict[str, Any] = {
        "name": f"selftest-{design}",
        "title": title,
        "arms": arms,
        "reference": variant.label,
    }
    raw |= {"datasets": list(datasets), "replicates": processes}
    return _from_raw(raw, overrides, "the command line")


def of_published(version: str, toolchain: str, overrides: Sequence[str] = ()) -> Experiment:
    """The baseline, as the reference, beside the kernel that was taken out of a PyTorch of this version."""
    arms = [{"design": "baseline", "toolchain": toolchain}, {"design": STOCK, "toolchain": version}]
    title = f"The baseline under NVRTC {toolchain} beside the kernel in PyTorch {version}"
    raw = {"name": "baseline", "title": title, "arms": arms, "reference": f"baseline@{toolchain}"}
    return _from_raw(raw | {"replicates": 5}, overrides, "the command line")


def to_toml(experiment: Experiment) -> str:
    """The experiment as TOML that `read` turns into the same experiment."""
    import tomli_w

    return tomli_w.dumps(_without_defaults(json.loads(json.dumps(experiment, default=codec.fields))))


def _without_defaults(table: dict[str, Any]) -> dict[str, Any]:
    return {
        k: [_without_defaults(i) if isinstance(i, dict) else i for i in v] if isinstance(v, list) else v
        for k, v in table.items()
        if v not in ({}, [], "", None)
    }


def _from_raw(raw: dict[str, Any], overrides: Sequence[str], source: Path | str) -> Experiment:
    alone = copy.deepcopy(raw) if overrides else raw
    for assignment in overrides:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise BadInputError(f"--set {shown(assignment)}: is not of the form KEY=VALUE.")
        *tables, last = names = key.strip().split(".")
        if not all(name.strip() for name in names):
            raise BadInputError(f"--set {shown(assignment)}: a part of the key is empty; take a dot away.")
        table = raw
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise BadInputError(f"--set {shown(assignment)}: {shown(name)} is not a table.")
        table[last] = _toml_value(text)
    try:
        raw = models.applied(raw, source)
        return checked(validated(Experiment, raw, source), source)
    except BadInputError as error:
        keys = [assignment.partition("=")[0].strip() for assignment in overrides]
        what = str(error).removeprefix(f"{source}: ")
        if what == str(error) or isinstance(source, str) or not overrides:
            raise
        if any(what.startswith((f"{key}:", f"{key}.")) for key in keys):
            # And not the file, which may be right.
            raise BadInputError(f"the command line: {what}") from error
        if not _is_right(alone, source):
            raise
        place = what.partition(":")[0].rstrip("…")  # a table on the way to what was set, or another key
        within = any(key.startswith(place) for key in keys)
        where = "the command line" if within else f"the command line, on top of {source}"
        raise BadInputError(f"{where}: {what}") from error


def _is_right(raw: dict[str, Any], source: Path | str) -> bool:
    """Whether it is an experiment as its file has it, without what the command line sets."""
    try:
        _from_raw(raw, (), source)
    except BadInputError:
        return False
    return True


def _toml_value(text: str) -> Any:
    """The text as a TOML value; a bare word is a string, and so is what would be more than one value."""
    try:
        found = parse_toml(f"value = {text}")
    except ValueError:
        return text.strip()
    return found["value"] if found.keys() == {"value"} else text.strip()


def _beside(name: Any, folder: Path) -> Any:
    """A trace file's path, seen from the experiment's folder; synthetic traces' names stay as they are."""
    return name if not isinstance(name, str) or name in SYNTHETIC_DATASETS else files.beside(folder, name)


def checked(experiment: Experiment, source: Path | str) -> Experiment:
    """The experiment with every arm's toolchain filled in; BadInputError where parts do not fit together."""
    names, versions = designs.names(), toolchains()
    known: dict[str, designs.Design] = {}
    if len(experiment.arms) > _MOST_ARMS:
        raise BadInputError(f"{source}: arms: are {len(experiment.arms)}, and may be {_MOST_ARMS} at most.")
    _check_workload(experiment.workload, str(source))
    arms = []
    for number, arm in enumerate(experiment.arms):
        where = f"{source}: arms.{number}"
        if arm.design not in names:
            raise BadInputError(
                f"{where}.design: there is no design {shown(arm.design)!r}; known: {', '.join(names)}."
                f"{meant(arm.design, names)}"
            )
        known[arm.design] = designs.get(arm.design)
        arms.append(_checked_arm(arm, known[arm.design], versions, where))
        if why := designs.unsupported(known[arm.design], experiment.workload):
            raise BadInputError(f"{where}.design: {arm.design} {why}.")
    labels = [arm.label for arm in arms]
    if not arms or not experiment.datasets:
        raise BadInputError(f"{source}: {'datasets' if arms else 'arms'}: is empty.")
    if doubled := sorted(label for label, count in Counter(labels).items() if count > 1):
        raise BadInputError(f"{source}: arms: {doubled[0]} is named twice.")
    if experiment.reference not in labels:
        raise BadInputError(
            f"{source}: reference: {shown(experiment.reference)!r} is none of the arms: {', '.join(labels)}."
        )
    _check_name(experiment.name, source)
    if not experiment.title.strip():
        raise BadInputError(f"{source}: title: is empty; say what is measured.")
    _check_datasets(experiment.datasets, experiment.workload, source)
    if problem := experiment.timing.problem():
        raise BadInputError(f"{source}: timing.{problem}.")
    contestants = {arm.label: (known[arm.design], arm.tunables) for arm in arms}
    axes = sweep.checked(experiment.sweep, experiment.grid, experiment.workload, contestants, source)
    points = sum(sweep.count(axes, experiment.grid, label) for label in labels)
    if (cells := points * len(experiment.datasets) * experiment.replicates) > MOST_CELLS:
        raise BadInputError(
            f"{source}: asks for {shown(cells)} cells, and a run takes {MOST_CELLS} at most; ask for fewer "
            "replicates, datasets or points of a sweep."
        )
    for label in labels:
        for point in sweep.points(experiment.workload, axes, experiment.grid, label):
            where = f"{source}: sweep: {point.label}" if point.label else str(source)
            _check_workload(point.workload, where)
            _check_model(experiment.model, point.workload, where)
            if why := designs.unsupported(contestants[label][0], point.workload):
                raise BadInputError(f"{where}: {label} {why}.")
    return dataclasses.replace(experiment, arms=tuple(arms), sweep=axes)


def _checked_arm(arm: Variant, design: designs.Design, versions: Collection[str], where: str) -> Variant:
    if design.compiled and arm.toolchain in ("", PYTORCH):
        raise BadInputError(f"{where}.toolchain: is missing; a compiled design needs an NVRTC version.")
    if design.compiled and arm.toolchain not in versions:
        raise BadInputError(
            f"{where}.toolchain: there is no toolchain {shown(arm.toolchain)!r}; known: "
            f"{', '.join(versions)}."
        )
    if design.name == STOCK and is_torch_version(arm.toolchain):
        return arm
    if not design.compiled and arm.toolchain not in ("", PYTORCH):
        raise BadInputError(f"{where}.toolchain: {arm.design} brings no kernel to compile; remove the key.")
    if arm.hot_rows != "held_out" and not design.prepares:
        raise BadInputError(f"{where}.hot_rows: {arm.design} pins no rows; remove the key.")
    for name, value in arm.tunables.items():
        if name not in design.tunables:
            options = ", ".join(design.tunables) or "none"
            raise BadInputError(
                f"{where}.tunables.{shown(name)}: {arm.design} has no such tunable; it has: {options}."
            )
        values = design.tunables[name].values
        if values and value not in values:
            raise BadInputError(f"{where}.tunables.{name}: {value} is none of {', '.join(map(str, values))}.")
    return arm if design.compiled else dataclasses.replace(arm, toolchain=PYTORCH)


def _check_name(name: str, source: Path | str) -> None:
    """A run's folder is called after its experiment, so the name must stay one folder's, in results/."""
    if not re.fullmatch(r"\w[\w .,@+-]{0,99}", name):
        raise BadInputError(
            f"{source}: name: {name[:60]!r} cannot name the run's folder; use at most 100 letters, digits, "
            "spaces, dots and dashes, a letter or digit first."
        )


def _check_datasets(names: Sequence[str], work: Workload, source: Path | str) -> None:
    taken: set[str] = set()
    for number, name in enumerate(names):
        dataset, where = dataset_of(name), f"{source}: datasets.{number}: {name!r}"
        if name == OWN_TRAFFIC and not any(group.own_traffic for group in work.groups):
            raise BadInputError(f"{where} is the traffic of a model's own tables, and here none has any.")
        short = slug(dataset.name)
        if dataset.path is not None:
            if (path := str(Path(name).absolute())) != readable(path):
                raise BadInputError(
                    f"{source}: datasets.{number}: {readable(path)}: is no UTF-8, as the files of a run "
                    "are; rename it, or import it to another place."
                )
            # A run's experiment.toml names traces that may be gone by now; it has copies of its own.
            own = source.parent / dataset.path if isinstance(source, Path) else None
            if not _is_trace(Path(name)) and not (own and own.is_file()):
                raise BadInputError(
                    f"{where} is neither a trace (a file of row numbers, or what `harness trace import` made)"
                    f" nor one of {', '.join(SYNTHETIC_DATASETS)}.{meant(name, SYNTHETIC_DATASETS)}"
                )
            if why := no_dataset_name(dataset.name):
                raise BadInputError(f"{where} {why}; rename it, for reports and files go by that name.")
        if short in taken:
            raise BadInputError(f"{source}: datasets: two are called {short!r}; rename one, or leave it out.")
        taken.add(short)


def _is_trace(path: Path) -> bool:
    return path.is_file() or (path / "trace.json").is_file()


def _check_workload(work: Workload, source: str) -> None:
    """Its sizes fit together."""
    if problem := work.problem():
        raise BadInputError(f"{source}: workload.{problem}.")


def _check_model(model: Model | None, work: Workload, source: str) -> None:
    """Every layer has a width, and the bottom's output can be multiplied with rows of the tables."""
    if model is None:
        return
    if problem := model.problem():
        raise BadInputError(f"{source}: model.{problem}.")
    if len(work.dims) > 1:
        raise BadInputError(
            f"{source}: model: multiplies the rows of all tables with each other, and these have "
            f"{work.dims[0]} to {work.dims[-1]} columns; leave the dense part out."
        )
    if model.bottom[-1] != work.dim:
        raise BadInputError(
            f"{source}: model.bottom: its last layer has {model.bottom[-1]} columns and the tables' rows have"
            f" {work.dim} (workload.dim); they are multiplied with each other, so make them equal."
        )
