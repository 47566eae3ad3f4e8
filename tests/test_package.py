"""The package as installed: what it imports, what it says, what it holds."""

import ast
import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re
import runpy
import sys

import keras
import pytest
from fresh import python

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
    "StepMatchedCrossEntropy": "Eq. (11)",
    "StepNormalizedLoss": "what `w` is",
}


def test_the_installed_wheel_is_what_is_tested():
    package = pathlib.Path(crl_keras.__file__).resolve().parent
    assert REPOSITORY / "crl_keras" != package
    assert (package / "py.typed").exists()


def modules():
    found = pkgutil.walk_packages(crl_keras.__path__, "crl_keras.")
    return ["crl_keras", *(module.name for module in found)]


def run_python(code):
    done = python("-W", "error::ImportWarning", "-c", code)
    return done.stdout.split()


def test_importing_loads_keras_and_its_backend_and_nothing_else():
    code = (
        "import sys, keras\n"
        "def loaded(): return {name.split('.')[0] for name in sys.modules}\n"
        "with_keras = loaded()\n"
        "import crl_keras\n"
        "print(*loaded() - with_keras, 'beside', *with_keras)"
    )
    ours, _, with_keras = " ".join(run_python(code)).partition(" beside ")
    assert ours == "crl_keras"
    # Keras itself loads JAX, where it is installed, under any backend.
    assert not ({"tensorflow", "torch"} - {BACKEND}) & {*with_keras.split()}


@pytest.mark.once
def test_the_losses_import_keras_alone():
    allowed = {"keras", "crl_keras", "math", "numbers", "typing"}
    # For the gradient of another loss, from the backend that is in use.
    in_functions = {"step_matching.py": {"jax", "tensorflow", "torch"}}
    for path in (REPOSITORY / "crl_keras" / "losses").rglob("*.py"):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                found = words[1].split(".")[0]
                lazy = (
                    in_functions.get(path.name, set())
                    if line[0] == " "
                    else set()
                )
                assert found in allowed | lazy, line
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


# What the package shows where reports are made from records, without Keras.
OF_RECORDS = ["Comparison", "__version__", "compare_losses", "compare_results"]
MODULES = ["calibration", "layers", "losses", "methods", "metrics"]
MODULES += ["networks", "optimizers"]


@pytest.mark.once
def test_the_package_shows_what_is_public():
    assert dir(crl_keras) == sorted([*OF_RECORDS, *MODULES, *LOSSES])
    assert dir(crl_keras.losses) == sorted([*LOSSES, *COMPARED])
    assert dir(crl_keras.networks) == sorted(
        ["NETWORKS", "build_network", *crl_keras.networks.NETWORKS]
    )
    names = {}
    exec("from crl_keras import *", names)
    assert {*names} - {"__builtins__"} == {*dir(crl_keras)}


@pytest.mark.once
def test_the_package_shows_what_records_need(monkeypatch):
    monkeypatch.setenv("CRL_KERAS_RECORDS_ONLY", "1")
    shown = run_python(
        "import crl_keras, sys; from crl_keras import *; "
        "print('keras' in sys.modules, *dir(crl_keras))"
    )
    assert shown == ["False", *sorted(OF_RECORDS)]


@pytest.mark.once
@pytest.mark.parametrize("name", [*MODULES, "comparing"])
def test_a_module_names_what_is_public(name):
    module = importlib.import_module(f"crl_keras.{name}")
    own = {
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) or inspect.isfunction(value)
        if value.__module__.startswith(module.__name__)
        if not key.startswith("_")
    }
    assert {*module.__all__} - {"NETWORKS"} == own
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.once
def test_the_api_reference_is_up_to_date():
    """It is made of docstrings: `python docs/reference.py` writes it."""
    found = runpy.run_path(REPOSITORY / "docs" / "reference.py")["pages"]()
    written = {*(REPOSITORY / "docs" / "api").iterdir()}
    assert {*found} == written | {REPOSITORY / "docs" / "api.md"}
    for path, text in found.items():
        assert path.read_text() == text, "run docs/reference.py"
        for source in re.findall(r"\[Source\]\(../../(.*)\)", text):
            assert (REPOSITORY / source).exists()


@pytest.mark.once
def test_the_version_is_the_same_everywhere():
    version = crl_keras.__version__
    citation = (REPOSITORY / "CITATION.cff").read_text()
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == version
    changes = (REPOSITORY / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## ([\d.]+)", changes, re.M)
    assert versions[0] == version


@pytest.mark.once
def test_pre_commit_has_the_versions_of_the_tests():
    hooks = (REPOSITORY / ".pre-commit-config.yaml").read_text()
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pins = re.findall(r'"([a-z]+==[\d.]+)"', hooks)
    assert len(pins) == 3 and {*pins} <= {*constraints}


@pytest.mark.once
@pytest.mark.parametrize("name", [*MODULES, "comparing"])
def test_public_signatures_have_types(name):
    """The package has py.typed: editors and type checkers read them."""
    module = importlib.import_module(f"crl_keras.{name}")
    untyped = []
    for thing in (getattr(module, key) for key in module.__all__):
        calls = [thing]
        if inspect.isclass(thing):
            calls = [c for c in vars(thing).values() if inspect.isfunction(c)]
            calls = [
                c
                for c in calls
                if not c.__name__.startswith("_") or c.__name__ == "__init__"
            ]
        elif not inspect.isfunction(thing):
            continue
        for call in calls:
            parts = inspect.signature(call)
            types = {k: p.annotation for k, p in parts.parameters.items()}
            types.pop("self", None)
            types["return"] = parts.return_annotation
            if inspect.Parameter.empty in types.values():
                untyped.append((call.__qualname__, types))
    assert not untyped


# What an extra calls what is imported under another name, or brings with it.
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "markupsafe": "jinja2",
    "tensorflow_datasets": "tensorflow-datasets",
}


def required():
    """(module, extra) of every call of `require` with names in it."""
    for path in sorted(REPOSITORY.glob("crl_keras/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if getattr(getattr(node, "func", None), "id", "") != "require":
                continue
            values = [a.value for a in node.args if hasattr(a, "value")]
            if values and isinstance(values[0], str):
                yield (*values, "experiments")[:2]


@pytest.mark.once
@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is of 3.11")
def test_an_extra_that_is_named_brings_what_is_missing():
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    assert not [name for name in extras if "_" in name]
    found = set(required())
    assert ("keras_cv", "keras-cv") in found and len(found) > 15
    for module, extra in found - {("keras.datasets", "experiments")}:
        name = module.partition(".")[0]
        wanted = {DISTRIBUTIONS.get(name, name), name.replace("_", "-")}
        brought = {re.split("[<>=]", text)[0] for text in extras[extra]}
        assert wanted & brought, (module, extra)


@pytest.mark.once
def test_extras_are_spelled_with_hyphens():
    """pip 23.2 installs nothing for the other spelling."""
    for path in (*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")):
        for extras in re.findall(
            r'pip install "[^"]*\[([^]]*)\]', path.read_text()
        ):
            assert "_" not in extras, path
