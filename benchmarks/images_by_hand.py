"""A convolutional network by NumPy alone, as the book writes it: the columns of a whole batch."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .contestant import LEARNING_RATE, Contestant
from .images import HostArray, ImageShape

# From the derivative with respect to a result to that with respect to x, and to W and b if any.
Backward = Callable[[HostArray], tuple[HostArray, list[HostArray]]]


def images_by_hand(shape: ImageShape) -> Contestant:
    """Return the network, learning by gradient descent."""
    x, t = shape.data
    parameters = [(W.copy(), b.copy()) for W, b in shape.parameters]

    def run() -> tuple[list[Backward], HostArray, Any]:
        backwards: list[Backward] = []
        those, y = iter(parameters), x

        def layer(function: Callable[..., tuple[HostArray, Backward]], *given: Any) -> None:
            nonlocal y
            y, backward = function(y, *given)
            backwards.append(backward)

        for group in shape.groups:
            for _ in group:
                layer(convolution, *next(those), shape.pad)
                layer(relu)
            layer(pooling)
        layer(flatten)
        rest = list(those)
        for n, (W, b) in enumerate(rest):
            layer(affine, W, b)
            if n < len(rest) - 1:
                layer(relu)
        e = np.exp(y - y.max(axis=1, keepdims=True))
        y = e / e.sum(axis=1, keepdims=True)
        return backwards, y, -(t * np.log(y + 1e-7)).sum() / shape.batch

    def step() -> Any:
        backwards, y, loss = run()
        dout, those = (y - t) / shape.batch, reversed(parameters)
        for backward in reversed(backwards):
            dout, gradients = backward(dout)
            for parameter, gradient in zip(
                next(those) if gradients else (), gradients, strict=True
            ):
                parameter -= LEARNING_RATE * gradient  # noqa: PLW2901  in place
        return loss

    return Contestant(lambda: run()[-1], step, shape.loop_length)


def convolution(x: HostArray, W: HostArray, b: HostArray, pad: int) -> tuple[HostArray, Backward]:
    """Return the convolution of images, ``(N, F, OH, OW)``, and its backward."""
    filters, size, shape = len(W), W.shape[2], x.shape
    columns = im2col(x, size, 1, pad)
    side = shape[2] + 2 * pad - size + 1
    y = (columns @ W.reshape(filters, -1).T + b).reshape(-1, side, side, filters)

    def backward(dout: HostArray) -> tuple[HostArray, list[HostArray]]:
        rows = dout.transpose(0, 2, 3, 1).reshape(-1, filters)
        dW = (columns.T @ rows).T.reshape(W.shape)
        dx = col2im(rows @ W.reshape(filters, -1), shape, size, 1, pad)
        return dx, [dW, rows.sum(axis=0)]

    return y.transpose(0, 3, 1, 2), backward


def pooling(x: HostArray) -> tuple[HostArray, Backward]:
    """Return the largest of each 2 by 2 pixels, and its backward."""
    windows = im2col(x, 2, 2, 0).reshape(-1, 4)
    places = windows.argmax(axis=1)
    shape = (len(x), x.shape[2] // 2, x.shape[3] // 2, x.shape[1])
    y = windows.max(axis=1).reshape(shape).transpose(0, 3, 1, 2)

    def backward(dout: HostArray) -> tuple[HostArray, list[HostArray]]:
        shares = np.zeros((dout.size, 4), dout.dtype)
        shares[np.arange(dout.size), places] = dout.transpose(0, 2, 3, 1).reshape(-1)
        columns = shares.reshape(shape[0] * shape[1] * shape[2], -1)
        return col2im(columns, x.shape, 2, 2, 0), []

    return y, backward


def affine(x: HostArray, W: HostArray, b: HostArray) -> tuple[HostArray, Backward]:
    """Return ``x W + b``, and its backward."""
    return x @ W + b, lambda dout: (dout @ W.T, [x.T @ dout, dout.sum(axis=0)])


def relu(x: HostArray) -> tuple[HostArray, Backward]:
    """Return x where it is positive, else 0, and its backward."""
    return np.maximum(x, 0), lambda dout: (dout * (x > 0), [])


def flatten(x: HostArray) -> tuple[HostArray, Backward]:
    """Return a row for each image, and its backward."""
    return x.reshape(len(x), -1), lambda dout: (dout.reshape(x.shape), [])


def im2col(x: HostArray, size: int, stride: int, pad: int) -> HostArray:
    """Return a row for each window of images."""
    samples, channels = x.shape[:2]
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    high, wide = ((length - size) // stride + 1 for length in padded.shape[2:])
    parts = np.empty((samples, channels, size, size, high, wide), x.dtype)
    for i, j in product(range(size), repeat=2):
        rows, columns = slice(i, i + stride * high, stride), slice(j, j + stride * wide, stride)
        parts[:, :, i, j] = padded[:, :, rows, columns]
    return parts.transpose(0, 4, 5, 1, 2, 3).reshape(samples * high * wide, -1)


def col2im(windows: HostArray, shape: Any, size: int, stride: int, pad: int) -> HostArray:
    """Return the images that sum what the rows hold for each pixel."""
    samples, channels, height, width = shape
    padded = np.zeros((samples, channels, height + 2 * pad, width + 2 * pad), windows.dtype)
    high, wide = ((length - size) // stride + 1 for length in padded.shape[2:])
    parts = windows.reshape(samples, high, wide, channels, size, size).transpose(0, 3, 4, 5, 1, 2)
    for i, j in product(range(size), repeat=2):
        rows, columns = slice(i, i + stride * high, stride), slice(j, j + stride * wide, stride)
        padded[:, :, rows, columns] += parts[:, :, i, j]
    return padded[:, :, pad : height + pad, pad : width + pad]
