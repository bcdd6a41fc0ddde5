"""Dtypes wide enough, with a backend that owns the array and without one."""

from typing import Any

import pytest
from support import arr, backend, dtype_of, widest

from xbp import precision
from xbp.errors import DTypeError
from xbp.namespace import device_of, dtype_name
from xbp.precision import widened, widest_float


@pytest.fixture(params=[True, False], autouse=True)
def _owner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if not request.param:  # arrays of a library that no backend is used for
        monkeypatch.setattr(precision, "owner_of", lambda x: None)


def test_the_widest_float_of_the_device() -> None:
    assert dtype_name(widest_float(arr([1.0], "float32"))) == widest
    assert dtype_name(widest_float(arr([1]))) == (widest if widest == "float64" else "float32")


def test_narrow_integers_are_widened() -> None:
    wide = backend.default_integer
    assert dtype_of(widened(arr([200], "uint8"), "here")) == wide
    x: Any = arr([1], wide)
    assert widened(x, "here") is x
    floating = arr([1.0], "float32")
    assert widened(floating, "here") is floating


def test_what_cannot_be_widened_is_named() -> None:
    with pytest.raises(DTypeError, match=r"^here: real numbers are needed, got bool"):
        widened(arr([True]), "here")
    unsigned = backend.default_integer.replace("int", "uint")
    if unsigned in backend.dtypes:
        with pytest.raises(
            DTypeError,
            match=f"^here: {unsigned} holds numbers that {backend.default_integer} does not, .*"
            f"dtype='{backend.default_integer}'",
        ):
            widened(arr([1], unsigned), "here")


class Info:
    """What a library without float64 tells of itself, of one device only."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def dtypes(self, *, device: Any) -> dict[str, Any]:
        assert device == self.device
        return {"float32": backend.dtype("float32")}

    def default_dtypes(self, *, device: Any) -> dict[str, Any]:
        assert device == self.device
        return {"real floating": "its default", "integral": backend.dtype("int64")}


def test_a_library_is_asked_of_the_device_of_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "owner_of", lambda x: None)
    x, numbers = arr([1.0], "float32"), arr([1], "int32")
    monkeypatch.setattr(precision, "_info_of", lambda x: Info(device_of(x)))
    assert device_of(x) is not None
    assert widest_float(x) == x.dtype
    assert widest_float(numbers) == "its default"
    assert dtype_of(widened(numbers, "here")) == "int64"
