"""A data set as it comes: samples and targets on the host, and what is known of them."""

import hashlib
from dataclasses import dataclass
from typing import Any


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
        What is learned from the targets, ``"classification"``; None if they have to tell.
    steps : int
        How many steps of training the command takes, unless it is told.
    weight_init_std : float or str
        The spread of the initial weights that it takes: see `xbp.Network.fully_connected`.
    """

    source: str
    train: tuple[Any, Any]
    test: tuple[Any, Any]
    divisor: float | None = None
    image_shape: tuple[int, int] | None = None
    task: str | None = None
    steps: int = 2_000
    weight_init_std: float | str = "he"

    def sha256(self) -> str:
        """Return a digest of all samples and targets."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test):
            if array is not None:
                digest.update(f"{array.dtype} {array.shape}".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()
