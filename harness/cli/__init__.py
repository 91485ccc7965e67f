"""The command line: wiring only. Each command imports what it needs, so that `harness --help` is instant.

One module per group of commands; a new one is added to `COMMANDS`.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from harness import __version__
from harness.cli import history, making, measuring, profiling, traces, verdicts
from harness.errors import BadInputError, HarnessError, is_full, unwritable
from harness.signals import as_interrupt
from harness.text import clean

COMMANDS = (
    making.designs,
    making.doctor,
    making.compile_,
    making.build,
    measuring.run,
    measuring.report,
    history.runs,
    profiling.profile,
    verdicts.compare,
    traces.trace,
    verdicts.selftest,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Measures embedding-lookup kernels on GPUs, each design in a container of its own.

    \b
    A first walk:
      harness doctor               what this machine can do, and what is missing
      harness designs              the kernel variants there are
      harness compile              compile them, on any machine; registers and occupancy
      harness run --design combined    measure baseline and combined; writes report.html
    """


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Entry point: a user's mistake or a machine's lack is one sentence and an exit code, not a traceback."""
    try:
        with as_interrupt():
            code = _exit_code()
            sys.stdout.flush()  # so that a full disk shows here, where it can still be told
        sys.exit(code)
    except HarnessError as error:
        _end(str(error), error.exit_code)
    except OSError as error:
        if error.filename is not None and not is_full(error):
            _end(f"{error.filename}: {error.strerror}; choose another place.", BadInputError.exit_code)
        if not is_full(error):
            raise
        if error.filename is None:  # what is still to be written there would fail again at the very end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        full = unwritable(error.filename or "the standard output", error)
        _end(str(full), full.exit_code)
    except MemoryError:
        _end("there is not enough memory for this; ask for less, or close other programs.", 5)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end("interrupted.", 130)


def _exit_code() -> str | int | None:
    try:
        code: int | None = cli.main(standalone_mode=False)
    except SystemExit as end:
        return end.code
    return code


def _end(sentence: str, exit_code: int) -> NoReturn:
    click.echo(f"harness: {clean(sentence)}", err=True)
    sys.exit(exit_code)
