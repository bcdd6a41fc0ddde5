"""The figures of a benchmark as a picture."""

from collections.abc import Mapping
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from xbp.files import write_file


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write a picture of the training steps: how many times the floor each contestant takes.

    Parameters
    ----------
    result
        What ``xbp bench --json`` prints.
    path
        Of the picture; its suffix tells the format, ``.svg`` or ``.png``.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    steps = [found for found in result["measured"] if found["work"] == "step"]
    batches, widths, depths = (
        sorted({found[key] for found in steps}) for key in ("batch", "width", "depth")
    )
    looks = _looks(result["specs"])
    figure = Figure(figsize=(2.5 + 3 * len(widths), 1 + 3 * len(batches)), layout="constrained")
    panels = figure.subplots(len(batches), len(widths), squeeze=False, sharex=True, sharey=True)
    for row, batch in zip(panels, batches, strict=True):
        for panel, width in zip(row, widths, strict=True):
            panel.set_title(f"batch {batch}, width {width}", fontsize="medium")
            for title, look in looks.items():
                ratios = {
                    depths.index(found["depth"]): found["seconds"][title]
                    / found["seconds"][result["floor"]]
                    for found in steps
                    if (found["batch"], found["width"]) == (batch, width)
                }
                panel.plot(list(ratios), list(ratios.values()), label=title, **look)
            panel.axhline(1, color="black", linewidth=1, label=result["floor"])
            panel.set_xticks(range(len(depths)), depths)
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(ScalarFormatter())
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.grid(visible=True, alpha=0.2)
    figure.supxlabel("affine layers")
    figure.supylabel(f"time of a training step / {result['floor']}")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    content = BytesIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(content, format=path.suffix.removeprefix("."))
    write_file(path, content.getvalue())


def _looks(specs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return how each contestant is drawn: a colour for each backend, and xbp's line is whole."""
    colours = {spec: f"C{n}" for n, spec in enumerate(dict.fromkeys(specs.values()))}
    dashes = {spec: cycle(["--", ":"]) for spec in colours}
    return {
        title: {
            "color": colours[spec],
            "linestyle": "-" if title.startswith("xbp") else next(dashes[spec]),
            "marker": "o" if title.startswith("xbp") else ".",
        }
        for title, spec in specs.items()
    }
