"""dpnp, Intel's NumPy for SYCL devices: CPUs and GPUs."""

import os
from collections.abc import Callable
from functools import partial
from importlib import import_module, metadata
from typing import Any, ClassVar


def _find_opencl_runtime() -> None:
    # pip installs the CPU's OpenCL runtime along with dpnp, but the OpenCL loader does not find it.
    try:
        files = metadata.files("intel-opencl-rt") or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "libintelocl.so":
            os.environ.setdefault("OCL_ICD_FILENAMES", os.path.realpath(file.locate()))


_find_opencl_runtime()

import dpctl  # noqa: E402  it looks for the runtime when imported
import dpnp  # noqa: E402
import numpy  # noqa: E402

from xbp.backend import Backend  # noqa: E402
from xbp.errors import BackendUnavailableError  # noqa: E402
from xbp.namespace import Array, DType  # noqa: E402
from xbp.recording import ELEMENTWISE  # noqa: E402

from .writers import writers_of  # noqa: E402


class _VectorMath:
    """A wrapper of dpnp's module of oneMKL functions that disables them on CPUs.

    There they can deadlock: they hold Python's lock while they wait for queued work, some of which
    needs that lock. With dpnp 0.20 a training hung after some thousand steps. dpnp's own kernels do
    not wait, and are no slower.
    """

    def __init__(self, library: Any) -> None:
        self._library = library

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._library, name)
        if not name.startswith("_mkl_"):
            return member

        # dpnp calls this function to decide whether to use oneMKL.
        def is_called(queue: Any, *arrays: Any) -> bool:
            return not queue.sycl_device.is_cpu and bool(member(queue, *arrays))

        setattr(self, name, is_called)
        return is_called


def _avoid_what_hangs() -> None:
    common: Any = import_module("dpnp.dpnp_algo.dpnp_elementwise_common")
    if hasattr(common, "vmi") and not isinstance(common.vmi, _VectorMath):
        common.vmi = _VectorMath(common.vmi)


_avoid_what_hangs()


def _astype(x: Array, dtype: DType, *, out: Array) -> Callable[[], object]:
    return partial(dpnp.copyto, out, x, "unsafe")


class DpnpBackend(Backend):
    """dpnp arrays. Devices are named by SYCL filter strings: ``cpu``, ``gpu``, ``opencl:cpu:0``."""

    name = "dpnp"
    library = dpnp
    xp = dpnp
    writers: ClassVar = {
        **writers_of(dpnp),
        "take": partial(partial, dpnp.take),
        "where": partial(partial, dpnp.where),
        "astype": _astype,
    }
    overwriting = ELEMENTWISE - {
        *("atan2", "equal", "greater", "greater_equal", "less", "less_equal", "logaddexp"),
        *("logical_and", "logical_or", "logical_xor", "maximum", "minimum", "not_equal"),
    }
    float64_hint = "this device has no double precision; use dtype='float32'"

    @classmethod
    def default_device(cls) -> str:
        """Return the device that SYCL selects."""
        try:
            return _device_name(dpctl.SyclDevice())
        except dpctl.SyclDeviceCreationError as error:
            raise BackendUnavailableError(
                "dpnp finds no SYCL device: install an OpenCL runtime "
                "(pip install intel-opencl-rt), or a driver for your GPU"
            ) from error

    @classmethod
    def devices(cls) -> list[str]:
        """Return every device that SYCL sees."""
        return [_device_name(device) for device in dpctl.get_devices()]

    @classmethod
    def find_device(cls, name: str) -> Any:
        """Return the device that a SYCL filter string selects."""
        return dpnp.empty(0, device=name).device

    def device_name(self, x: Array) -> str:
        """Return the SYCL filter string of the array's device."""
        return _device_name(x.sycl_device)

    def row_major(self, x: Array) -> Array:
        """Return x in row-major order; a copy only if x is in another order."""
        return dpnp.ascontiguousarray(x) if x.ndim else x

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Copy the values to the host."""
        values: numpy.ndarray[Any, Any] = dpnp.asnumpy(x)
        return values

    def synchronize(self) -> None:
        """Wait until the device's queue is empty."""
        self.native_device.wait()


def _device_name(device: Any) -> str:
    return str(device.filter_string)
