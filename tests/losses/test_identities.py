"""What must hold whatever the numbers are."""

import functools

import keras
import numpy as np
import pytest
import reference
from autodiff import to_numpy
from autodiff import value_and_gradient
from keras import ops

import crl_keras
from crl_keras.losses.competing_ratio import _from_cross_entropy

SETTINGS = [(1.5, 1.0), (1.0, 0.25), (0.0, 1.0), (0.02, 1.0), (1.5, -1.0)]
RNG = np.random.default_rng(0)
LOGITS = (4 * RNG.normal(size=(16, 7))).astype("float32")
LABELS = RNG.integers(0, 7, 16)
ONE_HOT = np.eye(7, dtype="float32")[LABELS]


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("alpha", [0.0, 1.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_beta_0_is_the_cross_entropy_of_keras(from_logits, alpha, smoothing):
    y_pred = LOGITS if from_logits else to_numpy(ops.softmax(LOGITS))
    y_pred = y_pred.astype("float32")
    ours = crl_keras.CompetingRatioLoss(
        alpha, 0.0, from_logits=from_logits, label_smoothing=smoothing
    )
    keras_own = keras.losses.CategoricalCrossentropy(
        from_logits=from_logits, label_smoothing=smoothing
    )
    for actual, expected in zip(
        value_and_gradient(lambda x: ours(ONE_HOT, x), y_pred),
        value_and_gradient(lambda x: keras_own(ONE_HOT, x), y_pred),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-8)
    if smoothing:
        return
    ours = crl_keras.SparseCompetingRatioLoss(
        alpha, 0.0, from_logits=from_logits
    )
    keras_own = keras.losses.SparseCategoricalCrossentropy(
        from_logits=from_logits
    )
    for actual, expected in zip(
        value_and_gradient(lambda x: ours(LABELS, x), y_pred),
        value_and_gradient(lambda x: keras_own(LABELS, x), y_pred),
        strict=True,
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("alpha, beta", SETTINGS)
@pytest.mark.parametrize(
    "label",
    [
        [0.7, 0.3, 0.0, 0.0],
        [0.625, 0.125, 0.125, 0.125],  # Sums to 1 without rounding.
        [0.25, 0.25, 0.25, 0.25],
        [1.0, 0.0, 0.0, 0.0],
    ],
)
def test_equal_logits_make_no_hard_label_of_a_soft_one(label, alpha, beta):
    """Logits start at 0 where the last kernel does."""
    labels = np.array([label], "float32")
    logits = np.zeros((1, 4), "float32")
    loss = crl_keras.CompetingRatioLoss(
        alpha, beta, from_logits=True, reduction="sum"
    )
    found = value_and_gradient(lambda x: loss(labels, x), logits)
    value = reference.competing_ratio(labels, logits, alpha, beta).sum()
    np.testing.assert_allclose(found[0], value, rtol=1e-6)
    slope = reference.gradient(labels, logits, alpha, beta)
    np.testing.assert_allclose(found[1], slope, atol=1e-5)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("alpha, beta", SETTINGS)
def test_sparse_is_one_hot(alpha, beta, from_logits):
    y_pred = LOGITS if from_logits else to_numpy(ops.softmax(LOGITS))
    options = dict(alpha=alpha, beta=beta, from_logits=from_logits)
    y_pred = y_pred.astype("float32")
    dense = value_and_gradient(
        lambda x: crl_keras.competing_ratio_loss(ONE_HOT, x, **options), y_pred
    )
    sparse = value_and_gradient(
        lambda x: crl_keras.sparse_competing_ratio_loss(LABELS, x, **options),
        y_pred,
    )
    for actual, expected in zip(sparse, dense, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("alpha, beta", SETTINGS)
def test_logits_are_probabilities(alpha, beta):
    p = to_numpy(ops.softmax(LOGITS / 4)).astype("float32")
    np.testing.assert_allclose(
        to_numpy(
            crl_keras.competing_ratio_loss(ONE_HOT, p, alpha=alpha, beta=beta)
        ),
        to_numpy(
            crl_keras.competing_ratio_loss(
                ONE_HOT, LOGITS / 4, alpha=alpha, beta=beta, from_logits=True
            )
        ),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("alpha, beta", SETTINGS)
def test_shift_and_permutation_of_the_classes_change_nothing(alpha, beta):
    def loss(labels, logits):
        return to_numpy(
            crl_keras.sparse_competing_ratio_loss(
                labels, logits, alpha=alpha, beta=beta, from_logits=True
            )
        )

    expected = loss(LABELS, LOGITS)
    np.testing.assert_allclose(
        loss(LABELS, LOGITS + 64), expected, rtol=1e-5, atol=3e-5
    )
    order = np.array([3, 1, 6, 0, 2, 5, 4])
    np.testing.assert_allclose(
        loss(np.argsort(order)[LABELS], LOGITS[:, order]),
        expected,
        rtol=1e-6,
        atol=1e-6,
    )


def test_bounds():
    """For alpha >= 1 never negative; beta log(alpha) at certainty."""
    certain = np.array([[200.0, 0, 0]], "float32")
    for alpha, beta in [(1.0, 1.0), (1.5, 1.0), (2.0, 0.25)]:
        options = dict(alpha=alpha, beta=beta, from_logits=True)
        loss = crl_keras.sparse_competing_ratio_loss([0], certain, **options)
        np.testing.assert_allclose(
            to_numpy(loss), [beta * np.log(alpha)], rtol=1e-6, atol=1e-12
        )
        loss = crl_keras.sparse_competing_ratio_loss(LABELS, LOGITS, **options)
        assert (to_numpy(loss) >= 0).all()


def test_with_alpha_1_a_confident_loss_keeps_its_relative_precision():
    """log1p and expm1: the loss tends to (1 + beta) ce, not to 0 or 1e-7."""
    ce = np.float32([1e-3, 1e-6, 1e-12])
    loss = _from_cross_entropy(ops.convert_to_tensor(ce), 1.0, 1.0)
    expected = ce + np.log1p(-np.expm1(-np.float64(ce)))
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-6)


NO_DISTRIBUTIONS = np.float32(
    [[0, 0, 0], [1, 1, 0], [0, 2, 0], [0.6, 0, 0], [0.4, 0.3, 0], [1, 0, 0]]
)


@pytest.mark.parametrize("alpha, beta", [(1.5, 0.0), (1.5, 1.0), (0.02, 1.0)])
def test_labels_that_are_no_distribution(alpha, beta):
    """The formula of the docstring, and Keras's number where beta is 0."""
    logits = LOGITS[: len(NO_DISTRIBUTIONS), :3]
    log_p = np.float64(logits)
    log_p = log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True)
    ce = -np.sum(NO_DISTRIBUTIONS * log_p, axis=1)
    expected = ce + beta * np.log(alpha + 1 - np.exp(-ce))
    loss = functools.partial(
        crl_keras.competing_ratio_loss,
        NO_DISTRIBUTIONS,
        alpha=alpha,
        beta=beta,
        from_logits=True,
    )
    actual = to_numpy(loss(logits))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    if keras.backend.backend() != "tensorflow":  # Its kernel leaves sum(y) out.
        _, gradient = value_and_gradient(loss, logits)
        total = NO_DISTRIBUTIONS.sum(axis=1, keepdims=True)
        slope = 1 + beta * np.exp(-ce) / (alpha + 1 - np.exp(-ce))
        np.testing.assert_allclose(
            gradient,
            slope[:, None] * (total * np.exp(log_p) - NO_DISTRIBUTIONS),
            rtol=1e-4,
            atol=1e-5,
        )
    if not beta:
        keras_own = keras.ops.categorical_crossentropy(
            NO_DISTRIBUTIONS, logits, from_logits=True
        )
        np.testing.assert_allclose(actual, to_numpy(keras_own), rtol=1e-5)


@pytest.mark.parametrize("alpha, beta", SETTINGS)
def test_gradients_sum_to_zero_over_the_classes(alpha, beta):
    _, gradient = value_and_gradient(
        lambda x: crl_keras.sparse_competing_ratio_loss(
            LABELS, x, alpha=alpha, beta=beta, from_logits=True
        ),
        LOGITS,
    )
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=2e-6)
    assert np.abs(gradient).max() > 0.1
