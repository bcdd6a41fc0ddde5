"""Hypothesis strategies: arrays, layers and networks of any backend.

They draw numbers of size 1e-6 to 1e6, with zeros, whole numbers and equal elements among them.
Float32 can represent every number exactly.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

import numpy as np
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.extra import numpy as host

from xbp.backend import Backend
from xbp.errors import SettingError
from xbp.layers import IdentityWithLoss, Relu, Sigmoid, SoftmaxWithLoss
from xbp.namespace import Array
from xbp.networks import Network
from xbp.registry import get_backend
from xbp.settings import is_finite_number
from xbp.testing.cases import LayerCase, NetworkCase
from xbp.testing.domains import (
    HostArray,
    Labels,
    Nonzero,
    OneHot,
    Values,
    inner_bounds,
    rounded,
    values_of,
)
from xbp.testing.signatures import LARGEST_SIZE, Signature
from xbp.testing.sizes import size_of, sizes_of
from xbp.testing.trial import LayerTrial

# Of a size that has no bounds.
_SMALL_SIZES = range(1, LARGEST_SIZE + 1)
_LARGE_SIZES = range(LARGEST_SIZE + 1, 10)

# Of so many cases one has a large size.
_ONE_LARGE_IN = 5

LARGEST = 1e6
SMALLEST = 1e-6
_SMALLEST_SCALE = 1e-5

# Of so many the layer is run for minutes.
_MOST_DERIVATIVES = 1_000_000

# Stands for whole numbers from -10 to 10 among the scales.
_WHOLE = 0.0


def check_largest(largest: object) -> None:
    """Raise `SettingError` unless this may be the largest absolute value of an element."""
    if not (is_finite_number(largest) and _SMALLEST_SCALE <= largest <= LARGEST):  # type: ignore[operator]
        raise SettingError(
            f"largest is a number from {_SMALLEST_SCALE:g} to {LARGEST:g}, not {largest!r}"
        )


@st.composite
def host_arrays(draw: st.DrawFn, shape: tuple[int, ...], *, largest: float = LARGEST) -> HostArray:
    """Draw a NumPy array of float64.

    Parameters
    ----------
    shape
        The shape, in numbers.
    largest
        The largest absolute value of an element. An element other than 0 has at least the size
        1e-6, and at least a thousandth of the scale drawn for its array.

    Raises
    ------
    SettingError
        If largest is no number from 1e-5 to 1e6.
    """
    check_largest(largest)
    scales = [10.0**exponent for exponent in range(-5, 7) if 10.0**exponent <= largest]
    ordered = sorted(scales, key=lambda scale: abs(np.log10(scale)))
    # Most of what a layer distinguishes, it distinguishes between 1 and 10, and at whole numbers.
    often = [scale for scale in (1.0, 10.0) if scale in scales]
    whole = [_WHOLE for scale in often if scale > 1] * 3
    scale = draw(st.sampled_from([*ordered, *often, *often, *whole]))
    if scale == _WHOLE:
        integers = draw(host.arrays(np.int64, shape, elements=st.integers(-10, 10)))
        return np.asarray(integers, dtype=np.float64)
    elements = st.floats(-1, 1, width=32)
    values = draw(host.arrays(np.float32, shape, elements=elements))
    smallest = max(1e-3, SMALLEST / scale)
    values = np.where(abs(values) < smallest, np.float32(0), values)
    return np.asarray(values * np.float32(scale), dtype=np.float64)


@st.composite
def arrays(
    draw: st.DrawFn,
    shape: tuple[int, ...],
    *,
    dtype: str | None = None,
    largest: float = LARGEST,
    backend: str | Backend | None = None,
) -> Array:
    """Draw an array on a backend: for the parameters see `host_arrays` and `Backend.asarray`."""
    owner = get_backend(backend)
    return owner.asarray(draw(host_arrays(shape, largest=largest)), dtype or owner.default_float)


@st.composite
def layer_cases(
    draw: st.DrawFn,
    signature: Signature,
    *,
    largest: float = LARGEST,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    is_large: bool = False,
) -> LayerCase:
    """Draw the inputs, parameters and dout of a layer as NumPy values.

    Parameters
    ----------
    signature
        The shapes, in named sizes.
    largest
        The largest absolute value of an element.
    sizes
        The smallest and the largest number that a size stands for, by its name. Any other is 1 to
        3. In a signature with differences or quotients of sizes, those that occur in them are 1 to
        6.
    is_large
        Whether one of the other sizes is 4 to 9, if there is one.

    Raises
    ------
    SettingError
        If a name is not one of the signature, or the numbers are no bounds of a size, or none of
        them fit the signature.
    """
    bounds = signature.bounds(sizes or {})
    fitting = signature.fitting_sizes(bounds)
    if fitting is not None:
        return draw(_cases_of(signature, draw(st.sampled_from(fitting)), largest))
    drawn = {name: draw(st.integers(*bounds[name])) for name in bounds}
    free = [name for name in signature.size_names() if name not in bounds]
    drawn |= {name: draw(st.sampled_from(_SMALL_SIZES)) for name in free}
    if is_large and free:
        drawn[draw(st.sampled_from(free))] = draw(st.sampled_from(_LARGE_SIZES))
    return draw(_cases_of(signature, drawn, largest))


def portions(count: int) -> dict[bool, int]:
    """Return how many of so many cases have a large size, and how many have none.

    They are drawn one kind after the other: Hypothesis's cases resemble each other, and among a
    hundred that may be large, or not, it was seen to draw two that are.
    """
    large = count // _ONE_LARGE_IN
    return {False: count - large, True: large} if large else {False: count}


@st.composite
def _cases_of(
    draw: st.DrawFn, signature: Signature, sizes: Mapping[str, int], largest: float
) -> LayerCase:
    values = {}
    _require_few_elements(signature, sizes)
    for name in (*signature.inputs, *signature.params):
        kind = signature.kind_of(name)
        shape = sizes_of(signature.shape_of(name), sizes)
        if isinstance(kind, Labels):
            values[name] = draw(_labels(shape, size_of(kind.classes, sizes)))
        elif isinstance(kind, OneHot):
            labels = draw(_labels(shape[:-1], shape[-1]))
            values[name] = np.eye(shape[-1])[labels]
        elif isinstance(kind, Nonzero):
            values[name] = _away_from_zero(draw(host_arrays(shape, largest=largest)))
        elif isinstance(kind, Values):
            where = f"{signature.name}: {name}, drawn by its strategy,"
            values[name] = draw(_values_of(where, kind, shape, largest))
        else:
            values[name] = draw(host_arrays(shape, largest=largest))
    dout = draw(host_arrays(sizes_of(signature.output_shape, sizes), largest=largest))
    options = signature.options_with(sizes, lambda values: draw(st.sampled_from(list(values))))
    return LayerCase(signature, values, dout, options=options, numbers=sizes)


def _require_few_elements(signature: Signature, sizes: Mapping[str, int]) -> None:
    """Raise `SettingError` if the derivatives of a case, element by element, are too many."""
    shapes = {name: signature.shape_of(name) for name in (*signature.inputs, *signature.params)}
    counts = {name: prod(sizes_of(shape, sizes)) for name, shape in shapes.items()}
    outputs = prod(sizes_of(signature.output_shape, sizes))
    name = max(counts, key=lambda name: counts[name])
    if outputs * counts[name] > _MOST_DERIVATIVES:
        raise SettingError(
            f"{signature.name}: {outputs} outputs by {counts[name]} elements of {name} are more "
            "derivatives than can be tried: give smaller sizes, or directions=4 of a large layer"
        )


@st.composite
def _values_of(
    draw: st.DrawFn, where: str, kind: Values, shape: tuple[int, ...], largest: float
) -> HostArray:
    """Draw numbers of a domain that float32 can represent."""
    if kind.strategy is not None:
        try:
            strategy = kind.strategy(shape)
            if not isinstance(strategy, st.SearchStrategy) or strategy.is_empty:
                raise SettingError(f"{where} needs a strategy of Hypothesis, not {strategy!r}")
            drawn = draw(strategy)
        except (HypothesisException, SettingError):
            raise
        except Exception as error:
            raise SettingError(
                f"{where} of the shape {shape}, raised {type(error).__name__}: {error}"
            ) from error
        values = values_of(where, kind, drawn, {})
        if values.shape != shape:
            raise SettingError(f"{where} has the shape {values.shape}, not {shape}")
        return values
    low, high = inner_bounds(kind)
    if np.isfinite([low, high]).all():
        elements = st.floats(low, high, width=32)
        return np.asarray(draw(host.arrays(np.float32, shape, elements=elements)), np.float64)
    values = draw(host_arrays(shape, largest=largest))
    if kind.low is not None:
        values = low + abs(values)
    elif kind.high is not None:
        values = high - abs(values)
    return rounded(values)


def _away_from_zero(values: HostArray) -> HostArray:
    return rounded(values + np.copysign(1, values))


def _labels(shape: tuple[int, ...], classes: int) -> st.SearchStrategy[HostArray]:
    return host.arrays(np.int64, shape, elements=st.integers(0, classes - 1))


@st.composite
def layers(
    draw: st.DrawFn,
    signatures: Sequence[Signature],
    *,
    dtype: str = "float32",
    largest: float = LARGEST,
    backend: str | Backend | None = None,
) -> LayerTrial:
    """Draw a layer and its inputs on a backend, for ``drawn.layer.forward(*drawn.inputs)``."""
    signature = draw(st.sampled_from(list(signatures)))
    case = draw(layer_cases(signature, largest=largest))
    return LayerTrial(case, get_backend(backend), dtype)


@st.composite
def network_cases(
    draw: st.DrawFn, *, depth: int = 6, widths: int = 4, batch: bool | None = None
) -> NetworkCase:
    """Draw the weights of a network and data for it, as NumPy arrays.

    Parameters
    ----------
    depth
        The largest number of affine layers.
    widths
        The largest number of features of a layer, and of samples in a batch.
    batch
        Whether the data are a batch; None draws single samples, too.
    """
    sizes = draw(st.lists(st.integers(1, widths), min_size=2, max_size=depth + 1))
    weights = [
        (draw(host_arrays(shape, largest=1)), draw(host_arrays(shape[1:], largest=1)))
        for shape in pairwise(sizes)
    ]
    hidden = len(sizes) - 2
    activations = draw(st.lists(st.sampled_from([Relu, Sigmoid]), min_size=hidden, max_size=hidden))
    is_batch = draw(st.booleans()) if batch is None else batch
    rows = (draw(st.integers(1, widths)),) if is_batch else ()
    x = draw(host_arrays((*rows, sizes[0])))
    loss = draw(st.sampled_from([SoftmaxWithLoss, IdentityWithLoss]))
    if loss is IdentityWithLoss:
        t = draw(host_arrays((*rows, sizes[-1])))
    else:
        t = draw(_labels(rows, sizes[-1]))
        if draw(st.booleans()):
            t = np.eye(sizes[-1])[t]
    return NetworkCase(tuple(weights), tuple(activations), loss, x, t)


@st.composite
def networks(
    draw: st.DrawFn,
    *,
    depth: int = 6,
    widths: int = 4,
    batch: bool | None = None,
    dtype: str = "float32",
    backend: str | Backend | None = None,
) -> tuple[Network, Array, Array]:
    """Draw a network on a backend, with a sample or a batch and its targets: ``network, x, t``."""
    case = draw(network_cases(depth=depth, widths=widths, batch=batch))
    return case.on(get_backend(backend), dtype)
