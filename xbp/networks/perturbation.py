"""Losses of a network with one element moved, for many elements, by a few products.

A difference quotient needs the loss with one element moved, for each element of each parameter.
Only the layer that owns the element computes anew for each. Its outputs become one large batch for
the layers behind it, which treat each sample by itself. No ``backward`` is involved.
"""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral

from xbp.differences import moved
from xbp.functions import label_as_array
from xbp.layers import Affine, Layer, LossLayer
from xbp.layers.containers import run_forward
from xbp.namespace import Array, device_of, namespace_of

# How many arrays of the largest size are alive at once.
_ALIVE = 8


def perturbed_losses(
    layers: Mapping[str, Layer],
    last_layer: LossLayer,
    x: Array,
    t: Array,
    place: tuple[Layer, str],
    elements: Sequence[int],
    step: float,
    memory: float,
) -> Iterator[Array]:
    """Yield the losses with one element of a parameter moved by a step, several at a time.

    Parameters
    ----------
    layers, last_layer
        A network, each of whose layers is `Layer.samplewise`.
    x, t
        A sample or a batch, and its targets.
    place
        The layer that owns the parameter, and its attribute there.
    elements
        Which of its elements, counted along the last axis first.
    step
        How far each is moved.
    memory
        About how many bytes the stacked arrays may take; at least one element is moved at a time.

    Yields
    ------
    Array
        ``(P,)``, in the order of the elements.
    """
    xp = namespace_of(x)
    if x.ndim == 1:
        # The label of one sample may be a number.
        t = label_as_array(t, x) if isinstance(t, Integral) else t
        x, t = x[None, :], t[None, ...]
    stack = list(layers.values())
    # By identity: a class may compare its layers by value.
    number, owner, key = next(
        (number, layer, key)
        for number, layer in enumerate(stack)
        for key, (part, attribute) in layer.params.places.items()
        if part is place[0] and attribute == place[1]
    )
    x, rest = run_forward(stack[:number], x), stack[number + 1 :]
    samples = x.shape[0]
    shapes = [parameter.shape for layer in layers.values() for parameter in layer.params.values()]
    widest = max((length for shape in shapes for length in shape), default=1)
    size = xp.finfo(owner.params[key].dtype).bits / 8
    at_once = max(1, int(memory / (_ALIVE * (samples + 1) * widest * size)))
    for start in range(0, len(elements), at_once):
        group = elements[start : start + at_once]
        y = perturbed_outputs(owner, x, key, group, step)
        count = len(group) * samples
        y = xp.reshape(y, (count, *y.shape[2:]))
        y = run_forward(rest, y)
        targets = xp.broadcast_to(t, (len(group), *t.shape))
        losses = last_layer.losses_of_samples(y, xp.reshape(targets, (count, *t.shape[1:])))
        yield xp.mean(xp.reshape(losses, (len(group), samples)), axis=1)


def perturbed_outputs(
    layer: Layer, x: Array, name: str, elements: Sequence[int], step: float
) -> Array:
    """Return a layer's outputs with one element of a parameter moved, for each of some elements.

    Parameters
    ----------
    layer
        The layer; it is not changed.
    x
        The input, a batch.
    name
        The key of the parameter, ``"W"``.
    elements
        Which of its elements, counted along the last axis first.
    step
        How far each is moved.

    Returns
    -------
    Array
        The outputs, stacked along a new first axis, in the order of the elements.
    """
    if type(layer) is Affine:
        return _perturbed_products(layer, x, name, elements, step)
    value = layer.params[name]
    others = (layer.bound_to({name: moved(value, i, step)}) for i in elements)
    return namespace_of(value).stack([other.forward(x) for other in others])


def _perturbed_products(
    layer: Affine, x: Array, name: str, elements: Sequence[int], step: float
) -> Array:
    """Return the outputs of an affine layer by two products.

    Each column of the output depends on one column of W and one element of b only. So the columns
    that change, one for each element, are the columns of one product.
    """
    xp, device = namespace_of(x), device_of(x)
    count, width = layer.W.shape
    rows = xp.asarray([element // width for element in elements], device=device)
    columns = xp.asarray([element % width for element in elements], device=device)
    W, b = xp.take(layer.W, columns, axis=1), xp.take(layer.b, columns)
    if name == "W":
        W = xp.where(xp.arange(count, device=device)[:, None] == rows, W + step, W)
    else:
        b = b + step
    moved_columns = Affine(W, b).forward(x)
    here = xp.arange(width, device=device) == columns[:, None]
    return xp.where(here[:, None, :], moved_columns.T[:, :, None], layer.forward(x))
