"""Fixtures for tests that run on several backends; pytest finds them wherever xbp is installed.

``pytest --xbp-backend numpy --xbp-backend torch:cpu`` runs each test that asks for ``xbp_backend``
once on each. Without the option it is the backend that ``XBP_BACKEND`` names, else NumPy.
"""

import os
from collections.abc import Iterator, Sequence

import pytest

import xbp
from xbp.registry import DEFAULT, ENVIRONMENT_VARIABLE

OPTION = "--xbp-backend"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option ``--xbp-backend``."""
    parser.getgroup("xbp").addoption(
        OPTION,
        action="append",
        metavar="SPEC",
        help="Backend for tests that use the fixture xbp_backend, 'torch' or 'torch:cuda:0'; "
        "repeat it, or separate several by commas.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuse an invalid backend before any test runs."""
    for spec in _separated(config.getoption(OPTION) or []):
        try:
            xbp.get_backend(spec)
        except xbp.errors.XbpError as error:
            raise pytest.UsageError(f"{OPTION} {spec}: {error}") from None


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
