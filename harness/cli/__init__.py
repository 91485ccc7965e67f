"""The command line: wiring only. Each command imports what it needs, so that `harness --help` is instant.

One module per group of commands; a new one is added to `COMMANDS`.
"""

from __future__ import annotations

import sys

import click

from harness import __version__
from harness.cli import baseline, history, making, measuring, profiling, traces, verdicts
from harness.errors import BadInputError, HarnessError

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
    baseline.baseline,
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
        sys.exit(cli.main(standalone_mode=False))
    except HarnessError as error:
        click.echo(f"harness: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        click.echo(f"harness: {error.filename}: {error.strerror}; choose another place.", err=True)
        sys.exit(BadInputError.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("harness: interrupted.", err=True)
        sys.exit(130)
