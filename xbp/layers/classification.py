"""Losses for classification: of one class out of several, and of labels that are each 0 or 1."""

from collections.abc import Iterable, Mapping, Set
from typing import Any

from xbp.errors import SettingError, ShapeError
from xbp.functions import batch_size_of, exponentials, log_softmax, sigmoid
from xbp.layers.loss import LossLayer, require_all
from xbp.namespace import Array, cast_like, device_of, namespace_of
from xbp.settings import is_finite_number

# A label with a larger probability is taken to be 1.
EVEN = 0.5

# No loss of a usual size is infinite in float32 with such a weight.
_LARGEST = 1e30


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
            self.class_weights = _class_weights("SoftmaxWithLoss", class_weights)
        self.label_smoothing = _share("SoftmaxWithLoss", label_smoothing)

    def __repr__(self) -> str:
        return _shown(self)

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
                    f"{self.name}: class_weights are {len(self.class_weights)}, and the outputs "
                    f"{classes}: give a number for each class"
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
            hint = "; for a single output take SigmoidWithLoss" if output_size == 1 else ""
            numbers = f"the outputs are numbered 0 ... {output_size - 1}{hint}"
            require_all(t, good, f"no label: {numbers}")


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
            self.class_weights = _class_weights("SigmoidWithLoss", class_weights, count=2)
        self.label_smoothing = _share("SigmoidWithLoss", label_smoothing)

    def __repr__(self) -> str:
        return _shown(self)

    def losses(self, x: Array, t: Array) -> Array:
        """Return the cross entropy error of each sample, the sum over its labels.

        It is ``(1 - t) log(1 + exp(x)) + t log(1 + exp(-x))``, each term times a weight, in a form
        that loses no digits where the score is right.
        """
        xp = namespace_of(x)
        of_0, of_1 = self._weights(t)
        positive = x >= 0
        wrong = _products(of_0, xp.where(positive, x, 0)) + _products(
            of_1, xp.where(positive, 0, -x)
        )
        # Not -abs(x): see `xbp.functions.sigmoid`.
        rest = xp.log1p(xp.exp(xp.where(positive, -x, x)))
        return xp.sum(wrong + (of_0 + of_1) * rest, axis=1)

    def slope(self) -> Array:
        """Return ``sigmoid(y) - t``; with weights, as in `losses`."""
        of_0, of_1 = self._weights(self.t)
        return (of_0 + of_1) * sigmoid(self.y) - of_1

    def _targets(self, t: Array, x: Array) -> Array:
        if x.shape[-1] > 1 and getattr(t, "shape", None) == x.shape[:-1]:
            raise ShapeError(
                f"{self.name}: 0 or 1 for each of {x.shape[-1]} outputs is needed, got targets of "
                f"shape {tuple(t.shape)}: numbers of classes are for SoftmaxWithLoss"
            )
        return super()._targets(t, x)

    def _weights(self, t: Array) -> tuple[Array, Array]:
        """Return how much it counts that a label is 0, and that it is 1: ``1 - t`` and ``t``."""
        if self.label_smoothing:
            t = (1 - self.label_smoothing) * t + self.label_smoothing / 2
        of_0, of_1 = self.class_weights
        return of_0 * (1 - t), of_1 * t

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
        require_all(
            t,
            (t >= 0) & (t <= 1),
            "no labels: each is 0, 1, or a number between, such as (t + 1) / 2 of -1 and 1",
        )


def _products(t: Array, log_y: Array) -> Array:
    """Return ``t log(y)``, which is 0 where t is 0, also for a class with score -inf."""
    return namespace_of(log_y).where(t != 0, log_y, 0) * t


def _shown(layer: SoftmaxWithLoss | SigmoidWithLoss) -> str:
    """Return a layer's name, and its settings that are not the usual ones."""
    usual = type(layer)
    settings = [
        f"{name} {list(value) if isinstance(value, tuple) else value}"
        for name in ("class_weights", "label_smoothing")
        if (value := getattr(layer, name)) != getattr(usual, name)
    ]
    return f"<{layer.name}: {', '.join(settings)}>" if settings else f"<{layer.name}>"


def _class_weights(layer: str, weights: Any, count: int | None = None) -> tuple[float, ...]:
    """Return class weights; raise `SettingError` if they are none."""
    # Of a dictionary or a set the numbers would come in another order, or be the keys.
    is_row = isinstance(weights, Iterable) and not isinstance(weights, str | bytes | Mapping | Set)
    numbers = weights.tolist() if hasattr(weights, "tolist") else list(weights) if is_row else []
    is_good = all(is_finite_number(it) and 0 <= it <= _LARGEST for it in numbers) and any(numbers)
    if not is_good or len(numbers) != (count or len(numbers)):
        many = "a number for each class" if count is None else f"{count} numbers"
        raise SettingError(
            f"{layer}: class_weights are a list of {many}, 0 to {_LARGEST:g}, not all 0, not "
            f"{weights!r}"
        )
    return tuple(map(float, numbers))


def _share(layer: str, share: Any) -> float:
    """Return a share for label smoothing; raise `SettingError` if it is none."""
    if not (is_finite_number(share) and 0 <= share < 1):
        raise SettingError(f"{layer}: label_smoothing is 0 or more, less than 1, not {share!r}")
    return float(share)
