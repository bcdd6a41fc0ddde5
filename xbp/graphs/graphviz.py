"""Drawing with Graphviz, through pygraphviz."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from xbp.errors import BackendUnavailableError, DataError

FONT = "DejaVu Sans"

# The machine's fonts, and those of matplotlib in case it has none.
_FONTS = """<?xml version="1.0"?>
<fontconfig>
<include ignore_missing="yes">/etc/fonts/fonts.conf</include>
<dir>{}</dir>
</fontconfig>
"""


def render(dot: str, form: str) -> bytes:
    """Return a picture of a graph as the bytes of a file.

    Parameters
    ----------
    dot
        The graph in DOT, Graphviz's language.
    form
        ``"svg"`` or ``"png"``.

    Raises
    ------
    BackendUnavailableError
        If pygraphviz or matplotlib is not installed.
    DataError
        If its temporary file cannot be written.
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

        # Imported here, since it is slow and needed only for its fonts.
        from matplotlib import get_data_path  # noqa: PLC0415
    except ImportError as error:
        raise BackendUnavailableError(
            "a picture of a graph needs pygraphviz: pip install pygraphviz; its Mermaid text does "
            "not"
        ) from error
    # Fontconfig reads its configuration once in a process, at the first drawing. The copy within
    # pygraphviz is older than most machines' configuration, and warns of each unknown element.
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
    """Discard what is written to file descriptor 2, by C libraries too."""
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(nowhere)
        os.close(stderr)
