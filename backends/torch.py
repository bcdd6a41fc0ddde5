"""PyTorch, on the CPU, CUDA, Apple's GPU or any other accelerator that it supports."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import array_api_compat.torch
import numpy
import torch

from xbp.backend import Backend
from xbp.convolution import convolution, convolution_dW, convolution_gradients
from xbp.errors import DTypeError, MixedBackendError
from xbp.namespace import Array, DType, dtype_name, is_array
from xbp.recording import ELEMENTWISE, Note, Traced, Writer, values
from xbp.windows import Window

from .images import image, write_image

Call = Callable[[], object]


def _elementwise(function: Any) -> Writer:
    def write(x: Array | float, *others: Array | float, out: Array) -> Call:
        if not isinstance(x, torch.Tensor):
            # PyTorch needs a tensor first; a 0-d one is promoted like a number.
            x = torch.asarray(x, dtype=torch.result_type(x, *others))
        return partial(function, x, *others, out=out)

    return write


def _extremum(function: Any, bound: str) -> Writer:
    def write(x: Array, y: Array | float, *, out: Array) -> Call:
        if isinstance(y, torch.Tensor):
            return partial(function, x, y, out=out)
        return partial(torch.clamp, x, **{bound: y}, out=out)

    return write


def _reduction(function: Any) -> Writer:
    def write(x: Array, *, axis: Any = None, keepdims: bool = False, out: Array) -> Call:
        axes = tuple(range(x.ndim)) if axis is None else axis
        return partial(function, x, axes, keepdims, out=out)

    return write


def _matmul(x: Array, y: Array, *, out: Array) -> Call:
    if x.ndim == y.ndim == 2:  # noqa: PLR2004
        return partial(torch.mm, x, y, out=out)
    if x.ndim == 1 and y.ndim == 2:  # noqa: PLR2004
        return partial(torch.mv, y.T, x, out=out)
    return lambda: out.copy_(torch.matmul(x, y))


def _add_product(y: Array, x: Array, W: Array, a: float = 1, *, out: Array) -> Call:
    return partial(torch.addmm, y, x, W, alpha=a, out=out)


def _take(x: Array, indices: Array, *, axis: int = 0, out: Array) -> Call:
    return partial(torch.index_select, x, axis, indices, out=out)


def _where(condition: Array, *operands: Array | float, out: Array) -> Call:
    x, y = (
        z if isinstance(z, torch.Tensor) else torch.asarray(z, dtype=out.dtype, device=out.device)
        for z in operands
    )
    return partial(torch.where, condition, x.to(out.dtype), y.to(out.dtype), out=out)


def _where_positive(dout: Array, x: Array, *, out: Array) -> Call:
    return partial(torch.ops.aten.threshold_backward.grad_input, dout, x, 0, grad_input=out)


def _astype(x: Array, dtype: DType, *, out: Array) -> Call:
    return partial(out.copy_, x)


def _convolution(x: Array, W: Array, b: Array, window: Window) -> Array:
    if x.device.type != "cpu":  # GPUs may compute their own in TensorFloat-32: three digits
        return convolution.__wrapped__(x, W, b, window)  # type: ignore[attr-defined]
    return torch.conv2d(x, W, b, window.stride, window.pad)


def _convolution_gradients(dout: Array, x: Array, W: Array, window: Window) -> Any:
    if x.device.type != "cpu":
        return convolution_gradients.__wrapped__(dout, x, W, window)  # type: ignore[attr-defined]
    return _gradients(dout, x, W, window, needs_dx=True)


def _convolution_dW(dout: Array, x: Array, window: Window) -> Array:
    if x.device.type != "cpu":
        return convolution_dW.__wrapped__(dout, x, window)  # type: ignore[attr-defined]
    W = dout.new_empty(()).expand(dout.shape[1], x.shape[1], *window.size)  # for its shape alone
    return _gradients(dout, x, W, window, needs_dx=False)[1]


def _gradients(dout: Array, x: Array, W: Array, window: Window, needs_dx: bool) -> Any:
    settings = (window.stride, window.pad, (1, 1), False, (0, 0), 1)
    which = (needs_dx, True, needs_dx)
    return torch.ops.aten.convolution_backward(dout, x, W, (len(W),), *settings, which)


def _write_convolution(x: Array, W: Array, b: Array, window: Window, *, out: Array) -> Call:
    if x.device.type != "cpu":
        return lambda: out.copy_(_convolution(x, W, b, window))
    settings = (window.stride, window.pad, (1, 1), False, (0, 0), 1)
    return partial(torch.ops.aten.convolution.out, x, W, b, *settings, out=out)


WRITERS: dict[str, Writer] = {
    **{name: _elementwise(getattr(torch, name)) for name in ELEMENTWISE if hasattr(torch, name)},
    "equal": _elementwise(torch.eq),  # torch.equal compares whole tensors
    "maximum": _extremum(torch.maximum, "min"),
    "minimum": _extremum(torch.minimum, "max"),
    "sum": _reduction(torch.sum),
    "max": _reduction(torch.amax),
    "min": _reduction(torch.amin),
    "matmul": _matmul,
    "take": _take,
    "where": _where,
    "astype": _astype,
    "convolution": _write_convolution,
    "convolution_dW": lambda *args, out: lambda: out.copy_(_convolution_dW(*args)),
    "image": write_image,
    # Functions that only `fuse` introduces.
    "where_positive": _where_positive,
    "add_product": _add_product,
    "subtract_multiple": lambda y, x, a, out: partial(torch.sub, y, x, alpha=a, out=out),
    "subtract_multiple_of_product": (lambda y, x, W, a, out: _add_product(y, x, W, -a, out=out)),
}


def fuse(first: Note, second: Note) -> Note | None:
    """Return one note for two calls that PyTorch can do in one pass over memory, or None."""
    between = first.output
    args: tuple[Any, ...]
    match (first.name, *first.args), (second.name, *second.args):
        case ("matmul", x, W), ("add", y, b) if y is between and _product_fits(b, x, W, second):
            name, args = "add_product", (b, x, W)
        case ("multiply", a, x), ("subtract", y, ax) if (
            ax is between and y is not between and _multiple_fits(y, a, x)
        ):
            name, args = "subtract_multiple", (y, x, a)
        case ("matmul", x, W), ("subtract_multiple", y, xW, a) if xW is between and _product_fits(
            y, x, W, second
        ):
            name, args = "subtract_multiple_of_product", (y, x, W, a)
        case ("greater", x, low), ("where", mask, dout, other) if (
            mask is between and _are_zero(low, other) and _chosen_fits(dout, x, second.output)
        ):
            name, args = "where_positive", (dout, x)
        case _:
            return None
    return replace(second, name=name, args=args)


def _product_fits(y: Any, x: Traced, W: Traced, second: Note) -> bool:
    """Tell whether torch.addmm can add the product to y: no conversions, in memory of neither."""
    return (
        all(isinstance(operand, Traced) and is_array(operand.value) for operand in (y, x, W))
        and y is not second.args[0 if second.name == "add" else 1]
        and x.ndim == W.ndim == 2  # noqa: PLR2004
        and y.dtype == x.dtype == W.dtype
        and (y.owners | second.output.owners).isdisjoint(x.owners | W.owners)
    )


def _multiple_fits(y: Any, a: Any, x: Any) -> bool:
    """Tell whether torch.sub can subtract a number times x from y, in y's dtype."""
    return (
        type(values(a)) in (int, float)
        and all(isinstance(operand, Traced) and is_array(operand.value) for operand in (y, x))
        and y.dtype == x.dtype
        and y.dtype.is_floating_point
    )


def _are_zero(*operands: Any) -> bool:
    return all(type(operand) in (int, float) and operand == 0 for operand in operands)


def _chosen_fits(dout: Any, x: Traced, output: Traced) -> bool:
    """Tell whether PyTorch's derivative of ReLU can compute dout where x is positive, else 0."""
    return (
        isinstance(dout, Traced)
        and dout.shape == x.shape == output.shape
        and dout.dtype == x.dtype == output.dtype
        and x.dtype.is_floating_point
    )


class TorchBackend(Backend):
    """PyTorch tensors. Devices are named as PyTorch names them: ``cpu``, ``cuda:0``, ``mps``."""

    name = "torch"
    library = torch
    xp = array_api_compat.torch
    writers = WRITERS
    operations: ClassVar[Mapping[str, Callable[..., Array]]] = {
        "convolution": _convolution,
        "convolution_gradients": _convolution_gradients,
        "convolution_dW": _convolution_dW,
        "image": image,
    }
    fuse = staticmethod(fuse)
    float64_hint = "Apple's GPU computes in float32 at most; use dtype='float32'"

    @classmethod
    def default_device(cls) -> str:
        """Return PyTorch's default device."""
        return str(torch.get_default_device())

    @classmethod
    def devices(cls) -> list[str]:
        """Return the CPU and every accelerator that PyTorch sees."""
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        if accelerator is None:
            return ["cpu"]
        count = torch.accelerator.device_count()
        return ["cpu", *(f"{accelerator.type}:{index}" for index in range(count))]

    @classmethod
    def find_device(cls, name: str) -> torch.device:
        """Return PyTorch's device object, after a test that it can store and return a number."""
        probe = torch.zeros(1, device=name)
        probe.item()
        return probe.device

    @property
    def has_float64(self) -> bool:
        """False on Apple's GPU, true on all other devices."""
        return bool(self.native_device.type != "mps")

    def is_native(self, obj: object) -> bool:
        """Tell whether obj is a dense tensor."""
        return isinstance(obj, torch.Tensor) and obj.layout is torch.strided

    def from_numpy(self, host: numpy.ndarray[Any, Any]) -> Array:
        """Return the array as a tensor; on the CPU it shares the memory of a writable array."""
        copy = None if host.flags.writeable else True
        return torch.asarray(host, device=self.native_device, copy=copy)

    def row_major(self, x: Array) -> Array:
        """Return x in row-major order; a copy only if x is in another order."""
        return x.contiguous()

    def to_numpy(self, x: Array) -> numpy.ndarray[Any, Any]:
        """Return the tensor's values, without its autograd history."""
        try:
            values: numpy.ndarray[Any, Any] = x.numpy(force=True)
        except AttributeError as error:
            raise MixedBackendError(
                f"{self.name}: {type(x).__name__} is no tensor: make one by "
                "backend.asarray(...), or ask its own backend"
            ) from error
        except TypeError as error:
            raise DTypeError(f"NumPy has no {dtype_name(x.dtype)}: convert it by .float()") from (
                error
            )
        return values

    def synchronize(self) -> None:
        """Wait for the accelerator; on the CPU there is nothing to wait for."""
        if self.native_device.type != "cpu":
            torch.accelerator.synchronize(self.native_device)

    def scope(self) -> AbstractContextManager[Any]:
        """Disable autograd, since xbp computes its own gradients.

        Not by ``inference_mode``: tensors made in it cannot be updated in place outside it.
        """
        no_grad: AbstractContextManager[Any] = torch.no_grad()
        return no_grad
