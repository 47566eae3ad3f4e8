"""The losses CRL is compared with: values, gradients, layouts and errors."""

import keras
import numpy as np
import pytest
import reference
from autodiff import assert_no_class
from autodiff import compilers
from autodiff import to_numpy
from autodiff import value_and_gradient
from keras import ops

from crl_keras import losses

# By name: settings of the parameters in the order of the reference, and it.
SETTINGS = {
    "focal": [
        dict(gamma=2.0),
        dict(gamma=0.5),
        dict(gamma=5.0),
        dict(gamma=0.0),
    ],
    "tamed": [
        dict(alpha=0.8),
        dict(alpha=1.0),
        dict(alpha=2.0),
        dict(alpha=0.0),
    ],
    "dual": [
        dict(alpha=1.0, beta=4.5),
        dict(alpha=0.1, beta=1.0),
        dict(alpha=1.0, beta=0.0),
    ],
    "released": [
        dict(alpha=1.5, beta=1.0),
        dict(alpha=0.0, beta=1.0),
        dict(alpha=1.0, beta=0.25),
    ],
}
REFERENCES = {
    "focal": reference.focal_one,
    "tamed": reference.tamed_one,
    "dual": reference.dual_one,
    "released": reference.released_one,
}
DENSE = {
    "focal": (losses.focal_loss, losses.FocalLoss),
    "tamed": (losses.tamed_cross_entropy, losses.TamedCrossEntropy),
    "dual": (losses.dual_cross_entropy, losses.DualCrossEntropy),
}
SPARSE = {
    "focal": (losses.sparse_focal_loss, losses.SparseFocalLoss),
    "tamed": (
        losses.sparse_tamed_cross_entropy,
        losses.SparseTamedCrossEntropy,
    ),
    "dual": (losses.sparse_dual_cross_entropy, losses.SparseDualCrossEntropy),
    "released": (
        losses.released_competing_ratio_loss,
        losses.ReleasedCompetingRatioLoss,
    ),
}
FORMS = [("dense", name) for name in DENSE] + [
    ("sparse", name) for name in SPARSE
]
EACH = pytest.mark.parametrize("form, name", FORMS)
EXACT = pytest.mark.parametrize("form, name", FORMS[:-1])
# Inductor alone would take as long as all the rest, for no other code of ours.
WAYS = ["eager", *(way for way in compilers() if way != "inductor")]
RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(12, 5))).astype("float32")
LABELS = RNG.integers(0, 5, 12)


def make(form, name, labels, classes=5, **options):
    """The loss of each sample as a function of the logits alone."""
    function = (DENSE if form == "dense" else SPARSE)[name][0]
    options = {"from_logits": True, **SETTINGS[name][0], **options}
    if form == "dense":
        labels = reference.one_hot(labels, classes).astype("float32")
    return lambda x: function(labels, x, **options)


def make_batch(classes, scale, samples=12):
    """Logits whose labels are likely, unlikely and random in equal parts."""
    rng = np.random.default_rng(classes)
    logits = (scale * rng.normal(size=(samples, classes))).astype("float32")
    labels = rng.integers(0, classes, samples)
    third = samples // 3
    labels[:third] = logits[:third].argmax(axis=1)
    labels[third : 2 * third] = logits[third : 2 * third].argmin(axis=1)
    return logits, labels


@EACH
def test_values_and_gradients_match_float64(form, name):
    classes = 10
    for scale in (1.0, 2.0 if name == "released" else 8.0):
        logits, labels = make_batch(classes, scale)
        y_true = reference.one_hot(labels, classes)
        for setting in SETTINGS[name]:
            args = REFERENCES[name], y_true, logits, *setting.values()
            function = make(form, name, labels, classes, **setting)
            np.testing.assert_allclose(
                to_numpy(function(logits)),
                reference.of_each(*args),
                rtol=5e-6,
                atol=1e-6,
            )
            _, gradient = value_and_gradient(function, logits)
            np.testing.assert_allclose(
                gradient,
                reference.differences(*args),
                rtol=1e-4,
                atol=3e-6,
                err_msg=f"{scale}, {setting}",
            )


@EACH
def test_worked_example(form, name):
    """By hand, to 10 digits, for p = softmax(2, .5, -1, .3)."""
    expected = {
        "focal": (0.0367790264, 3.1484633521),
        "tamed": (0.329138281, 1.716978035),
        "dual": (1.7005879841, 6.9025319608),
        "released": (0.9704007705, 4.2779334636),
    }
    logits = np.array([[2.0, 0.5, -1.0, 0.3]] * 2, "float32")
    function = make(form, name, np.array([0, 2]), 4)
    np.testing.assert_allclose(
        to_numpy(function(logits)), expected[name], rtol=1e-6
    )


@EXACT
def test_the_gradient_is_the_one_that_is_documented(form, name):
    _, gradient = value_and_gradient(make(form, name, LABELS), LOGITS)
    y = reference.one_hot(LABELS, 5)
    p = np.exp([reference.log_softmax(x) for x in LOGITS])
    e = (p * y).sum(axis=1, keepdims=True)
    if name == "focal":
        expected = (p - y) * (1 - e) * (1 - e - 2 * e * np.log(e))
    elif name == "tamed":
        expected = (p - y) * (1 - np.log(e)) ** -0.8
    else:
        w = (1 - y) * p / (1 + p)
        expected = p - y + 4.5 * (w - p * w.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


HARD = np.array(
    [[40.0, 0, -5], [500, 0, 0], [1e4, -1e4, 0], [1e4, 9999, -1e4]], "float32"
)
HARD_LABELS = np.array([1, 2, 1, 1])


@EXACT
def test_hard_samples_keep_their_gradient(form, name):
    """Keras's focal loss clips, and has gradient 0 here."""
    value, gradient = value_and_gradient(make(form, name, HARD_LABELS, 3), HARD)
    y_true = reference.one_hot(HARD_LABELS, 3)
    args = REFERENCES[name], y_true, HARD, *SETTINGS[name][0].values()
    np.testing.assert_allclose(value, reference.of_each(*args).sum(), rtol=1e-5)
    expected = reference.differences(*args, step=1e-3)
    np.testing.assert_allclose(gradient, expected, rtol=2e-3, atol=1e-7)
    assert (gradient[np.arange(4), HARD_LABELS] < 0).all()
    if name == "focal":
        _, keras_own = value_and_gradient(
            lambda x: keras.losses.categorical_focal_crossentropy(
                y_true.astype("float32"), x, alpha=1, from_logits=True
            ),
            HARD,
        )
        assert (keras_own[:3] == 0).all()


@EACH
def test_confident_samples_have_a_finite_gradient(form, name):
    """A power below 1 has no derivative at 0, and a product 0 * inf is NaN."""
    logits = np.array([[20.0, 0, -3], [200, 0, 0], [1e4, -1e4, 0]], "float32")
    for setting in SETTINGS[name]:
        if name == "released" and setting["alpha"] == 0:
            continue  # It ends at a clamp: see below.
        value, gradient = value_and_gradient(
            make(form, name, np.zeros(3, int), 3, **setting), logits
        )
        y_true = reference.one_hot([0, 0, 0], 3)
        expected = reference.of_each(
            REFERENCES[name], y_true, logits, *setting.values()
        )
        np.testing.assert_allclose(value, expected.sum(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient, 0, atol=1e-6)


@EXACT
def test_without_its_parameter_each_is_the_cross_entropy(form, name):
    setting = SETTINGS[name][-1]
    assert 0.0 in setting.values()
    y_true = reference.one_hot(LABELS, 5).astype("float32")
    for actual, expected in zip(
        value_and_gradient(make(form, name, LABELS, **setting), LOGITS),
        value_and_gradient(
            lambda x: keras.losses.categorical_crossentropy(
                y_true, x, from_logits=True
            ),
            LOGITS,
        ),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)


def test_for_two_classes_dual_is_the_competing_ratio_loss():
    logits, labels = make_batch(2, 4.0)
    for alpha, beta in [(1.0, 4.5), (1.5, 1.0)]:
        options = dict(alpha=alpha, beta=beta, from_logits=True)
        np.testing.assert_allclose(
            to_numpy(
                losses.sparse_dual_cross_entropy(labels, logits, **options)
            ),
            to_numpy(
                losses.sparse_competing_ratio_loss(labels, logits, **options)
            ),
            rtol=1e-5,
            atol=1e-6,
        )


def test_focal_is_that_of_keras_where_that_does_not_clip():
    y_true = reference.one_hot(LABELS, 5).astype("float32")
    for gamma in (0.5, 2.0):
        own = keras.losses.CategoricalFocalCrossentropy(
            alpha=1, gamma=gamma, from_logits=True
        )
        ours = losses.FocalLoss(gamma, from_logits=True)
        np.testing.assert_allclose(
            to_numpy(ours(y_true, LOGITS)),
            to_numpy(own(y_true, LOGITS)),
            rtol=1e-5,
        )


@pytest.mark.parametrize("name", ["focal", "tamed"])
def test_the_minimum_for_a_soft_label_is_at_the_label(name):
    y_true = np.array([[0.6, 0.3, 0.1]], "float32")
    _, gradient = value_and_gradient(
        lambda x: DENSE[name][0](y_true, x, from_logits=True), np.log(y_true)
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("name", list(DENSE))
def test_soft_and_smoothed_labels_match_float64(name):
    soft = RNG.dirichlet(np.full(5, 0.3), size=12).astype("float32")
    function, _ = DENSE[name]
    parameters = SETTINGS[name][0].values()
    for y_true, smoothing in [(soft, 0.0), (np.eye(5)[LABELS], 0.1)]:
        smoothed = (1 - smoothing) * y_true + smoothing / 5
        args = REFERENCES[name], smoothed, LOGITS, *parameters
        value, gradient = value_and_gradient(
            lambda x, y=y_true, s=smoothing: function(
                y, x, from_logits=True, label_smoothing=s
            ),
            LOGITS,
        )
        expected = reference.of_each(*args).sum()
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        np.testing.assert_allclose(
            gradient, reference.differences(*args), rtol=1e-4, atol=2e-5
        )


def released(logits, alpha=1.5, beta=1.0):
    """Value and gradient in the logit of class 0, the label."""
    labels = np.zeros(len(logits), "int32")
    function = make("sparse", "released", labels, alpha=alpha, beta=beta)
    logits = np.array(logits, "float32")
    _, gradient = value_and_gradient(function, logits)
    return to_numpy(function(logits)), gradient


def margins(*values):
    """Logits of 10 classes, those of the competing ones 0."""
    return [[value, *[0.0] * 9] for value in values]


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_released_ignores_samples_outside_of_its_clamp(alpha):
    value, gradient = released(margins(-40, -16, 20, 1e4, -11), alpha)
    assert (gradient[:4] == 0).all()
    saturated = 16.118 + np.log(alpha + 1)
    np.testing.assert_allclose(value[:2], saturated, rtol=1e-4)
    # Just inside, it still pushes with -1.
    np.testing.assert_allclose(gradient[4, 0], -1, rtol=1e-3)


def test_released_nllr_is_bounded_and_its_gradient_shrinks():
    logits = margins(100, 9, 12, 14, 0)
    value, gradient = released(logits, alpha=0.0)
    np.testing.assert_allclose(value[0], -15.33, atol=0.03)
    # Of competing probability q, the 1e-7 leaves the share q / (q + 1e-7) of
    # the gradient -1. In float32, 1 - p_c = q is known to 6e-8.
    q = 1 - np.exp([reference.log_softmax(x)[0] for x in logits])
    np.testing.assert_allclose(
        gradient[1:, 0], -q[1:] / (q[1:] + 1e-7), rtol=1e-2
    )
    assert gradient[3, 0] > -0.995


def test_released_is_exact_crl_inside_of_the_clamp():
    logits = margins(-9, -3, 0, 3, 9)
    labels = np.zeros(5, "int32")
    for beta in (0.25, 1.0):
        value, gradient = released(logits, beta=beta)
        exact = value_and_gradient(
            lambda x, b=beta: losses.sparse_competing_ratio_loss(
                labels, x, alpha=1.5, beta=b, from_logits=True
            ),
            np.array(logits, "float32"),
        )
        np.testing.assert_allclose(value.sum(), exact[0], rtol=1e-5)
        np.testing.assert_allclose(gradient, exact[1], rtol=1e-3, atol=1e-6)


@EACH
def test_probabilities_are_those_of_the_logits(form, name):
    logits = LOGITS / 4
    p = 3 * to_numpy(ops.softmax(logits)).astype("float32")  # Renormalised.
    np.testing.assert_allclose(
        to_numpy(make(form, name, LABELS, from_logits=False)(p)),
        to_numpy(make(form, name, LABELS)(logits)),
        rtol=1e-4,
    )
    certain = np.array([[0, 0, 1, 0, 0]], "float32")
    for label in (2, 3):
        _, gradient = value_and_gradient(
            make(form, name, np.array([label]), from_logits=False), certain
        )
        assert np.isfinite(gradient).all()


@EACH
def test_axes_and_label_layouts(form, name):
    axis = 1
    maps = (3 * RNG.normal(size=(2, 4, 3))).astype("float32")
    labels = RNG.integers(0, 3, (2, 4))
    expected = to_numpy(
        make("sparse", name, labels.ravel())(maps.reshape(-1, 3))
    )
    y_true = labels if form == "sparse" else np.eye(3)[labels]
    layouts = [y_true if form == "sparse" else np.moveaxis(y_true, -1, axis)]
    if form == "sparse":
        layouts.append(np.expand_dims(labels, axis))
    function = (DENSE if form == "dense" else SPARSE)[name][0]
    for layout in layouts:
        for x, rtol in [(maps, 1e-5), (to_numpy(ops.softmax(maps)), 1e-4)]:
            actual = function(
                layout,
                np.moveaxis(x.astype("float32"), -1, axis),
                axis=axis,
                from_logits=x is maps,
                **SETTINGS[name][0],
            )
            np.testing.assert_allclose(
                to_numpy(actual).ravel(), expected, rtol=rtol, atol=1e-4
            )


@pytest.mark.parametrize("name", list(SPARSE))
def test_ignored_samples(name):
    labels = np.where(np.arange(12) % 3 == 0, -1, LABELS)
    logits = LOGITS.copy()
    logits[0] = np.inf  # An ignored sample may hold anything.
    kept = labels != -1
    expected = to_numpy(make("sparse", name, LABELS[kept])(logits[kept]))
    loss = SPARSE[name][1](from_logits=True, ignore_class=-1)
    value, gradient = value_and_gradient(lambda x: loss(labels, x), logits)
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)
    assert (gradient[~kept] == 0).all()
    assert (gradient[kept] != 0).any()


@pytest.mark.parametrize("name", list(SPARSE))
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_a_label_that_names_no_class_is_no_number(name, from_logits, way):
    x = LOGITS[:2] if from_logits else to_numpy(ops.softmax(LOGITS[:2]))
    x = ops.convert_to_tensor(x.astype("float32"))
    labels = ops.convert_to_tensor(np.array([5, 1], "int32"))
    function = SPARSE[name][0]

    def loss(y_true, y_pred):
        return function(y_true, y_pred, from_logits=from_logits)

    if way != "eager":
        loss = compilers()[way](loss)
    found = assert_no_class(lambda: loss(labels, x))
    if found is not None:
        expected = float(loss(labels[1:], x[1:])[0])
        np.testing.assert_allclose(found[1], expected, rtol=1e-5)


@pytest.mark.parametrize("name", list(SPARSE))
def test_16_bit_logits_are_computed_in_float32(name):
    logits = ops.cast(LOGITS, "bfloat16")
    function = make("sparse", name, LABELS)
    value = function(logits)
    assert keras.backend.standardize_dtype(value.dtype) == "bfloat16"
    expected = function(to_numpy(logits).astype("float32"))
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(ops.cast(expected, "bfloat16")), rtol=1e-8
    )


@pytest.mark.parametrize("form, name", [("dense", "dual"), *FORMS[3:]])
def test_compiled_fit(form, name):
    """With labels (N, 1), a last batch of 2 and weights of the samples."""
    x = RNG.normal(size=(50, 6)).astype("float32")
    labels = x[:, :5].argmax(axis=1)
    y_true = np.eye(5)[labels] if form == "dense" else labels[:, None]
    loss = (DENSE if form == "dense" else SPARSE)[name][1](from_logits=True)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5)])
    compiled = keras.backend.backend() != "torch"
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=compiled)
    history = model.fit(
        x,
        y_true,
        sample_weight=np.linspace(0.5, 1.5, 50),
        batch_size=16,
        epochs=3,
        validation_data=(x, y_true),
        verbose=0,
    ).history
    assert history["val_loss"][-1] < history["val_loss"][0]
    expected = to_numpy(loss(y_true, model.predict(x, verbose=0)))
    np.testing.assert_allclose(history["val_loss"][-1], expected, rtol=1e-4)


@pytest.mark.once
@EACH
def test_errors(form, name):
    function, cls = (DENSE if form == "dense" else SPARSE)[name]
    x = np.zeros((4, 3), "float32")
    y_true = np.zeros(4, "int32") if form == "sparse" else np.eye(3)[[0] * 4]
    for argument in SETTINGS[name][0]:
        for value, error in [
            (-0.1 if argument != "beta" or name == "dual" else -9, ValueError),
            (float("nan"), ValueError),
            ("1", TypeError),
            (True, TypeError),
        ]:
            message = f"`.*{argument}.*` must be.*{argument}={value!r}"
            with pytest.raises(error, match=message):
                cls(**{argument: value})
            with pytest.raises(error, match=message):
                function(y_true, x, **{argument: value})
    if name == "dual":
        with pytest.raises(ValueError, match="`alpha` must be > 0.*=0.0"):
            cls(alpha=0)
    twins = {**SPARSE} if form == "dense" else {**DENSE}
    wrong = np.zeros(4, "int32") if form == "dense" else np.eye(3)[[0] * 4]
    twin = "keras.ops.argmax"
    if name in twins:
        twin = rf"use {twins[name][1].__name__} \({twins[name][0].__name__}\)"
    with pytest.raises(ValueError, match=twin):
        cls()(wrong, x)
    with pytest.raises(TypeError, match="positional"):
        function(y_true, x, 1.0)
