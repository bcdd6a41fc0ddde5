"""What is recorded and replayed computes the same as what is called."""

import re
import runpy
import sys
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import HostArray, arr, backend, host, widest

import xbp
from xbp.calls import noted_calls
from xbp.errors import TracingError
from xbp.layers import Affine, IdentityWithLoss, Layer, Relu, Residual, Sigmoid, SoftmaxWithLoss
from xbp.namespace import Array, is_array, namespace_of
from xbp.recording import (
    ELEMENTWISE,
    FUSED,
    Fuse,
    Note,
    Recorded,
    flatten,
    fuse_elementwise,
)
from xbp.recording.program import Program
from xbp.recording.tracing import Trace
from xbp.testing import NetworkCase, network_cases
from xbp.training.learner import Learner

compiled_or_recorded = bool(backend.writers) or backend.name == "jax"
recorded_only = pytest.mark.skipif(
    not backend.writers, reason="the library compiles, or cannot write into memory that is there"
)


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(host(found), host(expected))


def compiled_with(fuse: Fuse | None, function: Callable[..., Any], donate: list[int]) -> Any:
    """Return a function as the backend compiles it; where it is recorded, with these fusions."""
    if not backend.writers:
        return backend.compile(function, donate=donate)
    library: Any = copy(backend)
    library.fuse = fuse
    library.writers = {**backend.writers, FUSED: write_fused}
    return library.compile(function, donate=donate)


def fuse_all(first: Note, second: Note) -> Note | None:
    """Fuse as much as can be, as a library that makes kernels of functions does."""
    return fuse_elementwise(first, second, as_the_library_does)


def as_the_library_does(note: Note) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    return (getattr(backend.xp, note.name), note.args) if note.name in ELEMENTWISE else None


def write_fused(function: Callable[..., Any], *args: Any, out: Array) -> Callable[[], object]:
    def call() -> None:
        out[...] = function(*args)

    return call


def by_rows(name: str) -> Callable[..., Callable[[], object]]:
    """Return a writer that leaves row after row in memory that may be read for the next."""
    function = getattr(backend.xp, name)

    def write(x: Any, y: Any, out: Array) -> Callable[[], object]:
        def call() -> None:
            for i in range(out.shape[0]):
                other = y if name == "matmul" or not is_array(y) or y.ndim < out.ndim else y[i, ...]
                out[i, ...] = function(x[i, ...], other)

        return call

    return write


@pytest.mark.parametrize("fuse", [None, fuse_all])
@given(case=network_cases(), dtype=st.sampled_from(["float32", widest]))
def test_a_network_computes_the_same(fuse: Fuse | None, case: NetworkCase, dtype: str) -> None:
    network, x, t = case.on(backend, dtype)
    compiled = compiled_with(fuse, network.loss_and_gradient, [])
    params = dict(network.params)
    earlier = []
    for factor in (1.0, 1.0, 0.5, -2.0):
        loss, gradient = network.loss_and_gradient(params, x * factor, t)
        found, found_gradient = compiled(params, x * factor, t)
        earlier.append((found, float(loss)))
        rtol = 1e-4 if dtype == "float32" else 1e-9
        np.testing.assert_allclose(float(found), float(loss), rtol=rtol)
        for key, value in gradient.items():
            # A sum may be a product there, which is rounded otherwise.
            np.testing.assert_allclose(
                host(found_gradient[key]), host(value), rtol=rtol, atol=rtol, err_msg=key
            )
    for found, loss in earlier:
        np.testing.assert_allclose(float(found), loss, rtol=rtol)


def assert_close(found: Sequence[Any], expected: Sequence[Any]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(host(one), other, rtol=1e-4, atol=1e-4)


# Programs drawn at random ------------------------------------------------------------------------

Step = tuple[str, int, int]


def affine(x: Any, y: Any) -> Any:
    z = x @ y
    z += x[0, :]
    return z


STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "reflected": lambda x, y: 2.0 - x,
    "scaled": lambda x, y: x * 0.5,
    "product": lambda x, y: x @ y,
    "turned": lambda x, y: x.T * 1.5,
    "turned product": lambda x, y: x.T @ y,
    "maximum": lambda x, y: namespace_of(x, y).maximum(x, y),
    "affine": affine,
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


def read_before_it_is_changed(x: Any, y: Any) -> Any:
    z = x * 0.5
    before = z * 0.5
    z += y
    return before - z


def changed_by_its_transpose(x: Any, y: Any) -> Any:
    z = x * 0.5
    turned = z.T
    turned += y
    return turned * 0.5 - z


STEPS |= {
    "changed": changed,
    "read before": read_before_it_is_changed,
    "turned and changed": changed_by_its_transpose,
}
UPDATES = ["update", "update by half", "update by half a product", "shrink and update"]
# Others take the places of what the state was.
EXCHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "exchange": lambda old, change: old - 0.5 * change,
    "exchange a part": lambda old, change: 0.5 * old - 0.25 * change,
    "exchange with a product": lambda old, change: 0.5 * (old.T @ change) + 0.5 * old,
    "exchange with a product alone": lambda old, change: change @ old,
    "exchange with its transpose": lambda old, change: 0.5 * change - 0.5 * (old.T - old),
    "exchange with what is known": lambda old, change: change * 1.0,
}


FUSIONS = [None, fuse_all] + [backend.fuse] * (backend.fuse is not None)


# Memory whose columns lie one behind the other is not for every function.
@pytest.mark.parametrize("fuse", FUSIONS)
@example(
    steps=[("turned", 0, 0), ("product", 0, 0), ("a row", 0, 0), ("a row", 0, 0)],
    wanted=[75],
    seed=0,
)
# An argument is read after it has changed, and the product that changes it reads it, too.
@example(steps=[("update", 0, 2), ("product", 0, 2), ("update", 0, 1)], wanted=[0], seed=0)
@example(
    steps=[("update by half a product", 0, 1), ("update by half a product", 0, 0)],
    wanted=[0],
    seed=0,
)
# An argument has changed between two calls that can be one.
@example(steps=[("scaled", 1, 0), ("update", 0, 1), ("scaled", 1, 0)], wanted=[0], seed=0)
@example(steps=[("read before", 0, 1)], wanted=[0], seed=0)
@example(steps=[("turned and changed", 0, 1)], wanted=[0], seed=0)
@example(steps=[("shrink and update", 0, 1)], wanted=[0], seed=0)
# What another is to take the place of is read later, or by what is computed in its place.
@example(steps=[("exchange a part", 0, 1), ("scaled", 3, 0)], wanted=[0], seed=0)
@example(steps=[("exchange a part", 0, 1), ("exchange a part", 1, 0)], wanted=[0], seed=0)
@example(steps=[("turned", 1, 0), ("exchange", 0, 0)], wanted=[0], seed=0)
@example(steps=[("exchange", 0, 0), ("same memory, turned", 0, 0)], wanted=[0], seed=0)
# What the next reads is a result, too.
@example(steps=[("scaled", 0, 0), ("scaled", 0, 0)], wanted=[1], seed=0)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from([*sorted(STEPS), *UPDATES, *EXCHANGES]),
            st.integers(0, 5),
            st.integers(0, 5),
        ),
        min_size=1,
        max_size=12,
    ),
    wanted=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_any_program_computes_the_same(
    fuse: Fuse | None, steps: list[Step], wanted: list[int], seed: int
) -> None:
    def program(state: dict[str, Array], x: Array, y: Array) -> tuple[Any, list[Array]]:
        known = [x, y, *state.values()]
        for name, i, j in steps:
            if "update" in name:
                key = "VW"[i % 2]
                # PyTorch does not subtract from an array what shares its memory.
                change = known[-1 - j % len(known)]
                change = change @ x if "product" in name else change * 1.0
                if "shrink" in name:
                    state[key] *= 0.5
                state[key] -= 0.5 * change if "half" in name else change
                known.append(state[key] * 0.125)
            elif name in EXCHANGES:
                key, old = "VW"[i % 2], state["VW"[i % 2]]
                new = EXCHANGES[name](old, known[-1 - j % len(known)] * 0.125)
                known.append(new)
                state = {**state, key: new}
            else:
                z = STEPS[name](known[-1 - i % len(known)], known[-1 - j % len(known)])
                # Numbers of ordinary size, so that what is equal is not NaN.
                known.append(z if "memory" in name else z * 0.125)
        return state, [known[-1 - number % len(known)] for number in wanted]

    compiled = compiled_with(fuse, program, donate=[0])
    chance = np.random.default_rng(seed)
    results = []
    fixed = arr(chance.normal(size=(3, 3)), "float32")
    start = {key: chance.normal(size=(3, 3)) for key in "VW"}
    state, expected_state = (
        {key: arr(value.copy(), "float32") for key, value in start.items()} for _ in range(2)
    )
    for _ in range(4):
        x = arr(chance.normal(size=(3, 3)), "float32")
        before = host(x)
        state, found = compiled(state, x, fixed)
        expected_state, expected = program(expected_state, x, fixed)
        expected = [host(value).copy() for value in expected]
        assert_close(found, expected)
        assert_close([*state.values()], [host(value) for value in expected_state.values()])
        np.testing.assert_array_equal(host(x), before)
        if not any("update" in name or name in EXCHANGES for name, *_ in steps):
            results.append((found, expected))
    # No later call has changed what was found.
    for found, expected in results:
        assert_close(found, expected)


@recorded_only
def test_two_calls_are_one_where_the_library_has_one() -> None:
    x, y = arr(np.ones((3, 3)), "float32"), arr(np.full((3, 3), 2.0), "float32")
    compiled = compiled_with(fuse_all, lambda x, y: (x + y) * y - (x - 1) * 2, donate=[])
    for _ in range(2):
        np.testing.assert_array_equal(host(compiled(x, y)), np.full((3, 3), 6.0))
    assert len(compiled.recordings[0].calls) == 1


def written_by(call: Any) -> Array:
    """Return the array that one of a recording's calls writes."""
    return call.keywords.get("out", [arg for arg in call.args if hasattr(arg, "shape")][-1])


# What a recording holds fast, and what not -------------------------------------------------------


@pytest.mark.parametrize("columns", [10, 100])
def test_large_products_with_few_columns_and_with_many(columns: int) -> None:
    chance = np.random.default_rng(0)
    x, W, b = (
        arr(chance.integers(-3, 4, shape), "float32")
        for shape in ((200, 150), (150, columns), (columns,))
    )

    def learn(x: Any, W: Any, b: Any) -> Any:
        y = x @ W
        dW = x.T @ y
        moved = W - 0.5 * (x.T @ (y + 1))
        return y, x @ W + b, dW, moved

    compiled: Any = backend.compile(learn)
    for _ in range(4):
        for found, expected in zip(compiled(x, W, b), learn(x, W, b), strict=True):
            # Whole numbers: there is nothing to round.
            np.testing.assert_array_equal(host(found), host(expected))


def test_numbers_may_differ_from_call_to_call() -> None:
    compiled: Any = backend.compile(lambda x, factor, power: x * (factor + 1) + 2.0**power)
    x = arr([1.0, 2.0], "float32")
    for factor, power in [(1.0, 1), (1.0, 2), (2.0, 2), (3.0, 3), (3.0, 3), (0.5, 4)]:
        np.testing.assert_array_equal(
            host(compiled(x, factor, power)), [factor + 1 + 2**power, 2 * factor + 2 + 2**power]
        )


@pytest.mark.parametrize(
    "change",
    [
        lambda n: n % 7,
        lambda n: n - n // 10 * 10,
        lambda n: (n % 5 < 1) + 2.0 ** (n % 2),
        lambda n: 1 * n + 0,
        lambda n: abs(n) // 1,
        lambda n: (n | 0) & 255,
    ],
)
def test_numbers_that_come_out_as_they_went_in_are_computed_again(change: Any) -> None:
    compiled: Any = backend.compile(lambda x, n: x * change(n))
    for n in (3, 4, 5, 6, 7, 8, 12, 20, 21):
        np.testing.assert_array_equal(host(compiled(arr([1.0]), n)), [change(n)])


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


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b, c: [b, a, c],
        lambda a, b, c: [c, a, b],
        lambda a, b, c: [a + b, a, a],
        lambda a, b, c: [b * 1, c, a],
        lambda a, b, c: [b, b, a],
    ],
)
def test_arrays_that_the_function_may_keep_may_change_places(change: Any) -> None:
    compiled: Any = backend.compile(lambda state: change(*state), donate=[0])
    start = [np.full(2, number, "float32") for number in (1.0, 10.0, 100.0)]
    state, expected = [arr(x, "float32") for x in start], start
    for _ in range(6):
        state, expected = compiled(state), change(*expected)
        np.testing.assert_array_equal([host(x) for x in state], expected)


def test_what_the_function_may_keep_is_read_before_it_is_written() -> None:
    compiled: Any = backend.compile(lambda state: [2 * state[0], state[1] + 1], donate=[0])
    state, plain = ([arr([[1.0, 2.0], [3.0, 4.0]]), arr([[0.0, 5.0], [6.0, 7.0]])] for _ in "ab")
    for change in (
        lambda state: state,
        lambda state: state,
        lambda state: state[::-1],
        lambda state: [state[0].T, state[1]],
        lambda state: [state[1].T, state[0]],
        lambda state: state[::-1],
    ):
        state, plain = change(state), change(plain)
        state, plain = compiled(state), [2 * plain[0], plain[1] + 1]
        for found, expected in zip(state, plain, strict=True):
            np.testing.assert_array_equal(host(found), host(expected))


@recorded_only
def test_a_result_that_takes_the_place_of_an_argument_is_computed_there() -> None:
    """With as few calls as if it was changed in place, and no copy."""

    def by_others(state: Any, dW: Array) -> Any:
        v = 0.9 * state["v"] - 0.1 * dW
        return {"v": v, "W": state["W"] + v}, namespace_of(dW).sum(dW)

    def in_place(state: Any, dW: Array) -> Any:
        state["v"] *= 0.9
        state["v"] -= 0.1 * dW
        state["W"] += state["v"]
        return state, namespace_of(dW).sum(dW)

    recordings = []
    for function in (by_others, in_place):
        compiled: Any = backend.compile(function, donate=[0])
        state = {"v": arr([0.0, 1.0], "float32"), "W": arr([1.0, 2.0], "float32")}
        given = dict(state)
        for number in (1.0, 2.0, 3.0):
            state, _ = compiled(state, arr([number, -number], "float32"))
        recordings.append(compiled.recordings[0])
        assert all(state[key] is given[key] for key in state)
        np.testing.assert_allclose(host(state["v"]), [-0.561, 1.29], rtol=1e-5)
    one, other = recordings
    assert len(one.calls) == len(other.calls)


def viewed_and_changed(old: Any, x: Any) -> Any:
    new = old - x
    view = new.T
    before = view * 1.0
    new += x @ x
    return new, before - 2.0 * view


@pytest.mark.parametrize(
    "function",
    [
        lambda old, x: (old.T - old + x, x),  # a view is read in another order
        lambda old, x: (x @ old, x),
        lambda old, x: (old @ x + x, x),
        lambda old, x: (old @ namespace_of(x).exp(x) + x, x),
        viewed_and_changed,
        lambda old, x: (x - 0.5 * (old @ x), x),
        lambda old, x: (old - x, old[...]),  # a view of what is written over is kept
        lambda old, x: (old - x, namespace_of(old).reshape(old, (9,))),
        lambda old, x: ((new := old - x), new.T),
        lambda old, x: (old + ((y := x @ x) + y), (d := 2.0 * x) - d),
        lambda old, x: (x @ old, old[0, :] * 1.0),
        lambda old, x: ((half := 0.5 * old) - x, half),  # what leads to it is a result, too
        lambda old, x: ((half := 0.5 * old) - x, half.T * 1.0),
        lambda old, x: ([half := 0.5 * old, third := old * 3.0] and half - x, third),
        lambda old, x: (0.25 * old[:, :] - (-1.5) * (0.5 * x + 0.5 * old), old * 3.0),
    ],
)
@pytest.mark.parametrize("careful", [True, False])
def test_what_takes_the_place_of_an_argument_disturbs_nothing_else(
    function: Any, careful: bool
) -> None:
    library: Any = copy(backend)
    if backend.writers and not careful:  # a library that writes before all is read
        library.writers = {
            **backend.writers,
            "subtract": by_rows("subtract"),
            "matmul": by_rows("matmul"),
        }
    compiled: Any = library.compile(function, donate=[0])
    chance = np.random.default_rng(0)
    state = arr(chance.normal(size=(3, 3)), "float32")
    expected_state = state * 1.0
    for _ in range(4):
        x = arr(chance.normal(size=(3, 3)), "float32")
        state, found = compiled(state, x)
        expected_state, expected = function(expected_state, x)
        assert_close([state, found], [host(expected_state), host(expected)])


@pytest.mark.skipif(not hasattr(backend.xp, "linalg"), reason="the library has none")
def test_equal_calls_that_return_several_arrays_are_each_made() -> None:
    def function(x: Array) -> Array:
        y = x * 1.0
        linalg = namespace_of(x).linalg
        first = linalg.qr(y)
        y += 1.0
        return first[1] - linalg.qr(y)[1]

    compiled = backend.compile(function)
    for factor in (1.0, 2.0, 3.0):
        x = arr(factor * np.asarray([[2.0, 1.0], [1.0, 3.0]]), "float32")
        assert_close([compiled(x)], [host(function(x))])


@recorded_only
def test_a_loop_looks_at_the_numbers_of_its_rows_after_a_call_with_one_of_them() -> None:
    compiled: Any = backend.compile(lambda state, n: (state, state * n), donate=[0])
    state = arr([2.0], "float32")
    for _ in range(2):  # here the number is a constant
        compiled(state, 1.0)
    _, results = compiled.loop(state, [1.0, 3.0, 5.0])
    assert [float(result[0]) for result in results] == [2.0, 6.0, 10.0]


@recorded_only
def test_a_product_and_a_number_that_varies_are_added() -> None:
    compiled: Any = backend.compile(lambda x, n: x @ x + n)
    x = arr(np.eye(2), "float32")
    for n in (1.0, 2.0, 3.0):
        assert_close([compiled(x, n)], [np.eye(2) + n])


@recorded_only
def test_numbers_that_are_equal_are_each_returned() -> None:
    def function(state: Any, x: Array) -> Any:
        return {"m": state["n"] + 1, "n": state["n"] + 1}, x * 1.0

    compiled: Any = backend.compile(function, donate=[0])
    state = {"m": 0, "n": 0}
    for number in range(1, 5):
        state, _ = compiled(state, arr([1.0], "float32"))
        assert state == {"m": number, "n": number}


@recorded_only
def test_a_result_that_is_wanted_twice_keeps_its_own_memory() -> None:
    def function(state: Array, x: Array) -> Any:
        new = state + x
        return new, new

    compiled: Any = backend.compile(function, donate=[0])
    state, results = arr([0.0], "float32"), []
    for _ in range(4):
        state, result = compiled(state, arr([1.0], "float32"))
        results.append(result)
    assert [float(result[0]) for result in results] == [1, 2, 3, 4]


@recorded_only
def test_what_nobody_reads_is_not_computed_and_a_number_only_once() -> None:
    def function(x: Array, n: int) -> Array:
        namespace_of(x).exp(x)
        unread = x @ x
        unread += 1.0
        y = x * (1 - 0.5**n) + (1 - 0.5**n)
        return y / (1 - 0.25**n)

    compiled: Any = backend.compile(function)
    x = arr(np.eye(2), "float32")
    for n in (1, 2, 3):
        expected = (np.eye(2) + 1) * (1 - 0.5**n) / (1 - 0.25**n)
        np.testing.assert_allclose(host(compiled(x, n)), expected, rtol=1e-5)
    # Two powers, two differences; a product, a sum, a quotient: fewer where the library has one
    # for two. What is changed in place is kept.
    assert len(compiled.recordings[0].calls) in (8, 9)


def test_arguments_are_known_by_their_names_and_their_structure() -> None:
    compiled: Any = backend.compile(lambda values: values["a"] - values["b"])
    a, b = arr([3.0]), arr([1.0])
    for _ in range(3):
        np.testing.assert_array_equal(host(compiled({"a": a, "b": b})), [2.0])
        np.testing.assert_array_equal(host(compiled({"b": b, "a": a})), [2.0])
        with pytest.raises(KeyError):
            compiled({"c": a, "d": b})
    first: Any = backend.compile(lambda values: values[0] if isinstance(values, list) else values)
    assert type(first([a, b])) is not tuple
    assert type(first((a, b))) is tuple


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


class Yielding:
    """A library that lets another thread run behind a call of a first one, once, for a while.

    The other has done what it wanted before the first goes on, unless it is made to wait.
    """

    def __init__(self, behind: int = 1) -> None:
        self.calls_before = behind
        library: Any = copy(backend)
        library.writers = {name: self.around(it) for name, it in backend.writers.items()}
        library.capture = library.fuse = None
        self.library = library
        self.turn, self.done = threading.Event(), threading.Event()
        self.first: threading.Thread | None = None

    def around(self, writer: Any) -> Any:
        def write(*args: Any, **kwargs: Any) -> Callable[[], object]:
            call = writer(*args, **kwargs)

            def call_and_yield() -> None:
                call()
                if threading.current_thread() is self.first:
                    self.calls_before -= 1
                    if not self.calls_before:
                        self.turn.set()
                        self.done.wait(0.3)

            return call_and_yield

        return write

    def both(self, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
        """Return what two functions return, of which the second is called within the first."""
        found: list[Any] = []

        def work() -> None:
            self.turn.wait(10)
            found.append(second())
            self.done.set()

        other = threading.Thread(target=work)
        self.first = threading.current_thread()
        other.start()
        result = first()
        other.join()
        assert self.turn.is_set(), "no call was made"
        return result, found[0]


@recorded_only
def test_a_replay_is_not_cut_in_two_by_another_thread() -> None:
    yielding = Yielding()
    compiled: Any = yielding.library.compile(lambda x: (x + 1) * 2 - x)
    for number in (1.0, 2.0):  # noted, and noted again as what varies
        compiled(arr([number], "float32"))
    x, other = arr([3.0], "float32"), arr([100.0], "float32")
    found, of_the_other = yielding.both(lambda: compiled(x), lambda: compiled(other))
    assert (float(found[0]), float(of_the_other[0])) == (5.0, 102.0)


@recorded_only
def test_threads_that_go_on_with_one_state_take_turns() -> None:
    def step(total: Array, row: Array) -> tuple[Array, Array]:
        total += row
        return total, total * 1

    yielding = Yielding(behind=3)  # the first of the second row
    compiled: Any = yielding.library.compile(step, donate=[0])
    state, _ = compiled.loop(arr([0.0], "float32"), arr([[1.0]] * 4, "float32"))
    first, second = yielding.both(
        *(
            lambda rows=rows: compiled.loop(state, arr(rows, "float32"))[1]
            for rows in ([[10.0], [10.0]], [[100.0]])
        )
    )
    assert [float(total[0]) for total in (*first, *second)] == [14.0, 24.0, 124.0]


@recorded_only
def test_a_replay_takes_from_the_end_and_rounds_to_even() -> None:
    def function(x: Array, numbers: Array) -> tuple[Array, Array]:
        xp = namespace_of(x)
        return xp.take(x, numbers, axis=0), xp.round(x)

    compiled: Any = backend.compile(function)
    x, numbers = arr([0.5, 1.5, -0.5, 2.4], "float32"), arr([3, 1, 0])
    for _ in range(4):
        x = x + 1
        if backend.name == "numpy":  # elsewhere nothing counts from the end
            numbers = numbers - 1
        taken, rounded = compiled(x, numbers)
        np.testing.assert_array_equal(host(taken), host(x)[host(numbers)])
        np.testing.assert_array_equal(host(rounded), np.round(host(x)))


@recorded_only
def test_what_is_read_behind_a_change_through_a_view_is_changed() -> None:
    def function(W: Array, g: Array) -> tuple[Array, Array]:
        view = W.T
        view += g
        return W, W * 3

    compiled: Any = backend.compile(function, donate=[0])
    W, g = arr([[1.0, 2.0], [3.0, 4.0]], "float32"), arr([[0.0, 10.0], [0.0, 0.0]], "float32")
    for number in range(1, 4):
        W, tripled = compiled(W, g)
        np.testing.assert_array_equal(host(W), [[1, 2], [3 + 10 * number, 4]])
        np.testing.assert_array_equal(host(tripled), 3 * host(W))


@recorded_only
def test_products_of_stacks_of_matrices() -> None:
    compiled: Any = backend.compile(lambda x, y: (x @ y) * 1)
    for number in range(4):
        x = np.arange(12.0).reshape(2, 2, 3) + number
        y = np.arange(12.0).reshape(2, 3, 2) - number
        found = compiled(arr(x, "float32"), arr(y, "float32"))
        np.testing.assert_array_equal(host(found), x @ y)


@pytest.mark.skipif(backend.name != "numpy", reason="elsewhere it is not computed in")
def test_a_mask_in_half_precision() -> None:
    def positive(x: Array) -> Array:
        xp = namespace_of(x)
        return xp.where(x > 0, x, 0) * 2

    compiled: Any = backend.compile(positive)
    for number in range(4):
        x = np.array([-1.0, 2.0 + number, np.inf], np.float16)
        found = compiled(x)
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, [0, 4 + 2 * number, np.inf])


def test_a_function_of_the_library_may_return_several_arrays() -> None:
    def function(x: Array) -> Array:
        rows, columns = namespace_of(x).meshgrid(x, x + 1)
        return rows * 10 + columns

    compiled: Any = backend.compile(function)
    for number in range(3):
        found = host(compiled(arr([number, 5.0], "float32")))
        np.testing.assert_array_equal(
            found, [[11 * number + 1, 51 + number], [10 * number + 6, 56]]
        )


def test_a_compiled_function_may_call_another() -> None:
    inner: Any = backend.compile(lambda x: x * 2)
    outer: Any = backend.compile(lambda x: inner(x) + 1)
    for number in (1.0, 2.0, 3.0):
        assert float(outer(arr([number], "float32"))[0]) == 2 * number + 1


@pytest.mark.skipif(
    backend.name == "dpnp", reason="its operators refuse what is traced on their right"
)
@pytest.mark.parametrize("kind", [Relu, Sigmoid, Affine, IdentityWithLoss])
def test_one_of_two_directions_may_be_compiled_alone(kind: type[Layer]) -> None:
    W, b = arr([[1.0, 2.0], [3.0, -1.0]]), arr([0.5, -1.0])

    def layer() -> Layer:
        return Affine(W, b) if kind is Affine else kind()

    x, dout = arr([[1.0, -2.0], [-0.5, 3.0]]), arr([[1.0, 2.0], [3.0, 4.0]])
    others: tuple[Array, ...] = ()
    if kind is IdentityWithLoss:
        others, dout = (x * 0,), arr(2.0)
    plain, behind = layer(), layer()
    plain.forward(x, *others)
    expected = plain.backward(dout)
    behind.forward(x, *others)
    backward = backend.compile(behind.backward)

    def whole(x: Array) -> Array:
        made = layer()
        made.forward(x, *others)
        return made.backward(dout)

    both = backend.compile(whole)
    for _ in range(2):
        np.testing.assert_allclose(host(backward(dout)), host(expected), rtol=1e-6)
        np.testing.assert_allclose(host(both(x)), host(expected), rtol=1e-6)


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
    places = {id(written_by(call)) for call in compiled.recordings[0].calls}  # type: ignore[attr-defined]
    assert len(places) == 2  # and the result has a place of its own


@pytest.mark.skipif(not compiled_or_recorded, reason="neither records nor compiles")
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x if x[0] > 0 else -x, "xp.where"),
        (lambda x: x * float(x[0]), "xp.where"),
        (lambda x: 2 * np.exp(x), "does not support ufuncs"),
        (lambda x: 2 * np.asarray(x), "made no array of NumPy"),
        (lambda x: x.sum(), "no attribute 'sum'"),
        (lambda x: x * len(x), "has no len"),
        (lambda x: x * len(f"{x}"), "has no value yet"),
        (lambda x: x * {str(x): 1}.get("1", 2), "has no value yet"),
        (lambda x: x * len("%r" % x), "has no value yet"),  # noqa: UP031
    ],
)
@pytest.mark.filterwarnings("ignore:__array_wrap__")
def test_what_cannot_be_traced_says_so(function: Any, message: str) -> None:
    if backend.name == "jax":
        if any(word in message for word in ("attribute", "len", "ufuncs", "yet")):
            pytest.skip("JAX's tracers can do that")
        message = "[Tt]race"
    if backend.name == "dpnp" and ("NumPy" in message or "ufuncs" in message):
        pytest.skip("dpnp cannot do that either")
    place = rf"test_recording.py, line {function.__code__.co_firstlineno}, in <lambda>: cannot be"
    with pytest.raises(TracingError, match=rf"{place} traced.*{message}.*traceable = False"):
        backend.compile(function)(arr([1.0], "float32"))


@pytest.mark.skipif(not compiled_or_recorded, reason="neither records nor compiles")
def test_a_layer_that_is_installed_is_named_as_any_other(tmp_path: Path) -> None:
    folder = tmp_path / "site-packages" / "their_layers"
    folder.mkdir(parents=True)
    (folder / "layer.py").write_text("def forward(x):\n    return x * float(x[0])\n")
    theirs = runpy.run_path(str(folder / "layer.py"))["forward"]
    place = rf"^{re.escape(str(folder))}.layer.py, line 2, in forward: cannot be traced"
    with pytest.raises(TracingError, match=place):
        backend.compile(theirs)(arr([1.0], "float32"))


def in_place(x: Array) -> Array:
    y = x + 0
    getattr(namespace_of(x), "clamp_" if backend.name == "torch" else "put")(y, *places(x))
    return y


def places(x: Array) -> tuple[Any, ...]:
    return (0.0, 1.0) if backend.name == "torch" else ([0], 5.0)


@pytest.mark.skipif(not backend.writers, reason="records nothing")
@pytest.mark.parametrize(
    "function",
    [
        lambda x: namespace_of(x).add(x, x, out=x),
        lambda x: namespace_of(x).add(x, 1, out=x + 0),
        lambda x: namespace_of(x).clip(x, 0, 1, out=x),
        in_place,
    ],
)
def test_what_is_changed_unseen_cannot_be_traced(function: Any) -> None:
    if backend.name == "dpnp" and function is in_place:
        pytest.skip("dpnp has no put")
    x = arr([1.0, 2.0], "float32")
    with pytest.raises(TracingError, match="changes a Traced array in place: use what it returns"):
        backend.compile(function)(x)


def test_what_gives_back_its_argument_is_traced() -> None:
    def function(x: Array) -> Array:
        xp = namespace_of(x)
        y = xp.astype(xp.reshape(xp.asarray(x), x.shape), x.dtype, copy=False)
        return xp.where(xp.isnan(y), 5.0, y) + xp.real(y)

    compiled: Any = backend.compile(function)
    for first in (1.0, np.nan, 3.0):
        found = compiled(arr([first, 2.0], "float32"))
        np.testing.assert_array_equal(host(found), host(function(arr([first, 2.0], "float32"))))


def test_rows_of_one_dimension_need_no_axis() -> None:
    compiled: Any = backend.compile(lambda x, i: namespace_of(x).take(x, i))
    for first in (0, 1, 2):
        x, indices = arr([5.0, 6.0, 7.0]), backend.asarray([first, 2])
        np.testing.assert_array_equal(host(compiled(x, indices)), [5.0 + first, 7.0])


def test_functions_of_linear_algebra_are_traced() -> None:
    def function(x: Array) -> Array:
        xp = namespace_of(x)
        u, s, vh = xp.linalg.svd(x, full_matrices=False)
        return xp.linalg.vector_norm(u @ (s[:, None] * vh) - 2 * x) + xp.linalg.svd(x).S[0]

    compiled: Any = backend.compile(function)
    for scale in (1.0, 2.0, 3.0):
        x = arr(scale * np.eye(2) + 1, "float32")
        np.testing.assert_allclose(host(compiled(x)), host(function(x)), rtol=1e-5)


@pytest.mark.skipif(not compiled_or_recorded, reason="neither records nor compiles")
def test_what_numbers_alone_can_do_cannot_be_traced() -> None:
    compiled: Any = backend.compile(lambda x, n: x * pow(n, 3, 7))
    if backend.name != "jax":
        np.testing.assert_array_equal(host(compiled(arr([2.0]), 2)), [2.0])  # 2³ is 8
    with pytest.raises(TracingError, match="cannot be traced"):
        compiled(arr([2.0]), 3)


def test_what_fails_untraced_too_raises_its_own_error() -> None:
    rates: dict[str, float] = {}
    compiled: Any = backend.compile(lambda x: x * rates["no such key"])
    with pytest.raises(KeyError, match=r"^'no such key'"):
        compiled(arr([1.0]))


@pytest.mark.parametrize("duplicate", [copy, deepcopy])
def test_copies_are_traced_as_the_library_makes_them(duplicate: Callable[[Any], Any]) -> None:
    if backend.name == "dpnp" and duplicate is deepcopy:
        pytest.skip("dpnp has none")

    def step(state: dict[str, Any]) -> dict[str, Any]:
        old = {key: duplicate(value) for key, value in state.items()}
        state["x"] *= 2
        return {"x": state["x"] + old["x"], "y": duplicate(old)["x"] + state["y"]}

    compiled: Any = backend.compile(step, donate=[0])
    state, plain = ({"x": arr([1.0, 3.0]), "y": arr([1.0, 2.0])} for _ in range(2))
    for _ in range(5):
        state, plain = compiled(state), step(plain)
        for key, value in state.items():
            np.testing.assert_array_equal(host(value), host(plain[key]))


@pytest.mark.skipif(not compiled_or_recorded, reason="neither records nor compiles")
def test_a_layer_that_only_says_it_is_traceable_is_named() -> None:
    class Odd(xbp.layers.Layer):
        traceable = True

        def forward(self, x: Array) -> Array:
            return x * 2 if float(x[0, 0]) > 0 else x

        def backward(self, dout: Array) -> Array:
            return dout

    first = xbp.layers.Affine(arr(np.eye(2), "float32"), arr([0.0, 0.0], "float32"))
    network = xbp.Network([first, Odd()], xbp.layers.SoftmaxWithLoss())
    with pytest.raises(TracingError, match=r"recording.py, line \d+, in (Odd1\.)?forward: cannot"):
        xbp.Trainer(network, xbp.SGD(0.1)).fit([[1.0, 2.0]] * 4, [0, 1, 0, 1], steps=3)
    np.testing.assert_array_equal(host(network.params["W1"]), np.eye(2))


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
    loop = looped.loop()
    with backend.scope():
        losses = [float(loss) for _ in range(3) for loss in host(loop(rows, x, t))]
        expected = [float(stepped.step(rows[i, ...], x, t)) for _ in range(3) for i in range(6)]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    for key, value in stepped.network.params.items():
        np.testing.assert_allclose(
            host(looped.network.params[key]), host(value), rtol=1e-3, atol=1e-6
        )


@recorded_only
@pytest.mark.parametrize(
    "make", [lambda: xbp.SGD(0.1), lambda: xbp.Momentum(0.1), lambda: xbp.Adam(0.1)]
)
def test_without_a_rule_a_training_learns_the_same(
    make: Callable[[], xbp.Optimizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = np.random.default_rng(0)
    x, t = chance.normal(size=(30, 4)), chance.integers(3, size=30)
    calls = []

    def learned() -> dict[str, Array]:
        vars(backend).pop("_programs", None)
        network = xbp.Network.fully_connected([4, 9, 5, 3], seed=1, dtype=widest)
        xbp.Trainer(network, make(), batch_size=6, seed=0).fit(x, t, epochs=4, clip_norm=0.5)
        return {key: host(value) for key, value in network.params.items()}

    def as_they_are(program: Any, notes: Sequence[Note], outputs: Any) -> Any:
        calls.append(len(notes))
        return notes, outputs

    def by_rules(program: Any, *args: Any) -> Any:
        notes, outputs = ordinary(program, *args)
        calls.append(len(notes))
        return notes, outputs

    ordinary = Program._rewritten
    monkeypatch.setattr(Program, "_rewritten", by_rules)
    expected = learned()
    monkeypatch.setattr(Program, "_rewritten", as_they_are)
    for key, value in learned().items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-9, atol=1e-9)
    assert len(set(calls)) > 1


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


@recorded_only
def test_no_result_depends_on_whether_it_was_the_first() -> None:
    network = xbp.Network.fully_connected([300, 60, 10], seed=1, dtype="float32")
    learner = Learner(network, xbp.Momentum(0.1))
    learner.optimizer.prepare(network.params)
    chance = np.random.default_rng(0)
    x, t = arr(chance.random((100, 300)), "float32"), arr(np.eye(10)[chance.integers(10, size=100)])

    def step(state: Any, x: Array, t: Array) -> Any:
        bound = learner.bound_to(state)
        loss = bound.learn(x, t)
        return bound.state, loss

    def train(always_anew: bool) -> Any:
        leaves, rebuild = flatten(learner.state)
        state = rebuild([arr(host(leaf)) if is_array(leaf) else leaf for leaf in leaves])
        compiled: Any = backend.compile(step, donate=[0])
        for _ in range(4):
            if always_anew:
                compiled = backend.compile(step, donate=[0])
            state, _ = compiled(state, x, t)
        return [host(leaf) for leaf in flatten(state)[0] if is_array(leaf)]

    for one, other in zip(train(False), train(True), strict=True):
        np.testing.assert_array_equal(one, other)


@recorded_only
def test_a_note_knows_the_method_of_a_layer_that_made_it() -> None:
    block = Residual(Affine(arr(np.eye(2), "float32"), arr(np.zeros(2), "float32")), Relu())
    network = xbp.Network([block], SoftmaxWithLoss())
    trace = Trace(backend.xp, frozenset(backend.writers))
    x: Any = trace.traced(arr([[1.0, 2.0]], "float32"))
    t = trace.traced(arr([1]))
    with noted_calls():
        network.gradient(x, t)
        assert x + 1 is not None
    made = list(dict.fromkeys(note.layer for note in trace.notes))
    inner = [f"Residual1.{name}" for name in ("Affine1.forward", "Relu1.forward")]
    back = [f"Residual1.{name}" for name in ("Relu1.backward", "Affine1.backward")]
    loss = [f"SoftmaxWithLoss.{name}" for name in ("forward", "backward")]
    assert made == [*inner, "Residual1.forward", *loss, *back, "Residual1.backward", ""]
    assert [note.name for note in trace.notes if note.layer == "Residual1.forward"] == ["add"]


@recorded_only
def test_two_arguments_may_be_one_array() -> None:
    def step(mean: Any, square: Any, gradient: Any) -> Any:
        mean = 0.5 * mean + gradient
        square = 0.5 * square + mean * gradient
        return mean, square

    compiled: Any = backend.compile(step, donate=[0, 1])
    start, gradient = arr([1.0, 2.0], "float32"), arr([3.0, 1.0], "float32")
    found = start, start
    for _ in range(3):
        found = compiled(*found, gradient)
    np.testing.assert_array_equal(host(found[0]), [5.375, 2.0])
    np.testing.assert_array_equal(host(found[1]), [26.0, 3.75])


@recorded_only
def test_what_cannot_be_recorded_leaves_its_arguments_as_they_were() -> None:
    def change_and_fail(x: Any) -> Any:
        x += 1
        return x * float(x[0])

    x = arr([1.0, 2.0])
    compiled: Any = backend.compile(change_and_fail, donate=[0])
    with pytest.raises(TypeError, match="no value yet"):
        compiled(x)
    np.testing.assert_array_equal(host(x), [1, 2])


@pytest.mark.skipif(backend.name != "numpy", reason="Python sees NumPy's memory alone")
def test_a_replay_allocates_nothing() -> None:
    recording = settled_step().recordings[0]
    kept, taken = [], []
    tracemalloc.start()
    try:
        recording.replay({})
        for _ in range(20):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in range(10):
                recording.replay({})
            after, peak = tracemalloc.get_traced_memory()
            kept.append(after - before)
            taken.append(peak - before)
    finally:
        tracemalloc.stop()
    # What other threads take comes on top, now and then: what is always taken is the replay's. The
    # mini-batch alone takes 1.3 MB; NumPy has buffers for its loops, of 64 KB at most.
    assert min(kept) < 200
    assert min(taken) < 100_000


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


@pytest.mark.parametrize(
    "function",
    [
        lambda xp, x: xp.astype(x, x.dtype, copy=False) * 1.5,
        lambda xp, x: xp.astype(x, xp.float32, copy=True),
        lambda xp, x: xp.sum(x, axis=0, dtype=xp.float32),
        lambda xp, x: xp.logaddexp(x, 0.0),
        lambda xp, x: xp.atan2(x, 1.0),
        lambda xp, x: x @ xp.ones((3, 3), dtype=x.dtype) + x,
        lambda xp, x: x - 0.5 * xp.matmul(xp.ones((3, 3), dtype=x.dtype), x),
        lambda xp, x: xp.sum(x[:1, :] @ xp.ones((3, 3), dtype=x.dtype)) + x,
        lambda xp, x: xp.where(xp.ones((3, 3), dtype=xp.bool), x, 0),
    ],
)
def test_all_of_the_standard_can_be_recorded(function: Any) -> None:
    def on_own_namespace(x: Array) -> Any:
        return function(namespace_of(x), x)

    compiled = backend.compile(on_own_namespace)
    # What the function makes for itself is made on the backend's device.
    with backend.scope():
        for factor in (1.0, 2.0, -3.0):
            x = arr(factor * np.linspace(-1, 1, 9).reshape(3, 3), "float32")
            try:
                expected = host(function(backend.xp, x))
            except Exception:  # nor can it be called otherwise
                return
            np.testing.assert_allclose(host(compiled(x)), expected, rtol=1e-6)


@pytest.mark.skipif(backend.name not in ("numpy", "torch"), reason="the others do not look")
def test_an_index_that_is_outside_is_an_error_in_a_replay_too() -> None:
    def chosen(x: Array, numbers: Array) -> Any:
        return namespace_of(x).take(x, numbers, axis=0)

    compiled, x = backend.compile(chosen), arr(np.eye(3), "float32")
    for number in (0, 1, 2):
        np.testing.assert_array_equal(host(compiled(x, arr([number, 0]))), np.eye(3)[[number, 0]])
    with pytest.raises(IndexError):
        compiled(x, arr([3, 0]))
