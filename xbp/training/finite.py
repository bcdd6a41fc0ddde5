"""Where NaN or infinity first appear in a network: for a training that diverges."""

from collections.abc import Iterator
from typing import Any

from xbp.calls import noted_calls
from xbp.namespace import Array, is_floating, namespace_of
from xbp.networks import Network


def first_not_finite(network: Network, x: Array, t: Array) -> str | None:
    """Return what first gives NaN or infinity for a mini-batch; None if nothing does.

    This waits for the device at each layer.

    Parameters
    ----------
    network
        A copy of it computes loss and gradient once.
    x, t
        A mini-batch and its targets.

    Returns
    -------
    str or None
        ``"params['W1']"``, ``"Affine2.forward"``, ``"Residual1.Relu1.backward"`` ...
    """
    # On a copy: the step itself is still to come.
    for where, array in _everything(network.bound_to(network.params), x, t):
        if not _is_finite(array):
            return where
    return None


def parameter_not_finite(network: Network) -> str | None:
    """Return which parameter holds NaN or infinity, ``"params['W1']"``; None if none does."""
    for key, value in network.params.items():
        if not _is_finite(value):
            return f"params[{key!r}]"
    return None


def _everything(network: Network, x: Array, t: Array) -> Iterator[tuple[str, Array]]:
    """Yield each array of a step, in the order in which they are computed."""
    yield "x", x
    for kind, arrays in (("params", network.params), ("state", network.state)):
        for key, value in arrays.items():
            yield f"{kind}[{key!r}]", value
    with noted_calls() as calls:
        loss, _ = network.backpropagate(x, t)
    for call in calls.inner_first():
        gradients = call.layer.grads.values() if call.method == "backward" else ()
        for array in (*_several(call.output), *gradients):
            yield str(call), array
    yield "the loss", loss


def _several(output: Any) -> tuple[Array, ...]:
    return tuple(x for x in (output if isinstance(output, tuple) else (output,)) if x is not None)


def _is_finite(array: Array) -> bool:
    xp = namespace_of(array)
    return not is_floating(array) or bool(xp.all(xp.isfinite(array)))
