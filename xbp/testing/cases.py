"""Test cases of layers and networks, as NumPy arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np

from xbp.backend import Backend
from xbp.layers import Affine, Layer, LossLayer
from xbp.namespace import Array
from xbp.networks import Network
from xbp.testing.domains import HostArray, other_values
from xbp.testing.signatures import Signature
from xbp.testing.sizes import Shape, names_in, sizes_of


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
    options : dict of str to object
        What the layer is made with beside its parameters.
    numbers : dict of str to int
        What the names of sizes stand for.
    """

    signature: Signature
    arrays: Mapping[str, HostArray]
    dout: HostArray
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    numbers: Mapping[str, int] = field(default_factory=dict, kw_only=True)

    def __str__(self) -> str:
        return "\n".join(
            [
                *(f"  {name} = {value!r}" for name, value in self.options.items()),
                shown({**self.arrays, self.signature.upstream: self.dout}),
            ]
        )

    def described(self) -> str:
        """Return the case, and how it is tried again, for messages."""
        names = ", ".join(
            f"{name}=..." for name in (*self.options, *self.arrays, self.signature.upstream)
        )
        return (
            f"the smallest case found:\n{self}\n"
            f"to have it tried first from now on: examples=[dict({names})]"
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Let Hypothesis show every significant digit."""
        printer.text(f"{self.signature}\n{self}")

    @property
    def sample_count(self) -> int:
        """The number of samples in the batch; 0 if no input has a batch axis."""
        batched = self.signature.batched
        return len(self.arrays[batched[0]]) if batched else 0

    @property
    def sizes(self) -> dict[str, int]:
        """What the names of sizes stand for; a part of a batch has fewer samples."""
        shapes = {name: self.signature.shape_of(name) for name in self.arrays}
        return {**self.numbers, **sizes_in(shapes, self.arrays)}

    def douts(self) -> tuple[HostArray, ...]:
        """Return the upstream derivative of each output."""
        return self.parts(self.dout)

    def parts(self, whole: HostArray) -> tuple[HostArray, ...]:
        """Return what stands side by side in an array of the shape of the output, by output."""
        if len(self.signature.outputs) == 1:
            return (whole,)
        shapes = [sizes_of(shape, self.sizes) for shape in self.signature.outputs]
        rows = whole.reshape(-1, whole.shape[-1])
        counts = [prod(shape) // len(rows) for shape in shapes]
        ends = np.cumsum(counts)
        parts = np.split(rows, ends[:-1], axis=-1)
        return tuple(part.reshape(shape) for part, shape in zip(parts, shapes, strict=True))

    def whole(self, parts: Sequence[HostArray]) -> HostArray:
        """Return the outputs side by side, in an array of the shape of the output."""
        if len(parts) == 1:
            return parts[0]
        rows = [part.reshape(len(part) if self._is_of_samples else 1, -1) for part in parts]
        return np.concatenate(rows, axis=-1).reshape(self.dout.shape)

    @property
    def _is_of_samples(self) -> bool:
        return len(self.signature.output_shape) > 1

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
        arrays = {
            name: value
            if name not in self.signature.inputs and not of_parameters
            else other_values(self.signature.kind_of(name), value)
            for name, value in case.arrays.items()
        }
        return replace(case, arrays=arrays, dout=-np.flip(case.dout))


def sizes_in(shapes: Mapping[str, Shape], arrays: Mapping[str, HostArray]) -> dict[str, int]:
    """Return what the names of sizes stand for: those that an axis of an array is called by."""
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if len(arrays[name].shape) == len(shape):
            known = zip(shape, arrays[name].shape, strict=True)
            sizes = {
                size: n for size, n in known if isinstance(size, str) and names_in([size]) == [size]
            } | sizes
    return sizes


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


# Of more elements, the first and the last are shown.
_MOST_SHOWN = 1000


def shown(arrays: Mapping[str, HostArray]) -> str:
    """Return named arrays as text, with every significant digit, and all elements of small ones."""
    return "\n".join(
        f"  {name} = "
        + np.array2string(
            np.asarray(value),
            separator=", ",
            floatmode="unique",
            threshold=_MOST_SHOWN,
            prefix=f"  {name} = ",
        )
        for name, value in arrays.items()
    )
