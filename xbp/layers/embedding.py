"""The embedding layer: a vector for each of many things that are numbered."""

from functools import reduce
from math import nan, prod
from operator import add

from xbp.blocks import blocks
from xbp.errors import DTypeError, ShapeError
from xbp.functions import one_hot
from xbp.layers.layer import Layer
from xbp.namespace import Array, cast_like, dtype_name, kind_of, namespace_of, require_floating


class Embedding(Layer):
    """The rows of a matrix, by their numbers: of words, of users, of places.

    It is the product of one-hot rows with the matrix, without the rows. It stands first in a
    network, since numbers have no derivative.

    Parameters
    ----------
    W
        A row for each number, a floating-point array of shape ``(V, D)``. It is kept, not copied.

    Attributes
    ----------
    dW : Array
        Gradient with respect to W, as the last ``backward`` left it.

    Raises
    ------
    ShapeError, DTypeError
        If W is no such array.
    """

    param_names = ("W",)
    traceable = True
    samplewise = True
    takes_integers = True

    dW: Array = None

    def __init__(self, W: Array) -> None:
        require_floating(W, self.name)
        if W.ndim != 2 or 0 in W.shape:  # noqa: PLR2004
            raise ShapeError(
                f"{self.name}: W is (V, D), with a row for each number; got {tuple(W.shape)}"
            )
        self.W = W

    def forward(self, x: Array) -> Array:
        """Return the rows with these numbers.

        Parameters
        ----------
        x
            Integers from 0 to V - 1, of any shape. The row of any other is NaN: raising an error
            would mean waiting for the device.

        Returns
        -------
        Array
            Of shape ``(*x.shape, D)``.

        Raises
        ------
        DTypeError
            If x does not hold integers.
        """
        xp = namespace_of(x, self.W, where=self.name)
        if kind_of(x) != "integral":
            raise DTypeError(
                f"{self.name}: the numbers of rows are integers, got {dtype_name(x.dtype)}: "
                "convert them with the backend's asarray(x, dtype='int64')"
            )
        count, width = self.W.shape
        self.numbers = xp.reshape(x, (prod(x.shape),))
        is_there = (self.numbers >= 0) & (self.numbers < count)
        rows = xp.take(self.W, xp.where(is_there, self.numbers, 0), axis=0)
        rows = xp.where(is_there[:, None], rows, nan)
        return xp.reshape(rows, (*x.shape, width))

    def backward(self, dout: Array) -> None:
        """Store dW, the sum of dout over the places of each number; x has no derivative."""
        xp = namespace_of(dout)
        count, width = self.W.shape
        rows = xp.reshape(cast_like(dout, like=self.W), (self.numbers.shape[0], width))
        self.dW = reduce(
            add,
            (
                one_hot(self.numbers[block], count, rows).T @ rows[block, ...]
                for block in blocks(rows.shape[0], count)
            ),
        )
