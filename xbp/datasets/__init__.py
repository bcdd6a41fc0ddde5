"""Data to learn from: the embedded digits, MNIST, and a user's own files."""

from xbp.datasets.digits import load_digits
from xbp.datasets.idx import read_idx
from xbp.datasets.mnist import load_mnist
from xbp.datasets.npz import load_npz

__all__ = ["load_digits", "load_mnist", "load_npz", "read_idx"]
