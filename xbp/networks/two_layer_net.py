"""A network of two layers."""

from xbp.backend import Backend
from xbp.layers import Relu, SoftmaxWithLoss
from xbp.networks.construction import Initializer, affine_stack
from xbp.networks.network import Network
from xbp.registry import get_backend


class TwoLayerNet(Network):
    """A network of two layers: affine, ReLU, affine, softmax with loss.

    Parameters
    ----------
    input_size, hidden_size, output_size
        Numbers of features.
    weight_init_std
        Standard deviation of the initial weights: a number, ``"he"`` or ``"xavier"``.
    backend
        Where the parameters live; None takes the selected backend.
    dtype
        ``"float32"``, ``"float64"``, or None for the backend's default.
    seed
        The same seed gives, for the same dtype, the same initial parameters, bit by bit, on every
        backend.

    Raises
    ------
    ShapeError, SettingError, DTypeError
        If a setting makes no sense, or the backend has no such dtype.

    Notes
    -----
    `params` are ``W1 b1 W2 b2``, `layers` are ``Affine1 Relu1 Affine2``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float | str = 0.01,
        *,
        backend: str | Backend | None = None,
        dtype: str | None = None,
        seed: int | None = None,
    ) -> None:
        backend = get_backend(backend)
        sizes = [input_size, hidden_size, output_size]
        layers = affine_stack(sizes, Relu, Initializer(weight_init_std, backend, dtype, seed))
        super().__init__(layers, SoftmaxWithLoss(), backend=backend)
