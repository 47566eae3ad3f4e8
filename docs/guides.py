"""Makes a page and a notebook from each script in docs/guides, with outputs.

    python docs/guides.py                  # run every guide, write all
    python docs/guides.py soft-labels      # only this one
    python docs/guides.py --check          # compare, run and write nothing

A guide is a Python script. Strings that stand alone at its top level are text
in Markdown; the first begins with the title. The code between two texts is
a cell. A guide runs on JAX, or on the backend that it imports. Install the
extra `experiments` to run the guides.
"""

import argparse
import ast
import contextlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).parent / "guides"
ORDER = (
    "five-minutes",
    "fine-tune",
    "segmentation",
    "soft-labels",
    "pytorch-loop",
    "jax-loop",
    "compare",
    "alpha-and-beta",
    "calibration",
)
# Their output is useless without weights, which need a network.
WITHOUT_OUTPUTS = ("fine-tune",)


def path_of(name):
    return FOLDER / f"{name}.py"


def cells(source):
    """Splits a script into pairs: "text" or "code", and its lines."""
    lines = source.splitlines()
    made, start = [], 0
    for node in ast.parse(source).body:
        if not _is_text(node):
            continue
        made.append(("code", "\n".join(lines[start : node.lineno - 1])))
        made.append(("text", node.value.value))
        start = node.end_lineno
    made.append(("code", "\n".join(lines[start:])))
    return [(kind, text.strip()) for kind, text in made if text.strip()]


def _is_text(node):
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def backend_of(name):
    """Returns the backend that a guide needs, or None."""
    source = path_of(name).read_text()
    found = re.search(r"^import (torch|jax)\b", source, flags=re.MULTILINE)
    return found[1] if found else None


def _shown_on(name):
    return backend_of(name) or "jax"


def run(name, **constants):
    """Runs the cells of a guide.

    Args:
        name: A guide, one of `ORDER`.
        **constants: Values for the constants that the guide sets, such as
            `EPOCHS=1`.

    Returns:
        The names that the guide defined, and a list with the output of each of
        its code cells.
    """
    source = path_of(name).read_text()
    for constant in constants:
        if not re.search(rf"^{constant} = ", source, flags=re.MULTILINE):
            raise ValueError(f"{name}.py does not set {constant}")
    names, printed = {"__name__": name}, []
    for kind, text in cells(source):
        if kind == "text":
            continue
        tree = ast.parse(text)
        for node in tree.body:
            target = getattr(getattr(node, "targets", [None])[0], "id", None)
            if target in constants:
                node.value = ast.parse(repr(constants[target])).body[0].value
        ast.fix_missing_locations(tree)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(tree, path_of(name), "exec"), names)
        lines = out.getvalue().strip().splitlines()
        printed.append("\n".join(line.rstrip() for line in lines))
    return names, printed


def page(name, printed):
    """Returns the guide as Markdown, with each output below its cell."""
    (_, first), *rest = cells(path_of(name).read_text())
    title, _, text = first.partition("\n")
    outputs = f" The outputs are those of {_NAMES[_shown_on(name)]} on a CPU."
    if name in WITHOUT_OUTPUTS:
        outputs = ""
    parts = [
        title,
        f"*Open it as a [notebook]({name}.ipynb), or run the script "
        f"`docs/guides/{name}.py`.{outputs}*",
        text.strip(),
    ]
    printed = iter(printed)
    for kind, text in rest:
        if kind == "text":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        if out := next(printed):
            parts.append(f"```text\n{out}\n```")
    return "\n\n".join(parts) + "\n"


_NAMES = {"jax": "JAX", "torch": "PyTorch"}


def notebook(name, printed):
    """Returns the guide as a notebook, in Jupyter's format 4.5."""
    made, printed = [], iter(printed)
    for i, (kind, text) in enumerate(cells(path_of(name).read_text())):
        cell = {
            "cell_type": "code" if kind == "code" else "markdown",
            "id": f"cell-{i}",
            "metadata": {},
            "source": text.splitlines(keepends=True),
        }
        if kind == "code":
            out = next(printed)
            outputs = [
                {
                    "name": "stdout",
                    "output_type": "stream",
                    "text": f"{out}\n".splitlines(keepends=True),
                }
            ]
            cell |= {"execution_count": None, "outputs": outputs if out else []}
        made.append(cell)
    backend = backend_of(name)
    if backend:  # A notebook cannot set it on a command line.
        code = next(cell for cell in made if cell["cell_type"] == "code")
        before = f'import os\n\nos.environ["KERAS_BACKEND"] = "{backend}"\n\n'
        code["source"] = before.splitlines(keepends=True) + code["source"]
    whole = {
        "cells": made,
        "metadata": {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(whole, indent=1, sort_keys=True) + "\n"


def printed_in(text):
    """Returns the output of each block of Python on a page."""
    return [
        out.strip()
        for out in re.findall(
            r"```python\n.*?\n```\n(?:\n```text\n(.*?)\n```)?", text, re.S
        )
    ]


def outdated():
    """Returns the guides whose page or notebook does not match the script."""
    found = []
    for name in ORDER:
        files = FOLDER / f"{name}.md", FOLDER / f"{name}.ipynb"
        if not all(file.exists() for file in files):
            found.append(name)
            continue
        text, written = (file.read_text() for file in files)
        printed = printed_in(text)
        codes = [kind for kind, _ in cells(path_of(name).read_text())]
        if (
            len(printed) != codes.count("code")
            or page(name, printed) != text
            or notebook(name, printed) != written
        ):
            found.append(name)
    return found


def _printed_by(name):
    """Runs a guide in its own process and folder; returns its outputs."""
    if name in WITHOUT_OUTPUTS:
        return [""] * [k for k, _ in cells(path_of(name).read_text())].count(
            "code"
        )
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run(
            [sys.executable, pathlib.Path(__file__).resolve(), "--run", name],
            env=dict(os.environ, KERAS_BACKEND=_shown_on(name)),
            cwd=folder,
            stdout=subprocess.PIPE,
            check=True,
        )
    return json.loads(found.stdout)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("guides", nargs="*", metavar="GUIDE")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        name = arguments.run
        print(json.dumps(run(name)[1]))
    elif arguments.check:
        if names := outdated():
            sys.exit(f"Run: python docs/guides.py {' '.join(names)}")
    else:
        for name in arguments.guides or ORDER:
            printed = _printed_by(name)
            (FOLDER / f"{name}.md").write_text(page(name, printed))
            (FOLDER / f"{name}.ipynb").write_text(notebook(name, printed))
            print(f"Wrote {FOLDER / name}.md and .ipynb")


if __name__ == "__main__":
    main()
