"""``xbp completion``."""

import click
from click.shell_completion import get_completion_class

from xbp.cli.common import echo


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which a shell completes the commands and options of xbp.

    For bash, write to ~/.bashrc:  eval "$(xbp completion bash)"
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} is not known to this version of click")
    echo(kind(ctx.find_root().command, {}, "xbp", "_XBP_COMPLETE").source())
