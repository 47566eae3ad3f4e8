"""The two forms of every loss: one-hot or soft labels, and integer labels.

Here a loss is a function `(labels, y_pred, axis)` of labels that fit and
predictions in float32 or better. What is the same for all of them, the checks,
smoothing, ignored samples and dtypes, stands around it.
"""

import keras
from keras import ops

from crl_keras.losses import _cross_entropy
from crl_keras.losses import _validation


def dense_losses(function, y_true, y_pred, label_smoothing, axis, twin):
    """`function` of each sample's probabilities as labels.

    `twin` is how an error names the loss for integer labels.
    """
    label_smoothing = _validation.check_label_smoothing(label_smoothing)
    axis = _validation.check_axis(axis)

    y_pred = ops.convert_to_tensor(y_pred)
    y_true = ops.convert_to_tensor(y_true)
    axis = _validation.class_axis(y_pred, axis)
    _validation.check_dense_labels(y_true, y_pred, axis, twin, label_smoothing)
    y_pred, dtype = at_least_float32(y_pred)
    y_true = ops.cast(y_true, y_pred.dtype)
    if label_smoothing:
        classes = y_pred.shape[axis]
        if classes is None:
            classes = ops.cast(ops.shape(y_pred)[axis], y_pred.dtype)
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / classes
    return ops.cast(_of_any(function, y_true, y_pred, axis), dtype)


def sparse_losses(function, y_true, y_pred, ignore_class, axis, twin):
    """`function` of each sample's class id; 0 where it is `ignore_class`.

    `twin` is how an error names the loss for one-hot labels, or None.
    """
    ignore_class = _validation.check_ignore_class(ignore_class)
    axis = _validation.check_axis(axis)

    y_pred = ops.convert_to_tensor(y_pred)
    axis = _validation.class_axis(y_pred, axis)
    labels = _validation.integer_labels(y_true, y_pred, axis, twin)
    y_pred, dtype = at_least_float32(y_pred)
    if ignore_class is not None:
        ignored = ops.equal(labels, ignore_class)
        labels = ops.where(ignored, 0, labels)
        # Not only the loss: an infinite logit would make 0 * inf = NaN of the
        # gradient.
        y_pred = ops.where(ops.expand_dims(ignored, axis), 0.5, y_pred)
    losses = _of_any(function, labels, y_pred, axis)
    if ignore_class is not None:
        losses = ops.where(ignored, 0.0, losses)
    return ops.cast(losses, dtype)


def dense_cross_entropies(phi, from_logits):
    """The function of `dense_losses` that is `phi` of the cross-entropy."""

    def function(y_true, y_pred, axis):
        return phi(
            _cross_entropy.dense_cross_entropy(
                y_true, y_pred, from_logits, axis
            )
        )

    return function


def sparse_cross_entropies(phi, from_logits):
    """The function of `sparse_losses` that is `phi` of the cross-entropy."""

    def function(labels, y_pred, axis):
        return phi(
            _cross_entropy.sparse_cross_entropy(
                labels, y_pred, from_logits, axis
            )
        )

    return function


def at_least_float32(x):
    """`x` as it is computed with, and the dtype that the result has."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    if not keras.backend.is_float_dtype(dtype):
        dtype = "float32"
    return ops.cast(x, "float64" if dtype == "float64" else "float32"), dtype


def _of_any(function, y_true, y_pred, axis):
    """`function`, of an empty batch too, whose maximum no backend knows."""
    if 0 in y_pred.shape:
        return ops.sum(y_pred, axis=axis)
    return function(y_true, y_pred, axis)
