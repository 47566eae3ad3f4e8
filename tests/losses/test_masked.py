"""Classes that are ruled out by a logit of -inf."""

import keras
import numpy as np
import pytest
import reference
from autodiff import compilers
from autodiff import to_numpy
from autodiff import value_and_gradient
from keras import ops

from crl_keras import losses

CRL = reference.competing_ratio_one
# By name: the dense and the sparse loss, their parameters, and the reference.
LOSSES = {
    f"crl, alpha={alpha}, beta={beta}": (
        losses.competing_ratio_loss,
        losses.sparse_competing_ratio_loss,
        dict(alpha=alpha, beta=beta),
        CRL,
    )
    for alpha, beta in [(1.5, 1.0), (1.5, 0.0), (0.05, 1.0), (0.0, 1.0)]
} | {
    "focal": (
        losses.focal_loss,
        losses.sparse_focal_loss,
        dict(gamma=2.0),
        reference.focal_one,
    ),
    "tamed": (
        losses.tamed_cross_entropy,
        losses.sparse_tamed_cross_entropy,
        dict(alpha=0.8),
        reference.tamed_one,
    ),
    # With alpha = 1 a class of probability 0 adds log(1) = 0.
    "dual": (
        losses.dual_cross_entropy,
        losses.sparse_dual_cross_entropy,
        dict(alpha=1.0, beta=4.5),
        reference.dual_one,
    ),
    "released": (
        None,
        losses.released_competing_ratio_loss,
        dict(alpha=1.5, beta=1.0),
        reference.released_one,
    ),
}
DENSE = [("dense", name) for name in LOSSES if name != "released"]
EACH = pytest.mark.parametrize(
    "form, name", DENSE + [("sparse", name) for name in LOSSES]
)
RNG = np.random.default_rng(0)
LABELS = np.array([0, 1, 2, 3, 4, 0, 2, 4])
LOGITS = (2 * RNG.normal(size=(8, 5))).astype("float32")
MASK = RNG.random((8, 5)) < 0.4
MASK[2] = [True, True, False, False, True]
MASK[6:, 1] = True
MASK[np.arange(8), LABELS] = False
LOGITS[MASK] = -np.inf
SOFT = np.where(MASK, 0, RNG.random((8, 5))).astype("float32")
SOFT /= SOFT.sum(axis=1, keepdims=True)


def make(form, name, y_true=None):
    """The loss as a function of logits; one-hot labels if `y_true` is None."""
    dense, sparse, parameters, _ = LOSSES[name]
    options = dict(**parameters, from_logits=True)
    if form == "sparse":
        return lambda x: sparse(LABELS, x, **options)
    if y_true is None:
        y_true = np.eye(5, dtype="float32")[LABELS]
    return lambda x: dense(y_true, x, **options)


def without_the_classes(name, y_true):
    """Values and gradients in float64 of what the mask leaves."""
    *_, parameters, one = LOSSES[name]
    values, gradients = [], np.zeros((8, 5))
    for n, (y, x, masked) in enumerate(zip(y_true, LOGITS, MASK, strict=True)):
        args = one, [y[~masked]], [x[~masked]], *parameters.values()
        values.append(reference.of_each(*args)[0])
        gradients[n, ~masked] = reference.differences(*args)[0]
    return values, gradients


@EACH
def test_a_masked_class_is_as_if_it_were_not_there(form, name):
    assert MASK.any(axis=1).all()
    y_true = np.eye(5, dtype="float32")[LABELS]
    cases = [(y_true, make(form, name))]
    if form == "dense":
        cases.append((SOFT, make(form, name, SOFT)))
    for y_true, loss in cases:
        values, gradients = without_the_classes(name, y_true)
        np.testing.assert_allclose(
            to_numpy(loss(LOGITS)), values, rtol=1e-5, atol=1e-6
        )
        _, found = value_and_gradient(loss, LOGITS)
        np.testing.assert_allclose(found, gradients, rtol=1e-4, atol=1e-5)
        assert (found[MASK] == 0).all()


# One of each way to compute it; the rest is a function of one number a sample.
@pytest.mark.parametrize(
    "form, name",
    [("dense", name) for name in ("crl, alpha=1.5, beta=1.0", "dual")]
    + [(form, "crl, alpha=0.0, beta=1.0") for form in ("dense", "sparse")],
)
@pytest.mark.parametrize("way", [w for w in compilers() if w != "inductor"])
@pytest.mark.filterwarnings(
    # What PyTorch's compiler warns of in itself.
    "ignore::DeprecationWarning:torch",
    "ignore::FutureWarning:torch",
    "ignore::UserWarning:torch",
)
def test_compiled(form, name, way):
    loss = make(form, name)
    compiled = compilers()[way](loss)
    for found, expected in zip(
        value_and_gradient(compiled, LOGITS),
        value_and_gradient(loss, LOGITS),
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@EACH
def test_the_only_class_that_is_left(form, name):
    """It is certain: a loss that has a bound is at its bound, and rests."""
    logits = np.full((8, 5), -np.inf, "float32")
    logits[np.arange(8), LABELS] = 3.0
    parameters = LOSSES[name][2]
    alpha, beta = parameters.get("alpha", 1), parameters.get("beta", 0)
    bound = 0.0
    if beta and ("crl" in name or name == "released"):
        bound = beta * np.log(alpha) if alpha else -np.inf
    loss = make(form, name)
    found = to_numpy(loss(logits))
    if bound == -np.inf:  # NLLR has none; -1e38 stands for it.
        assert (found <= -9e37).all()
    else:
        np.testing.assert_allclose(found, bound, atol=1e-6)
    _, gradient = value_and_gradient(loss, logits)
    np.testing.assert_array_equal(gradient, 0)


@EACH
def test_a_label_of_a_masked_class_is_no_number(form, name):
    logits = LOGITS.copy()
    logits[np.arange(8), LABELS] = -np.inf
    found = to_numpy(make(form, name)(logits))
    if name == "released":  # It has a clamp, and this is its loss there.
        np.testing.assert_allclose(found, np.log(2.5 / 1e-7), rtol=1e-5)
        return
    assert not (found < np.inf).any(), found
    if form == "dense":
        for share in (0.5, 1e-3, 1e-7):
            y_true = SOFT.copy()
            y_true[np.arange(8), LABELS] = share
            found = to_numpy(make(form, name, y_true)(logits))
            assert not (found < np.inf).any(), (share, found)


@pytest.mark.parametrize("name", [name for _, name in DENSE])
@pytest.mark.parametrize("where", ["logits", "labels"])
def test_nan_stays_nan(name, where):
    """What leaves out 0 times infinity does not leave out more."""
    y_true = np.eye(5, dtype="float32")[LABELS]
    for column in range(5):
        logits, labels = LOGITS.copy(), y_true.copy()
        (logits if where == "logits" else labels)[:, column] = np.nan
        found = to_numpy(make("dense", name, labels)(logits))
        assert np.isnan(found).all(), column
    assert np.isfinite(to_numpy(make("dense", name, y_true)(LOGITS))).all()


def test_a_gradient_in_the_label_is_that_of_keras():
    """Of classes without a mask, also where the label is 0."""
    logits = np.where(MASK, 0.5, LOGITS).astype("float32")
    y_true = np.eye(5, dtype="float32")[LABELS]
    found = [
        value_and_gradient(lambda y, f=f: f(y, ops.array(logits)), y_true)[1]
        for f in (
            lambda y, x: losses.competing_ratio_loss(
                y, x, beta=0.0, from_logits=True
            ),
            lambda y, x: keras.ops.categorical_crossentropy(
                y, x, from_logits=True
            ),
        )
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)


def test_logits_in_16_bits_and_on_another_axis():
    logits = ops.cast(np.moveaxis(LOGITS, -1, 0), "bfloat16")
    y_true = np.eye(5)[LABELS].T
    loss = losses.competing_ratio_loss(y_true, logits, from_logits=True, axis=0)
    values, _ = without_the_classes("crl, alpha=1.5, beta=1.0", y_true.T)
    np.testing.assert_allclose(to_numpy(loss), values, rtol=0.05)
