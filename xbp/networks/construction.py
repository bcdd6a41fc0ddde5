"""The construction of networks: layers are checked, named, and stacked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import signature
from itertools import pairwise
from math import prod
from typing import Any

from xbp.backend import Backend
from xbp.errors import DTypeError, SettingError, ShapeError
from xbp.initialization import initial_weight, random_generator, require_sizes
from xbp.layers import Affine, Convolution, Dropout, Flatten, Layer, LossLayer, MaxPooling
from xbp.layers.containers import named_layers
from xbp.namespace import Array, namespace_of
from xbp.settings import is_integer, without_base
from xbp.windows import Window, window


class Initializer:
    """Makes layers whose weights are drawn, one after the other, from one seed.

    Parameters
    ----------
    weight_init_std, backend, dtype, seed
        As of `xbp.Network.fully_connected`.

    Raises
    ------
    SettingError, DTypeError
        If the seed is invalid, or dtype is none of a network.
    """

    def __init__(
        self, weight_init_std: float | str, backend: Backend, dtype: str | None, seed: int | None
    ) -> None:
        self.weight_init_std = weight_init_std
        self.backend = backend
        self.dtype = dtype or backend.default_float
        if self.dtype not in ("float32", "float64"):
            raise DTypeError(f"a network's dtype is 'float32' or 'float64', not {dtype!r}")
        self.random = random_generator(seed)

    def affine(self, n_in: int, n_out: int) -> Affine:
        """Return an affine layer of so many features and outputs; its bias is 0."""
        W = self._weight((n_in, n_out), n_in, n_out)
        return Affine(W, namespace_of(W).zeros_like(W[0, ...]))

    def convolution(self, channels: int, filters: int, view: Window) -> Convolution:
        """Return a convolution with a window; its biases are 0."""
        shape = (filters, channels, *view.size)
        W = self._weight(shape, channels * view.count, filters * view.count)
        b = namespace_of(W).zeros_like(W[:, 0, 0, 0])
        return Convolution(W, b, stride=view.stride, pad=view.pad)

    def dropout(self, ratio: float) -> list[Layer]:
        """Return a dropout layer with a seed of its own, or none if the ratio is 0."""
        return [Dropout(ratio, seed=int(self.random.integers(2**63)))] if ratio != 0 else []

    def _weight(self, shape: tuple[int, ...], n_in: int, n_out: int) -> Array:
        weight = initial_weight(self.random, shape, self.weight_init_std, n_in, n_out)
        return self.backend.asarray(weight, self.dtype)


def affine_stack(
    sizes: Sequence[int],
    activation: Callable[[], Layer],
    initializer: Initializer,
    dropout: float = 0.0,
) -> list[Layer]:
    """Return affine layers, with an activation and dropout between each two."""
    require_sizes(sizes)
    layers: list[Layer] = []
    for n_in, n_out in pairwise(sizes):
        if layers:
            layers += [activation(), *initializer.dropout(dropout)]
        layers.append(initializer.affine(n_in, n_out))
    return layers


def convolutional_stack(
    image_shape: Sequence[int],
    filters: Sequence[Sequence[int]],
    view: Window,
    activation: Callable[[], Layer],
    initializer: Initializer,
) -> tuple[list[Layer], int]:
    """Return groups of convolutions, with pooling behind each, and how many features are left."""
    if not _are_counts(image_shape) or len(image_shape) != 3:  # noqa: PLR2004
        raise ShapeError(f"image_shape is channels, height and width, not {image_shape!r}")
    if not isinstance(filters, Sequence) or not filters or not all(map(_are_counts, filters)):
        raise SettingError(
            f"filters are counts for each convolution, in groups such as [[16, 16], [32, 32]], "
            f"behind each of which is pooling, not {filters!r}"
        )
    layers: list[Layer] = []
    channels, *area = image_shape
    halves = window("MaxPooling", 2, 2, 0)
    for group in filters:
        for count in group:
            layers += [initializer.convolution(channels, count, view), activation()]
            channels, area = count, [*view.grid((1, 1, *area))]
        layers.append(MaxPooling(2))
        area = [*halves.grid((1, 1, *area))]
        if min(area) < 1:
            raise ShapeError(
                f"images of {tuple(image_shape)} are too small for {len(filters)} groups of "
                f"convolutions with windows of {view.size}: give fewer, or a larger pad"
            )
    return [*layers, Flatten()], channels * prod(area)


def _are_counts(counts: Any) -> bool:
    return (
        isinstance(counts, Sequence)
        and len(counts) > 0
        and all(is_integer(n) and n > 0 for n in counts)
    )


def maker_of(role: str, kind: Any, base: type[Layer], example: str) -> Callable[[], Any]:
    """Return a function that makes layers: of a class, like a layer, or what a function returns.

    Raises
    ------
    SettingError
        If it is none of these, or makes what is not derived from the base.
    """
    complaint = f"{role} is a class such as {example}, a layer, or a function that returns one"
    if isinstance(kind, base):
        if kind.params:
            raise SettingError(
                f"{role} {kind!r} has parameters, which all layers like it would share: give a "
                "function that returns a new one"
            )
        return partial(kind.copied, {})
    if isinstance(kind, type):
        if not issubclass(kind, base) or kind is base:
            raise SettingError(f"{complaint}, not {kind!r}")
        try:
            signature(kind).bind()
        except TypeError as error:
            raise SettingError(
                f"{role} {kind.__name__} cannot be made without arguments: give a function that "
                f"returns one, or build the layers, and give them to Network([...], loss)"
            ) from error
        return kind
    if isinstance(kind, Layer) or not callable(kind):
        raise SettingError(f"{complaint}, not {kind!r}")

    def made() -> Any:
        layer = kind()
        if not isinstance(layer, base):
            raise SettingError(f"{role} is a function that returned {without_base(layer, base)}")
        return layer

    return made


def named_parts(layers: Any, loss: Any) -> dict[str, Layer]:
    """Return layers by name, or raise `SettingError` if they and the loss make no network."""
    if isinstance(layers, Mapping):
        raise SettingError(
            "layers are given as a list, Network([...], loss), not as a dictionary: of another "
            "network's take list(network.layers.values())"
        )
    if isinstance(layers, Layer) or not isinstance(layers, Iterable):
        raise SettingError(
            f"layers are given as a list, Network([...], loss), also a single one, not {layers!r}"
        )
    parts = named_layers(layers)
    if not isinstance(loss, LossLayer):
        raise SettingError(
            f"the loss is an xbp.layers.LossLayer, not {without_base(loss, LossLayer)}"
        )
    return parts
