"""Axes, ranks, label layouts, dtypes, masks, weights and reductions."""

import functools

import keras
import numpy as np
import pytest
from autodiff import assert_no_class
from autodiff import to_numpy
from autodiff import value_and_gradient
from keras import ops

import crl_keras

RNG = np.random.default_rng(0)
MAPS = (3 * RNG.normal(size=(2, 4, 5, 3))).astype("float32")  # classes last
MAP_LABELS = RNG.integers(0, 3, (2, 4, 5))
LOGITS = MAPS.reshape(-1, 3)
LABELS = MAP_LABELS.ravel()
ALPHAS = pytest.mark.parametrize("alpha", [0.0, 1.5])


def flat(alpha, **options):
    """Per-sample losses of the maps, as one flat batch."""
    return to_numpy(
        crl_keras.sparse_competing_ratio_loss(
            LABELS, LOGITS, alpha=alpha, from_logits=True, **options
        )
    )


@ALPHAS
def test_integer_predictions_are_numbers(alpha):
    """Not a dtype that the loss is cut off to."""
    options = dict(alpha=alpha, from_logits=True)
    logits = [[2, 0, -1], [0, 5, 1]]
    for function, y_true in [
        (crl_keras.sparse_competing_ratio_loss, [0, 2]),
        (crl_keras.competing_ratio_loss, [[1, 0, 0], [0, 0.5, 0.5]]),
    ]:
        losses = function(y_true, np.array(logits), **options)
        assert keras.backend.standardize_dtype(losses.dtype) == "float32"
        np.testing.assert_allclose(
            to_numpy(losses),
            to_numpy(function(y_true, np.float32(logits), **options)),
            rtol=1e-6,
        )


@ALPHAS
@pytest.mark.parametrize("ignore_class", [None, 1])
def test_no_samples(alpha, ignore_class):
    y_pred = np.zeros((0, 3), "float32")
    for from_logits in (True, False):
        options = dict(alpha=alpha, from_logits=from_logits)
        each = crl_keras.sparse_competing_ratio_loss(
            np.zeros(0, int), y_pred, ignore_class=ignore_class, **options
        )
        assert tuple(each.shape) == (0,)
        each = crl_keras.competing_ratio_loss(y_pred, y_pred, **options)
        assert tuple(each.shape) == (0,)


@ALPHAS
def test_unsigned_labels_do_not_wrap_around(alpha):
    """To class 0, or to the -1 that is ignored."""
    # JAX makes 0 of 2**32 before we see it; PyTorch has no uint64.
    dtype, labels_beyond = "uint32", [2**32 - 1]
    if keras.backend.backend() == "tensorflow":
        dtype, labels_beyond = "uint64", [2**32 - 1, 2**32]
    for label in labels_beyond:
        labels = ops.convert_to_tensor(np.array([label, 2], dtype))
        for ignore_class in (None, -1):
            options = dict(ignore_class=ignore_class, from_logits=True)
            loss = functools.partial(
                crl_keras.sparse_competing_ratio_loss, alpha=alpha, **options
            )
            expected = float(loss([2], LOGITS[1:2])[0])
            found = assert_no_class(
                lambda loss=loss, y=labels: loss(y, LOGITS[:2])
            )
            if found is None:
                found = to_numpy(loss(labels[1:], LOGITS[1:2]))
            np.testing.assert_allclose(found[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("ignore_class", [None, 1])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_mean_in_float16_over_many_pixels(ignore_class, weighted):
    """Their sum, and their number, are beyond the largest float16, 65,504."""
    labels = np.tile(LABELS, 2500)[:90_000].reshape(1, 300, 300)
    logits = np.tile(LOGITS, (2500, 1))[:90_000].reshape(1, 300, 300, 3)
    weight = np.full((1, 300, 300), 2, "float32") if weighted else None
    losses = {
        dtype: crl_keras.SparseCompetingRatioLoss(
            from_logits=True, ignore_class=ignore_class, dtype=dtype
        )(labels, logits, weight)
        for dtype in ("float16", "float32")
    }
    assert keras.backend.standardize_dtype(losses["float16"].dtype) == "float16"
    np.testing.assert_allclose(
        float(losses["float16"]), float(losses["float32"]), rtol=3e-3
    )


def test_a_reduction_that_is_changed_later():
    loss = crl_keras.SparseCompetingRatioLoss(from_logits=True)
    mean = float(loss(LABELS, LOGITS))
    loss.reduction = "sum"
    np.testing.assert_allclose(
        float(loss(LABELS, LOGITS)), mean * len(LABELS), rtol=1e-5
    )


@ALPHAS
@pytest.mark.parametrize("axis", [-1, 3, 1, 0, -2])
def test_any_axis_and_rank(alpha, axis):
    logits = np.moveaxis(MAPS, -1, axis)
    one_hot = np.moveaxis(np.eye(3, dtype="float32")[MAP_LABELS], -1, axis)
    options = dict(alpha=alpha, from_logits=True, axis=axis)
    expected = flat(alpha).reshape(2, 4, 5)
    for function, y_true in [
        (crl_keras.sparse_competing_ratio_loss, MAP_LABELS),
        (
            crl_keras.sparse_competing_ratio_loss,
            np.expand_dims(MAP_LABELS, axis),
        ),
        (crl_keras.competing_ratio_loss, one_hot),
    ]:
        actual = function(y_true, logits, **options)
        np.testing.assert_allclose(
            to_numpy(actual), expected, rtol=1e-5, atol=1e-6
        )
        p = to_numpy(ops.softmax(logits, axis=axis)).astype("float32")
        actual = function(y_true, p, alpha=alpha, axis=axis)
        np.testing.assert_allclose(
            to_numpy(actual), expected, rtol=1e-4, atol=1e-4
        )


@ALPHAS
def test_one_sample_without_a_batch(alpha):
    actual = crl_keras.sparse_competing_ratio_loss(
        int(LABELS[0]), LOGITS[0], alpha=alpha, from_logits=True
    )
    assert tuple(actual.shape) == ()
    np.testing.assert_allclose(
        to_numpy(actual), flat(alpha)[0], rtol=1e-5, atol=1e-6
    )


@ALPHAS
def test_column_labels_do_not_broadcast(alpha):
    """(N, 1) beside (N,) would give a plausible mean over (N, N)."""
    loss = crl_keras.SparseCompetingRatioLoss(alpha, from_logits=True)
    each = crl_keras.SparseCompetingRatioLoss(
        alpha, from_logits=True, reduction=None
    )
    assert tuple(each(LABELS[:, None], LOGITS).shape) == LABELS.shape
    np.testing.assert_allclose(
        to_numpy(loss(LABELS[:, None], LOGITS)),
        flat(alpha).mean(),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int32", "int64", "float32", "float16"]
)
def test_label_dtypes(dtype):
    actual = crl_keras.sparse_competing_ratio_loss(
        LABELS.astype(dtype), LOGITS, from_logits=True
    )
    np.testing.assert_allclose(to_numpy(actual), flat(1.5), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bool", "int32", "float16"])
def test_one_hot_label_dtypes(dtype):
    actual = crl_keras.competing_ratio_loss(
        np.eye(3)[LABELS].astype(dtype), LOGITS, from_logits=True
    )
    np.testing.assert_allclose(to_numpy(actual), flat(1.5), rtol=1e-6)


@ALPHAS
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_labels_stay_exact_under_16_bit_losses(alpha, dtype):
    """Keras's own loss would look up class 1000 for label 999 (bfloat16)."""
    labels = np.array([999, 257, 3])
    logits = np.zeros((3, 1001), "float32")
    logits[np.arange(3), labels] = 16.0
    loss = crl_keras.SparseCompetingRatioLoss(
        alpha, from_logits=True, dtype=dtype, reduction=None
    )
    value = loss(labels, logits)
    assert keras.backend.standardize_dtype(value.dtype) == dtype
    expected = crl_keras.sparse_competing_ratio_loss(
        labels, logits, alpha=alpha, from_logits=True
    )
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(expected), rtol=1e-2, atol=1e-2
    )
    _, gradient = value_and_gradient(lambda x: loss(labels, x), logits)
    assert (gradient.argmin(axis=1) == labels).all()


@ALPHAS
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_logits_are_computed_in_float32(alpha, dtype):
    logits = ops.cast(LOGITS, dtype)
    exact = to_numpy(logits).astype("float32")
    loss = crl_keras.SparseCompetingRatioLoss(alpha, from_logits=True)
    value = loss(LABELS, logits)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(loss(LABELS, exact)), rtol=1e-6
    )
    # The functions return the dtype they were given, rounded once.
    value = crl_keras.sparse_competing_ratio_loss(
        LABELS, logits, alpha=alpha, from_logits=True
    )
    assert keras.backend.standardize_dtype(value.dtype) == dtype
    expected = crl_keras.sparse_competing_ratio_loss(
        LABELS, exact, alpha=alpha, from_logits=True
    )
    np.testing.assert_allclose(
        to_numpy(value), to_numpy(ops.cast(expected, dtype)), rtol=1e-8
    )


@ALPHAS
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize(
    "ignore_class, dtype",
    [(-1, "int32"), (255, "float32"), (1, "float32"), (-(10**6), "int32")],
)
def test_ignored_samples(alpha, from_logits, ignore_class, dtype):
    labels = LABELS.astype(dtype)
    ignored = np.arange(len(labels)) % 3 == 0
    labels[ignored] = ignore_class
    kept = labels != ignore_class
    y_pred = LOGITS if from_logits else to_numpy(ops.softmax(LOGITS))
    y_pred = y_pred.astype("float32")
    y_pred[0] = np.inf  # An ignored sample may hold anything.
    options = dict(alpha=alpha, from_logits=from_logits)
    each = crl_keras.sparse_competing_ratio_loss(
        labels, y_pred, ignore_class=ignore_class, **options
    )
    expected = to_numpy(
        crl_keras.sparse_competing_ratio_loss(
            LABELS[kept], y_pred[kept], **options
        )
    )
    assert (to_numpy(each)[~kept] == 0).all()
    np.testing.assert_allclose(to_numpy(each)[kept], expected, rtol=1e-6)

    loss = crl_keras.SparseCompetingRatioLoss(
        ignore_class=ignore_class, **options
    )
    value, gradient = value_and_gradient(
        lambda x: loss(labels[:, None], x), y_pred
    )
    np.testing.assert_allclose(value, expected.mean(), rtol=1e-5)
    assert (gradient[~kept] == 0).all()
    assert (gradient[kept] != 0).any(axis=1).all()


def test_all_ignored_is_zero():
    loss = crl_keras.SparseCompetingRatioLoss(from_logits=True, ignore_class=9)
    value, gradient = value_and_gradient(
        lambda x: loss(np.full(len(LABELS), 9), x), LOGITS
    )
    assert value == 0 and (gradient == 0).all()


def masked(logits, mask):
    """The output of a model whose mask leaves samples out."""
    masking = keras.layers.Masking(mask_value=7.0)
    x = np.where(mask[..., None], np.ones_like(logits), 7.0)
    carrier = masking(ops.convert_to_tensor(x.astype("float32")))

    class Replace(keras.layers.Layer):
        supports_masking = True

        def call(self, x):
            return x * 0 + ops.convert_to_tensor(logits)

    return Replace()(carrier)


REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"]


def reduced(losses, weights, kept, reduction):
    """What Keras documents, over the samples that are kept."""
    losses, weights = losses[kept], weights[kept]
    total = (losses * weights).sum()
    if reduction == "sum":
        return total
    if reduction == "mean_with_sample_weight":
        return total / weights.sum()
    return total / len(losses)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("use_mask", [False, True])
@pytest.mark.parametrize("use_ignore", [False, True])
@pytest.mark.parametrize("use_weights", [False, True])
def test_reductions(reduction, use_mask, use_ignore, use_weights):
    alpha = 1.5  # Reductions see the losses alone.
    logits, labels = LOGITS.reshape(8, 5, 3), LABELS.reshape(8, 5).copy()
    losses = flat(alpha).reshape(8, 5)
    kept = np.ones((8, 5), bool)
    y_pred = ops.convert_to_tensor(logits)
    if use_mask:
        mask = RNG.random((8, 5)) < 0.7
        kept &= mask
        y_pred = masked(logits, mask)
    if use_ignore:
        ignored = RNG.random((8, 5)) < 0.3
        labels[ignored] = -1
        kept &= ~ignored
    weights = RNG.random((8, 5)).astype("float32") if use_weights else None
    loss = crl_keras.SparseCompetingRatioLoss(
        alpha,
        from_logits=True,
        ignore_class=-1 if use_ignore else None,
        reduction=reduction,
    )
    actual = loss(labels, y_pred, weights)
    expected = reduced(
        losses,
        np.ones((8, 5)) if weights is None else weights.astype("float64"),
        kept,
        reduction,
    )
    np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-5)

    if not use_ignore:  # The dense loss goes the same way.
        dense = crl_keras.CompetingRatioLoss(
            alpha, from_logits=True, reduction=reduction
        )
        actual = dense(np.eye(3)[labels], y_pred, weights)
        np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-5)


def test_reductions_agree_with_keras():
    """The unweighted means of PyTorch take a short cut; see that it is one."""
    weights = RNG.random(len(LABELS)).astype("float32")
    for reduction in [*REDUCTIONS, "none", None]:
        ours = crl_keras.SparseCompetingRatioLoss(
            beta=0, from_logits=True, reduction=reduction
        )
        own = keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, reduction=reduction
        )
        for w in (None, weights, weights[:, None]):
            np.testing.assert_allclose(
                to_numpy(ours(LABELS, LOGITS, w)),
                to_numpy(own(LABELS, LOGITS, w)),
                rtol=1e-6,
            )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weights_that_broadcast(reduction):
    """One weight a sample or row, also where samples are ignored."""
    labels = LABELS.reshape(8, 5).copy()
    labels[::3, 1] = labels[5] = -1
    per_row = RNG.random((8, 1)).astype("float32")
    loss = crl_keras.SparseCompetingRatioLoss(
        from_logits=True, ignore_class=-1, reduction=reduction
    )
    expected = reduced(
        flat(1.5).reshape(8, 5),
        np.broadcast_to(per_row.astype("float64"), (8, 5)),
        labels >= 0,
        reduction,
    )
    actual = loss(labels, LOGITS.reshape(8, 5, 3), per_row)
    np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-5)

    # A column of weights, as Keras's `fit` makes of them.
    labels, weights = labels.ravel(), np.repeat(per_row, 5)
    expected = reduced(flat(1.5), weights, labels >= 0, reduction)
    actual = loss(labels, LOGITS, weights[:, None])
    np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-5)


def test_a_weight_of_zero_removes_a_sample():
    weights = np.ones(len(LABELS), "float32")
    weights[0] = 0
    loss = crl_keras.SparseCompetingRatioLoss(from_logits=True)
    _, gradient = value_and_gradient(lambda x: loss(LABELS, x, weights), LOGITS)
    assert (gradient[0] == 0).all()
    assert (gradient[1] != 0).all()
