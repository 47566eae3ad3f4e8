"""Backbones of other libraries: their parameters, their scaling, our head."""

import json

import keras
import numpy as np
import pytest
import torch

from crl_keras.experiments.runs import backbones
from crl_keras.experiments.runs.backbones import build_backbone

SHAPE = (32, 32, 3)
# Of the backbones alone, with the statistics of batch normalisation, as the
# libraries' own aliases build them.
PARAMETERS = {
    "resnet18": 11_186_112,
    "resnet34": 21_301_696,
    "resnet50": 23_561_152,
    "resnet18_v2": 11_183_488,
    "resnet50_v2": 23_564_800,
}


@pytest.mark.once
@pytest.mark.parametrize(
    "name",
    [
        *(f"keras_cv/{name}" for name in PARAMETERS),
        # Its second version has fewer biases than KerasCV's.
        *(f"keras_hub/{name}" for name in PARAMETERS if "v2" not in name),
    ],
)
def test_parameters(name):
    model, _ = build_backbone(name, SHAPE, 7)
    name = name.partition("/")[2]
    features = 2048 if "50" in name else 512
    assert model.count_params() == PARAMETERS[name] + 7 * (features + 1)


@pytest.mark.once
def test_a_library_that_is_not_installed_is_not_the_default(monkeypatch):
    found = {"keras"}
    monkeypatch.setattr("importlib.util.find_spec", found.__contains__)
    assert backbones.default_library("resnet50", "imagenet") == "keras"
    # What alone has the weights is named for the error that says so.
    assert backbones.default_library("resnet34", "imagenet") == "keras_hub"
    found.add("keras_cv")
    assert backbones.default_library("resnet50", "imagenet") == "keras_cv"


@pytest.mark.once
@pytest.mark.parametrize("library", ["keras_cv", "keras_hub"])
@pytest.mark.parametrize(
    "name, parameters",
    [
        ("resnet34", 21_797_672),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
    ],
)
def test_parameters_are_those_of_torchvision(
    library, name, parameters, no_draws
):
    """What is trained, with a head of 1,000 classes."""
    model, _ = build_backbone(f"{library}/{name}", SHAPE, 1000)
    found = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert found == parameters


@pytest.mark.parametrize(
    "name", ["keras_cv/resnet18_v2", "keras_hub/resnet18", "keras/mobilenet_v2"]
)
def test_logits_are_float32_under_any_policy(name):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, scaling = build_backbone(name, SHAPE, 5)
        images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), "uint8")
        logits = model(scaling(images))
    finally:
        keras.config.set_dtype_policy(policy)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    logits = keras.ops.convert_to_numpy(logits)
    assert logits.shape == (2, 5) and np.isfinite(logits).all()
    assert np.abs(logits.sum(axis=1) - 1).min() > 1e-3, "no softmax"


@pytest.mark.parametrize(
    "name, family",
    [
        ("resnet50", keras.applications.resnet),
        ("resnet50_v2", keras.applications.resnet_v2),
        ("mobilenet_v2", keras.applications.mobilenet_v2),
    ],
)
def test_images_are_scaled_as_the_weights_were_trained(
    name, family, monkeypatch
):
    # The network itself has no part in it.
    small = keras.Sequential([keras.Input(SHAPE), keras.layers.ReLU()])
    monkeypatch.setattr(
        keras.applications,
        backbones.IMAGENET["keras"][name],
        lambda **arguments: small,
    )
    _, scaling = build_backbone(f"keras/{name}", SHAPE, 5)
    images = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), "uint8")
    expected = family.preprocess_input(
        images.astype("float32"), data_format="channels_last"
    )
    found = keras.ops.convert_to_numpy(scaling(images))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.once
def test_keras_hub_standardises():
    _, scaling = build_backbone("keras_hub/resnet18", SHAPE, 5)
    image = np.full((1, *SHAPE), 200, "uint8")
    found = keras.ops.convert_to_numpy(scaling(image))[0, 0, 0]
    mean, std = np.array(backbones.MEAN), np.array(backbones.STD)
    np.testing.assert_allclose(found, (200 / 255 - mean) / std, rtol=1e-5)


class Block(torch.nn.Module):
    """Of ResNet-34, as timm names its parts."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = conv(channels, filters, 3, stride)
        self.bn1 = torch.nn.BatchNorm2d(filters)
        self.conv2 = conv(filters, filters, 3)
        self.bn2 = torch.nn.BatchNorm2d(filters)
        self.downsample = torch.nn.Identity()
        if stride > 1:
            self.downsample = torch.nn.Sequential(
                conv(channels, filters, 1, stride),
                torch.nn.BatchNorm2d(filters),
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.downsample(x))


def conv(channels, filters, size, stride=1):
    return torch.nn.Conv2d(
        channels, filters, size, stride, size // 2, bias=False
    )


class ResNet34(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 7, 2), torch.nn.BatchNorm2d(64)
        channels = 64
        for k, count in enumerate((3, 4, 6, 3), 1):
            filters = 32 * 2**k
            blocks = [Block(channels, filters, 1 if k == 1 else 2)]
            blocks += [Block(filters, filters, 1) for _ in range(count - 1)]
            setattr(self, f"layer{k}", torch.nn.Sequential(*blocks))
            channels = filters
        self.fc = torch.nn.Linear(512, 1000)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
        for k in range(1, 5):
            x = getattr(self, f"layer{k}")(x)
        return x.mean((2, 3))


@pytest.mark.once
def test_weights_of_timm_are_converted(tmp_path, monkeypatch):
    """ResNet-34 has its weights from there alone; here drawn, in its format."""
    from safetensors.numpy import save_file

    torch.manual_seed(0)
    twin = ResNet34().eval()
    for module in twin.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    arrays = {k: v.numpy() for k, v in twin.state_dict().items()}
    save_file(arrays, tmp_path / "model.safetensors")
    pretrained = dict(
        input_size=[3, 224, 224],
        interpolation="bicubic",
        mean=backbones.MEAN,
        std=backbones.STD,
    )
    config = dict(
        architecture="resnet34",
        num_classes=1000,
        num_features=512,
        pretrained_cfg=pretrained,
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setitem(
        backbones.IMAGENET["keras_hub"], "resnet34", str(tmp_path)
    )
    model, scaling = build_backbone(
        "keras_hub/resnet34", (64, 64, 3), 8, "imagenet"
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), "uint8")
    pooled = keras.Model(model.inputs, model.get_layer("pool").output)
    found = keras.ops.convert_to_numpy(pooled(scaling(images)))
    inputs = (images / 255 - backbones.MEAN) / backbones.STD
    inputs = torch.tensor(inputs.transpose(0, 3, 1, 2), dtype=torch.float32)
    expected = twin(inputs).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
    assert expected.std() > 0.01


@pytest.mark.once
def test_one_seed_one_network():
    def kernel(seed):
        keras.utils.set_random_seed(seed)
        model, _ = build_backbone("keras_cv/resnet18", SHAPE, 5)
        return np.concatenate([w.ravel() for w in model.get_weights()])

    np.testing.assert_array_equal(kernel(1), kernel(1))
    assert not np.array_equal(kernel(1), kernel(2))


@pytest.mark.once
@pytest.mark.parametrize(
    "name, shape, weights, message",
    [
        ("vgg16", SHAPE, "none", "keras_cv/ resnet18.*'vgg16'"),
        ("keras_cv/mobilenet_v2", SHAPE, "none", "Received: 'keras_cv/mob"),
        ("keras/resnet18", SHAPE, "none", "Received: 'keras/resnet18'"),
        ("keras_cv/resnet34", SHAPE, "imagenet", "Take it from keras_hub"),
        ("keras_cv/resnet152_v2", SHAPE, "imagenet", "from keras "),
        ("keras_cv/resnet18", SHAPE, "nowhere.h5", "'nowhere.h5', which does"),
        ("keras_cv/resnet18", (32, 32, 1), "none", "in colour"),
    ],
)
def test_what_there_is_not(name, shape, weights, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, shape, 5, weights)


@pytest.mark.once
def test_a_missing_library_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r'"crl-keras\[keras_cv\]"'):
        build_backbone("keras_cv/resnet18", SHAPE, 5)
