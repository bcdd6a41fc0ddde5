"""A record of the calls of layers: for a trace, a picture, a search."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class LayerCall:
    """One call of a layer's method.

    Attributes
    ----------
    layer
        Whose method it is; None for the root, which holds all other calls.
    method : str
        ``"forward"`` or ``"backward"``.
    inputs : tuple
        The arguments.
    output
        What was returned; None before that.
    parts : list of LayerCall
        The calls of other layers that it made, in order.
    """

    layer: Any = None
    method: str = ""
    inputs: tuple[Any, ...] = ()
    output: Any = None
    parts: list["LayerCall"] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.layer.name}.{self.method}" if self.method else ""

    def inner_first(self) -> Iterator["LayerCall"]:
        """Yield the calls within it, in the order in which they returned."""
        for part in self.parts:
            yield from part.inner_first()
            yield part


# The calls that have not returned, the outermost first; None where calls are not recorded.
_open: ContextVar[list[LayerCall] | None] = ContextVar("open", default=None)


@contextmanager
def noted_calls() -> Iterator[LayerCall]:
    """Record the calls of layers in the parts of the call that is yielded."""
    root = LayerCall()
    token = _open.set([root])
    try:
        yield root
    finally:
        _open.reset(token)


def begin_call(layer: Any, method: str, inputs: tuple[Any, ...]) -> LayerCall | None:
    """Record the beginning of a call; return None where calls are not recorded."""
    if (calls := _open.get()) is None:
        return None
    call = LayerCall(layer, method, inputs)
    calls[-1].parts.append(call)
    calls.append(call)
    return call


def end_call(call: LayerCall | None, output: Any) -> None:
    """Record the end of a call, and its output."""
    if call is not None and (calls := _open.get()) is not None:
        call.output = output
        # Calls within it that raised an error are still open: they end too.
        del calls[calls.index(call) :]


def innermost_call() -> str:
    """Return the method of a layer that runs now, ``"Affine1.forward"``; empty if none does."""
    return str(calls[-1]) if (calls := _open.get()) else ""
