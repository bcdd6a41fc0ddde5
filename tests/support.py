"""What the tests share: the backend under test, another one, and the way to and from the host."""

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import xbp
from xbp.namespace import Array, dtype_name
from xbp.testing.conformance import stranger_to

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers beside each other that each take all processors wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

backend = xbp.get_backend()
# The test suite owns its process.
backend.enable_float64()

# The most precise dtype that the device has.
widest = "float64" if backend.has_float64 else "float32"

# A call takes a hundred times as long there, or is compiled first.
SLOW = backend.name in ("dpnp", "jax")

# Of two devices of one library, the one without float64 refuses more.
except_slow = pytest.mark.skipif(
    SLOW or backend.device == "device1", reason="the faster libraries are enough"
)

once = pytest.mark.skipif(backend.name != "numpy", reason="says nothing about a library")

needs_float64 = pytest.mark.skipif(not backend.has_float64, reason="the device has no float64")
both_floats = pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("float64", marks=needs_float64)]
)

# A second library, to be mixed up with the one under test.
other = stranger_to(backend)

HostArray = np.ndarray[Any, Any]


def arr(values: object, dtype: str | None = None) -> Array:
    """Return values on the backend under test."""
    return backend.asarray(values, dtype)


def host(x: Array) -> HostArray:
    """Return an array of the backend under test on the host, after a look at whose it is."""
    assert backend.owns(x), f"{type(x)} is not an array of {backend}"
    return np.array(backend.to_numpy(x))


def dtype_of(x: Array) -> str:
    return dtype_name(x.dtype)


def precise(in_float64: float, in_float32: float) -> float:
    """Return the figure, such as a tolerance, for the most precise dtype of the device."""
    return in_float64 if backend.has_float64 else in_float32


def numbers(low: float = -3.0, high: float = 3.0) -> st.SearchStrategy[float]:
    """Return numbers of ordinary size."""
    return st.floats(low, high, allow_subnormal=False)


@st.composite
def arrays(
    draw: st.DrawFn, shape: tuple[int, ...], low: float = -3.0, high: float = 3.0
) -> HostArray:
    """Draw float64 arrays on the host; most of their spread comes from one seed, so it is quick."""
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).uniform(low, high, shape)
    return np.asarray(values)
