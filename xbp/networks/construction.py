"""The construction of networks: layers are checked, named, and stacked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import signature
from typing import Any

from xbp.backend import Backend
from xbp.errors import DTypeError, SettingError, XbpError
from xbp.initialization import initial_parameters
from xbp.layers import Affine, Layer, LossLayer
from xbp.layers.containers import named_layers
from xbp.settings import without_base


def affine_stack(
    sizes: Sequence[int],
    activation: Callable[[], Layer],
    weight_init_std: float | str,
    backend: Backend,
    dtype: str | None,
    seed: int | None,
) -> list[Layer]:
    """Return affine layers with an activation between each two: see `Network.fully_connected`."""
    dtype = dtype or backend.default_float
    if dtype not in ("float32", "float64"):
        raise DTypeError(f"a network's dtype is 'float32' or 'float64', not {dtype!r}")
    layers: list[Layer] = []
    try:
        parameters = initial_parameters(sizes, weight_init_std, seed)
    except (MemoryError, ValueError) as error:
        if isinstance(error, XbpError):
            raise
        raise SettingError(
            f"a network of sizes {list(sizes)} is larger than the memory ({error})"
        ) from error
    for W, b in parameters:
        layers += [Affine(backend.asarray(W, dtype), backend.asarray(b, dtype)), activation()]
    return layers[:-1]


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
