"""posterior_from_crl against a numerical minimiser that knows nothing of it.

The minimiser is given only the loss of a one-hot label, in float64 NumPy.
"""

import decimal
import functools
import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy import optimize

from crl_keras.calibration import posterior_from_crl

# Table I, where alpha > 0.
PAPER = [(a, b) for a in (1.0, 1.5, 2.0) for b in (0.25, 0.5, 0.75, 1.0, 1.25)]
# In order: the default, duller than the posterior, alpha + beta = 0, convex,
# alpha = 0, and beta = (2 alpha + 1)^2 exactly.
MORE = [
    (1.5, 1.0),
    (1.5, -1.0),
    (1.0, -1.0),
    (2.0, 0.25),
    (0.0, 0.5),
    (0.25, 2.25),
    (0.25, 1.0),
    (0.5, 2.0),
]


def posterior(y_pred, *args, **kwargs):
    return ops.convert_to_numpy(posterior_from_crl(y_pred, *args, **kwargs))


def softmax(x):
    e = np.exp(x - x.real.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def expected_loss(logits, eta, alpha, beta):
    p = softmax(logits)
    return np.sum(eta * (-np.log(p) + beta * np.log(alpha + 1 - p)))


def minimiser(eta, alpha, beta, start=None):
    """Returns the softmax at a minimum, by complex-step BFGS from `start`."""
    found = optimize.minimize(
        expected_loss,
        np.zeros(len(eta)) if start is None else np.log(start),
        args=(eta, alpha, beta),
        jac="cs",
        method="BFGS",
        options={"gtol": 1e-10},
    )
    assert np.abs(found.jac).max() < 1e-7
    return softmax(found.x)


def random_posteriors(alpha, beta):
    rng = np.random.default_rng(0)
    for classes in (2, 3, 5, 10, 20):
        eta = rng.dirichlet(np.ones(classes))
        # With alpha = 0 there is no minimum for a more confident posterior.
        while alpha == 0 and eta.max() > 0.95 / (1 + beta):
            eta = rng.dirichlet(np.ones(classes))
        yield eta


@functools.cache
def optima(alpha, beta):
    return [
        (eta, minimiser(eta, alpha, beta))
        for eta in random_posteriors(alpha, beta)
    ]


# The map inverts the minimiser


@pytest.mark.parametrize("alpha,beta", PAPER + MORE)
def test_inverts_the_minimiser_of_the_expected_loss(alpha, beta):
    for eta, p in optima(alpha, beta):
        assert np.abs(p - eta).max() > 1e-3
        got = posterior(p.astype("float32"), alpha, beta)
        np.testing.assert_allclose(got, eta, rtol=1e-4, atol=2e-6)
        logits = np.log(p).astype("float32") + 7.0
        got = posterior(logits, alpha, beta, from_logits=True)
        np.testing.assert_allclose(got, eta, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("alpha,beta", PAPER + MORE)
def test_optimum_is_sharper_for_positive_beta_and_duller_for_negative(
    alpha, beta
):
    for _, p in optima(alpha, beta):
        got = posterior(p.astype("float32"), alpha, beta)
        top = p.argmax()
        assert (got[top] < p[top]) == (beta > 0)


def test_defaults_are_those_of_the_loss():
    p = np.array([0.7, 0.2, 0.1], "float32")
    np.testing.assert_array_equal(posterior(p), posterior(p, 1.5, 1.0))
    assert np.abs(posterior(p) - posterior(p, 1.5, 0.9)).max() > 1e-3
    assert np.abs(posterior(p) - posterior(p, 1.4, 1.0)).max() > 1e-4


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.5])
def test_beta_zero_is_the_identity(alpha):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(50, 7)).astype("float32") * 8
    p = softmax(logits)
    np.testing.assert_allclose(posterior(p, alpha, 0.0), p, rtol=3e-7)
    got = posterior(logits, alpha, 0.0, from_logits=True)
    np.testing.assert_allclose(got, p, rtol=5e-6)


# Order of the classes


@pytest.mark.parametrize("alpha,beta", PAPER + MORE + [(0.0, 1.0)])
def test_order_is_kept_where_the_docstring_says(alpha, beta):
    assert beta <= (2 * alpha + 1) ** 2
    rng = np.random.default_rng(2)
    sets = [rng.dirichlet(np.full(c, 0.5), 2000) for c in (2, 3, 6)]
    x = np.linspace(0.501, 0.999, 2000)
    sets.append(np.stack([x, 1 - x], -1))
    for p in sets:
        order = np.argsort(p, -1)
        got = posterior(p.astype("float32"), alpha, beta)
        got = np.take_along_axis(got, order, -1)
        assert np.diff(got, axis=-1).min() >= -1e-6
        if beta < (2 * alpha + 1) ** 2 and (alpha > 0 or beta != 1):
            clear = p.max(-1) - np.sort(p, -1)[:, -2] > 1e-3
            best = posterior(p.astype("float32"), alpha, beta).argmax(-1)
            np.testing.assert_array_equal(best[clear], p.argmax(-1)[clear])


@pytest.mark.parametrize("alpha,beta", [(0.0, 1.2), (0.25, 2.4), (1.5, 16.5)])
def test_order_can_change_beyond_the_bound(alpha, beta):
    assert beta > (2 * alpha + 1) ** 2
    got = posterior(np.array([0.52, 0.48], "float32"), alpha, beta)
    assert got[0] < got[1]


def test_beyond_the_bound_optima_are_several_and_all_map_to_the_posterior():
    alpha, beta = 0.25, 4.0
    eta = np.array([0.52, 0.48])
    good = minimiser(eta, alpha, beta, start=np.array([0.9, 0.1]))
    poor = minimiser(eta, alpha, beta, start=np.array([0.1, 0.9]))
    assert good[0] > 0.6 and poor[0] < 0.4
    value = [expected_loss(np.log(p), eta, alpha, beta) for p in (good, poor)]
    assert value[0] < value[1]
    for p in (good, poor):
        got = posterior(p.astype("float32"), alpha, beta)
        np.testing.assert_allclose(got, eta, atol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("alpha,beta", [(0.25, 2.0), (0.5, 2.0), (1.5, 1.0)])
def test_within_the_bound_every_start_ends_at_the_same_optimum(alpha, beta):
    rng = np.random.default_rng(3)
    for eta in ([0.52, 0.48], [0.5, 0.3, 0.2], [0.9, 0.06, 0.04]):
        eta = np.array(eta)
        first = minimiser(eta, alpha, beta)
        for start in rng.dirichlet(np.full(len(eta), 0.5), 5):
            p = minimiser(eta, alpha, beta, start=np.maximum(start, 1e-3))
            np.testing.assert_allclose(p, first, atol=1e-5)


# alpha = 0


def test_nllr_of_two_classes_is_one_half():
    logits = [[0.0, 0.0], [3.0, 1.0], [-50.0, 50.0], [1e4, -1e4]]
    got = posterior(logits, 0.0, 1.0, from_logits=True)
    np.testing.assert_allclose(got, 0.5, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_alpha_zero_gives_no_confident_class_more_than_the_bound(beta):
    rng = np.random.default_rng(4)
    rest = rng.normal(size=4).astype("float32")
    logits = np.concatenate([[1e4], rest]).astype("float32")
    got = posterior(logits, 0.0, beta, from_logits=True)
    assert got[0] == pytest.approx(1 / (1 + beta), rel=1e-6)
    expected = softmax(rest) * beta / (1 + beta)
    np.testing.assert_allclose(got[1:], expected, rtol=1e-5)


def test_alpha_zero_shares_equally_what_one_hot_probabilities_do_not_tell():
    got = posterior([1.0, 0.0, 0.0], 0.0, 1.0)
    np.testing.assert_allclose(got, [0.5, 0.25, 0.25], rtol=1e-6)


# Numerics


def enough_digits(logits):
    """For 1 - p to be exact to 60 digits."""
    return decimal.Context(prec=60 + int((max(logits) - min(logits)) / 2.3))


@functools.cache
def exact_softmax(logits):
    with decimal.localcontext(enough_digits(logits)):
        e = [decimal.Decimal(float(v - max(logits))).exp() for v in logits]
        return [v / sum(e) for v in e]


def exact(logits, alpha, beta):
    """The formula as printed."""
    p = exact_softmax(tuple(logits))
    with decimal.localcontext(enough_digits(logits)):
        a, b = decimal.Decimal(alpha) + 1, decimal.Decimal(beta)
        h = [v * (a - v) / (a + (b - 1) * v) for v in p]
        return np.array([float(v / sum(h)) for v in h])


@pytest.mark.parametrize(
    "alpha,beta",
    [
        (1.5, 1.0),
        (0.0, 1.0),
        (0.0, 0.5),
        (1.0, -1.0),
        (1e-30, 1.0),
        (1e-40, 1.0),
    ],
)
@pytest.mark.parametrize(
    "logits",
    [
        [1e4, -1e4],
        # The exact numbers of smaller logits take a hundredth of the time.
        [1e3, -1e3, -1e3 + 1],
        [-1e3, -1e3, 1e3, 0.0],
        [60.0, 0.0, -1.0],
        [92.0, 0.0, -1.0],
        [20.0, 1.0, 0.0],
        [1e4, 1e4, 1e4 - 1],
    ],
)
def test_extreme_logits(logits, alpha, beta):
    got = posterior(np.array(logits, "float32"), alpha, beta, from_logits=True)
    expected = exact(logits, alpha, beta)
    # Below the smallest normal float32 a backend may return 0.
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-37)


@pytest.mark.parametrize("alpha,beta", [(1.5, 1.0), (0.0, 1.0), (1.5, -1.0)])
def test_tiny_probabilities(alpha, beta):
    p = [1.0, 3e-30, 1e-30]
    got = posterior(np.array(p, "float32"), alpha, beta)
    np.testing.assert_allclose(
        got, exact(np.log(p), alpha, beta), rtol=2e-5, atol=1e-37
    )


@pytest.mark.parametrize("alpha,beta", [(1.5, 1.0), (1.5, 0.0), (1.0, -1.0)])
def test_impossible_classes_stay_impossible(alpha, beta):
    inf = math.inf
    got = posterior([[0.0, -inf, -inf]], alpha, beta, from_logits=True)
    np.testing.assert_array_equal(got, [[1.0, 0.0, 0.0]])
    got = posterior([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], alpha, beta)
    np.testing.assert_array_equal(got, [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]])


@pytest.mark.parametrize("alpha,beta", [(1.5, 1.0), (1.5, 0.0), (0.0, 1.0)])
def test_what_is_no_prediction_is_nan_and_never_a_plausible_number(alpha, beta):
    nan, inf = math.nan, math.inf
    rows = [[nan, 0.0, 1.0], [9.0, nan, 1.0], [inf, 0.0, 0.0], [-inf] * 3]
    got = posterior(rows + [[1.0, 2.0, 3.0]], alpha, beta, from_logits=True)
    assert np.isnan(got[:-1]).all() and np.isfinite(got[-1]).all()
    # Logits without from_logits=True.
    assert np.isnan(posterior([[-1.0, 2.0, 0.5]], alpha, beta)).all()


@pytest.mark.parametrize("alpha,beta", PAPER + MORE + [(0.0, 1.0)])
def test_sums_to_one(alpha, beta):
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(40, 11)).astype("float32") * 30
    got = posterior(logits, alpha, beta, from_logits=True)
    np.testing.assert_allclose(got.sum(-1), 1.0, rtol=1e-6)
    assert got.min() >= 0


def test_probabilities_are_normalised():
    p = np.array([0.6, 0.3, 0.1], "float32")
    np.testing.assert_allclose(posterior(p * 3), posterior(p), rtol=1e-6)


# Shapes, dtypes, compilation


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("axis", [0, 2, -1, -3])
def test_axis(axis, beta, from_logits):
    rng = np.random.default_rng(6)
    x = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    x = x if from_logits else np.exp(x)
    got = posterior(x, 1.5, beta, axis=axis, from_logits=from_logits)
    assert got.shape == x.shape
    expected = posterior(
        np.moveaxis(x, axis, -1), 1.5, beta, from_logits=from_logits
    )
    np.testing.assert_allclose(
        np.moveaxis(got, axis, -1), expected, rtol=1e-5, atol=1e-7
    )
    np.testing.assert_allclose(got.sum(axis), 1.0, rtol=1e-6)


def test_empty_batch():
    assert posterior(np.zeros((0, 3), "float32")).shape == (0, 3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32"])
def test_is_computed_in_float32(dtype):
    x = ops.cast([[9.0, -3.0, 1.0], [0.0, 1.0, 2.0]], dtype)
    got = posterior_from_crl(x, from_logits=True)
    assert keras.backend.standardize_dtype(got.dtype) == "float32"
    expected = posterior_from_crl(ops.cast(x, "float32"), from_logits=True)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(got), ops.convert_to_numpy(expected)
    )


def test_float64_is_kept():
    # JAX has no float64 unless told to.
    jax = keras.backend.backend() == "jax"
    dtype, atol = ("float32", 1e-6) if jax else ("float64", 1e-8)
    eta, p = optima(1.5, 1.0)[3]
    got = posterior_from_crl(ops.convert_to_tensor(p, dtype=dtype))
    assert keras.backend.standardize_dtype(got.dtype) == dtype
    np.testing.assert_allclose(ops.convert_to_numpy(got), eta, atol=atol)


def compiled(function):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if backend == "jax":
        import jax

        return jax.jit(function)
    import torch

    return torch.compile(function, backend="eager", fullgraph=True)


# Raised inside torch.compile, by PyTorch itself.
@pytest.mark.filterwarnings("default:::torch")
@pytest.mark.parametrize("alpha,beta", [(1.5, 1.0), (0.0, 1.0), (1.5, 0.0)])
def test_compiled_equals_eager(alpha, beta):
    logits = ops.convert_to_tensor([[2.0, 0.5, -1.0], [99.0, 0.0, 1.0]])

    def function(x):
        return posterior_from_crl(x, alpha, beta, from_logits=True)

    np.testing.assert_allclose(
        ops.convert_to_numpy(compiled(function)(logits)),
        ops.convert_to_numpy(function(logits)),
        rtol=1e-5,
        atol=1e-37,
    )


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_as_the_end_of_a_functional_model(axis):
    inputs = keras.Input((4, 3))
    model = keras.Model(
        inputs, posterior_from_crl(inputs, from_logits=True, axis=axis)
    )
    x = np.random.default_rng(7).normal(size=(5, 4, 3)).astype("float32")
    np.testing.assert_allclose(
        model.predict(x, verbose=0),
        posterior(x, from_logits=True, axis=axis),
        rtol=1e-5,
    )


# Bad input


@pytest.mark.parametrize(
    "kwargs,error,words",
    [
        ({"alpha": -0.1}, ValueError, ["`alpha`", ">= 0", "alpha=-0.1"]),
        ({"alpha": math.nan}, ValueError, ["`alpha`", "finite", "nan"]),
        ({"alpha": math.inf}, ValueError, ["`alpha`", "finite", "inf"]),
        ({"beta": math.inf}, ValueError, ["`beta`", "finite", "inf"]),
        ({"beta": -2.0}, ValueError, ["`alpha + beta`", ">= 0", "beta=-2.0"]),
        ({"alpha": "1.5"}, TypeError, ["`alpha`", "number", "'1.5'", "str"]),
        ({"beta": None}, TypeError, ["`beta`", "number", "None"]),
        ({"beta": True}, TypeError, ["`beta`", "number", "True", "bool"]),
        ({"axis": 2}, ValueError, ["`axis`", "axis=2", "(1, 3)"]),
        ({"axis": -3}, ValueError, ["`axis`", "axis=-3", "(1, 3)"]),
        ({"axis": 0}, ValueError, ["at least 2 classes", "(1, 3)"]),
        ({"axis": 1.0}, TypeError, ["`axis`", "int", "1.0", "float"]),
    ],
)
def test_bad_arguments(kwargs, error, words):
    with pytest.raises(error) as raised:
        posterior_from_crl([[0.5, 0.3, 0.2]], **kwargs)
    for word in words:
        assert word in str(raised.value)
