"""The same network without any library for networks, as one would write it for it alone."""

from collections.abc import Callable
from typing import Any

from .contestant import LEARNING_RATE, Contestant, Shape


def by_hand(
    shape: Shape, np: Any, asarray: Callable[[Any], Any], wait: Callable[[], Any]
) -> Contestant:
    """Return a network of arrays of NumPy, or of a library that has its functions."""
    x, t = map(asarray, shape.data)
    # Copies, for they are updated in place.
    weights = [asarray(W.copy()) for W, _ in shape.parameters]
    biases = [asarray(b.copy()) for _, b in shape.parameters]
    last = len(weights) - 1

    def run() -> tuple[list[Any], Any, Any]:
        values = [x]
        for n, (W, b) in enumerate(zip(weights, biases, strict=True)):
            y = values[n] @ W
            y += b
            values.append(y if n == last else np.maximum(y, 0))
        scores = values.pop()
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        y = e / e.sum(axis=1, keepdims=True)
        loss = -(t * np.log(y + 1e-7)).sum() / shape.batch
        return values, y, loss

    def forward() -> Any:
        return run()[-1]

    def step() -> Any:
        values, y, loss = run()
        dy = (y - t) / shape.batch
        for n in range(last, -1, -1):
            W, b, value = weights[n], biases[n], values[n]
            dW = value.T @ dy
            db = dy.sum(axis=0)
            if n:
                dy = dy @ W.T
                dy *= value > 0
            W -= LEARNING_RATE * dW
            b -= LEARNING_RATE * db
        return loss

    return Contestant(forward, step, shape.loop_length, wait)
