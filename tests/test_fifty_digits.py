"""An oracle of 50 digits: mparray, the third-party backend of examples/backends/mparray."""

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from support import backend, widest

import xbp
from xbp.testing import LAYERS, LayerCase, LayerTrial, Signature, layer_cases
from xbp.testing.trial import MOST_RUNS

record = xbp.available_backends().get("mparray")
if record is None or not record.usable:
    pytest.skip("pip install ./examples/backends/mparray", allow_module_level=True)

oracle = xbp.get_backend("mparray")


def derivative(case: LayerCase, name: str, trial: LayerTrial) -> Any:
    trial.forward()
    return trial.backward(case.dout)[name]


@pytest.mark.parametrize("signature", LAYERS, ids=str)
def test_a_gradient_is_exact_but_for_its_roundings(signature: Signature) -> None:
    @given(layer_cases(signature, largest=1e3))
    def is_exact(case: LayerCase) -> None:
        trial = LayerTrial(case, backend, widest)
        trial.forward()
        ours = trial.backward(case.dout)
        with oracle.scope():
            exact = LayerTrial(case, oracle, "float64")
            exact.forward()
            for name, true in exact.backward(case.dout).items():
                apart = abs(ours[name] - true)
                bound = trial.rounding(name)
                if (apart > bound).any():  # terms cancel
                    bound = bound + trial.noise(partial(derivative, case, name), MOST_RUNS)
                assert (apart <= bound).all(), f"{signature}, {name}: {apart} > {bound}\n{case}"

    is_exact()


def test_the_oracle_has_fifty_digits() -> None:
    with oracle.scope():
        third = oracle.asarray(1.0) / 3
        assert abs(float(third * 3 - 1)) < 1e-49
        assert 0 < abs(float(third - 1 / 3)) < 1e-16
