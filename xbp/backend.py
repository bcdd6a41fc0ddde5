"""What the framework needs of an array library: the class `Backend`.

A backend is used only where arrays are created, moved and waited for. A layer takes the namespace
from its arrays. How functions are compiled is in the base class, `Engine`.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property
from typing import Any, ClassVar

import array_api_compat
import numpy as np

from xbp.engine import Engine
from xbp.errors import (
    BackendUnavailableError,
    DataError,
    DTypeError,
    ShapeError,
    XbpError,
    described,
)
from xbp.namespace import (
    Array,
    DType,
    Namespace,
    ToldArrays,
    device_of,
    dtype_name,
    kind_of,
    namespace_of,
    tell_arrays,
    tell_dtype,
)
from xbp.operations import tell_operations


class Backend(Engine):
    """An array library on one device.

    A subclass sets the class attributes `name`, `library` and `xp`, and overrides only what the
    array API standard cannot do for that library.

    Parameters
    ----------
    device
        The device's name, as after the colon of a spec; None for the library's own default.

    Attributes
    ----------
    name : str
        The name under which the backend is registered, ``"torch"``.
    library : module
        The array library; its ``__version__`` is shown.
    device : str
        The name of the device. ``f"{name}:{device}"`` is a spec for this very backend.
    xp
        The array API namespace.
    array_types : tuple of type
        The types of the library's arrays, if these have no ``__array_namespace__``, or if it is
        ``library`` and lacks something that `xp` adds.

    Raises
    ------
    BackendUnavailableError
        If the library has no such device here.
    """

    name: str
    library: Any
    xp: ClassVar[Namespace]
    array_types: ClassVar[tuple[type, ...]] = ()

    def __init__(self, device: str | None = None) -> None:
        self.device = device or ""
        with self._saying("default_device"):
            self.device = device or self.default_device()
        try:
            self.native_device = self.find_device(self.device)
        except XbpError:
            raise
        except Exception as error:
            with self._saying("devices"):
                names = self.devices()
            if self.device in names:
                raise BackendUnavailableError(
                    f"backend {self.name!r} does not find its device {self.device!r} "
                    f"({described(error)}): its author overrides find_device"
                ) from error
            raise BackendUnavailableError(
                f"backend {self.name!r} has no device {self.device!r} here ({error}): "
                f"choose one of {', '.join(names) or 'none: there is no device for it'}"
            ) from error
        for kind in self.array_types:
            tell_arrays(kind, ToldArrays(self.xp, self.device_of, self.library))
        tell_operations(self.xp, self.operations)
        with suppress(Exception):  # raised again when a dtype is asked for
            for name, dtype in self.dtypes.items():
                tell_dtype(dtype, name)

    def __repr__(self) -> str:
        version = getattr(self.library, "__version__", "of unknown version")
        return f"<xbp backend {self.name}:{self.device}, {self.library.__name__} {version}>"

    def __getstate__(self) -> dict[str, Any]:
        # Not every library's objects can be copied or pickled: they are looked up again by name.
        native = ("native_device", "dtypes", "_programs")
        return {name: value for name, value in vars(self).items() if name not in native}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self.native_device = self.find_device(self.device)

    # What a library may have to override -------------------------------------------------------

    @classmethod
    def default_device(cls) -> str:
        """Return the name of the device that is taken when none is asked for."""
        return cls.devices()[0]

    @classmethod
    def devices(cls) -> list[str]:
        """Return the names of the devices that this machine has for the library."""
        return [str(device) for device in cls.xp.__array_namespace_info__().devices()]

    @classmethod
    def find_device(cls, name: str) -> Any:
        """Return the library's own object for a device; raise anything if there is none."""
        if name not in cls.devices():
            raise LookupError(f"unknown device {name!r}")
        devices = {str(device): device for device in cls.xp.__array_namespace_info__().devices()}
        return devices.get(name, name)

    @staticmethod
    def device_of(x: Array) -> Any:
        """Return the library's own object for the device of an array."""
        return x.device

    def device_name(self, x: Array) -> str:
        """Return the name of the device of an array of this library."""
        return str(device_of(x))

    @property
    def default_float(self) -> str:
        """The dtype of an array made of Python floats: the library's own default."""
        with self._saying("default_float"):
            dtypes = self._info.default_dtypes(device=self.native_device)
            return dtype_name(dtypes["real floating"])

    @cached_property
    def dtypes(self) -> Mapping[str, DType]:
        """The library's dtypes that the device computes in, by name."""
        with self._saying("dtypes"):
            dtypes: Mapping[str, DType] = self._info.dtypes(device=self.native_device)
            return dtypes

    @property
    def has_float64(self) -> bool:
        """Whether the device computes in float64."""
        return "float64" in self.dtypes

    float64_hint: ClassVar[str] = "use dtype='float32', or another device"

    def enable_float64(self) -> None:
        """Switch float64 on where a library has it switched off.

        This changes the library for the whole process. It is for programs that own their process;
        xbp itself never calls it on a user's behalf.
        """

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""

    def scope(self) -> AbstractContextManager[Any]:
        """Return a context manager that must surround work on this backend."""
        return nullcontext()

    # What the standard does for every library ----------------------------------------------------

    @property
    def _info(self) -> Any:
        return self.xp.__array_namespace_info__()

    @contextmanager
    def _saying(self, what: str) -> Iterator[None]:
        """Say what its author has to override, if the library does not say it."""
        try:
            yield
        except XbpError:
            raise
        except Exception as error:
            if getattr(error, "name", "") == "xp":  # which its author has not set at all
                raise
            name = getattr(self, "name", type(self).__name__)
            raise BackendUnavailableError(
                f"backend {f'{name}:{self.device}'.rstrip(':')} does not say its {what} "
                f"({described(error)}): its author overrides {what}"
            ) from error

    @property
    def default_integer(self) -> str:
        """The dtype of an array made of Python integers."""
        with self._saying("default_integer"):
            dtypes = self._info.default_dtypes(device=self.native_device)
            return dtype_name(dtypes["integral"])

    def owns(self, x: object) -> bool:
        """Tell whether x is an array of this library on this device."""
        if not self.is_native(x):
            return False
        device = device_of(x)
        return device is None or bool(device == self.native_device)

    def dtype(self, name: str) -> DType:
        """Return the library's dtype of that name, ``"float32"``.

        Raises
        ------
        DTypeError
            If the name is unknown, or the device cannot compute in it.
        """
        if name == "float64" and not self.has_float64:
            raise DTypeError(
                f"backend {self.name}:{self.device} has no float64: {self.float64_hint}"
            )
        try:
            return self.dtypes[name]
        except KeyError:
            names = ", ".join(sorted(self.dtypes))
            raise DTypeError(
                f"backend {self.name}:{self.device} has no dtype {name!r}: choose one of {names}"
            ) from None

    def asarray(self, obj: object, dtype: str | None = None) -> Array:
        """Return an array on this backend, copied only where that is needed.

        Parameters
        ----------
        obj
            Numbers, nested lists of numbers, or an array of any library on any device.
        dtype
            Name of the result's dtype. None keeps an array's dtype, gives Python's numbers
            `default_float` or `default_integer`, and turns float64 into `default_float` on a device
            that lacks it.

        Raises
        ------
        DTypeError
            If obj does not hold numbers, or the device has no such dtype.
        ShapeError
            If nested lists have rows of different lengths.
        DataError
            If elements are masked.
        """
        native_dtype = None if dtype is None else self.dtype(dtype)
        if self.is_native(obj) and not isinstance(obj, np.generic):  # a scalar is no array
            x: Array = obj
            if kind_of(x) not in ("bool", "integral", "real floating"):
                raise _no_numbers(dtype_name(x.dtype), x)
            if not self.owns(x):
                x = array_api_compat.to_device(x, self.native_device)
            if native_dtype is None or x.dtype == native_dtype:
                return x
            if isinstance(x, np.ndarray):
                return _convert(x, dtype)
            return self.xp.astype(x, native_dtype)
        host = to_host(obj)
        if native_dtype is None:
            # Python's numbers have no dtype of their own; NumPy makes float64 and int64 of them.
            has_no_dtype = not hasattr(obj, "dtype")
            if host.dtype == np.float64 and (has_no_dtype or not self.has_float64):
                host = host.astype(self.default_float, copy=False)
            elif host.dtype == np.int64 and has_no_dtype:
                host = self._as_default_integers(host)
        elif dtype_name(host.dtype) != dtype:
            host = _convert(host, dtype)
        try:
            return self.from_numpy(host)
        except XbpError:
            raise
        except TypeError as error:
            if host.dtype.name in self.dtypes:
                raise DTypeError(
                    f"backend {self.name}:{self.device} makes no array of one of NumPy's "
                    f"({described(error)}): its author overrides from_numpy"
                ) from error
            raise DTypeError(
                f"backend {self.name}:{self.device} has no dtype {host.dtype}: name another one, "
                "asarray(x, dtype='float32')"
            ) from error

    def _as_default_integers(self, host: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        dtype = self.default_integer
        try:
            return _convert(host, dtype)
        except DTypeError as error:
            self.dtype("int64")  # says what to do where there is none
            raise DTypeError(
                f"{error}, the default of {self.name}:{self.device}: "
                "name another dtype, asarray(x, dtype='int64')"
            ) from error

    def is_native(self, obj: object) -> bool:
        """Tell whether obj is an array of this library, on whatever device."""
        try:
            return namespace_of(obj) is self.xp
        except DTypeError:
            return False

    def from_numpy(self, host: np.ndarray[Any, Any]) -> Array:
        """Return a NumPy array as an array on this backend."""
        return self.xp.asarray(host, device=self.native_device)

    def row_major(self, x: Array) -> Array:
        """Return x in row-major order: x itself, if it is already.

        Then a mini-batch is read at the speed of the memory, and matrix products of equal arrays
        are rounded alike. A library whose arrays have no strides need not override this.
        """
        return x

    def rows(self, x: Array, numbers: Array) -> Array:
        """Return the samples with these numbers, ``(N, ...)``, of data that `row_major` returned.

        Called in each step of a training, also with traced arrays.
        """
        return namespace_of(x, numbers, where="rows").take(x, numbers, axis=0)

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Return an array of this backend as a NumPy array on the host.

        The result may share memory with x. This waits for the device.
        """
        try:
            return np.from_dlpack(x, device="cpu")
        except Exception as error:  # whatever a library without the protocol raises
            raise DTypeError(
                f"backend {self.name}:{self.device} brings no array to the host "
                f"({described(error)}): its author overrides to_numpy"
            ) from error


def _convert(host: np.ndarray[Any, Any], dtype: str | None) -> np.ndarray[Any, Any]:
    """Return numbers in another dtype; raise `DTypeError` for an integer outside its range."""
    if host.size and host.dtype.kind in "iu" and np.dtype(dtype).kind in "iu":
        limits = np.iinfo(np.dtype(dtype))
        for number in (host.min(), host.max()):
            if not limits.min <= number <= limits.max:
                raise DTypeError(f"asarray: {number} is no number of {dtype}")
    return host.astype(dtype)


def _no_numbers(what: str, obj: Any, host: Any = None) -> DTypeError:
    """Return the error that says what obj is instead of numbers, and how to make numbers of it."""
    if host is None and not isinstance(obj, np.ndarray | np.generic):
        return DTypeError(f"asarray: real numbers are needed, got {what}")  # not on the host
    host = np.asarray(obj if host is None else host)
    is_text = host.dtype.kind in "UST" or (
        host.dtype.kind == "O" and host.size > 0 and all(isinstance(x, str) for x in host.flat)
    )
    advice = ""
    if is_text and host.ndim:
        advice = ": number the classes, names, t = np.unique(t, return_inverse=True)"
    elif host.dtype.kind == "O" and hasattr(obj, "to_numpy"):
        advice = ": x.to_numpy(dtype='float64') makes numbers of it, or dtype='int64' labels"
    elif host.dtype.kind == "O" and host.ndim:
        advice = ": np.asarray(x, dtype='float64') makes numbers of it, if it holds some"
    return DTypeError(f"asarray: real numbers are needed, got {what}{advice}")


def to_host(obj: object) -> np.ndarray[Any, Any]:
    """Return numbers, lists, or an array of any library as a NumPy array.

    Raises
    ------
    DTypeError, ShapeError
        As `Backend.asarray`.
    """
    try:
        if hasattr(obj, "__dlpack__") and not isinstance(obj, np.ndarray | np.generic):
            if hasattr(obj, "resolve_neg"):  # DLPack does not send PyTorch's negative bit
                obj = obj.resolve_neg()
            host = np.from_dlpack(obj, device="cpu")
        else:
            host = np.asarray(obj)
            if isinstance(obj, np.ma.MaskedArray) and np.ma.is_masked(obj):
                raise DataError(
                    "asarray: elements that are masked have no value: fill them, x.filled(0), or "
                    "leave their samples out"
                )
    except XbpError:
        raise
    except Exception as error:
        if isinstance(obj, list | tuple) and isinstance(error, ValueError):
            raise ShapeError(f"asarray: the rows differ in length: {error}") from error
        raise DTypeError(
            f"asarray: cannot make an array of {type(obj).__name__}: {error}"
        ) from error
    if host.dtype.kind not in "biuf":
        raise _no_numbers(f"{type(obj).__name__} of {host.dtype}", obj, host)
    # Not every library takes every layout and byte order.
    return np.asarray(host, dtype=host.dtype.newbyteorder("="), order="C")
