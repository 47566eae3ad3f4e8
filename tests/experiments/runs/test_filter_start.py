"""How DFL-CNN's filters start: peaks, k-means, order, few columns."""

import types

import keras
import numpy as np
import pytest
from autodiff import to_numpy

from crl_keras.experiments.runs import filter_start
from crl_keras.methods import dfl_cnn

once = pytest.mark.once
H, W, D = np.ogrid[:6, :6, :3]
# A feature map, and what float64 says of it.
MAP = ((3 * H * W + 2 * H + 5 * W + 7 * D + H * D * D) % 23) / 23
PLACES = [(5, 0), (2, 5), (3, 2), (0, 3), (5, 4)]


@once
def test_peaks():
    heat = np.linalg.norm(MAP, axis=-1)
    assert filter_start.peaks(heat, 5) == PLACES
    # Without suppression the fifth is beside the first.
    assert filter_start.peaks(heat, 5, radius=0)[4] == (5, 1)
    assert len(filter_start.peaks(heat, 100)) < 36
    values = [heat[place] for place in PLACES[:2]]
    np.testing.assert_allclose(values, [1.3919835, 1.2274430], atol=1e-6)


@once
def test_centres_of_k_means():
    """Lloyd's steps from the first two columns; centres get length 1."""
    columns = filter_start.columns_at_peaks(MAP, 5)
    np.testing.assert_allclose(np.linalg.norm(columns, axis=1), 1)
    found = filter_start.centres(columns, 2, start=columns[:2])
    expected = np.array(
        [
            (0.3907897, 0.7430663, 0.5298315),
            (0.6957904, 0.6034906, 0.2903451),
        ]
    )
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@once
@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_columns_are_copied_with_noise(n):
    columns = np.random.default_rng(0).normal(size=(n, 5))
    columns /= np.linalg.norm(columns, axis=1, keepdims=True)
    found = filter_start.centres(np.repeat(columns, 4, axis=0), 7, seed=1)
    assert found.shape == (7, 5) and len(np.unique(found, axis=0)) == 7
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1)
    if n:
        near = (found @ columns.T).max(axis=1)
        assert (near > 0.9).all()
    again = filter_start.centres(np.repeat(columns, 4, axis=0), 7, seed=1)
    np.testing.assert_array_equal(found, again)


class Feed:
    """Images of three classes, each with a colour of its own."""

    dataset = types.SimpleNamespace(classes=3)

    def ordered(self, split):
        assert split == "train"
        rng = np.random.default_rng(0)
        labels = np.array([2, 0, 0, 1, 2, 1, 0, 2, 1, 0, 1, 2])
        images = rng.integers(0, 60, (12, 16, 16, 3))
        images[np.arange(12), :, :, labels] += 150
        for part in range(0, 12, 5):
            rows = slice(part, part + 5)
            yield images[rows].astype("uint8"), labels[rows]


def network():
    inputs = keras.Input((16, 16, 3))
    conv = keras.layers.Conv2D
    x = conv(8, 3, strides=2, activation="relu", name="finer")(inputs)
    x = conv(9, 3, strides=2, activation="relu", name="end")(x)
    return dfl_cnn(keras.Model(inputs, x, name="small"), 3, filters=2)


def scaled(images):
    return keras.ops.cast(images, "float32") / 255.0


def test_filters_of_a_class_find_its_images():
    model, said = network(), []
    filter_start.start_filters(
        model, scaled, Feed(), 3, say=lambda *counts: said.append(counts)
    )
    assert said[-1] == (9, 9)
    bank = model.network.get_layer("filters")
    lengths = np.linalg.norm(bank.get_weights()[0], axis=0)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)
    features = filter_start.feature_function(model, scaled)
    images, _ = filter_start.some_of_each(Feed(), 3)
    v = to_numpy(bank(features(np.stack(images)))[0])
    np.testing.assert_allclose(v.mean(axis=0), 0, atol=1e-3)
    assert v.std() == pytest.approx(1, abs=1e-3)
    for images, labels in Feed().ordered("train"):
        side = to_numpy(model(scaled(images), training=True)["side"])
        right = side.argmax(axis=1) == labels
        assert right.mean() >= 0.8
