"""What stands between the losses of samples and the number that is minimised.

`keras.losses.Loss` casts labels to the dtype of the loss before anything looks
at them, which turns class 999 into 1000 under bfloat16. `PerSampleLoss` keeps
the labels as they are and leaves masks, weights and reduction to Keras.
"""

from typing import Any

import keras
from keras import ops

from crl_keras.losses import _validation

MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class Reduction(keras.losses.Loss):
    """Keras's masking, weighting and reduction of losses already computed."""

    def call(self, losses, y_pred):
        return losses


class PerSampleLoss(keras.losses.Loss):
    """Base of the losses: `call` returns one value a sample.

    Unlike the base class of Keras it hands `y_true` to `call` unchanged.
    Subclasses with an `ignore_class` override `kept`.
    """

    def __init__(self, reduction, name, dtype):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        # Sums in 16 bits would overflow over the pixels of one image.
        wide = "float64" if self.dtype == "float64" else "float32"
        self._reduce = Reduction(reduction=reduction, dtype=wide)
        self._each = Reduction(reduction=None, dtype=wide)
        self._config_dtype = None if dtype is None else self.dtype

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        with keras.name_scope(self.name):
            predictions = ops.convert_to_tensor(y_pred, dtype=self.dtype)
            losses = self.call(y_true, predictions)
            kept = self.kept(y_true, predictions)
            if kept is not None and self.reduction in MEANS:
                sample_weight = self._like(losses, sample_weight)
                losses = ops.cast(losses, self._each.dtype)
                losses *= self._share_kept(kept, y_pred, sample_weight)
            elif self._is_plain_mean(losses, y_pred, sample_weight):
                if self.dtype == "float64":
                    return losses.mean()  # Keras's is of float32.
                return ops.mean(losses)
            self._reduce.reduction = self.reduction  # As set by now.
            losses = self._reduce(losses, y_pred, sample_weight)
            return ops.cast(losses, self.dtype)

    def kept(self, y_true, y_pred):
        """True where a sample counts, or None where all do."""
        return None

    def _like(self, losses, sample_weight):
        """Weights in the shape of the losses, where a mean divides by them.

        Keras divides by their sum before they are broadcast.
        """
        if sample_weight is None or self.reduction != "mean_with_sample_weight":
            return sample_weight
        weights = self._each(ops.ones_like(losses), losses, sample_weight)
        return ops.reshape(weights, ops.shape(losses))

    def _share_kept(self, kept, y_pred, sample_weight):
        """The factor from Keras's mean over all to the mean over the kept."""
        if self.reduction != "mean_with_sample_weight":
            sample_weight = None
        kept = ops.cast(kept, self._each.dtype)
        weights = self._each(ops.ones_like(kept), y_pred, sample_weight)
        return ops.divide_no_nan(ops.sum(weights), ops.sum(weights * kept))

    def _is_plain_mean(self, losses, y_pred, sample_weight):
        # PyTorch runs eagerly, and there Keras's general reduction takes
        # longer than the loss of a small batch. TensorFlow must go through it
        # (it scales for `tf.distribute`), under JAX it is compiled away.
        return (
            keras.backend.backend() == "torch"
            and self.reduction in MEANS
            and sample_weight is None
            and getattr(y_pred, "_keras_mask", None) is None
            and 0 not in losses.shape
        )

    def get_config(self):
        return {**super().get_config(), "dtype": self._config_dtype}


class DenseLoss(PerSampleLoss):
    """Base of the losses for one-hot or soft labels."""

    def __init__(
        self, from_logits, label_smoothing, axis, reduction, name, dtype
    ):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.from_logits = _validation.check_from_logits(from_logits)
        self.label_smoothing = _validation.check_label_smoothing(
            label_smoothing
        )
        self.axis = _validation.check_axis(axis)

    def options(self):
        """What `call` hands to the function of the loss."""
        return {
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "axis": self.axis,
        }

    def get_config(self):
        return {**super().get_config(), **self.options()}


class SparseLoss(PerSampleLoss):
    """Base of the losses for integer labels."""

    def __init__(self, from_logits, ignore_class, axis, reduction, name, dtype):
        super().__init__(reduction=reduction, name=name, dtype=dtype)
        self.from_logits = _validation.check_from_logits(from_logits)
        self.ignore_class = _validation.check_ignore_class(ignore_class)
        self.axis = _validation.check_axis(axis)

    def options(self):
        """What `call` hands to the function of the loss."""
        return {
            "from_logits": self.from_logits,
            "ignore_class": self.ignore_class,
            "axis": self.axis,
        }

    def kept(self, y_true, y_pred):
        if self.ignore_class is None:
            return None
        axis = _validation.class_axis(y_pred, self.axis)
        labels = _validation.integer_labels(y_true, y_pred, axis)
        return ops.not_equal(labels, self.ignore_class)

    def get_config(self):
        return {**super().get_config(), **self.options()}
