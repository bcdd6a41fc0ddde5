"""Operations that are written on the standard, and that a library may do better by itself.

A backend names its library's own functions in `operations`. Whoever calls an operation does not
know: the results agree, and without a function of its own each library computes what stands here.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from xbp.namespace import Namespace, namespace_of
from xbp.recording.tracing import noted

Function = TypeVar("Function", bound=Callable[..., Any])

_own: dict[tuple[Namespace, str], Callable[..., Any]] = {}


def tell_operations(xp: Namespace, operations: Mapping[str, Callable[..., Any]]) -> None:
    """Register a library's own functions, each of which takes what the operation takes."""
    for name, function in operations.items():
        _own[xp, name] = function


def operation(function: Function) -> Function:
    """Let a library's own function of this name take the place of one on the standard.

    Its first argument is an array of the library, or a list of them. The function itself is
    ``__wrapped__``.
    """
    name = function.__name__

    @wraps(function)
    def call(x: Any, *others: Any) -> Any:
        xp = namespace_of(*x) if isinstance(x, list) else namespace_of(x)
        own = _own.get((getattr(xp, "traces", xp), name))
        return noted(name, own, x, *others) if own else function(x, *others)

    return cast(Function, call)
