"""Every test runs on the backend that XBP_BACKEND names."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from recording import RecordingNamespace
from support import SLOW, backend

import xbp

settings.register_profile("quick", max_examples=5 if SLOW else 30, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("XBP_HYPOTHESIS_PROFILE", "quick"))

if backend.name == "array-api-strict":
    import array_api_strict

    # What a lazy or compiled library could not offer.
    array_api_strict.set_array_api_strict_flags(
        api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False
    )


HOUSE = Path(__file__).parent.parent
if not (HOUSE / "noxfile.py").exists():
    # Installed as xbp_tests: what looks at the documentation, the examples and the sources is not.
    collect_ignore = [
        f"test_{name}.py"
        for name in ("cupy", "examples", "house", "kernels", "notebooks", "planted_changes")
    ]


# What continuous integration sets to have colours, and what a terminal says of itself.
for variable in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE"):
    os.environ.pop(variable, None)


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    """Let Ctrl-C interrupt a test, whatever it did before, and do that again afterwards.

    A job that a shell starts in the background ignores it, and so would all that a test starts. A
    command may ignore it when it ends.
    """
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.fixture(autouse=True)
def _selection() -> Iterator[None]:
    """Leave no selection behind."""
    yield
    xbp.set_backend(None)


RECORDER = pytest.StashKey[RecordingNamespace]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the check against CuPy's signatures."""
    parser.addoption(
        "--record-calls", type=Path, help="Note each call of the namespace in a folder."
    )
    parser.addoption("--calls", type=Path, help="The folder of calls for tests/test_cupy.py.")


def pytest_configure(config: pytest.Config) -> None:
    """Listen to the calls from here on."""
    if config.getoption("--record-calls"):
        config.stash[RECORDER] = RecordingNamespace(backend.xp)
        config.stash[RECORDER].install(backend)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was heard."""
    if path := session.config.getoption("--record-calls"):
        session.config.stash[RECORDER].write(path)
