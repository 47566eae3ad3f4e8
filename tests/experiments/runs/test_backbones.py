"""Backbones of other libraries: their parameters, their scaling, our head."""

import json
import sys

import keras
import numpy as np
import pytest
import torch
from PIL import Image

from crl_keras.experiments.runs import backbone_names
from crl_keras.experiments.runs import backbones
from crl_keras.experiments.runs.backbone_files import describe
from crl_keras.experiments.runs.backbone_files import open_backbone
from crl_keras.experiments.runs.backbone_names import application_families
from crl_keras.experiments.runs.backbone_names import choose_library
from crl_keras.experiments.runs.backbone_names import find_backbone
from crl_keras.experiments.runs.backbone_names import names_of
from crl_keras.experiments.runs.backbones import build_backbone
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.records import read_records

layers = keras.layers
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
def test_parameters(name, no_draws):
    model, _ = build_backbone(name, SHAPE, 7)
    name = name.partition("/")[2]
    features = 2048 if "50" in name else 512
    assert model.count_params() == PARAMETERS[name] + 7 * (features + 1)


@pytest.fixture
def narrow(monkeypatch):
    """ResNets of a few filters, where a test is not about their numbers."""
    monkeypatch.setattr(backbones, "WIDTHS", (64, 8, 8, 8))


@pytest.fixture
def installed(monkeypatch):
    """The libraries that are there."""
    found = {"keras"}
    monkeypatch.setattr(backbone_names, "_installed", found.__contains__)
    return found


@pytest.mark.once
def test_a_library_that_is_not_installed_is_not_chosen(installed):
    assert choose_library("resnet50", "imagenet")[0] == "keras"
    # What alone has the weights is named for the error that says so.
    assert choose_library("resnet34", "imagenet")[0] == "keras_hub"
    installed.add("keras_cv")
    assert choose_library("resnet50", "imagenet")[0] == "keras_cv"
    # KerasCV is frozen: it comes first for what it always had here alone.
    assert choose_library("densenet121", "imagenet")[0] == "keras"


@pytest.mark.once
def test_why_a_library_was_chosen_is_said(installed, script):
    found = find_backbone("resnet50")
    assert found.network == "keras/resnet50" and found.weights == "imagenet"
    assert "not installed: keras_cv, keras_hub" in found.chosen
    command = ("finetune_cub.py", "--data-dir", "x", "--list")
    first = script(*command)[1].splitlines()[0]
    assert first == found.chosen
    assert (
        "the only one that has it"
        in find_backbone("xception", weights="none").chosen
    )
    # What the user chose needs no words.
    assert find_backbone("resnet50", "keras").chosen is None
    assert "comes from" not in script(*command, "--library", "keras")[1]


@pytest.mark.once
@pytest.mark.parametrize(
    "words, library, network",
    [
        ("EfficientNetV2B0", "keras", "keras/efficientnet_v2_b0"),
        ("NASNetMobile", None, "keras/nasnet_mobile"),
        ("keras/ConvNeXtTiny", None, "keras/convnext_tiny"),
        ("keras_cv/resnet50", None, "keras_cv/resnet50"),
        ("resnet_18_imagenet", None, "keras_hub/resnet18"),
        (
            "vit_base_patch16_224_imagenet",
            None,
            "keras_hub/vit_base_patch16_224_imagenet",
        ),
    ],
)
def test_a_backbone_is_found_by_its_usual_name(words, library, network):
    assert find_backbone(words, library).network == network


@pytest.mark.once
def test_the_names_are_those_of_the_libraries():
    """They are read from files, so that no library has to be imported."""
    applications = {
        name
        for name, value in vars(keras.applications).items()
        if callable(value)
    }
    assert set(application_families()) == applications
    for name, family in application_families().items():
        module = getattr(keras.applications, family)
        assert hasattr(module, "preprocess_input")
        kind = getattr(keras.applications, name)
        assert kind.__module__.rpartition(".")[2] == family

    import keras_cv
    import keras_hub

    presets = set()
    for kind in vars(keras_hub.models).values():
        if isinstance(kind, type) and issubclass(
            kind, keras_hub.models.ImageClassifier
        ):
            presets |= set(
                kind.backbone_cls.presets if kind.backbone_cls else ()
            )
    ours = {w for w in names_of("keras_hub").values() if w and "//" not in w}
    assert ours <= presets
    assert {p for p in presets if "imagenet" in p} <= ours

    kinds = [k for n, k in vars(keras_cv.models).items() if "Backbone" in n]
    presets = set().union(*(set(k.presets) for k in kinds))
    ours = names_of("keras_cv")
    assert set(ours) <= presets
    assert {w for w in ours.values() if w} == {
        p for p in presets if p.endswith("_imagenet")
    }


@pytest.mark.once
def test_backbones_are_listed(script):
    code, out, _ = script("finetune.py", "--list-backbones")
    assert code == 0
    words = out.replace(",", "").split()
    assert {"efficientnet_v2_b0*", "resnet18", "vit_det"} & set(words) == {
        "efficientnet_v2_b0*",
        "resnet18",
    }
    assert script("compare_losses.py", "--list-backbones")[1] == out
    assert max(map(len, out.splitlines())) <= 80


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
def test_logits_are_float32_under_any_policy(name, narrow):
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


def one_of_each_family():
    families = {f: name for name, f in application_families().items()}
    names = {weights: name for name, weights in names_of("keras").items()}
    return [(names[name], name, f) for f, name in families.items()]


@pytest.mark.parametrize("name, kind, family", one_of_each_family())
def test_images_are_scaled_as_the_weights_were_trained(
    name, kind, family, monkeypatch, tmp_path
):
    # The network itself has no part in it.
    small = keras.Sequential([keras.Input(SHAPE), keras.layers.ReLU()])
    monkeypatch.setattr(keras.applications, kind, lambda **arguments: small)
    _, scaling = build_backbone(f"keras/{name}", SHAPE, 5)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, *SHAPE), "uint8")
    expected = getattr(keras.applications, family).preprocess_input(
        pixels.astype("float32"), data_format="channels_last"
    )
    images = keras.Input(SHAPE, dtype="uint8")
    saved = tmp_path / "scaling.keras"
    keras.Model(images, scaling(images)).save(saved)
    for scale in (scaling, keras.models.load_model(saved)):
        found = keras.ops.convert_to_numpy(scale(pixels))
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
    tensor = keras.ops.convert_to_tensor(pixels.astype("float32"))
    scaling(tensor)  # On PyTorch `preprocess_input` writes over its argument.
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(tensor), pixels)


@pytest.mark.once
def test_families_that_leave_images_as_they_are_scale_within(no_draws):
    pixels = np.full((1, *SHAPE), 200, "float32")
    unchanged = set()
    for family in set(application_families().values()):
        module = getattr(keras.applications, family)
        if (module.preprocess_input(pixels.copy()) == pixels).all():
            unchanged.add(family)
    families = {
        name: application_families()[kind]
        for name, kind in names_of("keras").items()
    }
    smallest = ("convnext_tiny", "efficientnet_b0", "efficientnet_v2_b0")
    smallest += ("mobilenet_v3_small",)
    assert {families[name] for name in smallest} == unchanged
    for name in smallest:
        model, _ = build_backbone(f"keras/{name}", SHAPE, 5)
        (network,) = [x for x in model.layers if isinstance(x, keras.Model)]
        first = [type(layer).__name__ for layer in network.layers[:3]]
        assert {"Rescaling", "Normalization"} & set(first), name


@pytest.mark.once
def test_keras_hub_standardises(narrow):
    _, scaling = build_backbone("keras_hub/resnet18", SHAPE, 5)
    image = np.full((1, *SHAPE), 200, "uint8")
    found = keras.ops.convert_to_numpy(scaling(image))[0, 0, 0]
    mean, std = np.array(backbones.MEAN), np.array(backbones.STD)
    np.testing.assert_allclose(found, (200 / 255 - mean) / std, rtol=1e-5)


def hub_backbone(kind):
    import keras_hub

    if kind == "vit":
        return keras_hub.models.ViTBackbone(
            SHAPE, 8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8
        )
    return keras_hub.models.DenseNetBackbone(
        stackwise_num_repeats=[1, 1], growth_rate=4, image_shape=SHAPE
    )


@pytest.mark.parametrize(
    "kind, name, converter",
    [
        ("densenet", "densenet_121_imagenet", "DenseNetImageConverter"),
        ("vit", "vit_base_patch16_224_imagenet", "ViTImageConverter"),
    ],
)
def test_a_preset_of_keras_hub(kind, name, converter, tmp_path, monkeypatch):
    """Of small networks, in the format of what would be downloaded."""
    import keras_hub

    twin = hub_backbone(kind)
    converter = getattr(keras_hub.layers, converter)(
        image_size=SHAPE[:2], scale=[0.01, 0.02, 0.03], offset=[-1.0, 0.5, 0.0]
    )
    for part in (twin, converter):
        part.save_to_preset(str(tmp_path))
    monkeypatch.setitem(backbones.IMAGENET["keras_hub"], name, str(tmp_path))
    monkeypatch.setattr(backbones, "_check_size", lambda *arguments: None)
    model, scaling = build_backbone(f"keras_hub/{name}", SHAPE, 5, "imagenet")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), "uint8")
    scaled = keras.ops.convert_to_numpy(converter(pixels))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(scaling(pixels)), scaled, rtol=1e-6
    )
    features = keras.ops.convert_to_numpy(twin(scaled))
    # The class token of a transformer, the average of a map.
    pooled = features[:, 0] if kind == "vit" else features.mean((1, 2))
    kernel, bias = model.get_layer("logits").get_weights()
    found = keras.ops.convert_to_numpy(model(scaling(pixels)))
    np.testing.assert_allclose(found, pooled @ kernel + bias, atol=1e-4)

    other, _ = build_backbone(f"keras_hub/{name}", SHAPE, 5)
    assert other.count_params() == model.count_params()
    assert np.abs(other.get_weights()[0] - model.get_weights()[0]).max() > 0


@pytest.mark.once
@pytest.mark.parametrize("rescaling", [False, True])
def test_a_preset_of_keras_cv(rescaling, tmp_path, monkeypatch):
    """Both kinds get pixels from 0 to 255 and see them divided by 255."""
    import keras_cv

    twin = keras_cv.models.DenseNetBackbone(
        stackwise_num_repeats=[1, 1],
        include_rescaling=rescaling,
        growth_rate=4,
        input_shape=SHAPE,
    )
    config = keras.saving.serialize_keras_object(twin)
    config["weights"] = "model.weights.h5"
    (tmp_path / "config.json").write_text(json.dumps(config))
    twin.save_weights(tmp_path / "model.weights.h5")
    presets = {"densenet121": str(tmp_path)}
    monkeypatch.setattr(backbone_names, "_cv_presets", lambda: presets)
    model, scaling = build_backbone(
        "keras_cv/densenet121", SHAPE, 5, "imagenet"
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), "uint8")
    pooled = keras.Model(model.inputs, model.get_layer("pool").output)
    found = keras.ops.convert_to_numpy(pooled(scaling(pixels)))
    inputs = pixels.astype("float32") / (1 if rescaling else 255)
    features = keras.ops.convert_to_numpy(twin(inputs))
    np.testing.assert_allclose(found, features.mean((1, 2)), rtol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize(
    "name, weights, size, message",
    [
        ("keras/xception", "none", 64, "at least 71 pixels.*64 x 64.*image-si"),
        ("keras/xception", "imagenet", 64, "at least 71 pixels a side"),
        ("keras/inception_v3", "none", 32, "at least 75 pixels a side"),
        ("keras/mobilenet_v3_small", "none", 16, "at least 32 pixels a side"),
        (
            "keras_hub/vit_base_patch16_384_imagenet",
            "imagenet",
            224,
            "--image-size 384",
        ),
    ],
)
def test_images_that_are_too_small(name, weights, size, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, (size, size, 3), 5, weights)


@pytest.mark.once
def test_how_a_preset_is_built_cannot_be_fetched(monkeypatch):
    def offline(name, input_shape, imagenet):
        raise ConnectionError("Max retries exceeded")

    monkeypatch.setattr(backbones, "_keras_hub", offline)
    with pytest.raises(OSError, match="Run this once with an internet"):
        build_backbone("keras_hub/densenet_121_imagenet", SHAPE, 5)


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
def test_one_seed_one_network(narrow):
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
        ("vgg16", SHAPE, "none", "such as keras_hub/vgg_16.*'vgg16'"),
        ("keras_cv/mobilenet_v2", SHAPE, "none", "such as keras/mobilenet_v2"),
        ("keras/resnet18", SHAPE, "none", "Received: 'keras/resnet18'"),
        ("keras/zzz", SHAPE, "none", "exists. Received.*--list-backbones"),
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
def test_a_missing_library_is_named_and_leaves_nothing(
    tmp_path, monkeypatch, script
):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r'"\.\[keras-cv\]" in a clone'):
        build_backbone("keras_cv/resnet18", SHAPE, 5)
    folder = photos(tmp_path / "photos")
    code, _, error = script(
        *("finetune.py", "--dataset", f"folder:{folder}", "--weights", "none"),
        *("--backbone", "resnet18", "--library", "keras_cv"),
    )
    assert code != 0 and 'pip install "crl-keras[keras-cv]"' in error
    assert not (tmp_path / "runs").exists()
    # Of names that only an installed library has, too.
    monkeypatch.setattr(backbone_names, "_hub_presets", dict)
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(ImportError, match=r"\[keras-hub\]"):
        find_backbone("vgg_16_imagenet", "keras_hub")


def photos(folder):
    for i in range(8):
        path = folder / f"{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (30 * i, 0, 0)).save(path)
    return folder


# A model of one's own


def squeezed(x):
    """With a pooling that the images bypass."""
    weights = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, layers.Conv2D(4, 1)(weights)])


def own(kind):
    """`(model, name of the layer where it is cut, features there)`."""
    images = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, strides=2)(layers.Rescaling(1 / 255)(images))
    if kind == "sequential":
        parts = [
            keras.Input((None, None, 3)),
            layers.Conv2D(4, 3),
            layers.MaxPooling2D(),
            layers.Conv2D(4, 3),
            layers.GlobalMaxPooling2D(name="here"),
            layers.Dense(3),
        ]
        return keras.Sequential(parts), "here", (4,)
    if kind == "bypassed":
        x = layers.Flatten(name="flat")(squeezed(x))
        return (
            keras.Model(images, layers.Dense(3, name="here")(x)),
            "here",
            (900,),
        )
    if kind == "stem":  # A pooling that convolutions follow is no end.
        x = layers.Conv2D(2, 3)(layers.MaxPooling2D()(x))
        x = layers.Dense(6)(layers.Flatten()(x))
        return (
            keras.Model(images, layers.Dense(3, name="here")(x)),
            "here",
            (6,),
        )
    if kind == "vgg":
        x = layers.Flatten()(layers.MaxPooling2D(name="here")(x))
        x = layers.Dense(3)(layers.Dense(6)(x))
        return keras.Model(images, x), "here", (7, 7, 4)
    x = layers.GlobalAveragePooling2D(name="here")(squeezed(x))
    model = keras.Model(images, layers.Dense(3)(x))
    if kind == "pooled":
        return model, "here", (4,)
    # As the models that we save: all of it in a model that takes integers.
    whole = keras.Input(SHAPE, dtype="uint8")
    x = layers.Rescaling(1.0, name="outer")(whole)
    return keras.Model(whole, model(x)), "here", (4,)


@pytest.mark.parametrize(
    "kind", ["sequential", "bypassed", "stem", "vgg", "pooled", "nested"]
)
def test_a_model_of_one_s_own_is_cut(kind, tmp_path):
    model, layer, features = own(kind)
    path = tmp_path / "mine.keras"
    model.save(path)
    backbone, scaling = open_backbone(path, SHAPE)
    pixels = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), "uint8")
    found = backbone(scaling(pixels))
    assert tuple(found.shape) == (2, *features)
    sentence = describe(path)
    assert f"its layer {layer!r}" in sentence
    assert ("no Rescaling" in sentence) == (kind == "sequential")
    # What is left of the model makes the same of it.
    inner = model.layers[-1] if kind == "nested" else model
    after = inner.layers[[x.name for x in inner.layers].index(layer) :]
    for part in after if isinstance(after[0], layers.Dense) else after[1:]:
        found = part(found)
    expected = model(pixels.astype("float32"))
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found),
        keras.ops.convert_to_numpy(expected),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.once
def test_a_model_of_integers_gets_rounded_pixels(tmp_path):
    own("nested")[0].save(tmp_path / "mine.keras")
    backbone, scaling = open_backbone(tmp_path / "mine.keras", SHAPE)
    near, whole = np.full((2, 1, *SHAPE), [[[[[6.9]]]], [[[[7.0]]]]], "float32")
    np.testing.assert_array_equal(
        *(
            keras.ops.convert_to_numpy(backbone(scaling(x)))
            for x in (near, whole)
        )
    )


@pytest.mark.once
def test_the_identity_of_a_file(tmp_path):
    """What is in it, not where it lies."""
    paths = [tmp_path / "my net.keras", tmp_path / "there" / "my net.keras"]
    paths[1].parent.mkdir()
    own("pooled")[0].save(paths[0])
    paths[1].write_bytes(paths[0].read_bytes())
    found = [find_backbone(str(path)) for path in paths]
    assert found[0].network == found[1].network
    assert found[0].network.startswith("file/my_net-")
    configs = [
        RunConfig("cub", f.network, "ce", get_recipe("finetune"), 0)
        for f in found
    ]
    configs = [
        RunConfig.from_dict({**c.to_dict(), "weights": f.weights})
        for c, f in zip(configs, found, strict=True)
    ]
    assert configs[0].run_id == configs[1].run_id
    assert configs[0].group == configs[1].group
    assert configs[0].weights != configs[1].weights

    own("vgg")[0].save(paths[0])
    assert find_backbone(str(paths[0])).network != found[1].network
    with pytest.raises(ValueError, match="another file"):
        build_backbone(found[0].network, SHAPE, 5, str(paths[0]))


@pytest.mark.once
def test_files_that_are_no_backbone(tmp_path):
    path = tmp_path / "mine.keras"
    with pytest.raises(ValueError, match="that exists"):
        find_backbone(str(path))
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="that model.save wrote"):
        open_backbone(path, SHAPE)
    own("pooled")[0].save(path)
    with pytest.raises(ValueError, match="takes images of 32 x 32.*-size 32"):
        open_backbone(path, (64, 64, 3))
    with pytest.raises(ValueError, match="leave them out"):
        find_backbone(str(path), weights="none")
    keras.Sequential([keras.Input((4,)), layers.Dense(3)]).save(path)
    with pytest.raises(ValueError, match="takes images in colour"):
        open_backbone(path, SHAPE)
    keras.Sequential([keras.Input(SHAPE), layers.Conv2D(2, 3)]).save(path)
    with pytest.raises(ValueError, match="Received one without"):
        open_backbone(path, SHAPE)


def test_a_model_of_one_s_own_is_trained_and_asked(tmp_path, script):
    own("pooled")[0].save(tmp_path / "mine.keras")
    photos(tmp_path / "pets")
    code, out, error = script(
        *"finetune.py --backbone mine.keras --dataset folder:pets".split(),
        *"--image-size 32 --epochs 1 --batch-size 4 --held-out 0".split(),
    )
    assert code == 0, error
    assert out.startswith("mine.keras is used up to and with its layer 'here'")
    (record,) = read_records(next(tmp_path.glob("runs/pets-file-mine-*")))
    name, _, fingerprint = record.config.network.rpartition("-")
    assert name == "file/mine" and record.result["weights"] == fingerprint
    assert record.result["network"]["parameters"] == 4 * 28 + 20 + 2 * 5
    code, out, error = script("predict.py", str(record.path), "pets/0/0.png")
    assert code == 0 and "%  " in out, error
