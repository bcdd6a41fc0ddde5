"""How functions, and loops of steps, run fast on an array library: compiled, or recorded.

A library need provide none of it: then each step runs as it is written.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Set
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Protocol, TypeVar, cast

from xbp.namespace import Array, Namespace
from xbp.recording import ELEMENTWISE, Capture, Fuse, Program, Recorded, Writer

Function = TypeVar("Function", bound=Callable[..., Any])

# The most structures of works whose compiled steps are kept.
MOST_STRUCTURES = 16


class Work(Protocol):
    """What `Engine.loop` runs: one step after the other, each of which changes its state."""

    state: Any

    @property
    def structure(self) -> Hashable:
        """Equal for works that do the same to their states; None if no other does."""

    def without_arrays(self) -> "Work":
        """Return a work of the same structure that keeps no array alive."""

    def step(self, row: Any, /, *others: Array) -> Array: ...  # noqa: D102
    def bound_to(self, state: Any) -> "Work": ...  # noqa: D102


class Engine:
    """How functions, and loops of steps, are run on an array library.

    Attributes
    ----------
    xp
        The array API namespace.
    """

    xp: ClassVar[Namespace]

    # Writers by the standard's name of a function: each runs the function into a given ``out``.
    writers: ClassVar[Mapping[str, Writer]] = {}

    # The functions whose ``out`` may be one of their inputs.
    overwriting: ClassVar[Set[str]] = ELEMENTWISE

    # The library's own functions for operations that xbp writes on the standard: see
    # `xbp.operations`.
    operations: ClassVar[Mapping[str, Callable[..., Array]]] = {}

    # Makes one call of two, where the library has a function that does both.
    fuse: Fuse | None = None

    # Makes one call of all calls of a recording, where the library can: a graph on a GPU.
    capture: Capture | None = None

    def compile(self, function: Function, *, donate: Sequence[int] = ()) -> Function:
        """Return the function compiled.

        Without a compiler, it is recorded if the library has writers: see `xbp.recording`. Else it
        is the function itself.

        Parameters
        ----------
        function
            A pure function. It takes and returns arrays and Python numbers, also in dictionaries,
            lists and tuples: ``{"params": {"W1": ..., "b1": ...}, "state": {}}``. A number may be
            another in each call, as that of a step: who takes it for a constant compiles anew.
        donate
            The positions of the arguments whose memory may be reused for the results: they must
            not be read after the call, nor the results in their place after the next call.
        """
        if not self.writers:
            return function
        recorded: Any = Recorded(function, self, donate)
        return cast(Function, recorded)

    @cached_property
    def _programs(self) -> Callable[[Hashable], list[Program[Any]]]:
        """The programs of works, by their structure: what was recorded once is not again."""
        return lru_cache(MOST_STRUCTURES)(lambda structure: [])

    @property
    def loop_length(self) -> int:
        """How many steps of a training a `loop` runs before its results are read."""
        return 20 if self.writers else 1

    def loop(self, work: "Work") -> Callable[..., Array]:
        """Return a function that runs a work for one row after the other.

        Called with rows, and with what else the work takes, it returns the results of the rows,
        stacked. Rows are an array, or a tuple of columns: arrays, and lists of numbers. Each row is
        a call of the compiled step; a library that can compile the whole loop overrides this.
        """

        def step(state: Any, row: Any, *others: Array) -> tuple[Any, Array]:
            bound = work.bound_to(state)
            result = bound.step(row, *others)
            return bound.state, result

        compiled: Any = self.compile(step, donate=[0])
        if isinstance(compiled, Recorded) and work.structure is not None:
            compiled.programs = self._programs(work.structure)

        def run(rows: Any, *others: Array) -> Array:
            state, results = work.state, []
            if compiled is step or state is None:
                results = [work.step(row, *others) for row in _each(rows)]
            elif isinstance(compiled, Recorded):
                work.state, results = compiled.loop(state, _each(rows), *others)
            else:
                for row in _each(rows):
                    state, result = compiled(state, row, *others)
                    results.append(result)
                work.state = state
            return results[0][None] if len(results) == 1 else self.xp.stack(results)

        return run


def _each(rows: Any) -> Iterator[Any]:
    """Yield the rows of an array, or of columns side by side."""
    if isinstance(rows, tuple):
        yield from zip(*(_each(column) for column in rows), strict=True)
    elif isinstance(rows, list):
        yield from rows
    else:
        for i in range(rows.shape[0]):
            yield rows[i, ...]
