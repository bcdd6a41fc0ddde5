"""NumPy, on the CPU: the embedded default."""

from typing import Any

import array_api_compat.numpy
import numpy

from xbp.backend import Backend
from xbp.namespace import Array


class NumpyBackend(Backend):
    """NumPy arrays."""

    name = "numpy"
    library = numpy
    xp = array_api_compat.numpy

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Return the array itself: it is on the host already."""
        return numpy.asarray(x)
