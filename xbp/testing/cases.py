"""Test cases of layers and networks, as NumPy arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, TypeAlias

import numpy as np

from xbp.backend import Backend
from xbp.errors import SettingError
from xbp.layers import Affine, Layer, LossLayer
from xbp.namespace import Array
from xbp.networks import Network
from xbp.testing.signatures import Labels, OneHot, Signature, sizes_of

HostArray: TypeAlias = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerCase:
    """Arrays for a layer, in float64, with values that float32 can represent exactly.

    Attributes
    ----------
    signature : Signature
    arrays : dict of str to numpy.ndarray
        Inputs and parameters by name.
    dout : numpy.ndarray
        The upstream derivative, of the shape of the output.
    """

    signature: Signature
    arrays: Mapping[str, HostArray]
    dout: HostArray

    def __str__(self) -> str:
        return shown({**self.arrays, "dout": self.dout})

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Let Hypothesis show every significant digit."""
        printer.text(f"{self.signature}\n{self}")

    @property
    def sample_count(self) -> int:
        """The number of samples in the batch; 0 if no input has a batch axis."""
        batched = self.signature.batched
        return len(self.arrays[batched[0]]) if batched else 0

    def samples(self, order: Sequence[int]) -> "LayerCase":
        """Return the case with the samples of the given numbers only, in that order."""
        order = list(order)
        arrays = {
            name: value[order] if name in self.signature.batched else value
            for name, value in self.arrays.items()
        }
        dout = self.dout if self.signature.takes_the_mean else self.dout[order]
        return replace(self, arrays=arrays, dout=dout)

    def otherwise(self, *, is_longer: bool = False, of_parameters: bool = False) -> "LayerCase":
        """Return a case of other numbers, in as long a batch or in a longer one."""
        count = self.sample_count
        case = self.samples([*range(count), 0]) if is_longer and count else self
        kinds = self.signature.inputs
        arrays = {
            name: value
            if isinstance(kinds.get(name), Labels | OneHot)
            or (name not in kinds and not of_parameters)
            else -np.flip(value)
            for name, value in case.arrays.items()
        }
        return replace(case, arrays=arrays, dout=-np.flip(case.dout))


def case_of(signature: Signature, values: Mapping[str, object]) -> LayerCase:
    """Return the case of these values: of each input, of each parameter, and of ``dout``, by name.

    Raises
    ------
    SettingError
        If a name is missing or unknown, a value is no array of numbers, or a shape is not one of
        the signature.
    """
    if not isinstance(values, Mapping):
        raise SettingError(
            f"{signature.name}: an example is values by name, dict(x=..., dout=...), not {values!r}"
        )
    shapes = {name: signature.shape_of(name) for name in (*signature.inputs, *signature.params)}
    shapes["dout"] = signature.output_shape
    if odd := sorted(values.keys() ^ shapes.keys()):
        raise SettingError(
            f"{signature.name}: an example names {', '.join(shapes)}; "
            f"{odd[0]} is {'unknown' if odd[0] in values else 'missing'}"
        )
    try:
        arrays = {name: np.asarray(values[name]) for name in shapes}
        for name in shapes:
            _float32(arrays[name])
    except (TypeError, ValueError) as error:
        raise SettingError(
            f"{signature.name}: an example's values are numbers, nested as the arrays are ({error})"
        ) from error
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        found = arrays[name].shape
        if len(found) == len(shape):
            known = zip(shape, found, strict=True)
            sizes = {size: n for size, n in known if isinstance(size, str)} | sizes
    for name, shape in shapes.items():
        names = {part for size in shape if isinstance(size, str) for part in size.split("*")}
        is_known = names <= sizes.keys()
        if len(shape) != arrays[name].ndim or (
            is_known and sizes_of(shape, sizes) != arrays[name].shape
        ):
            raise SettingError(
                f"{signature.name}: an example's {name} has the shape {arrays[name].shape}, which "
                f"does not fit the others and {signature}"
            )
    floating = {
        name: array if isinstance(signature.inputs.get(name), Labels) else _float32(array)
        for name, array in arrays.items()
    }
    dout = floating.pop("dout")
    return LayerCase(signature, floating, dout)


def _float32(array: HostArray) -> HostArray:
    return np.asarray(array.astype(np.float32), dtype=np.float64)


@dataclass(frozen=True)
class NetworkCase:
    """A network of affine layers and activations, and data for it, in float64.

    Attributes
    ----------
    weights : tuple of pairs of numpy.ndarray
        W, of shape ``(inputs, outputs)``, and b, of shape ``(outputs,)``, of each affine layer.
    activations : tuple of classes of Layer
        One between every two affine layers.
    loss : class of LossLayer
    x, t : numpy.ndarray
        A sample or a batch, and its targets: labels in int64, or an array of the output's shape.
    """

    weights: tuple[tuple[HostArray, HostArray], ...]
    activations: tuple[type[Layer], ...]
    loss: type[LossLayer]
    x: HostArray
    t: HostArray

    def __str__(self) -> str:
        arrays: dict[str, HostArray] = {}
        for number, (W, b) in enumerate(self.weights, start=1):
            arrays |= {f"W{number}": W, f"b{number}": b}
        kinds = [kind.__name__ for kind in (*self.activations, self.loss)]
        return f"{', '.join(kinds)}\n{shown({**arrays, 'x': self.x, 't': self.t})}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Let Hypothesis show every significant digit."""
        printer.text(str(self))

    def on(self, backend: Backend, dtype: str) -> tuple[Network, Array, Array]:
        """Return network, x and t on a backend, in a dtype; labels are int64."""
        layers: list[Layer] = []
        for (W, b), activation in zip_longest(self.weights, self.activations):
            layers.append(Affine(backend.asarray(W, dtype), backend.asarray(b, dtype)))
            if activation is not None:
                layers.append(activation())
        is_labels = self.t.dtype.kind == "i"
        return (
            Network(layers, self.loss(), backend=backend),
            backend.asarray(self.x, dtype),
            backend.asarray(self.t, "int64" if is_labels else dtype),
        )

    def samples(self, order: Sequence[int]) -> "NetworkCase":
        """Return the case with the samples of the given numbers only, in that order."""
        return replace(self, x=self.x[list(order)], t=self.t[list(order)])

    def nudged(self, distance: float, seed: int) -> "NetworkCase":
        """Return the case with each number changed by a relative distance, up or down at random."""
        chance = np.random.default_rng(seed)

        def nudge(value: HostArray) -> HostArray:
            return np.asarray(value * (1 + distance * chance.choice([-1, 1], value.shape)))

        weights = tuple((nudge(W), nudge(b)) for W, b in self.weights)
        t = self.t if self.t.dtype.kind == "i" else nudge(self.t)
        return replace(self, weights=weights, x=nudge(self.x), t=t)


def shown(arrays: Mapping[str, HostArray]) -> str:
    """Return named arrays as text, with every element and every significant digit."""
    return "\n".join(
        f"  {name} = "
        + np.array2string(
            np.asarray(value),
            separator=", ",
            floatmode="unique",
            threshold=np.asarray(value).size + 1,
            prefix=f"  {name} = ",
        )
        for name, value in arrays.items()
    )
