"""Dask, arrays that are computed when they are asked for, as a backend of xbp."""

from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat.dask.array
import dask
import numpy

import xbp


class DaskBackend(xbp.Backend):
    """Lazy arrays: a training computes what it has learned after each step."""

    name = "dask"
    library = dask
    xp = array_api_compat.dask.array

    @classmethod
    def devices(cls) -> list[str]:
        """Return the device that its arrays report; the library names another that none is on."""
        return ["cpu"]

    def to_numpy(self, x: Any) -> numpy.ndarray[Any, Any]:
        """Compute the values."""
        return numpy.asarray(x.compute())

    def compile(self, function: Callable[..., Any], *, donate: Sequence[int] = ()) -> Any:
        """Return a function whose results are computed: else each step would add to one graph."""

        def computed(*args: Any) -> Any:
            (results,) = dask.persist(function(*args))
            return results

        return computed
