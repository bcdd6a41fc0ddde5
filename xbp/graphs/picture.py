"""The picture of a graph: nodes and arrows with their texts, as SVG, PNG, DOT or Mermaid text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite, log10
from pathlib import Path

from xbp.errors import BackendUnavailableError, SettingError
from xbp.files import write_file
from xbp.graphs.graphviz import FONT, render

# The opacity of a derivative falls to _FAINTEST over this many powers of ten below the largest.
_DECADES = 6
_FAINTEST = 0.2

# The approximate width of a character, in points.
_CHARACTER = 8

_DERIVATIVE = "#c62828"
_ACTIVE = "#ffe082"

# Escapes of special characters in labels. In Graphviz, HTML-like labels have backslash escapes too.
_HTML_CODES = {"\\": "\\\\", "&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;"}
_MERMAID_CODES = {"\\": "#92;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;"}
_MERMAID_CODES |= {"#": "#35;", "`": "#96;"}

# The zero-width joiner: it joins two emojis into one.
_JOINER = "\u200d"


@dataclass(frozen=True)
class Spot:
    """A node of the picture: an operation, or the name of a variable or of the output."""

    key: str
    label: str
    is_operation: bool = False
    is_active: bool = False


@dataclass(frozen=True)
class Arrow:
    """An arrow from the spot of one key to that of another.

    Attributes
    ----------
    value : str
        The text over the arrow: the value that flows forward; empty if there is none yet.
    derivative : str
        The text under the arrow: the derivative that flows back; empty if there is none yet.
    size : float or None
        The norm of the derivative, if it is an array.
    along : bool
        Whether it leads from one operation to another: such arrows are drawn straight.
    """

    tail: str
    head: str
    value: str = ""
    derivative: str = ""
    size: float | None = None
    along: bool = False


@dataclass(frozen=True)
class Picture:
    """The picture of a graph; a notebook displays it.

    Values are over the arrows and derivatives under them. In a graph drawn from top to bottom,
    values are on the left and derivatives on the right. Of arrays, a derivative with a smaller norm
    is drawn paler.
    """

    spots: tuple[Spot, ...]
    arrows: tuple[Arrow, ...]
    flows_down: bool = False

    def save(self, path: str | Path) -> None:
        """Write the picture to a file.

        Parameters
        ----------
        path
            The suffix sets the format: ``.svg``, ``.png``, ``.dot`` (Graphviz) or ``.mmd``
            (Mermaid).

        Raises
        ------
        SettingError
            If the suffix is another.
        BackendUnavailableError
            If the format is SVG or PNG, and pygraphviz is not installed.
        DataError
            If the file cannot be written.
        """
        write_file(path, self.content(path))

    def content(self, path: str | Path) -> bytes:
        """Return the bytes that `save` writes to a file of that name; it raises the same errors."""
        ways: dict[str, Callable[[], bytes]] = {
            ".svg": lambda: self.svg().encode(),
            ".png": self.png,
            ".dot": lambda: self.dot().encode(),
            ".mmd": lambda: self.mermaid().encode(),
        }
        suffix = Path(path).suffix.lower()
        if suffix not in ways:
            raise SettingError(f"{path}: a picture ends in {', '.join(ways)}, not {suffix!r}")
        return ways[suffix]()

    def svg(self) -> str:
        """Return the picture as SVG text; it raises the errors of `png`."""
        return render(self.dot(), "svg").decode()

    def png(self) -> bytes:
        """Return the picture as PNG.

        Raises
        ------
        BackendUnavailableError
            If pygraphviz is not installed.
        DataError
            If Graphviz cannot write its temporary file.
        """
        return render(self.dot(), "png")

    def _repr_svg_(self) -> str | None:
        try:
            return self.svg()
        except BackendUnavailableError:
            return None  # the notebook shows the text instead

    def dot(self) -> str:
        """Return the graph in DOT, the language of Graphviz."""
        direction = "TB" if self.flows_down else "LR"
        sizes = [arrow.size for arrow in self.arrows if arrow.size and isfinite(arrow.size)]
        return "\n".join(
            [
                "digraph {",
                f'rankdir="{direction}" nodesep="0.15" ranksep="0.1" dpi="96"',
                f'node [fontname="{FONT}" fontsize="12"]',
                'edge [arrowsize="0.7"]',
                *map(_dot_of_spot, self.spots),
                *(
                    _dot_of_arrow(f"a{i}", arrow, max(sizes, default=0), self.flows_down)
                    for i, arrow in enumerate(self.arrows)
                ),
                "}\n",
            ]
        )

    def mermaid(self) -> str:
        """Return the graph as Mermaid text, which GitHub and others draw in Markdown pages."""
        return "\n".join(
            [
                f"flowchart {'TB' if self.flows_down else 'LR'}",
                *(
                    f'    {spot.key}(("{_mermaid_text(spot.label)}"))'
                    if spot.is_operation
                    else f'    {spot.key}["{_mermaid_text(spot.label) or " "}"]'
                    for spot in self.spots
                ),
                *(
                    f"    {arrow.tail} -->{_mermaid_label(arrow)} {arrow.head}"
                    for arrow in self.arrows
                ),
                "",
            ]
        )


@dataclass(frozen=True)
class Film:
    """The pictures of a graph after each of its steps; a text once shown stays.

    Attributes
    ----------
    last : Picture
        The picture after the last step.
    active : tuple of str
        For each step, the key of the spot that computes.
    values, derivatives : tuple of int
        For each arrow of the last picture, the step from which its value and its derivative show.
    """

    last: Picture
    active: tuple[str, ...]
    values: tuple[int, ...]
    derivatives: tuple[int, ...]

    def after(self, step: int) -> Picture:
        """Return the picture after a step, counted from 0, with its spot highlighted."""
        spots = [replace(spot, is_active=spot.key == self.active[step]) for spot in self.last.spots]
        arrows = [
            replace(
                arrow,
                value=arrow.value if value <= step else "",
                derivative=arrow.derivative if derivative <= step else "",
                size=arrow.size if derivative <= step else None,
            )
            for arrow, value, derivative in zip(
                self.last.arrows, self.values, self.derivatives, strict=True
            )
        ]
        return replace(self.last, spots=tuple(spots), arrows=tuple(arrows))


def _dot_of_spot(spot: Spot) -> str:
    label = f"<{_html_text(spot.label)}>" if spot.label else '""'
    if not spot.is_operation:
        return f'{spot.key} [shape="plaintext" label={label} margin="0.05,0"]'
    fill = f' style="filled" fillcolor="{_ACTIVE}"' if spot.is_active else ""
    look = (
        'shape="circle" width="0.45" fixedsize="true" fontsize="18"'
        if len(spot.label) == 1
        else 'shape="ellipse" margin="0.05"'
    )
    return f"{spot.key} [label={label} {look}{fill}]"


def _dot_of_arrow(key: str, arrow: Arrow, largest: float, flows_down: bool) -> str:
    """Return an arrow as two edges, with a node between them that holds its texts and a rule."""
    weight = f"weight={50 if arrow.along else 1}"
    if not arrow.value:
        return f"{arrow.tail} -> {arrow.head} [{weight}]"
    value, derivative = _html_text(arrow.value), " "
    if arrow.derivative:
        colour = f"{_DERIVATIVE}{_opacity(arrow.size, largest):02x}"
        derivative = f'<FONT COLOR="{colour}"><B>{_html_text(arrow.derivative)}</B></FONT>'
    if flows_down:
        # Cells of equal width put the rule in the middle.
        width = f'WIDTH="{_CHARACTER * max(len(arrow.value), len(arrow.derivative))}"'
        rows = (
            f'<TR><TD ALIGN="RIGHT" {width}>{value}</TD><VR/>'
            f'<TD ALIGN="LEFT" {width}>{derivative}</TD></TR>'
        )
    else:
        rows = f'<TR><TD WIDTH="24">{value}</TD></TR><HR/><TR><TD>{derivative}</TD></TR>'
    start, end = ("n", "s") if flows_down else ("w", "e")
    return (
        f'{key} [shape="plaintext" margin="0" width="0" height="0" label=<'
        f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2">{rows}</TABLE>>]\n'
        f'{arrow.tail} -> {key}:{start} [arrowhead="none" {weight}]\n'
        f"{key}:{end} -> {arrow.head} [{weight}]"
    )


def _opacity(size: float | None, largest: float) -> int:
    """Return the opacity of a derivative, 0 to 255, by the logarithm of its size."""
    if size is None or not isfinite(size):
        return 255
    decades = log10(largest / size) if size else _DECADES
    return round(255 * max(1 - decades / _DECADES, _FAINTEST))


def _mermaid_label(arrow: Arrow) -> str:
    texts = [
        _mermaid_text(arrow.value),
        f"<b>{_mermaid_text(arrow.derivative)}</b>" if arrow.derivative else "",
    ]
    label = "<br/>".join(filter(None, texts))
    return f'|"{label}"|' if label else ""


def _html_text(text: str) -> str:
    return _coded(text, _HTML_CODES)


def _mermaid_text(text: str) -> str:
    return _coded(text, _MERMAID_CODES)


def _coded(text: str, codes: Mapping[str, str]) -> str:
    """Return a text with escapes and line breaks; unprintable characters become visible."""
    return "<br/>".join(
        "".join(codes.get(c, c) for c in "".join(map(_visible, line)))
        for line in text.splitlines() or [""]
    )


def _visible(character: str) -> str:
    if character.isspace():
        return " "
    return character if character.isprintable() or character == _JOINER else repr(character)[1:-1]
