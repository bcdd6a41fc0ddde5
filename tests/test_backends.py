"""The backend under test: it passes the suite for backends, and has its own ways besides."""

import importlib

import numpy as np
import pytest
from support import arr, backend, dtype_of

import xbp
from xbp.errors import DTypeError, MixedBackendError, ShapeError
from xbp.testing import BackendConformance


class TestConformance(BackendConformance):
    spec = f"{backend.name}:{backend.device}"


def test_half_precision_stays_what_it_is() -> None:
    values = np.array([0.5, 2.0], dtype=np.float16)
    if backend.name == "array-api-strict":
        with pytest.raises(DTypeError, match=r"has no dtype float16: .*dtype='float32'"):
            backend.asarray(values)
    else:
        assert dtype_of(backend.asarray(values)) == "float16"


def test_a_scalar_of_numpys_becomes_an_array() -> None:
    there = arr(np.asarray(2.5))
    for scalar in (np.float64(2.5), np.float32(2.5)):
        found = backend.asarray(scalar)
        assert type(found) is type(there)
        assert float(found) == 2.5
    assert dtype_of(backend.asarray(np.float32(2.5))) == "float32"


def test_complex_arrays_of_ours_are_refused() -> None:
    x = backend.xp.asarray([1j], device=backend.native_device)
    with pytest.raises(DTypeError, match="asarray: real numbers are needed"):
        backend.asarray(x)


def test_messages_say_what_to_do() -> None:
    with pytest.raises(ShapeError, match="the rows differ in length"):
        backend.asarray([[1.0], [1.0, 2.0]])
    with pytest.raises(DTypeError, match=r"has no dtype 'float33': choose one of .*float32"):
        backend.asarray([1.0], "float33")
    for thing in ("x", None, object()):
        with pytest.raises(DTypeError, match=r"asarray: .*numbers are needed"):
            backend.asarray(thing)
    version = f"{backend.library.__name__} {backend.library.__version__}"
    assert repr(backend) == f"<xbp backend {backend.name}:{backend.device}, {version}>"


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


@pytest.mark.skipif(backend.name != "dpnp", reason="is about oneMKL's vector functions")
def test_dpnp_calls_nothing_that_waits_with_pythons_lock() -> None:
    common = importlib.import_module("dpnp.dpnp_algo.dpnp_elementwise_common")
    x = backend.asarray([1.0, 2.0], "float32")
    native = x.get_array()
    asked = {name for name in dir(common.vmi._library) if name.startswith("_mkl_")}
    assert "_mkl_exp_to_call" in asked
    assert common.vmi._mkl_exp_to_call(x.sycl_queue, native, native) == (not x.sycl_device.is_cpu)
    np.testing.assert_allclose(backend.to_numpy(backend.xp.exp(x)), np.exp([1.0, 2.0]), rtol=1e-6)


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's autograd")
def test_torch_records_no_history() -> None:
    x = backend.library.ones(2, 4, requires_grad=True)
    network = xbp.TwoLayerNet(4, 3, 2, seed=0)
    with backend.scope():
        assert not network.predict(x).requires_grad
    assert network.predict(x).requires_grad
    np.testing.assert_array_equal(backend.to_numpy(x), np.ones((2, 4)))


@pytest.mark.skipif(backend.name != "torch", reason="is about PyTorch's arrays")
def test_torch_brings_its_own_tensors_alone_to_the_host() -> None:
    with pytest.raises(MixedBackendError, match="torch: ndarray is no tensor: make one by back"):
        backend.to_numpy(np.ones(2))
