"""The order of an array in memory: views of others, that a layer has to take as whole arrays."""

from collections.abc import Callable
from functools import cache

import numpy as np

from xbp.backend import Backend
from xbp.namespace import Array, namespace_of
from xbp.testing.domains import HostArray


def _axes_reversed(x: Array) -> Array:
    return namespace_of(x).permute_dims(x, tuple(reversed(range(x.ndim))))


def _spread(value: HostArray) -> HostArray:
    """Return an array of which every second element, from the second on, is one of the values."""
    whole = np.full([2 * length + 1 for length in value.shape], 7, value.dtype)
    whole[(slice(1, None, 2),) * value.ndim] = value
    return whole


# From the name of a layout to what the host makes whole, and the device a view of.
LAYOUTS: dict[str, tuple[Callable[[HostArray], HostArray], Callable[[Array], Array]]] = {
    "transposed": (lambda value: np.array(value.T, order="C"), _axes_reversed),
    "reversed": (
        lambda value: np.array(np.flip(value), order="C"),
        lambda x: namespace_of(x).flip(x),
    ),
    "strided": (_spread, lambda x: x[(slice(1, None, 2),) * x.ndim]),
}
AS_IT_IS = (np.array, lambda x: x)


@cache
def takes_views(backend: Backend, layout: str) -> bool:
    """Tell whether a library computes with such views at all: if not, that is no layer's fault.

    The ``where`` of dpnp 0.20 reads other memory if it is given a number, and a condition that is a
    reversed view.
    """
    values, xp = np.array([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]]), backend.xp
    whole, view = LAYOUTS[layout]
    x = view(backend.asarray(whole(values), "float32"))
    chosen = backend.to_numpy(xp.where(x > 0, x, 0.0))
    return bool(np.array_equal(chosen, np.maximum(values, 0)))
