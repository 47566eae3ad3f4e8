"""B-CNN, DFL-CNN and DCL as models: sizes, losses, training, saving."""

import keras
import numpy as np
import pytest
from autodiff import to_numpy

from crl_keras import losses
from crl_keras import methods
from crl_keras.methods import Head
from crl_keras.methods import MultiHeadClassifier

CE = keras.losses.SparseCategoricalCrossentropy
CRL = losses.SparseCompetingRatioLoss
SHAPE = (16, 16, 3)
CLASSES = 3


def small_backbone():
    """Maps of 8 x 8 at "finer" and of 4 x 4 at the end."""
    inputs = keras.Input(SHAPE)
    conv = keras.layers.Conv2D
    x = conv(6, 3, strides=2, padding="same", use_bias=False, name="conv_a")(
        inputs
    )
    x = keras.layers.BatchNormalization(name="norm_a")(x)
    x = keras.layers.ReLU(name="finer")(x)
    x = conv(8, 3, strides=2, padding="same", name="conv_b")(x)
    return keras.Model(inputs, keras.layers.ReLU(name="end")(x), name="small")


def build(method, backbone=None, **kwargs):
    backbone = backbone or small_backbone()
    kinds = {
        "bcnn": methods.bilinear_cnn,
        "compact": methods.bilinear_cnn,
        "dfl": methods.dfl_cnn,
        "dcl": methods.dcl,
    }
    given = {
        "compact": {"pooling": "compact", "dimensions": 16},
        "dfl": {"filters": 2},
        "dcl": {"regions": 4, "seed": 3},
    }
    kwargs = {**given.get(method, {}), **kwargs}
    return kinds[method](backbone, CLASSES, **kwargs)


def data(n=10):
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, n).astype("int32")
    x = rng.normal(size=(n, *SHAPE)).astype("float32")
    return x + y[:, None, None, None], y


EVERY = ["bcnn", "compact", "dfl", "dcl"]


@pytest.mark.parametrize("method", EVERY)
def test_trains_and_is_saved(method, tmp_path):
    """`compile` and `fit` as for any model; the loaded model goes on."""
    model, loss = build(method), CRL(from_logits=True)
    x, y = data()
    model.compile(keras.optimizers.SGD(0.01), loss, metrics=["accuracy"])
    history = model.fit(
        x, y, batch_size=5, epochs=2, validation_data=(x, y), verbose=0
    ).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert np.isfinite(history["loss"]).all()
    logits = model.predict(x, verbose=0)
    assert logits.shape == (10, CLASSES)
    found = model.evaluate(x, y, verbose=0, return_dict=True)
    right = np.mean(logits.argmax(axis=1) == y)
    assert found["accuracy"] == pytest.approx(right)
    assert found["loss"] == pytest.approx(to_numpy(loss(y, logits)), rel=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), logits, atol=1e-6)
    assert loaded.count_params() == model.count_params()
    first, second = (
        m.fit(x, y, batch_size=5, verbose=0, shuffle=False).history["loss"]
        for m in (model, loaded)
    )
    # Keras saves no state of random numbers: the regions move otherwise.
    assert first == pytest.approx(second, rel=0.1 if method == "dcl" else 1e-5)


@pytest.mark.parametrize("method", ["dfl", "dcl"])
def test_the_classifier_is_a_plain_model(method, tmp_path):
    model = build(method)
    x, _ = data()
    expected = model.predict(x, verbose=0)
    classifier = model.classifier
    assert type(classifier).__name__ == "Functional"
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    np.testing.assert_allclose(
        loaded.predict(x, verbose=0), expected, atol=1e-6
    )
    of_training = model.count_params() - classifier.count_params()
    # Swap head and convolution of DCL; DFL predicts with all it has.
    assert of_training == {"dfl": 0, "dcl": 8 * 6 + 8 + 1}[method]


@pytest.mark.parametrize("method", ["dfl", "dcl"])
def test_layers_in_front(method):
    """A rescaling in front is one of the images."""
    model = build(method)
    x, y = data()
    inputs = keras.Input(SHAPE)
    behind = model.behind(inputs, keras.layers.Rescaling(2.0)(inputs))
    np.testing.assert_allclose(
        behind.predict(x, verbose=0), model.predict(2 * x, verbose=0), atol=1e-5
    )
    ids = {id(v) for v in model.trainable_variables}
    assert {id(v) for v in behind.trainable_variables} == ids
    behind.compile("sgd", CE(from_logits=True), metrics=["accuracy"])
    before = [to_numpy(v) for v in model.trainable_variables]
    behind.fit(x, y, verbose=0)
    for v, value in zip(model.trainable_variables, before, strict=True):
        assert (to_numpy(v) != value).any(), v.path


def test_losses_of_dfl():
    """The fixture of three heads, with cross-entropy and with CRL."""
    outputs = {
        "global": [[0.3, -0.2, 0.5]],
        "patch": [[0.04, -0.285, -0.46]],
        "side": [[-0.3625, 0.3125, 1.1125]],
    }
    outputs = {k: keras.ops.convert_to_tensor(v) for k, v in outputs.items()}
    model = build("dfl")
    expected = {
        CE: (0.8395462, 1.3454639, 0.5176668, 2.2367768),
        CRL: (1.5661734, 2.1517528, 1.1616713, 3.8340933),
    }
    for loss, (*heads, total) in expected.items():
        model.compile(loss=loss(from_logits=True))
        found = model.head_losses(np.array([2]), outputs)
        for name, value in zip(outputs, heads, strict=True):
            assert to_numpy(found[name]) == pytest.approx(value, abs=1e-6)
        found = model.compute_loss(None, np.array([2]), outputs)
        assert to_numpy(found) == pytest.approx(total, abs=1e-6)


def test_heads_of_dfl_may_keep_the_cross_entropy():
    x, y = data(4)
    for kwargs in ({"loss_on_patch": "ce"}, {"loss_on_side": "ce"}):
        model = build("dfl", **kwargs)
        outputs = model(x, training=True)
        model.compile(loss=CRL(from_logits=True))
        found = model.head_losses(y, outputs)
        for name, value in found.items():
            loss = CE if f"loss_on_{name}" in kwargs else CRL
            expected = loss(from_logits=True)(y, outputs[name])
            assert to_numpy(value) == pytest.approx(
                to_numpy(expected), rel=1e-6
            )


def dcl_outputs():
    m = np.arange(6)
    swap = [(((4 * m + 1) % 9) - 4) / 4, (((5 * m + 2) % 9) - 4) / 4]
    return {
        "pair": [[0.2, 1.1, -0.4], [0.6, 0.1, 0.3]],
        "swap": np.array(swap),
        # What the fixture of the alignment comes to.
        "alignment": np.full((2, 16), 0.4002460),
    }


def converted(outputs):
    return {
        k: keras.ops.convert_to_tensor(v, dtype="float32")
        for k, v in outputs.items()
    }


def test_losses_of_dcl():
    outputs = converted(dcl_outputs())
    y = np.array([1])
    for gamma, expected in (
        (1.0, (3.1545537, 3.8754834, 4.7243272)),
        (0.01, (2.7583101, 3.4792398, 4.3280836)),
    ):
        kinds = ((CE, "ce"), (CRL, "ce"), (CRL, "given"))
        for (loss, on_swap), total in zip(kinds, expected, strict=True):
            model = build("dcl", gamma=gamma, loss_on_swap=on_swap)
            model.compile(loss=loss(from_logits=True))
            found = to_numpy(model.compute_loss(None, y, outputs))
            assert found == pytest.approx(total, abs=2e-6)
    found = {k: to_numpy(v) for k, v in model.head_losses(y, outputs).items()}
    assert found["pair"] == pytest.approx(1.6417709, abs=1e-6)
    assert found["swap"] == pytest.approx(2.6823102, abs=1e-6)


def test_the_swap_head_of_two():
    model = build("dcl", swap="origin")
    model.compile(loss=CE(from_logits=True))
    outputs = dcl_outputs() | {"swap": [[0.3, -0.1], [0.2, 0.4]]}
    found = model.head_losses(np.array([1]), converted(outputs))["swap"]
    assert to_numpy(found) == pytest.approx(0.8555771, abs=1e-6)
    x, y = data()
    model.fit(x, y, verbose=0)


def test_labels_of_pairs():
    model = build("dcl")
    y = np.array([2, 0])
    wanted = {
        "class": [2, 0],
        "pair": [2, 2, 0, 0],
        "swap": [2, 5, 0, 3],
        "origin": [1, 0, 1, 0],
    }
    for kind, expected in wanted.items():
        hard, _ = model._labels(kind, y)
        assert to_numpy(hard).tolist() == expected
        column, _ = model._labels(kind, y[:, None])
        assert to_numpy(column).tolist() == expected
        soft, is_soft = model._labels(kind, np.eye(3, dtype="f")[y])
        soft = to_numpy(soft)
        assert is_soft == (kind != "origin")
        if is_soft:
            assert soft.argmax(axis=-1).tolist() == expected
            assert soft.shape[1] == (6 if kind == "swap" else 3)
            assert (soft.sum(axis=1) == 1).all()
        else:
            assert soft.tolist() == expected


@pytest.mark.parametrize("method", ["dfl", "dcl"])
def test_soft_labels_and_weights(method):
    """One-hot labels are integers; a weight of 0 leaves an image out."""
    model = build(method)
    x, y = data(4)
    outputs = model(x, training=True)
    model.compile(loss=CRL(from_logits=True))
    hard = to_numpy(model.compute_loss(x, y, outputs))
    weights = np.float32([1, 1, 0, 0])
    found = {
        k: to_numpy(v)
        for k, v in model.head_losses(y, outputs, weights).items()
    }
    model.compile(loss=losses.CompetingRatioLoss(from_logits=True))
    one_hot = np.eye(3, dtype="float32")[y]
    soft = to_numpy(model.compute_loss(x, one_hot, outputs))
    assert soft == pytest.approx(hard, rel=1e-6)
    rows = 4 if method == "dcl" else 2
    first = {k: v[:rows] for k, v in outputs.items()}
    alone = model.head_losses(one_hot[:2], first)
    for name in set(found) - {"alignment"}:
        expected = to_numpy(alone[name]) / 2
        assert found[name] == pytest.approx(expected, rel=1e-5), name


@pytest.mark.parametrize("method", ["dfl", "dcl"])
def test_crl_of_beta_0_is_the_cross_entropy(method):
    x, y = data(4)
    model = build(
        method, **({"loss_on_swap": "given"} if method == "dcl" else {})
    )
    outputs = model(x, training=True)
    found = []
    for loss in (CE(from_logits=True), CRL(beta=0, from_logits=True)):
        model.compile(loss=loss)
        found.append(to_numpy(model.compute_loss(x, y, outputs)))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_logits_of_dfl_are_added():
    model = build("dfl", side_weight=0.1)
    x, _ = data()
    found = {k: to_numpy(v) for k, v in model(x, training=True).items()}
    fused = found["global"] + found["patch"] + 0.1 * found["side"]
    np.testing.assert_allclose(found["fused"], fused, atol=1e-6)


def test_logits_of_dcl():
    x, _ = data()
    backbone = small_backbone()
    model = build("dcl", backbone, fusion="swap")
    features = keras.ops.mean(backbone(x, training=False), axis=(1, 2))
    logits = to_numpy(features) @ to_numpy(
        model.network.get_layer("logits").kernel
    )
    swap = to_numpy(features) @ to_numpy(model.network.get_layer("swap").kernel)
    found = model.predict(x, verbose=0)
    np.testing.assert_allclose(
        found, logits + swap[:, :3] + swap[:, 3:], atol=1e-5
    )
    plain = build("dcl", backbone)
    kernel = model.network.get_layer("logits").get_weights()
    plain.network.get_layer("logits").set_weights(kernel)
    np.testing.assert_allclose(plain.predict(x, verbose=0), logits, atol=1e-5)


@pytest.mark.parametrize("method", ["bcnn", "dfl", "dcl"])
def test_mixed_precision_ends_in_float32(method):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build(method)
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = data(4)
    outputs = model(x, training=True)
    outputs = outputs if isinstance(outputs, dict) else {"logits": outputs}
    for output in outputs.values():
        assert keras.backend.standardize_dtype(output.dtype) == "float32"
    model.compile("sgd", CRL(from_logits=True))
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


@pytest.mark.parametrize("method", ["bcnn", "dfl", "dcl"])
def test_frozen_backbones_stay(method):
    backbone = small_backbone()
    model = build(method, backbone, frozen=True)
    x, y = data()
    before = [to_numpy(v) for v in backbone.variables]
    model.compile(keras.optimizers.SGD(0.1), CE(from_logits=True))
    model.fit(x, y, verbose=0)
    for v, value in zip(backbone.variables, before, strict=True):
        np.testing.assert_array_equal(to_numpy(v), value)


# With their backbones' numbers: keras.applications' ResNet50 has 26,560 biases
# of convolutions and 53,120 statistics more than torchvision's counts.
EXTRA = 26_560 + 53_120
COUNTS = {
    ("VGG16", "bcnn"): (67_143_688, 66_095_108),
    ("VGG16", "dfl"): (16_243_488, 16_205_072),
    ("ResNet50", "dfl"): (26_368_032 + EXTRA, 26_302_992 + EXTRA),
    ("ResNet50", "dcl"): (24_738_881 + EXTRA, 24_714_305 + EXTRA),
    ("ResNet50", "origin"): (23_923_777 + EXTRA, 23_915_585 + EXTRA),
    ("ResNet50", "deployed"): (23_917_632 + EXTRA, 23_909_440 + EXTRA),
    ("ResNet50", "fused"): (24_736_832 + EXTRA, 24_712_256 + EXTRA),
}


@pytest.mark.parametrize("name", ["VGG16", "ResNet50"])
def test_parameters(name, no_draws):
    backbone = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(224, 224, 3)
    )
    made = {
        "bcnn": lambda c: methods.bilinear_cnn(backbone, c),
        "dfl": lambda c: methods.dfl_cnn(backbone, c),
        "dcl": lambda c: methods.dcl(backbone, c),
        "origin": lambda c: methods.dcl(backbone, c, swap="origin"),
        "deployed": lambda c: methods.dcl(backbone, c).classifier,
        "fused": lambda c: methods.dcl(backbone, c, fusion="swap").classifier,
    }
    for (of, method), counts in COUNTS.items():
        if of == name:
            found = tuple(made[method](c).count_params() for c in (200, 196))
            assert found == counts, method


def test_taps(no_draws):
    backbone = small_backbone()
    assert methods.find_tap(backbone).shape == (None, 4, 4, 8)
    finer = methods.find_tap(backbone, where="finer")
    assert finer is backbone.get_layer("finer").output
    tapped = methods.bilinear_cnn(backbone, 3, tap="finer", name="tapped")
    assert tapped.get_layer("logits").kernel.shape == (36, 3)
    vgg = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    taps = [methods.find_tap(vgg, where=w) for w in ("last", "finer")]
    # Before the last pooling, and before the fourth; after the activation.
    assert [tap.shape[1] for tap in taps] == [2, 4]
    assert taps[0] is vgg.get_layer("block5_conv3").output
    assert vgg.get_layer("block5_conv3").activation.__name__ == "relu"
    with pytest.raises(ValueError, match="conv_a, conv_b"):
        methods.find_tap(backbone, "conv")
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    pooled = keras.Model(backbone.input, pooled, name="pooled")
    assert methods.find_tap(pooled) is backbone.output
    flat = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="feature map"):
        methods.find_tap(flat)


def test_errors():
    backbone = small_backbone()
    for kwargs in (
        {"swap": "mine"},
        {"fusion": "mine"},
        {"loss_on_swap": "crl"},
        {"swap": "origin", "fusion": "swap"},
        {"regions": 3},
        {"mode": "mine"},
    ):
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            build("dcl", backbone, **kwargs)
    with pytest.raises(ValueError, match="pooling"):
        build("bcnn", backbone, pooling="mine")
    for kwargs in ({"labels": "mine"}, {"loss": "mine"}, {"weight": -1.0}):
        with pytest.raises(ValueError, match=next(iter(kwargs))):
            Head(**kwargs)
    with pytest.raises(ValueError, match="without labels"):
        Head("none", "ce")
    x = keras.Input((2,))
    network = keras.Model(x, {"a": x, "logits": x})
    with pytest.raises(ValueError, match="dict of outputs"):
        MultiHeadClassifier(network, {"b": Head()}, "a")
    with pytest.raises(ValueError, match="another name"):
        MultiHeadClassifier(network, {"logits": Head()}, "a")
    model = build("dfl", backbone)
    model.compile("sgd", ["mse"])
    x, y = data(2)
    with pytest.raises(ValueError, match="one loss from logits"):
        model.compute_loss(x, y, model(x, training=True))
