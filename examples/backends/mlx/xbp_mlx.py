"""MLX, arrays on the graphics cards of Apple's computers and on any CPU, as a backend of xbp.

MLX 0.32 has most of the standard, by other names for a few things: this file completes it.
"""

from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, NamedTuple

import mlx.core as mx
import numpy

import xbp

# Its arrays are on no device, and these functions take none: a stream decides where work is done.
MAKERS = {
    "arange",
    "asarray",
    "empty",
    "full",
    "full_like",
    "ones",
    "ones_like",
    "zeros",
    "zeros_like",
}


class IntegerLimits(NamedTuple):
    """What MLX says of a dtype, and how many bits it has."""

    min: int
    max: int
    bits: int


class MlxNamespace:
    """The functions of ``mlx.core``, with the arguments and results of the standard."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(mx, name)
        if name not in MAKERS:
            return function

        def made(*args: Any, device: None = None, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return made

    @staticmethod
    def iinfo(dtype: Any) -> IntegerLimits:
        """Return the limits of an integer dtype."""
        limits = mx.iinfo(dtype)
        return IntegerLimits(limits.min, limits.max, 8 * dtype.size)


class MlxBackend(xbp.Backend):
    """Arrays of MLX in float32: in float64 its exponential has the digits of float32."""

    name = "mlx"
    library = mx
    xp = MlxNamespace()
    array_types = (mx.array,)

    @cached_property
    def dtypes(self) -> dict[str, Any]:
        """The dtypes that its functions compute in."""
        return {name: dtype for name, dtype in super().dtypes.items() if name != "float64"}

    @classmethod
    def devices(cls) -> list[str]:
        """Return what there is on this machine."""
        return ["gpu", "cpu"] if mx.metal.is_available() else ["cpu"]

    @classmethod
    def find_device(cls, name: str) -> Any:
        """Return a device of MLX."""
        return mx.Device(getattr(mx.DeviceType, name))

    @staticmethod
    def device_of(x: Any) -> None:
        """Return None: all devices share one memory."""

    def device_name(self, x: Any) -> str:
        """Return the device of this backend, for which any array is as near as for another."""
        return self.device

    def scope(self) -> AbstractContextManager[Any]:
        """Compute on the backend's device."""
        stream: AbstractContextManager[Any] = mx.stream(self.native_device)
        return stream

    def from_numpy(self, host: numpy.ndarray[Any, Any]) -> Any:
        """Return the values in their dtype."""
        return mx.array(host, dtype=self.dtypes[host.dtype.name])

    def synchronize(self) -> None:
        """Wait until all has been computed."""
        mx.synchronize()
