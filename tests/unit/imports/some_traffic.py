"""Traffic of three features for the tests beside it, and the command that makes a model of some."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from click.testing import CliRunner

from harness import models
from harness.cli import cli
from harness.errors import BadInputError
from harness.groups import TableGroup
from harness.traces import synth
from harness.traces.trace import array_blocks, write_trace

BAGS = 256
LENGTHS = np.stack(
    [
        np.ones(BAGS, np.int64),
        np.random.default_rng(1).poisson(6, BAGS),
        np.where(np.arange(BAGS) % 4, 0, 3),
    ]
)
ROWS = (400, 9_000, 5)
VALUES = [
    synth.zipf(rows, int(own.sum()), 7, s=s, q=2.0)
    for rows, own, s in zip(ROWS, LENGTHS, (1.1, 0.9, 0.1), strict=True)
]
NAMES = ["user", "item", "tag/7"]


def tensors() -> dict[str, Any]:
    return {
        "keys": list(NAMES),
        "values": torch.from_numpy(np.concatenate(VALUES)),
        "lengths": torch.from_numpy(LENGTHS.flatten()),
    }


def made(source: Path, *options: str) -> models.ModelFile:
    out = source.parent / "out.toml"
    ran = CliRunner().invoke(cli, ["trace", "model", str(source), str(out), "--dim", "8", *options])
    if ran.exception and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return models.read(str(out))


def refused(source: Path, *options: str) -> str:
    with pytest.raises(BadInputError) as error:
        made(source, *options)
    assert not (source.parent / "out.toml").exists()
    assert not list(source.parent.glob(".import*"))
    return str(error.value)


def saved(tmp_path: Path, value: Any) -> Path:
    torch.save(value, tmp_path / "traffic.pt")
    return tmp_path / "traffic.pt"


def each_table(model: models.ModelFile) -> list[TableGroup]:
    return [feature.group for feature in model.example().features]


def torchrecs_class() -> Any:
    """KeyedJaggedTensor, whose import warns of what it does not find."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
    return KeyedJaggedTensor


def check(model: models.ModelFile) -> None:
    """It has the rows and the bags of the traffic above."""
    tables = each_table(model)
    assert [table.rows for table in tables] == [int(own.max()) + 1 for own in VALUES]
    for table, lengths in zip(tables, LENGTHS, strict=True):
        assert table.lengths(BAGS) == tuple(sorted(lengths.tolist()))
    assert model.batch == BAGS
    assert tables[0].zipf_s > 0


def samples(which: slice) -> dict[str, Any]:
    """The parts of some samples."""
    ends = np.cumsum(LENGTHS, axis=1)[:, which]
    begins = ends[:, 0] - LENGTHS[:, which][:, 0]
    values = [own[begin:end] for own, begin, end in zip(VALUES, begins, ends[:, -1], strict=True)]
    lengths = LENGTHS[:, which].flatten()
    return {
        "keys": NAMES,
        "values": torch.from_numpy(np.concatenate(values)),
        "lengths": torch.from_numpy(lengths),
    }


def meta() -> tuple[torch.Tensor, ...]:
    offsets = np.concatenate([[0], np.cumsum(LENGTHS.flatten())])
    return tuple(torch.from_numpy(part) for part in (np.concatenate(VALUES), offsets, LENGTHS))


def traces(folder: Path, **lengths: npt.NDArray[np.int64]) -> Path:
    for name, values, rows in zip(("a", "b", "c"), VALUES, ROWS, strict=True):
        own = lengths.get(name)
        offsets = None if own is None else np.concatenate([[0], np.cumsum(own)])
        write_trace(folder / name, array_blocks(values), rows=rows, origin="here", offsets=offsets)
    return folder
