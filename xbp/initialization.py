"""Initial weights, the same on every backend: drawn on the host, then moved."""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np

from xbp.errors import SettingError, ShapeError
from xbp.settings import is_finite_number, is_integer


def initial_parameters(
    sizes: Sequence[int], weight_init_std: float | str, seed: int | None
) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    r"""Return a weight and a bias for each two neighbouring sizes.

    Parameters
    ----------
    sizes
        The number of features at the input, in each hidden layer, and at the output.
    weight_init_std
        Standard deviation of the normal distribution that weights are drawn from, or a rule for it
        that looks at the numbers of inputs and outputs: ``"he"``, :math:`\sqrt{2/n_{in}}`
        (He et al. 2015, arXiv:1502.01852, eq. 10), for ReLU; ``"xavier"``,
        :math:`\sqrt{2/(n_{in}+n_{out})}` (Glorot and Bengio 2010, eq. 12), for sigmoid.
    seed
        The same seed gives the same numbers; None draws a fresh one.

    Returns
    -------
    list of (weight, bias)
        float64 arrays of shapes ``(n_in, n_out)`` and ``(n_out,)``; biases are 0.

    Raises
    ------
    ShapeError
        If there are fewer than two sizes, or one is not a positive integer.
    SettingError
        If weight_init_std or the seed makes no sense.
    """
    if not _are_sizes(sizes):
        raise ShapeError(
            f"sizes are positive integers, those of input and output at least, not {sizes!r}"
        )
    random = random_generator(seed)
    return [
        (
            random.standard_normal((n_in, n_out)) * _deviation(weight_init_std, n_in, n_out),
            np.zeros(n_out),
        )
        for n_in, n_out in pairwise(sizes)
    ]


def _are_sizes(sizes: Any) -> bool:
    return (
        isinstance(sizes, Sequence)
        and len(sizes) >= 2  # noqa: PLR2004
        and all(is_integer(n) and n >= 1 for n in sizes)
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
    """Return NumPy's generator for a seed, or a `SettingError` that says what a seed is."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise SettingError(f"seed is an integer ≥ 0 or None, not {seed!r}") from error
