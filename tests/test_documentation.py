"""The examples of the README and of the documentation run as they stand."""

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


@pytest.mark.parametrize("block", of_this_backend(README))
def test_a_block_runs_alone(block):
    names = {}
    exec(block, names)
    inputs = np.zeros((2, 64), np.float32)
    labels = np.array([0, 2])
    if "model" in names:
        if "Sparse" not in block:
            labels = np.eye(10)[labels]
        found = names["model"].train_on_batch(inputs, labels)
        # All ten classes are alike: log(10), and the second logarithm.
        value = np.log(10) + np.log(1.5 + 1 - 0.1)
        assert np.ravel(found)[0] == pytest.approx(value, rel=1e-5)
    elif "gradient" in names:
        assert np.abs(names["gradient"]).max() > 0
    else:
        logits = keras.ops.convert_to_tensor(np.eye(3, dtype="float32"))
        labels = np.arange(3) if "Sparse" in block else np.eye(3)
        assert float(names["loss"](labels, logits)) > 0


@pytest.mark.parametrize(
    "page", ["index", "loss", "losses", "migrating", "networks"]
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
def test_there_are_blocks_and_links_lead_somewhere():
    assert len(blocks(README)) == 5
    for target in re.findall(r"\]\(([^)h#][^)]*)\)", README):
        assert (REPOSITORY / target).exists(), target
