"""The tamed cross-entropy, for one-hot, soft and integer labels."""

from typing import Any

import keras
from keras import ops

from crl_keras.losses import _forms
from crl_keras.losses import _validation
from crl_keras.losses._reduction import DenseLoss
from crl_keras.losses._reduction import SparseLoss


@keras.saving.register_keras_serializable(package="crl_keras")
def tamed_cross_entropy(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 0.8,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Computes the tamed cross-entropy of each sample, one-hot or soft labels.

    With the cross-entropy `ce` between the label and `p = softmax(logits)`:

    ```
    TCE = ((1 + ce) ** (1 - alpha) - 1) / (1 - alpha)
    ```

    and `log(1 + ce)` for `alpha = 1`. For a one-hot label `ce = -log(p_c)`,
    with the probability `p_c` of the correct class. The gradient with respect
    to the logits is the gradient of cross-entropy, `p - y`, times
    `(1 + ce) ** -alpha`. This factor is 1 for a confident sample, and smaller
    for a hard one. It is meant to reduce the effect of wrong labels.

    This is our reading of the paper. We only had its abstract, which describes
    the gradient. The formula and the default are from memory and not verified.
    Do not confuse it with the Taylor cross-entropy, which has the same
    abbreviation, or with the generalised one, `(1 - p_c ** q) / q`.

    Args:
        alpha: Finite number >= 0, by default 0.8 (not verified); 0 is
            cross-entropy, and 1 is `log(1 + ce)`.

    `y_true`, `y_pred`, `from_logits`, `label_smoothing`, `axis`, shapes, dtypes
    and the result are as in `competing_ratio_loss`. The loss is >= 0.

    Raises:
        TypeError, ValueError: As in `competing_ratio_loss`.

    Example:

        >>> loss = tamed_cross_entropy([[0, 1]], [[2.0, 0.5]], from_logits=True)
        >>> print(f"{float(loss[0]):.4f}")
        1.0994

    Reference:
        Martinez and Stiefelhagen, "Taming the Cross Entropy Loss",
        arXiv:1810.05075; our reading. The CRL paper compares with it but gives
        no alpha.
    """
    loss = _tamed(alpha)
    options = from_logits, label_smoothing, axis
    return _forms.dense_losses(
        tamed_cross_entropy, loss, y_true, y_pred, *options
    )


@keras.saving.register_keras_serializable(package="crl_keras")
def sparse_tamed_cross_entropy(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 0.8,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """Computes the tamed cross-entropy of each sample, integer labels.

    With the probability `p_c` of the correct class `c`,
    `p = softmax(logits)`, and `ce = -log(p_c)`:

    ```
    TCE = ((1 + ce) ** (1 - alpha) - 1) / (1 - alpha)
    ```

    `tamed_cross_entropy` gives the same number for the one-hot label. The
    formula and the default are our reading of the paper, not verified.

    Args:
        alpha: Finite number >= 0, as in `tamed_cross_entropy`.

    `y_true`, `y_pred`, `from_logits`, `ignore_class`, `axis`, shapes, dtypes
    and the result are as in `sparse_competing_ratio_loss`.

    Raises:
        TypeError, ValueError: As in `sparse_competing_ratio_loss`.

    Example:

        >>> logits = [[2.0, 0.5]]
        >>> loss = sparse_tamed_cross_entropy([1], logits, from_logits=True)
        >>> print(f"{float(loss[0]):.4f}")
        1.0994

    Reference:
        Martinez and Stiefelhagen, "Taming the Cross Entropy Loss",
        arXiv:1810.05075; our reading. The CRL paper compares with it but gives
        no alpha.
    """
    loss = _tamed(alpha)
    options = from_logits, ignore_class, axis
    return _forms.sparse_losses(
        sparse_tamed_cross_entropy, loss, y_true, y_pred, *options
    )


def _tamed(alpha):
    alpha = _validation.check_at_least_0("alpha", alpha)

    def phi(cross_entropy):
        if alpha == 0:
            return cross_entropy
        log_term = ops.log1p(cross_entropy)
        if alpha == 1:
            return log_term
        # expm1: subtracting 1 from a power would lose small losses, and all
        # digits if alpha is near 1.
        return ops.expm1((1.0 - alpha) * log_term) / (1.0 - alpha)

    return _forms.of_cross_entropy(phi, alpha=alpha)


@keras.saving.register_keras_serializable(package="crl_keras")
class TamedCrossEntropy(DenseLoss):
    """The tamed cross-entropy for one-hot or soft labels.

    With the cross-entropy `ce` between the label of a sample and the softmax of
    its logits:

    ```
    TCE = ((1 + ce) ** (1 - alpha) - 1) / (1 - alpha)
    ```

    This is our reading of the paper, not verified: see `tamed_cross_entropy`.

    Args:
        alpha: Finite number >= 0, by default 0.8 (not verified); 0 is
            cross-entropy, and 1 is `log(1 + ce)`.

    `from_logits`, `label_smoothing`, `axis`, `reduction`, `name`, `dtype` and
    the call are as in `CompetingRatioLoss`.

    Raises:
        TypeError, ValueError: As in `CompetingRatioLoss`.

    Example:

        >>> loss = TamedCrossEntropy(alpha=0.8, from_logits=True)
        >>> y_true = [[1, 0, 0, 0], [0, 0, 1, 0]]
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(loss(y_true, logits)):.4f}")
        1.0231

    Reference:
        Martinez and Stiefelhagen, "Taming the Cross Entropy Loss",
        arXiv:1810.05075; our reading.
    """

    function = staticmethod(tamed_cross_entropy)

    def __init__(
        self,
        alpha: float = 0.8,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "tamed_cross_entropy",
        dtype: Any = None,
    ) -> None:
        loss = _tamed(alpha)
        super().__init__(
            loss, from_logits, label_smoothing, axis, reduction, name, dtype
        )


@keras.saving.register_keras_serializable(package="crl_keras")
class SparseTamedCrossEntropy(SparseLoss):
    """The tamed cross-entropy for integer labels.

    With the probability `p_c` of the correct class and `ce = -log(p_c)`:

    ```
    TCE = ((1 + ce) ** (1 - alpha) - 1) / (1 - alpha)
    ```

    This is our reading of the paper, not verified: see `tamed_cross_entropy`.

    Args:
        alpha: Finite number >= 0, as in `TamedCrossEntropy`.

    `from_logits`, `ignore_class`, `axis`, `reduction`, `name`, `dtype` and the
    call are as in `SparseCompetingRatioLoss`.

    Raises:
        TypeError, ValueError: As in `SparseCompetingRatioLoss`.

    Example:

        >>> loss = SparseTamedCrossEntropy(alpha=0.8, from_logits=True)
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(loss([0, 2], logits)):.4f}")
        1.0231

    Reference:
        Martinez and Stiefelhagen, "Taming the Cross Entropy Loss",
        arXiv:1810.05075; our reading.
    """

    function = staticmethod(sparse_tamed_cross_entropy)

    def __init__(
        self,
        alpha: float = 0.8,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "sparse_tamed_cross_entropy",
        dtype: Any = None,
    ) -> None:
        loss = _tamed(alpha)
        super().__init__(
            loss, from_logits, ignore_class, axis, reduction, name, dtype
        )
