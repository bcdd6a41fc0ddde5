"""The command ``xbp``: train, check gradients, draw graphs, list backends, check one, measure.

Results go to standard output, progress and complaints to standard error. A user's mistake ends in
one message and exit status 2 (the command line is wrong) or 1 (what it asks for cannot be done).
"""

import platform
from importlib import metadata
from typing import Any

import click

import xbp
from xbp.cli.backends import backends
from xbp.cli.bench import bench
from xbp.cli.check import check
from xbp.cli.completion import completion
from xbp.cli.gradcheck import gradcheck
from xbp.cli.graph import graph
from xbp.cli.train import train
from xbp.errors import BackendNotFoundError, SettingError, XbpError


class _Commands(click.Group):
    """Turns errors that xbp raises on purpose into one message and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (XbpError, OSError) as error:
            raise _Failure(error) from error


class _Failure(click.ClickException):
    """What is printed of an error: its message alone."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        is_usage = isinstance(error, BackendNotFoundError | SettingError)
        self.exit_code = 2 if is_usage else 1  # type: ignore[misc]


def _print_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    """Print the versions of xbp, of Python and of the array libraries, without importing them."""
    if not wanted:
        return
    providers = metadata.packages_distributions()
    libraries = {name: providers.get(name.replace("-", "_")) for name in xbp.available_backends()}
    click.echo(f"xbp, version {xbp.__version__}")
    click.echo(f"Python {platform.python_version()}")
    for name, distributions in libraries.items():
        if distributions:
            click.echo(f"{name} {metadata.version(distributions[0])}")
    ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the versions of xbp and of the array libraries.",
)
def main() -> None:
    """Backpropagation you can read, on any array library."""


for command in (train, gradcheck, graph, backends, check, bench, completion):
    main.add_command(command)
