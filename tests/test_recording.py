"""What is recorded and replayed computes the same as what is called."""

import sys
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import HostArray, arr, backend, host, widest

import xbp
from xbp.layers import Affine, Layer, SoftmaxWithLoss
from xbp.namespace import Array, namespace_of
from xbp.recording import Recorded
from xbp.testing import NetworkCase, network_cases
from xbp.training import Learner

recorded_only = pytest.mark.skipif(
    not backend.writers, reason="the library compiles, or cannot write into memory that is there"
)


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(host(found), host(expected))


@given(network_cases(), st.sampled_from(["float32", widest]))
def test_a_network_computes_the_same(case: NetworkCase, dtype: str) -> None:
    network, x, t = case.on(backend, dtype)
    compiled = backend.compile(network.loss_and_gradient)
    params = dict(network.params)
    earlier = []
    for factor in (1.0, 1.0, 0.5, -2.0):
        loss, gradient = network.loss_and_gradient(params, x * factor, t)
        found, found_gradient = compiled(params, x * factor, t)
        earlier.append((found, float(loss)))
        rtol = 1e-4 if dtype == "float32" else 1e-9
        np.testing.assert_allclose(float(found), float(loss), rtol=rtol)
        if isinstance(compiled, Recorded):
            for key, value in gradient.items():
                assert_same(found_gradient[key], value)
    for found, loss in earlier:
        np.testing.assert_allclose(float(found), loss, rtol=rtol)


# Programs drawn at random ------------------------------------------------------------------------

Step = tuple[str, int, int]

STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "reflected": lambda x, y: 2.0 - x,
    "scaled": lambda x, y: x * 0.5,
    "product": lambda x, y: x @ y,
    "turned": lambda x, y: x.T * 1.5,
    "turned product": lambda x, y: x.T @ y,
    "maximum": lambda x, y: namespace_of(x, y).maximum(x, y),
    "at least": lambda x, y: namespace_of(x).maximum(x, 0),
    "chosen": lambda x, y: namespace_of(x, y).where(x > y, x, y),
    "mask": lambda x, y: namespace_of(x).astype(x > 0, x.dtype),
    "row sums": lambda x, y: x - namespace_of(x).sum(x, axis=0),
    "column maxima": lambda x, y: x - namespace_of(x).max(x, axis=1, keepdims=True),
    "whole sum": lambda x, y: y * namespace_of(x).sum(x),
    "a row": lambda x, y: x[0, :] + y,
    "reshaped": lambda x, y: namespace_of(x).reshape(x, (9,))[:3] + y,
    "stacked": lambda x, y: namespace_of(x).stack([x, y])[1, ...] + x,
    "same memory": lambda x, y: namespace_of(x).reshape(x, (3, 3)),
    "same memory, turned": lambda x, y: x.T,
    "itself": lambda x, y: y,
}


def changed(x: Any, y: Any) -> Any:
    z = x * 1.0
    z += y
    z *= 0.25
    return z


STEPS["changed"] = changed


# Memory whose columns lie one behind the other is not for every function.
@example([("turned", 0, 0), ("product", 0, 0), ("a row", 0, 0), ("a row", 0, 0)], [75], 0)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 99), st.integers(0, 99)),
        min_size=1, max_size=12,
    ),
    st.lists(st.integers(0, 99), min_size=1, max_size=3),
    st.integers(0, 99),
)  # fmt: skip
def test_any_program_computes_the_same(steps: list[Step], wanted: list[int], seed: int) -> None:
    def program(x: Array, y: Array) -> list[Array]:
        known = [x, y]
        for name, i, j in steps:
            z = STEPS[name](known[i % len(known)], known[j % len(known)])
            # Numbers of ordinary size, so that what is equal is not NaN.
            known.append(z if "memory" in name else z * 0.125)
        return [known[-1 - number % len(known)] for number in wanted]

    compiled = backend.compile(program)
    chance = np.random.default_rng(seed)
    results = []
    fixed = arr(chance.normal(size=(3, 3)), "float32")
    for _ in range(4):
        x = arr(chance.normal(size=(3, 3)), "float32")
        before = host(x)
        found = compiled(x, fixed)
        expected = [host(value) for value in program(x, fixed)]
        results.append((found, expected))
        np.testing.assert_array_equal(host(x), before)
    for found, expected in results:
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(host(one), other, rtol=1e-5, atol=1e-5)


# What a recording holds fast, and what not -------------------------------------------------------


def test_numbers_may_differ_from_call_to_call() -> None:
    compiled: Any = backend.compile(lambda x, factor, power: x * (factor + 1) + 2.0**power)
    x = arr([1.0, 2.0], "float32")
    for factor, power in [(1.0, 1), (1.0, 2), (2.0, 2), (3.0, 3), (3.0, 3), (0.5, 4)]:
        np.testing.assert_array_equal(
            host(compiled(x, factor, power)), [factor + 1 + 2**power, 2 * factor + 2 + 2**power]
        )


def test_shapes_and_dtypes_may_differ_from_call_to_call() -> None:
    compiled: Any = backend.compile(lambda x: x + x)
    for _ in range(3):
        for size in range(1, 12):
            for dtype in {"float32", widest}:
                found = compiled(arr(np.arange(size), dtype))
                np.testing.assert_array_equal(host(found), 2 * np.arange(size))
                assert found.dtype == backend.dtype(dtype)


def test_what_stands_in_an_array_may_change() -> None:
    if backend.name in ("jax",):
        pytest.skip("its arrays cannot be changed")
    compiled: Any = backend.compile(lambda x: x * 2)
    x = arr([1.0, 2.0], "float32")
    for number in (5.0, 6.0, 7.0):
        x[0] = number
        np.testing.assert_array_equal(host(compiled(x)), [2 * number, 4])


def test_an_argument_that_is_returned_is_the_callers() -> None:
    compiled: Any = backend.compile(lambda x: (x, x.T))
    kept = [compiled(arr([[float(number), 0.0]], "float32")) for number in range(4)]
    for number, (same, turned) in enumerate(kept):
        np.testing.assert_array_equal(host(same), [[number, 0]])
        np.testing.assert_array_equal(host(turned), [[number], [0]])


def test_many_threads_may_call_it() -> None:
    compiled: Any = backend.compile(lambda x: (x + 1) * (x - 1) + x)
    found: dict[int, HostArray] = {}

    def work(number: int) -> None:
        for _ in range(50):
            found[number] = host(compiled(arr(np.full(50, number), "float32")))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    for number, values in found.items():
        np.testing.assert_array_equal(values, (number + 1) * (number - 1) + number)


def test_a_compiled_function_may_call_another() -> None:
    inner: Any = backend.compile(lambda x: x * 2)
    outer: Any = backend.compile(lambda x: inner(x) + 1)
    for number in (1.0, 2.0, 3.0):
        assert float(outer(arr([number], "float32"))[0]) == 2 * number + 1


@recorded_only
def test_a_replay_calls_no_python_of_the_function() -> None:
    calls = []

    def function(x: Array) -> Array:
        calls.append(x)
        return x + 1

    compiled = backend.compile(function)
    for number in range(5):
        np.testing.assert_array_equal(host(compiled(arr([number], "float32"))), [number + 1])
    # Once for the first array, once to learn that it is another each time.
    assert len(calls) == 2


@recorded_only
def test_memory_that_nobody_reads_any_more_is_used_again() -> None:
    def function(x: Array) -> Array:
        for _ in range(10):
            x = x * 0.5
        return x

    compiled = backend.compile(function)
    x = arr(np.ones(4), "float32")
    for _ in range(3):
        np.testing.assert_array_equal(host(compiled(x)), np.full(4, 2.0**-10))
    places = {id(call.keywords.get("out", call.args[-1])) for call in compiled.recordings[0].calls}  # type: ignore[attr-defined]
    assert len(places) == 2  # and the result has a place of its own


@recorded_only
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda x: x if x[0] > 0 else -x,
            r"may not ask for the values of its arrays: use xp.where",
        ),
        (lambda x: x * float(x[0]), "may not ask for the values"),
        (np.exp, "does not support ufuncs"),
        (np.asarray, "of its arrays' own namespace"),
    ],
)
def test_what_cannot_be_recorded_says_so(function: Any, message: str) -> None:
    if backend.name != "numpy" and "values" not in message:
        pytest.skip("is about NumPy's functions")
    with pytest.raises(TypeError, match=message):
        backend.compile(function)(arr([1.0], "float32"))


# Training ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [lambda: xbp.SGD(0.1), lambda: xbp.Momentum(0.1), lambda: xbp.Adam(0.1)]
)
def test_a_training_learns_what_its_steps_would(make: Callable[[], xbp.Optimizer]) -> None:
    chance = np.random.default_rng(0)
    x, t = arr(chance.normal(size=(12, 4)), "float32"), arr(np.eye(3)[chance.integers(3, size=12)])
    t = backend.asarray(t, "float32")
    rows = backend.asarray(chance.permutation(12).reshape(6, 2))
    networks = [xbp.Network.fully_connected([4, 5, 3], seed=1, dtype="float32") for _ in range(2)]
    looped, stepped = (Learner(network, make()) for network in networks)
    for learner in (looped, stepped):
        learner.optimizer.prepare(learner.network.params)
    loop = backend.loop(looped)
    with backend.scope():
        losses = [float(loss) for _ in range(3) for loss in host(loop(rows, x, t))]
        expected = [float(stepped.step(rows[i, ...], x, t)) for _ in range(3) for i in range(6)]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for key, value in stepped.network.params.items():
        np.testing.assert_allclose(
            host(looped.network.params[key]), host(value), rtol=1e-3, atol=1e-6
        )


class Noise(Layer):
    """Adds to each batch a number of its own: what must not be recorded."""

    def __init__(self) -> None:
        self.chance = np.random.default_rng(0)
        self.drawn: list[float] = []

    def forward(self, x: Array) -> Array:
        self.drawn.append(float(self.chance.normal()))
        return x + self.drawn[-1]

    def backward(self, dout: Array) -> Array:
        return dout


def test_a_layer_that_does_not_say_that_it_may_be_traced_is_called_at_each_step() -> None:
    affine = Affine(arr(np.ones((2, 2)), "float32"), arr(np.zeros(2), "float32"))
    noise = Noise()
    network = xbp.Network([affine, noise], SoftmaxWithLoss())
    assert not network.traceable
    x, t = arr(np.eye(2), "float32"), arr([0, 1])
    xbp.Trainer(network, xbp.SGD(0.1), batch_size=1, seed=0).fit(x, t, steps=20)
    assert len(set(noise.drawn)) >= 20


# What a step costs beside its arithmetic ---------------------------------------------------------


def settled_step() -> Recorded[Any]:
    """Return a training step that was replayed before."""
    network = xbp.Network.fully_connected([800, 60, 3], seed=1, dtype="float32", divisor=2)
    learner = Learner(network, xbp.SGD(0.1))
    chance = np.random.default_rng(0)
    x = arr(chance.integers(9, size=(600, 800)).astype(np.uint8))
    t = backend.asarray(np.eye(3)[chance.integers(3, size=600)], "float32")

    def step(state: Any, row: Array, x: Array, t: Array) -> Any:
        bound = learner.bound_to(state)
        loss = bound.step(row, x, t)
        return bound.state, loss

    compiled: Any = backend.compile(step, donate=[0])
    state: Any = learner.state
    for number in range(4):
        state, _ = compiled(state, backend.asarray(np.arange(400) + number), x, t)
    assert isinstance(compiled, Recorded)
    return compiled


@recorded_only
def test_each_call_of_a_step_writes_into_memory_that_is_there() -> None:
    calls = settled_step().recordings[0].calls
    others = [call for call in calls if not isinstance(call, partial)]
    assert not others


@pytest.mark.skipif(backend.name != "numpy", reason="Python sees NumPy's memory alone")
def test_a_replay_allocates_nothing() -> None:
    recording = settled_step().recordings[0]
    tracemalloc.start()
    try:
        recording.replay({})
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(10):
            recording.replay({})
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The mini-batch alone takes 1.3 MB; NumPy has buffers for its loops, of 64 KB at most.
    assert after - before < 200
    assert peak - before < 100_000


@recorded_only
def test_all_calls_may_be_captured_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = []

    def capture(calls: Any) -> Callable[[], object]:
        captured.append(len(calls))
        return lambda: [call() for call in calls]

    monkeypatch.setattr(type(backend), "capture", staticmethod(capture))
    compiled: Any = backend.compile(lambda x, y: (x + y) * 2 - y)
    for number in range(4):
        x, y = arr([number, 1.0], "float32"), arr([2.0, number], "float32")
        np.testing.assert_array_equal(host(compiled(x, y)), [2 * number + 2, 2 + number])
    assert captured == [3, 3]
    assert len(compiled.recordings[0].calls) == 1
