"""The losses on Keras tensors, as operations of a functional model."""

import keras
import numpy as np
import pytest
from autodiff import to_numpy

import crl_keras
from crl_keras import losses

RNG = np.random.default_rng(0)
DENSE = [
    losses.competing_ratio_loss,
    losses.focal_loss,
    losses.tamed_cross_entropy,
    losses.dual_cross_entropy,
]
SPARSE = [
    losses.sparse_competing_ratio_loss,
    losses.sparse_focal_loss,
    losses.sparse_tamed_cross_entropy,
    losses.sparse_dual_cross_entropy,
    losses.released_competing_ratio_loss,
]
# Shapes of logits and of labels, with None for what the model does not know.
LAYOUTS = {
    "(N,)": ((None, 3), (None,)),
    "(N, 1)": ((None, 3), (None, 1)),
    "(N, H, W)": ((None, 4, 5, 3), (None, 4, 5)),
    "unknown H, W": ((None, None, None, 3), (None, None, None)),
    "unknown H, W, and 1": ((None, None, None, 3), (None, None, None, 1)),
    "unknown classes": ((None, None), (None, 1)),
}
SIZES = {2: (6, 3), 4: (2, 4, 5, 3)}


def called(loss, values, shapes, **options):
    """`loss` as the output of a model, called on `values`."""
    inputs = [
        keras.Input(batch_shape=shape, dtype=str(value.dtype))
        for shape, value in zip(shapes, values, strict=True)
    ]
    model = keras.Model(inputs, loss(*inputs, **options))
    return model, to_numpy(model(values))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_integer_labels(layout):
    shape, label_shape = LAYOUTS[layout]
    logits = RNG.normal(size=SIZES[len(shape)]).astype("float32")
    labels = RNG.integers(0, 3, logits.shape[:-1], dtype="int32")
    if label_shape[-1] == 1:
        labels = labels[..., None]
    for function in SPARSE:
        for options in (dict(), dict(ignore_class=1), dict(axis=1, alpha=0.0)):
            x, y, s = logits, labels, (label_shape, shape)
            if "axis" in options:
                if function is not losses.sparse_competing_ratio_loss:
                    continue
                x = np.moveaxis(x, -1, 1)
                s = (label_shape, (shape[0], shape[-1], *shape[1:-1]))
                if label_shape[-1] == 1:
                    y = np.moveaxis(y, -1, 1)
                    s = ((None, 1, *label_shape[1:-1]), s[1])
            options = {**options, "from_logits": True}
            _, found = called(function, [y, x], s, **options)
            expected = to_numpy(function(y, x, **options))
            assert found.shape == logits.shape[:-1]
            np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("layout", ["(N,)", "unknown H, W", "unknown classes"])
def test_one_hot_labels(layout):
    shape, _ = LAYOUTS[layout]
    logits = RNG.normal(size=SIZES[len(shape)]).astype("float32")
    labels = np.eye(3, dtype="float32")[RNG.integers(0, 3, logits.shape[:-1])]
    for function in DENSE:
        for options in (dict(), dict(label_smoothing=0.1)):
            options = {**options, "from_logits": True}
            _, found = called(
                function, [labels, logits], (shape, shape), **options
            )
            expected = to_numpy(function(labels, logits, **options))
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_margin():
    features = RNG.normal(size=(6, 4)).astype("float32")
    kernel = RNG.normal(size=(4, 3)).astype("float32")
    labels = np.arange(6, dtype="int32")[:, None] % 3
    shapes = (None, 1), (None, 4), (4, 3)
    for function in (
        losses.sparse_l_softmax_loss,
        losses.sparse_a_softmax_loss,
    ):
        values = [labels, features, kernel]
        _, found = called(function, values, shapes, margin=3)
        expected = function(*values, margin=3)
        np.testing.assert_allclose(found, to_numpy(expected), rtol=1e-6)
    function = losses.sparse_margin_cross_entropy
    both = RNG.normal(size=(6, 6)).astype("float32")
    values, shapes = [labels, both], ((None, 1), (None, 6))
    _, found = called(function, values, shapes, classes=3)
    expected = function(*values, classes=3)
    np.testing.assert_allclose(found, to_numpy(expected), rtol=1e-6)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", None])
def test_objects_with_weights(reduction):
    """Keras's own losses do not work here as objects, only as functions."""
    logits = RNG.normal(size=(6, 3)).astype("float32")
    labels = np.arange(6, dtype="int32")[:, None] % 3
    weights = np.linspace(0, 2, 6, dtype="float32")
    for loss, y_true in [
        (
            crl_keras.CompetingRatioLoss(from_logits=True),
            np.eye(3)[labels[:, 0]],
        ),
        (crl_keras.SparseCompetingRatioLoss(ignore_class=2), labels),
        (losses.SparseMarginCrossEntropy(3), labels),
    ]:
        loss.reduction = reduction
        values = [y_true.astype("float32"), logits, weights]
        if y_true is labels:
            values[0] = labels
        shapes = (None, values[0].shape[1]), (None, 3), (None,)
        _, found = called(loss, values, shapes)
        np.testing.assert_allclose(found, to_numpy(loss(*values)), rtol=1e-6)


def test_such_a_model_is_saved_and_loaded(tmp_path):
    labels = np.arange(6, dtype="int32")[:, None] % 3
    logits = RNG.normal(size=(6, 3)).astype("float32")
    for loss, options in [
        (
            crl_keras.sparse_competing_ratio_loss,
            dict(alpha=0.5, ignore_class=2),
        ),
        (crl_keras.SparseCompetingRatioLoss(0.5, reduction="sum"), {}),
    ]:
        shapes = (None, 1), (None, 3)
        model, found = called(loss, [labels, logits], shapes, **options)
        model.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_allclose(
            to_numpy(again([labels, logits])), found, rtol=1e-6
        )


def test_shapes_that_do_not_fit_are_said_when_the_model_is_built():
    ids, logits = keras.Input((1,), dtype="int32"), keras.Input((3,))
    with pytest.raises(ValueError, match=r"use SparseFocalLoss \(sparse_focal"):
        losses.focal_loss(ids, logits)
    with pytest.raises(ValueError, match=r"use FocalLoss.*"):
        losses.sparse_focal_loss(logits, logits)
    with pytest.raises(ValueError, match=r"y_pred.shape=\(None, 3\)"):
        losses.sparse_focal_loss(keras.Input((2,)), logits)
