"""The images of windows, for libraries whose arrays can be written to in part."""

from collections.abc import Callable, Sequence

from xbp.namespace import Array, namespace_of
from xbp.windows import Window


def image(shifts: Sequence[Array], window: Window, shape: Sequence[int]) -> Array:
    """Return images whose elements sum what the shifts hold for them: see `xbp.windows.image`."""
    xp, like = namespace_of(*shifts), shifts[0]
    out = xp.empty(tuple(shape), dtype=like.dtype, device=like.device)
    write_image(shifts, window, shape, out=out)()
    return out


def write_image(
    shifts: Sequence[Array], window: Window, shape: Sequence[int], *, out: Array
) -> Callable[[], object]:
    """Return a call that writes the images into out."""
    (above, left), (down, right) = window.pad, window.stride
    samples, channels, height, width = shape
    rows, columns = window.grid(shape)
    whole = out
    if above or left:
        padded = (samples, channels, height + 2 * above, width + 2 * left)
        whole = namespace_of(out).empty(padded, dtype=out.dtype, device=out.device)
    places = window.views(whole)
    overlap = down < window.size[0] or right < window.size[1]
    are_all = not overlap and len(places) * rows * columns == whole.shape[2] * whole.shape[3]

    def call() -> None:
        if not are_all:
            whole[...] = 0
        for place, shift in zip(places, shifts, strict=True):
            if overlap:
                place += shift  # noqa: PLW2901  a view, which is changed in place
            else:
                place[...] = shift
        if whole is not out:
            out[...] = whole[:, :, above : above + height, left : left + width]

    return call
