"""Random numbers by a counter: the published vectors, the same bits everywhere, and uniform."""

import math
from typing import Any

import numpy as np
import pytest
from support import HostArray, arr, backend, host, needs_float64, widest

from xbp.errors import DTypeError, SettingError
from xbp.namespace import Array
from xbp.randomness import (
    derived_key,
    random_key,
    random_words,
    threefry,
    uniform,
    uniform_like,
)

ALL = 0xFFFFFFFF


def words_of(*unsigned: int) -> list[Array]:
    """Return words of 32 bits as arrays of one element."""
    return [arr(np.array([word], np.uint32).view(np.int32)) for word in unsigned]


def unsigned(x: Array) -> HostArray:
    return host(x).view(np.uint32)


# Salmon et al. publish these with Random123, in kat_vectors, "threefry2x32 20".
VECTORS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ALL, ALL), (ALL, ALL), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("key", "counter", "expected"), VECTORS)
def test_the_published_vectors(key: Any, counter: Any, expected: Any) -> None:
    def words(*both: Array) -> tuple[Array, Array]:
        return threefry((both[0], both[1]), (both[2], both[3]))

    compiled = backend.compile(words)
    both = words_of(*key, *counter)
    with backend.scope():
        for _ in range(3):
            for found in (words(*both), compiled(*both)):
                assert tuple(int(unsigned(x)[0]) for x in found) == expected


def by_hand(key: tuple[int, int], counter: tuple[int, int]) -> tuple[int, int]:
    """Return what the paper's algorithm gives, in Python's integers."""
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x, y = (counter[0] + keys[0]) & ALL, (counter[1] + keys[1]) & ALL
    for number in range(20):
        places = (13, 15, 26, 6, 17, 29, 16, 24)[number % 8]
        x = (x + y) & ALL
        y = ((y << places | y >> 32 - places) & ALL) ^ x
        if number % 4 == 3:
            group = number // 4 + 1
            x = (x + keys[group % 3]) & ALL
            y = (y + keys[(group + 1) % 3] + group) & ALL
    return x, y


SEED = 0x0123456789ABCDEF
KEY = (0x89ABCDEF, 0x01234567)


def key() -> Array:
    return random_key(SEED, arr([0.0]))


def test_a_key_is_a_seed_in_two_words() -> None:
    assert tuple(unsigned(key())) == KEY
    assert host(key()).dtype == np.int32
    assert tuple(unsigned(random_key(2**64 - 1, arr([0.0])))) == (ALL, ALL)
    # Each bit alone, that of the sign among them.
    for place in range(64):
        words = unsigned(random_key(1 << place, arr([0.0])))
        assert int(words[0]) + (int(words[1]) << 32) == 1 << place


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, "x"])
def test_what_is_no_seed(seed: Any) -> None:
    with pytest.raises(SettingError, match="seed is an integer"):
        random_key(seed, arr([0.0]))


def test_a_key_is_derived_for_each_number() -> None:
    for number in (0, 1, 7, 2**31 - 1):
        assert tuple(unsigned(derived_key(key(), number))) == by_hand(KEY, (number, 0))
    number = arr(7, "int32")
    assert tuple(unsigned(derived_key(key(), number))) == by_hand(KEY, (7, 0))


@pytest.mark.parametrize("shape", [(), (3,), (3, 1), (3, 4), (3, 5), (2, 3, 3), (0, 2), (2, 0)])
def test_each_word_is_that_of_its_sample_and_its_place(shape: tuple[int, ...]) -> None:
    found = unsigned(random_words(key(), shape))
    assert found.shape == shape
    count = shape[0] if shape else 1
    size = math.prod(shape[1:])
    rows = found.reshape(count, size)
    for i in range(count):
        for j in range(size):
            assert rows[i, j] == by_hand(KEY, (i, j // 2))[j % 2]


def test_samples_may_be_anywhere() -> None:
    whole = host(random_words(key(), (10, 3)))
    for first in (4, arr(4, "int32")):
        np.testing.assert_array_equal(host(random_words(key(), (6, 3), first)), whole[4:])
    for dtype in {"float32", widest}:
        drawn = host(uniform(key(), (10, 3), backend.dtype(dtype)))
        found = host(uniform(key(), (6, 3), backend.dtype(dtype), first=4))
        np.testing.assert_array_equal(found, drawn[4:])


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=needs_float64)])
@pytest.mark.parametrize("shape", [(), (5,), (4, 3), (2, 3, 2)])
def test_uniform_numbers_are_the_bits(dtype: str, shape: tuple[int, ...]) -> None:
    found = host(uniform(key(), shape, backend.dtype(dtype)))
    assert (found.shape, found.dtype) == (shape, dtype)
    if dtype == "float32":
        expected = (unsigned(random_words(key(), shape)) >> 8) * 2.0**-24
    else:
        rows, size = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
        words = unsigned(random_words(key(), (rows, 2 * size))).astype(np.uint64)
        high, low = words[:, :size], words[:, size:]
        expected = (((high << np.uint64(21)) + (low >> np.uint64(11))) * 2.0**-53).reshape(shape)
    np.testing.assert_array_equal(found, expected)


@needs_float64
def test_float64_has_the_numbers_of_float32_with_more_digits() -> None:
    narrow, wide = (host(uniform(key(), (50, 7), backend.dtype(f"float{n}"))) for n in (32, 64))
    np.testing.assert_array_equal(np.floor(wide * 2**24) * 2.0**-24, narrow)
    assert len(np.unique(wide * 2**24 % 1)) == wide.size


def test_uniform_numbers_are_of_floating_point() -> None:
    with pytest.raises(DTypeError, match="uniform: the dtype is float32 or float64, not int32"):
        uniform(key(), (2,), backend.dtype("int32"))


def test_a_compiled_step_draws_what_a_plain_one_does() -> None:
    def step(state: Any, row: Array) -> Any:
        mixed = derived_key(state["key"], state["steps"])
        drawn = uniform(mixed, (2, 3), backend.dtype("float32"))
        return {"key": state["key"], "steps": state["steps"] + 1}, drawn + 0 * row

    compiled = backend.compile(step)
    row, plain = arr(np.zeros((2, 3)), "float32"), {"key": key(), "steps": arr(0, "int32")}
    traced = plain
    seen = []
    with backend.scope():
        for _ in range(5):
            plain, expected = step(plain, row)
            traced, found = compiled(traced, row)
            np.testing.assert_array_equal(host(found), host(expected))
            seen.append(host(found))
    assert len({drawn.tobytes() for drawn in seen}) == len(seen)


def test_numbers_are_uniform_and_independent() -> None:
    count, size = 2**12, 16
    drawn = host(uniform(key(), (count, size), backend.dtype(widest))).astype("float64")
    cells = 64
    for numbers in (drawn, drawn[:, :1], drawn[:1, :].T):
        observed = np.bincount((numbers.reshape(-1) * cells).astype(int), minlength=cells)
        if numbers.size > 10 * cells:
            expected = numbers.size / cells
            statistic = float(((observed - expected) ** 2 / expected).sum())
            assert abs(statistic - (cells - 1)) < 5 * np.sqrt(2 * (cells - 1))
    # Neighbours in a sample, samples beside each other, steps beside each other.
    later = host(uniform(derived_key(key(), 1), (count, size), backend.dtype(widest)))
    for one, other in ((drawn[:, 1:], drawn[:, :-1]), (drawn[1:], drawn[:-1]), (drawn, later)):
        correlation = np.corrcoef(one.reshape(-1), other.reshape(-1))[0, 1]
        assert abs(correlation) < 5 / np.sqrt(one.size)


def test_numbers_and_the_next_key_are_of_other_keys() -> None:
    x = arr([[1.0, 2.0]], "float32")
    numbers, after = uniform_like(x, key())
    np.testing.assert_array_equal(
        host(numbers), host(uniform(derived_key(key(), 0), (1, 2), x.dtype))
    )
    np.testing.assert_array_equal(host(after), host(derived_key(key(), 1)))


def test_a_key_of_two_numbers_is_no_array() -> None:
    x = arr([1.0], "float32")
    for ask in (lambda key: uniform_like(x, key), lambda key: random_words(key, (2,))):
        with pytest.raises(DTypeError, match=r"the key is a pair of numbers, .* in state_names"):
            ask(random_key(7))
    assert uniform_like(x, random_key(7, like=x))[0].shape == (1,)
    with pytest.raises(DTypeError, match=r"^the key: expected an array, got str"):
        random_words("key", (2,))
