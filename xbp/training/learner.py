"""One step of learning: mini-batch, gradient, update."""

from collections.abc import Mapping
from copy import copy
from typing import Any, Self

from xbp.errors import DivergenceError, TracingError
from xbp.namespace import Array, kind_of, namespace_of
from xbp.networks import Network
from xbp.optimizers import Optimizer
from xbp.recording import flatten, is_array
from xbp.training.finite import first_not_finite, parameter_not_finite


class Learner:
    """A network and an optimizer, that learn from one mini-batch after the other.

    Parameters
    ----------
    network, optimizer
        Which learns, and how.
    check_finite
        Whether to look at all that a step computes, and to raise `DivergenceError`.

    Attributes
    ----------
    state : dict or None
        The parameters and what the optimizer remembers: all that a step changes. None if the
        optimizer does not say what that is, or if it or a layer is not to be traced.
    """

    def __init__(
        self, network: Network, optimizer: Optimizer, *, check_finite: bool = False
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.check_finite = check_finite
        self._numbers = optimizer.state or {}
        # Text, or nothing at all, can be remembered, but is no part of what is computed.
        leaves = flatten(self._numbers)[0]
        self._traceable = (
            network.traceable
            and not check_finite
            and all(is_array(leaf) or isinstance(leaf, int | float) for leaf in leaves)
        )

    @property
    def state(self) -> dict[str, Any] | None:  # noqa: D102
        memory = self.optimizer.state
        if memory is None or not self._traceable:
            return None
        return {"params": dict(self.network.params), "memory": memory}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.network.params.update(state["params"])
        self.optimizer.remember(state["memory"])

    def bound_to(self, state: dict[str, Any]) -> Self:
        """Return a learner of the same structure with another state, which only learns."""
        bound = copy(self)
        bound.check_finite = False
        bound.network = self.network.bound_to(state["params"])
        bound.optimizer = self.optimizer.bound_to(state["memory"])
        return bound

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of all that a step may change, whether the optimizer names it or not."""
        everything = {"params": dict(self.network.params), "memory": vars(self.optimizer)}
        return dict(copied(everything))

    def go_back(self, snapshot: dict[str, Any]) -> None:
        """Let all be as it was when a snapshot was taken."""
        self.network.params.update(snapshot["params"])
        vars(self.optimizer).clear()
        vars(self.optimizer).update(snapshot["memory"])

    def settle(self) -> None:
        """Let what was a Python number be one again: a compiled step makes arrays of numbers.

        This waits for the device.
        """
        if (memory := self.optimizer.state) is not None:
            self.optimizer.remember(_settled(memory, self._numbers))

    def step(self, batch: Array, x: Array, t: Array) -> Array:
        """Learn from the samples of a batch, given by their numbers, and return the loss."""
        rows = self.network.backend.rows
        return self.learn(rows(x, batch), rows(t, batch))

    def learn(self, x: Array, t: Array) -> Array:
        """Learn from a mini-batch, and return its loss."""
        if self.check_finite and (where := first_not_finite(self.network, x, t)):
            raise DivergenceError(f"{where} gave NaN or infinity")
        loss = self.network.loss(x, t)
        unnamed = None if self.optimizer.state is None else self.optimizer.unnamed
        self.optimizer.update(self.network.params, self.network.backward())
        if unnamed is not None:
            _require_same(unnamed, self.optimizer)
        if self.check_finite and (where := parameter_not_finite(self.network)):
            raise DivergenceError(f"the update of {where} gave NaN or infinity")
        return loss


def copied(tree: Any) -> Any:
    """Return nested dictionaries, lists and tuples with copies of the arrays in them."""
    leaves, rebuild = flatten(tree)
    return rebuild(
        [namespace_of(leaf).asarray(leaf, copy=True) if is_array(leaf) else leaf for leaf in leaves]
    )


def _settled(value: Any, before: Any) -> Any:
    if isinstance(value, Mapping):
        known = before if isinstance(before, Mapping) else {}
        return {name: _settled(part, known.get(name)) for name, part in value.items()}
    if isinstance(value, list | tuple):
        others = before if isinstance(before, list | tuple) else ()
        pairs = zip(value, [*others, *[None] * len(value)], strict=False)
        return type(value)([_settled(part, other) for part, other in pairs])
    if is_array(before) or not is_array(value) or value.ndim:
        return value
    if before is not None and bool(value == before):
        return before  # one that has not changed has not lost digits either
    convert = {"bool": bool, "integral": int}.get(kind_of(value), float)
    return convert(value)


def _require_same(before: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Raise `TracingError` if an optimizer that says what it changes has changed something else."""
    for name, value in optimizer.unnamed.items():
        if name not in before or (
            value is not before[name] and (hasattr(value, "dtype") or value != before[name])
        ):
            kind = type(optimizer).__name__
            raise TracingError(
                f"{kind}.update changes self.{name}, which state_names does not name: name it "
                "there, so that it is traced and saved, or say state_names = None"
            )
