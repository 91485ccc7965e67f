"""The command that teaches the shell this program's words: completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(short_help="Print what makes the shell complete commands and names.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes the SHELL complete commands, options, designs, datasets and runs.

    \b
      eval "$(harness completion bash)"     in ~/.bashrc
      eval "$(harness completion zsh)"      in ~/.zshrc
      harness completion fish | source      in ~/.config/fish/config.fish
    """
    made = get_completion_class(shell)
    assert made is not None
    program = click.get_current_context().find_root()
    assert isinstance(program.command, click.Command)
    click.echo(made(program.command, {}, "harness", "_HARNESS_COMPLETE").source())
