"""The examples of the README run as they stand."""

import pathlib
import re

import keras
import numpy as np
import pytest

import crl_keras

REPOSITORY = pathlib.Path(__file__).parents[1]
BLOCKS = re.findall(
    r"```python\n(.*?)```",
    (REPOSITORY / "README.md").read_text(),
    flags=re.DOTALL,
)


def backend_of(block):
    for backend in ("torch", "jax"):
        if f"import {backend}\n" in block:
            return backend
    return keras.backend.backend()


@pytest.mark.parametrize(
    "block",
    [b for b in BLOCKS if backend_of(b) == keras.backend.backend()],
)
def test_block(block):
    names = {name: getattr(crl_keras, name) for name in vars(crl_keras)}
    names["model"] = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3)]
    )
    exec(block, names)
    if "loss" in names:
        value = names["loss"].call
        assert callable(value)
    if "gradient" in names:
        assert np.abs(names["gradient"]).max() > 0


@pytest.mark.once
def test_there_are_blocks_and_links_lead_somewhere():
    text = (REPOSITORY / "README.md").read_text()
    assert len(BLOCKS) == 5
    for target in re.findall(r"\]\(([^)h][^)]*)\)", text):
        assert (REPOSITORY / target).exists(), target
