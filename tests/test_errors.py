"""Every error derives from XbpError, and from the builtin that a Python user would catch."""

import pytest

from xbp import errors

TABLE = {
    "BackendNotFoundError": LookupError,
    "BackendUnavailableError": ImportError,
    "ParameterNotFoundError": KeyError,
    "ShapeError": ValueError,
    "DTypeError": TypeError,
    "MixedBackendError": TypeError,
    "DataError": ValueError,
    "UndefinedOutputError": ValueError,
    "DivergenceError": ArithmeticError,
    "SettingError": ValueError,
    "TracingError": TypeError,
    "CheckpointError": ValueError,
    "CallOrderError": RuntimeError,
}


@pytest.mark.parametrize("name", TABLE)
def test_an_error_has_its_builtin(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, errors.XbpError)
    assert issubclass(error, TABLE[name])


def test_the_table_is_complete() -> None:
    found = {name for name, thing in vars(errors).items() if isinstance(thing, type)}
    assert found == {*TABLE, "XbpError"}
