"""The guides run, and their pages and notebooks are made of them."""

import ast
import importlib.util
import json
import pathlib
import re

import keras
import pytest

BACKEND = keras.backend.backend()
DOCS = pathlib.Path(__file__).parents[1] / "docs"
SMALL = {
    "five-minutes": {"EPOCHS": 4},
    "fine-tune": {
        "WEIGHTS": None,
        "IMAGE_SIZE": 32,
        "PHOTOS": 8,
        "HEAD_EPOCHS": 1,
        "EPOCHS": 1,
        "PRECISION": "mixed_bfloat16",
    },
    "segmentation": {"IMAGES": 32, "EPOCHS": 2},
    "soft-labels": {"EPOCHS": 3},
    "pytorch-loop": {"EPOCHS": 4},
    "jax-loop": {"EPOCHS": 4},
    "compare": {"EPOCHS": 1, "SEEDS": 2, "RATES": [0.1]},
    "alpha-and-beta": {"EPOCHS": 1, "SEEDS": 1, "RATES": [0.1]},
    "calibration": {"EPOCHS": 5},
}


@pytest.fixture(scope="module")
def guides():
    spec = importlib.util.spec_from_file_location("guides", DOCS / "guides.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(guides, tmp_path, monkeypatch):
    """Runs a guide in a folder of its own, in seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    policy = keras.config.dtype_policy()
    yield lambda name: guides.run(name, **SMALL[name])
    keras.config.set_dtype_policy(policy)


def test_five_minutes(run):
    names, printed = run("five-minutes")
    assert names["scores"]["accuracy"] > 0.8
    assert "[1.5 1.0]" in f"[{printed[-1]}]"


@pytest.mark.filterwarnings("ignore:.*dtype int64 requested.*:UserWarning")
def test_segmentation(run):
    names, printed = run("segmentation")
    assert 0 < names["scores"]["iou"] <= 1
    before, after = printed[-1].split()
    assert before == after


def test_soft_labels(run):
    names, _ = run("soft-labels")
    batch, labels = names["MixUp"](names["x_train"], names["hard_labels"])[0]
    assert batch.shape == (32, 64)
    assert labels.sum(axis=1) == pytest.approx(1, rel=1e-6)
    assert (labels.max(axis=1) < 1).any()
    for model in ("model", "teacher", "student"):
        assert names["accuracy"](names[model]) > 0.3  # Chance is 0.1.


def test_a_loop_of_the_backend(run):
    if BACKEND == "torch":
        assert run("pytorch-loop")[0]["accuracy"] > 0.8
    elif BACKEND == "jax":
        names, _ = run("jax-loop")
        assert names["accuracy"] > 0.8
        assert names["model_accuracy"] > 0.8


def test_calibration(run):
    _, printed = run("calibration")
    lines = "\n".join(printed).splitlines()
    found = {
        line[:17].strip(): [float(x) for x in re.findall(r"\d\.\d{3}", line)]
        for line in lines
        if "NLL" in line
    }
    accuracy, nll, ece = found.pop("CRL as trained")
    del found["cross-entropy"]
    assert found.keys() == {"CRL, temperature", "CRL, posterior"}
    for other in found.values():
        assert other[0] == accuracy and other[1] < nll and other[2] < ece / 2


# TensorFlow reads the photos on every backend; MobileNetV2 takes long to trace.
@pytest.mark.once
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed:UserWarning")
def test_fine_tune(run):
    names, printed = run("fine-tune")
    assert names["classes"] == ["across", "down", "oblique"]
    assert names["model"].layers[-1].compute_dtype == "float32"
    assert names["backbone"].compute_dtype == "bfloat16"
    assert names["probabilities"].sum() == pytest.approx(1, rel=1e-5)
    # Batch normalisation keeps the statistics that came with the weights.
    for layer in names["backbone"].layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            mean = keras.ops.convert_to_numpy(layer.moving_mean)
            assert not mean.any()


@pytest.mark.once
def test_compare(run):
    names, printed = run("compare")
    assert len(names["comparison"].runs) == 2 * 4
    assert "Steps or weighting" in printed[-2]
    assert len(printed[-1].splitlines()) == 3
    assert "CE with CRL's steps" in printed[-1]


@pytest.mark.once
def test_alpha_and_beta(run):
    names, printed = run("alpha-and-beta")
    assert names["errors"].shape == (1, 4)
    # The weights that the page of the loss measures on the gradient.
    table = (DOCS / "loss.md").read_text()
    for row in printed[1].splitlines()[1:]:
        setting, *weights = re.split(r"\s{2,}", row)
        column = f"| ({setting}) |"
        head = next(x for x in table.splitlines() if column in x)
        at = head.split("|").index(f" ({setting}) ")
        for p, weight in zip((0.01, 0.5, 0.9, 0.99), weights, strict=True):
            line = next(
                x for x in table.splitlines() if x.startswith(f"| {p:g} |")
            )
            assert line.split("|")[at].strip() == weight.strip()


@pytest.mark.once
def test_pages_and_notebooks_are_made_of_the_scripts(guides):
    assert set(guides.ORDER) == {p.stem for p in DOCS.glob("guides/*.py")}
    assert not guides.outdated(), "Run: python docs/guides.py"
    index = (DOCS / "guides" / "index.md").read_text()
    for name in guides.ORDER:
        assert f"]({name}.md)" in index


@pytest.mark.once
def test_the_check_sees_a_change(guides, tmp_path, monkeypatch):
    for path in (DOCS / "guides").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(guides, "FOLDER", tmp_path)
    assert not guides.outdated()
    script = tmp_path / "soft-labels.py"
    script.write_text(script.read_text().replace("EPOCHS = 20", "EPOCHS = 21"))
    assert guides.outdated() == ["soft-labels"]
    book = tmp_path / "compare.ipynb"
    cells = json.loads(book.read_text())
    cells["cells"][0]["source"][0] = "# Another title\n"
    book.write_text(json.dumps(cells, indent=1, sort_keys=True) + "\n")
    assert guides.outdated() == ["soft-labels", "compare"]


@pytest.mark.once
def test_links_of_the_guides_lead_somewhere(guides):
    for path in DOCS.glob("guides/*.md"):
        for target in re.findall(r"\]\(([^)h#][^)]*)\)", path.read_text()):
            page, _, part = target.partition("#")
            found = path.parent / page
            assert found.exists(), f"{path.name}: {target}"
            if part:
                heads = re.findall(r"^#+ (.*)$", found.read_text(), re.M)
                assert part in {_anchor(head) for head in heads}, target


def _anchor(heading):
    kept = re.sub(r"[^\w\s-]", "", heading).strip().lower()
    return re.sub(r"[\s-]+", "-", kept)


@pytest.mark.once
def test_a_constant_that_is_not_there_is_an_error(guides):
    with pytest.raises(ValueError, match="does not set DECADES"):
        guides.run("alpha-and-beta", DECADES=1)


@pytest.mark.once
def test_every_guide_parses_to_cells(guides):
    for name in guides.ORDER:
        source = guides.path_of(name).read_text()
        found = guides.cells(source)
        assert found[0][0] == "text" and found[0][1].startswith("# ")
        code = "\n".join(text for kind, text in found if kind == "code")
        statements = [
            node for node in ast.parse(source).body if not guides._is_text(node)
        ]
        assert len(ast.parse(code).body) == len(statements)
