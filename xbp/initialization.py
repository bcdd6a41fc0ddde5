"""Initial weights. NumPy draws them, so that they are the same on every backend."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np

from xbp.errors import CheckpointError, SettingError, ShapeError
from xbp.settings import is_finite_number, is_integer


def initial_parameters(
    sizes: Sequence[int], weight_init_std: float | str, seed: int | None
) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    r"""Return a weight and a bias for each pair of consecutive sizes.

    Parameters
    ----------
    sizes
        The number of features of the input, of each hidden layer, and of the output.
    weight_init_std
        The standard deviation of the normal distribution, of mean 0, that weights are drawn from.
        Or a rule that gives it: ``"he"``, :math:`\sqrt{2/n_{in}}` (He et al. 2015,
        arXiv:1502.01852, eq. 10), for ReLU; ``"xavier"``, :math:`\sqrt{2/(n_{in}+n_{out})}`
        (Glorot and Bengio 2010, eq. 12), for sigmoid.
    seed
        The same seed gives the same numbers; None draws a random seed.

    Returns
    -------
    list of (weight, bias)
        float64 arrays of shapes ``(n_in, n_out)`` and ``(n_out,)``; biases are 0.

    Raises
    ------
    ShapeError
        If there are fewer than two sizes, or one is not a positive integer.
    SettingError
        If weight_init_std or the seed is invalid.
    """
    require_sizes(sizes)
    random = random_generator(seed)
    return [
        (initial_weight(random, (n_in, n_out), weight_init_std, n_in, n_out), np.zeros(n_out))
        for n_in, n_out in pairwise(sizes)
    ]


def initial_weight(
    random: "np.random.Generator",
    shape: tuple[int, ...],
    weight_init_std: float | str,
    n_in: int,
    n_out: int,
) -> np.ndarray[Any, Any]:
    """Return a weight of a shape, each of whose outputs is a sum of n_in terms, in float64.

    n_out counts the terms in each derivative with respect to an input. See `initial_parameters`.

    Raises
    ------
    SettingError
        If weight_init_std is invalid, or the weight is larger than the memory.
    """
    deviation = _deviation(weight_init_std, n_in, n_out)
    try:
        return random.standard_normal(shape) * deviation
    except (MemoryError, ValueError) as error:
        raise SettingError(
            f"a weight of shape {shape} is larger than the memory ({error})"
        ) from error


def require_sizes(sizes: Any) -> None:
    """Raise `ShapeError` unless these are numbers of features, of input and output at least."""
    if not (
        isinstance(sizes, Sequence)
        and len(sizes) >= 2  # noqa: PLR2004
        and all(is_integer(n) and n >= 1 for n in sizes)
    ):
        raise ShapeError(
            f"sizes are positive integers, those of input and output at least, not {sizes!r}"
        )


def _deviation(weight_init_std: Any, n_in: int, n_out: int) -> float:
    if isinstance(weight_init_std, str) and weight_init_std == "he":
        return sqrt(2 / n_in)
    if isinstance(weight_init_std, str) and weight_init_std == "xavier":
        return sqrt(2 / (n_in + n_out))
    if is_finite_number(weight_init_std) and weight_init_std >= 0:
        return float(weight_init_std)
    raise SettingError(
        f"weight_init_std is a number ≥ 0, 'he' or 'xavier', not {weight_init_std!r}"
    )


def random_generator(seed: int | Sequence[int] | None) -> "np.random.Generator":
    """Return NumPy's generator for a seed.

    A seed is what `numpy.random.default_rng` takes, including a generator, which is returned as it
    is. `SettingError` is raised for anything else.
    """
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise SettingError(f"seed is an integer ≥ 0 or None, not {seed!r}") from error


def random_state(random: "np.random.Generator") -> dict[str, Any]:
    """Return the state of a generator as nested dictionaries that JSON can represent."""
    return dict(_listed(random.bit_generator.state))


def restore_random_state(random: "np.random.Generator", state: Any) -> None:
    """Set the state of a generator to one that `random_state` returned.

    Raises
    ------
    CheckpointError
        If the state is invalid, or of another kind of generator; the generator is then unchanged.
    """
    here = random.bit_generator.state
    kind = state.get("bit_generator") if isinstance(state, dict) else None
    if kind != here["bit_generator"]:
        raise CheckpointError(
            f"the training that was saved drew by {kind}, this one draws by "
            f"{here['bit_generator']}: give the same kind of generator as the seed"
        )
    try:
        random.bit_generator.state = _filled(here, state)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        random.bit_generator.state = here
        raise CheckpointError(f"its random numbers have no state ({error})") from error


def _listed(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {name: _listed(value) for name, value in state.items()}
    return state.tolist() if isinstance(state, np.ndarray | np.generic) else state


def _filled(here: Any, state: Any) -> Any:
    """Return a state with lists converted to arrays where this generator's state has arrays."""
    if isinstance(here, Mapping):
        if not isinstance(state, dict) or here.keys() != state.keys():
            raise ValueError("other parts than it has")
        return {name: _filled(value, state[name]) for name, value in here.items()}
    if not isinstance(here, np.ndarray):
        return state
    array = np.asarray(state, dtype=here.dtype)
    if array.shape != here.shape:
        raise ValueError(f"shape {array.shape}, not {here.shape}")
    return array
