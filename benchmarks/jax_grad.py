"""The same network in JAX, with gradients by ``jax.grad``, compiled."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from .contestant import LEARNING_RATE, Contestant, Shape
from .images import ImageShape


def jax_grad(shape: Shape) -> Contestant:
    """Return a network whose step is compiled, and whose loop is one ``jax.lax.scan``.

    The memory of the parameters is used again.
    """
    return _learning(shape, _loss)


def jax_images(shape: ImageShape) -> Contestant:
    """Return a convolutional network of ``jax.lax``, whose step is compiled.

    Its loop is one step after the other: in a loop XLA computes convolutions far more slowly.
    """

    def loss(parameters: Any, x: Any, t: Any) -> Any:
        those, edge = iter(parameters), [(shape.pad, shape.pad)] * 2
        window = (1, 1, 2, 2)
        for group in shape.groups:
            for _ in group:
                W, b = next(those)
                x = jax.lax.conv_general_dilated(x, W, (1, 1), edge) + b[:, None, None]
                x = jax.nn.relu(x)
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")
        return _loss(list(those), x.reshape(len(x), -1), t)

    return _learning(shape, loss, in_scan=False)


def _learning(shape: Any, loss_of: Callable[..., Any], in_scan: bool = True) -> Contestant:
    x, t = map(jnp.asarray, shape.data)
    parameters: Any = [(jnp.asarray(W), jnp.asarray(b)) for W, b in shape.parameters]
    one_step = partial(_step, loss_of)
    compiled_loss = jax.jit(loss_of)
    compiled_step = jax.jit(one_step, donate_argnums=0)
    compiled_loop = jax.jit(partial(_loop, one_step), donate_argnums=0, static_argnums=3)
    loss: Any = None

    def forward() -> Any:
        nonlocal loss
        loss = compiled_loss(parameters, x, t)
        return loss

    def step() -> Any:
        nonlocal loss, parameters
        parameters, loss = compiled_step(parameters, x, t)
        return loss

    def loop() -> Any:
        nonlocal loss, parameters
        parameters, losses = compiled_loop(parameters, x, t, shape.loop_length)
        loss = losses[-1]
        return loss

    def wait() -> None:
        jax.block_until_ready((loss, parameters))

    return Contestant(forward, step, shape.loop_length, wait, loop if in_scan else None)


def _loss(parameters: Any, x: Any, t: Any) -> Any:
    for n, (W, b) in enumerate(parameters):
        x = (x if n == 0 else jax.nn.relu(x)) @ W + b
    return -jnp.sum(t * jax.nn.log_softmax(x)) / x.shape[0]


def _step(loss_of: Callable[..., Any], parameters: Any, x: Any, t: Any) -> Any:
    loss, gradient = jax.value_and_grad(loss_of)(parameters, x, t)
    return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, parameters, gradient), loss


def _loop(step: Callable[..., Any], parameters: Any, x: Any, t: Any, steps: int) -> Any:
    return jax.lax.scan(lambda state, _: step(state, x, t), parameters, length=steps)
