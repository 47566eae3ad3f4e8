"""The controls that have the steps, or the weighting, of another loss."""

import keras
import numpy as np
import pytest
import reference
from autodiff import compilers
from autodiff import to_numpy
from autodiff import value_and_gradient
from keras import ops
from test_layout import masked

from crl_keras import losses
from crl_keras.losses import StepMatchedCrossEntropy
from crl_keras.losses import StepNormalizedLoss

# Of integer labels, of one-hot and soft ones, and in float64.
KINDS = {
    "crl": (
        losses.SparseCompetingRatioLoss,
        losses.CompetingRatioLoss,
        reference.competing_ratio_one,
        dict(alpha=1.5, beta=1.0),
    ),
    "below_0": (
        losses.SparseCompetingRatioLoss,
        losses.CompetingRatioLoss,
        reference.competing_ratio_one,
        dict(alpha=1.5, beta=-1.0),
    ),
    "nllr": (
        losses.SparseCompetingRatioLoss,
        losses.CompetingRatioLoss,
        reference.competing_ratio_one,
        dict(alpha=0.0, beta=1.0),
    ),
    "focal": (
        losses.SparseFocalLoss,
        losses.FocalLoss,
        reference.focal_one,
        dict(gamma=2.0),
    ),
    "tamed": (
        losses.SparseTamedCrossEntropy,
        losses.TamedCrossEntropy,
        reference.tamed_one,
        dict(alpha=0.8),
    ),
    "dual": (
        losses.SparseDualCrossEntropy,
        losses.DualCrossEntropy,
        reference.dual_one,
        dict(alpha=1.0, beta=4.5),
    ),
}
EACH = pytest.mark.parametrize("name", KINDS)
CONTROLS = pytest.mark.parametrize(
    "control", [StepMatchedCrossEntropy, StepNormalizedLoss]
)
RNG = np.random.default_rng(0)
LOGITS = (2 * RNG.normal(size=(16, 5))).astype("float32")
LABELS = RNG.integers(0, 5, 16)
LABELS[:8] = LOGITS[:8].argmax(axis=1)
ONE_HOT = reference.one_hot(LABELS, 5)
SOFT = 0.9 * ONE_HOT + 0.1 * RNG.dirichlet(np.ones(5), 16)
WEIGHTS = RNG.uniform(0.1, 2.0, 16)


def of_cross_entropy(y_true, logits):
    p = np.exp([reference.log_softmax(x) for x in logits])
    return p - y_true


def pull(gradient, weights=1.0):
    """Half a sample's norm is the pull on the logit of the correct class."""
    return (weights * np.abs(gradient).sum(axis=1) / 2).sum()


def expected_ratio(name, y_true, logits, weights=1.0):
    *_, one, parameters = KINDS[name]
    of_loss = reference.differences(one, y_true, logits, *parameters.values())
    of_ce = of_cross_entropy(y_true, logits)
    return pull(of_loss, weights) / pull(of_ce, weights)


def test_the_ratio_of_crl_is_the_weight_by_the_pull():
    """w = sum w_i (1 - p_i) / sum (1 - p_i), as its docstring says."""
    p = np.exp([reference.log_softmax(x) for x in LOGITS])[range(16), LABELS]
    for beta in (1.0, -1.0):
        weight = 1 + beta * p / (2.5 - p)
        crl = losses.SparseCompetingRatioLoss(beta=beta, from_logits=True)
        ratio = StepMatchedCrossEntropy(crl).step_ratio(LABELS, LOGITS)
        np.testing.assert_allclose(
            to_numpy(ratio), np.average(weight, weights=1 - p), rtol=1e-5
        )


@EACH
@pytest.mark.parametrize("labels", ["integer", "one-hot", "soft"])
def test_values_and_gradients_match_float64(name, labels):
    sparse, dense, one, parameters = KINDS[name]
    y_true = SOFT if labels == "soft" else ONE_HOT
    if labels == "integer":
        loss, given = sparse(**parameters, from_logits=True), LABELS
    else:
        loss, given = dense(**parameters, from_logits=True), y_true
    ratio = expected_ratio(name, y_true, LOGITS)
    of_ce = of_cross_entropy(y_true, LOGITS)
    of_loss = reference.differences(one, y_true, LOGITS, *parameters.values())
    ce = reference.of_each(reference.cross_entropy_one, y_true, LOGITS).mean()
    mean = reference.of_each(one, y_true, LOGITS, *parameters.values()).mean()
    for control, value, gradient in (
        (StepMatchedCrossEntropy(loss), ratio * ce, ratio * of_ce / 16),
        (StepNormalizedLoss(loss), mean / ratio, of_loss / ratio / 16),
    ):
        found = value_and_gradient(lambda x, c=control: c(given, x), LOGITS)
        np.testing.assert_allclose(found[0], value, rtol=2e-5)
        np.testing.assert_allclose(found[1], gradient, rtol=3e-4, atol=1e-6)


@pytest.mark.parametrize(
    "reduction",
    ["sum_over_batch_size", "sum", "mean_with_sample_weight", None],
)
def test_weights_and_reductions(reduction):
    ratio = expected_ratio("crl", ONE_HOT, LOGITS, WEIGHTS)
    crl = losses.SparseCompetingRatioLoss(from_logits=True, reduction=reduction)
    plain = losses.SparseCompetingRatioLoss(
        beta=0, from_logits=True, reduction=reduction
    )
    weights = WEIGHTS.astype("float32")
    found = StepMatchedCrossEntropy(crl)(LABELS, LOGITS, weights)
    np.testing.assert_allclose(
        to_numpy(found),
        ratio * to_numpy(plain(LABELS, LOGITS, weights)),
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        to_numpy(StepNormalizedLoss(crl)(LABELS, LOGITS, weights)),
        to_numpy(crl(LABELS, LOGITS, weights)) / ratio,
        rtol=1e-4,
    )


def test_masked_and_ignored_samples_have_no_say():
    kept = np.arange(16) % 3 > 0
    expected = expected_ratio("crl", ONE_HOT[kept], LOGITS[kept])
    ignored = losses.SparseCompetingRatioLoss(from_logits=True, ignore_class=-1)
    found = StepMatchedCrossEntropy(ignored).step_ratio(
        np.where(kept, LABELS, -1), LOGITS
    )
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-4)
    plain = losses.SparseCompetingRatioLoss(from_logits=True)
    found = StepMatchedCrossEntropy(plain).step_ratio(
        LABELS, masked(LOGITS, kept)
    )
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-4)


def test_label_smoothing_and_axis():
    crl = losses.CompetingRatioLoss(
        from_logits=True, label_smoothing=0.2, axis=1
    )
    found = StepMatchedCrossEntropy(crl).step_ratio(
        ONE_HOT.reshape(2, 8, 5).swapaxes(1, 2),
        LOGITS.reshape(2, 8, 5).swapaxes(1, 2),
    )
    expected = expected_ratio("crl", 0.8 * ONE_HOT + 0.04, LOGITS)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-4)


@CONTROLS
@pytest.mark.parametrize("alpha", [1.5, 0.0])
def test_extreme_logits_give_numbers(control, alpha):
    """Of a batch that is all right, or all wrong, beyond float32."""
    logits = np.zeros((4, 3), "float32")
    logits[:, 0] = 1e4
    loss = losses.SparseCompetingRatioLoss(alpha=alpha, from_logits=True)
    for label in (0, 1):
        labels = np.full(4, label)
        value, gradient = value_and_gradient(
            lambda x, y=labels: control(loss)(y, x), logits
        )
        assert np.isfinite(value) and np.isfinite(gradient).all()


@CONTROLS
def test_no_pull_at_all(control):
    """Cross-entropy pulls no more: the factor is 1, and not 0 / 0."""
    logits = np.array([[200.0, 0.0]], "float32")
    loss = losses.SparseCompetingRatioLoss(from_logits=True)
    assert to_numpy(control(loss).step_ratio([0], logits)) == 1
    value, gradient = value_and_gradient(
        lambda x: control(loss)(np.array([0]), x), logits
    )
    expected = 0 if control is StepMatchedCrossEntropy else np.log(1.5)
    np.testing.assert_allclose(value, expected, atol=1e-6)
    assert (gradient == 0).all()


@CONTROLS
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bits(control, dtype):
    """The pull is measured in float32: a mean of 4096 would vanish."""
    logits = np.tile(LOGITS, (256, 1)).astype("float32")
    labels = np.tile(LABELS, 256)
    loss = losses.SparseCompetingRatioLoss(from_logits=True, dtype=dtype)
    found = control(loss)(labels, ops.cast(logits, dtype))
    assert keras.backend.standardize_dtype(found.dtype) == dtype
    ratio = expected_ratio("crl", ONE_HOT, LOGITS)
    measured = control(loss).step_ratio(labels, ops.cast(logits, dtype))
    np.testing.assert_allclose(to_numpy(measured), ratio, rtol=1e-2)


# Inductor alone would take as long as all the rest, for no other code of ours.
@CONTROLS
@pytest.mark.parametrize("way", [w for w in compilers() if w != "inductor"])
def test_compiled(control, way):
    loss = control(losses.CompetingRatioLoss(from_logits=True))
    y_true = ops.convert_to_tensor(SOFT.astype("float32"))
    logits = ops.convert_to_tensor(LOGITS)
    found = compilers()[way](lambda y, x: loss(y, x))(y_true, logits)
    np.testing.assert_allclose(
        to_numpy(found), to_numpy(loss(y_true, logits)), rtol=1e-5
    )


@CONTROLS
def test_trained_saved_and_loaded(control, tmp_path):
    """By compile and fit, in Keras's safe mode; evaluation has no gradients."""
    crl = losses.SparseCompetingRatioLoss(
        alpha=2.0, from_logits=True, ignore_class=4, name="inner"
    )
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)])
    model.compile("sgd", control(crl, name="control"))
    before = model.evaluate(LOGITS, LABELS, verbose=0)
    model.fit(LOGITS, LABELS, epochs=5, verbose=0)
    after = model.evaluate(LOGITS, LABELS, verbose=0)
    assert after < before
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.evaluate(LOGITS, LABELS, verbose=0) == pytest.approx(after)
    assert type(again.loss) is control and again.loss.name == "control"
    assert again.loss.loss.get_config() == crl.get_config()


def test_in_a_functional_model():
    loss = StepMatchedCrossEntropy(losses.CompetingRatioLoss(from_logits=True))
    y_true, logits = keras.Input((5,)), keras.Input((5,))
    model = keras.Model([y_true, logits], loss(y_true, logits))
    y = ops.convert_to_tensor(SOFT.astype("float32"))
    x = ops.convert_to_tensor(LOGITS)
    np.testing.assert_allclose(
        to_numpy(model([y, x])), to_numpy(loss(y, x)), rtol=1e-5
    )


@CONTROLS
def test_what_it_cannot_control(control):
    with pytest.raises(TypeError, match=r"crl_keras\.losses.*'mse'"):
        control("mse")
    with pytest.raises(TypeError, match="one of the losses of crl_keras"):
        control(losses.SparseMarginCrossEntropy(5))
    with pytest.raises(ValueError, match="from_logits=True.*from_logits=False"):
        control(losses.CompetingRatioLoss())


def test_adam_hardly_sees_the_scale_of_a_loss():
    """docs/what-crl-does.md: its updates are equal up to epsilon."""
    moved = {}
    for optimizer in ("adam", "sgd"):
        for factor in (1.0, 1.7):
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5)])
            loss = losses.SparseCompetingRatioLoss(beta=0, from_logits=True)
            model.compile(
                keras.optimizers.get(optimizer),
                lambda y, x, f=factor, loss=loss: f * loss(y, x),
            )
            start = to_numpy(model.weights[0])
            model.fit(LOGITS, LABELS, 16, epochs=10, verbose=0, shuffle=False)
            moved[optimizer, factor] = to_numpy(model.weights[0]) - start
    adam = moved["adam", 1.7] / moved["adam", 1.0]
    sgd = moved["sgd", 1.7] / moved["sgd", 1.0]
    np.testing.assert_allclose(adam, 1.0, atol=1e-3)
    assert np.abs(np.median(sgd) - 1.7) < 0.1
