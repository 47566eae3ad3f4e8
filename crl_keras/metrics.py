"""Keras metrics for ordered classes."""

from numbers import Integral
from typing import Any

import keras
from keras import ops

from crl_keras.losses._validation import class_axis
from crl_keras.losses._validation import fits
from crl_keras.losses._validation import integer_labels
from crl_keras.losses._validation import static_shape

__all__ = ["OneOffAccuracy"]


def _within(y_true, y_pred, k):
    """1 for each sample predicted within `k` classes of its label, else 0."""
    y_true = ops.convert_to_tensor(y_true)
    y_pred = ops.convert_to_tensor(y_pred)
    axis = class_axis(y_pred, -1)
    _refuse_one_hot(y_true, y_pred)
    labels = integer_labels(y_true, y_pred, axis)
    # Cast to the labels' dtype, which may be int64. Casting the labels instead
    # would turn a label of 2**32 into 0.
    predicted = ops.cast(ops.argmax(y_pred, axis=-1), labels.dtype)
    near = ops.abs(predicted - labels) <= k
    # A label that is not a class id is near no class: -1 is not next to 0.
    named = ops.logical_and(labels >= 0, labels < ops.shape(y_pred)[-1])
    return ops.cast(ops.logical_and(near, named), "float32")


def _refuse_one_hot(y_true, y_pred):
    shape = static_shape(y_true)
    # An unknown last size may be the 1 of `(N, 1)`.
    if shape and shape[-1] is not None and fits(shape, tuple(y_pred.shape)):
        raise ValueError(
            "`y_true` must hold one integer label per sample. If your labels "
            f"are one-hot, pass their argmax. Received: y_true.shape={shape}, "
            f"y_pred.shape={tuple(y_pred.shape)}"
        )


@keras.saving.register_keras_serializable(package="crl_keras")
class OneOffAccuracy(keras.metrics.MeanMetricWrapper):
    """Computes the share of samples predicted within `k` classes of the label.

        (1/N) sum_i [|argmax_j x_ij - y_i| <= k]

    `N` is the number of samples, `x_i` are the logits or probabilities of
    sample `i`, and `y_i` is its label. With sample weights `w_i` the metric is
    `sum_i w_i [...] / sum_i w_i`. Use it for classes whose numbers follow an
    order, such as age groups. The default, `k=1`, is the 1-off accuracy
    reported for Adience; `k=0` is plain accuracy.

    Args:
        k: Largest distance in classes that still counts as correct, integer
            >= 0. Defaults to `1`.
        name: Name of the metric. Defaults to `"one_off_accuracy"`.
        dtype: Dtype of the result. Defaults to `None`, which means
            `keras.config.floatx()`.

    Call arguments:
        y_true: Integer labels in [0, classes), shape `(N,)` or `(N, 1)`. A
            label out of this range counts as wrong.
        y_pred: Logits or probabilities, `(N, classes)`, at least 2 classes. The
            class with the largest value is predicted. More axes before the
            classes are allowed, as in Keras's metrics.
        sample_weight: Optional, `(N,)`. A Keras mask of `y_pred` applies too.

    Result:
        A number in [0, 1]; 0 before the first sample.

    Raises:
        TypeError: If `k` is not an integer.
        ValueError: If `k` is negative, or the labels do not fit the
            predictions, for example because they are one-hot.

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

    def __init__(
        self, k: int = 1, name: str = "one_off_accuracy", dtype: Any = None
    ) -> None:
        if isinstance(k, bool) or not isinstance(k, (int, Integral)):
            raise TypeError(
                f"`k` must be an integer >= 0. Received: k={k!r} of type "
                f"{type(k).__name__}"
            )
        if k < 0:
            raise ValueError(f"`k` must be an integer >= 0. Received: k={k}")
        super().__init__(_within, name=name, dtype=dtype, k=int(k))
        self.k = int(k)
        self._direction = "up"

    def get_config(self) -> dict[str, Any]:
        return {"k": self.k, "name": self.name, "dtype": self.dtype}
