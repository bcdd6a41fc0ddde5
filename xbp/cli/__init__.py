"""The command ``xbp``: train, check gradients, draw graphs, list backends, check one, measure.

Results go to standard output, progress and complaints to standard error. A user's mistake ends in
one message and exit status 2 (the command line is wrong) or 1 (what it asks for cannot be done).
"""

import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import click

import xbp
from xbp.cli.backends import backends
from xbp.cli.bench import bench
from xbp.cli.check import check
from xbp.cli.common import echo, printable
from xbp.cli.completion import completion
from xbp.cli.gradcheck import gradcheck
from xbp.cli.graph import graph
from xbp.cli.train import train
from xbp.errors import BackendNotFoundError, SettingError, XbpError


class _Commands(click.Group):
    """Turns errors that xbp raises on purpose into one message and an exit status."""

    def main(self, *args: Any, **settings: Any) -> Any:
        _prepare_streams()
        return super().main(*args, **{"prog_name": "xbp", **settings})

    def make_context(self, *args: Any, **settings: Any) -> click.Context:
        with _one_message():
            return super().make_context(*args, **settings)

    def invoke(self, ctx: click.Context) -> Any:
        with warnings.catch_warnings(), _one_message():
            warnings.showwarning = _show_warning
            return super().invoke(ctx)


@contextmanager
def _one_message() -> Iterator[None]:
    """Turn errors into one message; what it repeats of a command line or a name is printable."""
    try:
        try:
            yield
        except BrokenPipeError:
            raise  # click ends silently: nobody reads what is printed
        except OSError as error:
            # Without a file's name it comes from what is printed.
            where = f"{error.filename}" if error.filename else "the output"
            raise _Failure(f"{where}: {error.strerror or error}") from error
        except MemoryError as error:
            raise _Failure(f"not enough memory for such sizes ({error})") from error
        except XbpError as error:
            raise _Failure(str(error), is_usage=isinstance(error, _USAGE)) from error
    except click.ClickException as error:
        text, show = printable(error.format_message()), error.show

        def show_if_possible(file: IO[Any] | None = None) -> None:
            with suppress(OSError):  # where nobody can read it, the status tells
                show(file)

        error.format_message = lambda: text  # type: ignore[method-assign]
        error.show = show_if_possible  # type: ignore[method-assign]
        raise


# Of these the command line is wrong.
_USAGE = (BackendNotFoundError, SettingError)


def _prepare_streams() -> None:
    """See that everything can be printed: on a closed stream, and in an alphabet that lacks it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  for as long as we run
        elif isinstance(getattr(sys, name), TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    echo(f"Warning: {message}", err=True)


class _Failure(click.ClickException):
    """What is printed of an error: its message alone."""

    def __init__(self, message: str, is_usage: bool = False) -> None:
        super().__init__(printable(message))
        self.exit_code = 2 if is_usage else 1  # type: ignore[misc]


def _print_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    """Print the versions of xbp, of Python and of the array libraries, without importing them."""
    if not wanted:
        return
    echo(f"xbp, version {xbp.__version__}")
    echo(f"Python {platform.python_version()}")
    for name in xbp.available_backends():
        if version := _installed(name):
            echo(f"{name} {version}")
    ctx.exit()


def _installed(library: str) -> str | None:
    """Return the version of a library, without importing it."""
    try:
        distributions = metadata.packages_distributions().get(library.replace("-", "_"), [])
        return metadata.version(distributions[0]) if distributions else None
    except Exception:  # whatever somebody has put into the folder of packages
        return None


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
