"""Models: their tables, read from `experiments/models/*.toml` or from what other programs write.

A model becomes the workload of an experiment; nothing downstream knows files.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from harness import codec, files, groups, tbe_config, workload
from harness.bounds import Range
from harness.errors import BadInputError
from harness.groups import OWN_TRAFFIC, TableGroup
from harness.records import Model, Workload
from harness.text import meant, shown
from harness.validation import FORBID_UNKNOWN, read_toml, validated

MODELS_DIR = Path(__file__).resolve().parent.parent / "experiments" / "models"
_USUAL = ("random", "skewed")
"""Datasets of a model whose tables have no traffic of their own."""
_OF_TABLES = ("tables", "rows", "dim", "pooling", "bags")
"""What of a workload follows from a model's tables."""


@dataclass(frozen=True)
class ModelFile:
    """A model's tables, in the order of their outputs."""

    __pydantic_config__ = FORBID_UNKNOWN
    title: str
    source: str
    """Where its figures are from."""
    tables: tuple[TableGroup, ...]
    dtype: Literal["float32", "float16", "bfloat16", "int8", "int4"] = "float32"
    """Of all tables: one call looks up rows of one type."""
    index_dtype: Literal["int64", "int32"] = "int64"
    mode: Literal["sum", "mean"] = "sum"
    weighted: bool = False
    batch: Annotated[int, Range(1, 2**20)] = 2048
    dense: Model | None = None
    """What is round the tables, for whole inferences."""
    name: str = field(default="", metadata={"from": "the file's name"})

    @property
    def own_traffic(self) -> bool:
        """Whether any table has one."""
        return any(group.own_traffic for group in self.tables)

    def workload(self, max_rows: int = 0) -> dict[str, Any]:
        """The fields of a `Workload`, plain. Larger tables than `max_rows` are cut down to so many; 0: none.

        Tables that are all alike, and have nothing of their own, are a workload without groups. BadInputError
        where tables would be cut down that replay traces, whose rows would then be missing."""
        least = max((group.rows for group in self.tables if group.trace), default=0)
        if 0 < max_rows < least:
            raise BadInputError(
                f"model.max_rows: {max_rows:,} would cut off rows that the traces of {self.name}'s tables "
                f"look up; make it {least:,} or more, or leave it out."
            )
        cut = tuple(
            dataclasses.replace(group, rows=max_rows, hottest=group.hottest[: max_rows - 1])
            if max_rows and group.rows > max_rows
            else group
            for group in self.tables
        )
        found: dict[str, Any] = {
            name: getattr(self, name) for name in ("dtype", "index_dtype", "mode", "weighted", "batch")
        }
        found |= workload.summary(cut)
        if cut != self.tables:
            found["max_rows"] = max_rows
        plain = TableGroup(cut[0].rows, cut[0].dim, cut[0].count, pooling=cut[0].pooling, bags=cut[0].bags)
        if cut == (plain,) and plain.bags != "normal":
            return found | {"bags": plain.bags}
        return found | {"groups": [codec.fields(group) for group in cut], "model": self.name}

    def example(self) -> Workload:
        """One batch of it, as it stands in the file."""
        return validated(Workload, self.workload(), self.name)


def names() -> list[str]:
    """Of the models that ship with the project."""
    return sorted(path.stem for path in MODELS_DIR.glob("*.toml"))


def find(name: str) -> Path:
    """A model's file: a path as given, or the name of one in `experiments/models/`."""
    if name in names():
        return MODELS_DIR / f"{name}.toml"
    if Path(name).is_file():
        return Path(name)
    if not name.strip():
        raise BadInputError("The model's name is empty; `harness models` lists those that there are.")
    raise BadInputError(
        f"{shown(name)}: is neither a model's file nor one of those in experiments/models/: "
        f"{', '.join(names())}.{meant(name, names())}"
    )


def read(name: str) -> ModelFile:
    """The model of that name, or of that file: TOML as in experiments/models/, or a .json of FBGEMM's
    TBEDataConfig. BadInputError names file and key path of what does not fit."""
    path = find(name)
    raw = tbe_config.read(path) if path.suffix.lower() == ".json" else read_toml(path)
    if "name" in raw:
        raise BadInputError(f"{path}: name: is not a known key; a model is called as its file, so remove it.")
    model = validated(ModelFile, raw | {"name": path.stem}, path)
    if not model.tables:
        raise BadInputError(f"{path}: tables: is empty.")
    model = _with_traces(model, path)
    for number, group in enumerate(model.tables):
        if problem := group.problem():
            raise BadInputError(f"{path}: tables.{number}.{problem}.")
    if problem := groups.problem(model.tables):
        raise BadInputError(f"{path}: tables: {problem}.")
    if problem := model.example().problem():
        raise BadInputError(f"{path}: {problem}.")
    if model.dense and (problem := model.dense.problem()):
        raise BadInputError(f"{path}: dense.{problem}.")
    return model


def _with_traces(model: ModelFile, path: Path) -> ModelFile:
    """The model with what the traces that its tables replay say of themselves."""
    tables = list(model.tables)
    for number, group in enumerate(tables):
        if group.trace:
            from harness.traces import recorded

            try:
                tables[number] = recorded.filled_in(group, path.parent)
            except BadInputError as error:
                raise BadInputError(f"{path}: tables.{number}.{error}") from error
    return dataclasses.replace(model, tables=tuple(tables))


def as_plain(model: ModelFile) -> dict[str, Any]:
    """What is known of a model, for JSON. Bytes are those of tables and of one batch's outputs."""
    work = model.example()
    return {
        "name": model.name,
        "title": model.title,
        "source": model.source,
        "tables": work.stored_tables,
        "features": work.tables,
        "columns": work.columns,
        "dtype": work.dtype,
        "mode": work.mode,
        "batch": work.batch,
        "lookups_per_sample": work.all_lookups / work.batch,
        "table_bytes": work.table_bytes,
        "output_bytes": work.all_output_bytes,
        "kinds": [
            {**dataclasses.asdict(kind), "rows_per_bag": kind.lookups(work.batch) / work.batch}
            for kind in work.kinds
        ],
    }


def applied(raw: dict[str, Any], source: Path | str) -> dict[str, Any]:
    """What an experiment says of a model by name, `[model] name = "…"`, as its workload and title.

    What the experiment itself says of the workload goes before what the model's file does. The dense part of
    a model is what is left of `[model]`. BadInputError where the model cannot be read.
    """
    given = raw.get("model")
    given = {"name": given} if isinstance(given, str) else given
    if not isinstance(given, dict):
        return raw
    named = {key: given[key] for key in ("name", "max_rows", "whole") if key in given}
    dense = {key: value for key, value in given.items() if key not in named}
    if "name" not in given:
        if named:
            raise BadInputError(f"{source}: model.{next(iter(named))}: is of a model's file; say model.name.")
        return raw
    asked = validated(_Named, named, f"{source}: model")
    if not asked.name.strip():
        key = "model.name" if isinstance(raw["model"], dict) else "model"
        raise BadInputError(f"{source}: {key}: is empty; `harness models` lists those that there are.")
    name = asked.name if isinstance(source, str) else _model_beside(asked.name, source.parent)
    model = read(name)
    work, own = model.workload(asked.max_rows), raw.get("workload", {})
    made = {key: value for key, value in raw.items() if key != "model"}
    if asked.whole:
        if model.dense is None:
            raise BadInputError(f"{source}: model.whole: {model.name} has no dense part in its file.")
        dense = codec.fields(model.dense) | dense
    made |= {"model": dense} if dense else {}
    if not isinstance(own, dict):
        raise BadInputError(f"{source}: workload: should be a table.")
    if problem := _leave_to_tables(own, raw.get("sweep"), work, model.name):
        raise BadInputError(f"{source}: {problem}.")
    made["workload"] = work | own
    made.setdefault("datasets", [OWN_TRAFFIC] if model.own_traffic else list(_USUAL))
    # Every output carries the title, so that nobody takes a model that was cut down for the whole.
    said = [f"{model.name}, batches of {made['workload']['batch']}"] if isinstance(source, str) else []
    said += [f"tables cut down to {asked.max_rows:,} rows"] if "max_rows" in work else []
    if said and isinstance(raw.get("title"), str):
        made["title"] = f"{raw['title']} ({'; '.join(said)})"
    return made


def _leave_to_tables(own: dict[str, Any], swept: Any, work: dict[str, Any], model: str) -> str:
    """What an experiment says otherwise than the tables of its model do; empty: nothing."""
    of_tables = {"bags": "fixed"} | {key: work[key] for key in _OF_TABLES if key in work}
    listed = swept if isinstance(swept, list) else []
    axes = [axis.get("key") for axis in listed if isinstance(axis, dict)]
    for key, remedy in {"max_rows": "say model.max_rows", "model": "model.name says it"}.items():
        if key in own and own[key] != work.get(key):
            return f"workload.{key}: is what the tables of {shown(model)} say of themselves; {remedy}"
    holds = (axis.get("hold") for axis in listed if isinstance(axis, dict))
    held = {key for hold in holds if isinstance(hold, dict) for key in hold}
    for key, value in of_tables.items():
        remedy = "say model.max_rows to cut tables down" if key == "rows" else "leave it to them"
        if key in own and own[key] != value:
            asked = f"workload.{key}: is {shown(own[key])}"
            return f"{asked}, and follows from the tables of {shown(model)} as {value}; {remedy}"
        if f"workload.{key}" in axes:
            return f"sweep: workload.{key} follows from the tables of {shown(model)}; {remedy}"
        if key in held:
            return f"sweep.hold: {key} follows from the tables of {shown(model)}; leave it to them"
    return ""


@dataclass(frozen=True)
class _Named:
    """What an experiment says of a model that is a file."""

    __pydantic_config__ = FORBID_UNKNOWN
    name: str
    max_rows: Annotated[int, Range(0, 2**40)] = 0
    whole: bool = False
    """Whether inferences of the whole model are timed, with the dense part in its file, too."""


def _model_beside(name: str, folder: Path) -> str:
    """A model's file, seen from the experiment's folder; the names of those that ship stay as they are."""
    return name if name in names() else files.beside(folder, name)
