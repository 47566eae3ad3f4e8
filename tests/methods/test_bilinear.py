"""Bilinear pooling: fixtures of float64, gradients, the sketched kernel."""

import itertools

import keras
import numpy as np
import pytest
from autodiff import to_numpy
from autodiff import value_and_gradient

from crl_keras import losses
from crl_keras.layers import BilinearPooling
from crl_keras.layers import CompactBilinearPooling

# Two by two places, three channels, computed by hand in float64.
P, CHANNELS = np.arange(4)[:, None], np.arange(3)
X = (((3 * P + 2 * CHANNELS) % 7) / 4).reshape(1, 2, 2, 3)
A = ((((5 * P + 3 * np.arange(2)) % 7) - 3) / 2).reshape(1, 2, 2, 2)
B = (((4 * P + 2 * CHANNELS) % 5) - 2.0).reshape(1, 2, 2, 3)
OFFICIAL = [
    *(0.3775813, 0.2901622, 0.2951459),
    *(0.2901622, 0.3657978, 0.3189033),
    *(0.2951459, 0.3189033, 0.4214444),
]
EXACT = [
    *(0.3774147, 0.2903486, 0.2953122),
    *(0.2903486, 0.3656787, 0.3189736),
    *(0.2953122, 0.3189736, 0.4211004),
]
# With sqrt(z + 1e-5), right for positive features alone.
UNSIGNED = [
    *(0.3774140, 0.2903494, 0.2953129),
    *(0.2903494, 0.3656782, 0.3189739),
    *(0.2953129, 0.3189739, 0.4210991),
]


def tensor(x):
    return keras.ops.convert_to_tensor(x, dtype="float32")


def pooled(x, **kwargs):
    return to_numpy(BilinearPooling(**kwargs)(x))


def reference(a, b, epsilon=1e-5):
    """By loops over images, in float64."""
    rows = []
    for one, other in zip(a, b, strict=True):
        places = [*itertools.product(*map(range, one.shape[:2]))]
        outer = sum(np.outer(one[p], other[p]) for p in places) / len(places)
        z = outer.ravel()
        s = np.sign(z) * (np.sqrt(abs(z) + epsilon) - np.sqrt(epsilon))
        rows.append(s / np.linalg.norm(s))
    return np.array(rows)


def test_one_map():
    found = pooled(X.astype("float32"))
    np.testing.assert_allclose(found, [OFFICIAL], atol=1e-6)
    assert abs(found - [UNSIGNED]).max() > 1e-4
    found = pooled(X.astype("float32"), epsilon=1e-12)
    np.testing.assert_allclose(found, [EXACT], atol=2e-6)


def test_two_maps():
    found = pooled([A.astype("float32"), B.astype("float32")])
    expected = [0.6463580, -0.5002548, -0.2880512, -0.2031501, -0.2880512]
    np.testing.assert_allclose(found, [[*expected, -0.3531990]], atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 7, 5, 8), (1, 1, 3, 2)])
def test_against_loops(shape):
    rng = np.random.default_rng(0)
    a = rng.normal(size=shape).astype("float32")
    b = rng.normal(size=(*shape[:3], 3)).astype("float32")
    np.testing.assert_allclose(pooled([a, b]), reference(a, b), atol=2e-6)
    np.testing.assert_allclose(pooled(a), reference(a, a), atol=2e-6)


def test_properties():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    found = pooled(x)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    square = found.reshape(2, 5, 5)
    # A matrix product need not round both halves alike.
    np.testing.assert_allclose(square, square.transpose(0, 2, 1), atol=1e-7)
    # Places have no order, and the sign of one factor is that of the root.
    mixed = x.reshape(2, 12, 5)[:, rng.permutation(12)].reshape(x.shape)
    np.testing.assert_allclose(pooled(mixed), found, atol=1e-6)
    np.testing.assert_allclose(pooled([-x, x]), -found, atol=1e-7)


def test_gradient():
    weights = tensor((np.arange(9) + 1) / 10)

    def f(x):
        return BilinearPooling()(x) * weights

    value, gradient = value_and_gradient(f, X.astype("float32"))
    assert value == pytest.approx(1.5156647, abs=1e-5)
    expected = [
        *(-0.0029147, 0.0282438, 0.0448304),
        *(-0.0719344, -0.0255513, 0.0458944),
        *(-0.0870349, -0.0116740, 0.0421487),
        *(-0.0392128, 0.0293861, 0.0793390),
    ]
    np.testing.assert_allclose(gradient.ravel(), expected, atol=2e-6)


@pytest.mark.parametrize("layer", [BilinearPooling, CompactBilinearPooling])
def test_gradient_of_empty_features(layer):
    """Of an image that no channel sees, and of channels that see nothing."""
    layer = layer(**({"dimensions": 16} if "Compact" in layer.__name__ else {}))
    x = np.zeros((2, 3, 3, 4), "float32")
    x[1, :, :, :2] = np.random.default_rng(0).random((3, 3, 2))
    weights = tensor(np.random.default_rng(1).normal(size=16))
    _, gradient = value_and_gradient(lambda x: layer(x) * weights, x)
    assert np.isfinite(gradient).all() and gradient[1].any()
    np.testing.assert_array_equal(to_numpy(layer(x))[0], 0)


def test_head():
    k, c = np.arange(9)[:, None], np.arange(3)
    kernel = ((((k + 2 * c) % 5) - 2) / 5).astype("float32")
    dense = keras.layers.Dense(3)
    features = BilinearPooling()(X.astype("float32"))
    dense.build(features.shape)
    dense.set_weights([kernel, np.float32([0.1, 0, -0.1])])
    logits = dense(features)
    expected = [[-0.0070150, 0.0048791, -0.1051797]]
    np.testing.assert_allclose(to_numpy(logits), expected, atol=1e-6)
    crl = losses.SparseCompetingRatioLoss(from_logits=True)
    ce = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert to_numpy(ce(np.array([1]), logits)) == pytest.approx(
        1.0591636, abs=1e-6
    )
    assert to_numpy(crl(np.array([1]), logits)) == pytest.approx(
        1.8261439, abs=1e-6
    )


@pytest.mark.parametrize("order", [2, 3])
def test_the_kernel_in_expectation(order):
    """Products of sketches are those of the polynomial kernel on average."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 1, 2, 3, 4)).astype("float32")
    places = [v.reshape(6, 4).astype("float64") for v in (x, y)]
    kernel = ((places[0] @ places[1].T) ** order).mean()
    found = []
    for seed in range(100):
        layer = CompactBilinearPooling(64, order, seed)
        a, b = (
            to_numpy(layer.pool(*2 * [tensor(v.reshape(1, 6, 4))]))
            for v in (x, y)
        )
        found.append(float(np.sum(a * b)))
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - kernel) < 3.5 * error + 1e-5
    # One sketch is near already, of many numbers nearer.
    assert error < 0.2 * (abs(kernel) + 1)


def test_the_sketch_is_a_convolution():
    """By the definition, in float64, of one place."""
    x = np.random.default_rng(3).normal(size=(1, 1, 5)).astype("float32")
    layer = CompactBilinearPooling(7, order=2, seed=4)
    one, two = (
        to_numpy(layer.sketch(keras.ops.convert_to_tensor(x), k))[0, 0]
        for k in (0, 1)
    )
    assert sorted(abs(one[one != 0]).round(5)) != sorted(abs(x[0, 0]).round(5))
    expected = [
        sum(one[i] * two[(k - i) % 7] for i in range(7)) for k in range(7)
    ]
    found = to_numpy(layer.pool(*2 * [keras.ops.convert_to_tensor(x)]))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        BilinearPooling(epsilon=1e-4, norm_epsilon=1e-8),
        CompactBilinearPooling(12, order=3, seed=5, epsilon=1e-4),
    ],
)
def test_saved_and_compiled(layer, tmp_path):
    inputs = keras.Input((None, None, 4))
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).random((3, 2, 5, 4)).astype("float32")
    expected = to_numpy(layer(x))
    found = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), found, atol=1e-6)
    assert loaded.layers[-1].get_config() == layer.get_config()
    assert model.count_params() == 0


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_float32(policy):
    x = 100 * np.random.default_rng(0).random((2, 9, 9, 4))
    x = x.astype("float32")
    layer = BilinearPooling(dtype=policy)
    found = layer(x)
    assert keras.backend.standardize_dtype(found.dtype) == policy[6:]
    # Sums of squares of 100 are beyond the largest float16.
    np.testing.assert_allclose(
        to_numpy(found), to_numpy(BilinearPooling()(x)), atol=4e-3
    )


def test_errors():
    for kwargs in ({"epsilon": 0}, {"norm_epsilon": -1.0}):
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            BilinearPooling(**kwargs)
    with pytest.raises(ValueError, match="of the same height"):
        keras.Model(
            y := [keras.Input((2, 3, 4)), keras.Input((3, 2, 4))],
            BilinearPooling()(y),
        )
    with pytest.raises(ValueError, match="feature maps"):
        BilinearPooling()(keras.Input((4,)))
    with pytest.raises(ValueError, match="order"):
        CompactBilinearPooling(8, order=3)(
            [keras.Input((2, 3, 4)), keras.Input((2, 3, 4))]
        )
    with pytest.raises(ValueError, match="dimensions"):
        CompactBilinearPooling(1)
