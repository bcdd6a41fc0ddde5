"""Make the notebooks of examples/ from docs/tutorial/: ``nox -s make_notebooks``."""

import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
SECONDS = 300


def main(names: list[str]) -> None:
    """Make those with these names, or all."""
    for page in sorted((HERE / "tutorial").glob("0*.md")):
        if names and page.stem not in names:
            continue
        notebook = jupytext.read(page)
        NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", coalesce_streams=True
        ).execute()
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        for number, cell in enumerate(notebook.cells):
            # The same page gives the same file.
            cell.id = f"cell-{number}"
            cell.metadata = {}
        nbformat.write(notebook, EXAMPLES / f"{page.stem}.ipynb")
        print(page.stem)


if __name__ == "__main__":
    main(sys.argv[1:])
