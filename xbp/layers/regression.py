"""Losses of numbers: squared, absolute, Huber's, of a quantile, of counts."""

from xbp.errors import SettingError
from xbp.functions import as_targets, sum_squared_error
from xbp.layers.loss import LossLayer, require_all
from xbp.namespace import Array, namespace_of
from xbp.settings import is_finite_number, positive_number


class IdentityWithLoss(LossLayer):
    """The outputs as they are, and half the sum of squared errors: for regression."""

    classifies = False
    traceable = True
    samplewise = True

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean over the batch of half the sum of squared differences.

        Parameters
        ----------
        x
            Outputs, ``(M,)`` for one sample or ``(N, M)`` for a batch.
        t
            Targets, of the shape of x.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If t does not fit x.
        """
        self.t = as_targets(t, x, where=self.name)
        self.y = x
        self.loss = sum_squared_error(x, self.t)
        return self.loss

    def slope(self) -> Array:
        """Return ``y - t``."""
        return self.y - self.t

    def losses(self, x: Array, t: Array) -> Array:
        """Return half the sum of squared differences of each sample."""
        difference = x - as_targets(t, x, where=self.name)
        return 0.5 * namespace_of(x).sum(difference * difference, axis=1)


class AbsoluteWithLoss(LossLayer):
    """The outputs as they are, and the sum of absolute errors: outputs learn the median.

    Where output and target are equal, the derivative is taken to be 0.
    """

    classifies = False
    traceable = True
    samplewise = True

    def losses(self, x: Array, t: Array) -> Array:
        """Return the sum of absolute differences of each sample."""
        xp = namespace_of(x)
        return xp.sum(xp.abs(x - t), axis=1)

    def slope(self) -> Array:
        """Return the sign of ``y - t``."""
        return namespace_of(self.y).sign(self.y - self.t)


class HuberWithLoss(LossLayer):
    """The outputs as they are, and Huber's loss: outliers pull no harder than what is near.

    With the difference d of output and target it is ``d² / 2`` where ``|d|`` is below delta, and
    ``delta (|d| - delta / 2)`` beyond; of each sample, the sum over the outputs (Huber, 1964).

    Parameters
    ----------
    delta
        A positive number.

    Raises
    ------
    SettingError
        If delta is no positive number.
    """

    classifies = False
    traceable = True
    samplewise = True

    def __init__(self, delta: float = 1.0) -> None:
        self.delta = positive_number("HuberWithLoss: delta", delta)

    def __repr__(self) -> str:
        return f"<{self.name}: delta {self.delta:g}>"

    def losses(self, x: Array, t: Array) -> Array:
        """Return Huber's loss of each sample."""
        xp = namespace_of(x)
        size = xp.abs(x - t)
        near = xp.minimum(size, self.delta)
        return xp.sum(near * (size - near / 2), axis=1)

    def slope(self) -> Array:
        """Return ``y - t``, within delta of 0."""
        xp = namespace_of(self.y)
        return xp.maximum(xp.minimum(self.y - self.t, self.delta), -self.delta)


class QuantileWithLoss(LossLayer):
    """The outputs as they are, and the loss that a quantile makes smallest.

    R. Koenker and G. Bassett, Regression quantiles, Econometrica 46 (1978), pages 33 to 50.

    A target above the output costs q times the difference, one below 1 - q times: so outputs learn
    what a share q of the targets is below. Where both are equal, the derivative is taken to be 0.

    Parameters
    ----------
    q
        A number between 0 and 1; 0.5 is the median.

    Raises
    ------
    SettingError
        If q is no such number.
    """

    classifies = False
    traceable = True
    samplewise = True

    def __init__(self, q: float) -> None:
        if not (is_finite_number(q) and 0 < q < 1):
            raise SettingError(f"QuantileWithLoss: q is a number between 0 and 1, not {q!r}")
        self.q = float(q)

    def __repr__(self) -> str:
        return f"<{self.name}: q {self.q:g}>"

    def losses(self, x: Array, t: Array) -> Array:
        """Return the loss of each sample, the sum over its outputs."""
        xp = namespace_of(x)
        above = t - x
        return xp.sum(xp.maximum(self.q * above, (self.q - 1) * above), axis=1)

    def slope(self) -> Array:
        """Return ``1 - q`` where y is above t, ``-q`` where it is below."""
        xp = namespace_of(self.y)
        side = xp.sign(self.y - self.t)
        return (side + (1 - 2 * self.q) * xp.abs(side)) / 2


class PoissonWithLoss(LossLayer):
    """Outputs that are logarithms of rates, and the loss of counts: ``exp(x) - t x``.

    It is the negative logarithm of the Poisson distribution, without ``log(t!)``, which does not
    change what is learned; of each sample, the sum over its outputs. It may be negative.
    """

    classifies = False
    traceable = True
    samplewise = True

    def losses(self, x: Array, t: Array) -> Array:
        """Return the loss of each sample."""
        xp = namespace_of(x)
        return xp.sum(xp.exp(x) - t * x, axis=1)

    def slope(self) -> Array:
        """Return ``exp(y) - t``."""
        return namespace_of(self.y).exp(self.y) - self.t

    def predictions(self, y: Array) -> Array:
        """Return the rates, ``exp(y)``."""
        return namespace_of(y).exp(y)

    @staticmethod
    def check_targets(t: Array, output_size: int) -> None:
        """Raise `DataError` if a target is negative, or not finite."""
        LossLayer.check_targets(t, output_size)
        require_all(t, t >= 0, "no count: targets are numbers ≥ 0")
