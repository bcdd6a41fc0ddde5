"""A library's own functions for operations: each has to give what the standard gives."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from xbp.backend import Backend
from xbp.convolution import convolution, convolution_dW, convolution_dx, convolution_gradients
from xbp.windows import Window, image

OPERATIONS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (convolution, convolution_gradients, convolution_dx, convolution_dW, image)
}

# Of filters, and the height and width of images.
_WINDOWS = [
    (Window((3, 2), (1, 1), (0, 0)), (5, 6)),
    (Window((3, 3), (1, 1), (1, 1)), (4, 4)),
    (Window((2, 2), (1, 1), (2, 2)), (3, 4)),
    (Window((2, 2), (2, 2), (0, 0)), (4, 6)),
    (Window((2, 3), (2, 1), (0, 1)), (6, 7)),
    (Window((3, 3), (2, 2), (1, 1)), (7, 6)),
    (Window((2, 2), (3, 3), (2, 2)), (6, 6)),
]
# Of samples, channels and filters.
_COUNTS = [(2, 3, 4), (3, 1, 5), (1, 4, 1)]

# Units in the last place of the largest result, of which each is a sum of a hundred terms at most.
_TOLERANCE = 64


def require_the_standards_results(backend: Backend, dtypes: Iterable[str]) -> None:
    """Raise `AssertionError` unless each of a backend's own functions agrees with the standard."""
    names = ", ".join(OPERATIONS)
    for name in backend.operations:
        assert name in OPERATIONS, f"operations names {name!r}, which is none of {names}"
    for dtype in dtypes:
        for name, arguments in _calls(backend, dtype):
            if name in backend.operations:
                with backend.scope():
                    given = backend.operations[name](*arguments)
                    expected = OPERATIONS[name].__wrapped__(*arguments)  # type: ignore[attr-defined]
                _compare(f"{name} of {dtype}", backend, given, expected, arguments)


def _calls(backend: Backend, dtype: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    random = np.random.default_rng(0)

    def numbers(*shape: int) -> Any:
        return backend.asarray(random.normal(size=shape), dtype)

    for window, (height, width) in _WINDOWS:
        for samples, channels, filters in _COUNTS:
            shape = (samples, channels, height, width)
            x, W = numbers(*shape), numbers(filters, channels, *window.size)
            dout = numbers(samples, filters, *window.grid(shape))
            yield "convolution", (x, W, numbers(filters), window)
            yield "convolution_gradients", (dout, x, W, window)
            yield "convolution_dx", (dout, W, window, shape)
            yield "convolution_dW", (dout, x, window)
            shifts = [numbers(samples, channels, *dout.shape[2:]) for _ in range(window.count)]
            yield "image", (shifts, window, shape)


def _compare(
    what: str, backend: Backend, given: Any, expected: Any, arguments: tuple[Any, ...]
) -> None:
    pairs = (
        zip(given, expected, strict=True) if isinstance(expected, tuple) else [(given, expected)]
    )
    for one, other in pairs:
        assert backend.owns(one), f"{what} returns {type(one).__name__}, no array of the backend"
        found, right = backend.to_numpy(one), backend.to_numpy(other)
        assert (found.dtype, found.shape) == (right.dtype, right.shape), (
            f"{what} returns {found.dtype} {found.shape}, not {right.dtype} {right.shape}"
        )
        apart = np.abs(found - right).max(initial=0.0)
        limit = _TOLERANCE * np.finfo(right.dtype).eps * np.abs(right).max(initial=1.0)
        assert apart <= limit, (
            f"{what} is {apart:.2g} from what xbp computes on the standard, with {arguments[-2:]}"
        )
