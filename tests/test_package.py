"""The package as installed: what it imports, what it says, what it holds."""

import doctest
import importlib
import inspect
import os
import pathlib
import pkgutil
import subprocess
import sys

import keras
import pytest

import crl_keras

BACKEND = keras.backend.backend()
REPOSITORY = pathlib.Path(__file__).parents[1]
LOSSES = (
    "CompetingRatioLoss",
    "SparseCompetingRatioLoss",
    "competing_ratio_loss",
    "sparse_competing_ratio_loss",
)
# In crl_keras.losses, with what has to be in their documentation.
COMPARED = {
    "FocalLoss": "Lin et al.",
    "SparseFocalLoss": "Lin et al.",
    "focal_loss": "Lin et al.",
    "sparse_focal_loss": "Lin et al.",
    "DualCrossEntropy": "Li et al.",
    "SparseDualCrossEntropy": "Li et al.",
    "dual_cross_entropy": "Li et al.",
    "sparse_dual_cross_entropy": "Li et al.",
    "TamedCrossEntropy": "our reading",
    "SparseTamedCrossEntropy": "our reading",
    "tamed_cross_entropy": "our reading",
    "sparse_tamed_cross_entropy": "our reading",
    "ReleasedCompetingRatioLoss": "ratio.py",
    "released_competing_ratio_loss": "ratio.py",
    "SparseMarginCrossEntropy": "Liu et al.",
    "sparse_margin_cross_entropy": "Liu et al.",
    "sparse_l_softmax_loss": "Liu et al.",
    "sparse_a_softmax_loss": "Liu et al.",
}


def test_the_installed_wheel_is_what_is_tested():
    package = pathlib.Path(crl_keras.__file__).resolve().parent
    assert REPOSITORY / "crl_keras" != package
    assert (package / "py.typed").exists()


def modules():
    found = pkgutil.walk_packages(crl_keras.__path__, "crl_keras.")
    return ["crl_keras", *(module.name for module in found)]


def run_python(code):
    done = subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_importing_loads_keras_and_its_backend_and_nothing_else():
    loaded = "import sys; print(*{m.split('.')[0] for m in sys.modules})"
    with_keras = set(run_python(f"import keras; {loaded}"))
    with_us = set(run_python(f"import crl_keras; {loaded}"))
    assert with_us - with_keras == {"crl_keras"}
    # Keras itself loads JAX, where it is installed, under any backend.
    assert not ({"tensorflow", "torch"} - {BACKEND}) & with_us


@pytest.mark.once
def test_the_losses_import_keras_alone():
    allowed = {"keras", "crl_keras", "math", "numbers", "typing"}
    for path in (REPOSITORY / "crl_keras" / "losses").rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] in allowed, line
            assert "keras.src" not in line


@pytest.mark.parametrize("name", modules())
def test_docstring_examples(name):
    module = importlib.import_module(name)
    # NumPy's and Keras's names are at hand, as in any reader's session.
    import numpy as np

    names = {**vars(module), "keras": keras, "np": np, "crl_keras": crl_keras}
    result = doctest.testmod(module, globs=names)
    assert not result.failed


@pytest.mark.once
@pytest.mark.parametrize("name", [*LOSSES, *COMPARED])
def test_public_names_are_documented(name):
    public = getattr(crl_keras.losses, name)
    if name in LOSSES:
        assert getattr(crl_keras, name) is public
    text = inspect.getdoc(public)
    source = COMPARED.get(name, "Eq. (11)")
    for part in ("Args:", "Raises:", "Example:", "Reference:", source):
        assert part in text
    for argument in inspect.signature(public).parameters:
        assert f"{argument}:" in text or f"`{argument}`" in text
    assert (
        f"crl_keras.losses.{name}"
        in (REPOSITORY / "docs" / "api.md").read_text()
    )


@pytest.mark.once
def test_public_names_are_all_public_names():
    public = {n for n in vars(crl_keras.losses) if not n.startswith("_")}
    public = {
        n for n in public if not inspect.ismodule(vars(crl_keras.losses)[n])
    }
    assert public == {*LOSSES, *COMPARED}
    assert set(LOSSES) <= set(vars(crl_keras))
