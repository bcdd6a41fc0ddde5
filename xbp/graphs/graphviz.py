"""The way to Graphviz, which lays graphs out and draws them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from xbp.errors import BackendUnavailableError, DataError

FONT = "DejaVu Sans"

# The fonts of this machine, and matplotlib's for a machine that has none.
_FONTS = """<?xml version="1.0"?>
<fontconfig>
<include ignore_missing="yes">/etc/fonts/fonts.conf</include>
<dir>{}</dir>
</fontconfig>
"""


def render(dot: str, form: str) -> bytes:
    """Return a picture of a graph.

    Parameters
    ----------
    dot
        The graph in Graphviz's language.
    form
        ``"svg"`` or ``"png"``.

    Raises
    ------
    BackendUnavailableError
        If pygraphviz is not installed.
    DataError
        If it finds no place for its temporary files.
    """
    try:
        picture: bytes = _graphviz().AGraph(string=dot).draw(format=form, prog="dot")
    except OSError as error:
        raise DataError(
            f"Graphviz needs a temporary file ({error.strerror or error}): make room in "
            f"{gettempdir()}, or let TMPDIR name another folder"
        ) from error
    return picture


@cache
def _graphviz() -> Any:
    try:
        import pygraphviz  # noqa: PLC0415  an extra

        # Slow to import, and for its fonts alone.
        from matplotlib import get_data_path  # noqa: PLC0415
    except ImportError as error:
        raise BackendUnavailableError(
            "a picture of a graph needs pygraphviz: pip install pygraphviz; its Mermaid text does "
            "not"
        ) from error
    # Fonts are looked for once in a process. The library in pygraphviz is older than the files
    # on most machines that say where they are, and complains of each word that it does not know.
    with TemporaryDirectory() as folder, _silenced():
        fonts = Path(folder) / "fonts.conf"
        fonts.write_text(_FONTS.format(Path(get_data_path()) / "fonts" / "ttf"))
        before = os.environ.get("FONTCONFIG_FILE")
        os.environ["FONTCONFIG_FILE"] = str(fonts)
        try:
            pygraphviz.AGraph(string="digraph { a }").draw(format="png", prog="dot")
        finally:
            if before is None:
                del os.environ["FONTCONFIG_FILE"]
            else:
                os.environ["FONTCONFIG_FILE"] = before
    return pygraphviz


@contextmanager
def _silenced() -> Iterator[None]:
    """Send what C libraries print on standard error nowhere."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
