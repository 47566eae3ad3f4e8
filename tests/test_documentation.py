"""The examples of the README and of the documentation run as they stand."""

import json
import pathlib
import re

import keras
import numpy as np
import pytest

REPOSITORY = pathlib.Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text()
BACKEND = keras.backend.backend()


def blocks(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def backend_of(block):
    """The one whose own package a block uses, or the one of this process."""
    for backend in ("torch", "jax", "tensorflow"):
        if re.search(rf"^import {backend}\b", block, flags=re.MULTILINE):
            return backend
    return BACKEND


def of_this_backend(text):
    return [block for block in blocks(text) if backend_of(block) == BACKEND]


def test_the_first_block_of_the_readme_makes_a_model():
    names = {}
    exec(blocks(README)[0], names)
    inputs, labels = np.zeros((2, 64), np.float32), np.array([0, 2])
    found = names["model"].train_on_batch(inputs, labels)
    # All ten classes are alike: log(10), and the second logarithm.
    value = np.log(10) + np.log(1.5 + 1 - 0.1)
    assert np.ravel(found)[0] == pytest.approx(value, rel=1e-5)


@pytest.mark.once
def test_the_comparison_of_the_readme_runs(capsys):
    """With the model and the data that a reader has, and in less time."""
    block = blocks(README)[1].replace("epochs=20", "epochs=1")
    block = block.replace("seeds=10", "seeds=2, verbose=0")
    x, y = np.random.default_rng(0).normal(size=(40, 64)), np.arange(40) % 10
    names = {"keras": keras, "x_train": x, "y_train": y}
    names |= {"x_test": x, "y_test": y}
    names["build_model"] = lambda: keras.Sequential([keras.layers.Dense(10)])
    exec(block, names)
    assert "the test error of CRL" in " ".join(capsys.readouterr().out.split())
    assert len(names["comparison"].runs) == 8


@pytest.mark.parametrize(
    "page",
    [
        "contributing",
        "fine-grained",
        "index",
        "loss",
        "losses",
        "migrating",
        "networks",
        "what-crl-does",
    ],
)
def test_the_blocks_of_a_page_run_and_print_what_they_say(page, capsys):
    """What a block prints stands in it or under it, maybe with a remark."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text()
    for block in of_this_backend(text):
        exec(block, {})
        said = re.findall(r"^# (.*)$", block, flags=re.MULTILINE)
        after = text.partition(block)[2]
        printed = re.match(r"```\n\nIt prints\n\n```\n(.*?)```", after, re.S)
        if printed:
            said += printed[1].splitlines()
        found = capsys.readouterr().out.splitlines()
        said = said[len(said) - len(found) :]
        for line, expected in zip(found, said, strict=True):
            assert expected.split(", the ")[0] == line, block


@pytest.mark.once
def test_the_guide_for_own_models_runs(tmp_path, monkeypatch, capsys):
    """Its blocks go on from one another, as the cells of its notebook."""
    monkeypatch.chdir(tmp_path)
    text = (REPOSITORY / "docs" / "your-model.md").read_text()
    text = re.sub(r"epochs=\d+", "epochs=1", text)
    text = re.sub(r"seeds=\d", "seeds=2", text)
    names = {}
    for block in blocks(text):
        exec(block, names)
    out = capsys.readouterr().out
    assert "With 2 seeds, the mean test error of CRL" in out
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", "runs.svg"}
    assert len(names["rates"].runs) == 8
    notebook = REPOSITORY / "examples" / "compare_your_model.ipynb"
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    page = (REPOSITORY / "docs" / "your-model.md").read_text()
    assert code == [block.strip() for block in blocks(page)]


@pytest.mark.once
def test_there_are_blocks_and_links_lead_somewhere():
    assert len(blocks(README)) == 2
    assert len(README.splitlines()) < 150
    for target in re.findall(r"\]\(([^)h#][^)]*)\)", README):
        assert (REPOSITORY / target.partition("#")[0]).exists(), target
