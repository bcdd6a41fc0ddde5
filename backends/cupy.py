"""CuPy, on NVIDIA and AMD GPUs."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache, partial
from operator import methodcaller
from typing import Any, ClassVar

import array_api_compat.cupy
import cupy
import numpy

from xbp.backend import Backend
from xbp.errors import BackendUnavailableError
from xbp.namespace import Array, DType
from xbp.recording import FUSED, Note, fuse_elementwise

from .writers import writers_of

# If it is "1", elementwise calls of a recorded step are fused into one kernel, and the whole step
# becomes a CUDA graph. It is off by default, because it has not been run on a GPU yet.
GRAPHS_VARIABLE = "XBP_CUPY_GRAPHS"


def _astype(x: Array, dtype: DType, *, out: Array) -> Callable[[], object]:
    return partial(cupy.copyto, out, x, "unsafe")


def _where(condition: Array, x: Any, y: Any, *, out: Array) -> Callable[[], object]:
    return partial(_choose, condition, x, y, out)


def _choose(condition: Array, x: Any, y: Any, out: Array) -> None:
    cupy.copyto(out, y)
    cupy.copyto(out, x, where=condition)


@lru_cache(maxsize=1000)
def kernel(function: Callable[..., Any]) -> Any:
    """Return one kernel for an elementwise function; it writes into its first argument."""

    def leave_result(out: Array, *args: Array | float) -> None:
        out[...] = function(*args)

    return cupy.fuse(leave_result)


def _fused(function: Callable[..., Any], *args: Array | float, out: Array) -> Callable[[], object]:
    return partial(kernel(function), out, *args)


def _elementwise(note: Note) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    if note.name == "astype":
        x, dtype = note.args
        return methodcaller("astype", dtype), (x,)
    function = getattr(cupy, note.name, None)
    return (function, note.args) if isinstance(function, cupy.ufunc) else None


def fuse(first: Note, second: Note) -> Note | None:
    """Return the note of one kernel for two elementwise calls; None if they cannot be fused."""
    return fuse_elementwise(first, second, _elementwise)


class CupyBackend(Backend):
    """CuPy arrays. A device is named by its number: ``0``, ``1``."""

    name = "cupy"
    library = cupy
    xp = array_api_compat.cupy
    writers: ClassVar = {
        **writers_of(cupy),
        "take": partial(partial, cupy.take),
        "where": _where,
        "astype": _astype,
        FUSED: _fused,
    }

    def __init__(self, device: str | None = None) -> None:
        super().__init__(device)
        if os.environ.get(GRAPHS_VARIABLE) == "1":
            self.fuse, self.capture = fuse, self._as_graph

    @classmethod
    def default_device(cls) -> str:
        """Return the number of CuPy's current GPU."""
        if not cls.devices():
            raise BackendUnavailableError(
                "CuPy sees no GPU: check the driver with nvidia-smi, and that the installed CuPy "
                "(cupy-cuda12x, cupy-cuda13x) fits it"
            )
        return str(cupy.cuda.Device().id)

    @classmethod
    def devices(cls) -> list[str]:
        """Return the number of every GPU."""
        try:
            return [str(index) for index in range(cupy.cuda.runtime.getDeviceCount())]
        except cupy.cuda.runtime.CUDARuntimeError:
            return []

    @classmethod
    def find_device(cls, name: str) -> Any:
        """Return CuPy's device object of that number."""
        if name not in cls.devices():
            raise LookupError("no such GPU")
        return cupy.cuda.Device(int(name))

    def device_name(self, x: Array) -> str:
        """Return the number of the array's GPU."""
        return str(x.device.id)

    def from_numpy(self, host: numpy.ndarray[Any, Any]) -> Array:
        """Copy the array to this GPU."""
        with self.native_device:
            return cupy.asarray(host)

    def row_major(self, x: Array) -> Array:
        """Return x in row-major order; a copy only if x is in another order."""
        return cupy.ascontiguousarray(x) if x.ndim else x

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Copy the values to the host."""
        values: numpy.ndarray[Any, Any] = cupy.asnumpy(x)
        return values

    def synchronize(self) -> None:
        """Wait until this GPU has finished all work."""
        self.native_device.synchronize()

    def _as_graph(self, calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
        """Return a function that runs the calls as one CUDA graph.

        The memory that the calls allocate belongs to the graph as long as it exists.
        """
        memory = cupy.cuda.MemoryPool()
        stream = cupy.cuda.Stream(non_blocking=True)
        for call in calls:
            if isinstance(call, partial) and isinstance(call.func, type(kernel(max))):
                # Run the kernel once: it cannot be compiled during a capture.
                out, *args = call.args
                call.func(cupy.empty_like(out), *args)
        self.synchronize()
        with cupy.cuda.using_allocator(memory.malloc), stream:
            stream.begin_capture()
            for call in calls:
                call()
            graph = stream.end_capture()

        def launch(_: Any = memory) -> None:
            graph.launch()

        return launch

    def scope(self) -> AbstractContextManager[Any]:
        """Make this GPU the current one."""
        # A new Device object each time: one object cannot be entered again within itself.
        device: AbstractContextManager[Any] = cupy.cuda.Device(self.native_device.id)
        return device
