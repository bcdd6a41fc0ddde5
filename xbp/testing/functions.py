"""The functions and operators that xbp calls on arrays: each has to give what NumPy's gives."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from xbp.backend import Backend
from xbp.errors import described
from xbp.namespace import Array, Namespace, device_of, is_array
from xbp.registry import get_backend


class Operands(NamedTuple):
    """Arrays that the functions are called with.

    Attributes
    ----------
    x : Array
        Floating-point numbers, ``(2, 3)``.
    numbers : Array
        Row numbers of x, ``(3,)``, in the library's default integer.
    words : Array
        Numbers of 32 bits, ``(3,)``.
    pixels : Array
        Bytes, ``(2, 3)``.
    """

    x: Array
    numbers: Array
    words: Array
    pixels: Array


Call: TypeAlias = Callable[[Namespace, Operands], Any]

# By the name of each function, or by an expression: a call with arguments of xbp's kind.
CALLS: dict[str, Call] = {
    "abs": lambda xp, a: xp.abs(a.x),
    "all": lambda xp, a: xp.all(a.x > 0, axis=(1,)),
    "any": lambda xp, a: xp.any(a.x > 1, axis=1),
    "arange": lambda xp, a: xp.arange(5, device=device_of(a.x)),
    "argmax": lambda xp, a: xp.argmax(a.x, axis=-1),
    "argmin": lambda xp, a: xp.argmin(xp.astype(a.x > 0, xp.int8)),
    "asarray": lambda xp, a: xp.asarray([1.0, 2.0], dtype=a.x.dtype, device=device_of(a.x)),
    "astype": lambda xp, a: xp.astype(a.numbers, a.x.dtype),
    "broadcast_to": lambda xp, a: xp.broadcast_to(a.numbers, (4, 3)),
    "concat": lambda xp, a: xp.concat([a.x, a.x]),
    "count_nonzero": lambda xp, a: int(xp.count_nonzero(a.x > 0)),
    "empty": lambda xp, a: xp.empty((2, 3), dtype=a.x.dtype, device=device_of(a.x)) * 0 == 1,
    "exp": lambda xp, a: xp.exp(a.x),
    "expm1": lambda xp, a: xp.expm1(a.x),
    "finfo": lambda xp, a: [
        float(getattr(xp.finfo(a.x.dtype), name))
        for name in ("eps", "max", "smallest_normal", "bits")
    ],
    "floor": lambda xp, a: xp.floor(16 * a.x / 3),
    "full": lambda xp, a: xp.full((2, 3), -2.5, dtype=a.x.dtype, device=device_of(a.x)),
    "full_like": lambda xp, a: xp.full_like(a.x, 2.5),
    "iinfo": lambda xp, a: [
        int(getattr(xp.iinfo(a.words.dtype), name)) for name in ("min", "max", "bits")
    ],
    "isdtype": lambda xp, a: [
        xp.isdtype(b.dtype, kind) for b in a for kind in ("bool", "integral", "real floating")
    ],
    "isfinite": lambda xp, a: xp.isfinite(xp.log(a.x)),
    "isnan": lambda xp, a: xp.isnan(xp.log(a.x)),
    "log": lambda xp, a: xp.log(xp.abs(a.x) + 1),
    "log1p": lambda xp, a: xp.log1p(xp.abs(a.x)),
    "max": lambda xp, a: xp.max(a.x, axis=-1, keepdims=True),
    "maximum": lambda xp, a: xp.maximum(a.x, 0.25),
    "mean": lambda xp, a: xp.mean(a.x, axis=1),
    "min": lambda xp, a: xp.min(a.x),
    "minimum": lambda xp, a: xp.minimum(a.x, 0.25),
    "ones_like": lambda xp, a: xp.ones_like(a.x),
    "permute_dims": lambda xp, a: a.x[None, ...] @ xp.permute_dims(a.x[None, ...], (0, 2, 1)),
    "reshape": lambda xp, a: xp.reshape(a.x, (3, 2)),
    "result_type": lambda xp, a: xp.result_type(a.x.dtype, xp.float32) == a.x.dtype,
    "sign": lambda xp, a: xp.sign(a.x),
    "sqrt": lambda xp, a: xp.sqrt(xp.abs(a.x)),
    "stack": lambda xp, a: xp.stack([a.words, a.words], axis=-1),
    "sum": lambda xp, a: xp.sum(a.x, axis=0),
    "take": lambda xp, a: xp.take(a.x, a.numbers, axis=0),
    "tanh": lambda xp, a: xp.tanh(a.x),
    "where": lambda xp, a: xp.where(a.x <= 0, 0.0, a.x),
    "zeros_like": lambda xp, a: xp.zeros_like(a.x),
    # Bytes, as those of images, become samples.
    "take of bytes": lambda xp, a: xp.take(a.pixels, a.numbers, axis=0),
    "astype of bytes": lambda xp, a: xp.astype(a.pixels, a.x.dtype) / 255,
    # What a function of the library's own says is a number chooses, and is compared with labels.
    "take of argmax": lambda xp, a: xp.take(a.x, xp.argmax(a.x, axis=1), axis=0),
    "argmax == labels": lambda xp, a: xp.argmax(a.x, axis=0) == a.numbers,
    "take of int32": lambda xp, a: xp.take(a.x, xp.astype(a.numbers, xp.int32), axis=0),
    # Operators, and views.
    "x + numbers, x * number": lambda xp, a: (1 - a.x) * 2.0 + a.x / a.x.shape[0] - a.x**2,
    "x @ y": lambda xp, a: a.x.T @ a.x,
    "-x, comparisons, ~": lambda xp, a: ~((-a.x < 1) & (a.x >= 0)) | (a.x != 0),
    "x += y": lambda xp, a: _added(xp, a.x),
    "x[:, None]": lambda xp, a: a.numbers[:, None] == a.numbers[None, :],
    # Images: shifted windows, and a matrix for all samples of a batch.
    "x[:, i::2], concat along an axis": lambda xp, a: xp.concat([a.x[:, 0::2], a.x], axis=1),
    "stack along an axis": lambda xp, a: xp.reshape(xp.stack([a.x, -a.x], axis=1), (2, 6)),
    "W @ batch": lambda xp, a: a.x.T @ a.x[None, ...],
    "x[1:, ...]": lambda xp, a: a.x[1:, ...] + a.x[0, 1],
}

# What random numbers are computed by.
CALLS_OF_WORDS: dict[str, Call] = {
    "words >> 8": lambda xp, a: (a.words >> 8) & 0xFFFFFF,
    "words << 5": lambda xp, a: a.words << 5,
    "words + words": lambda xp, a: a.words + a.words,
    "words ^ number": lambda xp, a: (a.words ^ 0x1BD11BDA) | (a.words >> 19),
}


def _added(xp: Namespace, x: Array) -> Array:
    y = x + 0
    y += x
    return y


def require_numpys_results(
    backend: Backend, dtypes: Iterable[str], calls: Mapping[str, Call] = CALLS
) -> None:
    """Raise `AssertionError` unless each call gives what NumPy gives; the message names all."""
    groups: dict[str, list[str]] = {}
    errors: list[Exception | None] = []
    count = 0
    for dtype in dtypes:
        count += len(calls)
        for name, complaint, error in _differences(backend, dtype, calls):
            groups.setdefault(complaint, []).append(f"{name} of {dtype}")
            errors.append(error)
    if not groups:
        return
    found = "\n".join(f"- {', '.join(names)}: {complaint}" for complaint, names in groups.items())
    # Where all fail alike, it is for another reason than the functions themselves.
    cause = errors[0] if len(groups) == 1 else None
    raise AssertionError(f"{len(errors)} of {count} calls differ from NumPy's:\n{found}") from cause


def _differences(
    backend: Backend, dtype: str, calls: Mapping[str, Call]
) -> Iterator[tuple[str, str, Exception | None]]:
    """Yield for each call that does not give what NumPy gives its name, what it does, the error."""
    host = get_backend("numpy")
    operands, expected_operands = _operands(backend, dtype), _operands(host, dtype)
    for name, call in calls.items():
        with np.errstate(all="ignore"):
            expected = call(host.xp, expected_operands)
            try:
                with backend.scope():
                    found = call(backend.xp, operands)
                    complaint = _difference(backend, found, expected)
            except Exception as error:  # whatever a library raises
                yield name, f"raises {described(error)}", error
            else:
                if complaint:
                    yield name, complaint, None


def _operands(backend: Backend, dtype: str) -> Operands:
    return Operands(
        backend.asarray([[0.5, -2.0, 0.0], [1.5, 3.0, -0.25]], dtype),
        backend.asarray([1, 0, 1]),
        backend.asarray([3, -1234567890, 2**31 - 1], "int32"),
        backend.asarray(np.array([[0, 255, 7], [128, 1, 2]], dtype=np.uint8)),
    )


def _difference(backend: Backend, found: Any, expected: Any) -> str:
    """Return in what a result differs from NumPy's; nothing if it does not."""
    expected = np.asarray(expected) if isinstance(expected, np.generic) else expected
    if not is_array(expected):
        return "" if found == expected else f"gives {found!r}, expected {expected!r}"
    if not backend.owns(found):
        return f"gives {found!r}, which is no array on this device"
    result = backend.to_numpy(found)
    # For numbers of elements, each library has a dtype of its own.
    has_a_width_of_its_own = expected.dtype == np.int64 and result.dtype.kind in "iu"
    same_kind = result.dtype == expected.dtype or has_a_width_of_its_own
    alike = same_kind and result.shape == expected.shape
    epsilon = float(np.finfo(expected.dtype).eps) if expected.dtype.kind == "f" else 0.0
    good = alike and np.allclose(result, expected, rtol=8 * epsilon, atol=0, equal_nan=True)
    return "" if good else f"gives {result!r}, expected {expected!r}"
