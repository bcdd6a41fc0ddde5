"""marray, arrays with masked elements, on NumPy, as a backend of xbp."""

from typing import Any

import array_api_compat.numpy
import marray
import numpy

import xbp


class MarrayBackend(xbp.Backend):
    """Arrays that know which of their elements are missing; those of xbp miss none."""

    name = "marray"
    library = marray
    xp = marray.masked_namespace(array_api_compat.numpy)

    def to_numpy(self, x: Any) -> numpy.ndarray[Any, Any]:
        """Return the values."""
        return numpy.asarray(x.data)
