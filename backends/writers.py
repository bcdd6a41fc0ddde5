"""Writers for libraries with NumPy's interface, whose functions take ``out``."""

from functools import partial
from typing import Any

from xbp.recording import ELEMENTWISE, Writer


def writers_of(library: Any) -> dict[str, Writer]:
    """Return a writer for each function of a library that takes ``out``, by its standard name."""
    return {
        # A writer called with arguments and ``out`` returns the function bound to them.
        name: partial(partial, getattr(library, name))
        for name in (*ELEMENTWISE, "matmul", "max", "min", "sum")
        if hasattr(library, name)
    }
