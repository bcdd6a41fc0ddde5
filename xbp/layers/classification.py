"""Losses for classification: of one class out of several, and of labels that are each 0 or 1."""

from xbp.functions import (
    as_one_hot,
    batch_size_of,
    exponentials,
    log_softmax,
    sigmoid,
)
from xbp.layers.loss import LossLayer, require_all
from xbp.namespace import Array, cast_like, namespace_of

# Outputs for the probability of a class, from which on it is decided for.
EVEN = 0.5


class SoftmaxWithLoss(LossLayer):
    """Softmax and the cross entropy error in one: for classification; `y` are probabilities."""

    classifies = True
    traceable = True
    samplewise = True

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
        self.t = as_one_hot(t, x, where=self.name)
        xp = namespace_of(x)
        shifted, e, total = exponentials(x, axis=-1, where=self.name)
        self.y = e / total
        log_y = shifted - xp.log(total)
        self.loss = -xp.sum(_products(self.t, log_y)) / batch_size_of(x)
        return self.loss

    def losses(self, x: Array, t: Array) -> Array:
        """Return the cross entropy error of each sample."""
        t = as_one_hot(t, x, where=self.name)
        return -namespace_of(x).sum(_products(t, log_softmax(x)), axis=1)

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
    """

    classifies = True
    takes_labels = False
    traceable = True
    samplewise = True

    def losses(self, x: Array, t: Array) -> Array:
        """Return the cross entropy error of each sample, the sum over its labels.

        It is ``log(1 + exp(x)) - t x``, of which no digits are lost where the score is right.
        """
        xp = namespace_of(x)
        return xp.sum(xp.maximum(x, 0) - t * x + xp.log1p(xp.exp(-xp.abs(x))), axis=1)

    def slope(self) -> Array:
        """Return ``sigmoid(y) - t``."""
        return sigmoid(self.y) - self.t

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
