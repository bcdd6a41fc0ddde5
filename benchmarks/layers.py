"""The same network in xbp's layers, learning as `xbp.Trainer` lets it learn."""

from typing import Any

import numpy as np

import xbp
from xbp.backend import Backend
from xbp.namespace import Array
from xbp.training.learner import Learner

from .contestant import LEARNING_RATE, Contestant, Shape


class _OneBatch(Learner):
    """Learns from the same mini-batch at each step, as all contestants do."""

    def step(self, row: tuple[Any, ...], x: Array, t: Array) -> Array:
        return self.learn(x, t)


def xbp_layers(shape: Shape, backend: Backend) -> Contestant:
    """Return a network on a backend; its step is compiled, as far as the library can."""
    network = xbp.Network.fully_connected(shape.sizes, backend=backend, dtype="float32", seed=0)
    return contestant_of(network, shape)


def contestant_of(network: xbp.Network, shape: Any) -> Contestant:
    """Return a network of xbp as a contestant; a shape has data and the length of a loop."""
    backend = network.backend
    learner = _OneBatch(network, xbp.SGD(LEARNING_RATE))
    x, t = (backend.asarray(values) for values in shape.data)

    def loss_of(params: Any, x: Array, t: Array) -> Array:
        return network.bound_to(params).loss(x, t)

    def whole_step(state: Any, x: Array, t: Array) -> tuple[Any, Array]:
        bound = learner.bound_to(state)
        loss = bound.learn(x, t)
        return bound.state, loss

    compiled_loss = backend.compile(loss_of)
    compiled_step = backend.compile(whole_step, donate=[0])
    compiled_loop = learner.loop()
    # The step may use the memory of its state again, so it is given copies.
    params = {key: value * 1 for key, value in network.params.items()}
    state: Any = {**(learner.state or {}), "params": params}
    rows = backend.asarray(np.zeros((shape.loop_length, 1), dtype=np.int64))

    def forward() -> Array:
        return compiled_loss(dict(network.params), x, t)

    def step() -> Array:
        nonlocal state
        state, loss = compiled_step(state, x, t)
        return loss

    def loop() -> Array:
        return compiled_loop(rows, x, t)[-1]

    return Contestant(forward, step, shape.loop_length, backend.synchronize, loop)
