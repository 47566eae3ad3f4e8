"""Makes examples/compare_your_model.ipynb from docs/your-model.md and runs it.

    python docs/notebook.py           # write the notebook, with its outputs
    python docs/notebook.py --check   # run it, write nothing

It needs nbclient, nbformat, ipykernel and a backend. It fails if a cell fails.
With --check it also fails if the notebook and the page have different cells.
"""

import argparse
import pathlib
import re
import sys
import tempfile

import nbformat
from nbclient import NotebookClient

DOCS = pathlib.Path(__file__).parent
PAGE = DOCS / "your-model.md"
NOTEBOOK = DOCS.parent / "examples" / "compare_your_model.ipynb"


def cells(text):
    """Returns the cells of a page: Python blocks, and the text between."""
    made = []
    for i, part in enumerate(
        re.split(r"```python\n(.*?)```\n", text, flags=re.S)
    ):
        if part.strip():
            make = nbformat.v4.new_code_cell if i % 2 else _text_cell
            made.append(make(part.strip(), id=f"cell-{len(made)}"))
    return made


def _text_cell(text, id):
    # The notebook is in another folder than the page.
    text = re.sub(r"\]\((\w[\w/-]*\.md)", r"](../docs/\1", text)
    text = re.sub(r"`examples/compare_your_model.ipynb`[^.]*\.\n", "", text)
    return nbformat.v4.new_markdown_cell(text, id=id)


def run(notebook):
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=900, resources={"metadata": {"path": folder}}
        )
        client.execute()
    for cell in notebook.cells:
        cell.metadata.clear()  # Remove the times of the run.
        if "outputs" in cell:  # Remove overwritten progress bars.
            cell.outputs = [
                output
                for output in cell.outputs
                if "\N{BACKSPACE}" not in output.get("text", "")
                and "s/epoch" not in output.get("text", "")
            ]
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    notebook = nbformat.v4.new_notebook(cells=cells(PAGE.read_text()))
    if arguments.check:
        written = nbformat.read(NOTEBOOK, as_version=4)
        if [c.source for c in written.cells] != [
            c.source for c in notebook.cells
        ]:
            sys.exit(f"{NOTEBOOK} does not match {PAGE}: run docs/notebook.py")
    run(notebook)
    if not arguments.check:
        nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
