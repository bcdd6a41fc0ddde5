"""Random numbers by a counter: pure functions of integers, the same bits on every library.

The generator is Threefry-2x32 with 20 rounds: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw,
"Parallel random numbers: as easy as 1, 2, 3", SC11, 2011, doi:10.1145/2063384.2063405. It turns a
key and a counter, two words of 32 bits each, into two words in which neither can be recognized.
Nothing is remembered: another key or counter gives other numbers, the same ones give the same, in
a step that is traced or compiled, too, and on however many processes the samples are.

Words are integers of the standard's int32, whose additions wrap round in every library.
"""

from math import prod
from secrets import randbits

from xbp.errors import DTypeError, SettingError
from xbp.namespace import Array, DType, device_of, dtype_name, namespace_of
from xbp.settings import seed_integer

_BITS = 32
_PARITY = 0x1BD11BDA
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_GROUPS = 5  # of four rounds

Words = tuple[Array | int, Array | int]


def threefry(key: Words, counter: Words) -> tuple[Array, Array]:
    """Return two words for a key and a counter of two words each.

    Parameters
    ----------
    key, counter
        Arrays of int32 whose shapes broadcast against each other, or Python integers of 32 bits
        with a sign; one at least is an array.

    Returns
    -------
    tuple of Array
        Two arrays of int32, of the shape that the arguments have together.
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
    # A shift to the right fills up with the sign.
    low = (1 << places) - 1
    return (word << places) | ((word >> (_BITS - places)) & low)


def random_key(seed: int | None = None, like: Array | None = None) -> Array | tuple[int, int]:
    """Return the key of a seed, ``(2,)`` of int32, beside another array.

    Parameters
    ----------
    seed
        None draws one that nobody can know before.
    like
        None: two integers are returned, as a layer may give them for an array of its state.

    Raises
    ------
    SettingError
        If the seed is no integer from 0 to 2⁶⁴ - 1.
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
    """Return another key, ``(2,)``, for a number such as that of a step or of a layer.

    Parameters
    ----------
    key
        Of `random_key`, or derived from one.
    number
        A Python integer, or an array of int32 without dimensions.
    """
    # Of arrays of one element: of those without dimensions NumPy makes scalars, which may not wrap.
    return namespace_of(key).concat(threefry((key[:1], key[1:]), (number, 0)))


def random_words(key: Array, shape: tuple[int, ...], first: Array | int = 0) -> Array:
    """Return random words, int32 of all 32 bits, for some samples.

    Parameters
    ----------
    key
        ``(2,)`` of int32: see `random_key`.
    shape
        ``(N, ...)``: of N samples. Each word depends on the key, on the number of its sample and on
        its place in the sample alone.
    first
        The number of the first sample, where others are computed elsewhere.
    """
    xp, device = namespace_of(key), device_of(key)
    count, size = (shape[0], prod(shape[1:])) if shape else (1, 1)
    half = (size + 1) // 2
    samples = first + xp.arange(count, dtype=xp.int32, device=device)[:, None]
    pairs = xp.arange(half, dtype=xp.int32, device=device)[None, :]
    words = xp.stack(threefry((key[:1], key[1:]), (samples, pairs)), axis=-1)
    return xp.reshape(xp.reshape(words, (count, 2 * half))[:, :size], shape)


def uniform(key: Array, shape: tuple[int, ...], dtype: DType, first: Array | int = 0) -> Array:
    """Return random numbers that are at least 0 and below 1, each as likely as any other.

    Parameters
    ----------
    key, shape, first
        As in `random_words`.
    dtype
        Float32: multiples of 2⁻²⁴. Float64: multiples of 2⁻⁵³.

    Raises
    ------
    DTypeError
        If dtype is another.
    """
    xp = namespace_of(key)
    if dtype == xp.float32:
        words = random_words(key, shape, first)
        return xp.astype((words >> 8) & 0xFFFFFF, dtype) * 2.0**-24
    if dtype_name(dtype) != "float64":
        raise DTypeError(f"uniform: the dtype is float32 or float64, not {dtype_name(dtype)}")
    words = random_words(key, (*(shape or (1,)), 2), first)
    high, low = (words[..., 0] >> 5) & 0x7FFFFFF, (words[..., 1] >> 6) & 0x3FFFFFF
    numbers = (xp.astype(high, dtype) * 2.0**26 + xp.astype(low, dtype)) * 2.0**-53
    return numbers if shape else xp.reshape(numbers, ())


def uniform_like(x: Array, key: Array) -> tuple[Array, Array]:
    """Return random numbers for the elements of an array, and the key of the next ones.

    In a layer whose `state_names` are ``("key",)``: ``numbers, self.key = uniform_like(x,
    self.key)``.

    Parameters
    ----------
    x
        Of float32 or float64, which the numbers have too: see `uniform`.
    key
        As in `random_words`.
    """
    return uniform(derived_key(key, 0), x.shape, x.dtype), derived_key(key, 1)


def _signed(word: int) -> int:
    """Return the integer with a sign that has the same 32 bits."""
    return word - (1 << _BITS) if word >> (_BITS - 1) else word
