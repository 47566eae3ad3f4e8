"""Runs of B-CNN, DFL-CNN and DCL: killed, resumed, compared, kept, asked."""

import dataclasses

import disk_layouts
import keras
import numpy as np
import pytest

from crl_keras.experiments.analysis.comparison import compare
from crl_keras.experiments.analysis.report import to_html
from crl_keras.experiments.data.image_files import IncompleteDataWarning
from crl_keras.experiments.runs import sweep
from crl_keras.experiments.runs import training
from crl_keras.experiments.runs.backbone_names import find_backbone
from crl_keras.experiments.runs.models import build_model
from crl_keras.experiments.runs.prediction import load_classifier
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.sweep import Plan
from crl_keras.experiments.runs.sweep import make_configs
from crl_keras.methods import MultiHeadClassifier

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{IncompleteDataWarning.__module__}.IncompleteDataWarning"
)
METHODS = ("bcnn", "dfl(filters=2,start_images=2)", "dcl(regions=4)")


@pytest.fixture
def backbone(tmp_path):
    """A file of one's own, `(network, path)`: maps of 8 x 8 and of 4 x 4."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 16, 3))
    conv = keras.layers.Conv2D
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = conv(6, 3, strides=2, padding="same", use_bias=False, name="a")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.ReLU(name="finer")(x)
    x = conv(8, 3, strides=2, padding="same", activation="relu", name="b")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooling")(x)
    model = keras.Model(inputs, keras.layers.Dense(4, name="old")(x))
    path = tmp_path / "own.keras"
    model.save(path)
    return find_backbone(str(path)).network, str(path)


def make_plan(tmp_path, backbone, method, losses=("ce", "crl"), **recipe):
    files, _ = disk_layouts.cub_files(4, 2)
    data = disk_layouts.write(tmp_path / "CUB_200_2011", files)
    changes = dict(image_size=16, batch_size=6, epochs=2, head_rate=2.0)
    changes["batch_norm"] = "recompute"
    configs = make_configs(
        losses,
        [0],
        [get_recipe("finetune", **{**changes, **recipe})],
        dataset="cub",
        network=f"{backbone[0]}+{method}",
        weights=backbone[1],
        backend=keras.backend.backend(),
        reader="pillow",
    )
    options = training.Options(save_model=True)
    return Plan(configs, str(tmp_path / "runs"), str(data), options=options)


def run(plan, **kwargs):
    sweep.run_sweep(plan, cache=sweep.check_plan(plan), **kwargs)
    return read_records(plan.output)


def rows(record):
    names = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
    return [[row[name] for name in names] for row in record.history]


class Killed(Exception):
    pass


def check_pictures(record, method):
    """What the method looked at is in the report; B-CNN has none."""
    found = record.pictures("method")
    page = to_html(compare([record]))
    assert ('class="strip"' in page) == (method != "bcnn")
    if method == "bcnn":
        return
    images = found["images"]
    assert images.dtype == np.uint8 and images.shape[4:] == (3,)
    # Three classes of two filters; four images, as they were and destroyed.
    assert images.shape[:2] == ((3, 2) if "dfl" in method else (4, 4))
    assert str(found["heading"]) in page and str(found["titles"][0]) in page
    if "dcl" in method:
        for row in images:
            for view in row[1:]:
                assert sorted(view.ravel()) == sorted(row[0].ravel())


# All methods train on every backend in test_methods.py; DCL has most state.
@pytest.mark.parametrize(
    "method",
    [
        *[pytest.param(x, marks=pytest.mark.once) for x in METHODS[:2]],
        METHODS[2],
    ],
)
def test_killed_and_given_again(method, tmp_path, backbone, monkeypatch):
    """The numbers are those of a run that was not; the model answers."""
    plan = make_plan(tmp_path, backbone, method, losses=["crl"])
    (whole,) = run(plan)
    logits = whole.logits()["test"]
    assert logits.shape[1] == 3 and np.isfinite(logits).all()
    folder = whole.path
    check_pictures(whole, method)
    classifier = load_classifier(folder)
    paths = sorted((tmp_path / "CUB_200_2011" / "images").rglob("*.jpg"))
    found = dict(classifier(paths[0]))
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    model = keras.models.load_model(folder / "model.keras")
    images = np.zeros((2, 16, 16, 3), "uint8")
    assert model.predict(images, verbose=0).shape == (2, 3)
    assert model.count_params() <= whole.result["network"]["parameters"]
    # What is loaded trains on, as a plain classifier.
    assert np.isfinite(model.train_on_batch(images, np.array([0, 1]))[0])

    def kill(row):
        raise Killed

    again = dataclasses.replace(plan, output=str(tmp_path / "killed"))
    with pytest.raises(Killed):
        run(again, on_epoch=kill)
    (resumed,) = run(again)
    np.testing.assert_allclose(rows(resumed), rows(whole), rtol=1e-5)
    np.testing.assert_allclose(resumed.logits()["test"], logits, atol=1e-4)


def test_losses_of_a_seed_begin_alike(tmp_path, backbone):
    """Of DFL, whose filters start from images; DCL's regions move alike."""
    for method in METHODS[1:]:
        plan = make_plan(tmp_path, backbone, method)
        values = []
        for config in plan.configs:
            data = sweep.prepare_dataset(plan, config)
            feed = training.make_feed(data, config.recipe, 0, "pillow")
            model, deployed, parameters = build_model(config, feed)
            assert isinstance(model, MultiHeadClassifier)
            assert parameters >= deployed.count_params()
            values.append(
                [keras.ops.convert_to_numpy(v) for v in model.variables]
            )
        for a, b in zip(*values, strict=True):
            np.testing.assert_array_equal(a, b)
        # The pretrained layers, normalisation included, are as in the file.
        pretrained = keras.models.load_model(backbone[1])
        found = {v.path: v for v in model.variables}
        for layer in map(pretrained.get_layer, ("a", "norm", "b")):
            for v in layer.weights:
                np.testing.assert_array_equal(
                    keras.ops.convert_to_numpy(found[v.path]),
                    keras.ops.convert_to_numpy(v),
                )


def test_new_layers_learn_faster(tmp_path, backbone):
    """One step without momentum, and the same at a hundred times the rate."""
    steps = []
    for rate in (1.0, 100.0):
        plan = make_plan(
            tmp_path,
            backbone,
            "dcl(regions=4)",
            head_rate=rate,
            momentum=0.0,
            weight_decay=0.0,
            augmentation="none",
            learning_rate=1e-4,
        )
        config = plan.configs[0]
        data = sweep.prepare_dataset(plan, config)
        feed = training.make_feed(data, config.recipe, 0, "pillow")
        model, _, _ = build_model(config, feed)
        before = [
            keras.ops.convert_to_numpy(v) for v in model.trainable_variables
        ]
        model.train_on_batch(*feed.training()[0])
        steps.append(
            {
                v.path: np.abs(keras.ops.convert_to_numpy(v) - value).max()
                for v, value in zip(
                    model.trainable_variables, before, strict=True
                )
            }
        )
    for path, step in steps[0].items():
        fast = path.split("/")[-2] in ("logits", "swap", "alignment")
        expected = 100 * step if fast else step
        assert steps[1][path] == pytest.approx(expected, rel=0.05), path


def test_rates_by_part_and_in_time(tmp_path, backbone):
    """B-CNN's two steps: the last layer alone, bit for bit, then all."""
    plan = make_plan(
        tmp_path,
        backbone,
        "bcnn",
        part_rates=[("logits", 50.0, 0), ("*", 0.0, 1)],
        no_decay=["logits"],
        weight_decay=0.1,
        batch_norm="freeze",
    )
    config = plan.configs[0]
    data = sweep.prepare_dataset(plan, config)
    feed = training.make_feed(data, config.recipe, 0, "pillow")
    model, _, _ = build_model(config, feed)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.variables}

    def changed():
        return {
            v.path.split("/")[-2]
            for v in model.trainable_variables
            if (keras.ops.convert_to_numpy(v) != before[v.path]).any()
        }

    batches = feed.training()
    for step in range(feed.steps + 1):
        found = changed()
        assert found == ({"logits"} if step else set())
        model.train_on_batch(*batches[step % feed.steps])
    assert changed() == {"a", "b", "logits"}


def test_margins_need_a_head_of_their_own(tmp_path, backbone):
    plan = make_plan(tmp_path, backbone, "dfl", losses=["lsoftmax"])
    with pytest.raises(ValueError, match="several heads"):
        run(plan)
