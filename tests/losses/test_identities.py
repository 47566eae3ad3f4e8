"""What must hold whatever the numbers are."""

import keras
import numpy as np
import pytest
from autodiff import to_numpy
from autodiff import value_and_gradient
from keras import ops

import crl_keras

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
    p = np.array([[1 - 1e-4, 1e-4]])
    loss = crl_keras.sparse_competing_ratio_loss(
        [0], np.log(p).astype("float64"), alpha=1.0, from_logits=True
    )
    expected = -np.log(1 - 1e-4) + np.log(1 + 1e-4)
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=2e-3)


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
