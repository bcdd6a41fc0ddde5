"""Small pictures inside a page: samples and weights."""

from base64 import b64encode
from io import BytesIO
from typing import Any


def svg_uri(content: bytes) -> str:
    """Return the address of a picture that is written in the address itself."""
    return _uri(content, "svg+xml")


def image_uri(values: Any, *, colours: str, low: float, high: float) -> str:
    """Return a picture of a matrix, a pixel for each element.

    Parameters
    ----------
    values
        A NumPy array ``(H, W)``.
    colours
        The name of a colour map of matplotlib.
    low, high
        The values at its two ends.
    """
    # Slow to import.
    from matplotlib.image import imsave  # noqa: PLC0415

    content = BytesIO()
    imsave(content, values, cmap=colours, vmin=low, vmax=high, format="png")
    return _uri(content.getvalue(), "png")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
