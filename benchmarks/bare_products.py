"""The floor: the matrix products that no implementation can do without, into memory that is there.

Of the first layer's derivatives only that by its weight is computed, as in training.
"""

import numpy as np

from .contestant import Contestant, Shape


def bare_products(shape: Shape) -> Contestant:
    """Return the products of NumPy, preallocated."""
    x, _ = shape.data
    weights = [W for W, _ in shape.parameters]
    values = [x, *(np.ones((shape.batch, W.shape[1]), np.float32) for W in weights)]
    d_values = [value * 0 for value in values]
    d_weights = [W * 0 for W in weights]

    def forward() -> None:
        for n, W in enumerate(weights):
            np.matmul(values[n], W, out=values[n + 1])

    def step() -> None:
        forward()
        for n, W in reversed(list(enumerate(weights))):
            np.matmul(values[n].T, d_values[n + 1], out=d_weights[n])
            if n:
                np.matmul(d_values[n + 1], W.T, out=d_values[n])

    return Contestant(forward, step, shape.loop_length)
