"""The doors of the backend under test: creating, moving, compiling, waiting."""

from typing import Any

import numpy as np
import pytest
from support import arr, backend, dtype_of, host, other

import xbp
from xbp.errors import DTypeError, ShapeError

REAL_DTYPES = ["bool", "uint8", "int32", "int64", "float32", "float64"]


@pytest.mark.parametrize("dtype", REAL_DTYPES)
def test_a_round_trip_through_the_device_is_exact(dtype: str) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
    x = backend.asarray(values)
    assert backend.owns(x)
    assert dtype_of(x) == dtype
    assert host(x).dtype == values.dtype
    np.testing.assert_array_equal(host(x), values)
    assert isinstance(backend.to_numpy(x), np.ndarray)
    assert backend.to_numpy(backend.asarray(1.5)).shape == ()


def test_python_numbers_get_the_default_dtypes() -> None:
    assert dtype_of(backend.asarray([1.0, 2.0])) == backend.default_float
    assert dtype_of(backend.asarray(0.5)) == backend.default_float
    assert dtype_of(backend.asarray([1, 2])) == "int64"
    assert backend.default_float == ("float32" if backend.name in ("torch", "jax") else "float64")


def test_a_dtype_is_asked_for_by_name() -> None:
    for source in ([1, 2], np.array([1.0, 2.0]), arr([1.0, 2.0], "float64"), other.asarray([1, 2])):
        x = backend.asarray(source, "float32")
        assert backend.owns(x)
        assert dtype_of(x) == "float32"
        np.testing.assert_array_equal(host(x), [1, 2])


def test_an_array_of_ours_is_not_copied() -> None:
    x = arr([1.0, 2.0])
    assert backend.asarray(x) is x
    assert backend.asarray(x, dtype_of(x)) is x


def test_arrays_of_every_layout_and_precision_arrive() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    values.flags.writeable = False
    swapped = values.astype(">f4")
    for source in (values, values.T, values[::-1, ::-2], swapped, swapped[0, 0]):
        x = backend.asarray(source)
        np.testing.assert_array_equal(host(x), source)
        assert x.shape == source.shape


def test_half_precision_stays_what_it_is() -> None:
    values = np.array([0.5, 2.0], dtype=np.float16)
    if backend.name == "array-api-strict":
        with pytest.raises(DTypeError, match=r"has no dtype float16: .*dtype='float32'"):
            backend.asarray(values)
    else:
        assert dtype_of(backend.asarray(values)) == "float16"


def test_owns() -> None:
    assert backend.owns(arr([1.0]))
    assert not backend.owns(other.asarray([1.0]))
    for thing in (1.0, [1.0], None, "x"):
        assert not backend.owns(thing)


@pytest.mark.parametrize("thing", ["x", ["x"], None, object(), [1j], {"a": 1}, np.array([1j])])
def test_what_holds_no_numbers_is_refused(thing: Any) -> None:
    with pytest.raises(DTypeError, match=r"asarray: .*numbers are needed"):
        backend.asarray(thing)


def test_complex_arrays_of_ours_are_refused() -> None:
    x = backend.xp.asarray([1j], device=backend.native_device)
    with pytest.raises(DTypeError, match="asarray: real numbers are needed"):
        backend.asarray(x)


def test_ragged_rows_are_refused() -> None:
    with pytest.raises(ShapeError, match="the rows differ in length"):
        backend.asarray([[1.0], [1.0, 2.0]])


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(DTypeError, match=r"has no dtype 'float33': choose one of .*float32"):
        backend.asarray([1.0], "float33")


def test_a_spec_leads_back_to_the_same_device() -> None:
    again = xbp.get_backend(f"{backend.name}:{backend.device}")
    assert again.owns(arr([1.0]))
    assert repr(backend) == f"<xbp backend {backend.name}:{backend.device}>"


def test_every_device_listed_can_be_named() -> None:
    assert backend.devices()
    for device in backend.devices():
        there = xbp.get_backend(f"{backend.name}:{device}")
        x = there.asarray([1.0, 2.0])
        assert there.owns(x)
        assert there.device_name(x) == device
        np.testing.assert_array_equal(there.to_numpy(x), [1, 2])
        assert dtype_of(x) == there.default_float


def test_arrays_move_between_devices() -> None:
    for device in backend.devices():
        there = xbp.get_backend(f"{backend.name}:{device}")
        x = there.asarray(arr([1.0, 2.0], "float32"))
        assert there.owns(x)
        back = backend.asarray(x)
        assert backend.owns(back)
        np.testing.assert_array_equal(host(back), [1, 2])


def test_a_device_without_float64_says_so() -> None:
    there = xbp.get_backend("array-api-strict:no_float64")
    assert not there.has_float64
    assert there.default_float == "float32"
    with pytest.raises(DTypeError, match="array-api-strict:no_float64 has no float64"):
        there.asarray([1.0], "float64")
    assert dtype_of(there.asarray(np.array([1.0]))) == "float32"
    with pytest.raises(DTypeError, match="has no float64"):
        xbp.TwoLayerNet(2, 2, 2, dtype="float64", backend=there)
    network = xbp.TwoLayerNet(2, 3, 2, weight_init_std=1, backend=there, seed=0)
    report = xbp.gradient_check(network, there.asarray([[0.5, -1.0]]), there.asarray([1]))
    assert report.dtype == "float32"
    assert report.passed, str(report)


def test_compile_scope_and_synchronize() -> None:
    def double(x: Any) -> Any:
        return x + x

    with backend.scope(), backend.scope():
        y = backend.compile(double)(arr([1.0, 2.0]))
    backend.synchronize()
    np.testing.assert_array_equal(host(y), [2, 4])
    with backend.scope():
        pass


@pytest.mark.skipif(backend.name != "jax", reason="is about JAX's 64-bit mode")
def test_jax_without_64_bit_mode() -> None:
    jax = backend.library
    with jax.enable_x64(False):
        assert not backend.has_float64
        with pytest.raises(DTypeError, match="jax_enable_x64"):
            backend.asarray([1.0], "float64")
        assert dtype_of(backend.asarray(np.array([1.0]))) == "float32"
        network = xbp.TwoLayerNet(2, 3, 2, weight_init_std=1, seed=0)
        report = xbp.gradient_check(network, backend.asarray([[0.5, -1.0]]), backend.asarray([1]))
        assert report.dtype == "float32"
        assert report.passed, str(report)
    assert backend.has_float64


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's autograd")
def test_torch_records_no_history() -> None:
    x = backend.library.ones(2, 4, requires_grad=True)
    network = xbp.TwoLayerNet(4, 3, 2, seed=0)
    with backend.scope():
        assert not network.predict(x).requires_grad
    assert network.predict(x).requires_grad
    np.testing.assert_array_equal(backend.to_numpy(x), np.ones((2, 4)))
