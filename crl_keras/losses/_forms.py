"""The two forms of every loss: one-hot or soft labels, and integer labels.

A loss defines in a `PerSample` what it computes from checked labels and
predictions in float32 or better. The functions here add what all losses share:
checks, smoothing, ignored samples, dtypes and Keras tensors.
"""

import keras
from keras import ops

from crl_keras.losses import _cross_entropy
from crl_keras.losses import _validation
from crl_keras.losses._functional import LossOperation
from crl_keras.losses._functional import has_keras_tensors


class PerSample:
    """What a loss computes for each sample, and its checked parameters.

    `dense` and `sparse` are functions `(labels, y_pred, from_logits, axis)`.
    """

    def __init__(self, dense, sparse, **parameters):
        self.dense = dense
        self.sparse = sparse
        self.parameters = parameters


def of_cross_entropy(phi, **parameters):
    """The `PerSample` of a loss that is `phi` of the cross-entropy."""

    def dense(y_true, y_pred, from_logits, axis):
        return phi(
            _cross_entropy.dense_cross_entropy(
                y_true, y_pred, from_logits, axis
            )
        )

    def sparse(labels, y_pred, from_logits, axis):
        return phi(
            _cross_entropy.sparse_cross_entropy(
                labels, y_pred, from_logits, axis
            )
        )

    return PerSample(dense, sparse, **parameters)


def dense_losses(
    function, loss, y_true, y_pred, from_logits, label_smoothing, axis
):
    """The losses of samples with probabilities as labels.

    `loss` is a `PerSample`, and `function` the public function that calls this.
    """
    options = _validation.check_options(
        from_logits=from_logits, label_smoothing=label_smoothing, axis=axis
    )
    y_true, y_pred, axis = _tensors(y_true, y_pred, options["axis"])
    label_smoothing = options["label_smoothing"]
    _validation.check_dense_labels(
        y_true, y_pred, axis, function, label_smoothing
    )
    if has_keras_tensors(y_true, y_pred):
        options |= loss.parameters
        return LossOperation(function)(y_true, y_pred, **options)

    y_pred, dtype = at_least_float32(y_pred)
    y_true = ops.cast(y_true, y_pred.dtype)
    if label_smoothing:
        classes = y_pred.shape[axis]
        if classes is None:
            classes = ops.cast(ops.shape(y_pred)[axis], y_pred.dtype)
        y_true = y_true * (1.0 - label_smoothing) + label_smoothing / classes
    losses = _of_any(loss.dense, y_true, y_pred, from_logits, axis)
    return ops.cast(losses, dtype)


def sparse_losses(
    function, loss, y_true, y_pred, from_logits, ignore_class, axis
):
    """The losses of samples with a class id; 0 for `ignore_class`.

    `loss` is a `PerSample`, and `function` the public function that calls this.
    """
    options = _validation.check_options(
        from_logits=from_logits, ignore_class=ignore_class, axis=axis
    )
    y_true, y_pred, axis = _tensors(y_true, y_pred, options["axis"])
    _validation.check_sparse_labels(y_true, y_pred, axis, function)
    if has_keras_tensors(y_true, y_pred):
        options |= loss.parameters
        return LossOperation(function)(y_true, y_pred, **options)

    labels = _validation.integer_labels(y_true, y_pred, axis)
    y_pred, dtype = at_least_float32(y_pred)
    ignore_class = options["ignore_class"]
    if ignore_class is not None:
        ignored = ops.equal(labels, ignore_class)
        labels = ops.where(ignored, 0, labels)
        # Setting only the loss to 0 is not enough: with an infinite logit the
        # gradient would be 0 * inf = NaN.
        y_pred = ops.where(ops.expand_dims(ignored, axis), 0.5, y_pred)
    losses = _of_any(loss.sparse, labels, y_pred, from_logits, axis)
    if ignore_class is not None:
        losses = ops.where(ignored, 0.0, losses)
    return ops.cast(losses, dtype)


def at_least_float32(x):
    """`x` in the dtype for computing, and the dtype of the result."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    if not keras.backend.is_float_dtype(dtype):
        dtype = "float32"
    return ops.cast(x, "float64" if dtype == "float64" else "float32"), dtype


def _tensors(y_true, y_pred, axis):
    """Both as tensors, and the axis counted from the front."""
    y_true, y_pred = (
        x if has_keras_tensors(x) else ops.convert_to_tensor(x)
        for x in (y_true, y_pred)
    )
    return y_true, y_pred, _validation.class_axis(y_pred, axis)


def _of_any(function, labels, y_pred, from_logits, axis):
    """Calls `function`, except for an empty batch, which has no maximum."""
    if 0 in y_pred.shape:
        return ops.sum(y_pred, axis=axis)
    return function(labels, y_pred, from_logits, axis)
