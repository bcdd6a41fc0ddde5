r"""The standard normal distribution: its density and its distribution function.

The standard has no error function. With the density :math:`\varphi(x) = e^{-x^2/2} / \sqrt{2\pi}`,
the ratio :math:`\Phi(-y) / \varphi(y)` falls slowly from 1.25 at 0, and like :math:`1/y`. So, times
:math:`1 + y`, it is a polynomial of :math:`t = (y - 5) / (y + 5)` for all :math:`y \ge 0`, as in
M. M. Shepherd and J. G. Laframboise, Chebyshev approximation of (1 + 2x) exp(x²) erfc x in
0 ≤ x < ∞, Mathematics of Computation 36 (1981), pages 249 to 253. The coefficients are those of
Chebyshev interpolation, computed with 50 digits.
"""

from collections.abc import Sequence
from math import pi, sqrt

from xbp.namespace import Array, epsilon_of, namespace_of

# From the highest power of t down: for float32, and for float64.
_COEFFICIENTS_OF_FLOAT32 = (
    *(-7.782680851e-05, 0.000383765462, -4.474015658e-05, -0.004119614922, 0.01638499796),
    *(-0.03806869863, 0.06149462243, -0.06616777029, 0.02507345801, 0.07778075859),
    *(-0.2294875833, 1.15684864),
)
_COEFFICIENTS_OF_FLOAT64 = (
    *(-9.564832934712551e-10, -7.073898575561578e-10, 1.1032071151574338e-08),
    *(9.09247613401914e-09, -7.758520236786343e-08, -6.588974491108952e-08),
    *(4.91996233147834e-07, 3.205431665258957e-07, -3.277287633208865e-06),
    *(-1.7633239265736746e-07, 2.270961270923768e-05, -2.480583845192319e-05),
    *(-0.0001343742785571135, 0.00045704392357953655, 1.9530638370790786e-05),
    *(-0.004201290329187307, 0.01634823128102938, -0.03802659218584139),
    *(0.0615050458401865, -0.0661776007790963, 0.0250721793016388),
    *(0.07778159886873769, -0.22948753825211315, 1.1568486282918946),
)
_EPSILON_OF_FLOAT32 = 2.0**-23

# Beyond, the density is 0 in float64.
FARTHEST = 40.0


def normal(x: Array) -> tuple[Array, Array]:
    r"""Return the density :math:`\varphi(x)` and the distribution function :math:`\Phi(x)`.

    Parameters
    ----------
    x
        Floating-point array of any shape.

    Returns
    -------
    tuple of Array
        Of the shape and dtype of x, exact to a few units in the last place, also where
        :math:`\Phi(x)` is tiny.
    """
    xp = namespace_of(x)
    # Not abs(x), whose slope at 0 automatic differentiation takes to be 0.
    y = xp.minimum(xp.where(x < 0, -x, x), FARTHEST)
    density = _exponential_of_half_square(y) / sqrt(2 * pi)
    is_short = epsilon_of(x) >= _EPSILON_OF_FLOAT32
    coefficients = _COEFFICIENTS_OF_FLOAT32 if is_short else _COEFFICIENTS_OF_FLOAT64
    tail = density * _polynomial((y - 5) / (y + 5), coefficients) / (1 + y)
    return density, xp.where(x < 0, tail, 1 - tail)


def _exponential_of_half_square(y: Array) -> Array:
    """Return ``exp(-y**2 / 2)``, corrected by what the square loses when it is rounded."""
    xp = namespace_of(y)
    square = y * y
    near = xp.floor(16 * y) / 16  # its square is exact
    lost = (near * near - square) + (y - near) * (y + near)
    return xp.exp(-square / 2) * (1 - lost / 2)


def _polynomial(t: Array, coefficients: Sequence[float]) -> Array:
    """Return a polynomial by Horner's scheme."""
    first, second, *others = coefficients
    y = first * t + second
    for coefficient in others:
        y = y * t + coefficient
    return y
