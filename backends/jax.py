"""JAX, on whatever device it runs; training steps are compiled."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from operator import is_not
from threading import Lock
from typing import Any, cast

import jax
import jax.numpy
import numpy

from xbp.backend import Backend
from xbp.engine import Function, Work
from xbp.errors import DTypeError, TracingError, XbpError
from xbp.namespace import Array
from xbp.recording import untraceable

# Compiled loops by the structure of what they do: the ones used last.
_loops: OrderedDict[Any, Callable[..., Any]] = OrderedDict()
_MOST_LOOPS = 16

# Bytes from which on data are not copied.
_LARGE = 2**26
_lock = Lock()


class JaxBackend(Backend):
    """JAX arrays. Devices are named by platform and index: ``cpu``, ``gpu:0``, ``tpu:1``."""

    name = "jax"
    library = jax
    xp = jax.numpy
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
        """Return JAX's own device for ``platform`` or ``platform:index``."""
        platform, _, index = name.partition(":")
        return jax.devices(platform)[int(index or 0)]

    def device_name(self, x: Array) -> str:
        """Return the device's platform and index."""
        return _device_name(x.device)

    @property
    def default_float(self) -> str:
        """JAX is made for float32, in its 64-bit mode too."""
        return "float32"

    @property
    def dtypes(self) -> Mapping[str, Any]:
        """JAX's dtypes, by name: those of 64 bits only while the 64-bit mode is on."""
        return _dtypes(self.native_device, bool(jax.config.jax_enable_x64))

    def enable_float64(self) -> None:
        """Switch JAX's 64-bit mode on for the process."""
        jax.config.update("jax_enable_x64", True)

    def from_numpy(self, host: numpy.ndarray[Any, Any]) -> Array:
        """Put the array on the device, and keep it there."""
        if host.dtype.kind in "iu" and host.dtype.name not in self.dtypes and host.size:
            # JAX would drop the upper half of each number without a word.
            limits = numpy.iinfo(numpy.int32 if host.dtype.kind == "i" else numpy.uint32)
            if host.max() > limits.max or host.min() < limits.min:
                raise DTypeError(
                    f"backend {self.name}:{self.device} has no {host.dtype}, which these numbers "
                    f"need: {self.float64_hint}"
                )
        return jax.device_put(host, self.native_device)

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Return the values, once they have been computed."""
        return numpy.asarray(x)

    def synchronize(self) -> None:
        """Wait for every array that JAX has promised."""
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
                if isinstance(error, TypeError) and "carry" in str(error):
                    raise TracingError(
                        "what a step changes has the same structure, shapes and dtypes after each "
                        "step, or it cannot be compiled: an optimizer makes room for what it "
                        f"remembers in prepare(params), or says state_names = None ({error})"
                    ) from error
                if "Trace" not in str(error):
                    # What fails uncompiled, too, has another reason: that error is raised here.
                    with jax.disable_jit():
                        function(*args)
                raise untraceable(error) from error

        return cast(Function, call)

    @property
    def loop_length(self) -> int:
        """A compiled loop is worth it when it is long."""
        return 100

    def loop(self, work: Work) -> Callable[..., Array]:
        """Return one compiled loop, that uses the memory of the state again and again."""
        if work.state is None:
            return super().loop(work)
        compiled = self._compiled_loop(work)
        length, padded = self.loop_length, _Padded()

        def run_on_own_state(rows: Any, *others: Array) -> Array:
            # A copy: what the state was before is its owner's, and stays.
            own = jax.tree.map(jax.numpy.copy, _ordered(work.state))
            columns = [jax.numpy.asarray(c) for c in (rows if type(rows) is tuple else (rows,))]
            count = columns[0].shape[0]
            padding = [((0, length - count), *[(0, 0)] * (c.ndim - 1)) for c in columns]
            whole = tuple(map(jax.numpy.pad, columns, padding))
            rows = whole if type(rows) is tuple else whole[0]
            work.state, results = compiled(own, rows, count, padded(others))
            return results[:count]

        return run_on_own_state

    def _compiled_loop(self, work: Work) -> Callable[..., Any]:
        """Return the loop of a work, compiled once for all works of its structure."""
        structure = work.structure
        if structure is None:
            return self._loop_of(work)
        key = (self.device, structure)
        with _lock:
            if key not in _loops:
                _loops[key] = self._loop_of(work.without_arrays())
                if len(_loops) > _MOST_LOOPS:
                    _loops.popitem(last=False)
            _loops.move_to_end(key)
            return _loops[key]

    def _loop_of(self, work: Work) -> Callable[..., Any]:
        length = self.loop_length

        # How many rows there are, and the number of samples up to some, change nothing in what is
        # compiled.
        def run(state: Any, rows: Any, count: int, others: tuple[Array, ...]) -> Any:
            def row_at(i: Any) -> Any:
                return jax.tree.map(lambda column: column[i], rows)

            def step(state: Any, row: Any) -> tuple[Any, Array]:
                bound = work.bound_to(_plain(state))
                result = bound.step(row, *others)
                return _ordered(bound.state), result

            def body(i: Array, carry: tuple[Any, Array]) -> tuple[Any, Array]:
                state, result = step(carry[0], row_at(i))
                return state, carry[1].at[i].set(result)

            # Where nothing is compiled, nothing is to be traced either.
            shape_of = _called if jax.config.jax_disable_jit else jax.eval_shape
            _, result = shape_of(step, _ordered(state), row_at(0))
            results = jax.numpy.zeros((length, *result.shape), result.dtype)
            last, results = jax.lax.fori_loop(0, count, body, (_ordered(state), results))
            return _plain(last), results

        return self.compile(run, donate=[0])

    def scope(self) -> AbstractContextManager[Any]:
        """Make new arrays on this device."""
        device: AbstractContextManager[Any] = jax.default_device(self.native_device)
        return device


def _called(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


class _Padded:
    """Adds samples that no row is of, so that data of another length ask for no other program.

    That is done once for the same data, and not where they are large: there a program is soon made.
    """

    def __init__(self) -> None:
        self.given: tuple[Array, ...] = ()
        self.found: tuple[Array, ...] = ()

    def __call__(self, others: tuple[Array, ...]) -> tuple[Array, ...]:
        if len(others) != len(self.given) or any(map(is_not, others, self.given)):
            self.given, self.found = others, tuple(map(_padded, others))
        return self.found


def _padded(x: Array) -> Array:
    if x.ndim == 0 or x.nbytes > _LARGE:
        return x
    step = 1 << max(x.shape[0].bit_length() - 4, 0)
    more = -x.shape[0] % step
    return jax.numpy.pad(x, ((0, more), *[(0, 0)] * (x.ndim - 1))) if more else x


@cache
def _dtypes(device: jax.Device, in_64_bit_mode: bool) -> Mapping[str, Any]:
    known: Mapping[str, Any] = jax.numpy.__array_namespace_info__().dtypes(device=device)
    return known


def _ordered(tree: Any) -> Any:
    """Return nested values with dictionaries in the order they have: JAX sorts plain ones."""
    if type(tree) is dict:
        return OrderedDict((key, _ordered(part)) for key, part in tree.items())
    return type(tree)(map(_ordered, tree)) if type(tree) in (list, tuple) else tree


def _plain(tree: Any) -> Any:
    if type(tree) is OrderedDict:
        return {key: _plain(part) for key, part in tree.items()}
    return type(tree)(map(_plain, tree)) if type(tree) in (list, tuple) else tree


def _device_name(device: Any) -> str:
    # The CPU is one device to its user; an accelerator says which one it is.
    if device.platform == "cpu" and device.id == 0:
        return "cpu"
    return f"{device.platform}:{device.id}"
