"""L-Softmax and A-Softmax: the margin, its gradients, and training with it."""

import keras
import numpy as np
import pytest
import reference
from autodiff import assert_no_class
from autodiff import compilers
from autodiff import to_numpy
from autodiff import value_and_gradient
from keras import ops

from crl_keras import layers
from crl_keras import losses
from crl_keras.losses import large_margin

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 4)).astype("float32")
KERNEL = RNG.normal(size=(4, 3)).astype("float32")
LABELS = np.arange(9) % 3
FUNCTIONS = {
    "l": losses.sparse_l_softmax_loss,
    "a": losses.sparse_a_softmax_loss,
}
LAYERS = {"l": layers.LSoftmaxDense, "a": layers.ASoftmaxDense}
KINDS = pytest.mark.parametrize("kind", ["l", "a"])


def expected(kind, x, kernel, labels, margin, annealing):
    return np.array(
        [
            reference.margin_one(
                label, row, kernel, margin, annealing, normalised=kind == "a"
            )
            for label, row in zip(labels, x, strict=True)
        ]
    )


def differences(function, x, step=1e-5):
    """Central differences of the sum of `function` in every number of x."""
    x = np.asarray(x, "float64")
    result = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        move = np.zeros_like(x)
        move[i] = step
        result[i] = (function(x + move) - function(x - move)).sum() / (2 * step)
    return result


def test_psi_at_five_angles():
    """To 8 digits, from cos(m t) itself."""
    cosines = np.cos(np.array([0.2, 0.9, 1.5, 2.2, 3.0], "float32"))
    for margin, values in [
        (1, np.cos([0.2, 0.9, 1.5, 2.2, 3.0])),
        (2, [0.92106099, -0.22720209, -0.9899925, -1.69266713, -2.96017029]),
        (3, [0.82533561, -0.90407214, -1.7892042, -3.04976741, -4.91113026]),
        (4, [0.69670671, -1.10324158, -2.96017029, -4.81109301, -6.84385396]),
    ]:
        actual = to_numpy(large_margin.psi(ops.array(cosines), margin))
        np.testing.assert_allclose(actual, values, rtol=1e-5)


def test_psi_is_the_official_code():
    """Signs and powers of wy1iu/LargeMargin_Softmax_Loss, in float64."""
    c = np.cos(np.linspace(0.01, 3.13, 500))
    s0, s1 = np.sign(c), np.sign(np.abs(c) - 0.5)
    s3 = s0 * np.sign(2 * c**2 - 1)
    for margin, official in [
        (2, 2 * s0 * c**2 - 1),
        (3, s1 * (4 * c**3 - 3 * c) + s0 * (1 + s1) - 2),
        (4, s3 * (8 * c**4 - 8 * c**2 + 1) + 2 * s0 + s3 - 3),
    ]:
        actual = large_margin.psi(ops.array(c.astype("float32")), margin)
        np.testing.assert_allclose(to_numpy(actual), official, atol=2e-6)


@pytest.mark.parametrize("margin", [1, 2, 3, 4, 5, 7])
def test_psi_falls_from_1_and_stays_under_the_cosine(margin):
    cosine = np.linspace(1, -1, 2001, dtype="float32")
    value, slope = value_and_gradient(
        lambda c: large_margin.psi(c, margin), cosine
    )
    value = to_numpy(large_margin.psi(ops.array(cosine), margin))
    assert value[0] == 1 and value[-1] == pytest.approx(1 - 2 * margin)
    assert (np.diff(value) <= 2e-6).all()
    assert (value <= cosine + 1e-6).all()
    assert (slope >= -1e-4).all() and np.isfinite(slope).all()


@pytest.mark.parametrize("kind, margin", [("l", 3), ("a", 4)])
def test_values_and_gradients_match_float64(kind, margin):
    function = FUNCTIONS[kind]
    for annealing in (0.0, 5.0):
        setting = dict(margin=margin, annealing=annealing)
        args = LABELS, margin, annealing
        np.testing.assert_allclose(
            to_numpy(function(LABELS, X, KERNEL, **setting)),
            expected(kind, X, KERNEL, *args),
            rtol=1e-5,
        )
        for argument, actual, loss in [
            (
                X,
                lambda x, s=setting: function(LABELS, x, KERNEL, **s),
                lambda x, a=args: expected(kind, x, KERNEL, *a),
            ),
            (
                KERNEL,
                lambda w, s=setting: function(LABELS, X, w, **s),
                lambda w, a=args: expected(kind, X, w, *a),
            ),
        ]:
            np.testing.assert_allclose(
                value_and_gradient(actual, argument)[1],
                differences(loss, argument),
                rtol=2e-4,
                atol=2e-5,
                err_msg=f"{setting}, {argument.shape}",
            )


@KINDS
def test_margin_1_is_the_cross_entropy_of_the_scores(kind):
    kernel = KERNEL / np.linalg.norm(KERNEL, axis=0) if kind == "a" else KERNEL
    own = keras.losses.sparse_categorical_crossentropy(
        LABELS, X @ kernel, from_logits=True
    )
    actual = FUNCTIONS[kind](LABELS[:, None], X, KERNEL, margin=1)
    np.testing.assert_allclose(to_numpy(actual), to_numpy(own), rtol=1e-5)
    # A large lambda comes near to it, at any margin.
    actual = FUNCTIONS[kind](LABELS, X, KERNEL, annealing=1e9)
    np.testing.assert_allclose(to_numpy(actual), to_numpy(own), rtol=1e-5)


@KINDS
def test_extremes(kind):
    """Scores of 1e4, features and weights of 0, and cosines of 1 and -1."""
    kernel = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], "float32")
    x = np.array(
        [[1e4, 2e4, -1e4], [0, 0, 0], [1e4, 0, 0], [-1e4, 0, 0], [1, 1, 1]],
        "float32",
    )
    labels = np.array([0, 1, 0, 0, 2])
    for argument, function in [
        (x, lambda x: FUNCTIONS[kind](labels, x, kernel)),
        (kernel, lambda w: FUNCTIONS[kind](labels, x, w)),
    ]:
        value, gradient = value_and_gradient(function, argument)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert (gradient != 0).any()
        if argument is x:
            # A hard sample is pushed by more than cross-entropy would.
            assert gradient[3, 0] < -1
    actual = to_numpy(FUNCTIONS[kind](labels[:1], x[:1], kernel[:, :2]))
    target = expected(kind, x[:1], kernel[:, :2], labels[:1], 4, 0.0)
    np.testing.assert_allclose(actual, target, rtol=1e-5)


@KINDS
def test_the_schedule_counts_steps_from_1(kind):
    schedule = dict(margin=3, base=7.0, gamma=0.5, power=2.0, minimum=1.5)
    layer = LAYERS[kind](3, **schedule)
    for step in range(1, 6):
        wide = layer(X, training=True)
        assert int(layer.step) == step
        annealing = max(1.5, 7.0 * (1 + 0.5 * step) ** -2.0)
        loss = losses.sparse_margin_cross_entropy(LABELS, wide, classes=3)
        kernel = to_numpy(layer.kernel)
        np.testing.assert_allclose(
            to_numpy(loss),
            expected(kind, X, kernel, LABELS, 3, annealing),
            rtol=1e-5,
        )
        layer(X)
        layer(X, training=False)


def test_official_schedules():
    """lambda of the CIFAR10+ example at five steps, and of SphereFace."""
    for step, value in zip(
        (1000, 5000, 10000, 20000, 30000),
        (639, 111, 13.7, 0.27, 0.0074),
        strict=True,
    ):
        actual = large_margin.annealed(step, 1000.0, 1e-5, 45.0, 0.0)
        np.testing.assert_allclose(float(actual), value, rtol=0.02)
    layer = layers.ASoftmaxDense(3)
    schedule = layer.base, layer.gamma, layer.power, layer.minimum
    for step, value in [(100, 76.923), (1000, 8.2645), (1659, 5.0)]:
        actual = large_margin.annealed(step, *schedule)
        np.testing.assert_allclose(float(actual), value, rtol=1e-4)
    layer = layers.LSoftmaxDense(3)
    schedule = layer.base, layer.gamma, layer.power, layer.minimum
    for step, value in [(1000, 421.37), (5000, 16.205), (10000, 0.40565)]:
        actual = large_margin.annealed(step, *schedule)
        np.testing.assert_allclose(float(actual), value, rtol=1e-4)


@KINDS
def test_the_largest_number_is_a_score(kind):
    """So accuracy is right in training, also where the cosine is 1."""
    layer = LAYERS[kind](3, base=0.0, minimum=0.0)
    layer.build((None, 4))
    kernel = to_numpy(layer.kernel).astype("float32")
    rows = [s * kernel[:, k] for k in range(3) for s in (1, 1e-3, 37.7, 1e4)]
    x = np.concatenate([np.float32(rows), np.zeros((1, 4), "float32"), X])
    wide, scores = to_numpy(layer(x, training=True)), to_numpy(layer(x))
    np.testing.assert_array_equal(wide[:, :3], scores)
    np.testing.assert_array_equal(wide.argmax(axis=1), scores.argmax(axis=1))
    np.testing.assert_array_equal(
        to_numpy(ops.argmax(layer(x, training=True), axis=1)),
        scores.argmax(axis=1),
    )
    assert (wide[:, 3:] <= scores).all()


def make_model(kind, head="float32", **options):
    options = {"base": 5.0, "gamma": 0.1, "power": 1.0, **options}
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8),
            LAYERS[kind](5, dtype=head, **options),
        ]
    )
    loss = losses.SparseMarginCrossEntropy(5)
    return model, loss


def make_data():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(50, 6)).astype("float32")
    return x, x[:, :5].argmax(axis=1)


@pytest.mark.parametrize(
    "kind, batch, run_eagerly", [("l", 16, False), ("a", 25, True)]
)
def test_fit(kind, batch, run_eagerly):
    """Plain scores in predict and validation, margins and steps in fit."""
    x, labels = make_data()
    model, loss = make_model(kind)
    options = dict(jit_compile=BACKEND != "torch")
    if run_eagerly:
        options = dict(run_eagerly=True, jit_compile=False)
    model.compile(
        keras.optimizers.SGD(0.0), loss, metrics=["accuracy"], **options
    )
    fit = dict(batch_size=batch, shuffle=False, verbose=0)
    column = labels[:, None]
    history = model.fit(x, column, validation_data=(x, column), **fit).history
    step, steps = model.layers[-1].step, -(-50 // batch)
    assert int(step) == steps  # Validation counts none.

    scores = model.predict(x, verbose=0)
    assert scores.shape == (50, 5)
    plain = to_numpy(
        keras.losses.sparse_categorical_crossentropy(
            labels, scores, from_logits=True
        )
    )
    accuracy = (scores.argmax(axis=1) == labels).mean()
    assert history["accuracy"] == history["val_accuracy"]
    np.testing.assert_allclose(history["accuracy"], accuracy, rtol=1e-6)
    np.testing.assert_allclose(history["val_loss"], plain.mean(), rtol=1e-5)
    evaluated = model.evaluate(x, column, verbose=0)
    np.testing.assert_allclose(evaluated, [plain.mean(), accuracy], rtol=1e-5)

    features = to_numpy(model.layers[0](x))
    kernel = to_numpy(model.layers[-1].kernel)

    def epoch(first):
        each = [
            expected(
                kind,
                features[i : i + batch],
                kernel,
                labels[i : i + batch],
                4,
                max(
                    5.0 if kind == "a" else 0.0,
                    5.0 / (1 + 0.1 * (first + i // batch)),
                ),
            )
            for i in range(0, 50, batch)
        ]
        return np.concatenate(each).mean()

    np.testing.assert_allclose(history["loss"], epoch(1), rtol=1e-5)
    again = model.fit(x, column, **fit).history
    assert int(step) == 2 * steps  # A second fit goes on.
    np.testing.assert_allclose(again["loss"], epoch(steps + 1), rtol=1e-5)


def test_it_learns_in_mixed_precision():
    x, labels = make_data()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, loss = make_model("l")
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    history = model.fit(
        x,
        labels,
        epochs=15,
        validation_data=(x, labels),
        class_weight={0: 2.0, 1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0},
        verbose=0,
    ).history
    assert history["val_accuracy"][-1] > 0.6
    assert history["loss"][-1] < history["loss"][0]
    assert model.predict(x, verbose=0).dtype == np.float32


def test_a_training_that_is_saved_and_loaded_goes_on_exactly(tmp_path):
    """In safe mode; lambda falls fast, so it would show."""
    x, labels = make_data()
    model, loss = make_model("a", minimum=0.0)
    model.compile(keras.optimizers.Adam(0.01), loss)
    fit = dict(batch_size=16, shuffle=False, verbose=0)
    model.fit(x, labels, **fit)
    model.save(tmp_path / "model.keras")
    history = model.fit(x, labels, **fit).history["loss"]
    scores = model.predict(x, verbose=0)
    # Another process loads such layers in test_saving.py.
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert int(loaded.layers[-1].step) == 4
    found = loaded.fit(x, labels, **fit).history["loss"]
    np.testing.assert_allclose(found, history, rtol=1e-6)
    found = loaded.predict(x, verbose=0)
    np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-6)


OTHER = dict(
    units=3,
    margin=2,
    base=10.0,
    gamma=0.5,
    power=3.0,
    minimum=0.25,
    name="head",
)


@pytest.mark.once
@KINDS
def test_every_argument_of_the_layers_survives(kind):
    layer = LAYERS[kind](
        **OTHER,
        kernel_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(0.5),
        dtype="float16",
    )
    config = layer.get_config()
    assert OTHER.items() <= config.items()
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is LAYERS[kind]
    assert again.get_config() == config
    assert again.compute_dtype == "float16"
    again.build((None, 4))
    assert (to_numpy(again.kernel) == 1).all()
    assert to_numpy(ops.stop_gradient(again.losses[0])) == 0.5 * 12
    assert keras.saving.get_registered_name(LAYERS[kind]) == (
        f"crl_keras>{LAYERS[kind].__name__}"
    )


@pytest.mark.filterwarnings(
    # What PyTorch's compiler warns of in itself.
    "ignore::DeprecationWarning:torch",
    "ignore::FutureWarning:torch",
    "ignore::UserWarning:torch",
)
@pytest.mark.parametrize("way", [w for w in compilers() if w != "inductor"])
def test_the_loss_compiles(way):
    compiled = compilers()[way](
        lambda x: losses.sparse_l_softmax_loss(LABELS, x, KERNEL)
    )
    for actual, target in zip(
        value_and_gradient(compiled, X),
        value_and_gradient(
            lambda x: losses.sparse_l_softmax_loss(LABELS, x, KERNEL), X
        ),
        strict=True,
    ):
        np.testing.assert_allclose(actual, target, rtol=1e-5, atol=1e-6)


def test_a_label_that_names_no_class_is_no_number():
    for width in (3, 6):
        found = assert_no_class(
            lambda width=width: losses.sparse_margin_cross_entropy(
                np.array([3, 1]), np.zeros((2, width), "float32"), classes=3
            )
        )
        assert found is None or found[1] > 0


@KINDS
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32"])
def test_other_dtypes_are_computed_in_float32(kind, dtype):
    """Integers are no features to cut weights off to, and squares overflow."""
    x, kernel = np.array([[300, 0], [0, 300]]), np.array([[0.6, 0], [0.8, 1]])
    x = ops.cast(x, dtype)
    expected = FUNCTIONS[kind]([0, 1], ops.cast(x, "float32"), kernel)
    actual = FUNCTIONS[kind]([0, 1], x, kernel)
    wanted = "float32" if dtype == "int32" else dtype
    assert keras.backend.standardize_dtype(actual.dtype) == wanted
    np.testing.assert_allclose(to_numpy(actual), to_numpy(expected), rtol=1e-2)
    if dtype == "int32":
        return
    layer = LAYERS[kind](2, margin=3, dtype=dtype)
    same = LAYERS[kind](2, margin=3)
    layer.build((None, 2)), same.build((None, 2))
    layer.kernel.assign(kernel), same.kernel.assign(kernel)
    both = layer(x, training=True)
    assert keras.backend.standardize_dtype(both.dtype) == dtype
    np.testing.assert_allclose(
        to_numpy(both), to_numpy(same(x, training=True)), rtol=1e-2
    )


@KINDS
def test_a_mask_goes_through(kind):
    """Steps that are padding do not count, in training either."""
    layer = LAYERS[kind](3)
    loss = losses.SparseMarginCrossEntropy(3)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 4, 5)).astype("float32")
    labels = rng.integers(0, 3, (2, 4))
    x[:, 2:] = -1
    masked = keras.layers.Masking(-1.0)(x)
    for training in (False, True):
        kept = loss(labels[:, :2], layer(x[:, :2], training=training))
        layer.step.assign(0)
        actual = loss(labels, layer(masked, training=training))
        layer.step.assign(0)
        np.testing.assert_allclose(to_numpy(actual), to_numpy(kept), rtol=1e-5)


@pytest.mark.once
def test_errors():
    for kind in ("l", "a"):
        for name, value, error in [
            ("units", 1, ValueError),
            ("units", "3", TypeError),
            ("margin", 0, ValueError),
            ("margin", 2.5, ValueError),
            ("margin", None, TypeError),
            ("base", -1, ValueError),
            ("gamma", float("nan"), ValueError),
            ("power", "1", TypeError),
            ("minimum", -0.5, ValueError),
        ]:
            with pytest.raises(error, match=f"`{name}` must.*{name}="):
                LAYERS[kind](**{**OTHER, name: value})
        with pytest.raises(ValueError, match="`margin` must be.*>= 1.*=0"):
            FUNCTIONS[kind](LABELS, X, KERNEL, margin=0)
        with pytest.raises(ValueError, match="`annealing` must be >= 0.*=-1"):
            FUNCTIONS[kind](LABELS, X, KERNEL, annealing=-1)
        with pytest.raises(ValueError, match="`annealing` must be >= 0"):
            FUNCTIONS[kind](LABELS, X, KERNEL, annealing=np.float32(-1))
    with pytest.raises(ValueError, match="`classes` must be an integer >= 2"):
        losses.SparseMarginCrossEntropy(1)
    loss = losses.SparseMarginCrossEntropy(3)
    for width in (4, 5, 7):
        with pytest.raises(ValueError, match=rf"classes=3.*\(9, {width}\)"):
            loss(LABELS, np.zeros((9, width)))
    with pytest.raises(ValueError, match="keras.ops.argmax"):
        loss(np.eye(3)[LABELS], X[:, :3])
