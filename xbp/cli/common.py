"""What the commands share: options, the way to a backend and to data, tables."""

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import click
import rich.table
from click.shell_completion import CompletionItem
from rich.console import Console
from rich.progress import track
from rich.text import Text

import xbp
from xbp.backend import Backend
from xbp.datasets import load_digits, load_mnist, load_npz
from xbp.datasets.digits import DARKEST
from xbp.datasets.mnist import BRIGHTEST
from xbp.errors import DataError, SettingError
from xbp.files import as_path
from xbp.saving import to_json

MOST_CLASSES = 100_000

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
    named = [CompletionItem(name) for name in ("digits", "mnist") if name.startswith(incomplete)]
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


@dataclass(frozen=True)
class Data:
    """Samples and targets on the host, pixels as they are.

    Attributes
    ----------
    train, test : tuple of two arrays
        ``x`` and ``t``; a test of None and None is none.
    divisor : float or None
        What a network divides the samples by.
    image_shape : tuple of two int or None
        Height and width, if the samples are images.
    """

    train: tuple[Any, Any]
    test: tuple[Any, Any]
    divisor: float | None = None
    image_shape: tuple[int, int] | None = None

    def sha256(self) -> str:
        """Return a digest of all samples and targets."""
        found = hashlib.sha256()
        for array in (*self.train, *self.test):
            if array is not None:
                found.update(f"{array.dtype} {array.shape}".encode())
                found.update(array.tobytes())
        return found.hexdigest()


def load(name: str, data_dir: str | None) -> Data:
    """Return the data that a command names."""
    if name == "digits":
        return Data(*load_digits(normalize=False, backend="numpy"), DARKEST, (8, 8))
    if name == "mnist":
        if data_dir is not None:
            as_path(data_dir)
        loaded = load_mnist(normalize=False, backend="numpy", data_dir=data_dir)
        return Data(*loaded, BRIGHTEST, (28, 28))
    if Path(name).suffix == ".npz":
        (x, t), test = load_npz(name)
        for kind, samples, targets in (("training", x, t), ("test", *test)):
            # Before a network is built for them.
            if samples is not None and (
                0 in samples.shape or samples.shape[:1] != targets.shape[:1]
            ):
                raise DataError(
                    f"{name}: {kind} data: as many targets as samples are needed, and one of them "
                    f"at least, got shapes {samples.shape} and {targets.shape}"
                )
        if test[0] is not None and (x.dtype == "uint8") != (test[0].dtype == "uint8"):
            raise DataError(
                f"{name}: x_train is of {x.dtype}, x_test of {test[0].dtype}: bytes are divided by "
                "255, and nothing else is: give both as bytes, or both as other numbers"
            )
        # (N, H, W), or (N, 1, H, W).
        is_image = x.ndim > 2 and prod(x.shape[1:]) == prod(x.shape[-2:])  # noqa: PLR2004
        is_bytes = x.dtype == "uint8"
        return Data(
            (x, t),
            test,
            divisor=BRIGHTEST if is_bytes else None,
            image_shape=x.shape[-2:] if is_image else None,
        )
    raise SettingError(f"the data are digits, mnist or a file that ends in .npz, not {name!r}")


def class_count(t: Any, source: str) -> int:
    """Return the number of classes among labels, or the width of one-hot targets."""
    if t.ndim == 2 and t.shape[1] > 1:  # noqa: PLR2004
        return int(t.shape[1])
    if t.ndim != 1 or t.size == 0 or t.dtype.kind not in "iu":
        raise DataError(
            f"{source}: targets are integer labels (N,) or one-hot (N, C), got {t.dtype} of shape "
            f"{t.shape}{_how_to_number(t)}"
        )
    if t.min() < 0:
        raise DataError(f"{source}: labels are numbered from 0, but one is {t.min()}")
    classes = int(t.max()) + 1
    if classes > MOST_CLASSES:
        raise DataError(
            f"{source}: the largest label, {classes - 1}, would need {classes:,} outputs: number "
            "the classes from 0 without gaps"
        )
    return classes


def _how_to_number(t: Any) -> str:
    if t.ndim != 1:
        return ""
    if t.dtype.kind in "UST":
        return ": number the classes, names, t = np.unique(t, return_inverse=True)"
    return ": labels become integers by .astype(int)"


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
