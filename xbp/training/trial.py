"""Layers, losses and optimizers that are not xbp's, tried out on some samples before tracing.

A trace repeats what it saw in a single run. So what is traced must do the same each time, remember
nothing that it does not name, and do the same traced as untraced.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite, prod
from typing import Any, NamedTuple

import numpy as np

from xbp.backend import Backend
from xbp.errors import TracingError
from xbp.namespace import Array, epsilon_of, is_array, is_floating, kind_of, namespace_of
from xbp.networks import Network
from xbp.precision import widest_float
from xbp.recording import flatten
from xbp.sources import places_of
from xbp.tensors import HostArray
from xbp.training.contents import COMPARABLE, Path, contents, on_host
from xbp.training.copies import copied
from xbp.training.learner import Learner
from xbp.training.parts import attributes_of, strange_parts

SAMPLES = 8
STEPS = 5  # replayed from the third on
NUMBERS = [0, 2, 14, 107, 1001]  # of the updates before each of them


def try_out(learner: Learner, x: Array, t: Array) -> None:
    """Check on the first samples that parts not xbp's own may be traced. This waits for the device.

    Raises
    ------
    TracingError
        If two equal passes through a layer or two equal updates differ, or if traced steps learn
        something else than untraced ones.
    """
    if learner.state is None or not (strange_parts(learner.network) or learner.is_strange):
        return
    x, t = (array[: min(SAMPLES, array.shape[0]), ...] for array in (x, t))
    with _random_numbers_put_back() as were_drawn:
        _require_steady_layers(learner, x, t)
        if learner.is_strange and not steadily_updated(learner):
            raise _error(
                {"": learner.optimizer},
                f"two equal calls of {type(learner.optimizer).__name__}.step differ: it depends on "
                "a global variable, an attribute of the class, a random number, or on one array "
                "under two names that it changes in place: say state_names = None, or write update "
                "instead",
            )
        if were_drawn():
            raise _error(
                _strange(learner),
                f"{_names(learner)} draws random numbers, so it cannot be traced: say "
                "traceable = False of a layer, state_names = None of an optimizer",
            )
    _require_same_when_traced(learner, x, t)


@contextmanager
def _random_numbers_put_back() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether random numbers were drawn; put them back at the end."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    before = of_python, repr(of_numpy)
    try:
        yield lambda: (random.getstate(), repr(np.random.get_state())) != before
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def _strange(learner: Learner) -> dict[str, object]:
    """Return the parts that are not xbp's own, by name."""
    optimizer = learner.optimizer
    more = {type(optimizer).__name__: optimizer} if learner.is_strange else {}
    return {**strange_parts(learner.network), **more}


def _names(learner: Learner) -> str:
    return " or ".join(_strange(learner))


def _error(parts: Mapping[str, object], message: str) -> TracingError:
    """Return an error that says where the parts that may have caused it are written."""
    return TracingError(f"{places_of(parts.values())}: {message}")


def _copy_of(learner: Learner) -> Learner:
    """Return a copy that changes neither the learner nor its layers."""
    return learner.bound_to(copied(learner.state))


# The same each time ------------------------------------------------------------------------------


def _require_steady_layers(learner: Learner, x: Array, t: Array) -> None:
    """Check that a pass does not depend on the passes before it."""
    if name := _copy_of(learner).network.unsteady_layer(x, t):
        raise _error(
            {name: learner.network.all_layers[name]},
            f"two equal calls of {name}.forward differ, so it cannot be traced: say "
            "traceable = False",
        )
    backend, count = learner.network.backend, x.shape[0]
    batches = slice((count + 1) // 2), slice(count // 2, count)
    each_alone = [_after(_copy_of(learner).network, x, t, [batch]) for batch in batches]
    for first, second in ((0, 0), (0, 1), (1, 0)):
        alone = each_alone[second]
        behind = _after(_copy_of(learner).network, x, t, [batches[first], batches[second]])
        for name, (attributes, others) in _pairs(alone.parts, behind.parts).items():
            for attribute, (one, other) in _pairs(attributes, others).items():
                if not _is_same(one, other, backend):
                    raise _error(
                        {name: strange_parts(learner.network)[name]},
                        f"{name}: self.{attribute} depends on the calls before, and a trace knows "
                        "of none: name arrays that are carried on in state_names, or say "
                        "traceable = False",
                    )
        for what in ("loss", "gradient"):
            if not _is_same(getattr(alone, what), getattr(behind, what), backend):
                raise _error(
                    strange_parts(learner.network),
                    f"the {what} depends on the calls before, of which {_names(learner)} knows, "
                    "and a trace does not: say traceable = False",
                )
    learner.left_by_passes = _left_by_passes(learner, *each_alone)


def _left_by_passes(learner: Learner, one: "_After", other: "_After") -> dict[str, set[Path]]:
    """Return the paths to what a pass adds, or sets to another value for another batch."""
    return {
        name: _differing_paths(one.parts[name], other.parts[name], learner.network.backend)
        | (contents(one.parts[name]).keys() - contents(attributes_of(part)).keys())
        | learner.left_by_passes.get(name, set())
        for name, part in strange_parts(learner.network).items()
    }


def _differing_paths(one: Any, other: Any, backend: Backend) -> set[Path]:
    parts, others = contents(one), contents(other)
    return {
        path
        for path, (part, another) in _pairs(parts, others).items()
        if not _is_same_part(part, another, backend)
    }


class _After(NamedTuple):
    """The results of some passes."""

    loss: Array
    gradient: dict[str, Array]
    parts: dict[str, dict[str, Any]]


def _after(network: Network, x: Array, t: Array, batches: Sequence[slice]) -> _After:
    state = copied(dict(network.state))
    for batch in batches:
        network.state.update(copied(state))
        loss, gradient = network.backpropagate(x[batch, ...], t[batch, ...])
    parts = strange_parts(network)
    return _After(loss, gradient, {name: attributes_of(part) for name, part in parts.items()})


def _pairs(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[Any, tuple[Any, Any]]:
    return {name: (one.get(name), other.get(name)) for name in {**one, **other}}


def steadily_updated(learner: Learner) -> Learner | None:
    """Return a copy of a learner after two updates; None if these depend on more than it holds.

    That is a global variable, an attribute of the class, a random number, or that two names stand
    for one array, which is changed in place.
    """
    with _random_numbers_put_back() as were_drawn:
        one, other = learner.updated(), learner.updated(are_apart=True)
        here, there = ({**it.arrays(), "memory": it.optimizer.state} for it in (one, other))
        is_steady = _is_same(here, there, learner.network.backend) and not were_drawn()
    return one if is_steady else None


def _is_same(one: Any, other: Any, backend: Backend) -> bool:
    """Tell whether two values are equal, as far as that can be told; NaN equals NaN."""
    if one is other:
        return True
    parts, others = contents(one), contents(other)
    return parts.keys() == others.keys() and all(
        _is_same_part(part, others[path], backend) for path, part in parts.items()
    )


def _is_same_part(one: Any, other: Any, backend: Backend) -> bool:
    if type(one) is not type(other):
        return False
    if is_array(one):
        unit = epsilon_of(one) if backend.owns(one) and is_floating(one) else 0.0
        return _is_same_array(on_host(one, backend), on_host(other, backend), unit)
    # Other values cannot be compared.
    return not isinstance(one, COMPARABLE) or bool(one == other or one != one)  # noqa: PLR0124


def _is_same_array(one: HostArray, other: HostArray, unit: float) -> bool:
    """Tell whether two arrays are equal up to the rounding of matrix products."""
    if one.dtype.kind != "f" or one.shape != other.shape:
        return np.array_equal(one, other)
    is_odd = ~np.isfinite(one)
    with np.errstate(all="ignore"):
        rest, difference = np.where(is_odd, 0, one), np.where(is_odd, 0, one - other)
        return np.array_equal(one[is_odd], other[is_odd], equal_nan=True) and bool(
            np.linalg.norm(difference) <= 32 * unit * (1 + np.linalg.norm(rest))
        )


# The same when traced ----------------------------------------------------------------------------


def _require_same_when_traced(learner: Learner, x: Array, t: Array) -> None:
    # Twice, from slightly different parameters: next to a kink, rounding can change the gradient.
    if _difference(learner, x, t, 0.0) and (where := _difference(learner, x, t, 1e-3)):
        raise _error(
            _strange(learner),
            f"steps that are traced lead to another {where} than steps that are done as they are "
            f"written: {_names(learner)} does what a trace does not see, such as to have "
            "one array under two names and change it in place. Say traceable = False of a layer, "
            "state_names = None of an optimizer, or compute without changes in place",
        )


def _difference(learner: Learner, x: Array, t: Array, distance: float) -> str | None:
    """Return what traced steps change otherwise than untraced ones, beyond rounding."""
    backend = learner.network.backend
    count = x.shape[0]
    size = max(1, count - count // 3)
    # Other samples in each step, and numbers of updates that lie far apart.
    rows = backend.asarray([[(2 * i + j) % count for j in range(size)] for i in range(STEPS)])
    first = learner.optimizer.update_number
    # A schedule may know the steps of this training alone, so it is asked for the first only.
    _, *rates = learner.plan(range(first, first + 1))
    plan = [NUMBERS, *(rate * STEPS for rate in rates)]
    start, plain, nearby, traced = (_copy_of(learner) for _ in range(4))
    floating = [W for W in start.network.params.values() if is_floating(W)]
    unit = max(map(epsilon_of, floating), default=epsilon_of(x) if is_floating(x) else 0.0)
    for one in (start, plain, traced):
        _move(one, distance)
    _move(nearby, distance + 8 * unit)
    backend.loop(traced)((rows, *plan), x, t)
    for one in (plain, nearby):
        for i in range(STEPS):
            one.step((rows[i, ...], *(column[i] for column in plan)), x, t)
    names = list(_paths(plain.state))
    states = [flatten(one.state)[0] for one in (start, plain, nearby, traced)]
    for name, before, value, value_nearby, value_traced in zip(names, *states, strict=True):
        if _is_integral(value):
            # The sign of what is 0 up to rounding depends on the rounding.
            is_certain = _is_same(value, value_nearby, backend)
            if is_certain and not _is_same(value, value_traced, backend):
                return str(name)
            continue
        size, change, rounding, difference = (
            _norm(value, other, backend) for other in (0, before, value_nearby, value_traced)
        )
        bound = 100 * unit * size + 30 * rounding + 1e-4 * change
        if isfinite(bound) and not difference <= bound:
            return str(name)
    return None


def _move(learner: Learner, by: float) -> None:
    """Change each parameter by a share of itself, or of 1 where it is 0."""
    params = learner.network.params
    for key, W in params.items():
        if by and is_floating(W):
            xp, backend = namespace_of(W), learner.network.backend
            wave = np.cos(np.arange(prod(W.shape))).reshape(tuple(W.shape))
            part = xp.astype(backend.asarray(by * wave), W.dtype)
            params[key] = W + part * xp.where(W == 0, xp.ones_like(W), W)


def _norm(value: Any, other: Any, backend: Backend) -> float:
    """Return the Euclidean norm of a difference."""
    if not is_array(value):  # a number that the optimizer is set to
        return float(abs(value - other))
    xp, dtype = namespace_of(value), widest_float(value, backend)
    with np.errstate(all="ignore"):
        difference = xp.astype(value, dtype) - (
            xp.astype(other, dtype) if is_array(other) else other
        )
        return float(xp.sqrt(xp.sum(difference * difference)))


def _is_integral(value: Any) -> bool:
    return is_array(value) and kind_of(value) in ("bool", "integral")


def _paths(tree: Any, path: str = "") -> Iterator[str]:
    """Yield the path to each leaf: ``params.W1``, ``memory.velocity.W1``."""
    if not isinstance(tree, dict) and type(tree) not in (list, tuple):
        yield path
        return
    for name, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _paths(part, f"{path}.{name}" if path else str(name))
