"""An experiment: what to measure, read from `experiments/*.toml` and from flags, validated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from harness import designs
from harness.errors import BadInputError
from harness.records import SCHEMA_VERSION, Timing, Workload
from harness.validation import read_toml, validated

EXPERIMENTS_DIR = Path(__file__).resolve().parent.parent / "experiments"
SYNTHETIC_DATASETS = ("one_item", "high", "medium", "low", "random")
PYTORCH = "pytorch"
"""The toolchain of a design that brings no kernel of ours."""


@dataclass(frozen=True)
class Arm:
    """One contestant: a design as compiled by one toolchain, with its tunables."""

    __pydantic_config__ = {"extra": "forbid"}
    design: str
    toolchain: str = ""
    """NVRTC version; peers leave it out."""
    tunables: dict[str, int] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Its name in tables and file names, for example `combined@12.1` or `rpf_optmt@12.1,distance=4`."""
        tuned = "".join(f",{name}={value}" for name, value in sorted(self.tunables.items()))
        return self.design + (f"@{self.toolchain}" if self.toolchain != PYTORCH else "") + tuned


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run. Datasets are names of synthetic traces or paths of trace files."""

    __pydantic_config__ = {"extra": "forbid"}
    name: str
    title: str
    arms: tuple[Arm, ...]
    reference: str
    """Label of the arm that speedups are taken against."""
    datasets: tuple[str, ...] = SYNTHETIC_DATASETS
    workload: Workload = field(default_factory=Workload)
    timing: Timing = field(default_factory=Timing)
    replicates: int = 3
    """Fresh processes in which every cell is measured again."""
    seed: int = 1
    deadline_s: float = 600.0
    """A launch that has not finished by then is stopped; its unmeasured cells become `timeout`."""
    schema_version: int = SCHEMA_VERSION


def read(path: Path) -> Experiment:
    """Reads an experiment; BadInputError names file and key path of what does not fit."""
    raw = read_toml(path)
    version = raw.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BadInputError(f"{path}: schema_version: {version} is newer than this program's {SCHEMA_VERSION}.")
    return checked(validated(Experiment, {"name": path.stem, **raw}, path), path)


def checked(experiment: Experiment, source: Path | str) -> Experiment:
    """The experiment with every arm's toolchain filled in; BadInputError where parts do not fit together."""
    known = designs.discover()
    arms = []
    for number, arm in enumerate(experiment.arms):
        where = f"{source}: arms.{number}"
        if arm.design not in known:
            raise BadInputError(f"{where}.design: there is no design {arm.design!r}; known: {', '.join(known)}.")
        arms.append(_checked_arm(arm, known[arm.design], where))
    labels = [arm.label for arm in arms]
    if not arms or not experiment.datasets:
        raise BadInputError(f"{source}: {'datasets' if arms else 'arms'}: is empty.")
    if doubled := {label for label in labels if labels.count(label) > 1}:
        raise BadInputError(f"{source}: arms: {sorted(doubled)[0]} is named twice.")
    if experiment.reference not in labels:
        raise BadInputError(
            f"{source}: reference: {experiment.reference!r} is none of the arms: {', '.join(labels)}."
        )
    _check_numbers(experiment, source)
    return dataclasses.replace(experiment, arms=tuple(arms))


def _checked_arm(arm: Arm, design: designs.Design, where: str) -> Arm:
    if design.compiled and not arm.toolchain:
        raise BadInputError(f"{where}.toolchain: is missing; a compiled design needs an NVRTC version.")
    if not design.compiled and arm.toolchain not in ("", PYTORCH):
        raise BadInputError(f"{where}.toolchain: {arm.design} brings no kernel to compile; remove the key.")
    for name, value in arm.tunables.items():
        if name not in design.tunables:
            options = ", ".join(design.tunables) or "none"
            raise BadInputError(f"{where}.tunables.{name}: {arm.design} has no such tunable; it has: {options}.")
        values = design.tunables[name].values
        if values and value not in values:
            raise BadInputError(f"{where}.tunables.{name}: {value} is none of {', '.join(map(str, values))}.")
        if value < 0:
            raise BadInputError(f"{where}.tunables.{name}: {value} is negative.")
    return arm if design.compiled else dataclasses.replace(arm, toolchain=PYTORCH)


def _check_numbers(experiment: Experiment, source: Path | str) -> None:
    """Every size and count is at least what makes sense."""
    work, timing = experiment.workload, experiment.timing
    least: dict[str, tuple[float, float]] = {
        "replicates": (experiment.replicates, 1),
        "seed": (experiment.seed, 0),
        "deadline_s": (experiment.deadline_s, 1),
        "timing.warmup_passes": (timing.warmup_passes, 1),
        "timing.min_passes": (timing.min_passes, 3),
        "timing.max_passes": (timing.max_passes, timing.min_passes),
        "timing.max_seconds": (timing.max_seconds, 0),
        "timing.relative_interval": (timing.relative_interval, 0),
    } | {f"workload.{n}": (getattr(work, n), 1) for n in ("tables", "rows", "dim", "batch", "pooling")}
    for key, (value, minimum) in least.items():
        if not value >= minimum:
            raise BadInputError(f"{source}: {key}: {value} is less than {minimum:g}.")
    if work.index_dtype == "int32" and max(work.rows, work.lookups) >= 2**31:
        raise BadInputError(f"{source}: workload.index_dtype: int32 cannot number that many rows; use int64.")
