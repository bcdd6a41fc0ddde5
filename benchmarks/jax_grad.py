"""The same network in JAX, with gradients by ``jax.grad``, compiled."""

from typing import Any

import jax
import jax.numpy as jnp

from .contestant import LEARNING_RATE, Contestant, Shape


def jax_grad(shape: Shape) -> Contestant:
    """Return a network whose step is compiled, and whose loop is one ``jax.lax.scan``.

    The memory of the parameters is used again.
    """
    x, t = map(jnp.asarray, shape.data)
    parameters: Any = [(jnp.asarray(W), jnp.asarray(b)) for W, b in shape.parameters]
    compiled_loss = jax.jit(_loss)
    compiled_step = jax.jit(_step, donate_argnums=0)
    compiled_loop = jax.jit(_loop, donate_argnums=0, static_argnums=3)
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

    return Contestant(forward, step, shape.loop_length, wait, loop)


def _loss(parameters: Any, x: Any, t: Any) -> Any:
    for n, (W, b) in enumerate(parameters):
        x = (x if n == 0 else jax.nn.relu(x)) @ W + b
    return -jnp.sum(t * jax.nn.log_softmax(x)) / x.shape[0]


def _step(parameters: Any, x: Any, t: Any) -> Any:
    loss, gradient = jax.value_and_grad(_loss)(parameters, x, t)
    return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, parameters, gradient), loss


def _loop(parameters: Any, x: Any, t: Any, steps: int) -> Any:
    return jax.lax.scan(lambda state, _: _step(state, x, t), parameters, length=steps)
