"""Convolution of images with filters, and its derivatives, as matrix products."""

from collections.abc import Iterator, Sequence
from functools import reduce
from math import prod
from operator import add

from xbp.blocks import blocks
from xbp.namespace import Array, namespace_of
from xbp.operations import operation
from xbp.windows import Window


@operation
def convolution(x: Array, W: Array, b: Array, window: Window) -> Array:
    """Return ``W columns + b``: the product of each filter with what each window shows.

    Parameters
    ----------
    x
        Images, ``(N, C, H, W)``.
    W
        Filters, ``(F, C, KH, KW)``, of the dtype of x.
    b
        A bias for each filter, ``(F,)``.
    window
        Of the size of the filters.

    Returns
    -------
    Array
        ``(N, F, OH, OW)``.
    """
    xp = namespace_of(x)
    filters = xp.reshape(W, (W.shape[0], -1))
    parts = [
        filters @ window.columns(x[block, ...]) + b[:, None] for block in _blocks(x.shape, window)
    ]
    y = parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
    return xp.reshape(y, (x.shape[0], W.shape[0], *window.grid(x.shape)))


@operation
def convolution_gradients(
    dout: Array, x: Array, W: Array, window: Window
) -> tuple[Array, Array, Array]:
    """Return the gradients with respect to images, filters and biases: see the next two."""
    db = namespace_of(dout).sum(dout, axis=(0, 2, 3))
    return convolution_dx(dout, W, window, x.shape), convolution_dW(dout, x, window), db


@operation
def convolution_dx(dout: Array, W: Array, window: Window, shape: Sequence[int]) -> Array:
    """Return the gradient with respect to images of a shape: the image of ``Wᵀ dout``."""
    xp = namespace_of(dout)
    transposed = xp.reshape(W, (W.shape[0], -1)).T
    dout = xp.reshape(dout, (*dout.shape[:2], prod(dout.shape[2:])))
    parts = []
    for block in _blocks(shape, window):
        columns = transposed @ dout[block, ...]
        parts.append(window.image_of_columns(columns, (columns.shape[0], *shape[1:])))
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)


@operation
def convolution_dW(dout: Array, x: Array, window: Window) -> Array:
    """Return the gradient with respect to filters: ``dout columnsᵀ``, summed over the samples."""
    xp = namespace_of(x)
    rows = xp.reshape(dout, (*dout.shape[:2], prod(dout.shape[2:])))
    sums = (
        xp.sum(rows[block, ...] @ xp.permute_dims(window.columns(x[block, ...]), (0, 2, 1)), axis=0)
        for block in _blocks(x.shape, window)
    )
    return xp.reshape(reduce(add, sums), (dout.shape[1], x.shape[1], *window.size))


def _blocks(shape: Sequence[int], window: Window) -> Iterator[slice]:
    return blocks(shape[0], shape[1] * window.count * prod(window.grid(shape)))
