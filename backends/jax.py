"""JAX, on all its devices; training steps are compiled."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from operator import is_not
from threading import Lock
from typing import Any, ClassVar, cast

import jax
import jax.numpy
import numpy

from xbp.backend import Backend
from xbp.engine import MOST_STRUCTURES, Function, Work
from xbp.errors import DTypeError, XbpError
from xbp.namespace import Array
from xbp.recording import untraceable
from xbp.windows import Window

# The compiled loops used last, by device and structure of their work.
_loops: OrderedDict[Any, Callable[..., Any]] = OrderedDict()

# In bytes; larger data are not padded, since that copies them.
_LARGE = 2**26
_lock = Lock()


def _convolution(x: Array, W: Array, b: Array, window: Window) -> Array:
    return _product(x, W, window) + b[:, None, None]


def _product(x: Array, W: Array, window: Window) -> Array:
    edge = [(pad, pad) for pad in window.pad]
    return jax.lax.conv_general_dilated(
        x, W, window.stride, edge, precision=jax.lax.Precision.HIGHEST
    )


def _convolution_dx(dout: Array, W: Array, window: Window, shape: tuple[int, ...]) -> Array:
    x = jax.ShapeDtypeStruct(shape, dout.dtype)
    (dx,) = jax.linear_transpose(lambda x: _product(x, W, window), x)(dout)
    return dx


def _convolution_dW(dout: Array, x: Array, window: Window) -> Array:
    W = jax.ShapeDtypeStruct((dout.shape[1], x.shape[1], *window.size), x.dtype)
    (dW,) = jax.linear_transpose(lambda W: _product(x, W, window), W)(dout)
    return dW


class JaxBackend(Backend):
    """JAX arrays. Devices are named by platform and index: ``cpu``, ``gpu:0``, ``tpu:1``."""

    name = "jax"
    library = jax
    xp = jax.numpy
    operations: ClassVar[Mapping[str, Callable[..., Array]]] = {
        "convolution": _convolution,
        "convolution_dx": _convolution_dx,
        "convolution_dW": _convolution_dW,
    }
    float64_hint = (
        "JAX has its 64-bit mode off; switch it on with jax.config.update('jax_enable_x64', True) "
        "or JAX_ENABLE_X64=1 before any array is made, or use dtype='float32'"
    )

    @classmethod
    def default_device(cls) -> str:
        """Return JAX's first device."""
        return _device_name(jax.devices()[0])

    @classmethod
    def devices(cls) -> list[str]:
        """Return every device of every platform that JAX runs on."""
        platforms = dict.fromkeys([jax.devices()[0].platform, "cpu"])
        return [_device_name(device) for platform in platforms for device in jax.devices(platform)]

    @classmethod
    def find_device(cls, name: str) -> jax.Device:
        """Return JAX's device object for ``platform`` or ``platform:index``."""
        platform, _, index = name.partition(":")
        return jax.devices(platform)[int(index or 0)]

    def device_name(self, x: Array) -> str:
        """Return the device's platform and index."""
        return _device_name(x.device)

    @property
    def default_float(self) -> str:
        """Always float32, for which JAX is made, even in its 64-bit mode."""
        return "float32"

    @property
    def dtypes(self) -> Mapping[str, Any]:
        """JAX's dtypes by name; those of 64 bits only if the 64-bit mode is on."""
        return _dtypes(self.native_device, bool(jax.config.jax_enable_x64))

    def dtype(self, name: str) -> Any:
        """Return JAX's dtype of that name."""
        if name in ("int64", "uint64") and name not in self.dtypes:
            raise self._too_narrow(name)
        return super().dtype(name)

    def _too_narrow(self, name: str) -> DTypeError:
        return DTypeError(f"backend {self.name}:{self.device} has no {name}: {self.float64_hint}")

    def enable_float64(self) -> None:
        """Enable JAX's 64-bit mode for the process."""
        jax.config.update("jax_enable_x64", True)

    def from_numpy(self, host: numpy.ndarray[Any, Any]) -> Array:
        """Return the array on this device; operations on it then run there."""
        if host.dtype.kind in "iu" and host.dtype.name not in self.dtypes and host.size:
            # JAX would silently drop the upper 32 bits of each number.
            limits = numpy.iinfo(numpy.int32 if host.dtype.kind == "i" else numpy.uint32)
            if host.max() > limits.max or host.min() < limits.min:
                raise self._too_narrow(host.dtype.name)
        return jax.device_put(host, self.native_device)

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Wait for the values and return them as a NumPy array."""
        return numpy.asarray(x)

    def synchronize(self) -> None:
        """Wait until all arrays of JAX have been computed."""
        jax.block_until_ready(jax.live_arrays())

    def compile(self, function: Function, *, donate: Sequence[int] = ()) -> Function:
        """Return the function under `jax.jit`."""

        def on_plain(*args: Any) -> Any:
            return _ordered(function(*map(_plain, args)))

        compiled = jax.jit(on_plain, donate_argnums=tuple(donate))

        def call(*args: Any) -> Any:
            try:
                return _plain(compiled(*map(_ordered, args)))
            except (XbpError, OverflowError, jax.errors.JaxRuntimeError):
                raise
            except Exception as error:
                if "Trace" not in str(error):
                    # If the function fails uncompiled as well, this call raises the real error.
                    with jax.disable_jit():
                        function(*args)
                raise untraceable(error) from error

        return cast(Function, call)

    @property
    def loop_length(self) -> int:
        """The number of steps of a loop; only a long one repays its compilation."""
        return 100

    def loop(self, work: Work) -> Callable[..., Array]:
        """Return one compiled loop, which reuses the memory of the state."""
        if work.state is None:
            return super().loop(work)
        compiled = self._compiled_loop(work)
        length, pad = self.loop_length, _Padding()

        def run_on_own_state(rows: Any, *others: Array) -> Array:
            # A copy, since the loop overwrites its state, and the caller may hold these arrays.
            own = jax.tree.map(jax.numpy.copy, _ordered(work.state))
            columns = [jax.numpy.asarray(c) for c in (rows if type(rows) is tuple else (rows,))]
            count = columns[0].shape[0]
            padding = [((0, length - count), *[(0, 0)] * (c.ndim - 1)) for c in columns]
            whole = tuple(map(jax.numpy.pad, columns, padding))
            rows = whole if type(rows) is tuple else whole[0]
            work.state, results = compiled(own, rows, count, pad(others))
            return results[:count]

        return run_on_own_state

    def _compiled_loop(self, work: Work) -> Callable[..., Any]:
        """Return the loop of a work; works of the same structure share a compiled one."""
        structure = work.structure
        if structure is None:
            return self._loop_of(work)
        key = (self.device, structure)
        with _lock:
            if key not in _loops:
                _loops[key] = self._loop_of(work.without_arrays())
                if len(_loops) > MOST_STRUCTURES:
                    _loops.popitem(last=False)
            _loops.move_to_end(key)
            return _loops[key]

    def _loop_of(self, work: Work) -> Callable[..., Any]:
        length = self.loop_length

        def step(state: Any, row: Any, *others: Array) -> tuple[Any, Array]:
            bound = work.bound_to(_plain(state))
            result = bound.step(row, *others)
            return _ordered(bound.state), result

        # Rows and samples are padded, so that other numbers of them need no new compilation.
        def run(state: Any, rows: Any, count: int, others: tuple[Array, ...]) -> Any:
            def body(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
                state, result = step(carry[0], _row_at(i, rows), *others)
                return state, carry[1].at[i].set(result)

            result = self._result_in_a_loop(step, _ordered(state), _row_at(0, rows), *others)
            results = jax.numpy.zeros((length, *result.shape), result.dtype)
            last, results = jax.lax.fori_loop(0, count, body, (_ordered(state), results))
            return _plain(last), results

        compiled, compiled_step = self.compile(run, donate=[0]), self.compile(step, donate=[0])
        is_slow = False

        def loop(state: Any, rows: Any, count: int, others: tuple[Array, ...]) -> Any:
            nonlocal is_slow
            if not is_slow:
                try:
                    return compiled(state, rows, count, others)
                except _SlowInLoops:
                    is_slow = True
            results = []
            for i in range(count):
                state, result = compiled_step(state, _row_at(i, rows), *others)
                results.append(result)
            return _plain(state), jax.numpy.stack(results)

        return loop

    def _result_in_a_loop(self, step: Callable[..., Any], *args: Any) -> Any:
        """Return the shape and dtype of a step's result.

        Raises
        ------
        _SlowInLoops
            If it has convolutions, which XLA computes ten times slower in a loop on a CPU, seen
            with JAX 0.10.
        """
        if jax.config.jax_disable_jit:  # then the step must not be traced either
            return step(*args)[1]
        traced, (_, result) = jax.make_jaxpr(step, return_shape=True)(*args)
        if self.native_device.platform == "cpu" and "conv_general_dilated" in str(traced):
            raise _SlowInLoops
        return result

    def scope(self) -> AbstractContextManager[Any]:
        """Make this device the default for new arrays."""
        device: AbstractContextManager[Any] = jax.default_device(self.native_device)
        return device


class _SlowInLoops(XbpError):
    """A step is better called by itself."""


def _row_at(i: Any, rows: Any) -> Any:
    return jax.tree.map(lambda column: column[i], rows)


class _Padding:
    """Pads data with samples that no row refers to, so that similar lengths share a compiled loop.

    The same data are padded once. Large data are not, since compiling costs little beside them.
    """

    def __init__(self) -> None:
        self.data: tuple[Array, ...] = ()
        self.result: tuple[Array, ...] = ()

    def __call__(self, others: tuple[Array, ...]) -> tuple[Array, ...]:
        if len(others) != len(self.data) or any(map(is_not, others, self.data)):
            self.data, self.result = others, tuple(map(_pad, others))
        return self.result


def _pad(x: Array) -> Array:
    if x.ndim == 0 or x.nbytes > _LARGE:
        return x
    step = 1 << max(x.shape[0].bit_length() - 4, 0)
    more = -x.shape[0] % step
    return jax.numpy.pad(x, ((0, more), *[(0, 0)] * (x.ndim - 1))) if more else x


@cache
def _dtypes(device: jax.Device, in_64_bit_mode: bool) -> Mapping[str, Any]:
    dtypes: Mapping[str, Any] = jax.numpy.__array_namespace_info__().dtypes(device=device)
    return dtypes


def _ordered(tree: Any) -> Any:
    """Return nested values with dictionaries as OrderedDict: JAX sorts the keys of plain ones."""
    if type(tree) is dict:
        return OrderedDict((key, _ordered(part)) for key, part in tree.items())
    return type(tree)(map(_ordered, tree)) if type(tree) in (list, tuple) else tree


def _plain(tree: Any) -> Any:
    if type(tree) is OrderedDict:
        return {key: _plain(part) for key, part in tree.items()}
    return type(tree)(map(_plain, tree)) if type(tree) in (list, tuple) else tree


def _device_name(device: Any) -> str:
    # There is usually one CPU device; accelerators are named with their index.
    if device.platform == "cpu" and device.id == 0:
        return "cpu"
    return f"{device.platform}:{device.id}"
