"""Sizes of axes: numbers, names that stand for numbers, and expressions, ``"(H - K) // S + 1"``."""

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from functools import cache
from keyword import iskeyword
from typing import Any, TypeAlias

from xbp.errors import SettingError
from xbp.settings import is_integer

Size: TypeAlias = int | str
Shape: TypeAlias = tuple[Size, ...]

# The size that counts the samples of a batch.
BATCH = "N"

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def check_shape(where: str, shape: object) -> None:
    """Raise `SettingError` unless this is a shape in named sizes."""
    if not isinstance(shape, tuple):
        raise SettingError(f"{where}: a shape is a tuple such as ('N', 'D'), not {shape!r}")
    for size in shape:
        good = _is_expression(size) if isinstance(size, str) else is_integer(size) and size > 0
        if not good:
            raise SettingError(
                f"{where}: a size is a positive number, a name such as 'D', or an expression of "
                f"them, 'H*W' or '(H - 2) // 2', not {size!r}"
            )


def _is_expression(size: str) -> bool:
    try:
        return bool(names_in([size])) and all(map(_is_part, ast.walk(_parsed(size))))
    except SyntaxError:
        return False


def _is_part(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp):
        return type(node.op) in _OPERATORS
    if isinstance(node, ast.Constant):
        return is_integer(node.value)
    return isinstance(node, ast.Expression | ast.Name | ast.Load | ast.operator)


@cache
def _parsed(size: str) -> ast.Expression:
    return ast.parse(size.strip(), mode="eval")


def is_name(size: object) -> bool:
    """Tell whether this is the name of a size."""
    return isinstance(size, str) and size.isidentifier() and not iskeyword(size)


def names_in(sizes: Iterable[Size]) -> list[str]:
    """Return the names in sizes, each once, in order of appearance."""
    nodes = (
        node
        for size in sizes
        if isinstance(size, str)
        for node in sorted(
            (it for it in ast.walk(_parsed(size)) if isinstance(it, ast.Name)),
            key=lambda name: name.col_offset,
        )
    )
    return list(dict.fromkeys(node.id for node in nodes))


def numbers_in(size: str) -> list[int]:
    """Return the numbers in an expression."""
    values = (it.value for it in ast.walk(_parsed(size)) if isinstance(it, ast.Constant))
    return [value for value in values if isinstance(value, int)]


def is_product(size: Size) -> bool:
    """Tell whether a size is one for any numbers: a number, a name or a product of them."""
    nodes = ast.walk(_parsed(size)) if isinstance(size, str) else iter(())
    return not any(isinstance(node, ast.Sub | ast.Div | ast.FloorDiv) for node in nodes)


def size_of(size: Size, numbers: Mapping[str, int]) -> int:
    """Return the number that a size stands for, with these numbers for the names.

    Raises
    ------
    SettingError
        If that is no positive whole number.
    """
    value = Fraction(size) if not isinstance(size, str) else _value(_parsed(size).body, numbers)
    if value is None or value.denominator != 1 or value < 1:
        named = ", ".join(f"{name} = {numbers[name]}" for name in names_in([size]))
        raise SettingError(f"{size!r} is no size if {named}")
    return int(value)


def _value(node: ast.expr, numbers: Mapping[str, int]) -> Fraction | None:
    """Return the value of an expression; None where it divides by 0."""
    if isinstance(node, ast.Name):
        return Fraction(numbers[node.id])
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, numbers), _value(node.right, numbers)
        if (
            left is None
            or right is None
            or (right == 0 and isinstance(node.op, ast.Div | ast.FloorDiv))
        ):
            return None
        return Fraction(_OPERATORS[type(node.op)](left, right))
    return Fraction(node.value)  # type: ignore[attr-defined]


def sizes_of(shape: Shape, numbers: Mapping[str, int]) -> tuple[int, ...]:
    """Return a shape in numbers."""
    return tuple(size_of(size, numbers) for size in shape)


def are_sizes(sizes: Iterable[Size], numbers: Mapping[str, int]) -> bool:
    """Tell whether each size is a positive whole number, with these numbers for the names."""
    try:
        sizes_of(tuple(sizes), numbers)
    except SettingError:
        return False
    return True
