"""Where NaN or infinity first appear in a network: for a training that has gone astray."""

from collections.abc import Iterator

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
        ``"params['W1']"``, ``"Affine2.forward"``, ``"Relu1.backward"`` ...
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
    for name, layer in network.layers.items():
        x = layer.forward(x)
        yield f"{name}.forward", x
    yield f"{network.last_layer.name}.forward", network.last_layer.forward(x, t)
    dout = network.last_layer.backward()
    yield f"{network.last_layer.name}.backward", dout
    for name, layer in reversed(network.layers.items()):
        dout = layer.backward(dout)
        for gradient in (dout, *layer.grads.values()):
            yield f"{name}.backward", gradient


def _is_finite(array: Array) -> bool:
    xp = namespace_of(array)
    return not is_floating(array) or bool(xp.all(xp.isfinite(array)))
