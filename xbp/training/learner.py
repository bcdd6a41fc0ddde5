"""One step of learning: mini-batch, gradient, update."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from typing import Any, Self

from xbp.errors import DivergenceError, MixedBackendError, SettingError, TracingError
from xbp.immutability import is_immutable
from xbp.layers import Layer
from xbp.namespace import Array, is_array, namespace_of
from xbp.networks import Network
from xbp.optimizers import Optimizer, fixed_by, is_traceable, memory_of, schedule_of
from xbp.recording import flatten
from xbp.sources import places_of
from xbp.training.changes import Change
from xbp.training.contents import Path, contents
from xbp.training.copies import copied
from xbp.training.finite import first_not_finite, parameter_not_finite
from xbp.training.parts import (
    Part,
    attributes_of,
    comparable,
    is_strange,
    methods_of,
    parts_of,
    settings_of,
    strange_parts,
)


class Learner:
    """A network and an optimizer that learn from one mini-batch after the other.

    Parameters
    ----------
    network, optimizer
        The network that learns, and how it is updated.
    changes
        What is done to the gradients before the update, in this order: see
        `xbp.training.changes`.
    check_finite
        Whether to check all that a step computes, and to raise `DivergenceError`.

    Attributes
    ----------
    state : dict or None
        The parameters, the state of layers, and what the optimizer remembers: what a traced step
        reads and changes. None if the optimizer or a layer is not to be traced.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        *,
        changes: Sequence[Change] = (),
        check_finite: bool = False,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self.changes = tuple(changes)
        self.check_finite = check_finite
        # By the name of a part of the network: see `try_out`.
        self.left_by_passes: dict[str, set[Path]] = {}
        self._owners: list[Layer] = []

    @property
    def state(self) -> dict[str, Any] | None:  # noqa: D102
        if not self._is_traced:
            return None
        arrays = self.arrays()
        Optimizer.prepare(self.optimizer, arrays["params"])  # somebody may have emptied it
        return {**arrays, "memory": memory_of(self.optimizer)}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        structure, optimizer = self.network._up_to_date(), self.optimizer
        structure.params.update(state["params"])
        structure.state.update(state["state"])
        # Not its numbers: a compiled step makes arrays of them.
        optimizer.remember({name: state["memory"][name] for name in optimizer.memory_names})

    def arrays(self) -> dict[str, dict[str, Array]]:
        """Return the parameters and the state of the layers, by key."""
        structure = self.network._up_to_date()
        return {"params": dict(structure.params), "state": dict(structure.state)}

    @property
    def _is_traced(self) -> bool:
        may_be = not self.check_finite and is_traceable(self.optimizer)
        return may_be and self.network.traceable

    def bound_to(self, state: dict[str, Any]) -> Self:
        """Return a learner of the same structure with another state, which checks nothing."""
        bound = copy(self)
        bound.check_finite = False
        bound.network = self.network.bound_to(state["params"], state["state"])
        bound.optimizer = self.optimizer.bound_to(state["memory"])
        # Copies, so that what a part writes into its attributes does not reach this learner.
        memo = {id(layer): layer for layer in bound.network.all_layers.values()}
        for part in strange_parts(bound.network).values():
            vars(part).update(copied(attributes_of(part), dict(memo)))
        return bound

    def snapshot(self) -> dict[str, Any]:
        """Return a copy of all that a step may change, whether the optimizer names it or not."""
        everything = {**self.arrays(), "memory": vars(self.optimizer)}
        return {**copied(everything), **self.places()}

    def places(self) -> dict[str, Any]:
        """Return which layers there are, and which of them own which arrays."""
        network = self.network
        owners = {"params": dict(network.params.places), "state": dict(network.state.places)}
        return {"layers": dict(network.layers), "owners": owners}

    def go_back(self, snapshot: dict[str, Any]) -> None:
        """Restore a snapshot, also in layers that have been removed since."""
        layers = self.network.layers
        layers.clear()
        layers.update(snapshot["layers"])
        for kind, owners in snapshot["owners"].items():
            for key, (layer, attribute) in owners.items():
                setattr(layer, attribute, snapshot[kind][key])
        _put_back(self.optimizer, snapshot["memory"])

    def own_arrays(self) -> None:
        """Copy the parameters of each new layer, in row-major order.

        Steps change them in place, and the originals may be shared with another network, or
        read-only. In another order a matrix product would be rounded differently.
        """
        backend = self.network.backend
        for layer in self.network.all_layers.values():
            if not any(layer is owner for owner in self._owners):
                self._owners.append(layer)
                for name in layer.param_names:
                    W = getattr(layer, name)
                    setattr(layer, name, backend.row_major(backend.xp.astype(W, W.dtype)))

    def prepare(self) -> None:
        """Let the optimizer make room for what it remembers of each parameter."""
        optimizer, backend = self.optimizer, self.network.backend
        optimizer.prepare(self.network.params)
        for name, value in (optimizer.state or {}).items():
            for leaf in flatten(value)[0]:
                if is_array(leaf) and not backend.owns(leaf):
                    raise MixedBackendError(
                        f"{type(optimizer).__name__}: self.{name} holds an array that is not on "
                        f"{backend!r}: move it there with backend.asarray(...), or make a number "
                        "of it with float(...)"
                    )

    @property
    def is_strange(self) -> bool:
        """Whether the update is not xbp's own."""
        kind = type(self.optimizer)
        is_ours = kind.__module__.startswith("xbp.optimizers.")
        return not is_ours or any(
            callable(getattr(kind, name, None)) for name in vars(self.optimizer)
        )

    def updated(self, *, are_apart: bool = False) -> Self:
        """Return a copy after two updates of one number, by gradients of 1.

        If ``are_apart``, what is one array under two names is two arrays in each update.
        """
        trial = self
        for _ in range(2):
            state = {**trial.arrays(), "memory": vars(trial.optimizer)}
            leaves, rebuild = flatten(state)
            trial = trial.bound_to(
                rebuild([copied(x) for x in leaves]) if are_apart else copied(state)
            )
            params = trial.network.params
            gradients = {key: namespace_of(W).ones_like(W) for key, W in params.items()}
            # A schedule may know the steps of this training alone.
            Optimizer.plan_update(trial.optimizer, self.optimizer.update_number)
            trial.optimizer.update(params, gradients)
        return trial

    def constants(self) -> list[Any]:
        """Return the constants of the steps: if one changes, all has to be prepared again.

        These are the layers themselves, and, if steps are traced, what layers and optimizer hold
        beside what a step changes.
        """
        parts = parts_of(self.network)
        if not self._is_traced:
            return list(map(_Itself, parts.values()))
        strange = {name: part for name, part in parts.items() if is_strange(part)}
        layers = {name: part for name, part in parts.items() if isinstance(part, Layer)}
        return [
            _settings_of(self.optimizer),
            schedule_of(self.optimizer) is None,
            *map(_Itself, layers.values()),
            *(settings_of(layer) for name, layer in layers.items() if name not in strange),
            *(self._values_of(name, part) for name, part in strange.items()),
        ]

    def _values_of(self, name: str, part: Part) -> list[Any]:
        """Return the comparable values of a part by path, except for those that a pass sets."""
        results, backend = self.left_by_passes.get(name, set()), self.network.backend
        items = contents(attributes_of(part)).items()
        return [(path, comparable(value, backend)) for path, value in items if path not in results]

    @property
    def structure(self) -> Hashable:
        """The constants of a trace by value: learners with equal ones share compiled code.

        None if a part is not xbp's own, since what it computes is unknown.
        """
        network, optimizer = self.network, type(self.optimizer)
        if not is_traceable(self.optimizer) or self.is_strange or strange_parts(network):
            return None
        layers = network.all_layers.values()
        settings = [settings_of(layer) for layer in layers]
        constants = [(name, type(c), c) for name, c in _settings_of(self.optimizer).items()]
        if not all(is_immutable(value) for some in settings for *_, value in some):
            return None
        classes: list[type[Layer]] = [type(layer) for layer in layers]
        kinds = [(kind, *methods_of(kind)) for kind in classes]
        arrays = [*network.params.items(), *network.state.items()]
        shapes = tuple((key, tuple(array.shape)) for key, array in arrays)
        parts = tuple(zip(kinds, map(tuple, settings), strict=True))
        methods = methods_of(type(network)), methods_of(optimizer)
        return (
            type(network),
            optimizer,
            *methods,
            parts,
            shapes,
            tuple(constants),
            self.changes,
            schedule_of(self.optimizer) is None,
        )

    def without_arrays(self) -> Self:
        """Return a learner of the same structure that keeps no array alive."""
        bare = copy(self)
        bare.network = self.network.without_arrays()
        bare.optimizer = self.optimizer.bound_to(dict.fromkeys(memory_of(self.optimizer)))
        bare._owners = []
        return bare

    def loop(self) -> Callable[[Array, Array, Array], Array]:
        """Return a function that learns from one mini-batch after the other.

        Called with the numbers of each one's samples, ``(count, size)``, and with all samples and
        targets, it returns the losses, ``(count,)``.
        """
        optimizer, run = self.optimizer, self.network.backend.loop(self)

        def learn(batches: Array, x: Array, t: Array) -> Array:
            first, count = optimizer.update_number, batches.shape[0]
            losses = run((batches, *self.plan(range(first, first + count))), x, t)
            Optimizer.plan_update(optimizer, first + count)
            return losses

        return learn

    def plan(self, numbers: range) -> tuple[list[Any], ...]:
        """Return the plan of updates: how many came before each, and the rates of a schedule.

        An update of one's own needs none: it asks for the rate, if it wants one.
        """
        optimizer = self.optimizer
        if not optimizer.is_stepwise:
            return ()
        if schedule_of(optimizer) is None:
            return ([*numbers],)
        return [*numbers], [Optimizer.rate_after(optimizer, number) for number in numbers]

    def step(self, row: Array | tuple[Any, ...], x: Array, t: Array) -> Array:
        """Learn from a batch, given by the numbers of its samples, and return the loss.

        A row is these numbers, or a tuple of them and the arguments of `Optimizer.plan_update`.
        """
        batch, *plan = row if isinstance(row, tuple) else (row,)
        if plan:
            Optimizer.plan_update(self.optimizer, *plan)
        rows = self.network.backend.rows
        return self.learn(rows(x, batch), rows(t, batch))

    def learn(self, x: Array, t: Array) -> Array:
        """Learn from a mini-batch, and return its loss."""
        if self.check_finite and (where := first_not_finite(self.network, x, t)):
            raise DivergenceError(f"{where} gave NaN or infinity")
        keys = self.network.params.keys()
        loss, gradient = self.network.backpropagate(x, t)
        for change in self.changes:
            gradient = change(gradient)
        if more := [key for key in gradient if key not in keys]:
            raise SettingError(
                f"a layer that is made in forward is not trained, with its {more[0]}: make it in "
                "__init__"
            )
        before, may_change = fixed_by(self.optimizer), not is_traceable(self.optimizer)
        number = self.optimizer.update_number
        self.optimizer.update(self.network.params, gradient)
        # Once, whatever an update of one's own has called.
        Optimizer.plan_update(self.optimizer, number + 1)
        if name := None if may_change else first_change(before, fixed_by(self.optimizer)):
            raise TracingError(
                f"{places_of([self.optimizer])}: {type(self.optimizer).__name__}.step changes "
                f"self.{name}, which a traced step does not: keep arrays in memory, count by "
                "self.update_number, or write update instead of step"
            )
        if self.check_finite and (where := parameter_not_finite(self.network)):
            raise DivergenceError(f"the update of {where} gave NaN or infinity")
        return loss


def _settings_of(optimizer: Optimizer) -> dict[str, Any]:
    """Return the attributes of an optimizer that are constants of a traced step."""
    variables = {"lr", *memory_of(optimizer)}
    return {name: v for name, v in fixed_by(optimizer).items() if name not in variables}


def first_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Return the name of the first attribute that is another, new or gone; None if none is."""
    missing = object()
    for name in {**before, **after}:
        old, new = before.get(name, missing), after.get(name, missing)
        # Arrays are not compared: their values may not be there yet.
        if new is not old and (hasattr(new, "dtype") or hasattr(old, "dtype") or new != old):
            return name
    return None


def _put_back(optimizer: Optimizer, memory: Mapping[str, Any]) -> None:
    """Set all attributes of an optimizer; an optimizer that it wraps stays the same object."""
    now = vars(optimizer).copy()
    vars(optimizer).clear()
    for name, value in memory.items():
        inner = now.get(name)
        if isinstance(inner, Optimizer) and type(inner) is type(value):
            _put_back(inner, vars(value))
            vars(optimizer)[name] = inner
        else:
            vars(optimizer)[name] = value


class _Itself:
    """Compares an object by identity, even if the object compares by value."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other.thing is self.thing

    __hash__ = object.__hash__
