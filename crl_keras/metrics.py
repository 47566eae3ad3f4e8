"""Keras metrics for classes that have an order."""

from numbers import Integral

import keras
from keras import ops

from crl_keras.losses._validation import class_axis
from crl_keras.losses._validation import fits
from crl_keras.losses._validation import integer_labels
from crl_keras.losses._validation import static_shape


def _within(y_true, y_pred, k):
    """1 for each sample predicted within `k` classes of its label, or 0."""
    y_true = ops.convert_to_tensor(y_true)
    y_pred = ops.convert_to_tensor(y_pred)
    axis = class_axis(y_pred, -1)
    _refuse_one_hot(y_true, y_pred)
    labels = integer_labels(y_true, y_pred, axis)
    # To the labels' dtype, int64 perhaps: the other way a label of 2**32
    # would become 0.
    predicted = ops.cast(ops.argmax(y_pred, axis=-1), labels.dtype)
    near = ops.abs(predicted - labels) <= k
    # A label that names no class is near none: -1 is not beside 0.
    named = ops.logical_and(labels >= 0, labels < ops.shape(y_pred)[-1])
    return ops.cast(ops.logical_and(near, named), "float32")


def _refuse_one_hot(y_true, y_pred):
    shape = static_shape(y_true)
    # Of an unknown size it may be the 1 of `(N, 1)`.
    if shape and shape[-1] is not None and fits(shape, tuple(y_pred.shape)):
        raise ValueError(
            "`y_true` must hold integer labels, one a sample: of one-hot "
            f"labels take the argmax. Received: y_true.shape={shape}, "
            f"y_pred.shape={tuple(y_pred.shape)}"
        )


@keras.saving.register_keras_serializable(package="crl_keras")
class OneOffAccuracy(keras.metrics.MeanMetricWrapper):
    """Share of the samples predicted within `k` classes of their label.

        (1/N) sum_i [|argmax_j x_ij - y_i| <= k]

    over `N` samples with logits or probabilities `x_i` and labels `y_i`, for
    classes whose numbers follow their order, as age groups do. With sample
    weights `w_i` it is `sum_i w_i [...] / sum_i w_i`. The default, `k=1`, is
    the 1-off accuracy reported for Adience; `k=0` is the accuracy.

    Args:
        k: How many classes off still counts, integer >= 0. Defaults to `1`.
        name: Name of the metric. Defaults to `"one_off_accuracy"`.
        dtype: Dtype of the result. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Integer labels in [0, classes), shape `(N,)` or `(N, 1)`. One
            out of range counts as wrong.
        y_pred: Logits or probabilities, `(N, classes)`, at least 2 classes.
            The predicted class is that of the largest. More axes before the
            classes are allowed, as for Keras's metrics.
        sample_weight: Optional, `(N,)`. A Keras mask of `y_pred` counts too.

    Result:
        A number in [0, 1]; 0 before any sample.

    Raises:
        TypeError: `k` is not an integer.
        ValueError: `k` is negative, or labels do not fit the predictions, as
            one-hot labels do not.

    Example:

    >>> metric = OneOffAccuracy()
    >>> logits = [[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 0, 9], [0, 0, 9, 0]]
    >>> metric.update_state([0, 2, 1, 1], logits)
    >>> round(float(metric.result()), 4)
    0.75

    Source: Eidinger, Enbar and Hassner, IEEE TIFS 9 (2014), 2170-2179, the
    protocol of Adience; the paper, Table X.
    """

    # Keras's metrics cast labels to the dtype of the predictions, which turns
    # class 257 into 256 under bfloat16. Here both are compared as integers.

    def __init__(self, k=1, name="one_off_accuracy", dtype=None):
        if isinstance(k, bool) or not isinstance(k, Integral):
            raise TypeError(
                f"`k` must be an integer >= 0. Received: k={k!r} of type "
                f"{type(k).__name__}"
            )
        if k < 0:
            raise ValueError(f"`k` must be an integer >= 0. Received: k={k}")
        super().__init__(_within, name=name, dtype=dtype, k=int(k))
        self.k = int(k)
        self._direction = "up"

    def get_config(self):
        return {"k": self.k, "name": self.name, "dtype": self.dtype}
