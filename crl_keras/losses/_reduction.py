"""From the losses of samples to the number that is minimised.

`keras.losses.Loss` first casts labels to the dtype of the loss, which turns
class 999 into 1000 under bfloat16. `PerSampleLoss` keeps the labels as they are
and leaves masks, weights and reduction to Keras.
"""

from typing import Any

import keras
from keras import ops

from crl_keras.losses import _validation
from crl_keras.losses._functional import BatchLoss

MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


class Reduction(keras.losses.Loss):
    """Keras's masking, weighting and reduction of losses already computed."""

    def call(self, losses, y_pred):
        return losses


class PerSampleLoss(BatchLoss):
    """Base class of the losses: `call` returns one value per sample.

    A subclass sets `function`, which computes these values. All arguments
    besides Keras's are passed to `function`, kept as attributes, and saved in
    the config. Unlike Keras's base class, this one does not change `y_true`.
    """

    function: Any

    def __init__(self, reduction, name, dtype, **arguments):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._names = tuple(arguments)
        for argument, value in arguments.items():
            setattr(self, argument, value)
        # Sums in 16 bits would overflow over the pixels of one image.
        wide = "float64" if self.dtype == "float64" else "float32"
        self._reduce = Reduction(reduction=reduction, dtype=wide)
        self._each = Reduction(reduction=None, dtype=wide)
        self._config_dtype = None if dtype is None else self.dtype

    def of_batch(self, y_true, y_pred, sample_weight):
        predictions = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        losses = self.call(y_true, predictions)
        kept = self.kept(y_true, predictions)
        if kept is not None and self.reduction in MEANS:
            sample_weight = self._like(losses, sample_weight)
            losses = ops.cast(losses, self._each.dtype)
            losses *= self._share_kept(kept, y_pred, sample_weight)
        elif self._is_plain_mean(losses, y_pred, sample_weight):
            if self.dtype == "float64":
                return losses.mean()  # Keras's gives float32.
            return ops.mean(losses)
        self._reduce.reduction = self.reduction  # It may have changed.
        losses = self._reduce(losses, y_pred, sample_weight)
        return ops.cast(losses, self.dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred, **self._arguments())

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "dtype": self._config_dtype}
        return {**config, **self._arguments()}

    def kept(self, y_true, y_pred):
        """True for samples that count, or None if all samples count."""
        return None

    def _arguments(self):
        return {name: getattr(self, name) for name in self._names}

    def _like(self, losses, sample_weight):
        """Weights in the shape of the losses, if a mean divides by them.

        Keras divides by the sum of the weights before it broadcasts them.
        """
        if sample_weight is None or self.reduction != "mean_with_sample_weight":
            return sample_weight
        weights = self._each(ops.ones_like(losses), losses, sample_weight)
        return ops.reshape(weights, ops.shape(losses))

    def _share_kept(self, kept, y_pred, sample_weight):
        """The factor from Keras's mean over all to the mean over `kept`."""
        if self.reduction != "mean_with_sample_weight":
            sample_weight = None
        kept = ops.cast(kept, self._each.dtype)
        weights = self._each(ops.ones_like(kept), y_pred, sample_weight)
        return ops.divide_no_nan(ops.sum(weights), ops.sum(weights * kept))

    def _is_plain_mean(self, losses, y_pred, sample_weight):
        # PyTorch runs eagerly, and there Keras's general reduction takes longer
        # than the loss of a small batch. TensorFlow must use that reduction (it
        # scales for `tf.distribute`). JAX compiles it away.
        return (
            keras.backend.backend() == "torch"
            and self.reduction in MEANS
            and sample_weight is None
            and getattr(y_pred, "_keras_mask", None) is None
            and 0 not in losses.shape
        )


class FormLoss(PerSampleLoss):
    """Base class of the two forms of a loss.

    `loss` is the `PerSample` of the loss, with checked parameters. `value` is
    the value of `option`, an argument that only this form has.
    """

    option: str

    def __init__(self, loss, from_logits, value, axis, reduction, name, dtype):
        given = {"from_logits": from_logits, self.option: value, "axis": axis}
        options = _validation.check_options(**given)
        super().__init__(reduction, name, dtype, **loss.parameters, **options)


class DenseLoss(FormLoss):
    """Base class of the losses for one-hot or soft labels."""

    option = "label_smoothing"


class SparseLoss(FormLoss):
    """Base class of the losses for integer labels."""

    option = "ignore_class"

    def kept(self, y_true, y_pred):
        if self.ignore_class is None:
            return None
        axis = _validation.class_axis(y_pred, self.axis)
        labels = _validation.integer_labels(y_true, y_pred, axis)
        return ops.not_equal(labels, self.ignore_class)
