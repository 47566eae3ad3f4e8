"""Controls that separate a loss's longer steps from its sample weighting.

A loss such as CRL changes cross-entropy in two ways at once: its gradients are
longer, and it weighs samples differently. Each control here makes only one of
the two changes. docs/what-crl-does.md derives them and shows what they measure.
"""

from typing import Any

import keras
from keras import ops

from crl_keras.losses._functional import BatchLoss
from crl_keras.losses._reduction import DenseLoss
from crl_keras.losses._reduction import Reduction
from crl_keras.losses._reduction import SparseLoss
from crl_keras.losses.competing_ratio import CompetingRatioLoss
from crl_keras.losses.competing_ratio import SparseCompetingRatioLoss


class _Control(BatchLoss):
    """A loss times a factor from the batch; no gradient goes through it."""

    def __init__(self, loss: Any, name: str) -> None:
        _check_loss(loss)
        super().__init__(name=name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss = loss
        self._cross_entropy = _cross_entropy_like(loss)
        # The ratio of sums is the ratio of means. Sums need more than 16 bits.
        exact = "float64" if loss.dtype == "float64" else "float32"
        self._sum = Reduction(reduction="sum", dtype=exact)

    def step_ratio(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        """L1 gradient norm of `loss` over that of cross-entropy, on this batch.

        Args:
            y_true: Labels, as `loss` takes them.
            y_pred: Logits, as `loss` takes them.
            sample_weight: Weights of the samples, or None.

        Returns:
            A scalar; 1 if the gradient of cross-entropy is 0.
        """
        logits = ops.convert_to_tensor(y_pred, dtype=self.dtype)
        logits = ops.cast(ops.stop_gradient(logits), self._sum.dtype)
        of_loss, of_cross_entropy = (
            self._sum(_pulls(loss, y_true, logits), y_pred, sample_weight)
            for loss in (self.loss, self._cross_entropy)
        )
        has_pull = ops.greater(of_cross_entropy, 0.0)
        ratio = of_loss / ops.where(has_pull, of_cross_entropy, 1.0)
        return ops.stop_gradient(ops.where(has_pull, ratio, 1.0))

    def of_batch(self, y_true, y_pred, sample_weight):
        ratio = self.step_ratio(y_true, y_pred, sample_weight)
        return self._controlled(ratio, y_true, y_pred, sample_weight)

    def _controlled(self, ratio, y_true, y_pred, sample_weight):
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {
            "loss": keras.saving.serialize_keras_object(self.loss),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        loss = keras.saving.deserialize_keras_object(config["loss"])
        return cls(**{**config, "loss": loss})


@keras.saving.register_keras_serializable(package="crl_keras")
class StepMatchedCrossEntropy(_Control):
    """Cross-entropy with the step length of another loss: no new weighting.

    With the logits `x` of a batch, the mean cross-entropy `CE` and the mean
    `L` of `loss`:

    ```
    w       = ||dL/dx||_1 / ||dCE/dx||_1     (no gradient goes through it)
    control = w * CE
    ```

    For a one-hot label, half of a sample's norm is the size of the gradient in
    the logit of the correct class, `1 - p_c` for cross-entropy. If the gradient
    of the loss is the gradient of cross-entropy times `w_i`, as for CRL, the
    factor is

    ```
    w = sum_i w_i * (1 - p_i) / sum_i (1 - p_i)
    ```

    So the control has the gradient norm of `loss` on the logits of the batch,
    and weighs the samples as cross-entropy does. Train with the control and
    with cross-entropy: the difference is the effect of longer steps.

    Args:
        loss: One of this package's losses with `from_logits=True`, such as
            `SparseCompetingRatioLoss(from_logits=True)`. The control takes its
            labels, axis, smoothing, ignored class, reduction and dtype.
        name: Name of the loss.

    Call it like `loss`. The factor is computed from the batch of one call. This
    is the global batch under JAX's distribution, the part of one device under
    `tf.distribute` and PyTorch's DDP, and the part of one call if gradients are
    accumulated. Sample weights must be >= 0.

    Raises:
        TypeError: If `loss` is not one of this package's losses.
        ValueError: If `loss` takes probabilities.

    Example:

        >>> crl = SparseCompetingRatioLoss(from_logits=True)
        >>> loss = StepMatchedCrossEntropy(crl)
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(loss.step_ratio([0, 2], logits)):.4f}")
        1.1032
        >>> print(f"{float(loss([0, 2], logits)):.4f}")
        2.0690

    Reference:
        None. The factor is our own, derived from the gradient of Zhang et al.,
        arXiv:1912.11642, Eq. (11).
    """

    def __init__(
        self, loss: Any, name: str = "step_matched_cross_entropy"
    ) -> None:
        super().__init__(loss, name)

    def _controlled(self, ratio, y_true, y_pred, sample_weight):
        loss = self._cross_entropy(y_true, y_pred, sample_weight)
        return loss * ops.cast(ratio, loss.dtype)


@keras.saving.register_keras_serializable(package="crl_keras")
class StepNormalizedLoss(_Control):
    """Another loss with the step length of cross-entropy: only its weighting.

    With the mean `L` of `loss` over a batch (`StepMatchedCrossEntropy` says
    what `w` is):

    ```
    control = L / w
    ```

    The control has the gradient norm of cross-entropy on the logits of the
    batch, and weighs the samples as `loss` does. Train with the control and
    with cross-entropy: the difference is the effect of the weighting.

    Args:
        loss: As in `StepMatchedCrossEntropy`, and so is the call.
        name: Name of the loss.

    Raises:
        TypeError, ValueError: As in `StepMatchedCrossEntropy`.

    Example:

        >>> crl = SparseCompetingRatioLoss(from_logits=True)
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(StepNormalizedLoss(crl)([0, 2], logits)):.4f}")
        2.3786

    Reference:
        None; see `StepMatchedCrossEntropy`.
    """

    def __init__(self, loss: Any, name: str = "step_normalized_loss") -> None:
        super().__init__(loss, name)

    def _controlled(self, ratio, y_true, y_pred, sample_weight):
        # If only the gradient of `loss` is 0, it stays 0: do not divide by 0.
        ratio = ops.where(ops.greater(ratio, 0.0), ratio, 1.0)
        loss = self.loss(y_true, y_pred, sample_weight)
        return loss / ops.cast(ratio, loss.dtype)


def _check_loss(loss):
    if not isinstance(loss, DenseLoss | SparseLoss):
        raise TypeError(
            "`loss` must be one of the losses of crl_keras.losses, such as "
            "CompetingRatioLoss(from_logits=True). "
            f"Received: loss={loss!r} of type {type(loss).__name__}"
        )
    if not loss.from_logits:
        raise ValueError(
            "`loss` must take logits: the steps are measured on them. End the "
            "model in logits and make the loss with from_logits=True. "
            f"Received: a {type(loss).__name__} with from_logits=False"
        )


def _cross_entropy_like(loss):
    """The cross-entropy that takes the same labels as `loss`."""
    sparse = isinstance(loss, SparseLoss)
    kind = SparseCompetingRatioLoss if sparse else CompetingRatioLoss
    names = ["from_logits", "axis", "reduction", "dtype"]
    names.append("ignore_class" if sparse else "label_smoothing")
    config = loss.get_config()
    return kind(beta=0.0, **{name: config[name] for name in names})


def _pulls(loss, y_true, logits):
    """The L1 norm of the gradient of each sample in its logits."""
    gradient = _gradient(lambda x: ops.sum(loss.call(y_true, x)), logits)
    return ops.sum(ops.absolute(gradient), axis=loss.axis)


def _gradient(function, x):
    """The gradient of a scalar `function`, computed by the backend."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.grad(function)(x)
    if backend == "torch":
        import torch

        return torch.func.grad(function)(x)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x)
