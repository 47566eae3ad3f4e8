"""The focal loss, for one-hot, soft and integer labels."""

from typing import Any

import keras
from keras import ops

from crl_keras.losses import _forms
from crl_keras.losses import _validation
from crl_keras.losses._reduction import DenseLoss
from crl_keras.losses._reduction import SparseLoss


@keras.saving.register_keras_serializable(package="crl_keras")
def focal_loss(
    y_true: Any,
    y_pred: Any,
    *,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Computes the focal loss of each sample, one-hot or soft labels.

    With the cross-entropy `ce` between the label and `p = softmax(logits)`:

    ```
    FL = (1 - exp(-ce)) ** gamma * ce
    ```

    For a one-hot label `exp(-ce)` is `p_c`, the probability of the correct
    class, and this is `-(1 - p_c) ** gamma * log(p_c)`. The gradient with
    respect to the logits is the gradient of cross-entropy, `p - y`, times
    `(1 - e) ** (gamma - 1) * (1 - e + gamma * e * ce)` with `e = exp(-ce)`:
    confident samples weigh less than under cross-entropy.

    For hard labels this loss equals
    `keras.losses.CategoricalFocalCrossentropy(alpha=1)` without its clip. The
    clip removes the gradient of hard samples, `p_c < 1e-7`. For soft labels
    Keras weighs each class separately,
    `-sum_k y_k * (1 - p_k) ** gamma * log(p_k)`. Keras's loss is not lowest at
    `p = y`; this loss is.

    There is no class weight `alpha`, because a scalar only rescales the loss.

    Args:
        gamma: Finite number >= 0, by default 2 as in the paper on focal loss;
            0 is cross-entropy.

    `y_true`, `y_pred`, `from_logits`, `label_smoothing`, `axis`, shapes, dtypes
    and the result are as in `competing_ratio_loss`. The loss is >= 0.

    Raises:
        TypeError, ValueError: As in `competing_ratio_loss`.

    Example:

        >>> loss = focal_loss([[0, 1]], [[2.0, 0.5]], from_logits=True)
        >>> print(f"{float(loss[0]):.4f}")
        1.1373

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002,
        in its form for several classes. The CRL paper compares with it but
        gives no gamma: 2 is our choice.
    """
    loss = _focal(gamma)
    options = from_logits, label_smoothing, axis
    return _forms.dense_losses(focal_loss, loss, y_true, y_pred, *options)


@keras.saving.register_keras_serializable(package="crl_keras")
def sparse_focal_loss(
    y_true: Any,
    y_pred: Any,
    *,
    gamma: float = 2.0,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """Computes the focal loss of each sample, integer labels.

    With the probability `p_c` of the correct class `c`,
    `p = softmax(logits)`:

    ```
    FL = -(1 - p_c) ** gamma * log(p_c)
    ```

    `focal_loss` gives the same number for the one-hot label.

    Args:
        gamma: Finite number >= 0, as in `focal_loss`.

    `y_true`, `y_pred`, `from_logits`, `ignore_class`, `axis`, shapes, dtypes
    and the result are as in `sparse_competing_ratio_loss`.

    Raises:
        TypeError, ValueError: As in `sparse_competing_ratio_loss`.

    Example:

        >>> loss = sparse_focal_loss([1], [[2.0, 0.5]], from_logits=True)
        >>> print(f"{float(loss[0]):.4f}")
        1.1373

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002.
    """
    loss = _focal(gamma)
    options = from_logits, ignore_class, axis
    return _forms.sparse_losses(
        sparse_focal_loss, loss, y_true, y_pred, *options
    )


def _focal(gamma):
    gamma = _validation.check_at_least_0("gamma", gamma)

    def phi(cross_entropy):
        if gamma == 0:
            return cross_entropy
        # A power below 1 has no derivative at 0, which confident samples reach.
        competing = ops.maximum(-ops.expm1(-cross_entropy), 1e-30)
        return ops.power(competing, gamma) * cross_entropy

    return _forms.of_cross_entropy(phi, gamma=gamma)


@keras.saving.register_keras_serializable(package="crl_keras")
class FocalLoss(DenseLoss):
    """The focal loss for one-hot or soft labels.

    With the cross-entropy `ce` between the label of a sample and the softmax of
    its logits:

    ```
    FL = (1 - exp(-ce)) ** gamma * ce
    ```

    For a one-hot label `exp(-ce)` is the probability of the correct class. See
    `focal_loss` for the gradient and the difference from Keras's own.

    Args:
        gamma: Finite number >= 0, by default 2 as in the paper on focal loss;
            0 is cross-entropy.

    `from_logits`, `label_smoothing`, `axis`, `reduction`, `name`, `dtype` and
    the call are as in `CompetingRatioLoss`.

    Raises:
        TypeError, ValueError: As in `CompetingRatioLoss`.

    Example:

        >>> loss = FocalLoss(gamma=2, from_logits=True)
        >>> y_true = [[1, 0, 0, 0], [0, 0, 1, 0]]
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(loss(y_true, logits)):.4f}")
        1.5926

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002.
    """

    function = staticmethod(focal_loss)

    def __init__(
        self,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "focal_loss",
        dtype: Any = None,
    ) -> None:
        loss = _focal(gamma)
        super().__init__(
            loss, from_logits, label_smoothing, axis, reduction, name, dtype
        )


@keras.saving.register_keras_serializable(package="crl_keras")
class SparseFocalLoss(SparseLoss):
    """The focal loss for integer labels.

    With the probability `p_c` of the correct class:

    ```
    FL = -(1 - p_c) ** gamma * log(p_c)
    ```

    Args:
        gamma: Finite number >= 0, as in `FocalLoss`.

    `from_logits`, `ignore_class`, `axis`, `reduction`, `name`, `dtype` and the
    call are as in `SparseCompetingRatioLoss`.

    Raises:
        TypeError, ValueError: As in `SparseCompetingRatioLoss`.

    Example:

        >>> loss = SparseFocalLoss(gamma=2, from_logits=True)
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(loss([0, 2], logits)):.4f}")
        1.5926

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", arXiv:1708.02002.
    """

    function = staticmethod(sparse_focal_loss)

    def __init__(
        self,
        gamma: float = 2.0,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "sparse_focal_loss",
        dtype: Any = None,
    ) -> None:
        loss = _focal(gamma)
        super().__init__(
            loss, from_logits, ignore_class, axis, reduction, name, dtype
        )
