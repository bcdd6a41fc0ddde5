"""mparray, arrays of any precision, as a backend of xbp: gradients in 50 digits."""

from contextlib import AbstractContextManager
from typing import Any

import mparray
import numpy
from mpmath import mp

import xbp

DIGITS = 50


class MparrayBackend(xbp.Backend):
    """Arrays of mpmath's numbers. Within ``scope()`` they are computed to 50 digits."""

    name = "mparray"
    library = mparray
    xp = mparray

    def to_numpy(self, x: Any) -> numpy.ndarray[Any, Any]:
        """Return the values, rounded to the dtype of x."""
        values = [float(x[index]) for index in numpy.ndindex(x.shape)]
        return numpy.array(values).astype(x.dtype).reshape(x.shape)

    def scope(self) -> AbstractContextManager[Any]:
        """Compute to 50 digits; outside, mpmath's own setting counts."""
        precision: AbstractContextManager[Any] = mp.workdps(DIGITS)
        return precision
