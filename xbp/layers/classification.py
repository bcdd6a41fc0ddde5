"""Losses for classification: of one class out of several, and of labels that are each 0 or 1."""

from collections.abc import Iterable
from typing import Any

from xbp.errors import SettingError, ShapeError
from xbp.functions import batch_size_of, exponentials, log_softmax, sigmoid
from xbp.layers.loss import LossLayer, require_all
from xbp.namespace import Array, cast_like, device_of, namespace_of
from xbp.settings import is_finite_number

# Outputs for the probability of a class, from which on it is decided for.
EVEN = 0.5


class SoftmaxWithLoss(LossLayer):
    """Softmax and the cross entropy error in one: for classification; `y` are probabilities.

    Parameters
    ----------
    class_weights
        A number for each class, which the loss of its samples is multiplied by. The loss of a
        batch is the mean over its samples, whatever their weights. None counts all alike.
    label_smoothing
        The share of a target that is spread evenly over all classes, less than 1, so that scores
        need not grow forever (Szegedy et al., 2016).

    Raises
    ------
    SettingError
        If these are no such numbers, or all weights are 0.
    """

    classifies = True
    traceable = True
    samplewise = True

    class_weights: tuple[float, ...] = ()
    label_smoothing = 0.0

    def __init__(
        self, *, class_weights: Iterable[float] | None = None, label_smoothing: float = 0.0
    ) -> None:
        if class_weights is not None:
            self.class_weights = _weights("SoftmaxWithLoss", class_weights)
        self.label_smoothing = _share("SoftmaxWithLoss", label_smoothing)

    def forward(self, x: Array, t: Array) -> Array:
        """Return the mean cross entropy error of the softmax of x.

        Parameters
        ----------
        x
            Scores (logits), ``(C,)`` for one sample or ``(N, C)`` for a batch.
            The probability of a class with score -inf is 0.
        t
            Targets: of the shape of x, one-hot or any other weights of the classes, or integer
            labels, ``()`` or ``(N,)``.

        Raises
        ------
        ShapeError, DTypeError, MixedBackendError
            If t does not fit x.
        """
        self.t = self._targets(t, x)
        xp = namespace_of(x)
        shifted, e, total = exponentials(x, axis=-1, where=self.name)
        self.y = e / total
        log_y = shifted - xp.log(total)
        self.loss = -xp.sum(_products(self.t, log_y)) / batch_size_of(x)
        return self.loss

    def losses(self, x: Array, t: Array) -> Array:
        """Return the cross entropy error of each sample."""
        t = self._targets(t, x)
        return -namespace_of(x).sum(_products(t, log_softmax(x)), axis=1)

    def _targets(self, t: Array, x: Array) -> Array:
        """Return the weight that the loss gives the logarithm of each class's probability."""
        t, classes = super()._targets(t, x), x.shape[-1]
        if self.label_smoothing:
            t = (1 - self.label_smoothing) * t + self.label_smoothing / classes
        if self.class_weights:
            if len(self.class_weights) != classes:
                raise ShapeError(
                    f"{self.name}: {len(self.class_weights)} class weights for {classes} classes"
                )
            weights = namespace_of(x).asarray(
                self.class_weights, dtype=x.dtype, device=device_of(x)
            )
            t = t * weights
        return t

    def slope(self) -> Array:
        """Return ``y Σt - t``, which is ``y - t`` for targets whose sum is 1."""
        return self.y * namespace_of(self.t).sum(self.t, axis=-1, keepdims=True) - self.t

    @staticmethod
    def check_targets(t: Array, output_size: int) -> None:
        """Raise `DataError` if a label is outside the classes, or a row is not one-hot."""
        xp = namespace_of(t)
        if t.ndim > 1:
            sums = xp.sum(xp.astype(t, xp.float32), axis=1)
            good = xp.all(t >= 0, axis=1) & (xp.abs(sums - 1) < 1e-3)  # noqa: PLR2004
            require_all(t, good, "not one-hot: numbers from 0 to 1 whose sum is 1")
        else:
            # In the library's own integers: the number of classes need not fit in the dtype of t.
            labels = cast_like(t, like=xp.arange(1))
            good = (labels >= 0) & (labels < output_size)
            require_all(t, good, f"no label: the outputs are numbered 0 ... {output_size - 1}")


class SigmoidWithLoss(LossLayer):
    """Outputs that are scores of labels, each 0 or 1, and the cross entropy error of each.

    One output tells two classes apart; several say which labels a sample has, of which there may be
    any number. The sigmoid of an output is the probability of its label.

    Parameters
    ----------
    class_weights
        Two numbers, which the loss of a label that is 0, and of one that is 1, is multiplied by.
    label_smoothing
        The share of a target that becomes 0.5, less than 1, so that scores need not grow forever.

    Raises
    ------
    SettingError
        If these are no such numbers, or both weights are 0.
    """

    classifies = True
    takes_labels = False
    traceable = True
    samplewise = True

    class_weights: tuple[float, ...] = (1.0, 1.0)
    label_smoothing = 0.0

    def __init__(
        self, *, class_weights: Iterable[float] | None = None, label_smoothing: float = 0.0
    ) -> None:
        if class_weights is not None:
            self.class_weights = _weights("SigmoidWithLoss", class_weights, count=2)
        self.label_smoothing = _share("SigmoidWithLoss", label_smoothing)

    def losses(self, x: Array, t: Array) -> Array:
        """Return the cross entropy error of each sample, the sum over its labels.

        It is ``log(1 + exp(x)) - t x``, of which no digits are lost where the score is right; with
        weights the first term is multiplied by that of the target, and t by that of 1.
        """
        xp = namespace_of(x)
        weight, t = self._weighted(t)
        log_sum = xp.log1p(xp.exp(-xp.abs(x)))
        return xp.sum(weight * xp.maximum(x, 0) - t * x + weight * log_sum, axis=1)

    def slope(self) -> Array:
        """Return ``sigmoid(y) - t``; with weights, as in `losses`."""
        weight, t = self._weighted(self.t)
        return weight * sigmoid(self.y) - t

    def _weighted(self, t: Array) -> tuple[Array | float, Array]:
        """Return the weight of each smoothed target, and that target times the weight of 1."""
        if self.label_smoothing:
            t = (1 - self.label_smoothing) * t + self.label_smoothing / 2
        of_0, of_1 = self.class_weights
        if of_0 == of_1 == 1:
            return 1.0, t
        ones = of_1 * t
        return of_0 * (1 - t) + ones, ones

    def probabilities(self, y: Array) -> Array:
        """Return the probability of each label."""
        return sigmoid(y)

    def are_right(self, y: Array, t: Array) -> Array:
        """Tell of each sample whether each of its labels that has more than 0.5 is 1, and no other.

        A sample with several labels is right if all of them are.
        """
        return namespace_of(y).all((y > 0) == (t > EVEN), axis=1)

    @staticmethod
    def check_targets(t: Array, output_size: int) -> None:
        """Raise `DataError` if a target is no probability."""
        require_all(t, (t >= 0) & (t <= 1), "no labels: each is 0, 1, or a number between")


def _products(t: Array, log_y: Array) -> Array:
    """Return ``t log(y)``, which is 0 where t is 0, also for a class with score -inf."""
    return namespace_of(log_y).where(t != 0, log_y, 0) * t


def _weights(layer: str, weights: Any, count: int | None = None) -> tuple[float, ...]:
    """Return class weights; raise `SettingError` if they are none."""
    is_row = isinstance(weights, Iterable) and not isinstance(weights, str | bytes)
    numbers = list(weights) if is_row else []
    is_good = all(is_finite_number(it) and it >= 0 for it in numbers) and any(numbers)
    if not is_good or len(numbers) != (count or len(numbers)):
        many = "a number for each class" if count is None else f"{count} numbers"
        raise SettingError(
            f"{layer}: class_weights are a list of {many}, 0 or more, not all 0, not {weights!r}"
        )
    return tuple(map(float, numbers))


def _share(layer: str, share: Any) -> float:
    """Return a share for label smoothing; raise `SettingError` if it is none."""
    if not (is_finite_number(share) and 0 <= share < 1):
        raise SettingError(f"{layer}: label_smoothing is 0 or more, less than 1, not {share!r}")
    return float(share)
