"""The command ``xbp``: train, check gradients, draw graphs, list backends, check one, measure.

Results go to standard output, progress and messages to standard error. A user's mistake ends in
one message, and exit status 2 if the command line is wrong, else 1.
"""

import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module, metadata
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import click

import xbp
from xbp.cli.common import echo, printable
from xbp.errors import BackendNotFoundError, SettingError, XbpError

# Each is in the module of its name, which is imported when the command is called or listed.
COMMANDS = ("train", "gradcheck", "graph", "backends", "check", "bench", "completion")


class _Commands(click.Group):
    """Turns errors that xbp raises on purpose into one message and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        # Of an unknown name, click tells which of them is the nearest.
        for known in [name] if name in COMMANDS else COMMANDS:
            self.add_command(getattr(import_module(f"xbp.cli.{known}"), known))
        return super().get_command(ctx, name)

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
    """Turn an error into one message, of printable characters."""
    try:
        try:
            yield
        except BrokenPipeError:
            raise  # click then ends silently, since nobody reads the output
        except OSError as error:
            # An error without a file's name is one of printing.
            where = f"{error.filename}" if error.filename else "the output"
            raise _Failure(f"{where}: {error.strerror or error}") from error
        except MemoryError as error:
            raise _Failure(f"not enough memory for such sizes ({error})") from error
        except XbpError as error:
            raise _Failure(str(error), is_usage=isinstance(error, _USAGE)) from error
    except click.ClickException as error:
        text, show = printable(error.format_message()), error.show

        def show_if_possible(file: IO[Any] | None = None) -> None:
            with suppress(OSError):  # if it cannot be printed, there is the exit status
                show(file)

        error.format_message = lambda: text  # type: ignore[method-assign]
        error.show = show_if_possible  # type: ignore[method-assign]
        raise


# Errors of the command line.
_USAGE = (BackendNotFoundError, SettingError)


def _prepare_streams() -> None:
    """Let all text be printed: to a closed stream, and in an encoding that lacks a character."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115  until the process ends
        elif isinstance(getattr(sys, name), TextIOWrapper):
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    echo(f"Warning: {message}", err=True)


class _Failure(click.ClickException):
    """An error that is printed as its message alone."""

    def __init__(self, message: str, is_usage: bool = False) -> None:
        super().__init__(printable(message))
        self.exit_code = 2 if is_usage else 1  # type: ignore[misc]


def _print_version(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    """Print the versions of xbp, of Python and of the array libraries, without importing them."""
    if not value:
        return
    echo(f"xbp, version {xbp.__version__}")
    echo(f"Python {platform.python_version()}")
    for name in xbp.available_backends():
        if version := _version(name):
            echo(f"{name} {version}")
    ctx.exit()


def _version(library: str) -> str | None:
    """Return the version of a library, without importing it; None if it is not installed."""
    try:
        distributions = metadata.packages_distributions().get(library.replace("-", "_"), [])
        return metadata.version(distributions[0]) if distributions else None
    except Exception:  # a damaged installation may cause any error
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
