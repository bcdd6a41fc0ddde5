"""Tracing: each call that a function makes on its arrays is noted while it runs."""

import operator
from collections.abc import Callable, Iterator, Set
from copy import copy, deepcopy
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from traceback import extract_tb
from typing import Any, ClassVar

from xbp.calls import innermost_call
from xbp.errors import TracingError
from xbp.namespace import Namespace, array_packages, is_array

_XBP = Path(__file__).parents[1]

# The standard's function behind each operator of Python.
BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "pow",
    "matmul": "matmul", "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and",
    "or": "bitwise_or", "xor": "bitwise_xor", "lshift": "bitwise_left_shift",
    "rshift": "bitwise_right_shift",
}  # fmt: skip
COMPARISONS = {
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal",
    "ne": "not_equal",
}  # fmt: skip
UNARY = {"neg": "negative", "abs": "abs", "invert": "bitwise_invert"}


# The functions of the standard that compute one element of the result from one of each argument.
ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "asin", "asinh", "atan", "atanh", "atan2", "bitwise_and",
    "bitwise_invert", "bitwise_or", "bitwise_xor", "ceil", "cos", "cosh", "divide", "equal",
    "exp", "expm1", "floor", "floor_divide", "greater", "greater_equal", "less", "less_equal",
    "log", "log10", "log1p", "log2", "logaddexp", "logical_and", "logical_not", "logical_or",
    "logical_xor", "maximum", "minimum", "multiply", "negative", "not_equal", "pow",
    "remainder", "round", "sign", "sin", "sinh", "sqrt", "square", "subtract", "tan", "tanh",
    "trunc",
}  # fmt: skip


class Traced:
    """Stands for an array or a number while a function is traced: computes, and notes each call.

    Attributes
    ----------
    value
        The array or number itself.
    owners : frozenset of Traced
        Those whose memory its value may share: itself alone, if its memory is its own.
    """

    namespace: ClassVar["TracingNamespace"]
    __array_ufunc__ = None  # so that NumPy leaves its operators to this class

    def __init__(
        self, trace: "Trace", value: Any, owners: "frozenset[Traced] | None" = None
    ) -> None:
        self.value = value
        self.owners = frozenset([self]) if owners is None else owners
        self.trace = trace

    def __array_namespace__(self, api_version: str | None = None) -> "TracingNamespace":
        return self.namespace

    def __array__(self, *args: object, **kwargs: object) -> Any:
        raise TypeError("a Traced array is made no array of NumPy")

    def _no_value(self) -> Any:
        raise TypeError("a Traced array has no value yet: xp.where(...) chooses without one")

    __bool__ = __float__ = __int__ = __index__ = _no_value

    def __repr__(self) -> str:
        # A function that looks up or compares the text would get another at the next call.
        return self._no_value() if self.trace.is_running else f"<traced {self.value!r}>"

    def __copy__(self) -> Any:
        return self.trace.call("", copy, (self,), {})

    def __deepcopy__(self, memo: object) -> Any:
        return self.trace.call("", deepcopy, (self,), {})

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)
    device = property(lambda self: self.value.device)
    ndim = property(lambda self: self.value.ndim)
    size = property(lambda self: self.value.size)
    T = property(lambda self: self.trace.view(operator.attrgetter("T"), self))
    mT = property(lambda self: self.trace.view(operator.attrgetter("mT"), self))

    def __getitem__(self, index: Any) -> Any:
        return self.trace.call("", operator.getitem, (self, index), {})


def _add_operators() -> None:
    def binary(name: str, function: Any) -> Any:
        return lambda self, other: self.trace.call(name, function, (self, other), {})

    def reflected(name: str, function: Any) -> Any:
        return lambda self, other: self.trace.call(name, function, (other, self), {})

    def changing(name: str, function: Any) -> Any:
        return lambda self, other: self.trace.change(name, function, self, other)

    def unary(name: str, function: Any) -> Any:
        return lambda self: self.trace.call(name, function, (self,), {})

    for sign, name in UNARY.items():
        setattr(Traced, f"__{sign}__", unary(name, getattr(operator, f"__{sign}__")))
    for sign, name in (BINARY | COMPARISONS).items():
        setattr(Traced, f"__{sign}__", binary(name, getattr(operator, f"__{sign}__")))
    for sign, name in BINARY.items():
        setattr(Traced, f"__r{sign}__", reflected(name, getattr(operator, f"__{sign}__")))
        setattr(Traced, f"__i{sign}__", changing(name, getattr(operator, f"__i{sign}__")))
    Traced.__hash__ = _hash  # type: ignore[assignment, method-assign]


def _hash(traced: Any) -> int:
    """Return a hash for the sets of a recording; raise `TypeError` while the function is traced.

    It would look a number up in a dictionary or a set, and never find it.
    """
    if hasattr(traced, "trace") and traced.trace.is_running:
        traced._no_value()
    return object.__hash__(traced)


_add_operators()


class TracingNamespace:
    """An array namespace whose functions also take traced arrays, and note their calls.

    Attributes
    ----------
    traces
        The array namespace.
    prefix
        The prefix of its functions' names: ``linalg.``.
    """

    def __init__(self, xp: Namespace, prefix: str = "") -> None:
        self.traces = xp
        self.prefix = prefix

    def __getattr__(self, name: str) -> Any:
        member = getattr(self.traces, name)
        if name in ("linalg", "fft"):
            setattr(self, name, TracingNamespace(member, f"{name}."))
            return getattr(self, name)
        if isinstance(member, type) or not callable(member) or name.startswith("__"):
            return member

        def noting(*args: Any, **kwargs: Any) -> Any:
            traced = next(traced_among((args, kwargs)), None)
            if traced is None:
                return member(*args, **kwargs)
            return traced.trace.call(self.prefix + name, member, args, kwargs)

        setattr(self, name, noting)
        return noting


@cache
def traced_type(xp: Namespace) -> type[Traced]:
    """Return the class of a library's traced arrays: their namespace is looked up by type."""
    return type("Traced", (Traced,), {"namespace": TracingNamespace(xp)})


@dataclass(frozen=True, eq=False)
class Note:
    """A call.

    Attributes
    ----------
    name : str
        The function's name in the standard, if its result is an array with memory of its own.
    function
        What was called.
    args, kwargs
        Its arguments: traced arrays and numbers, and others as they are.
    output : Traced
        The result, or the array that was changed in place.
    in_place : bool
        Whether output was changed in place.
    is_view : bool
        Whether output is a view of the input.
    layer : str
        The layer's method that made the call, ``"Affine1.forward"``; empty outside of layers.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Traced
    in_place: bool = False
    is_view: bool = False
    layer: str = field(default_factory=innermost_call)

    @cached_property
    def inputs(self) -> list[Traced]:
        """The arrays and numbers that it reads."""
        return list(traced_among((self.args, self.kwargs)))

    @cached_property
    def touched(self) -> Set[Traced]:
        """The owners of the memory that it reads or writes."""
        return frozenset().union(*(x.owners for x in (*self.inputs, self.output)))


class Trace:
    """Notes the calls of one run of a function.

    Parameters
    ----------
    xp
        The array namespace.
    fresh
        The names of the functions whose results never share memory with their arguments.
    """

    def __init__(self, xp: Namespace, fresh: frozenset[str]) -> None:
        self.xp = xp
        self.fresh = fresh
        self.notes: list[Note] = []
        # Whether the function is still running.
        self.is_running = True

    def traced(self, value: Any, owners: frozenset[Traced] | None = None) -> Traced:
        """Return what stands for a value; it owns its memory, unless owners are given."""
        return traced_type(self.xp)(self, value, owners)

    def call(
        self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a function, and note it."""
        inputs = list(traced_among((args, kwargs)))
        # Only these are known to change nothing, and to share memory with nothing.
        is_fresh = name in self.fresh and name != "astype"
        arrays = [x.value for x in inputs if name and is_array(x.value)]
        before = [] if is_fresh else [self.xp.asarray(x, copy=True) for x in arrays]
        result = function(*values(args), **values(kwargs))
        if (
            result is None
            or "out" in kwargs
            or (is_fresh and any(result is x for x in arrays))
            or not all(map(self._is_equal, arrays, before))
        ):
            raise TypeError(f"{name} changes a Traced array in place: use what it returns instead")
        for traced in inputs:
            # Not for numbers: 5 % 7 is the same object as 5.
            if is_array(result) and result is traced.value:
                return traced
        if name in self.fresh and hasattr(result, "dtype") and (arrays or is_array(result)):
            if not is_array(result):
                result = self.xp.asarray(result)  # NumPy's scalars cannot be written to
            return self._add(Note(name, function, args, kwargs, self.traced(result)))
        owners: frozenset[Traced] = frozenset().union(*(x.owners for x in inputs))
        whole = self._add(Note("", function, args, kwargs, self.traced(result, owners)))
        if isinstance(result, tuple | list):
            make = getattr(type(result), "_make", type(result))  # a named tuple
            return make(
                [self.call("", operator.getitem, (whole, i), {}) for i in range(len(result))]
            )
        return whole

    def _is_equal(self, x: Any, before: Any) -> bool:
        # NaN is not equal to itself.
        return bool(self.xp.all((x == before) | ((x != x) & (before != before))))  # noqa: PLR0124

    def change(
        self, name: str, function: Callable[[Any, Any], Any], x: Traced, other: Any
    ) -> Traced:
        """Apply an in-place operator, and note whether it changed x or returned another array."""
        result = function(x.value, values(other))
        if is_array(result) and result is x.value:
            return self._add(Note(name, function, (x, other), {}, x, in_place=True))
        return self._add(Note("", function, (x, other), {}, self.traced(result, x.owners)))

    def view(self, function: Callable[[Any], Any], x: Traced) -> Traced:
        """Return a view of an array, and note it."""
        view = self.traced(function(x.value), x.owners)
        return self._add(Note("", function, (x,), {}, view, is_view=True))

    def _add(self, note: Note) -> Traced:
        self.notes.append(note)
        return note.output


def untraceable(error: Exception) -> TracingError:
    """Return an error that says what the author of a layer or an optimizer is to do."""
    frames = extract_tb(error.__traceback__)
    # The innermost outside of xbp and the libraries.
    own = [frame for frame in frames if _is_of_an_author(frame.filename)]
    frame = (own or list(frames))[-1]
    reason = str(error).partition("\n")[0]
    return TracingError(
        f"{frame.filename}, line {frame.lineno}, in {frame.name}: cannot be traced ({reason}). "
        "Call functions of the array's namespace, xp = xbp.namespace.namespace_of(x), and ask for "
        "no values. Or do not say that it can: traceable = False of a layer, state_names = None of "
        "an optimizer"
    )


def _is_of_an_author(filename: str) -> bool:
    """Tell whether a file is neither of xbp nor of an array library: a layer may be installed."""
    path = Path(filename)
    _, installed, package = filename.rpartition("site-packages")
    of_library = bool(installed) and Path(package).parts[1] in array_packages()
    return _XBP not in path.parents and not of_library


def traced_among(arguments: Any) -> Iterator[Traced]:
    """Yield what is traced among nested arguments."""
    if isinstance(arguments, Traced):
        yield arguments
    elif isinstance(arguments, list | tuple):
        for argument in arguments:
            yield from traced_among(argument)
    elif isinstance(arguments, dict):
        yield from traced_among(list(arguments.values()))


def noted(name: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function that is not in a namespace, and note it if an argument is traced."""
    traced = next(traced_among(args), None)
    return function(*args) if traced is None else traced.trace.call(name, function, args, {})


def values(arguments: Any) -> Any:
    """Return nested arguments with each traced one replaced by its value."""
    if isinstance(arguments, Traced):
        return arguments.value
    if type(arguments) in (list, tuple):
        return type(arguments)(map(values, arguments))
    if isinstance(arguments, dict):
        return {key: values(argument) for key, argument in arguments.items()}
    return arguments
