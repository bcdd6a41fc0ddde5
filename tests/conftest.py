"""Every test runs on the backend that XBP_BACKEND names."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings
from support import backend

import xbp

settings.register_profile("quick", max_examples=30, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=10_000, deadline=None)
settings.load_profile(os.environ.get("XBP_HYPOTHESIS_PROFILE", "quick"))

if backend.name == "array-api-strict":
    import array_api_strict

    # What a lazy or compiled library could not offer.
    array_api_strict.set_array_api_strict_flags(
        api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False
    )


@pytest.fixture(autouse=True)
def _selection() -> Iterator[None]:
    """Leave no selection behind."""
    yield
    xbp.set_backend(None)
