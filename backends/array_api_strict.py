"""array-api-strict: arrays that support nothing beyond the Array API standard.

Its devices other than ``CPU_DEVICE`` refuse conversion to NumPy and mixing, as GPUs do.
"""

from typing import Any

import array_api_strict

from xbp.backend import Backend
from xbp.namespace import Array


class StrictBackend(Backend):
    """Arrays of array-api-strict. Devices: ``CPU_DEVICE``, ``device1``, ``no_float64`` and more."""

    name = "array-api-strict"
    library = array_api_strict
    xp = array_api_strict
    float64_hint = "this device stands for hardware without double precision"

    @classmethod
    def devices(cls) -> list[str]:
        """Return the names of its simulated devices."""
        return [_device_name(device) for device in cls.xp.__array_namespace_info__().devices()]

    @classmethod
    def find_device(cls, name: str) -> Any:
        """Return the device of that name."""
        return array_api_strict.Device(name)

    def device_name(self, x: Array) -> str:
        """Return the name of the array's device."""
        return _device_name(x.device)

    def row_major(self, x: Array) -> Array:
        """Return a copy in row-major order, the order in which the standard reshapes."""
        return self.xp.reshape(self.xp.reshape(x, (-1,)), x.shape)


def _device_name(device: Any) -> str:
    return str(device).split("'")[1]
