"""What the commands share: options, the way to a backend and to data, tables."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from typing import Any, TypeVar

import click
import rich.table
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.progress import track
from rich.text import Text

import xbp
from xbp.backend import Backend
from xbp.cli.result import to_json
from xbp.datasets.formats import NAMED

Item = TypeVar("Item")

# The exit status of what Ctrl-C ended.
INTERRUPTED = 130


def complete_backend(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the backends' names that begin so; none that a shell would take for something else."""
    return [
        name
        for name in xbp.available_backends()
        if name.startswith(incomplete) and name.isprintable() and " " not in name
    ]


def complete_data(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the data sets' names that begin so, and let the shell look for files."""
    named = [CompletionItem(name) for name in NAMED if name.startswith(incomplete)]
    return named or [CompletionItem(incomplete, type="file")]


# How many of something: no more than an array can be long.
count_type = click.IntRange(1, 2**31 - 1)

# What a shell completes by the names of files and folders.
file_type, folder_type = click.Path(), click.Path(file_okay=False)

backend_option = click.option(
    "--backend",
    metavar="SPEC",
    help="Array library, and device: numpy, torch:cuda:0, jax ...",
    shell_complete=complete_backend,
)
dtype_option = click.option("--dtype", type=click.Choice(["float32", "float64"]))
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
data_dir_option = click.option(
    "--data-dir",
    metavar="DIR",
    type=folder_type,
    help="Folder of the MNIST files; else they are downloaded.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def start(spec: str | None) -> Backend:
    """Return the backend to work on, in full precision: this process is the command's own."""
    backend = xbp.get_backend(spec)
    backend.enable_float64()
    return backend


# The doors to the terminal. Nothing else in xbp.cli prints, and a test holds that: whoever names a
# file, a plugin or a version has written a part of what is printed.


def printable(text: str) -> str:
    """Return text without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def echo(text: str, *, err: bool = False) -> None:
    """Print a text on standard output, or on standard error: there, if somebody can read it."""
    with suppress(OSError) if err else nullcontext():
        click.echo(printable(text), err=err)


def echo_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object: what is not ASCII is escaped there already, but for one character."""
    click.echo(to_json(values).replace("\x7f", "\\u007f"))


class Table(rich.table.Table):
    """A table of plain texts: nothing in them is markup."""

    def add_row(self, *cells: Any, **settings: Any) -> None:
        """Add a row of texts, and of what `styled` returns."""
        super().add_row(*map(_plain, cells), **settings)


def table(*columns: str, title: str = "") -> Table:
    """Return an empty table with these columns."""
    empty = Table(title=_plain(title) if title else None)
    for column in columns:
        # A word that is too long goes on in the next line: half a message is none.
        empty.add_column(_plain(column), overflow="fold")
    return empty


def styled(text: str, style: str) -> Text:
    """Return the text of a cell in a style, ``"green"``."""
    return Text(printable(text), style)


def _plain(cell: str | Text) -> Text:
    return cell if isinstance(cell, Text) else Text(printable(cell))


def show(shown: Table) -> None:
    """Print a table on standard output."""
    Console().print(shown)


def width_for_curves() -> int | None:
    """Return how wide standard output is, in characters; None if it has no signs for a curve."""
    console = Console()
    return console.width if console.encoding.startswith("utf") else None


def tracked(items: Iterable[Item], description: str) -> Iterable[Item]:
    """Return the items, and show on standard error how many are done."""
    console = Console(stderr=True)
    return track(
        items, description, console=console, transient=True, disable=not console.is_terminal
    )
