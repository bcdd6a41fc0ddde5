"""Pictures embedded in a page as data URIs."""

from base64 import b64encode
from io import BytesIO
from typing import Any


def svg_uri(content: bytes) -> str:
    """Return an SVG picture as a data URI."""
    return _uri(content, "svg+xml")


def image_uri(values: Any, *, colours: str, low: float, high: float) -> str:
    """Return a matrix as a PNG picture in a data URI, with a pixel for each element.

    Parameters
    ----------
    values
        A NumPy array of shape ``(H, W)``.
    colours
        The name of a colour map of matplotlib.
    low, high
        The values at the two ends of the colour map.
    """
    # Imported here, since it is slow.
    from matplotlib.image import imsave  # noqa: PLC0415

    content = BytesIO()
    imsave(content, values, cmap=colours, vmin=low, vmax=high, format="png")
    return _uri(content.getvalue(), "png")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
