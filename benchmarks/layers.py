"""The same network in xbp's layers, learning as `xbp.Trainer` lets it learn."""

from typing import Any

import xbp
from xbp.backend import Backend
from xbp.namespace import Array
from xbp.training import Learner

from .contestant import LEARNING_RATE, Contestant, Shape


def xbp_layers(shape: Shape, backend: Backend) -> Contestant:
    """Return a network on a backend; its step is compiled, as far as the library can."""
    network = xbp.Network.fully_connected(shape.sizes, backend=backend, dtype="float32", seed=0)
    learner = Learner(network, xbp.SGD(LEARNING_RATE))
    x, t = (backend.asarray(values) for values in shape.data)

    def loss_of(params: Any, x: Array, t: Array) -> Array:
        return network.bound_to(params).loss(x, t)

    def whole_step(state: Any, x: Array, t: Array) -> tuple[Any, Array]:
        bound = learner.bound_to(state)
        loss = bound.learn(x, t)
        return bound.state, loss

    compiled_loss = backend.compile(loss_of)
    compiled_step = backend.compile(whole_step, donate=[0])
    # The step may use the memory of its state again, so it is given copies.
    params = dict(network.params)
    state: Any = {
        "params": {key: value * 1 for key, value in params.items()},
        "memory": learner.optimizer.state,
    }

    def forward() -> Array:
        return compiled_loss(params, x, t)

    def step() -> Array:
        nonlocal state
        state, loss = compiled_step(state, x, t)
        return loss

    return Contestant(forward, step, backend.synchronize)
