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

# A window, the shape of images, and the number of filters.
_CASES = [
    (Window((3, 2), (1, 1), (0, 0)), (2, 3, 5, 6), 4),
    (Window((3, 3), (1, 1), (1, 1)), (3, 1, 4, 4), 5),
    (Window((2, 2), (1, 1), (2, 2)), (1, 4, 3, 4), 1),
    (Window((2, 2), (2, 2), (0, 0)), (2, 2, 4, 6), 3),
    (Window((2, 3), (2, 1), (0, 1)), (3, 1, 6, 7), 2),
    (Window((2, 2), (3, 3), (2, 2)), (1, 3, 6, 6), 2),
]

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

    for window, shape, filters in _CASES:
        samples, channels = shape[:2]
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
