"""The networks, the small ones in full; ResNet-20 against PyTorch's.

Those of test_paper_networks.py are too large to be built here again and again.
"""

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from crl_keras import networks

SHAPES = {
    "logistic": (8, 8, 1),
    "mlp": (8, 8, 1),
    "zhu2018": (10, 12, 3),
    "resnet20": (8, 8, 1),
}
every_network = pytest.mark.parametrize("name", SHAPES)


def images(shape, n=3):
    return np.random.default_rng(0).normal(size=(n, *shape)).astype("float32")


def trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.once
def test_parameters(no_draws):
    cifar, mnist = (32, 32, 3), (28, 28, 1)
    expected = {
        ("logistic", mnist): 784 * 10 + 10,
        ("mlp", mnist): 784 * 256 + 256 + 256 * 256 + 256 + 256 * 10 + 10,
        ("zhu2018", cifar): 1_250_858,  # Keras's cifar10_cnn.py of 2018.
        ("resnet20", cifar): (
            27 * 16
            + 6 * 9 * 16 * 16
            + 9 * 16 * 32
            + 5 * 9 * 32 * 32
            + 9 * 32 * 64
            + 5 * 9 * 64 * 64
            + 2 * (7 * 16 + 6 * 32 + 6 * 64)  # Batch normalisation.
            + 64 * 10
            + 10
        ),
    }
    for (name, shape), count in expected.items():
        assert trainable(networks.build_network(name, shape, 10)) == count
    assert expected["resnet20", cifar] == 269_722  # He et al.: 0.27M.


@every_network
@pytest.mark.parametrize(
    "policy", ["float32", "mixed_bfloat16", "mixed_float16"]
)
def test_logits_are_float32_and_not_a_softmax(name, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = networks.build_network(name, SHAPES[name], 7)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.name == name
    hidden = {layer.compute_dtype for layer in model.layers[1:-1]}
    assert hidden == {policy.removeprefix("mixed_")}
    x = images(SHAPES[name])
    for training in (False, True):
        logits = model(x, training=training)
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        logits = to_numpy(logits)
        assert logits.shape == (3, 7)
        assert np.isfinite(logits).all()
        assert (logits < 0).any() or logits.max() > 1
        assert not np.allclose(logits.sum(-1), 1, atol=1e-3)


@every_network
def test_save_and_load(name, tmp_path):
    model = networks.build_network(name, SHAPES[name], 10)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = images(SHAPES[name])
    np.testing.assert_array_equal(to_numpy(model(x)), to_numpy(again(x)))


@every_network
def test_every_weight_learns(name):
    """A few steps of plain SGD on four images: all move, the loss falls."""
    model = networks.build_network(name, SHAPES[name], 3)
    x, y = images(SHAPES[name], 4), np.array([0, 1, 2, 1])
    before = [to_numpy(v).copy() for v in model.trainable_variables]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.02), loss)
    history = model.fit(x, y, epochs=8, batch_size=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    for value, variable in zip(before, model.trainable_variables, strict=True):
        assert np.abs(to_numpy(variable) - value).max() > 0, variable.path


@every_network
def test_same_seed_same_weights(name):
    weights = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        model = networks.build_network(name, SHAPES[name], 10)
        weights.append([to_numpy(v) for v in model.trainable_variables])
    assert all(map(np.array_equal, weights[0], weights[1]))
    assert not all(map(np.array_equal, weights[0], weights[2]))


@pytest.mark.once
def test_channels_are_last_whatever_keras_is_told(no_draws):
    keras.config.set_image_data_format("channels_first")
    try:
        for name, shape in SHAPES.items():
            model = networks.build_network(name, shape, 10)
            assert model.output_shape == (None, 10)
            count = trainable(model)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert count == trainable(networks.build_network(name, shape, 10))


@pytest.mark.once
def test_resnet20_weights_are_drawn_as_documented():
    model = networks.resnet20((8, 8, 3), 10)
    kernels = [
        to_numpy(layer.kernel)
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert len(kernels) == 19
    for kernel in kernels:
        expected = (2 / (9 * kernel.shape[-1])) ** 0.5
        error = 4 / (2 * kernel.size) ** 0.5  # 4 standard errors.
        assert kernel.std() == pytest.approx(expected, rel=error)
        assert np.abs(kernel).max() > 2.5 * expected  # Not truncated.
    assert not np.array_equal(kernels[-1], kernels[-2])
    head = model.get_layer("logits")
    for values in map(to_numpy, (head.kernel, head.bias)):
        assert 0.08 < np.abs(values).max() <= 1 / 8
        assert np.abs(values).min() < 0.05
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.9, 1e-5)


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("training", [False, True])
def test_resnet20_computes_what_pytorch_does(size, training):
    import torch

    functional = torch.nn.functional
    model = networks.resnet20((size, size, 3), 10)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.split("/")[-1] in ("gamma", "beta", "moving_mean"):
            variable.assign(rng.normal(1, 0.3, variable.shape))
    values = [torch.tensor(to_numpy(v).copy()) for v in model.weights]
    weights = iter(values)

    def conv(x, stride=1):
        kernel = next(weights).permute(3, 2, 0, 1)
        return functional.conv2d(x, kernel, stride=stride, padding=1)

    def norm(x):
        gamma, beta, mean, variance = (next(weights) for _ in range(4))
        return functional.batch_norm(
            x, mean, variance, gamma, beta, training, momentum=0.1
        )

    x = images((size, size, 3), 4)
    h = torch.tensor(x).permute(0, 3, 1, 2)
    with torch.no_grad():
        h = norm(conv(h)).relu()
        for width in (16, 32, 64):
            for _ in range(3):
                stride = 1 if h.shape[1] == width else 2
                new = (width - h.shape[1]) // 2
                shortcut = functional.pad(
                    h[:, :, ::stride, ::stride], (0, 0, 0, 0, new, new)
                )
                y = norm(conv(h, stride)).relu()
                h = (norm(conv(y)) + shortcut).relu()
        kernel, bias = next(weights), next(weights)
        expected = (h.mean((2, 3)) @ kernel + bias).numpy()
    assert next(weights, None) is None
    found = to_numpy(model(x, training=training))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    if training:  # The running means moved alike, by a tenth.
        for variable, value in zip(model.weights, values, strict=True):
            if variable.path.endswith("moving_mean"):
                np.testing.assert_allclose(
                    to_numpy(variable), value.numpy(), rtol=1e-3, atol=1e-4
                )


@pytest.mark.once
@pytest.mark.parametrize("name", [None, "resnet21", "ResNet20"])
def test_unknown_name(name):
    assert list(networks.NETWORKS)[:4] == list(SHAPES)
    valid = ", ".join(networks.NETWORKS)
    with pytest.raises(
        ValueError, match=f"one of: {valid}. Received: {name!r}"
    ):
        networks.build_network(name, (8, 8, 1), 10)


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "smallest"), [("zhu2018", 10), ("resnet20", 4)]
)
def test_too_small(name, smallest, no_draws):
    networks.build_network(name, (smallest, smallest, 1), 10)
    for shape in [(smallest - 1, 64, 1), (64, smallest - 1, 1)]:
        with pytest.raises(ValueError, match=f"at least {smallest} x"):
            networks.build_network(name, shape, 10)


@pytest.mark.once
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_wrong_shapes_and_classes(name):
    for shape in [(64,), (8, 8), (8, 8, 0), (None, 8, 1), 8, (8.0, 8, 1)]:
        with pytest.raises(ValueError, match="input_shape"):
            networks.build_network(name, shape, 10)
    for classes in [1, 0, -3, 2.0, None]:
        with pytest.raises(ValueError, match="`classes` must be an integer"):
            networks.build_network(name, (32, 32, 3), classes)
