"""Pure functions of arrays: activations, losses, one-hot labels.

All are safe for extreme arguments: scores and activations of ±1e4 and probabilities of exactly 0
give finite results without a warning.
"""

from math import nan, prod
from numbers import Integral

from xbp.errors import DTypeError, ShapeError
from xbp.namespace import (
    Array,
    cast_like,
    device_of,
    dtype_name,
    kind_of,
    namespace_of,
    require_floating,
)
from xbp.settings import is_integer, positive_integer

_LARGEST_LABEL = 2**31 - 1


def sigmoid(x: Array) -> Array:
    r"""Return the logistic function, :math:`1 / (1 + e^{-x})`, element by element.

    Parameters
    ----------
    x
        Floating-point array of any shape.

    Returns
    -------
    Array
        Of the shape and dtype of x, between 0 and 1.

    Raises
    ------
    DTypeError
        If x is not an array of floating-point numbers.
    """
    xp = namespace_of(x, where="sigmoid")
    require_floating(x, "sigmoid")
    positive = x >= 0
    # The exponential of a negative number cannot overflow. Not -abs(x), since automatic
    # differentiation of this code, as by jax.grad, would take its slope at 0 to be 0.
    e = xp.exp(xp.where(positive, -x, x))
    return xp.where(positive, 1.0, e) / (1.0 + e)


def softmax(x: Array, axis: int = -1) -> Array:
    r"""Return :math:`e^{x_k} / \sum_i e^{x_i}` along an axis.

    Parameters
    ----------
    x
        Scores (logits), a floating-point array of at least one dimension.
    axis
        The axis of the classes, along which the result sums to 1.

    Returns
    -------
    Array
        Probabilities, of the shape and dtype of x.

    Raises
    ------
    DTypeError
        If x is not an array of floating-point numbers.
    ShapeError
        If x has no such axis, or no element along it.
    """
    _, e, total = exponentials(x, axis, where="softmax")
    return e / total


def log_softmax(x: Array, axis: int = -1) -> Array:
    r"""Return the logarithm of `softmax`, :math:`x_k - \log \sum_i e^{x_i}`.

    Parameters and errors are those of `softmax`. Where a probability underflows to 0, its
    logarithm is still exact.
    """
    shifted, _, total = exponentials(x, axis, where="log_softmax")
    return shifted - namespace_of(x).log(total)


def exponentials(x: Array, axis: int, where: str) -> tuple[Array, Array, Array]:
    """Return scores minus their maximum, the exponentials of these, and the sum along an axis.

    The shift prevents overflow and does not change a softmax.
    """
    xp = namespace_of(x, where=where)
    axis = _axis_of_classes(x, axis, where)
    shifted = x - xp.max(x, axis=axis, keepdims=True)
    e = xp.exp(shifted)
    return shifted, e, xp.sum(e, axis=axis, keepdims=True)


def cross_entropy_error(y: Array, t: Array) -> Array:
    r"""Return the mean over the batch of :math:`-\sum_k t_k \log y_k`.

    Parameters
    ----------
    y
        Probabilities, ``(C,)`` for one sample or ``(N, C)`` for a batch.
    t
        Targets: one-hot, of the shape of y, or integer labels, ``()`` or ``(N,)``.

    Returns
    -------
    Array
        0-d, of the dtype of y. A probability of 0 counts as the smallest normal number of that
        dtype, so that the result is finite.

    Raises
    ------
    DTypeError
        If y does not hold floating-point numbers, or labels are not integers.
    ShapeError, MixedBackendError
        If the shape, library or device of t does not fit y, or the batch is empty.
    """
    t = as_one_hot(t, y, where="cross_entropy_error")
    xp = namespace_of(y)
    smallest = float(xp.finfo(y.dtype).smallest_normal)
    return -xp.sum(t * xp.log(xp.maximum(y, smallest))) / batch_size_of(y)


def sum_squared_error(y: Array, t: Array) -> Array:
    r"""Return the mean over the batch of :math:`\frac{1}{2} \sum_k (y_k - t_k)^2`.

    Parameters
    ----------
    y
        Outputs, ``(M,)`` for one sample or ``(N, M)`` for a batch.
    t
        Targets, of the shape of y.

    Returns
    -------
    Array
        0-d, of the dtype of y.

    Raises
    ------
    DTypeError
        If y does not hold floating-point numbers.
    ShapeError, MixedBackendError
        If the shape, library or device of t does not fit y, or the batch is empty.
    """
    t = as_targets(t, y, where="sum_squared_error")
    xp = namespace_of(y)
    difference = y - t
    return 0.5 * xp.sum(difference * difference) / batch_size_of(y)


def one_hot(labels: Array, class_count: int, like: Array) -> Array:
    """Return integer labels as rows that hold a 1 at the label and 0 elsewhere.

    Parameters
    ----------
    labels
        Integers of any shape. One outside ``0 ... class_count - 1`` becomes a row of NaN, so that
        a loss computed from it is NaN: raising an error would mean waiting for the device.
    class_count
        The number of classes.
    like
        An array of the same library and device, whose dtype the result takes.

    Returns
    -------
    Array
        Of shape ``(*labels.shape, class_count)``.

    Raises
    ------
    DTypeError, MixedBackendError
        If labels are not integers, or like is not an array of the same library and device.
    SettingError
        If class_count is not a positive integer.
    """
    xp = namespace_of(labels, like, where="one_hot")
    if kind_of(labels) != "integral":
        raise DTypeError(
            f"one_hot: labels are integers, got {dtype_name(labels.dtype)}: convert whole numbers "
            "with the backend's asarray(labels, dtype='int64')"
        )
    class_count = positive_integer("one_hot: class_count", class_count)
    classes = xp.arange(class_count, device=device_of(labels))
    labels = cast_like(labels, like=classes)[..., None]
    rows = xp.astype(labels == classes, like.dtype)
    return xp.where((labels >= 0) & (labels < class_count), rows, nan)


def as_one_hot(t: Array | int, y: Array, where: str) -> Array:
    """Return targets, one-hot or labels, as one-hot of the shape and dtype of the outputs y."""
    namespace_of(y, where=where)
    if getattr(t, "shape", None) == y.shape:
        return as_targets(t, y, where)
    return one_hot(_checked_labels(t, y, where), y.shape[-1], like=y)


def as_labels(t: Array | int, y: Array, where: str) -> Array:
    """Return targets, one-hot or labels, as labels of any integer dtype."""
    if getattr(t, "shape", None) == y.shape:
        return namespace_of(y).argmax(as_targets(t, y, where), axis=-1)
    return _checked_labels(t, y, where)


def _checked_labels(t: Array, y: Array, where: str) -> Array:
    _require_samples(y, where)
    if isinstance(t, Integral):
        t = label_as_array(t, y)
    namespace_of(t, y, where=where)
    if t.shape != y.shape[:-1]:
        raise ShapeError(
            f"{where}: outputs of shape {tuple(y.shape)} need targets of that shape (one-hot) or "
            f"of shape {tuple(y.shape[:-1])} (labels, without an axis of 1), got {tuple(t.shape)}"
        )
    if kind_of(t) != "integral":
        raise DTypeError(
            f"{where}: labels are integers, got {dtype_name(t.dtype)}: convert whole numbers with "
            "the backend's asarray(t, dtype='int64'); truth values are learned with "
            "SigmoidWithLoss, others with IdentityWithLoss"
        )
    return t


def label_as_array(label: Integral, like: Array) -> Array:
    """Return a label as a 0-d integer array on the device of another array.

    A label that may not fit into the library's integers is clipped: no class has such a number.
    """
    number = max(-_LARGEST_LABEL, min(int(label), _LARGEST_LABEL))
    return namespace_of(like).asarray(number, device=device_of(like))


def as_targets(t: Array, y: Array, where: str) -> Array:
    """Return targets of the shape of the outputs y, in the dtype of y."""
    namespace_of(t, y, where=where)
    _require_samples(y, where)
    if t.shape != y.shape:
        raise ShapeError(
            f"{where}: outputs of shape {tuple(y.shape)} need targets of that shape, got "
            f"{tuple(t.shape)}{': reshape them to (N, 1)' if _lack_a_column(t, y) else ''}"
        )
    if kind_of(t) not in ("bool", "integral", "real floating"):
        raise DTypeError(f"{where}: targets are real numbers, got {dtype_name(t.dtype)}")
    return cast_like(t, like=y)


def _lack_a_column(t: Array, y: Array) -> bool:
    """Tell whether targets are ``(N,)`` for outputs ``(N, 1)``, which would broadcast to N × N."""
    return t.ndim == 1 and tuple(y.shape) == (t.shape[0], 1)


def batch_size_of(y: Array) -> int:
    """Return N for outputs ``(N, ...)``, and 1 for the outputs of one sample, ``(C,)``."""
    return int(prod(y.shape[:-1]))


def _axis_of_classes(x: Array, axis: int, where: str) -> int:
    """Return the axis as an int; raise an error unless x has scores along it."""
    require_floating(x, where)
    if not is_integer(axis) or not -x.ndim <= axis < x.ndim or x.shape[axis] == 0:
        raise ShapeError(f"{where}: shape {tuple(x.shape)} has no element along axis {axis!r}")
    return int(axis)


def _require_samples(y: Array, where: str) -> None:
    require_floating(y, where)
    if y.ndim not in (1, 2) or 0 in y.shape:
        raise ShapeError(
            f"{where}: outputs are (C,) for one sample or (N, C) for a batch, each of at least "
            f"one element, got shape {tuple(y.shape)}"
        )
