"""Signatures: the shapes of what a layer takes and returns, from which test cases are drawn."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

from xbp.errors import SettingError
from xbp.layers import Layer
from xbp.settings import is_integer

# A size is a number, a name that stands for one, or a product of names, "H*W".
Size: TypeAlias = int | str
Shape: TypeAlias = tuple[Size, ...]

# The size that counts the samples of a batch.
BATCH = "N"

_NAMES = re.compile(r"[^\W\d]\w*(\*[^\W\d]\w*)*")


@dataclass(frozen=True)
class Labels:
    """An input of integer labels; ``backward`` returns no derivative with respect to it.

    Parameters
    ----------
    shape
        The array's shape: ``("N",)``, or ``()`` for the label of one sample.
    classes
        The number of classes, usually the name of another input's last axis.
    """

    shape: Shape
    classes: Size


@dataclass(frozen=True)
class OneHot:
    """An input of one-hot rows, ``("N", "C")``, that ``backward`` returns no derivative for."""

    shape: Shape


@dataclass(frozen=True)
class Fixed:
    """A floating-point input, such as targets, that ``backward`` returns no derivative for."""

    shape: Shape


@dataclass(frozen=True)
class Nonzero:
    """A floating-point input of size 1 or more, such as a divisor, with a derivative."""

    shape: Shape


Input: TypeAlias = Shape | Labels | OneHot | Fixed | Nonzero


@dataclass(frozen=True)
class Signature:
    """A layer, and the shapes of its inputs, its output and its parameters.

    Parameters
    ----------
    make
        The layer's class, or a function that returns a layer, called with the parameters by name.
    inputs
        The inputs by name, in the order of ``forward``. A tuple of sizes stands for an array of
        floating-point numbers with respect to which ``backward`` returns the derivative.
    output
        The shape of what ``forward`` returns; None takes that of the first differentiable input.
    params
        The shapes of the parameters by name.

    Raises
    ------
    SettingError
        If make is not callable, a shape is invalid, or no input is differentiable.

    Notes
    -----
    A size is a number, a name such as ``"D"``, or a product of names, ``"H*W"``. The same name
    stands for the same number throughout. ``"N"`` is the number of samples in a batch. An output
    that has this axis is computed for each sample on its own; one without it is a mean over them.

    Examples
    --------
    >>> from xbp.layers import Affine
    >>> signature = Signature(
    ...     Affine,
    ...     inputs={"x": ("N", "D")},
    ...     output=("N", "M"),
    ...     params={"W": ("D", "M"), "b": ("M",)},
    ... )
    >>> str(signature)
    'Affine(x: N D, W: D M, b: M)'
    """

    make: Callable[..., Layer]
    inputs: Mapping[str, Input] = field(default_factory=lambda: {"x": (BATCH, "D")})
    output: Shape | None = None
    params: Mapping[str, Shape] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise SettingError(
                "a layer's class is needed, or a function that returns a layer, since each case "
                f"makes a new one; not {self.make!r}"
            )
        for role, shapes in (("inputs", self.inputs), ("params", self.params)):
            if not isinstance(shapes, Mapping):
                raise SettingError(
                    f"{self.name}: {role} are shapes by name, such as {{'x': ('N', 'D')}}, not "
                    f"{shapes!r}"
                )
        for name, kind in {**self.inputs, **self.params, "output": self.output or ()}.items():
            _check_shape(f"{self.name}: {name}", getattr(kind, "shape", kind))
        if not self.differentiable:
            raise SettingError(f"{self.name}: no input is an array of floating-point numbers")

    @property
    def name(self) -> str:
        """The name of the layer's class, or of the function that makes it."""
        return getattr(self.make, "__name__", type(self.make).__name__)

    def __str__(self) -> str:
        shapes = {**self.inputs, **self.params}
        return f"{self.name}({', '.join(f'{k}: {_text(v)}' for k, v in shapes.items())})"

    @property
    def differentiable(self) -> list[str]:
        """The names of the inputs with respect to which ``backward`` returns the derivative."""
        return [name for name, kind in self.inputs.items() if isinstance(kind, tuple | Nonzero)]

    @property
    def output_shape(self) -> Shape:
        """The shape of the output, in named sizes."""
        return self.shape_of(self.differentiable[0]) if self.output is None else self.output

    @property
    def batched(self) -> list[str]:
        """The names of the inputs whose first axis is that of the samples."""
        return [name for name in self.inputs if self.shape_of(name)[:1] == (BATCH,)]

    @property
    def takes_the_mean(self) -> bool:
        """Whether the output is a mean over the batch."""
        return bool(self.batched) and BATCH not in self.output_shape

    def shape_of(self, name: str) -> Shape:
        """Return the shape of an input or a parameter, in named sizes."""
        kind = self.inputs.get(name) if name in self.inputs else self.params[name]
        return tuple(kind or ()) if isinstance(kind, tuple | None) else kind.shape

    def size_names(self) -> list[str]:
        """Return the names of the sizes, each once, in order of appearance."""
        return list(dict.fromkeys(self._names()))

    def bounds(self, sizes: Mapping[str, tuple[int, int]]) -> Mapping[str, tuple[int, int]]:
        """Return the smallest and the largest number of sizes by name, after a check of them.

        Raises
        ------
        SettingError
            If a name is not one of the signature, or the numbers are no bounds of a size.
        """
        if not isinstance(sizes, Mapping):
            raise SettingError(
                f"{self.name}: sizes are bounds by name, such as {{'D': (1, 8)}}, not {sizes!r}"
            )
        for name, numbers in sizes.items():
            if name not in self.size_names():
                raise SettingError(
                    f"{self.name}: sizes names {name!r}, and the sizes of {self} are "
                    f"{', '.join(self.size_names())}"
                )
            pair = tuple(numbers) if isinstance(numbers, tuple | list) else ()
            is_pair = len(pair) == 2 and all(map(is_integer, pair))  # noqa: PLR2004
            if not is_pair or not 1 <= pair[0] <= pair[1]:
                raise SettingError(
                    f"{self.name}: sizes[{name!r}] is the smallest and the largest number, such as "
                    f"(1, 8), not {numbers!r}"
                )
        return sizes

    def _names(self) -> Iterator[str]:
        shapes = [self.shape_of(name) for name in (*self.inputs, *self.params)]
        for size in (size for shape in (*shapes, self.output_shape) for size in shape):
            if isinstance(size, str):
                yield from size.split("*")


def _check_shape(where: str, shape: object) -> None:
    if not isinstance(shape, tuple):
        raise SettingError(f"{where}: a shape is a tuple such as ('N', 'D'), not {shape!r}")
    for size in shape:
        good = _NAMES.fullmatch(size) if isinstance(size, str) else is_integer(size) and size > 0
        if not good:
            raise SettingError(
                f"{where}: a size is a positive number, a name such as 'D', or a product of names, "
                f"'H*W', not {size!r}"
            )


def sizes_of(shape: Shape, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return a shape with numbers in place of names."""
    return tuple(size_of(size, sizes) for size in shape)


def size_of(size: Size, sizes: Mapping[str, int]) -> int:
    """Return the number that a size stands for."""
    return int(size) if not isinstance(size, str) else prod(sizes[name] for name in size.split("*"))


def _text(kind: Input) -> str:
    if isinstance(kind, Labels):
        return " ".join(["labels", *map(str, kind.shape)])
    if isinstance(kind, OneHot):
        return " ".join(["one-hot", *map(str, kind.shape)])
    if isinstance(kind, Fixed):
        return " ".join(["fixed", *map(str, kind.shape)])
    if isinstance(kind, Nonzero):
        return " ".join(["nonzero", *map(str, kind.shape)])
    return " ".join(map(str, kind)) or "0-d"
