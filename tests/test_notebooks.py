"""The notebooks of examples/: made from the tutorial's pages, small, and running."""

import os
from pathlib import Path
from typing import Any

import pytest
from support import backend

jupytext = pytest.importorskip("jupytext", reason="pip install jupytext nbclient ipykernel")
nbclient = pytest.importorskip("nbclient", reason="pip install jupytext nbclient ipykernel")
nbformat = pytest.importorskip("nbformat", reason="pip install jupytext nbclient ipykernel")

HOUSE = Path(__file__).parent.parent
NOTEBOOKS = sorted((HOUSE / "examples").glob("*.ipynb"))
LARGEST = 200_000


def sources(notebook: Any) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_each_page_has_a_notebook() -> None:
    names = [path.stem for path in sorted((HOUSE / "docs" / "tutorial").glob("0*.md"))]
    assert [path.stem for path in NOTEBOOKS] == names
    assert len(names) == 9


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_that_of_its_page_with_outputs(path: Path) -> None:
    """If this fails: ``nox -s make_notebooks``."""
    page = HOUSE / "docs" / "tutorial" / f"{path.stem}.md"
    notebook = nbformat.read(path, as_version=4)
    assert sources(notebook) == sources(jupytext.read(page))
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in codes)
    assert all(cell.execution_count for cell in codes)
    assert path.stat().st_size < LARGEST
    assert str(HOUSE) not in path.read_text()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XBP_BACKEND", f"{backend.name}:{backend.device}")
    if "XBP_DATA_DIR" not in os.environ:
        # Nothing is downloaded in a test: the digits that come along take the place of MNIST.
        monkeypatch.setenv("XBP_DATA_DIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    saved = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, timeout=300, resources=resources, coalesce_streams=True
    ).execute()
    made = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    # As many pictures and texts as were saved.
    assert [[output.output_type for output in outputs] for outputs in made] == [
        [output.output_type for output in outputs] for outputs in saved
    ]
