"""The check that a samplewise layer gives for a sample alone what it gives in a batch."""

from collections.abc import Iterable
from math import cbrt

from xbp.errors import SettingError
from xbp.layers import Layer
from xbp.layers.tree import walk
from xbp.namespace import Array, epsilon_of, namespace_of
from xbp.sources import place_of


def require_samplewise(layers: Iterable[Layer], x: Array) -> None:
    """Raise `SettingError` if a layer's output for a sample alone differs from that in a batch.

    Parameters
    ----------
    layers
        In order; each says that it is `samplewise`.
    x
        A batch; one sample alone shows nothing.
    """
    pairs = [(layer, _strange_kinds(layer)) for layer in layers]
    if x.ndim == 1 or x.shape[0] == 1 or not any(strange for _, strange in pairs):
        return
    for layer, strange in pairs:
        y = layer.bound_to({}).forward(x)
        for number in (0, x.shape[0] - 1) if strange else ():
            sample = slice(number, number + 1)
            alone = layer.bound_to({}).forward(x[sample, ...])
            if not _is_close(alone, y[sample, ...]):
                raise SettingError(
                    f"{'; '.join(map(place_of, strange))} says samplewise = True, but "
                    f"{layer.name}.forward gives for a sample in a batch something else than for "
                    "the sample alone: say samplewise = False"
                )
        x = y


def _strange_kinds(layer: Layer) -> list[type]:
    """Return the classes of a layer, and of those within it, that are not part of xbp."""
    kinds = [type(part) for part in walk({"": layer}).values()]
    return [kind for kind in kinds if not kind.__module__.startswith("xbp.")]


def _is_close(alone: Array, within: Array) -> bool:
    if alone.shape != within.shape:
        return False
    xp = namespace_of(alone)
    # Only what is finite in both is compared.
    both = xp.isfinite(alone) & xp.isfinite(within)
    size = xp.where(both, xp.abs(within), 0.0)
    difference = xp.where(both, xp.abs(alone - within), 0.0)
    # Products of another size are rounded differently.
    return float(xp.max(difference)) <= cbrt(epsilon_of(within)) * (1 + float(xp.max(size)))
