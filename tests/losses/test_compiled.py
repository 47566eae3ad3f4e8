"""The losses inside compiled functions, transformations and `fit`."""

import functools

import keras
import numpy as np
import pytest
from autodiff import assert_no_class
from autodiff import compilers
from autodiff import to_numpy
from autodiff import value_and_gradient
from keras import ops

import crl_keras

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(12, 5))).astype("float32")
LABELS = RNG.integers(0, 5, 12).astype("int32")
ONE_HOT = np.eye(5, dtype="float32")[LABELS]
FORMS = pytest.mark.parametrize("form", ["dense", "sparse"])
ALPHAS = pytest.mark.parametrize("alpha", [0.0, 1.5])
# What PyTorch's compiler warns of in itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:torch",
    "ignore::FutureWarning:torch",
    "ignore::UserWarning:torch",
)


def make(form, alpha, **options):
    if form == "dense":
        return crl_keras.CompetingRatioLoss(
            alpha, from_logits=True, **options
        ), ONE_HOT
    return crl_keras.SparseCompetingRatioLoss(
        alpha, from_logits=True, **options
    ), LABELS


@FORMS
@ALPHAS
@pytest.mark.parametrize("way", list(compilers()))
def test_compiled_is_eager(form, alpha, way):
    loss, y_true = make(form, alpha)
    y_true = ops.convert_to_tensor(y_true)
    compiled = compilers()[way](lambda y, x: loss(y, x))
    for actual, expected in zip(
        value_and_gradient(lambda x: compiled(y_true, x), LOGITS),
        value_and_gradient(lambda x: loss(y_true, x), LOGITS),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)


@functools.cache
def compiled_loss(alpha, from_logits, way):
    """One for all labels: it is compiled once for each of their dtypes."""

    def loss(y_true, y_pred):
        return crl_keras.sparse_competing_ratio_loss(
            y_true, y_pred, alpha=alpha, from_logits=from_logits
        )

    return loss if way == "eager" else compilers()[way](loss)


@ALPHAS
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("label", [5, -1, -100, 2**30, np.nan, 1.5])
@pytest.mark.parametrize("way", ["eager", *compilers()])
def test_a_label_that_names_no_class_is_no_number(
    alpha, from_logits, label, way
):
    labels = ops.convert_to_tensor(
        np.array([label, 1], "int32" if label == int(label or 0) else "float32")
        if not np.isnan(label)
        else np.array([label, 1], "float32")
    )
    y_pred = LOGITS[:2] if from_logits else to_numpy(ops.softmax(LOGITS[:2]))
    y_pred = ops.convert_to_tensor(y_pred.astype("float32"))
    loss = compiled_loss(alpha, from_logits, way)
    found = assert_no_class(lambda: loss(labels, y_pred))
    if found is not None:
        expected = float(loss(labels[1:], y_pred[1:])[0])
        np.testing.assert_allclose(found[1], expected, rtol=1e-5)


def test_a_nan_label_is_not_ignored():
    found = assert_no_class(
        lambda: crl_keras.sparse_competing_ratio_loss(
            np.array([np.nan, -1, 2], "float32"),
            LOGITS[:3],
            from_logits=True,
            ignore_class=-1,
        )
    )
    assert found is None or (found[1] == 0 and found[2] > 0)


def make_model(classes=5, head="float32"):
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(classes, dtype=head),
        ]
    )


def compiled_model(form):
    """A model for losses of this form, or "margin", and labels for it."""
    loss, y_true = make("sparse" if form == "margin" else form, 1.5)
    keras.utils.set_random_seed(1)
    model = make_model()
    if form == "margin":
        loss = crl_keras.losses.SparseMarginCrossEntropy(5)
        head = crl_keras.layers.LSoftmaxDense(5, gamma=0.1)
        model = keras.Sequential([*model.layers[:-1], head])
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model, y_true


# What fit does on PyTorch is "auto".
@pytest.mark.parametrize(
    "jit_compile", ["auto"] if BACKEND == "torch" else [True, False]
)
@ALPHAS
@FORMS
def test_fit(form, alpha, jit_compile):
    check_fit(form, alpha, jit_compile, samples=48)


@FORMS
def test_fit_ends_an_epoch_with_a_smaller_batch(form):
    """Of 2; integer labels are a column."""
    check_fit(form, 1.5, "auto", samples=50, column=form == "sparse")


def check_fit(form, alpha, jit_compile, samples, column=False):
    x = RNG.normal(size=(samples, 6)).astype("float32")
    labels = (x[:, :5]).argmax(axis=1)
    loss, _ = make(form, alpha)
    y_true = np.eye(5)[labels] if form == "dense" else labels
    if column:
        y_true = y_true[:, None]
    model = make_model()
    model.compile("adam", loss, metrics=["accuracy"], jit_compile=jit_compile)
    history = model.fit(
        x,
        y_true,
        batch_size=16,
        epochs=8,
        validation_data=(x, y_true),
        class_weight=None if form == "dense" else {0: 2.0, 1: 1.0, 2: 0.5},
        verbose=0,
    ).history
    assert history["val_loss"][-1] < history["val_loss"][0]
    expected = to_numpy(loss(y_true, model.predict_on_batch(x)))
    np.testing.assert_allclose(history["val_loss"][-1], expected, rtol=1e-4)


@FORMS
def test_class_weight_scales_the_samples_of_a_class(form):
    loss, y_true = make(form, 1.5)
    x = RNG.normal(size=(12, 6)).astype("float32")
    weight = {0: 2.0, 1: 0.0, 2: 0.5, 3: 1.0, 4: 3.0}
    model = make_model()
    model.compile(keras.optimizers.SGD(0.0), loss)
    history = model.fit(
        x, y_true, batch_size=12, class_weight=weight, verbose=0
    ).history
    each = to_numpy(loss.call(y_true, model.predict(x, verbose=0)))
    weights = np.array([weight[label] for label in LABELS])
    np.testing.assert_allclose(
        history["loss"][0], (each * weights).mean(), rtol=1e-4
    )


@FORMS
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(form, policy):
    loss, _ = make(form, 1.5)
    x = RNG.normal(size=(64, 6)).astype("float32")
    labels = x[:, :5].argmax(axis=1)
    y_true = np.eye(5)[labels] if form == "dense" else labels
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = make_model()
        half = make_model(head=None)
    finally:
        keras.config.set_dtype_policy(before)
    for m, tolerance in ((model, 1e-4), (half, 1e-4)):
        m.compile("adam", loss)
        history = m.fit(
            x, y_true, epochs=5, verbose=0, validation_data=(x, y_true)
        ).history
        assert history["loss"][-1] < history["loss"][0]
        logits = ops.cast(m.predict(x, verbose=0), "float32")
        np.testing.assert_allclose(
            history["val_loss"][-1],
            to_numpy(loss(y_true, logits)),
            rtol=5e-3 if m is half else tolerance,
        )


def train_in_numpy(x, labels, weights, alpha, beta, steps, rate):
    """Gradient descent on softmax regression, in float64, by hand."""
    kernel, bias = (w.astype("float64") for w in weights)
    y = np.eye(kernel.shape[1])[labels]
    losses = []
    for _ in range(steps):
        logits = x @ kernel + bias
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p_c = (p * y).sum(axis=1)
        losses.append(np.mean(-np.log(p_c) + beta * np.log(alpha + 1 - p_c)))
        weight = 1 + beta * p_c / (alpha + 1 - p_c)
        gradient = weight[:, None] * (p - y) / len(x)
        kernel = kernel - rate * x.T @ gradient
        bias = bias - rate * gradient.sum(axis=0)
    return losses


@FORMS
@pytest.mark.parametrize("alpha, beta", [(1.5, 1.0), (0.0, 1.0), (1.5, -1.0)])
def test_training_is_the_same_on_every_backend(form, alpha, beta):
    """From copied weights, each backend follows one float64 trajectory."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(40, 6)).astype("float32")
    labels = rng.integers(0, 4, 40)
    weights = [
        rng.normal(size=(6, 4)).astype("float32"),
        np.zeros(4, "float32"),
    ]
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.set_weights(weights)
    if form == "dense":
        loss = crl_keras.CompetingRatioLoss(alpha, beta, from_logits=True)
        y_true = np.eye(4)[labels]
    else:
        loss = crl_keras.SparseCompetingRatioLoss(alpha, beta, from_logits=True)
        y_true = labels
    model.compile(keras.optimizers.SGD(0.5), loss)
    history = model.fit(
        x, y_true, batch_size=40, epochs=20, shuffle=False, verbose=0
    ).history["loss"]
    expected = train_in_numpy(x, labels, weights, alpha, beta, 20, 0.5)
    assert expected[-1] < expected[0] - 0.3
    np.testing.assert_allclose(history, expected, rtol=2e-5, atol=1e-5)
