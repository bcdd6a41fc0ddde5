"""A network run in NumPy, to know where its values lie."""

from collections.abc import Iterator
from itertools import zip_longest

import numpy as np
from support import HostArray

from xbp.layers import Relu, Sigmoid
from xbp.testing import NetworkCase


def run(case: NetworkCase) -> list[HostArray]:
    """Return the input of each affine layer, and the outputs, in float64 on the host."""
    values = [case.x]
    for (W, b), activation in zip_longest(case.weights, case.activations):
        x = values[-1] @ W + b
        if activation is Relu:
            x = np.maximum(x, 0)
        elif activation is Sigmoid:
            x = 1 / (1 + np.exp(-np.clip(x, -700, 700)))
        values.append(x)
    return values


def relu_inputs(case: NetworkCase) -> Iterator[tuple[HostArray, HostArray]]:
    """Yield the input of each ReLU, and the size of what is added up in it."""
    for x, (W, b), activation in zip(run(case), case.weights, case.activations, strict=False):
        if activation is Relu:
            yield x @ W + b, abs(x) @ abs(W) + abs(b)
