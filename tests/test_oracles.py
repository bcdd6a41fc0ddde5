"""Independent oracles: PyTorch's and JAX's own differentiation of the same forward code.

They know nothing of the ``backward`` next to it, and agree with it to 1e-12 wherever there is a
derivative.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from networks_by_hand import relu_inputs
from support import HostArray, backend, host

from xbp.layers import AbsoluteWithLoss, Elu, LeakyRelu, MaxPooling, QuantileWithLoss, Relu
from xbp.namespace import Array
from xbp.testing import (
    LAYERS,
    LayerCase,
    LayerTrial,
    NetworkCase,
    Signature,
    layer_cases,
    network_cases,
)
from xbp.testing.agreement import Agreement, require_agreement

AGREEMENT = 1e-12

# Layers without a derivative at 0, or where outputs are equal to targets.
KINKS = (Relu, LeakyRelu, Elu, AbsoluteWithLoss, QuantileWithLoss)

if backend.name == "torch":
    import torch

    def derivatives(
        function: Callable[..., Array], arrays: Sequence[Array], dout: Array
    ) -> list[Array]:
        """Return the derivative with respect to each array, by `torch.autograd`."""
        leaves = [array.detach().clone().requires_grad_() for array in arrays]
        with torch.enable_grad():
            y = function(*leaves)
        return list(torch.autograd.grad(y, leaves, dout, materialize_grads=True))

elif backend.name == "jax":
    import jax

    def derivatives(
        function: Callable[..., Array], arrays: Sequence[Array], dout: Array
    ) -> list[Array]:
        """Return the derivative with respect to each array, by `jax.vjp`."""
        return list(jax.vjp(function, *arrays)[1](dout))

else:
    pytest.skip("no automatic differentiation in this library", allow_module_level=True)


def has_kink(signature: Signature, case: LayerCase) -> HostArray:
    """Tell where each library takes a slope of its choice, or a maximum of equal numbers."""
    x = case.arrays["x"]
    if signature.make in KINKS:
        return np.asarray(x == case.arrays.get("t", 0))
    if signature.make is MaxPooling:
        _, places, counts = np.unique(x, return_inverse=True, return_counts=True)
        return np.asarray(counts[places].reshape(x.shape) > 1)
    return np.zeros(x.shape, dtype=bool)


@pytest.mark.parametrize("signature", LAYERS, ids=str)
def test_a_layer_agrees_with_the_oracle(signature: Signature) -> None:
    @given(layer_cases(signature))
    def agrees(case: LayerCase) -> None:
        trial = LayerTrial(case, backend, "float64")
        names = [name for name in case.arrays if trial.is_differentiable(name)]

        def forward(*arrays: Array) -> Array:
            given_arrays = {**trial.arrays, **dict(zip(names, arrays, strict=True))}
            params = {name: given_arrays[name] for name in signature.params}
            layer = signature.make(**params, **case.options)
            return layer.forward(*(given_arrays[name] for name in signature.inputs))

        dout = trial.put("dout", case.dout)
        oracle = derivatives(forward, [trial.arrays[name] for name in names], dout)

        def agreements(trial: LayerTrial) -> Iterator[Agreement]:
            trial.forward()
            ours = trial.backward(case.dout)
            for name, theirs in zip(names, oracle, strict=True):
                found, expected = ours[name], host(theirs)
                # Relative to what is added up, for a sum may cancel; a probability counts as 1.
                bound = AGREEMENT * trial.rounding(name) / trial.unit
                if name == "x":
                    has_slope = ~has_kink(signature, case)
                    found, expected, bound = (it[has_slope] for it in (found, expected, bound))
                yield Agreement(f"gradient with respect to {name}", found, expected, bound)

        require_agreement(trial, agreements)

    agrees()


@given(network_cases())
def test_a_network_agrees_with_the_oracle(case: NetworkCase) -> None:
    assume(all(np.all(abs(y) > 1e-14 * size) for y, size in relu_inputs(case)))
    network, x, t = case.on(backend, "float64")
    keys = list(network.params)

    def loss(*arrays: Array) -> Array:
        return network.bound_to(dict(zip(keys, arrays, strict=True))).loss(x, t)

    one = backend.xp.ones_like(network.loss(x, t))
    oracle = derivatives(loss, [network.params[key] for key in keys], one)
    ours = network.gradient(x, t)
    for key, theirs in zip(keys, oracle, strict=True):
        found, expected = host(ours[key]), host(theirs)
        scale = 1 + np.max(abs(found))
        assert np.max(abs(found - expected)) <= AGREEMENT * scale, f"{key}\n{case}"
