"""Somebody's own layers, loss and optimizer, tried out on some samples before they are traced.

A trace has for good what its single run has seen. So what is traced must do the same each time,
remember nothing that it does not name, and do as it is traced what it does as it is written.
"""

import random
from collections.abc import Iterator, Mapping
from math import isfinite, prod
from typing import Any

import numpy as np

from xbp.backend import Backend
from xbp.errors import TracingError
from xbp.layers import Layer
from xbp.namespace import Array, epsilon_of, is_floating, kind_of, namespace_of, widest_float
from xbp.networks import Network
from xbp.recording import flatten, is_array
from xbp.tensors import HostArray
from xbp.training.learner import Learner, copied

# A replay is made from the third on.
STEPS = 5


def try_out(learner: Learner, x: Array, t: Array) -> None:
    """See on some samples that what is somebody's own may be traced. This waits for the device.

    Raises
    ------
    TracingError
        If two equal passes through a layer or two equal updates differ, or if steps that are traced
        learn something else than steps that are done as they are written.
    """
    strange = _strange_layers(learner.network)
    if learner.state is None or not (strange or learner.is_strange):
        return
    backend = learner.network.backend
    before = random.getstate(), np.random.get_state()
    try:
        _require_steady_layers(learner, strange, x, t)
        if learner.is_strange:
            _require_steady_update(learner)
        if not _is_same(before, (random.getstate(), np.random.get_state()), backend):
            raise TracingError(
                f"{_names(learner, strange)} draws random numbers, so it cannot be traced: say "
                "traceable = False of a layer, state_names = None of an optimizer"
            )
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
    _require_same_when_traced(learner, strange, x, t)


def _strange_layers(network: Network) -> dict[str, Layer]:
    layers = {**network.layers, network.last_layer.name: network.last_layer}
    return {
        name: layer
        for name, layer in layers.items()
        if not type(layer).__module__.startswith("xbp.layers.")
    }


def _names(learner: Learner, strange: Mapping[str, Layer]) -> str:
    optimizer = [type(learner.optimizer).__name__] if learner.is_strange else []
    return " or ".join([*strange, *optimizer])


def _apart(learner: Learner) -> Learner:
    """Return a copy which changes nothing of the learner's, nor of its layers'."""
    apart = learner.bound_to(copied(learner.state))
    for layer in _strange_layers(apart.network).values():
        others = {k: v for k, v in vars(layer).items() if k not in layer.param_names}
        vars(layer).update(copied(others))
    return apart


# The same each time ------------------------------------------------------------------------------


def _require_steady_layers(
    learner: Learner, strange: Mapping[str, Layer], x: Array, t: Array
) -> None:
    network = _apart(learner).network
    if name := network.unsteady_layer(x):
        raise TracingError(
            f"two equal calls of {name}.forward differ, so it cannot be traced: it does not say "
            "traceable = True"
        )
    layers = _strange_layers(network)
    first = float(network.loss(x, t))
    network.backward()
    kept = {name: copied(vars(layer)) for name, layer in layers.items()}
    second = float(network.loss(x, t))
    network.backward()
    for name, layer in layers.items():
        for attribute, value in vars(layer).items():
            if not _is_same(kept[name].get(attribute), value, network.backend):
                raise TracingError(
                    f"{name} changes self.{attribute} from one equal call to the next, and a trace "
                    "does not: it does not say traceable = True"
                )
    if not _is_same(first, second, network.backend):
        raise TracingError(
            f"two equal calls of {network.last_layer.name}.forward differ, so it cannot be traced: "
            "it does not say traceable = True"
        )


def _require_steady_update(learner: Learner) -> None:
    first, second = (learner.updated().state for _ in range(2))
    if not _is_same(first, second, learner.network.backend):
        raise TracingError(
            f"two equal calls of {type(learner.optimizer).__name__}.update differ: it depends on "
            "what state_names does not name, such as a global variable, an attribute of the class, "
            "or a random number: keep that in attributes which it names, or say state_names = None"
        )


def _is_same(one: Any, other: Any, backend: Backend) -> bool:
    """Tell whether two values are equal, as far as that can be told; NaN is itself."""
    leaves, others = flatten(one)[0], flatten(other)[0]
    pairs = zip(leaves, others, strict=False)
    return len(leaves) == len(others) and all(_is_same_leaf(*pair, backend) for pair in pairs)


def _is_same_leaf(one: Any, other: Any, backend: Backend) -> bool:
    if isinstance(one, np.random.Generator) and isinstance(other, np.random.Generator):
        return _is_same(one.bit_generator.state, other.bit_generator.state, backend)
    if _is_comparable(one, backend) and _is_comparable(other, backend):
        return np.array_equal(_on_host(one, backend), _on_host(other, backend), equal_nan=True)
    if isinstance(one, int | float | complex | str | bytes):
        return type(one) is type(other) and (one == other or one != one)  # noqa: PLR0124
    return type(one) is type(other)


def _is_comparable(x: Any, backend: Backend) -> bool:
    return isinstance(x, np.ndarray) or backend.owns(x)


def _on_host(x: Any, backend: Backend) -> HostArray:
    """Return a number or an array on the host, in a dtype that NumPy has."""
    if not backend.owns(x):
        return np.asarray(x)
    wide = namespace_of(x).astype(x, widest_float(x)) if is_floating(x) else x
    return np.asarray(backend.to_numpy(wide))


# The same when traced ----------------------------------------------------------------------------


def _require_same_when_traced(
    learner: Learner, strange: Mapping[str, Layer], x: Array, t: Array
) -> None:
    # Twice, from parameters that are a little apart: where one is about to go over a kink, rounding
    # can lead to another gradient.
    if (_differing(learner, x, t, 0.0)) and (where := _differing(learner, x, t, 1e-3)):
        raise TracingError(
            f"steps that are traced lead to another {where} than steps that are done as they are "
            f"written: {_names(learner, strange)} does what a trace does not see, such as to have "
            "one array under two names and change it in place. Say traceable = False of a layer, "
            "state_names = None of an optimizer, or compute without changes in place"
        )


def _differing(learner: Learner, x: Array, t: Array, apart: float) -> str | None:
    """Return what traced steps leave otherwise than others, by more than rounding can do."""
    backend = learner.network.backend
    rows = backend.asarray(np.tile(np.arange(x.shape[0]), (STEPS, 1)))
    start, plain, moved, traced = (_apart(learner) for _ in range(4))
    unit = max(epsilon_of(W) for W in start.network.params.values() if is_floating(W))
    for one, by in ((start, apart), (plain, apart), (moved, apart + 8 * unit), (traced, apart)):
        _move(one, by)
    backend.loop(traced)(rows, x, t)
    for one in (plain, moved):
        for i in range(STEPS):
            one.step(rows[i, ...], x, t)
    for one in (traced, plain, moved):
        one.settle()
    names = list(_paths(plain.state))
    states = [flatten(one.state)[0] for one in (start, plain, moved, traced)]
    if not len(states[1]) == len(states[2]) == len(states[3]):
        return "memory of the optimizer"
    if len(states[0]) != len(names):  # what was made in the first step had no value before
        states[0] = states[1]
    for name, before, value, value_moved, value_traced in zip(names, *states, strict=True):
        if _is_integral(value):
            if not _is_same(value, value_traced, backend):
                return str(name)
            continue
        size, change, rounding, difference = (
            _norm(value, other, backend) for other in (0, before, value_moved, value_traced)
        )
        bound = 100 * unit * size + 30 * rounding + 1e-4 * change
        if isfinite(bound) and not difference <= bound:
            return str(name)
    return None


def _move(learner: Learner, by: float) -> None:
    """Make each parameter larger or smaller by a part of it, or of 1."""
    params = learner.network.params
    for key, W in params.items():
        if by and is_floating(W):
            xp, backend = namespace_of(W), learner.network.backend
            wave = np.cos(np.arange(prod(W.shape))).reshape(tuple(W.shape))
            part = xp.astype(backend.asarray(by * wave), W.dtype)
            params[key] = W + part * xp.where(W == 0, xp.ones_like(W), W)


def _norm(value: Any, other: Any, backend: Backend) -> float:
    with np.errstate(all="ignore"):
        difference = _on_host(value, backend) - np.float64(_on_host(other, backend))
        return float(np.linalg.norm(np.ravel(difference)))


def _is_integral(value: Any) -> bool:
    if is_array(value):
        return kind_of(value) in ("bool", "integral")
    return isinstance(value, int)


def _paths(tree: Any, path: str = "") -> Iterator[str]:
    """Yield the way to each leaf: ``params.W1``, ``memory.velocity.W1``."""
    if not isinstance(tree, dict) and type(tree) not in (list, tuple):
        yield path
        return
    for name, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from _paths(part, f"{path}.{name}" if path else str(name))
