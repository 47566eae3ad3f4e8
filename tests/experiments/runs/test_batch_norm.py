"""Statistics of batch normalisation that tests are made with."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers
from keras.ops import convert_to_numpy as to_numpy

from crl_keras.experiments.commands.arguments import compare_parser
from crl_keras.experiments.commands.plans import make_plan
from crl_keras.experiments.data.splits import Dataset
from crl_keras.experiments.data.splits import Split
from crl_keras.experiments.runs import batch_norm
from crl_keras.experiments.runs import models
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.recipes import Recipe
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.records import RunFolder
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.training import run_one

BACKEND = keras.backend.backend()


def coloured(count, seed):
    """Noise with a tint for each of three classes, sorted by class."""
    random = np.random.default_rng(seed)
    labels = np.sort(np.arange(count) % 3)
    images = random.integers(0, 120, (count, 32, 32, 3))
    images[np.arange(count), :, :, labels] += 60
    return Split(images.astype(np.uint8), labels)


@pytest.fixture(scope="module")
def tints():
    names = ("red", "green", "blue")
    return Dataset("tints", coloured(96, 0), coloured(60, 1), names)


def small_network(dropout=0.5):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)
    first = layers.BatchNormalization()
    x = layers.Dropout(dropout)(layers.ReLU()(first(x)))
    second = layers.BatchNormalization(center=False)
    x = second(layers.Conv2D(5, 3, strides=2)(x))
    return keras.Model(inputs, x), first, second


def test_statistics_are_those_of_all_images():
    model, first, second = small_network(dropout=0.0)
    images = np.random.default_rng(0).normal(2, 3, (30, 8, 8, 3)).astype("f")
    # The second layer's inputs depend on the first's batches: one batch.
    for batches in ([images[:10], images[10:]], [images]):
        batch_norm.Recompute(model)(batches)
        before = to_numpy(keras.Model(model.input, first.input)(images))
        before = before.astype(np.float64)
        mean, variance = before.mean((0, 1, 2)), before.var((0, 1, 2))
        np.testing.assert_allclose(to_numpy(first.moving_mean), mean, 1e-5)
        found = to_numpy(first.moving_variance)
        np.testing.assert_allclose(found, variance, 1e-5)
    # Of one batch, testing is what training was.
    trained = to_numpy(model(images, training=True))
    batch_norm.Recompute(model)([images])
    np.testing.assert_allclose(
        to_numpy(model(images, training=False)), trained, atol=2e-4
    )
    assert first.momentum == second.momentum == 0.99


def test_draws_of_dropout_and_frozen_layers_stay_as_they_are():
    model, first, second = small_network()
    first.trainable = False
    assert batch_norm.trained_layers(model) == [second]
    variables = model.non_trainable_variables
    before = [to_numpy(v) for v in variables]
    batch_norm.Recompute(model)([np.ones((4, 8, 8, 3), "f")])
    changed = {
        v.path
        for v, old in zip(variables, before, strict=True)
        if (to_numpy(v) != old).any()
    }
    assert changed == {second.moving_mean.path, second.moving_variance.path}


@pytest.mark.once
def test_joined_batches_are_one_sample():
    random = np.random.default_rng(0)
    parts = [random.normal(1e3, 1, (n, 4)) for n in (3, 7, 1)]
    whole = np.concatenate(parts)
    pairs = [(part.mean(0), part.var(0)) for part in parts]
    mean, variance = batch_norm.joined([3, 7, 1], pairs)
    np.testing.assert_allclose(mean, whole.mean(0), 1e-12)
    np.testing.assert_allclose(variance, whole.var(0), 1e-9)


@pytest.mark.once
@pytest.mark.parametrize(
    "steps, momentum", [(10_000, 0.99), (84, 0.881), (5, 0.5)]
)
def test_momentum_reaches_back_over_a_tenth_of_the_training(steps, momentum):
    model, first, second = small_network()
    second.momentum = 0.3  # Lower than needed: it stays.
    batch_norm.prepare(model, "momentum", steps)
    assert first.momentum == pytest.approx(momentum, abs=1e-4)
    assert second.momentum == min(0.3, momentum)
    batch_norm.prepare(model, "freeze", steps)
    assert not batch_norm.trained_layers(model)
    assert batch_norm.describe(model, "freeze", steps)["layers"] == 2


def config_of(mode, network="keras_cv/resnet18", **changes):
    values = dict(
        epochs=4,
        batch_size=32,
        learning_rate=0.003,
        momentum=0.9,
        scaling="backbone",
        batch_norm=mode,
    )
    recipe = Recipe("mine", **{**values, **changes})
    return RunConfig("tints", network, "ce", recipe, 0, backend=BACKEND)


@pytest.mark.once  # Other networks recompute theirs on every backend, below.
def test_what_training_has_learnt_the_test_shows(tints, tmp_path):
    """KerasCV's momentum of 0.99 leaves the averages near their start: with
    "moving" the test error is 43 to 67 %."""
    config = config_of("recompute")
    result = run_one(config, tints, RunFolder(tmp_path, config))
    (record,) = read_records(tmp_path)
    assert record.history[-1]["train_accuracy"] > 0.9
    assert result["last"]["error"] < 0.1
    found = result["batch_norm"]
    assert found["mode"] == "recompute" and found["images"] == 96
    assert found["momentum"] == 0.99 and found["layers"] == 20


def test_training_itself_stays_the_same_to_the_digit(
    tints, tmp_path, monkeypatch
):
    def build(name, shape, classes, *options):
        inputs = keras.Input(shape)
        x = layers.Conv2D(8, 3, strides=4)(inputs)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
        model = keras.Model(inputs, layers.Dense(classes, name="logits")(x))
        return model, layers.Rescaling(1 / 255)

    monkeypatch.setattr(models, "build_backbone", build)
    found = {}
    for mode in ("moving", "recompute"):
        config = config_of(mode)
        run_one(config, tints, RunFolder(tmp_path, config))
    for record in read_records(tmp_path):
        rows = record.history
        found[record.config.recipe.batch_norm] = (
            [(row["train_loss"], row["train_accuracy"]) for row in rows],
            [row["test_loss"] for row in rows],
        )
    assert found["recompute"][0] == found["moving"][0]
    assert found["recompute"][1] != found["moving"][1]


def plan_of(*words):
    given = ["--network", "keras/mobilenet_v2", "--dataset", "folder:x"]
    given += ["--weights", "none", *words]
    parser = compare_parser("")
    return make_plan(parser.parse_args(given))


@pytest.mark.once
@pytest.mark.parametrize(
    "words, mode",
    [
        ((), "recompute"),
        (("--batch-norm", "momentum"), "momentum"),
        (("--network", "resnet20", "--weights", ""), "moving"),
    ],
)
def test_backbones_recompute_by_default(words, mode):
    assert {c.recipe.batch_norm for c in plan_of(*words).configs} == {mode}


@pytest.mark.once
def test_random_weights_have_no_statistics_to_freeze():
    with pytest.raises(ValueError, match="freeze.*recompute"):
        plan_of("--batch-norm", "freeze")
    plan_of("--batch-norm", "freeze", "--weights", "imagenet")


@pytest.mark.once
def test_older_runs_keep_their_ids():
    """Computed before recipes had a way of batch normalisation."""
    config = RunConfig("digits", "mlp", "crl", get_recipe("finetune"), 0)
    assert config.run_id == "5d2b36e128b3"
    assert "batch_norm" not in config.group
    recipe = dataclasses.replace(config.recipe, batch_norm="recompute")
    other = dataclasses.replace(config, recipe=recipe)
    assert other.run_id != config.run_id
    assert RunConfig.from_dict(other.to_dict()) == other
    values = config.to_dict()
    del values["recipe"]["batch_norm"]  # As an older version wrote it.
    assert RunConfig.from_dict(values) == config
