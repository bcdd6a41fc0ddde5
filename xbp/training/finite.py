"""Where NaN or infinity first appear in a network: for a training that diverges."""

from typing import Any

from xbp.calls import LayerCall, noted_calls
from xbp.namespace import Array, is_floating, namespace_of
from xbp.networks import Network
from xbp.recording import flatten


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
    arrays = {"x": x}
    for kind, items in (("params", network.params), ("state", network.state)):
        arrays |= {f"{kind}[{key!r}]": value for key, value in items.items()}
    for where, array in arrays.items():
        if not _is_finite(array):
            return where
    # On a copy: the step itself is still to come.
    with noted_calls(_look) as root:
        loss, _ = network.bound_to(network.params).backpropagate(x, t)
    call = next((call for call in root.inner_first() if not call.output), None)
    if call is not None:
        return str(call)
    return None if _is_finite(loss) else "the loss"


def parameter_not_finite(network: Network) -> str | None:
    """Return which parameter holds NaN or infinity, ``"params['W1']"``; None if none does."""
    for key, value in network.params.items():
        if not _is_finite(value):
            return f"params[{key!r}]"
    return None


def _look(call: LayerCall, output: Any) -> Any:
    """Keep of a call whether all that it computed is finite, before others change it in place."""
    arrays = flatten(output)[0]
    if call.method == "backward":
        arrays += [getattr(call.layer, f"d{name}", None) for name in call.layer.param_names]
    call.output = all(_is_finite(x) for x in arrays if hasattr(x, "dtype"))
    return output


def _is_finite(array: Array) -> bool:
    xp = namespace_of(array)
    return not is_floating(array) or bool(xp.all(xp.isfinite(array)))
