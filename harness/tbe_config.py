"""Reads the JSON of FBGEMM's TBEDataConfig, by which its benchmarks describe a model's tables and traffic.

Fields: https://github.com/pytorch/FBGEMM, fbgemm_gpu/fbgemm_gpu/tbe/bench/tbe_data_config.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import codec, groups
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.text import meant, quoted, shown

_MOST_TABLES = 10_000
_INDICES = ("heavy_hitters", "zipf_q", "zipf_s", "index_dtype", "offset_dtype")
_FIELDS = {
    "batch_params": ("B", "sigma_B", "vbe_distribution", "vbe_num_ranks", "Bs"),
    "indices_params": _INDICES,
    "pooling_params": ("L", "sigma_L", "length_distribution", "Ls"),
}
"""Of the objects within."""
_OWN_FIELDS = ("T", "E", "D", "mixed_dim", "weighted", "use_cpu", "Es", "Ds", "max_indices", *_FIELDS)
_OWN_FIELDS += ("embedding_specs", "feature_table_map", "indices_params_list")


def read(path: Path) -> dict[str, Any]:
    """The fields of a `ModelFile`; BadInputError, with the key path, where the file describes none or asks
    for what is not measured: batches that vary between tables, dims drawn at random.

    Its traffic and its bags are kept: the heavy hitters' shares, behind them rank x in proportion to
    (x + q)^-s; bags of a mean length with a deviation are normally distributed, from 1 row on.
    """
    raw = codec.read_json(path)
    if not isinstance(raw, dict):
        raise BadInputError(f"{path}: is no TBEDataConfig: it holds no object.")
    config = _Config(raw, path, _OWN_FIELDS)
    batch, pooling = config.inner("batch_params"), config.inner("pooling_params")
    if batch.get("sigma_B"):
        raise BadInputError(f"{batch.place('sigma_B')}: a batch that varies between tables is not measured.")
    count = config.whole("T", 1, _MOST_TABLES)
    batches = batch.numbers("Bs", count)
    if batches and len(set(batches)) > 1:
        raise BadInputError(f"{batch.place('Bs')}: a batch that varies between tables is not measured.")
    samples = batch.whole("B", 1, 2**20)
    if batches and batches[0] != samples:
        raise BadInputError(
            f"{batch.place('Bs')}: are {batches[0]} each, and B is {samples}; make them equal."
        )
    lengths = pooling.numbers("Ls", count)
    deviation = pooling.number("sigma_L") if pooling.get("sigma_L") and not lengths else 0.0
    if deviation and pooling.get("length_distribution") not in (None, "normal"):
        raise BadInputError(
            f"{pooling.place('length_distribution')}: {quoted(pooling.get('length_distribution'))} is not "
            "measured; bags are normally distributed."
        )
    each = config.get("indices_params_list")
    if each is not None and (not isinstance(each, list) or len(each) != count):
        raise BadInputError(f"{config.place('indices_params_list')}: is no list of {count}.")
    shared = config.inner("indices_params")
    traffic = [
        _Config(one, path, _INDICES, f"indices_params_list.{n}.") for n, one in enumerate(each or ())
    ] or [shared] * count
    specs = _specs(config, count)
    tables = []
    for number, (rows, dim) in enumerate(specs):
        law = traffic[number]
        bag = int(lengths[number]) if lengths else pooling.whole("L", 1, 2**28)
        tables.append(
            TableGroup(
                rows,
                dim,
                pooling=bag,
                bags="normal" if deviation else "fixed",
                deviation=deviation,
                zipf_s=law.number("zipf_s", 64),
                zipf_q=law.number("zipf_q"),
                hottest=_hottest(law, rows),
            )
        )
    return {
        "title": path.stem,
        "source": f"FBGEMM's TBEDataConfig, {path.name}",
        "tables": [codec.fields(group) for group in groups.grouped(tables)],
        "weighted": config.flag("weighted"),
        "index_dtype": _index_dtype(traffic),
        "batch": samples,
    }


def _index_dtype(traffic: list[_Config]) -> str:
    """Of all features; int64 where none is told, which FBGEMM writes as a text."""
    told = [None if (name := one.get("index_dtype")) == "None" else name for one in traffic]
    for one, name in zip(traffic, told, strict=True):
        if name not in (None, "torch.int32", "torch.int64"):
            raise BadInputError(
                f"{one.place('index_dtype')}: {quoted(name)} is neither torch.int32 nor torch.int64."
            )
    found = {name or "torch.int64" for name in told}
    if len(found) > 1:
        raise BadInputError(
            f"{traffic[-1].place('index_dtype')}: features with row numbers of both types are not measured."
        )
    return found.pop().removeprefix("torch.")


def _specs(config: _Config, count: int) -> list[tuple[int, int]]:
    """Rows and columns of every feature's table."""
    if config.get("feature_table_map") is not None and config.get("feature_table_map") != list(range(count)):
        raise BadInputError(
            f"{config.place('feature_table_map')}: features that share a table are not taken over; write the "
            "model as TOML, with `features`."
        )
    pairs = config.pairs("embedding_specs", count)
    rows, dims = config.numbers("Es", count), config.numbers("Ds", count)
    differ = (rows and rows != [row for row, _ in pairs]) or (dims and dims != [dim for _, dim in pairs])
    if pairs and differ:
        raise BadInputError(f"{config.place('embedding_specs')}: are other tables than those of Es and Ds.")
    if pairs:
        return pairs
    rows = rows or [config.whole("E", 1, 2**40)] * count
    if not dims:
        if config.flag("mixed_dim"):
            raise BadInputError(f"{config.place('mixed_dim')}: dims are drawn at random; let Ds list them.")
        dims = [config.whole("D", 1, 2**16)] * count
    return [(int(row), int(dim)) for row, dim in zip(rows, dims, strict=True)]


class _Config:
    """An object of the file with no other fields than these, and where it stands there."""

    def __init__(self, raw: Any, path: Path, fields: Sequence[str], within: str = "") -> None:
        if not isinstance(raw, dict):
            raise BadInputError(f"{path}: {within.rstrip('.')}: is no object.")
        self._raw, self._path, self._within = raw, path, within
        if (unknown := next((name for name in raw if name not in fields), None)) is not None:
            raise BadInputError(
                f"{self.place(shown(unknown))}: is no field of FBGEMM's.{meant(unknown, fields)}"
            )

    def place(self, name: str) -> str:
        return f"{self._path}: {self._within}{name}"

    def get(self, name: str) -> Any:
        return self._raw.get(name)

    def inner(self, name: str) -> _Config:
        if name not in self._raw:
            raise BadInputError(f"{self.place(name)}: is missing, so this is no TBEDataConfig.")
        return _Config(self._raw[name], self._path, _FIELDS[name], f"{self._within}{name}.")

    def number(self, name: str, most: float = 1e12) -> float:
        value = self._raw.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
            raise BadInputError(f"{self.place(name)}: {quoted(value)} is no number from 0 to {most:g}.")
        return float(value)

    def whole(self, name: str, least: int, most: int) -> int:
        return self._whole(self.place(name), self._raw.get(name), least, most)

    def numbers(self, name: str, count: int) -> list[int]:
        """A list of so many whole numbers; empty where there is none."""
        values = self._raw.get(name)
        if values is None:
            return []
        if not isinstance(values, list) or len(values) != count:
            raise BadInputError(f"{self.place(name)}: is no list of {count} numbers, one for each table.")
        return [self._whole(f"{self.place(name)}.{n}", value, 1, 2**40) for n, value in enumerate(values)]

    def pairs(self, name: str, count: int) -> list[tuple[int, int]]:
        """Rows and columns of so many tables, and perhaps where they lie; empty where there are none."""
        values = self._raw.get(name)
        if values is None:
            return []
        if not isinstance(values, list) or len(values) != count:
            raise BadInputError(f"{self.place(name)}: is no list of {count} tables.")
        found = []
        for n, value in enumerate(values):
            place = f"{self.place(name)}.{n}"
            if not isinstance(value, list) or len(value) < 2:
                raise BadInputError(f"{place}: {quoted(value)} does not give rows and columns.")
            rows, dim = (self._whole(f"{place}.{at}", value[at], 1, 2**40) for at in (0, 1))
            found.append((rows, dim))
        return found

    def flag(self, name: str) -> bool:
        """Whether it is so; not where nothing is told."""
        value = self._raw.get(name)
        if not isinstance(value, bool | None):
            raise BadInputError(f"{self.place(name)}: {quoted(value)} is neither true nor false.")
        return bool(value)

    def shares(self, name: str) -> list[float]:
        values = self._raw.get(name) or []
        if not isinstance(values, list) or not all(
            isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
            for value in values
        ):
            raise BadInputError(f"{self.place(name)}: is no list of shares, from 0 to 1 each.")
        if sum(values) > 1 + 1e-6:
            raise BadInputError(f"{self.place(name)}: are {sum(values):g} together, more than all lookups.")
        return [float(value) for value in values]

    @staticmethod
    def _whole(place: str, value: Any, least: int, most: int) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # Ls are written as floats
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise BadInputError(f"{place}: {quoted(value)} is no whole number from {least} to {most}.")
        return value


def _hottest(law: _Config, rows: int) -> tuple[float, ...]:
    """The heavy hitters' shares; that of a last row follows from the others."""
    shares = law.shares("heavy_hitters")
    if len(shares) > rows:
        raise BadInputError(
            f"{law.place('heavy_hitters')}: {len(shares)} shares are more than the table's {rows} rows."
        )
    return tuple(shares[: rows - 1])
