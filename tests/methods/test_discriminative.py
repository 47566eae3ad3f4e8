"""DFL's filter bank: a fixture of float64, order, places, gradient."""

import keras
import numpy as np
import pytest
from autodiff import to_numpy
from autodiff import value_and_gradient

from crl_keras import SparseCompetingRatioLoss
from crl_keras.layers import DiscriminativeFilters

# Three by three places, four channels, three classes of two filters.
P, D, M = np.arange(9)[:, None], np.arange(4), np.arange(6)
FEATURES = ((7 * P + 3 * D + P * D) % 13) / 10
KERNEL = (((2 * D[:, None] + 5 * M) % 7) - 3) / 4
BIAS = (M - 2) / 10 - 1.5 * (M == 1)
V = [0.55, -1.275, 0.25, 0.375, 1.025, 1.2]
SIDE = [-0.3625, 0.3125, 1.1125]


def bank():
    layer = DiscriminativeFilters(3, 2)
    layer.build((None, 3, 3, 4))
    layer.set_weights([KERNEL.astype("float32"), BIAS.astype("float32")])
    return layer


def maps(dtype="float32"):
    return FEATURES.reshape(1, 3, 3, 4).astype(dtype)


def test_values():
    v, side = map(to_numpy, bank()(maps()))
    np.testing.assert_allclose(v, [V], atol=1e-6)
    # One is below 0: there is no ReLU before the maximum.
    assert v[0, 1] < 0
    np.testing.assert_allclose(side, [SIDE], atol=1e-6)
    # Filters of a class stand side by side.
    wrong = v.reshape(1, 2, 3).mean(axis=1)
    np.testing.assert_allclose(wrong, [[0.4625, -0.125, 0.725]], atol=1e-6)


def test_responses_have_their_maximum_where_it_is():
    layer = bank()
    found = to_numpy(layer.responses(maps())).reshape(9, 6)
    np.testing.assert_allclose(
        found, FEATURES @ KERNEL + BIAS, rtol=1e-6, atol=1e-6
    )
    assert found.argmax(axis=0).tolist() == [0, 8, 1, 2, 5, 1]


def test_gradient_comes_from_the_maximum_alone():
    weights = np.float32([1, 2, 3, 4, 5, 6])
    factors = keras.ops.convert_to_tensor(weights)
    layer = bank()
    _, gradient = value_and_gradient(lambda x: layer(x)[0] * factors, maps())
    expected = np.zeros((9, 4))
    for m, place in enumerate([0, 8, 1, 2, 5, 1]):
        expected[place] += weights[m] * KERNEL[:, m]
    np.testing.assert_allclose(gradient.reshape(9, 4), expected, atol=1e-6)


CE_GRADIENT = "0.0450341 0.0450341 -0.2586175 -0.2586175 0.4473712 0.0180130"
CRL_GRADIENT = "0.0516114 0.0516114 -0.2860564 -0.2860564 0.4954177 0.0161337"


@pytest.mark.parametrize(
    "loss, expected",
    [
        (keras.losses.SparseCategoricalCrossentropy, CE_GRADIENT),
        (SparseCompetingRatioLoss, CRL_GRADIENT),
    ],
)
def test_gradient_of_all_heads_for_the_biases(loss, expected):
    """The patch head and the side branch both pull at the filters."""
    layer, loss, c = bank(), loss(from_logits=True), np.arange(3)
    label = np.array([2])
    kernel = keras.ops.convert_to_tensor(KERNEL, "float32")
    patch = keras.layers.Dense(3)
    patch.build((None, 6))
    patch.set_weights([(((M[:, None] + 3 * c) % 5) - 2) / 5, c / 20])

    def total(bias):
        (v, side), _ = layer.stateless_call([kernel, bias], [], maps())
        return loss(label, patch(v)) + 0.1 * loss(label, side)

    _, gradient = value_and_gradient(total, BIAS.astype("float32"))
    np.testing.assert_allclose(
        gradient, np.fromstring(expected, sep=" "), atol=1e-6
    )


def test_saved(tmp_path):
    inputs = keras.Input((3, 3, 4))
    model = keras.Model(inputs, bank()(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    v, side = loaded.predict(maps(), verbose=0)
    np.testing.assert_allclose(v, [V], atol=1e-6)
    np.testing.assert_allclose(side, [SIDE], atol=1e-6)
    assert model.count_params() == 4 * 6 + 6


def test_mixed_precision():
    layer = DiscriminativeFilters(3, 2, dtype="mixed_bfloat16")
    v, side = layer(maps())
    for x in (v, side):
        assert keras.backend.standardize_dtype(x.dtype) == "bfloat16"
    assert layer.kernel.dtype == "float32"


def test_errors():
    with pytest.raises(ValueError, match="filters"):
        DiscriminativeFilters(3, 0)
    with pytest.raises(ValueError, match="classes"):
        DiscriminativeFilters(1)
