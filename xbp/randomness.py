"""Counter-based random numbers: pure functions of integers, bit for bit equal in every library.

The generator is Threefry-2x32 with 20 rounds: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC11, 2011, doi:10.1145/2063384.2063405. It maps a
key and a counter, two words of 32 bits each, to two random words. It has no state: the same key and
counter give the same words, in a traced or compiled step, too, and however samples are distributed
over processes.

Words are int32 of the standard, whose additions wrap around in every library.
"""

from math import prod
from secrets import randbits
from typing import Any

from xbp.errors import DTypeError, SettingError
from xbp.namespace import Array, DType, Namespace, device_of, dtype_name, namespace_of
from xbp.settings import seed_integer

_BITS = 32
_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_GROUPS = 5  # of four rounds

Words = tuple[Array | int, Array | int]


def threefry(key: Words, counter: Words) -> tuple[Array, Array]:
    """Return the two random words of a key and a counter.

    Parameters
    ----------
    key, counter
        Two words each: arrays of int32 whose shapes broadcast against each other, or Python
        integers from -2³¹ to 2³¹ - 1. At least one is an array.

    Returns
    -------
    tuple of Array
        Two arrays of int32, of the shape that the words broadcast to.
    """
    first, second = counter
    keys = (*key, key[0] ^ key[1] ^ _PARITY)
    first, second = keys[0] + first, keys[1] + second
    for group in range(_GROUPS):
        for places in _ROTATIONS[group % 2]:
            first = first + second
            second = _rotated(second, places) ^ first
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + (group + 1)
    return first, second


def _rotated(word: Array, places: int) -> Array:
    # A shift to the right fills with copies of the sign bit, which the mask removes.
    low = (1 << places) - 1
    return (word << places) | ((word >> (_BITS - places)) & low)


def random_key(seed: int | None = None, like: Array | None = None) -> Array | tuple[int, int]:
    """Return the key of a seed.

    Parameters
    ----------
    seed
        An integer from 0 to 2⁶⁴ - 1; None draws an unpredictable one.
    like
        An array, on whose library and device the key is made, of shape ``(2,)`` and dtype int32.
        None returns two Python integers, which a layer may set as its initial state.

    Raises
    ------
    SettingError
        If the seed is another.
    """
    seed = randbits(2 * _BITS) if seed is None else seed_integer("seed", seed)
    if seed >> 2 * _BITS:
        raise SettingError(f"seed is an integer below 2**64, not {seed!r}")
    words = _signed(seed & 0xFFFFFFFF), _signed(seed >> _BITS)
    if like is None:
        return words
    xp = namespace_of(like)
    return xp.asarray(words, dtype=xp.int32, device=device_of(like))


def derived_key(key: Array, number: Array | int) -> Array:
    """Return another key, ``(2,)`` of int32, for a number such as that of a step or of a layer.

    Parameters
    ----------
    key
        A key of `random_key` as an array, or one derived from it.
    number
        A Python integer of 32 bits, or a 0-d array of int32.
    """
    # Slices of one element, since NumPy would make scalars of 0-d arrays, which warn of overflow.
    return _namespace_of_key(key).concat(threefry((key[:1], key[1:]), (number, 0)))


def random_words(key: Array, shape: tuple[int, ...], first: Array | int = 0) -> Array:
    """Return an array of random words, int32 with 32 random bits each, for some samples.

    Parameters
    ----------
    key
        The key, ``(2,)`` of int32: see `random_key`.
    shape
        The shape of the result, ``(N, ...)`` for N samples. Each word depends only on the key, on
        the number of its sample and on its position in the sample.
    first
        The number of the first sample, if samples before it are computed elsewhere.
    """
    xp, device = _namespace_of_key(key), device_of(key)
    count, size = (shape[0], prod(shape[1:])) if shape else (1, 1)
    half = (size + 1) // 2
    samples = first + xp.arange(count, dtype=xp.int32, device=device)[:, None]
    pairs = xp.arange(half, dtype=xp.int32, device=device)[None, :]
    words = xp.stack(threefry((key[:1], key[1:]), (samples, pairs)), axis=-1)
    return xp.reshape(xp.reshape(words, (count, 2 * half))[:, :size], shape)


def uniform(key: Array, shape: tuple[int, ...], dtype: DType, first: Array | int = 0) -> Array:
    """Return uniform random numbers, at least 0 and less than 1.

    Parameters
    ----------
    key, shape, first
        As in `random_words`.
    dtype
        The namespace's float32, for multiples of 2⁻²⁴, or float64, for multiples of 2⁻⁵³: the same
        numbers with more digits.

    Raises
    ------
    DTypeError
        If dtype is another.
    """
    xp = _namespace_of_key(key)
    if dtype == xp.float32:
        words = random_words(key, shape, first)
        return xp.astype((words >> 8) & 0xFFFFFF, dtype) * 2.0**-24
    if dtype_name(dtype) != "float64":
        raise DTypeError(f"uniform: the dtype is float32 or float64, not {dtype_name(dtype)}")
    count, size = (shape[0], prod(shape[1:])) if shape else (1, 1)
    words = random_words(key, (count, 2 * size), first)
    high, more = words[:, :size], words[:, size:]
    low = ((high & 0xFF) << 21) | ((more >> 11) & 0x1FFFFF)
    numbers = xp.astype((high >> 8) & 0xFFFFFF, dtype) * 2.0**-24 + xp.astype(low, dtype) * 2.0**-53
    return xp.reshape(numbers, shape)


def uniform_like(x: Array, key: Array) -> tuple[Array, Array]:
    """Return uniform random numbers for the elements of an array, and the next key.

    In a layer whose `state_names` are ``("key",)``: ``numbers, self.key = uniform_like(x,
    self.key)``.

    Parameters
    ----------
    x
        An array of float32 or float64; the numbers have its shape and dtype: see `uniform`.
    key
        As in `random_words`.
    """
    return uniform(derived_key(key, 0), x.shape, x.dtype), derived_key(key, 1)


def _namespace_of_key(key: Any) -> Namespace:
    if isinstance(key, tuple):
        raise DTypeError(
            f"the key is a pair of numbers, {key}, and no array: a layer that names it in "
            "state_names makes one of it; by hand, random_key(seed, like=x)"
        )
    return namespace_of(key, where="the key")


def _signed(word: int) -> int:
    """Return the signed integer with the same 32 bits."""
    return word - (1 << _BITS) if word >> (_BITS - 1) else word
