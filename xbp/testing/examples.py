"""Cases that an author gives: the values of each array and option, by name."""

from collections.abc import Iterable, Mapping
from itertools import product
from math import prod
from typing import Any

from xbp.errors import SettingError
from xbp.settings import is_integer
from xbp.testing.cases import LayerCase, sizes_in
from xbp.testing.domains import HostArray, real_numbers, rounded, values_of
from xbp.testing.signatures import Signature
from xbp.testing.sizes import Shape, Size, are_sizes, is_product, names_in, numbers_in, size_of

# So many combinations of sizes are looked through for each axis of an example.
_MOST_FITTING = 200_000


def cases_of(signature: Signature, examples: object) -> list[LayerCase]:
    """Return the cases of examples: see `case_of`.

    Raises
    ------
    SettingError
        If there is no list of them, or one is not a case of the signature.
    """
    if isinstance(examples, Mapping | str) or not isinstance(examples, Iterable):
        raise SettingError(
            f"{signature.name}: examples is a list of cases, [dict(x=..., dout=...)], not "
            f"{examples!r}"
        )
    return [case_of(signature, values) for values in examples]


def case_of(signature: Signature, values: object) -> LayerCase:
    """Return the case of these values: of arrays and options, and the upstream derivative, by name.

    Raises
    ------
    SettingError
        If a name is missing or unknown, or a value, or its shape, is not one of the signature.
    """
    if not isinstance(values, Mapping):
        raise SettingError(
            f"{signature.name}: an example is values by name, dict(x=..., dout=...), not {values!r}"
        )
    shapes = {name: signature.shape_of(name) for name in (*signature.inputs, *signature.params)}
    upstream = signature.upstream
    shapes[upstream] = signature.output_shape
    needed = [*shapes, *signature.options]
    if odd := sorted(values.keys() ^ set(needed), key=str):
        raise SettingError(
            f"{signature.name}: an example names {', '.join(needed)}; "
            f"{odd[0]} is {'unknown' if odd[0] in values else 'missing'}"
        )
    where = {name: f"{signature.name}: an example's {name}" for name in needed}
    arrays = {name: real_numbers(where[name], values[name]) for name in shapes}
    options: dict[str, Any] = {name: values[name] for name in signature.options}
    for name, size in signature.options.items():
        if isinstance(size, str) and not (is_integer(options[name]) and options[name] > 0):
            raise SettingError(
                f"{where[name]} is the size {size}, a positive integer, not {options[name]!r}"
            )
    sizes = _sizes_that_fit(signature, shapes, arrays, options)
    return LayerCase(
        signature,
        {
            name: values_of(where[name], signature.kind_of(name), values[name], sizes)
            for name in shapes
            if name != upstream
        },
        rounded(arrays[upstream]),
        options=options,
        numbers=sizes,
    )


def _sizes_that_fit(
    signature: Signature,
    shapes: Mapping[str, Shape],
    arrays: Mapping[str, HostArray],
    options: Mapping[str, Any],
) -> dict[str, int]:
    """Return what the names of sizes stand for, so that each array has its shape."""
    known = sizes_in(shapes, arrays) | {
        size: options[name] for name, size in signature.options.items() if isinstance(size, str)
    }
    fitting = [known]
    for name, shape in shapes.items():
        if len(shape) != arrays[name].ndim:
            fitting = []
        for size, length in zip(shape, arrays[name].shape, strict=False):
            names = [it for it in names_in([size]) if fitting and it not in fitting[0]]
            candidates = _candidates(size, length)
            if len(fitting) * len(candidates) ** len(names) > _MOST_FITTING:
                raise SettingError(
                    f"{signature.name}: an example's {name} of the shape {arrays[name].shape} fits "
                    f"{signature} in too many ways: give one of fewer elements"
                )
            fitting = [
                sizes
                for known in fitting
                for numbers in product(candidates, repeat=len(names))
                for sizes in [{**known, **dict(zip(names, numbers, strict=True))}]
                if are_sizes([size], sizes) and size_of(size, sizes) == length
            ]
        if not fitting:
            raise SettingError(
                f"{signature.name}: an example's {name} has the shape {arrays[name].shape}, which "
                f"does not fit the others and {signature}"
            )
    return fitting[0]


def _candidates(size: Size, length: int) -> list[int]:
    """Return the numbers that a name in a size may stand for, if the size is a length."""
    if not isinstance(size, str):
        return []
    if "+" not in size and is_product(size):
        return [number for number in range(1, length + 1) if length % number == 0]
    # "D // 4" of 6 is at most 27, "D - 10" at most 16.
    constants = numbers_in(size)
    most = (length + 1) * prod(max(1, it) for it in constants) + sum(constants) + length
    return list(range(1, most + 1))
