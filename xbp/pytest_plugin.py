"""Fixtures for tests that run on several backends; pytest finds them wherever xbp is installed.

``pytest --xbp-backend numpy --xbp-backend torch:cpu`` runs each test that asks for ``xbp_backend``
once on each. Without the option it is the backend that ``XBP_BACKEND`` names, else NumPy.

``pytest --xbp-suite mine`` runs xbp's own tests on a backend, from the installed package.
"""

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

import xbp
from xbp.registry import DEFAULT, ENVIRONMENT_VARIABLE

OPTION = "--xbp-backend"
SUITE_OPTION = "--xbp-suite"
SUITE = "xbp_tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options ``--xbp-backend`` and ``--xbp-suite``."""
    group = parser.getgroup("xbp")
    group.addoption(
        SUITE_OPTION,
        metavar="SPEC",
        help="Run xbp's own tests on this backend; files that are named are among them, "
        "test_layers.py.",
    )
    group.addoption(
        OPTION,
        action="append",
        metavar="SPEC",
        help="Backend for tests that use the fixture xbp_backend, 'torch' or 'torch:cuda:0'; "
        "repeat it, or separate several by commas.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Refuse an invalid backend before any test runs."""
    for spec in _separated(config.getoption(OPTION) or []):
        _require(spec, OPTION)
    if spec := config.getoption(SUITE_OPTION):
        _require(spec, SUITE_OPTION)
        os.environ[ENVIRONMENT_VARIABLE] = spec
        config.args = _paths_in_suite(config)


def _require(spec: str, option: str) -> None:
    try:
        xbp.get_backend(spec)
    except xbp.errors.XbpError as error:
        raise pytest.UsageError(f"{option} {spec}: {error}") from None


def _paths_in_suite(config: pytest.Config) -> list[str]:
    """Return the folder of xbp's own tests, or the files in it that the command names."""
    places = map(Path, getattr(find_spec(SUITE), "submodule_search_locations", None) or [])
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise pytest.UsageError(f"{SUITE_OPTION}: the tests are not installed: install xbp again")
    are_named = config.args_source == pytest.Config.ArgsSource.ARGS
    paths = [folder / name for name in config.args] if are_named else [folder]
    for path in paths:
        if not Path(str(path).partition("::")[0]).exists():
            names = ", ".join(sorted(file.name for file in folder.glob("test_*.py")))
            raise pytest.UsageError(f"{SUITE_OPTION}: {path.name} is none of {names}")
    return [str(path) for path in paths]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses ``xbp_backend`` once on each backend."""
    if "xbp_backend" in metafunc.fixturenames:
        options = metafunc.config.getoption(OPTION)
        specs = options or [os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT]
        metafunc.parametrize("xbp_backend", _separated(specs), indirect=True)


def _separated(specs: Sequence[str]) -> list[str]:
    """Return each spec once."""
    return list(dict.fromkeys(spec.strip() for group in specs for spec in group.split(",")))


@pytest.fixture
def xbp_backend(request: pytest.FixtureRequest) -> Iterator[xbp.Backend]:
    """A backend, selected for the test, with float64 on and its scope entered."""  # noqa: D401
    backend = xbp.get_backend(request.param)
    backend.enable_float64()
    with xbp.use_backend(backend), backend.scope():
        yield backend


@pytest.fixture
def xbp_stranger(xbp_backend: xbp.Backend) -> xbp.Backend:
    """A backend of another library, whose arrays must not mix with ``xbp_backend``'s."""  # noqa: D401
    from xbp.testing.conformance import stranger_to  # noqa: PLC0415  needs Hypothesis

    return stranger_to(xbp_backend)
