"""Data for a training: moved to the device, and checked to be fit to be learned from."""

import warnings
from math import inf, prod
from typing import Any

from xbp.backend import Backend
from xbp.errors import DataError, XbpError
from xbp.functions import one_hot
from xbp.layers import SoftmaxWithLoss
from xbp.namespace import Array, dtype_name, is_floating, kind_of, namespace_of
from xbp.networks import Network

# How many numbers are checked at once.
_CHECKED_AT_ONCE = 2**22


def checked_data(network: Network, kind: str, x: Any, t: Any) -> tuple[Array, Array]:
    """Return data on the network's device, checked to be fit to be learned from.

    Parameters
    ----------
    network
        The network that is to learn from them.
    kind
        What they are called in a message, ``"training"``.
    x, t
        Samples and targets, as `Trainer.fit` takes them.

    Raises
    ------
    DataError, ShapeError, DTypeError
        If they are not fit; see `Trainer.fit`.
    """
    backend = network.backend
    if isinstance(x, tuple) and (
        len({getattr(part, "shape", None) for part in x}) > 1
        or any(isinstance(part, tuple) for part in x)
    ):
        raise DataError(
            f"{kind} data: x is a tuple of several things: unpack it, as in "
            "(x, t), (x_test, t_test) = load_digits()"
        )
    try:
        x, t = backend.row_major(network.as_samples(x)), backend.row_major(backend.asarray(t))
        takes_labels = network.last_layer.takes_labels
        if kind_of(t) == "integral" or (
            kind_of(t) == "bool" and not (takes_labels and t.ndim == 1)
        ):
            # Not every library compares unsigned integers of every size.
            _check_fits(backend, t)
            t = backend.asarray(t, backend.default_integer)
        if x.ndim < 2:  # noqa: PLR2004
            raise DataError("x is (N, D), a row for each sample: reshape (N,) to (N, 1)")
        if t.ndim == 0 or x.shape[0] != t.shape[0]:
            raise DataError("as many targets as samples are needed")
        if x.shape[0] == 0:
            raise DataError("there are no samples")
        # One sample through a copy of the network shows whether shapes and dtypes fit.
        trial = network.bound_to(network.params)
        outputs = trial.predict(x[:1, ...])
        t = as_rows(network, t, outputs)
        if not takes_labels and is_floating(t):
            _check_size(t, outputs)
        trial.last_layer.forward(outputs, t[:1, ...])
        if is_floating(x) and not _all_finite(x):
            raise DataError(
                f"x holds NaN or infinity in {network.dtype}: remove, replace or scale it"
            )
        classes = outputs.shape[-1]
        network.last_layer.check_targets(t, classes)
        if takes_labels:
            _warn_of_a_single_class(t, kind)
            # Another loss may ask for the labels as they were given.
            is_known = type(network.last_layer) is SoftmaxWithLoss
            if is_known and t.ndim == 1 and classes <= prod(x.shape[1:]):
                # One-hot once instead of at each step, where it is no larger than the samples.
                t = one_hot(t, classes, like=outputs)
    except XbpError as error:
        shapes = " and ".join(
            f"{name} {tuple(array.shape)}"
            for name, array in (("x", x), ("t", t))
            if hasattr(array, "shape")
        )
        raise type(error)(f"{kind} data{shapes and f', {shapes}'}: {error}") from error
    return x, t


def as_rows(network: Network, t: Array, outputs: Array) -> Array:
    """Return targets in rows like the outputs: unless they are labels, ``(N,)`` gets ``(N, 1)``.

    Parameters
    ----------
    network
        The network that is to learn from them.
    t
        Targets of N samples.
    outputs
        The network's outputs for some samples, ``(..., M)``.
    """
    if network.last_layer.takes_labels or t.ndim != 1 or outputs.shape[-1:] != (1,):
        return t
    return namespace_of(t).reshape(t, (-1, 1))


def _check_fits(backend: Backend, t: Array) -> None:
    """Raise `DataError` for an unsigned target that the default integer cannot hold."""
    xp = namespace_of(t)
    if kind_of(t) != "integral" or xp.iinfo(t.dtype).min < 0:
        return
    largest = int(backend.to_numpy(t).max(initial=0))
    if largest > xp.iinfo(backend.dtype(backend.default_integer)).max:
        raise DataError(
            f"t holds {largest}, which {backend.default_integer} does not: scale it, or convert it "
            "to floating point"
        )


def _check_size(t: Array, outputs: Array) -> None:
    """Raise `DataError` for a target that is infinite in the dtype of the outputs."""
    xp = namespace_of(t)
    largest = 0.0 if 0 in t.shape else max(float(xp.max(t)), -float(xp.min(t)))
    if float(xp.finfo(outputs.dtype).max) < largest < inf:
        raise DataError(
            f"t holds a number of the size of {largest:g}, too large for "
            f"{dtype_name(outputs.dtype)}: scale it"
        )


def _all_finite(x: Array) -> bool:
    """Tell whether all is finite, a part at a time: x may be a file larger than the memory."""
    xp, count = namespace_of(x), x.shape[0]
    rows = max(_CHECKED_AT_ONCE // max(prod(x.shape[1:]), 1), 1)
    return all(
        bool(xp.all(xp.isfinite(x[start : min(start + rows, count), ...])))
        for start in range(0, count, rows)
    )


def _warn_of_a_single_class(t: Array, kind: str) -> None:
    labels = namespace_of(t).argmax(t, axis=1) if t.ndim > 1 else t
    if labels.shape[0] > 1 and bool(namespace_of(labels).all(labels == labels[0])):
        warnings.warn(
            f"{kind} data: all {labels.shape[0]:,} samples are of class {int(labels[0])}, so there "
            "is nothing to tell apart",
            UserWarning,
            stacklevel=4,
        )
