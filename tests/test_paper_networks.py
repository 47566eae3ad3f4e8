"""The networks of the paper: against PyTorch, sizes, weights, saving."""

import functools
import pathlib

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from crl_keras import networks
from crl_keras.networks import densenet
from crl_keras.networks import mobilenet
from crl_keras.networks import resnet
from crl_keras.networks import resnet_preact
from crl_keras.networks import vgg

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "networks.md"
SHAPE, CLASSES = (9, 10, 3), 5
STAGES = ((1, 16, 1, 1), (2, 24, 2, 2), (3, 24, 1, 1))
# One small member of each family: every kind of block and shortcut is in it.
FAMILIES = {
    "basic": (resnet._resnet, resnet.basic, (2, 1), 6),
    "bottleneck": (resnet._resnet, resnet.bottleneck, (2, 1), 4),
    "preact": (resnet_preact._preact_resnet, 2),
    "vgg": (vgg._vgg, (1, 2), (6, 8)),
    "densenet": (densenet._densenet, 2, 10),
    "mobilenet": (mobilenet._mobilenet, STAGES, 20),
}
every_family = pytest.mark.parametrize("family", FAMILIES)
ONE_OF_EACH = {
    "resnet34": 8,
    "resnet50": 8,
    "resnet164": 4,
    "vgg16": 32,
    "densenet40": 4,
    "mobilenetv2": 8,
}


def build(family):
    builder, *arguments = FAMILIES[family]
    return builder(SHAPE, CLASSES, *arguments, name=family)


def build_twin(family):
    import torch_twins

    arguments = FAMILIES[family][1:]
    if family in ("basic", "bottleneck"):
        block = getattr(torch_twins, family)
        return torch_twins.resnet(3, CLASSES, block, *arguments[1:])
    name = "preact_resnet" if family == "preact" else family
    return getattr(torch_twins, name)(3, CLASSES, *arguments)


def images(n=4):
    return np.random.default_rng(0).normal(size=(n, *SHAPE)).astype("float32")


def of_kind(model, *kinds):
    return [layer for layer in model.layers if isinstance(layer, kinds)]


def norms(model):
    return of_kind(model, keras.layers.BatchNormalization)


def convolutions(model):
    return of_kind(model, keras.layers.Conv2D, keras.layers.DepthwiseConv2D)


@functools.cache
def model_of(family):
    """Built once for all tests, which `fill` it first if they need weights."""
    return build(family)


def fill(model):
    """As after some training: nothing is 0, nothing is 1."""
    rng = np.random.default_rng(1)
    for variable in model.weights:
        shape = variable.shape
        if variable.path.endswith("kernel"):
            scale = (2 / np.prod(shape[:-1])) ** 0.5
            values = rng.normal(0, scale, shape)
        else:
            values = rng.uniform(0.5, 2, shape)
        variable.assign(values.astype("float32"))


def filled_pair(family):
    """The network and its twin in PyTorch, with the same weights."""
    import torch_twins

    model, twin = model_of(family), build_twin(family)
    fill(model)
    torch_twins.copy_weights(model, twin)
    return model, twin


def call_twin(twin, x):
    import torch

    with torch.no_grad():
        return twin(torch.tensor(x).permute(0, 3, 1, 2)).numpy()


def call_in_training(model, x):
    """`model(x, training=True)`, on JAX compiled, which takes less long."""
    if keras.backend.backend() != "jax":
        return model(x, training=True)
    import jax

    state = [
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
        )
    ]
    call = jax.jit(functools.partial(model.stateless_call, training=True))
    found, new = call(*state, x)
    for variable, value in zip(model.non_trainable_variables, new, strict=True):
        variable.assign(value)
    return found


@every_family
def test_logits_are_those_of_pytorch(family, no_draws):
    model, twin = filled_pair(family)
    x = images()
    expected = call_twin(twin.eval(), x)
    assert expected.std(0).min() > 0.01
    found = model.predict_on_batch(x)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["logistic", "mlp", "zhu2018"])
def test_small_networks_are_those_of_pytorch(name, no_draws):
    import torch_twins

    model = networks.build_network(name, (12, 12, 3), CLASSES)
    twin = getattr(torch_twins, name)(12, 3, CLASSES).eval()
    fill(model)
    torch_twins.copy_weights(model, twin)
    x = np.random.default_rng(0).normal(size=(4, 12, 12, 3)).astype("float32")
    expected = call_twin(twin, x)
    assert expected.std(0).min() > 0.01
    found = model.predict_on_batch(x)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)


@every_family
def test_batch_statistics_are_those_of_pytorch(family, no_draws):
    import torch_twins

    model, twin = filled_pair(family)
    before = {n.name: to_numpy(n.moving_variance).copy() for n in norms(model)}
    x = images()
    expected = call_twin(twin.train(), x)
    found = to_numpy(call_in_training(model, x))
    np.testing.assert_allclose(found, expected, rtol=5e-4, atol=5e-5)
    for layer, module in torch_twins.pairs(model, twin):
        if layer.name in before:
            np.testing.assert_allclose(
                to_numpy(layer.moving_mean),
                module.running_mean,
                rtol=1e-4,
                atol=1e-5,
            )
            # PyTorch takes the unbiased variance.
            old = 0.9 * before[layer.name]
            new = module.running_var.numpy() - old
            np.testing.assert_allclose(
                to_numpy(layer.moving_variance),
                old + new * (module.count - 1) / module.count,
                rtol=1e-4,
            )


@every_family
def test_save_and_load(family, no_draws, tmp_path):
    model = model_of(family)
    fill(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    x = images()
    expected = model.predict_on_batch(x)
    np.testing.assert_array_equal(again.predict_on_batch(x), expected)


def assert_uniform(initializer, fan_in):
    """U(+-1 / sqrt(fan_in)): both bounds are met, and the deviation."""
    limit = fan_in**-0.5
    values = to_numpy(initializer((50, 80)))
    for bound in (-values.min(), values.max()):
        assert 0.99 * limit < bound <= limit
    assert values.std() == pytest.approx(limit / 3**0.5, rel=0.03)


def assert_normal(initializer, shape):
    """N(0, 2 / fan_out), not truncated: within 4 standard errors."""
    values = to_numpy(initializer(shape))
    scale = (2 / (shape[0] * shape[1] * shape[3])) ** 0.5
    error = 4 / (2 * values.size) ** 0.5
    assert values.std() == pytest.approx(scale, rel=error)
    # A truncated normal of this deviation ends at 2.27 of them.
    assert np.abs(values).max() > 2.5 * scale


@pytest.mark.once
@pytest.mark.parametrize("family", ["basic", "bottleneck", "vgg", "mobilenet"])
def test_weights_are_drawn_as_pytorch_draws(family, no_draws, monkeypatch):
    model = model_of(family)
    monkeypatch.undo()
    for layer in convolutions(model):
        height, width, channels, _ = layer.kernel.shape
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            assert_uniform(layer.depthwise_initializer, height * width)
            continue
        assert_uniform(layer.kernel_initializer, height * width * channels)
        assert layer.use_bias == (family == "vgg")
        if layer.use_bias:
            assert_uniform(layer.bias_initializer, height * width * channels)
    head = model.get_layer("logits")
    assert_uniform(head.kernel_initializer, head.kernel.shape[0])
    assert_uniform(head.bias_initializer, head.kernel.shape[0])


@pytest.mark.once
@pytest.mark.parametrize("family", ["preact", "densenet"])
def test_weights_are_drawn_by_fan_out(family, no_draws, monkeypatch):
    model = model_of(family)
    monkeypatch.undo()
    layers = convolutions(model)
    for layer in layers:
        initializer = layer.kernel_initializer
        assert initializer.scale == 2
        assert initializer.mode == "fan_out"
        assert initializer.distribution == "untruncated_normal"
        assert not layer.use_bias
    assert_normal(layers[0].kernel_initializer, (3, 3, 50, 16))
    assert_normal(layers[-1].kernel_initializer, (1, 1, 50, 256))
    head = model.get_layer("logits")
    assert_uniform(head.kernel_initializer, head.kernel.shape[0])
    if family == "densenet":
        assert isinstance(head.bias_initializer, keras.initializers.Zeros)
    else:
        assert_uniform(head.bias_initializer, head.kernel.shape[0])


@pytest.mark.once
@every_family
def test_batch_normalisation_is_that_of_pytorch(family, no_draws):
    import torch_twins

    model = build(family)
    for layer, module in torch_twins.pairs(model, build_twin(family)):
        if isinstance(layer, keras.layers.BatchNormalization):
            assert layer.momentum == 1 - module.momentum
            assert layer.epsilon == module.eps
            starts = [set(to_numpy(v)) for v in layer.weights]
            assert starts == [{1}, {0}, {0}, {1}]


@pytest.mark.once
@pytest.mark.parametrize("family", ["vgg", "preact"])
def test_same_seed_same_weights_and_no_two_kernels_alike(family, no_draws):
    seeds = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        model = build(family)
        seeds.append([kernel.seed for kernel in kernel_initializers(model)])
    assert seeds[0] == seeds[1]
    assert not set(seeds[0]) & set(seeds[2])
    assert len(set(seeds[0])) == len(seeds[0])


def kernel_initializers(model):
    for layer in convolutions(model) + [model.get_layer("logits")]:
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            yield layer.depthwise_initializer
        else:
            yield layer.kernel_initializer


def table():
    """The rows of the page: {name: [10 classes, 100, statistics, MACs]}."""
    rows = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and len(cells) == 6:
            rows[cells[0].strip("`")] = cells[2:]
    return rows


def multiply_adds(model):
    """One for each weight of a kernel and each place where it is used."""
    return sum(
        int(np.prod(layer.output.shape[1:-1])) * int(np.prod(kernel.shape))
        for layer in model.layers
        if (kernel := getattr(layer, "kernel", None)) is not None
    )


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.once
def test_the_page_lists_and_documents_every_network():
    assert list(table()) == list(networks.NETWORKS)
    text = (PAGE.parent / "api" / "networks.md").read_text()
    for name in networks.NETWORKS:
        assert f"::: crl_keras.networks.{name};" in text
        assert networks.NETWORKS[name] is getattr(networks, name)


@pytest.mark.once
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_sizes_are_those_of_the_page(name, no_draws):
    ten, hundred, statistics, macs = table()[name]
    model = networks.build_network(name, (32, 32, 3), 10)
    assert model.name == name
    parameters = count(model.trainable_variables)
    assert f"{parameters:,}" == ten
    features, classes = model.get_layer("logits").kernel.shape
    assert classes == 10
    assert f"{parameters + 90 * (features + 1):,}" == hundred
    assert f"{(multiply_adds(model) + 90 * features) / 1e6:,.1f}M" == macs
    running = [v for v in model.non_trainable_variables if "moving" in v.path]
    assert f"{count(running):,}" == statistics
    assert len({v.path for v in model.weights}) == len(model.weights)


@pytest.mark.once
def test_arguments_for_widths(no_draws):
    wide = networks.densenet40((32, 32, 3), 10, first_filters=24)
    assert count(wide.trainable_variables) == 1_059_298
    assert count(wide.non_trainable_variables) == 18_720
    for name in ("resnet34", "resnet50", "resnet101"):
        builder = getattr(networks, name)
        model = builder((8, 8, 3), 10, width=4)
        assert model.name == f"{name}_w4"
        assert model.layers[1].filters == 4
        for width in (0, -16, 16.0, None):
            with pytest.raises(ValueError, match="`width` must be an integer"):
                builder((32, 32, 3), 10, width=width)
    for filters in (0, -16, 16.0, None):
        with pytest.raises(ValueError, match="`first_filters` must be an int"):
            networks.densenet40((32, 32, 3), 10, first_filters=filters)


@pytest.mark.once
def test_depth_of_mobilenetv2_is_54(no_draws):
    model = networks.mobilenetv2((32, 32, 3), 10)
    # Shortcuts are convolved where a stage has stride 1: four of seven.
    assert len(convolutions(model)) - 4 + 1 == 54


@pytest.mark.once
@pytest.mark.parametrize(("name", "smallest"), ONE_OF_EACH.items())
def test_smallest_and_other_images(name, smallest, no_draws):
    model = networks.build_network(name, (smallest, smallest, 1), 3)
    (pool,) = of_kind(model, keras.layers.GlobalAveragePooling2D)
    assert pool.input.shape[1:3] == (1, 1)
    model = networks.build_network(name, (64, 33, 1), 3)
    assert model.output_shape == (None, 3)
    for shape in [(smallest - 1, 64, 1), (64, smallest - 1, 1)]:
        with pytest.raises(
            ValueError,
            match=f"{name} needs images of at least {smallest} x {smallest} ",
        ):
            networks.build_network(name, shape, 3)


@pytest.mark.once
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_logits_are_float32_and_channels_last(name, no_draws):
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_image_data_format("channels_first")
    try:
        model = networks.build_network(name, (32, 48, 3), 7)
    finally:
        keras.config.set_dtype_policy("float32")
        keras.config.set_image_data_format("channels_last")
    assert model.output.dtype == "float32"
    hidden = {layer.compute_dtype for layer in model.layers[1:-1]}
    assert hidden == {"bfloat16"}
    ten = int(table()[name][0].replace(",", ""))
    features = model.layers[-1].kernel.shape[0]
    assert count(model.trainable_variables) == ten - 3 * (features + 1)
    for layer in convolutions(model):
        assert layer.data_format == "channels_last"
    assert model.layers[-1].name == "logits"
