"""What every command shares: mistakes end in one sentence and an exit code, never in a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from harness.cli import cli
from harness.cli.shared import SYNTHETIC
from harness.experiment import SYNTHETIC_DATASETS


def harness(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["run", "nothing"], 2, "nothing: is neither an experiment's file nor one of those in experiments/"),
        (["run", "--design", "basline"], 2, "There is no design 'basline'; known: baseline"),
        (["run", "paper", "--design", "optmt"], 2, "Give one of"),
        (["run", "--model", "dlrm_dcnv2"], 2, "--model goes with --design, which says what"),
        (["run", "paper", "--retry-failed"], 2, "--retry-failed goes with --resume"),
        (["run", "paper", "--set", "workload.tabels=3"], 2, "workload.tabels: is not a known key"),
        (["report", "nowhere"], 2, "nowhere: is not the folder of a run"),
    ],
)
def test_a_users_mistake_is_one_sentence(arguments: list[str], code: int, sentence: str) -> None:
    done = harness(*arguments)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = harness("report", "reference", "--output", str(tmp_path / "file" / "page.html"))
    assert done.returncode == 2
    assert f"{tmp_path}/file" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_nothing_large() -> None:
    assert "A first walk" in harness("--help").stdout
    code = "import sys, harness.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    standard = {"__main__", *sys.stdlib_module_names}
    loaded = {name for name in done.stdout.split() if name not in standard and not name.startswith("_")}
    assert loaded <= {"click", "harness", "sitecustomize", "typing_extensions"}


def _helps(command: click.Command, name: str, parent: click.Context | None = None) -> dict[str, str]:
    """By its command, what `--help` says on a terminal of 80 columns; of all that lies below it, too."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=80)
    found = {context.command_path: command.get_help(context)}
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            given = command.get_command(context, below)
            assert given is not None
            found |= _helps(given, below, context)
    return found


def test_help_fits_a_terminal_of_80_columns() -> None:
    helps = _helps(cli, "harness")
    assert {"harness run", "harness trace model"} <= helps.keys()
    wide = [f"{name}: {line}" for name, told in helps.items() for line in told.splitlines() if len(line) > 80]
    assert wide == []
    listed = [line for told in helps.values() for line in told.partition("Commands:")[2].splitlines()]
    assert [line for line in listed if line.endswith("...")] == []


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("harness trace stats", SYNTHETIC),
        ("harness trace synth", SYNTHETIC),
        ("harness run", SYNTHETIC_DATASETS),
        ("harness tune", SYNTHETIC_DATASETS),
    ],
)
def test_help_names_every_dataset(command: str, names: tuple[str, ...]) -> None:
    told = _helps(cli, "harness")[command].replace(",", " ").replace(".", " ").split()
    assert [name for name in names if name not in told] == []
