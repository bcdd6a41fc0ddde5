"""CuPy, on NVIDIA and AMD GPUs."""

from contextlib import AbstractContextManager
from typing import Any

import array_api_compat.cupy
import cupy
import numpy

from xbp.backend import Backend
from xbp.errors import BackendUnavailableError
from xbp.namespace import Array

from .writers import writers_of


class CupyBackend(Backend):
    """CuPy arrays. A device is named by its number: ``0``, ``1``."""

    name = "cupy"
    library = cupy
    xp = array_api_compat.cupy
    writers = writers_of(cupy)

    @classmethod
    def default_device(cls) -> str:
        """Return the GPU that CuPy works on now."""
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
        """Return CuPy's own device of that number."""
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

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Copy the values to the host."""
        values: numpy.ndarray[Any, Any] = cupy.asnumpy(x)
        return values

    def synchronize(self) -> None:
        """Wait for everything on this GPU."""
        self.native_device.synchronize()

    def scope(self) -> AbstractContextManager[Any]:
        """Work on this GPU, not on the current one."""
        # A Device object remembers one entry at a time: a new one each time may be nested.
        device: AbstractContextManager[Any] = cupy.cuda.Device(self.native_device.id)
        return device
