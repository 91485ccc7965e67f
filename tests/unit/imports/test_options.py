"""Options of `harness trace model` that do not go with each other, or with the traffic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from harness.cli import cli
from tests.unit.imports.some_traffic import each_table, made, refused, saved, tensors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dim", "nobody=4"], "--dim nobody: "),
        (["--rows", "nobody=4"], "has no feature of that name"),
        (["--pooling", "4"], "has bags of its own; --pooling is for folders of traces"),
        (
            ["--mode", "mean"],
            "traffic.pt: makes no model with these options: weighted: sample weights go with",
        ),
    ],
)
def test_options_that_do_not_go_with_the_traffic(tmp_path: Path, options: list[str], said: str) -> None:
    parts = tensors()
    parts["weights"] = torch.rand(len(parts["values"]))
    assert said in refused(saved(tmp_path, parts), *options)


def test_every_table_needs_a_width(tmp_path: Path) -> None:
    path, out = saved(tmp_path, tensors()), str(tmp_path / "out.toml")
    ran = CliRunner().invoke(cli, ["trace", "model", str(path), out, "--dim", "user=4"])
    assert "--dim: say how many columns the table of item has." in str(ran.exception)
    ran = CliRunner().invoke(cli, ["trace", "model", str(path), out, "--dim", "user=x"])
    assert "'user=x' is neither N nor NAME=N" in ran.output
    assert ran.exit_code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dim", "8", "--dim", "16"], "'--dim': all features have 8 and 16; give one."),
        (["--dim", "8", "--dim", "user=16", "--dim", "user=16"], "'--dim': user has 16 and 16; give one."),
        (["--dim", "8", "--rows", "user=5", "--rows", "user=6"], "'--rows': user has 5 and 6; give one."),
        (["--dim", "65537"], "'--dim': '65537' is neither N nor NAME=N, with N from 1 to 65536."),
        (["--dim", "user=0"], "'user=0' is neither N nor NAME=N"),
        (["--dim", "8", "--rows", "00"], "'00' is neither N nor NAME=N"),
        (["--dim", "8", "--rows", f"{2**40 + 1}"], f"with N from 1 to {2**40}."),
        (["--dim", "8", "--rows", "9" * 5000], f"with N from 1 to {2**40}."),
    ],
)
def test_numbers_that_are_none_or_two(tmp_path: Path, options: list[str], said: str) -> None:
    path, out = saved(tmp_path, tensors()), tmp_path / "out.toml"
    ran = CliRunner().invoke(cli, ["trace", "model", str(path), str(out), *options])
    assert said in ran.output
    assert (ran.exit_code, out.exists()) == (2, False)


def test_numbers_are_read_to_their_last_digit(tmp_path: Path) -> None:
    model = made(
        saved(tmp_path, tensors()), "--rows", "000000000010000", "--dim", "user=" + "0" * 5000 + "65536"
    )
    assert [(table.rows, table.dim) for table in each_table(model)] == [
        (10_000, 65536),
        (10_000, 8),
        (10_000, 8),
    ]
