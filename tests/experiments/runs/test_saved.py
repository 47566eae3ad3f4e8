"""Saved models: compiled, described, and their Grad-CAM."""

import json

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from test_runs import make_plan
from test_runs import run

from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs import gradcam
from crl_keras.experiments.runs import sweep
from crl_keras.experiments.runs import training
from crl_keras.networks import NETWORKS


def convolutional(input_shape, classes):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Conv2D(6, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, name="logits", dtype="float32"),
        ]
    )


@pytest.fixture
def tiny_network(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", convolutional)


def saved_run(folder, losses=("crl",), **values):
    plan = make_plan(folder, losses, epochs=1, network="tiny", **values)
    options = training.Options(save_model=True)
    plan = sweep.Plan(plan.configs, plan.output, options=options)
    (record,) = run(plan).values()
    data = sweep.prepare_dataset(plan, record.config)
    return record, data


@pytest.mark.parametrize(
    "loss, recipe",
    [
        ("ce", dict(optimizer="adam", head_rate=2.0, head_epochs=1)),
        ("crl", dict(optimizer="rmsprop", label_smoothing=0.1)),
        ("asoftmax", dict(accumulate=2, head_rate=10.0)),
    ],
)
def test_a_saved_model_loads_compiled(tmp_path, tiny_network, loss, recipe):
    """It evaluates to what the run recorded, and trains on."""
    record, data = saved_run(tmp_path, [loss], recipe=recipe)
    model = keras.models.load_model(record.path / "model.keras")
    info = json.loads((record.path / "model.json").read_text())
    assert info["input_dtype"] == data.test.images.dtype.name == "uint8"
    assert info["input_range"] == [0, 255] and info["output"] == "logits"
    soft = "label_smoothing" in recipe
    assert info["labels"] == ("one-hot" if soft else "integers")
    labels = data.test.labels
    if soft:
        labels = np.eye(data.classes, dtype=np.float32)[labels]
    found = model.evaluate(data.test.images, labels, verbose=0)
    last = record.result["last"]
    if loss != "asoftmax":  # In training alone it has a margin.
        assert found[0] == pytest.approx(last["test_loss"], rel=1e-4)
    assert found[1] == pytest.approx(last["accuracy"], abs=1e-6)
    if "accumulate" not in recipe:
        batches = -(-len(data.train) // record.config.recipe.batch_size)
        assert int(to_numpy(model.optimizer.iterations)) == batches
    before = model.get_weights()
    model.fit(data.test.images[:32], labels[:32], epochs=1, verbose=0)
    assert any(
        (a != b).any() for a, b in zip(before, model.get_weights(), strict=True)
    )


def two_part_model():
    """Reversed and scaled pixels, one convolution, average, one layer."""
    inputs = keras.Input((9, 7, 3))
    maps = keras.layers.Conv2D(5, 3, activation="relu")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    network = keras.Model(inputs, keras.layers.Dense(4)(pooled))
    pixels = keras.Input((9, 7, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(keras.ops.flip(pixels, axis=-1))
    return keras.Model(pixels, network(scaled)), network


def test_grad_cam_of_one_layer_is_known():
    """Of an average and a dense layer the gradient is its kernel: CAM."""
    model, network = two_part_model()
    images = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), np.uint8)
    classes = [0, 3, 1]
    found = gradcam.heat_maps(model, images, classes)
    _, convolution, _, dense = network.layers
    kernel, bias = map(to_numpy, (convolution.kernel, convolution.bias))
    x = images[..., ::-1].astype(np.float32) / 255
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    maps = np.maximum(np.einsum("nhwcab,abck->nhwk", windows, kernel) + bias, 0)
    weights = to_numpy(dense.kernel)[:, classes]
    expected = np.maximum(np.einsum("nhwk,kn->nhw", maps, weights), 0)
    largest = expected.max((1, 2), keepdims=True)
    assert (largest > 0).any()
    expected = expected / np.where(largest > 0, largest, 1)
    assert found.shape == (3, 7, 5)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_grad_cam_knows_the_arithmetic_before_the_network():
    """As Keras's MobileNetV2 has it: operations with a number."""
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(maps)
    network = keras.Model(inputs, keras.layers.Dense(2)(x))
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, network(pixels / 127.5 - 1))
    images = np.random.default_rng(2).uniform(0, 255, (2, 8, 8, 3))
    found = gradcam.heat_maps(model, images.astype("float32"), [1, 0])
    scaled = (images / 127.5 - 1).astype("float32")
    expected = gradcam.heat_maps(network, scaled, [1, 0])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_grad_cam_of_a_deep_head_is_a_finite_difference():
    """The mean gradient of a map is the slope along all of its places."""
    inputs = keras.Input((8, 8, 1))
    maps = keras.layers.Conv2D(3, 3, activation="tanh")(inputs)
    x = keras.layers.Flatten()(maps)
    x = keras.layers.Dense(6, activation="tanh")(x)
    model = keras.Model(inputs, keras.layers.Dense(2)(x))
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 1))
    trunk, head = gradcam.feature_maps(model)
    features = to_numpy(trunk(keras.ops.convert_to_tensor(images, "float32")))
    slopes = np.zeros((2, 3))
    step = 1e-2
    for k in range(3):
        ends = []
        for sign in (1, -1):
            moved = features.copy()
            moved[..., k] += sign * step
            ends.append(to_numpy(head(moved))[[0, 1], [1, 0]])
        slopes[:, k] = (ends[0] - ends[1]) / (2 * step)
    expected = np.maximum((slopes[:, None, None] * features).sum(-1), 0)
    expected /= expected.max((1, 2), keepdims=True)
    found = gradcam.heat_maps(model, images.astype(np.float32), [1, 0])
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_network_of_dense_layers_has_no_grad_cam():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    assert gradcam.feature_maps(model) is None
    with pytest.raises(ValueError, match="model with convolutions"):
        gradcam.heat_maps(model, np.zeros((1, 4, 4, 1)), [0])


def test_a_run_keeps_heat_maps_of_its_telling_images(tmp_path, tiny_network):
    record, data = saved_run(tmp_path)
    found, logits = record.pictures("gradcam"), record.logits()["test"]
    wrong = logits.argmax(1) != data.test.labels
    mistakes, hits = np.split(found["indices"], [min(6, wrong.sum())])
    assert wrong[mistakes].all() and not wrong[hits].any()
    confidence = scores.softmax(logits).max(axis=1)
    assert confidence[mistakes[0]] == confidence[wrong].max()
    assert confidence[hits[0]] == confidence[~wrong].min()
    np.testing.assert_array_equal(
        found["images"], data.test.images[found["indices"]]
    )
    model = keras.models.load_model(record.path / "model.keras")
    again = gradcam.heat_maps(
        model, found["images"], logits.argmax(1)[found["indices"]]
    )
    np.testing.assert_allclose(found["maps"], again, atol=2e-3)


def test_what_grad_cam_cannot_do_costs_no_run(
    tmp_path, tiny_network, monkeypatch
):
    def fails(*arguments):
        raise MemoryError("too large")

    monkeypatch.setattr(gradcam, "heat_maps", fails)
    with pytest.warns(UserWarning, match="No Grad-CAM.*too large"):
        record, _ = saved_run(tmp_path)
    assert (
        record.result["status"] == "done" and record.pictures("gradcam") is None
    )
