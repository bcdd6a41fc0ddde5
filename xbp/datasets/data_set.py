"""Data sets as they come: samples and targets on the host, and the settings to learn them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self


@dataclass(frozen=True)
class DataSet:
    """Samples and targets on the host, pixels as they are.

    Attributes
    ----------
    source : str
        The name of the data set, or the whole path of the file that holds it.
    train, test : tuple of two arrays
        ``x`` and ``t``; a test of None and None is none.
    divisor : float or None
        What a network divides the samples by.
    image_shape : tuple of two int or None
        Height and width, if the samples are images.
    task : str or None
        The task, ``"classification"``; None if the targets decide.
    steps : int
        The default number of training steps of the command.
    weight_init_std : float or str
        Its default spread of the initial weights: see `xbp.Network.fully_connected`.
    """

    source: str
    train: tuple[Any, Any]
    test: tuple[Any, Any]
    divisor: float | None = None
    image_shape: tuple[int, int] | None = None
    task: str | None = None
    steps: int = 2_000
    weight_init_std: float | str = "he"

    def with_samples(self, function: Callable[[Any], Any]) -> Self:
        """Return the data with what a function makes of the samples."""
        (x, t), (x_test, t_test) = self.train, self.test
        test = (None if x_test is None else function(x_test), t_test)
        return replace(self, train=(function(x), t), test=test)

    def sha256(self) -> str:
        """Return a digest of all samples and targets."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test):
            if array is not None:
                digest.update(f"{array.dtype} {array.shape}".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()
