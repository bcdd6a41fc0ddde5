"""Signatures: the shapes of what a layer takes and returns, from which test cases are drawn."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any, TypeAlias

from xbp.errors import SettingError
from xbp.layers import Layer
from xbp.settings import is_integer
from xbp.testing.domains import Input, Labels, OneHot, Parameter, described, is_differentiable
from xbp.testing.sizes import (
    BATCH,
    Shape,
    Size,
    are_sizes,
    check_shape,
    is_name,
    is_product,
    names_in,
)

# The sizes that are drawn, at most; of a size that others are subtracted from, or that is divided.
LARGEST_SIZE = 3
LARGEST_DIVIDED_SIZE = 6

# What labels of int64 tell apart.
_MOST_CLASSES = 2**63

# So many combinations of sizes are looked through.
_MOST_COMBINATIONS = 50_000


Option: TypeAlias = Sequence[Any] | str


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
        The shape of what ``forward`` returns; None takes that of the first differentiable input. A
        tuple of shapes, if it returns a tuple of arrays: ``backward`` is called with as many.
    params
        The shapes of the parameters by name.
    reference
        A function of NumPy arrays in float64, the inputs in their order and the parameters and
        options by name, that returns what ``forward`` has to return; None compares it with nothing.
    options
        What make is called with beside the parameters, by name: a list of values, one of which is
        chosen for each case, or the name of a size, ``{"mode": ["same", "valid"], "stride": "S"}``.

    Raises
    ------
    SettingError
        If make is not callable, a shape, a name or an option is invalid, or there is nothing to
        derive by.

    Notes
    -----
    A size is a number, a name such as ``"D"``, or an expression, ``"H*W"`` or ``"(H - 2) // 2"``.
    The same name stands for the same number throughout. ``"N"`` is the number of samples in a
    batch, along the first axis. An output that has this axis is computed for each sample on its
    own; one without it is a mean over them.

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
    output: Shape | tuple[Shape, ...] | None = None
    params: Mapping[str, Parameter] = field(default_factory=dict)
    reference: Callable[..., Any] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)

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
        self._check_options()
        self._check_names()
        for name, parameter in self.params.items():
            if not is_differentiable(parameter):
                raise SettingError(
                    f"{self.name}: {name} is a parameter, and has a derivative: its shape, Nonzero "
                    f"or Values say what it holds, not {parameter!r}"
                )
        for name, kind in {**self.inputs, **self.params}.items():
            check_shape(f"{self.name}: {name}", getattr(kind, "shape", kind))
            if isinstance(kind, Labels):
                self._check_classes(name, kind.classes)
            if kind == OneHot(()):
                raise SettingError(
                    f"{self.name}: {name}: one-hot rows have an axis of classes, OneHot(('N', 'C'))"
                )
        if self.output is None and not self.differentiable:
            raise SettingError(f"{self.name}: no input has the shape of the output: say output=")
        for shape in self.outputs:
            check_shape(f"{self.name}: output", shape)
        self._check_batch_axis()
        if not self.differentiable and not self.params:
            raise SettingError(
                f"{self.name}: no input and no parameter is an array of floating-point numbers"
            )
        if self.reference is not None and not callable(self.reference):
            raise SettingError(
                f"{self.name}: a reference is a function of NumPy arrays, not {self.reference!r}"
            )

    def _check_options(self) -> None:
        what = f"{self.name}: options are lists of values, or names of sizes, by name"
        if not isinstance(self.options, Mapping):
            raise SettingError(f"{what}, {{'axis': [0, 1]}}, not {self.options!r}")
        for name, values in self.options.items():
            is_size = is_name(values)
            is_choice = isinstance(values, Sequence) and not isinstance(values, str | bytes)
            if not (is_size or (is_choice and values)):
                raise SettingError(f"{what}; that of {name!r} is {values!r}")

    def _check_names(self) -> None:
        names = [*self.inputs, *self.params, *self.options]
        for name in names:
            if not (isinstance(name, str) and name):
                raise SettingError(
                    f"{self.name}: inputs, parameters and options have names, not {name!r}"
                )
            if names.count(name) > 1:
                raise SettingError(
                    f"{self.name}: {name!r} names two of the inputs, parameters and options: call "
                    "one of them otherwise"
                )

    def _check_classes(self, name: str, classes: Size) -> None:
        check_shape(f"{self.name}: the classes of {name}", (classes,))
        if isinstance(classes, int) and classes > _MOST_CLASSES:
            raise SettingError(
                f"{self.name}: {name} are labels of int64, of {_MOST_CLASSES} classes at most, not "
                f"{classes}"
            )

    def _check_batch_axis(self) -> None:
        """Raise an error if samples are counted elsewhere than on the first axis."""
        inputs = [self.shape_of(name) for name in self.inputs]
        others = [self.shape_of(name) for name in self.params]
        others += [(it.classes,) for it in self.inputs.values() if isinstance(it, Labels)]
        others += [(it,) for it in self.options.values() if isinstance(it, str)]
        others += [shape[shape[:1] == (BATCH,) :] for shape in (*inputs, *self.outputs)]
        for shape in others:
            if BATCH in names_in(shape):
                raise SettingError(
                    f"{self.name}: {BATCH!r} counts the samples of a batch, along the first axis "
                    f"of inputs and outputs, and occurs in {shape}: call that size otherwise"
                )

    def require_make(self) -> None:
        """Raise `SettingError` unless make takes the parameters and options by name."""
        names = [*self.params, *self.options]
        try:
            signature = inspect.signature(self.make)
        except (TypeError, ValueError):  # of a function that is not written in Python
            return
        try:
            signature.bind(**dict.fromkeys(names))
        except TypeError as error:
            raise SettingError(
                f"{self.name}: what makes the layer is called with the parameters and options by "
                f"name, here {', '.join(names) or 'none'}: {error}. Say params= or options= of "
                "what is missing; a function of arrays, without a layer, is for assert_vjp"
            ) from error

    @property
    def name(self) -> str:
        """The name of the layer's class, or of the function that makes it."""
        return getattr(self.make, "__name__", type(self.make).__name__)

    def __str__(self) -> str:
        shapes = {**self.inputs, **self.params}
        return f"{self.name}({', '.join(f'{k}: {described(v)}' for k, v in shapes.items())})"

    @property
    def upstream(self) -> str:
        """What the upstream derivative is called: ``dout``, unless an array or option is."""
        name = "dout"
        while name in (*self.inputs, *self.params, *self.options):
            name = f"upstream_{name}"
        return name

    @property
    def differentiable(self) -> list[str]:
        """The names of the inputs with respect to which ``backward`` returns the derivative."""
        return [name for name, kind in self.inputs.items() if is_differentiable(kind)]

    @property
    def outputs(self) -> tuple[Shape, ...]:
        """The shapes of the outputs, in named sizes."""
        if self.output is None:
            return (self.shape_of(self.differentiable[0]),)
        return self.output if self.returns_tuple else (self.output,)  # type: ignore[return-value]

    @property
    def returns_tuple(self) -> bool:
        """Whether ``forward`` returns a tuple, be it of one output."""
        output = self.output
        return isinstance(output, tuple) and any(isinstance(it, tuple) for it in output)

    @property
    def output_shape(self) -> Shape:
        """The shape of the output; of several, that of all side by side, for each sample if any."""
        shapes = self.outputs
        if len(shapes) == 1:
            return shapes[0]
        of_samples = all(shape[:1] == (BATCH,) for shape in shapes)
        counts = ("*".join(f"({size})" for size in shape[of_samples:]) or "1" for shape in shapes)
        return (*((BATCH,) if of_samples else ()), "+".join(counts))

    @property
    def batched(self) -> list[str]:
        """The names of the inputs whose first axis is that of the samples.

        None is, if some outputs have that axis and others have not: then nothing is known of them.
        """
        if 0 < sum(BATCH in shape for shape in self.outputs) < len(self.outputs):
            return []
        return [name for name in self.inputs if self.shape_of(name)[:1] == (BATCH,)]

    @property
    def takes_the_mean(self) -> bool:
        """Whether the output is a mean over the batch."""
        return bool(self.batched) and BATCH not in self.outputs[0]

    def options_with(
        self, sizes: Mapping[str, int], choose: Callable[[Sequence[Any]], Any]
    ) -> dict[str, Any]:
        """Return a value of each option, given what the sizes stand for, and who chooses."""
        return {
            name: sizes[values] if isinstance(values, str) else choose(values)
            for name, values in self.options.items()
        }

    def kind_of(self, name: str) -> Input:
        """Return the kind of an input or a parameter."""
        return self.inputs[name] if name in self.inputs else self.params[name]

    def shape_of(self, name: str) -> Shape:
        """Return the shape of an input or a parameter, in named sizes."""
        kind = self.kind_of(name)
        return kind if isinstance(kind, tuple) else kind.shape

    @property
    def _sizes(self) -> list[Size]:
        shapes = (self.shape_of(name) for name in (*self.inputs, *self.params))
        of_options = tuple(it for it in self.options.values() if isinstance(it, str))
        classes = tuple(it.classes for it in self.inputs.values() if isinstance(it, Labels))
        return [size for shape in (*shapes, *self.outputs, of_options, classes) for size in shape]

    def size_names(self) -> list[str]:
        """Return the names of the sizes, each once, in order of appearance."""
        return names_in(self._sizes)

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

    def fitting_sizes(self, bounds: Mapping[str, tuple[int, int]]) -> list[dict[str, int]] | None:
        """Return what the names may stand for, the smallest first; None if any numbers will do.

        Raises
        ------
        SettingError
            If no numbers within the bounds make each expression a size, or the bounds are so wide
            that they cannot be looked through.
        """
        divided = [size for size in self._sizes if not is_product(size)]
        if not divided:
            return None
        largest = dict.fromkeys(self.size_names(), LARGEST_SIZE)
        largest |= dict.fromkeys(names_in(divided), LARGEST_DIVIDED_SIZE)
        limits = {name: (1, most) for name, most in largest.items()} | dict(bounds)
        ranges = [range(low, high + 1) for low, high in limits.values()]
        if prod(map(len, ranges)) > _MOST_COMBINATIONS:
            raise SettingError(f"{self.name}: the sizes have too many combinations: narrow them")
        combinations = (dict(zip(limits, numbers, strict=True)) for numbers in product(*ranges))
        fitting = [numbers for numbers in combinations if are_sizes(self._sizes, numbers)]
        if not fitting:
            raise SettingError(
                f"{self.name}: no sizes within {limits} fit {', '.join(map(repr, divided))}: "
                f"give other bounds, sizes={{{next(iter(limits))!r}: (4, 12)}}"
            )
        return sorted(fitting, key=lambda numbers: sum(numbers.values()))
