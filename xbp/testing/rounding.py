"""Rounding errors as they are: a layer is run again, and each operation is rounded otherwise.

Monte Carlo arithmetic: D. S. Parker, Monte Carlo Arithmetic: exploiting randomness in
floating-point arithmetic, UCLA Computer Science Department, report 970002, 1997.
"""

from collections.abc import Callable, Iterator
from functools import cache
from math import prod, sqrt
from typing import Any

import numpy as np

from xbp.backend import Backend
from xbp.namespace import Namespace, dtype_name, is_floating
from xbp.recording.tracing import (
    ELEMENTWISE,
    Trace,
    Traced,
    TracingNamespace,
    traced_among,
    values,
)

# How far an operation may be off, in machine epsilons. Elementary functions of graphics cards, and
# of compilers that replace them by polynomials, are off by two to four.
ROUGHNESS = 2.0

# From one operation to the next, a shift grows by more than a number of a usual size.
_GROWTH = 1e10
_LARGEST_SHIFT = 1e-20

# The functions of the standard whose results are exact: they make, move, choose, compare numbers.
# Any other function is taken to round, also one that is not in the standard.
EXACT = {
    "abs", "all", "any", "arange", "argmax", "argmin", "argsort", "asarray", "astype",
    "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "broadcast_arrays", "broadcast_to", "can_cast", "ceil", "clip", "concat", "conj",
    "copysign", "count_nonzero", "empty", "empty_like", "equal", "expand_dims", "eye", "flip",
    "floor", "from_dlpack", "full", "full_like", "greater", "greater_equal", "imag", "isfinite",
    "isin", "isinf", "isnan", "less", "less_equal", "linspace", "logical_and", "logical_not",
    "logical_or", "logical_xor", "matrix_transpose", "max", "maximum", "meshgrid", "min", "minimum",
    "moveaxis", "negative", "nextafter", "nonzero", "not_equal", "ones", "ones_like",
    "permute_dims", "positive", "real", "repeat", "reshape", "result_type", "roll", "round",
    "searchsorted", "sign", "signbit", "sort", "squeeze", "stack", "take", "take_along_axis",
    "tile", "tril", "triu", "trunc", "unique_all", "unique_counts", "unique_inverse",
    "unique_values", "unstack", "where", "zeros", "zeros_like",
    # Of libraries and their arrays.
    "cat", "clone", "concatenate", "contiguous", "copy", "detach", "flatten", "movedim", "permute",
    "ravel", "swapaxes", "transpose", "unsqueeze",
}  # fmt: skip


class RoughArray(Traced):
    """A traced array that a library's own functions take, too, and that has its methods.

    What is written for one library need not use the functions of the standard.
    """

    def __array_ufunc__(  # type: ignore[override]
        self, ufunc: Any, method: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Let NumPy call one of its elementwise functions, or a reduction of it."""
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        return self.trace.call(name, getattr(ufunc, method), args, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Let NumPy call any other of its functions."""
        return self.trace.call(function.__name__, function, args, kwargs)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any, kwargs: Any = None) -> Any:
        """Let PyTorch call one of its functions."""
        trace = next(traced_among((args, kwargs or {}))).trace
        return trace.call(function.__name__, function, args, kwargs or {})

    def __getattr__(self, name: str) -> Any:
        """Return a method of the array, or another of its attributes."""
        # What is not set yet; and ways to the memory, past this class.
        if name in {"value", "trace", "owners"} or name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self.value, name)
        if not callable(found):
            return found

        def method(x: Any, *args: Any, **kwargs: Any) -> Any:
            return getattr(x, name)(*args, **kwargs)

        return lambda *args, **kwargs: self.trace.call(name, method, (self, *args), kwargs)

    def __len__(self) -> int:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __setitem__(self, index: Any, value: Any) -> None:
        self.value[values(index)] = values(value)


@cache
def _rough_type(xp: Namespace) -> type[RoughArray]:
    return type("RoughArray", (RoughArray,), {"namespace": TracingNamespace(xp)})


class RoughArithmetic(Trace):
    """Computes with traced arrays; operands and results are moved as rounding may move them.

    Parameters
    ----------
    backend
        The backend of the arrays.
    epsilon
        The machine epsilon of the dtype in whose precision it computes, or appears to.
    seed
        The same seed moves the same numbers alike.
    shift
        The first numbers are moved by so much, at most, in addition, also what is 0; later ones by
        far more, so that where they move does not depend on the first.
    sign
        1 or -1 moves all results up, or down; 0 moves each up or down.
    """

    def __init__(
        self, backend: Backend, epsilon: float, seed: int, shift: float = 0.0, sign: int = 0
    ) -> None:
        super().__init__(backend.xp, frozenset())
        self.backend = backend
        self.epsilon = epsilon
        self.seed = seed
        self.shift = shift
        self.sign = sign
        self.start()
        self._chance = np.random.default_rng(seed)

    def traced(self, value: Any, owners: frozenset[Traced] | None = None) -> Traced:
        """Return what stands for a value."""
        return _rough_type(self.xp)(self, value, owners)

    def call(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function of the namespace, or an operator."""
        if not name or name in EXACT:
            return self._wrapped(function(*values(args), **values(kwargs)))
        # A sum is off in proportion to its partial sums: each term, to something like its root.
        longest = max((prod(x.shape) for x in traced_among((args, kwargs))), default=1)
        times = 1.0 if name in ELEMENTWISE else 1 + sqrt(longest)

        def compute() -> Any:
            result = function(*values(self.moved(args, times)), **values(kwargs))
            return self._shifted(self.moved(result))

        return self._wrapped(self._computed_once(name, (args, kwargs), compute))

    def _computed_once(self, name: str, arguments: Any, compute: Callable[[], Any]) -> Any:
        """Return what was computed of the same arguments before, if numbers are shifted.

        So a comparison comes out the same wherever a layer makes it, forward or backward.
        """
        if not self.shift:
            return compute()
        key = (name, self._fingerprint(arguments))
        if key not in self._results:
            self._results[key] = compute()
        # A copy, since the layer may change it in place.
        return self._copied(self._results[key])

    def _fingerprint(self, tree: Any) -> Any:
        """Return what is the same of nested values that are the same."""
        if isinstance(tree, tuple | list):
            return tuple(map(self._fingerprint, tree))
        if isinstance(tree, dict):
            return tuple((name, self._fingerprint(part)) for name, part in sorted(tree.items()))
        x = values(tree)
        if not hasattr(x, "dtype") or not hasattr(x, "shape"):
            return repr(x)
        host = self.backend.to_numpy(x)
        return host.shape, str(host.dtype), host.tobytes()

    def _copied(self, tree: Any) -> Any:
        if isinstance(tree, tuple | list):
            return tuple(map(self._copied, tree))
        return self.xp.asarray(tree, copy=True) if hasattr(tree, "dtype") else tree

    def change(
        self, name: str, function: Callable[[Any, Any], Any], x: Traced, other: Any
    ) -> Traced:
        """Apply an in-place operator."""
        result = function(x.value, values(other))
        if result is not x.value:
            return self.traced(self._shifted(self.moved(result)))
        x.value[...] = self._shifted(self.moved(result))
        return x

    def view(self, function: Callable[[Any], Any], x: Traced) -> Traced:
        """Return a view of an array."""
        return self.traced(function(x.value))

    def _wrapped(self, result: Any) -> Any:
        if isinstance(result, tuple | list):
            make = getattr(type(result), "_make", type(result))  # a named tuple
            return make([self._wrapped(part) for part in result])
        return self.traced(result) if hasattr(result, "dtype") else result

    def moved(self, tree: Any, times: float = 1.0) -> Any:
        """Return nested values with each array of floating-point numbers moved."""
        if isinstance(tree, tuple | list):
            return tuple(self.moved(part, times) for part in tree)
        x = values(tree)
        if not hasattr(x, "dtype"):
            return x
        x = self.xp.asarray(x)  # a scalar of NumPy
        if not is_floating(x):
            return x
        by = times * ROUGHNESS * self.epsilon * self._chance.uniform(-1, 1, tuple(x.shape))
        return x * self.backend.asarray(1 + by, dtype_name(x.dtype))

    def shifted(self, tree: Any, by: float, sign: int = 0) -> Any:
        """Return nested values with a number added to each: by so much at most, up or down."""
        if isinstance(tree, tuple | list):
            return tuple(self.shifted(part, by, sign) for part in tree)
        if not by or not hasattr(tree, "dtype") or not is_floating(tree):
            return tree
        shift = by * self._chance.uniform(-1, 1, tuple(tree.shape))
        shift = sign * abs(shift) if sign else shift
        return tree + self.backend.asarray(shift, dtype_name(tree.dtype))

    def start(self) -> None:
        """Begin a computation: the first numbers are shifted by the least."""
        self._next_shift = self.shift
        self._results: dict[Any, Any] = {}

    def _shifted(self, results: Any) -> Any:
        self._next_shift = min(self._next_shift * _GROWTH, _LARGEST_SHIFT)
        return self.shifted(results, self._next_shift, self.sign)
