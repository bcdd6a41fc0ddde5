"""How the documentation is built: ``nox -s docs``."""

import re
import shutil
import tomllib
from pathlib import Path

import jupytext
import nbformat

import xbp

HERE = Path(__file__).parent
NOTEBOOKS = sorted((HERE.parent / "examples").glob("*.ipynb"))

project = "xbp"
author = "The authors of xbp"
copyright = "2026, the authors of xbp"
version = release = xbp.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_click",
    "sphinx_copybutton",
]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebooks come with their outputs, and the tests run them
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc says it

# Bases that are nobody's to use, and other projects' names: there is no network to look them up.
nitpick_ignore_regex = [
    ("py:.*", r".*\._.*|(collections|numpy|matplotlib|click|hypothesis)\..*"),
    ("py:.*", r"xbp\.layers\.checks\..*"),
]

html_theme = "furo"
html_title = f"xbp {version}"
exclude_patterns = ["_build", *(f"{folder}/0*.md" for folder in ("tutorial", "zh-CN/tutorial"))]


def _place_notebooks() -> None:
    """Put the notebooks where the pages they were made from are, in both languages.

    The Chinese pages have the same code, so the outputs are the same.
    """
    for path in NOTEBOOKS:
        shutil.copy(path, HERE / "tutorial")
        chinese = HERE / "zh-CN" / "tutorial" / path.stem
        notebook = jupytext.read(chinese.with_suffix(".md"))
        executed = nbformat.read(path, as_version=4)
        for cell, original in zip(_codes(notebook), _codes(executed), strict=True):
            cell.outputs, cell.execution_count = original.outputs, original.execution_count
        notebook.metadata = executed.metadata
        nbformat.write(notebook, chinese.with_suffix(".ipynb"))


def _codes(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _place_mistakes() -> None:
    """Write the page of mistakes and messages from the table that the tests hold."""
    table = tomllib.loads((HERE.parent / "tests" / "mistakes.toml").read_text(encoding="utf-8"))
    rows = [
        *((row["code"], row["error"], row["message"]) for row in table["call"]),
        *(
            (row["line"], f"exit status {row['status']}", row["message"])
            for row in table["command"]
        ),
    ]
    page = ["# Mistakes and messages", "", INTRODUCTION.format(len(rows))]
    for done, kind, message in rows:
        page += ["```{code-block} text", done, "```", f"**{kind}**", "", f"> {escape(message)}", ""]
    (HERE / "reference" / "mistakes.md").write_text("\n".join(page), encoding="utf-8")


INTRODUCTION = """\
What a mistake is answered with: {} of them, each made by the tests on every backend. None ends in
an error of an array library, in a traceback on the command line, or in a changed network. In a
message … stands for what differs from machine to machine. `net()` is a small network, `trainer()`
trains it, `sample()` is a sample for it, and `written` and `saved` make files.
"""


def escape(text: str) -> str:
    """Return a text in which nothing means anything to Markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+.!|<>$-])", r"\\\1", text)


_place_notebooks()
_place_mistakes()
