"""A function that is recorded when it meets new shapes, else replayed."""

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, Generic

from xbp.namespace import Array, is_array
from xbp.recording.nested import flatten, flattened
from xbp.recording.program import Library, Program, Result
from xbp.recording.recording import Recording
from xbp.recording.tracing import Traced, values

# The most recordings of one function, and the most programs: a training needs two, for the last
# mini-batch of an epoch may be smaller.
MAX_RECORDINGS = 8


class Recorded(Generic[Result]):
    """A pure function that is recorded when it meets new shapes, else replayed.

    Parameters
    ----------
    function
        Takes arrays, numbers, and dictionaries, lists and tuples of them, and returns such. It
        calls only functions of the standard, and asks for no array's values.
    library
        The library of the arrays.
    donate
        The positions of the arguments whose memory may be reused: they must not be read after the
        call.
    """

    def __init__(
        self,
        function: Callable[..., Result],
        library: Library,
        donate: Sequence[int] = (),
    ) -> None:
        self.function = function
        self.library = library
        self.donate = donate
        # What is known of the function; functions that do the same may share it.
        self.programs: list[Program[Result]] = []
        # The most recently used comes first.
        self.recordings: list[Recording[Result]] = []
        # The replays share memory.
        self._one_at_a_time = threading.RLock()

    def __call__(self, *args: Any) -> Result:
        """Return the function's result."""
        return self._run(args)

    def _run(self, args: Sequence[Any], rows: range = range(0)) -> Result:
        """Return the result; the leaves of these numbers belong to a row, and will vary."""
        leaves, structure, rebuild = flattened(args)
        if any(isinstance(leaf, Traced) for leaf in leaves):
            return self.function(*args)  # part of a larger recording
        with self._one_at_a_time:
            for number, recording in enumerate(self.recordings):
                if recording.takes(leaves, structure):
                    self.recordings.insert(0, self.recordings.pop(number))
                    recording.replay({i: leaves[i] for i in recording.program.varying})
                    return recording.result()
            varying = self._varying(leaves, structure) | set(rows)
            # A copy, since another thread may add a program.
            fitting = (p for p in self.programs.copy() if p.fits(leaves, structure, varying))
            program = next(fitting, None)
            if program is None:
                donated = chain.from_iterable(_leaf_numbers(args)[i] for i in self.donate)
                program = Program(
                    self.library, self.function, leaves, structure, rebuild, varying, set(donated)
                )
                self.programs.insert(0, program)
                del self.programs[MAX_RECORDINGS:]
            recording = Recording(program, leaves)
            self.recordings.insert(0, recording)
            del self.recordings[MAX_RECORDINGS:]
            return recording.result()

    def _varying(self, leaves: Sequence[Any], structure: Hashable) -> set[int]:
        """Return the numbers of the leaves that differ from a last call of this structure."""
        if not self.recordings or structure != self.recordings[0].program.structure:
            return set()
        last = self.recordings[0].inputs
        pairs = enumerate(zip(leaves, values(last), strict=True))
        return {
            number
            for number, (leaf, before) in pairs
            if (is_array(leaf) and leaf is not before)
            or (_is_number(leaf) and (is_array(before) or leaf != before))
        }

    def loop(
        self: "Recorded[tuple[Any, Array]]", state: Any, rows: Iterable[Any], *others: Any
    ) -> tuple[Any, list[Array]]:
        """Call the function for each row in turn, on the state that the call before returned.

        Returns
        -------
        tuple
            The last state, and the results of all rows.
        """
        results = []
        # The last recording, if only the rows differ from call to call.
        last: Recording[tuple[Any, Array]] | None = None
        first = len(flatten(state)[0])
        for row in rows:
            leaves = row if isinstance(row, tuple) else (row,)
            with self._one_at_a_time:
                if last:
                    last.replay(dict(enumerate(leaves, first)))
                    result = last.last_result()
                else:
                    varying = range(first, first + len(leaves))
                    state, result = self._run((state, row, *others), varying)
                    recording = self.recordings[0]
                    last = recording if recording.is_loop_over(varying) else None
            results.append(result)
        return state, results


def _leaf_numbers(args: Sequence[Any]) -> list[range]:
    """Return, for each argument, the numbers of its leaves."""
    ends = list(accumulate(len(flatten(arg)[0]) for arg in args))
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
