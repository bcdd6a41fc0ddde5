"""What the libraries made after NumPy can write into memory that is there."""

from functools import partial
from typing import Any

from xbp.recording import ELEMENTWISE, Writer


def writers_of(library: Any) -> dict[str, Writer]:
    """Return what calls a library's functions that take ``out``, by their names in the standard."""
    return {
        # Called with the function's arguments, partial binds them, and ``out`` with them.
        name: partial(partial, getattr(library, name))
        for name in (*ELEMENTWISE, "matmul", "max", "min", "sum")
        if hasattr(library, name)
    }
