"""The figures of a benchmark as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Write a picture of the training steps: how many times the floor each contestant takes.

    Parameters
    ----------
    result
        What ``xbp bench --json`` prints.
    path
        Of the picture; its suffix tells the format, ``.svg`` or ``.png``.
    """
    steps = [found for found in result["measured"] if found["work"] == "step"]
    batches, widths, depths = (
        sorted({found[key] for found in steps}) for key in ("batch", "width", "depth")
    )
    figure = Figure(figsize=(2 + 3 * len(widths), 1.5 + 3 * len(batches)), layout="constrained")
    panels = figure.subplots(len(batches), len(widths), squeeze=False, sharex=True, sharey=True)
    for row, batch in zip(panels, batches, strict=True):
        for panel, width in zip(row, widths, strict=True):
            panel.set_title(f"batch {batch}, width {width}", fontsize="medium")
            for title in steps[0]["seconds"]:
                ratios = {
                    depths.index(found["depth"]): found["seconds"][title]
                    / found["seconds"][result["floor"]]
                    for found in steps
                    if (found["batch"], found["width"]) == (batch, width)
                }
                style = "-o" if title.startswith("xbp") else "--."
                panel.plot(list(ratios), list(ratios.values()), style, label=title)
            panel.set_xticks(range(len(depths)), depths)
            panel.set_yscale("log")
            panel.grid(visible=True, which="both", alpha=0.2)
    figure.supxlabel("affine layers")
    figure.supylabel(f"time of a training step / {result['floor']}")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    figure.savefig(path)
