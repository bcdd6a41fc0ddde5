"""A library that says nothing of itself: its backend tells namespace, device and dtypes."""

import operator
from types import SimpleNamespace
from typing import Any

import array_api_compat.numpy
import numpy as np
import pytest
from support import backend

import xbp
from xbp import namespace, registry
from xbp.errors import DTypeError, MixedBackendError
from xbp.layers import AddLayer
from xbp.namespace import ToldArrays, device_of, dtype_name, namespace_of
from xbp.precision import widened, widest_float

pytestmark = pytest.mark.skipif(backend.name != "numpy", reason="is about a library of its own")


class BareDType:
    """A dtype whose text is not its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name[0]}{np.dtype(self.name).itemsize}>"


DTYPES = {
    name: BareDType(name)
    for name in ("bool", "int32", "int64", "uint8", "float16", "float32", "float64")
}


class Bare:
    """An array without a namespace, whose device is called otherwise."""

    def __init__(self, host: Any, place: str = "here") -> None:
        self.host = np.asarray(host)
        self.place = place

    shape = property(lambda self: self.host.shape)
    ndim = property(lambda self: self.host.ndim)
    dtype = property(lambda self: DTYPES[self.host.dtype.name])
    T = property(lambda self: Bare(self.host.T))

    def __getitem__(self, index: Any) -> "Bare":
        return Bare(self.host[bare(index)])

    def __bool__(self) -> bool:
        return bool(self.host)

    def __float__(self) -> float:
        return float(self.host)

    def __int__(self) -> int:
        return int(self.host)


def bare(x: Any) -> Any:
    """Return what NumPy takes for what this library takes."""
    if isinstance(x, Bare):
        return x.host
    if isinstance(x, BareDType):
        return np.dtype(x.name)
    return type(x)(map(bare, x)) if isinstance(x, list | tuple) else x


def wrapped(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("device", None)
        found = function(*map(bare, args), **{name: bare(x) for name, x in kwargs.items()})
        if isinstance(found, np.dtype):
            return DTYPES[found.name]
        return Bare(found) if isinstance(found, np.ndarray | np.generic) else found

    return call


for sign in (
    "add",
    "sub",
    "mul",
    "truediv",
    "matmul",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
    "and",
    "or",
):
    of_two = wrapped(getattr(operator, f"__{sign}__"))
    setattr(Bare, f"__{sign}__", of_two)
    setattr(Bare, f"__r{sign}__", lambda self, other, of_two=of_two: of_two(other, self))
for sign in ("neg", "invert"):
    setattr(Bare, f"__{sign}__", wrapped(getattr(operator, f"__{sign}__")))


class BareNamespace:
    """NumPy's functions, which take and return these arrays."""

    def __getattr__(self, name: str) -> Any:
        if name in DTYPES:
            return DTYPES[name]
        if name.startswith("__"):  # nor does it say what it has
            raise AttributeError(name)
        return wrapped(getattr(array_api_compat.numpy, name))


class BareBackend(xbp.Backend):
    """Says all that the library does not."""

    name = "bare"
    library = SimpleNamespace(__name__="bare", __version__="1")
    xp = BareNamespace()
    array_types = (Bare,)
    dtypes = DTYPES
    default_float = "float64"
    default_integer = "int64"
    default_device = classmethod(lambda cls: "here")
    devices = classmethod(lambda cls: ["here", "there"])
    find_device = classmethod(lambda cls, name: name)

    @staticmethod
    def device_of(x: Any) -> str:
        return str(x.place)

    def to_numpy(self, x: Any) -> Any:
        return x.host


class Narrow(BareBackend):
    """Has no float64, whatever the library may have."""

    has_float64 = False
    default_float = "float32"
    default_integer = "int32"


@pytest.fixture(params=[BareBackend, Narrow])
def there(request: pytest.FixtureRequest) -> Any:
    xbp.register_backend("bare", request.param)
    with xbp.use_backend("bare") as found:
        yield found
    known: Any
    for known in (registry._process_factories, registry._instances):
        for spec in [spec for spec in known if spec.startswith("bare")]:
            del known[spec]


def test_its_network_learns_what_numpys_does(there: Any) -> None:
    chance = np.random.default_rng(0)
    x, t = chance.random((30, 4)), chance.integers(0, 3, 30)
    networks = [
        xbp.TwoLayerNet(4, 5, 3, seed=0, dtype="float32", backend=b) for b in (there, "numpy")
    ]
    for network in networks:
        xbp.Trainer(network, xbp.Adam(0.01), batch_size=10, seed=0).fit(x, t, steps=7)
    for key, value in networks[0].params.items():
        assert dtype_name(value.dtype) == "float32"
        np.testing.assert_allclose(value.host, networks[1].params[key], rtol=1e-5, atol=1e-6)
    assert networks[0].dtype == "float32"
    assert networks[0].accuracy(there.asarray(x, "float32"), there.asarray(t)) > 0


def test_what_it_says_of_float64_is_believed(there: Any) -> None:
    widest = "float64" if there.has_float64 else "float32"
    x = there.asarray([[0.5, 1.0]], "float32")
    assert dtype_name(widest_float(x)) == widest
    assert dtype_name(widest_float(there.asarray([1], "int32"))) == widest
    half = there.asarray([1.0], "float16")
    assert dtype_name(widest_float(half)) == ("float16" if widest == "float32" else widest)
    network = xbp.TwoLayerNet(2, 3, 2, seed=0, dtype="float32", weight_init_std=1.0)
    found = network.numerical_gradient(x, there.asarray([1]))
    assert {dtype_name(value.dtype) for value in found.values()} == {widest}
    report = xbp.gradient_check(network, x, there.asarray([1]))
    assert report.passed
    assert report.dtype == widest
    slope = xbp.numerical_gradient(lambda x: namespace_of(x).sum(x * x), x)
    assert dtype_name(slope.dtype) == widest
    np.testing.assert_allclose(slope.host, [[1, 2]], rtol=1e-3)


def test_what_it_says_of_integers_is_believed(there: Any) -> None:
    wide = there.default_integer
    total = AddLayer().forward(there.asarray([200], "uint8"), there.asarray([100], "uint8"))
    assert (dtype_name(total.dtype), int(total.host[0])) == (wide, 300)
    assert dtype_name(widened(there.asarray([1], "uint8"), "here").dtype) == wide


def test_its_devices_are_told_apart(there: Any) -> None:
    assert there.owns(there.asarray([1.0]))
    assert not there.owns(Bare([1.0], "elsewhere"))
    assert xbp.get_backend("bare:there").device == "there"


def test_no_backend_takes_the_arrays_of_another() -> None:
    for kind in (np.ndarray, Bare):
        thief = type("Thief", (BareBackend,), {"array_types": (kind,), "xp": BareNamespace()})
        xbp.register_backend("thief", thief)
        record = xbp.available_backends()["thief"]
        assert not record.usable
        assert "which has a namespace already" in record.reason
    assert xbp.get_backend("numpy").owns(np.ones(2))
    del registry._process_factories["thief"]


class Partial:
    """An array of a library that reports its namespace, which lacks something."""

    __module__ = "partial_library.core"
    ndim = 0

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return PARTIAL


PARTIAL: Any = SimpleNamespace(__name__="partial_library", asarray=np.asarray)


def test_a_backend_completes_the_namespace_of_its_own_library() -> None:
    complete = SimpleNamespace(asarray=np.asarray, log=np.log)
    namespace.tell_arrays(Partial, ToldArrays(complete, lambda x: "there", PARTIAL))
    assert namespace_of(Partial()) is complete
    assert device_of(Partial()) == "there"
    # Who completes it otherwise comes too late.
    with pytest.raises(DTypeError, match="which has a namespace already"):
        namespace.tell_arrays(Partial, ToldArrays(BareNamespace(), lambda x: "there", PARTIAL))
    # And nobody else speaks for it.
    kind = type("Partial", (Partial,), {"__module__": "partial_library.core"})
    with pytest.raises(DTypeError, match="which has a namespace already"):
        namespace.tell_arrays(kind, ToldArrays(complete, lambda x: "there", np))
    other = SimpleNamespace(__name__="partial_library.other")
    namespace.tell_arrays(kind, ToldArrays(complete, lambda x: "there", other))
    assert namespace_of(kind()) is PARTIAL


def test_python_numbers_take_the_default_dtypes_of_the_device(there: Any) -> None:
    assert dtype_name(there.asarray([1, 2]).dtype) == there.default_integer
    assert dtype_name(there.asarray(2.5).dtype) == there.default_float
    assert dtype_name(there.asarray(np.array([1, 2])).dtype) == "int64"
    if there.default_integer == "int32":
        with pytest.raises(DTypeError, match=r"4294967296 is no number of int32, .*dtype='int64'"):
            there.asarray([1, 2**32])


class Later:
    """An array of another library, which array-api-compat knows although its type says nothing."""

    ndim = 0


def test_what_nobody_has_used_yet_is_not_taken_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch's tensors, before the first of them is looked at."""
    kind = type("Later", (Later,), {})
    monkeypatch.setattr("xbp.namespace.array_api_compat.array_namespace", lambda x: np)
    namespace.tell_arrays(kind, ToldArrays(BareNamespace(), lambda x: "bare", None))
    assert namespace_of(kind()) is np
    assert namespace_of(kind()) is np
    assert kind not in namespace._array_types


class Unknown(Bare):
    """An array of a type that no backend has told of."""


def test_what_nobody_told_of_is_no_array() -> None:
    with pytest.raises(DTypeError, match=r"expected an array, got .*Unknown"):
        namespace_of(Unknown([1.0]))
    with pytest.raises(MixedBackendError):
        xbp.layers.MulLayer().forward(np.ones(2), Bare([1.0, 2.0]))
