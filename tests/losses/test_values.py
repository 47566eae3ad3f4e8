"""Values and gradients from logits against the float64 reference."""

import keras
import numpy as np
import pytest
import reference
from autodiff import hessian
from autodiff import to_numpy
from autodiff import value_and_gradient
from keras import ops

import crl_keras

# Table I of the paper, and beta = -1 (what its Eq. 14 describes).
TABLE_I = [
    (alpha, beta)
    for alpha in (0.0, 1.0, 1.5, 2.0)
    for beta in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
]
SETTINGS = [*TABLE_I, (1.0, -1.0), (1.5, -1.0), (0.01, 1.0), (1e-6, 0.5)]
CLASSES = (2, 10, 1000)
SCALES = (1.0, 8.0, 30.0)


def make_batch(classes, scale, samples=32):
    """Logits whose labels are hard, likely and unlikely in equal parts."""
    rng = np.random.default_rng(classes)
    logits = (scale * rng.normal(size=(samples, classes))).astype("float32")
    labels = rng.integers(0, classes, samples)
    labels[: samples // 3] = logits[: samples // 3].argmax(axis=1)
    labels[samples // 3 : samples // 2] = logits[
        samples // 3 : samples // 2
    ].argmin(axis=1)
    return logits, labels


def dense(labels, logits, alpha, beta):
    y_true = reference.one_hot(labels, logits.shape[-1]).astype("float32")
    return lambda x: crl_keras.competing_ratio_loss(
        y_true, x, alpha=alpha, beta=beta, from_logits=True
    )


def sparse(labels, logits, alpha, beta):
    return lambda x: crl_keras.sparse_competing_ratio_loss(
        labels, x, alpha=alpha, beta=beta, from_logits=True
    )


FORMS = pytest.mark.parametrize("form", [dense, sparse])


@FORMS
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("classes", CLASSES)
def test_values_and_gradients_match_float64(form, classes, scale):
    logits, labels = make_batch(classes, scale)
    y_true = reference.one_hot(labels, classes)
    terms = reference.competing_ratio(y_true, logits, 1.0, 0.0)
    for alpha, beta in SETTINGS:
        function = form(labels, logits, alpha, beta)
        expected = reference.competing_ratio(y_true, logits, alpha, beta)
        # The loss crosses zero; there the terms it is the sum of set the scale,
        # and float32 knows the cross-entropy of a confident sample to 4e-7,
        # which the slope of the loss in it, at most 1 + beta / alpha, scales.
        slope = 1 + max(beta, 0) / alpha if alpha >= 0.1 else 1
        actual = to_numpy(function(logits))
        np.testing.assert_array_less(
            np.abs(actual - expected),
            3e-6 * np.maximum(np.abs(expected), np.minimum(terms, 1.0))
            + 4e-7 * slope,
            err_msg=f"alpha={alpha}, beta={beta}",
        )
        _, actual = value_and_gradient(function, logits)
        expected = reference.exact_gradient(y_true, logits, alpha, beta)
        np.testing.assert_allclose(
            actual,
            expected,
            rtol=3e-5,
            atol=3e-6,
            err_msg=f"alpha={alpha}, beta={beta}",
        )


@pytest.mark.once
def test_the_reference_gradient_is_that_of_the_reference_value():
    rng = np.random.default_rng(1)
    logits = 2 * rng.normal(size=(20, 5))
    y_true = reference.one_hot(rng.integers(0, 5, 20), 5)
    for alpha, beta in SETTINGS:
        np.testing.assert_allclose(
            reference.exact_gradient(y_true, logits, alpha, beta),
            reference.gradient(y_true, logits, alpha, beta),
            rtol=1e-5,
            atol=1e-8,
        )


@FORMS
@pytest.mark.parametrize(
    "alpha, beta, expected",
    [
        # By hand, to 10 digits, for p = softmax(2, .5, -1, .3).
        (1.5, 0.0, (0.3754187038, 3.3754187038)),
        (0.0, 1.0, (-0.7861383956, 3.3406162698)),
        (1.5, 1.0, (0.9704007705, 4.2779334636)),
        (1.0, 1.0, (0.6477321046, None)),
        (2.0, 0.25, (0.5850548801, None)),
        (0.0, 0.5, (-0.2053598459, None)),
    ],
)
def test_worked_example(form, alpha, beta, expected):
    logits = np.array([[2.0, 0.5, -1.0, 0.3]] * 2, "float32")
    function = form(np.array([0, 2]), logits, alpha, beta)
    found = to_numpy(function(logits))
    for value, by_hand in zip(found, expected, strict=True):
        assert by_hand is None or value == pytest.approx(by_hand, rel=1e-6)


@FORMS
@pytest.mark.parametrize(
    "alpha, expected",
    [
        (
            1.5,
            [
                [-0.43160329, 0.21137742, 0.04716468, 0.17306119],
                [0.69653117, 0.15541711, -0.97919305, 0.12724477],
            ],
        ),
        # NLLR: each class its share among the competing ones.
        (
            0.0,
            [
                [-1.0, 0.48974932, 0.10927784, 0.40097283],
                [0.71133182, 0.15871958, -1.0, 0.12994860],
            ],
        ),
    ],
)
def test_gradient_of_the_worked_example(form, alpha, expected):
    logits = np.array([[2.0, 0.5, -1.0, 0.3]] * 2, "float32")
    _, gradient = value_and_gradient(
        form(np.array([0, 2]), logits, alpha, 1.0), logits
    )
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


@FORMS
def test_the_gradient_of_the_paper_has_a_sign_error(form):
    """Finite differences decide between Eq. (14) as printed and its sign.

    The paper prints dCRL/dx_j = (1 - beta p_c / (alpha + 1 - p_c)) p_j for a
    competing class j; the derivative of Eq. (11) has a plus there.
    """
    rng = np.random.default_rng(2)
    logits = 2 * rng.normal(size=(50, 4)).astype("float32")
    labels = rng.integers(0, 4, 50)
    y_true = reference.one_hot(labels, 4)
    for alpha, beta in [(1.5, 1.0), (1.0, 0.5), (0.0, 1.0)]:
        p = np.exp([reference.log_softmax(x) for x in logits])
        p_c = p[np.arange(50), labels]
        ratio = (beta * p_c / (alpha + 1 - p_c))[:, None]
        printed, true = (1 - ratio) * (p - y_true), (1 + ratio) * (p - y_true)

        differences = reference.gradient(y_true, logits, alpha, beta)
        np.testing.assert_allclose(differences, true, rtol=1e-5, atol=1e-8)
        assert np.abs(differences - printed).max() > 0.1

        _, actual = value_and_gradient(
            form(labels, logits, alpha, beta), logits
        )
        np.testing.assert_allclose(actual, true, rtol=1e-4, atol=1e-6)


@FORMS
@pytest.mark.parametrize("alpha, beta", [(0.0, 1.0), (0.0, 0.5), (1.5, 1.0)])
def test_extreme_logits(form, alpha, beta):
    """Exact at +-1e4, where 1 - p underflows in any floating point format."""
    logits = np.array(
        [
            [1e4, -1e4, 0.0],
            [1e4, -1e4, 0.0],
            [1e4, 9999.0, -1e4],
            [-1e4, -1e4, -1e4],
        ],
        "float32",
    )
    labels = np.array([0, 1, 0, 2])
    y_true = reference.one_hot(labels, 3)
    function = form(labels, logits, alpha, beta)
    value, gradient = (
        to_numpy(function(logits)),
        value_and_gradient(function, logits)[1],
    )
    np.testing.assert_allclose(
        value,
        reference.competing_ratio(y_true, logits, alpha, beta),
        rtol=3e-6,
    )
    np.testing.assert_allclose(
        gradient,
        reference.exact_gradient(y_true, logits, alpha, beta),
        rtol=3e-5,
        atol=1e-7,
    )


@FORMS
@pytest.mark.parametrize("beta", [0.25, 1.0, 1.25])
def test_with_alpha_0_confident_samples_keep_a_gradient_of_beta(form, beta):
    logits = np.array([[20.0, 0.0, -3.0], [1e4, 0.0, 0.0]], "float32")
    _, gradient = value_and_gradient(
        form(np.array([0, 0]), logits, 0.0, beta), logits
    )
    np.testing.assert_allclose(gradient[:, 0], -beta, rtol=1e-5)
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-6)


@FORMS
@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_hard_samples_keep_their_gradient(form, alpha):
    """No clip: Keras's focal loss has gradient 0 here."""
    logits = np.array([[40.0, 0.0, -5.0], [500.0, 0.0, 0.0]], "float32")
    _, gradient = value_and_gradient(
        form(np.array([1, 2]), logits, alpha, 1.0), logits
    )
    np.testing.assert_allclose(gradient[0], [1, -1, 0], atol=1e-6)
    np.testing.assert_allclose(gradient[1], [1, 0, -1], atol=1e-6)


@FORMS
@pytest.mark.parametrize("alpha, beta", [(1.5, 1.0), (0.0, 1.0), (1.5, -1.0)])
def test_second_derivatives(form, alpha, beta):
    rng = np.random.default_rng(3)
    for scale in (1.0, 10.0, 1e4):
        logits = (scale * rng.normal(size=(1, 4))).astype("float32")
        actual = hessian(form(np.array([2]), logits, alpha, beta), logits)
        actual = actual.reshape(4, 4)
        assert np.isfinite(actual).all()
        if scale == 1.0:
            y_true, step = reference.one_hot([2], 4), 1e-4
            for k in range(4):
                move = step * np.eye(4)[k]
                expected = (
                    reference.exact_gradient(y_true, logits + move, alpha, beta)
                    - reference.exact_gradient(
                        y_true, logits - move, alpha, beta
                    )
                ) / (2 * step)
                np.testing.assert_allclose(
                    actual[k], expected[0], rtol=1e-3, atol=1e-5
                )


@pytest.mark.parametrize("alpha, beta", SETTINGS)
def test_soft_labels_match_float64(alpha, beta):
    rng = np.random.default_rng(4)
    logits = (3 * rng.normal(size=(24, 6))).astype("float32")
    y_true = rng.dirichlet(np.full(6, 0.3), size=24)
    y_true[:4] = 1 / 6
    y_true[4:6] = [0.5, 0.5, 0, 0, 0, 0]
    y_true[6:8] = [1 - 1e-4, 1e-4, 0, 0, 0, 0]
    y_true = y_true.astype("float32")

    def function(x):
        return crl_keras.competing_ratio_loss(
            y_true, x, alpha=alpha, beta=beta, from_logits=True
        )

    np.testing.assert_allclose(
        to_numpy(function(logits)),
        reference.competing_ratio(y_true, logits, alpha, beta),
        rtol=1e-5,
        atol=2e-6,
    )
    _, gradient = value_and_gradient(function, logits)
    np.testing.assert_allclose(
        gradient,
        reference.gradient(y_true, logits, alpha, beta),
        rtol=1e-4,
        atol=1e-5,
    )
    # A scalar times p - y.
    p = np.exp([reference.log_softmax(x) for x in logits])
    cosine = (gradient * (p - y_true)).sum(axis=1) / (
        np.linalg.norm(gradient, axis=1) * np.linalg.norm(p - y_true, axis=1)
    )
    np.testing.assert_allclose(cosine, 1, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_the_minimum_for_a_soft_label_is_at_the_label(alpha):
    y_true = np.array([[0.6, 0.3, 0.1]], "float32")
    _, gradient = value_and_gradient(
        lambda x: crl_keras.competing_ratio_loss(
            y_true, x, alpha=alpha, beta=1.0, from_logits=True
        ),
        np.log(y_true),
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.5])
@pytest.mark.parametrize("smoothing", [0.1, 1.0])
@pytest.mark.parametrize("axis", [-1, 1])
def test_label_smoothing_on_any_axis(alpha, smoothing, axis):
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(2, 3, 4)).astype("float32")
    classes = logits.shape[axis]
    y_true = np.eye(classes, dtype="float32")[
        rng.integers(0, classes, (2, 4) if axis == 1 else (2, 3))
    ]
    y_true = np.moveaxis(y_true, -1, axis)
    actual = crl_keras.competing_ratio_loss(
        y_true,
        logits,
        alpha=alpha,
        from_logits=True,
        label_smoothing=smoothing,
        axis=axis,
    )
    smoothed = np.moveaxis(y_true, axis, -1).reshape(-1, classes)
    smoothed = (1 - smoothing) * smoothed.astype("float64")
    smoothed += smoothing / classes
    expected = reference.competing_ratio(
        smoothed, np.moveaxis(logits, axis, -1).reshape(-1, classes), alpha, 1
    )
    np.testing.assert_allclose(
        to_numpy(actual).ravel(), expected, rtol=1e-5, atol=1e-6
    )


@FORMS
@pytest.mark.parametrize("alpha", [0.0, 0.05, 1.5])
def test_probabilities_are_renormalised_and_clipped(form, alpha):
    """As Keras does, and NLLR stays finite."""
    p = np.array(
        [[0.2, 0.3, 0.5], [2.0, 3.0, 5.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
        "float32",
    )
    labels = np.array([2, 2, 0, 0])
    y_true = reference.one_hot(labels, 3).astype("float32")
    if form is dense:
        loss = crl_keras.competing_ratio_loss(y_true, p, alpha=alpha)
    else:
        loss = crl_keras.sparse_competing_ratio_loss(labels, p, alpha=alpha)
    epsilon = keras.config.epsilon()
    p_c = np.array([0.5, 0.5, np.float32(1 - epsilon), epsilon], "float64")
    expected = np.log(alpha + 1 - p_c) - np.log(p_c)
    np.testing.assert_allclose(to_numpy(loss), expected, rtol=1e-5)


def test_float64_is_kept():
    if keras.backend.backend() == "jax":
        dtype = "float32"  # JAX has no float64 unless told to.
    else:
        dtype = "float64"
    logits = ops.convert_to_tensor(np.array([[2.0, 0.5, -1.0, 0.3]]), dtype)
    loss = crl_keras.sparse_competing_ratio_loss(
        np.array([0]), logits, from_logits=True
    )
    assert keras.backend.standardize_dtype(loss.dtype) == dtype
    np.testing.assert_allclose(
        to_numpy(loss),
        0.9704007705,
        rtol=1e-6 if dtype == "float32" else 1e-10,
    )
