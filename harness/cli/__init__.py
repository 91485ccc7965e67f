"""The command line: wiring only. Each command imports what it needs, so that `harness --help` is instant.

One module per group of commands; a new one is added to `COMMANDS`.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from harness import __version__
from harness.cli import (
    baseline,
    completion,
    history,
    images,
    joining,
    making,
    measuring,
    obstacles,
    profiling,
    surroundings,
    traces,
    tuning,
    verdicts,
    verifying,
)
from harness.signals import as_interrupt
from harness.text import clean

COMMANDS = (
    making.designs,
    making.models,
    making.doctor,
    making.compile_,
    making.check,
    making.build,
    images.images,
    measuring.run,
    measuring.report,
    history.runs,
    history.history,
    joining.merge,
    joining.pack,
    joining.unpack,
    profiling.profile,
    tuning.tune,
    verdicts.compare,
    traces.trace,
    verdicts.selftest,
    verifying.verify,
    baseline.baseline,
    completion.completion,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Measures embedding-lookup kernels on GPUs, each design in a container of its own.

    \b
    A first walk:
      harness doctor               what this machine can do, and what is missing
      harness designs              the kernel variants there are
      harness models               the models whose tables they can be measured on
      harness compile              compile them, on any machine
      harness check                run them on the CPU, every access watched
      harness run kernels          measure ours, PyTorch's and FBGEMM's
      harness runs                 what was measured, ours too
      harness history              one experiment over time: what changed
      harness report reference/kernels  our measurements of them as a page

    \b
    Exit codes: 0  done
                1  a defect of ours
                2  bad input
                5  this machine cannot do it
                6  done, but some cells carry no measurement or profile
                7  measured, but not shown; the records are there
                130  interrupted
    """
    obstacles.require_working_directory()


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Entry point: a user's mistake or a machine's lack is one sentence and an exit code, not a traceback."""
    surroundings.prepare()
    try:
        with as_interrupt():
            code = _exit_code()
            sys.stdout.flush()  # here, where a full disk can still be told
        sys.exit(code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end("interrupted.", 130)
    except Exception as error:
        if (told := obstacles.obstacle(error)) is None:
            raise
        _end(str(told), told.exit_code)


def _exit_code() -> str | int | None:
    try:
        code: int | None = cli.main(standalone_mode=False)
    except SystemExit as end:
        return end.code
    return code


def _end(sentence: str, exit_code: int) -> NoReturn:
    click.echo(f"harness: {clean(sentence)}", err=True)
    sys.exit(exit_code)
