"""One recording: a program's calls on memory of its own, replayed."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from math import inf
from operator import is_
from typing import Any, Generic, TypeVar

from xbp.namespace import Array, is_array
from xbp.recording.program import Layout, Program, Writer
from xbp.recording.tracing import Note, Traced, traced_among, values

Result = TypeVar("Result")


class Recording(Generic[Result]):
    """The calls of a program on these arguments, and on memory of its own.

    Parameters
    ----------
    program
        What the calls do.
    leaves
        The leaves of the arguments. Arrays that vary from call to call are copied into memory of
        the recording, and numbers are looked up.
    """

    def __init__(self, program: Program[Result], leaves: Sequence[Any]) -> None:
        self.program = program
        self.library = program.library
        self.inputs, notes, self.outputs = program.copy()
        arguments = set()
        for i, argument in enumerate(self.inputs):
            if isinstance(argument, Traced):
                argument.value = self._copy(leaves[i]) if i in program.varying else leaves[i]
                arguments |= {argument} if is_array(argument.value) else set()
        # Those whose memory is the same in every replay.
        self._static = set(arguments)
        # The arrays that are returned without a copy, by id.
        self._returnable = {
            id(place)
            for i, place in enumerate(values(self.inputs))
            if i in program.donated or i not in program.varying
        }
        # The first result comes from the calls as well: a fused call rounds differently, and no
        # result may depend on whether it was the first.
        calls = list(self._calls(notes, arguments))
        self.calls = [_first_run(note, call) for note, call in calls]
        capture = self.library.capture
        if capture and all(isinstance(call, partial) for call in self.calls):
            # All arguments are bound: each call is the same in every replay.
            self.calls = [capture(self.calls)]

    def _calls(
        self, notes: Sequence[Note], arguments: set[Traced]
    ) -> Iterator[tuple[Note, Callable[[], object]]]:
        """Yield the calls of a replay, each on the memory that it reads and writes."""
        last_use = self._last_uses(notes)
        free: dict[Hashable, list[Array]] = defaultdict(list)
        for i, note in enumerate(notes):
            dying = {
                owner
                for x in note.inputs
                for owner in x.owners
                if last_use[owner] == i and owner in self._static and owner not in arguments
            }
            if note.is_view and note.inputs[0] in self._static:
                note.output.value = note.function(note.inputs[0].value)
                self._static.add(note.output)
            elif note.name not in self.library.writers:
                yield note, _plain(note, self._bind(note))
            else:
                if not note.in_place:
                    self._static.add(note.output)
                    reused = None
                    if last_use[note.output] < inf:
                        reused = self._memory_to_reuse(note, dying, free)
                    note.output.value = self._memory(note) if reused is None else reused
                write = partial(_writing, self.library.writers[note.name], note)
                if self._static.issuperset([*note.inputs, note.output]):
                    yield note, write()
                else:
                    yield note, _later(write)
            for owner in dying:
                free[_kind(owner.value)].append(owner.value)

    def _last_uses(self, notes: Sequence[Note]) -> dict[Traced, float]:
        """Return, for each owner of memory, the number of the last note that may read it."""
        last_use: dict[Traced, float] = {}
        for i, note in enumerate(notes):
            for x in (*note.inputs, note.output):
                last_use.update(dict.fromkeys(x.owners, i))
        for output in traced_among(self.outputs):
            last_use.update(dict.fromkeys(output.owners, inf))
        return last_use

    def _memory(self, note: Note) -> Array:
        layout: Layout = note.output.value
        return self.library.xp.empty(layout.shape, dtype=layout.dtype, device=layout.device)

    def _memory_to_reuse(
        self, note: Note, dying: set[Traced], free: dict[Hashable, list[Array]]
    ) -> Array | None:
        """Return memory for a result that no later call reads, if any: it is in the cache."""
        kind = _kind(note.output.value)
        if note.name in self.library.overwriting:
            for owner in dying:
                # Not if a view reads it in another order.
                if _kind(owner.value) == kind and all(
                    x is owner for x in note.inputs if owner in x.owners
                ):
                    dying.remove(owner)
                    return owner.value
        return free[kind].pop() if free[kind] else None

    def _bind(self, note: Note) -> Callable[[], Any]:
        """Return a note's call, which looks its arguments up in each replay if some vary."""
        if self._static.issuperset(note.inputs):
            return partial(note.function, *values(note.args), **values(note.kwargs))
        return lambda: note.function(*values(note.args), **values(note.kwargs))

    def _copy(self, x: Any) -> Any:
        return self.library.xp.asarray(x, copy=True) if is_array(x) else x

    # When it is replayed -------------------------------------------------------------------------

    def takes(self, leaves: Sequence[Any], structure: Hashable) -> bool:
        """Tell whether it was recorded for such arguments."""
        return structure == self.program.structure and all(
            map(self._fits, leaves, range(len(leaves)))
        )

    def _fits(self, leaf: Any, number: int) -> bool:
        argument = self.inputs[number]
        place = argument.value if isinstance(argument, Traced) else argument
        if leaf is place:
            return True
        if type(leaf) is not type(place):
            return False
        if not is_array(leaf):
            return number in self.program.varying or bool(leaf == place)
        return number in self.program.varying and _kind(leaf) == _kind(place)

    def replay(self, arguments: Mapping[int, Any]) -> None:
        """Run the calls again, on these values of the arguments that vary."""
        changes = {
            # The memory of a donated argument may be that of another, as when two arrays have been
            # swapped. So all are read before any is written to.
            number: self._copy(leaf) if number in self.program.donated else leaf
            for number, leaf in arguments.items()
            if leaf is not self.inputs[number].value
        }
        for number, leaf in changes.items():
            argument = self.inputs[number]
            if argument in self._static:
                argument.value[...] = leaf
            else:
                argument.value = leaf
        for call in self.calls:
            call()

    def result(self) -> Result:
        """Return the function's result, which no later replay overwrites.

        An argument that was changed in place is itself returned, without a copy.
        """
        result: Result = self.program.rebuild_result(list(map(self._value_of, self.outputs)))
        return result

    def last_result(self) -> Any:
        """Return only the last part of the result."""
        return self._value_of(self.outputs[-1])

    def _value_of(self, output: Any) -> Any:
        if not isinstance(output, Traced):
            return output
        return output.value if id(output.value) in self._returnable else self._copy(output.value)

    def is_loop_over(self, numbers: range) -> bool:
        """Tell whether these arguments, and no others, differ from a replay to the next.

        So it is if those before them are changed in place and returned, and those behind stay.
        """
        first = numbers.start
        return (
            self.program.varying == set(numbers)
            and len(self.outputs) == first + 1
            and all(map(is_, self.inputs[:first], self.outputs[:first]))
        )


def _kind(x: Array | Layout) -> Hashable:
    return (x.shape, x.dtype, x.device)


def _plain(note: Note, call: Callable[[], Any]) -> Callable[[], object]:
    """Return a call that stores its result, a new object in each replay."""
    if note.in_place:
        return call

    def call_and_store() -> None:
        note.output.value = call()

    return call_and_store


def _writing(writer: Writer, note: Note) -> Callable[[], object]:
    """Return a call that writes its result into the memory of a note's output."""
    try:
        return writer(*values(note.args), **values(note.kwargs), out=note.output.value)
    except TypeError:  # the writer lacks an option of the standard
        return _copying(note)


def _later(write: Callable[[], Callable[[], object]]) -> Callable[[], object]:
    """Return a call that looks its arrays up in each replay."""

    def call() -> object:
        return write()()

    return call


def _copying(note: Note) -> Callable[[], object]:
    """Return a call of the function itself that copies its result."""

    def call() -> None:
        note.output.value[...] = note.function(*values(note.args), **values(note.kwargs))

    return call


def _first_run(note: Note, call: Callable[[], object]) -> Callable[[], object]:
    """Run a call and return it; if the library refuses it, one that copies its result."""
    try:
        call()
    except Exception:  # with an error of its own in each library
        call = _copying(note)
        call()
    return call
