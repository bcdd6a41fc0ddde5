"""Lines in the space of a parameter, and the loss along them."""

from collections.abc import Callable, Sequence
from math import isfinite, sqrt
from typing import Protocol

from xbp.checkable import Checkable
from xbp.differences import Probe, longest_step, share_of_step
from xbp.initialization import random_generator
from xbp.namespace import Array, cast_like, namespace_of


class Lines(Protocol):
    """Numbered lines through a parameter's value, along which the loss is differentiated."""

    def prepare(self, numbers: Sequence[int], step: float) -> None:
        """Compute together the losses a step forward and back on these lines, the first needed."""

    def least_step(self, i: int) -> float:
        """Return the shortest step that rounding of the parameter's numbers does not spoil."""

    def claimed(self, i: int) -> float:
        """Return the derivative along a line according to backpropagation."""

    def along(self, i: int) -> Callable[[float], float]:
        """Return the loss as a function of the distance along a line."""


class Elements:
    """One line for each element of a parameter."""

    def __init__(
        self,
        network: Checkable,
        x: Array,
        t: Array,
        key: str,
        loss: Callable[[Array], Array],
        gradient: Array,
        memory: float,
        together: bool,
    ) -> None:
        self.network, self.x, self.t, self.key, self.memory = network, x, t, key, memory
        self.together = together
        self.probe = Probe(loss, network.params[key])
        self.gradient = network.backend.to_numpy(gradient).ravel()
        self.values = network.backend.to_numpy(network.params[key]).copy().ravel()
        self.losses: dict[tuple[int, float], float] = {}

    def prepare(self, numbers: Sequence[int], step: float) -> None:  # noqa: D102
        if not self.together:
            return
        for signed_step in (step, -step):
            parts = self.network.perturbed_losses(  # type: ignore[attr-defined]
                self.x, self.t, self.key, numbers, signed_step, self.memory
            )
            to_numpy = self.network.backend.to_numpy
            losses = [loss for part in parts for loss in to_numpy(part).tolist()]
            self.losses |= {(i, signed_step): losses[n] for n, i in enumerate(numbers)}

    def least_step(self, i: int) -> float:  # noqa: D102
        value = abs(float(self.values[i]))
        return share_of_step(self.probe.x) * value if isfinite(value) else 0.0

    def claimed(self, i: int) -> float:  # noqa: D102
        return float(self.gradient[i])

    def along(self, i: int) -> Callable[[float], float]:  # noqa: D102
        alone = self.probe.along(i)

        def loss(step: float) -> float:
            return self.losses[i, step] if (i, step) in self.losses else alone(step)

        return loss


class Directions:
    """Lines along random directions of length 1."""

    def __init__(
        self,
        network: Checkable,
        x: Array,
        t: Array,
        key: str,
        loss: Callable[[Array], Array],
        gradient: Array,
        seed: int,
    ) -> None:
        self.parameter, self.loss, self.gradient = network.params[key], loss, gradient
        self.backend, self.seed = network.backend, [seed, *key.encode()]

    def prepare(self, numbers: Sequence[int], step: float) -> None:  # noqa: D102
        pass

    def least_step(self, i: int) -> float:  # noqa: D102
        return longest_step(self.parameter, 0.0)

    def _direction(self, i: int) -> Array:
        direction = random_generator([*self.seed, i]).normal(size=tuple(self.parameter.shape))
        direction /= sqrt((direction * direction).sum())
        return cast_like(self.backend.asarray(direction), like=self.parameter)

    def claimed(self, i: int) -> float:  # noqa: D102
        return float(namespace_of(self.gradient).sum(self.gradient * self._direction(i)))

    def along(self, i: int) -> Callable[[float], float]:  # noqa: D102
        direction = self._direction(i)
        return lambda step: float(self.loss(self.parameter + step * direction))
