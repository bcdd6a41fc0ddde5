"""A function recorded once and replayed: the array library's calls, and nothing around them.

A pure function in terms of the array API standard makes the same calls each time that it is given
arrays of the same shapes. So they are noted once, together with the memory that they read and
write. A replay looks nothing up, checks nothing, and allocates nothing where the library can write
into existing memory; it computes the same.
"""

from xbp.recording.nested import flatten
from xbp.recording.program import Capture, Program, Writer
from xbp.recording.recorded import Recorded
from xbp.recording.rewriting import FUSED, Fuse, fuse_elementwise
from xbp.recording.tracing import (
    ELEMENTWISE,
    Note,
    Traced,
    noted,
    untraceable,
    values,
)

__all__ = [
    "ELEMENTWISE",
    "FUSED",
    "Capture",
    "Fuse",
    "Note",
    "Program",
    "Recorded",
    "Traced",
    "Writer",
    "flatten",
    "fuse_elementwise",
    "noted",
    "untraceable",
    "values",
]
