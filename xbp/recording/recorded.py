"""A function that is recorded when it meets new shapes, else replayed."""

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, Generic

from xbp.namespace import Array, is_array
from xbp.recording.nested import flatten, flattened
from xbp.recording.recording import Library, Recording, Result
from xbp.recording.tracing import Traced, values

# How many recordings of one function are kept: a training needs two, for the last mini-batch of an
# epoch may be smaller.
KEPT = 8


class Recorded(Generic[Result]):
    """A pure function that is recorded when it meets new shapes, else replayed.

    Parameters
    ----------
    function
        Takes arrays, numbers, and dictionaries, lists and tuples of them, and returns such. It
        calls only functions of the standard, and asks for no array's values.
    library
        Whose arrays they are.
    donate
        The positions of the arguments that the function may keep: they are not to be read after
        the call.
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
        # The one that was used last comes first.
        self.recordings: list[Recording[Result]] = []
        # All that run use the same memory.
        self._one_at_a_time = threading.RLock()

    def __call__(self, *args: Any) -> Result:
        """Return the function's result."""
        return self._called(args)

    def _called(self, args: Sequence[Any], varying: range = range(0)) -> Result:
        """Return the result; if it is recorded now, these leaves are known to vary."""
        leaves, structure, rebuild = flattened(args)
        if any(isinstance(leaf, Traced) for leaf in leaves):
            return self.function(*args)  # part of a larger recording
        with self._one_at_a_time:
            for number, known in enumerate(self.recordings):
                if known.takes(leaves, structure):
                    self.recordings.insert(0, self.recordings.pop(number))
                    known.replay({number: leaves[number] for number in known.varying})
                    return known.result()
            recording = Recording(
                self.library,
                self.function,
                leaves,
                structure,
                rebuild,
                self._varying(leaves, structure) | set(varying),
                set(chain.from_iterable(_leaf_numbers(args)[i] for i in self.donate)),
            )
            self.recordings.insert(0, recording)
            del self.recordings[KEPT:]
            return recording.result()

    def _varying(self, leaves: Sequence[Any], structure: Hashable) -> set[int]:
        """Return which arrays and numbers are others than at the last call, if that was like it."""
        if not self.recordings or structure != self.recordings[0].structure:
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
        """Call it for one row after the other, each time on the state that it returned before.

        Returns
        -------
        tuple
            The last state, and the results of all rows.
        """
        results = []
        settled: Recording[tuple[Any, Array]] | None = None
        first = len(flatten(state)[0])
        for row in rows:
            given = dict(enumerate(flatten(row)[0], first))
            with self._one_at_a_time:
                if settled and settled.has(given):
                    settled.replay({i: leaf for i, leaf in given.items() if i in settled.varying})
                    result = settled.last_result()
                else:
                    varying = range(first, first + len(given))
                    state, result = self._called((state, row, *others), varying)
                    known = self.recordings[0]
                    settled = known if known.needs_only(varying) else None
            results.append(result)
        return state, results


def _leaf_numbers(args: Sequence[Any]) -> list[range]:
    """Return for each argument which of all leaves are its own."""
    ends = list(accumulate(len(flatten(arg)[0]) for arg in args))
    return [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
