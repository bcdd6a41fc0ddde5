"""Writers for the libraries made after NumPy, whose functions take ``out``."""

from functools import partial
from typing import Any

from xbp.recording import ELEMENTWISE, Writer


def writers_of(library: Any) -> dict[str, Writer]:
    """Return a writer for each function of a library that takes ``out``, by its standard name."""
    return {
        # Called with the function's arguments, partial binds them, and ``out`` with them.
        name: partial(partial, getattr(library, name))
        for name in (*ELEMENTWISE, "matmul", "max", "min", "sum")
        if hasattr(library, name)
    }
