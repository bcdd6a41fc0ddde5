"""A batch in blocks, so that what is computed of each sample does not fill the memory."""

from collections.abc import Iterator

# The most elements of a block, unless a sample alone has more.
_MOST_ELEMENTS = 2**22


def blocks(count: int, elements: int) -> Iterator[slice]:
    """Yield slices of so many samples, each of which takes so many elements.

    There is an empty one, if there are no samples.
    """
    length = max(_MOST_ELEMENTS // max(elements, 1), 1)
    for first in range(0, max(count, 1), length):
        yield slice(first, min(first + length, count))
