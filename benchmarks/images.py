"""Convolutional networks: the shapes that are measured, xbp's layers, and the floor."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import xbp
from xbp.backend import Backend
from xbp.layers import Convolution

from .contestant import CLASSES, Contestant
from .layers import contestant_of

HostArray = np.ndarray[Any, Any]

# The networks of the book's chapters 7 and 8, without dropout: groups of filters, their size and
# pad, and the features of the affine layers.
MODELS: Mapping[str, tuple[list[list[int]], int, int, list[int]]] = {
    "cnn": ([[30]], 5, 0, [100, CLASSES]),
    "deep": ([[16, 16], [32, 32], [64, 64]], 3, 1, [50, CLASSES]),
}
IMAGE = (1, 28, 28)


@dataclass(frozen=True)
class ImageShape:
    """The shape of a convolutional network and of the batches that it learns from.

    Attributes
    ----------
    batch
        Samples in a mini-batch.
    model
        Its name.
    """

    batch: int
    model: str

    loop_length = 10

    def __str__(self) -> str:
        return f"batch {self.batch}, model {self.model}"

    @property
    def groups(self) -> list[list[int]]:
        """How many filters each convolution has, by group; behind each group is pooling."""
        return MODELS[self.model][0]

    @property
    def pad(self) -> int:
        """The zeros on each side of an image."""
        return MODELS[self.model][2]

    def network(self, backend: str | Backend) -> xbp.Network:
        """Return the network on a backend: the same numbers on each."""
        groups, size, pad, sizes = MODELS[self.model]
        return xbp.Network.convolutional(
            IMAGE,
            groups,
            sizes,
            filter_size=size,
            pad=pad,
            backend=backend,
            dtype="float32",
            seed=0,
        )

    @cached_property
    def parameters(self) -> list[tuple[HostArray, HostArray]]:
        """Initial W and b of each layer, float32."""
        params = self.network("numpy").params
        return [(params[f"W{n}"], params[f"b{n}"]) for n in range(1, len(params) // 2 + 1)]

    @cached_property
    def data(self) -> tuple[HostArray, HostArray]:
        """A batch of images and its one-hot labels, float32."""
        chance = np.random.default_rng(0)
        x = chance.random((self.batch, *IMAGE), dtype=np.float32)
        return x, np.eye(CLASSES, dtype=np.float32)[chance.integers(CLASSES, size=self.batch)]


def xbp_images(shape: ImageShape, backend: Backend) -> Contestant:
    """Return a network on a backend; its step is compiled, as far as the library can."""
    return contestant_of(shape.network(backend), shape)


def bare_image_products(shape: ImageShape) -> Contestant:
    """Return the matrix products of NumPy for each sample, preallocated.

    Of convolutions the windows are there already, as columns.
    """
    network = shape.network("numpy")
    x, _ = shape.data
    # For each layer: weight, columns or rows, result.
    products: list[tuple[HostArray, HostArray, HostArray]] = []
    for layer in network.layers.values():
        y = layer.forward(x)
        if isinstance(layer, Convolution):
            W, columns = layer.W.reshape(len(layer.W), -1), layer.window.columns(x)
            products.append((W, columns, y.reshape(*y.shape[:2], -1).copy()))
        elif layer.params:
            products.append((layer.params["W"].T, x.T.copy(), y.T.copy()))
        x = y
    d_weights = [np.empty((*y.shape[:-2], *W.shape), W.dtype) for W, _, y in products]
    d_columns = [columns.copy() for _, columns, _ in products]

    def forward() -> None:
        for W, columns, y in products:
            np.matmul(W, columns, out=y)

    def step() -> None:
        forward()
        for n, (W, columns, y) in enumerate(products):
            np.matmul(y, columns.swapaxes(-1, -2), out=d_weights[n])
            if n:
                np.matmul(W.T, y, out=d_columns[n])

    return Contestant(forward, step, shape.loop_length)
