"""What may stand in an experiment's `datasets`, and the names that reports and files go by."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from harness import plan
from harness.errors import BadInputError
from harness.experiment import PAPER_DATASETS, SYNTHETIC_DATASETS, Experiment, checked, dataset_of, of_designs
from harness.traces import synth
from harness.traces.trace import write_trace


def with_datasets(*names: str) -> Experiment:
    return checked(dataclasses.replace(of_designs(["optmt"], "12.1"), datasets=names), "mine.toml")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with two traces in it."""
    monkeypatch.chdir(tmp_path)
    Path("day 1.txt").write_text("1\n", encoding="utf-8")
    write_trace(Path("day.2"), [(np.array([1]), 1.0)], rows=2, origin="test")
    return tmp_path


def test_synthetic_names_are_those_that_can_be_synthesised() -> None:
    assert (*PAPER_DATASETS, "skewed") == synth.NAMES
    assert (*synth.NAMES, "mixed", "own") == SYNTHETIC_DATASETS
    assert of_designs(["optmt"], "12.1").datasets == PAPER_DATASETS


def test_files_and_trace_folders_are_datasets(here: Path) -> None:
    made = with_datasets("day 1.txt", "day.2/", "mixed")
    found = {cell.dataset.name: cell.dataset for cell in plan.make(made).cells}
    assert {name: dataset.path for name, dataset in found.items()} == {
        "day 1": "traces/day-1.npy",
        "day": "traces/day.npy",
        "mixed": None,
    }


def test_an_override_names_a_trace_folder(here: Path) -> None:
    assert of_designs(["optmt"], "12.1", ['datasets=["day.2"]']).datasets == ("day.2",)


@pytest.mark.parametrize("name", ["x/day.2", "x/day.2/", "./day.2", "x/day.txt"])
def test_a_dataset_is_called_by_its_files_name(name: str) -> None:
    assert dataset_of(name).name == "day"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["low", "medum"], "datasets.1: 'medum' is neither a trace"),
        (["."], "datasets.0: '.' is neither a trace"),
        (["day 1.txt", "day-1.npy"], "datasets: two are called 'day-1'"),
        (["low", "low"], "datasets: two are called 'low'"),
        (["medium.txt"], "datasets.0: 'medium.txt' is called as the synthetic trace medium; rename it"),
        (["日.txt"], "datasets.0: '日.txt' has no plain letter or digit; rename it"),
    ],
)
def test_names_that_would_be_mixed_up_are_refused(here: Path, names: list[str], said: str) -> None:
    for name in ("day-1.npy", "medium.txt", "日.txt"):
        Path(name).write_text("1\n", encoding="utf-8")
    with pytest.raises(BadInputError, match=f"^mine.toml: {re.escape(said)}"):
        with_datasets(*names)
