"""The dual cross-entropy, for one-hot, soft and integer labels."""

import math
from typing import Any

import keras
from keras import ops

from crl_keras.losses import _cross_entropy
from crl_keras.losses import _forms
from crl_keras.losses import _validation
from crl_keras.losses._reduction import DenseLoss
from crl_keras.losses._reduction import SparseLoss


@keras.saving.register_keras_serializable(package="crl_keras")
def dual_cross_entropy(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 1.0,
    beta: float = 4.5,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Computes the dual cross-entropy of each sample, one-hot or soft labels.

    With the probabilities `p = softmax(logits)` and the label `y`:

    ```
    DCE = -sum_k y_k * log(p_k) + beta * sum_k (1 - y_k) * log(alpha + p_k)
    ```

    For a one-hot label of class `c` the second sum is over the classes that
    compete with it. The gradient with respect to the logits is
    `p - y + beta * (w - p * sum(w))` with
    `w_k = (1 - y_k) * p_k / (alpha + p_k)`. If the competing classes have
    little probability, it is about `-(1 - p_c) * (1 + beta / alpha)` in the
    logit of class `c`.

    The competing ratio loss takes the logarithm of the *sum* of the competing
    probabilities. This loss takes the sum of their logarithms. For two classes
    and hard labels both losses are the same. For a soft label this loss is not
    lowest at `p = y`.

    We did not have the text of the paper. The formula and the defaults are from
    a public implementation, and not verified otherwise.

    Args:
        alpha: Finite number > 0, by default 1 (not verified).
        beta: Finite number >= 0, by default 4.5 (not verified); 0 is
            cross-entropy.

    `y_true`, `y_pred`, `from_logits`, `label_smoothing`, `axis`, shapes, dtypes
    and the result are as in `competing_ratio_loss`.

    Raises:
        TypeError, ValueError: As in `competing_ratio_loss`.

    Example:

        >>> loss = dual_cross_entropy([[0, 1]], [[2.0, 0.5]], from_logits=True)
        >>> print(f"{float(loss[0]):.4f}")
        4.3902

    Reference:
        Li et al., "Dual Cross-Entropy Loss for Small-Sample Fine-Grained
        Vehicle Classification", IEEE Transactions on Vehicular Technology
        68(5), 2019. The CRL paper compares with it but gives no alpha and beta.
    """
    loss = _dual(alpha, beta)
    options = from_logits, label_smoothing, axis
    return _forms.dense_losses(
        dual_cross_entropy, loss, y_true, y_pred, *options
    )


@keras.saving.register_keras_serializable(package="crl_keras")
def sparse_dual_cross_entropy(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 1.0,
    beta: float = 4.5,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """Computes the dual cross-entropy of each sample, integer labels.

    With the probabilities `p = softmax(logits)` and the correct class `c`:

    ```
    DCE = -log(p_c) + beta * sum_{k != c} log(alpha + p_k)
    ```

    `dual_cross_entropy` gives the same number for the one-hot label. We did not
    verify the formula and the defaults in the paper itself.

    Args:
        alpha: Finite number > 0, as in `dual_cross_entropy`.
        beta: Finite number >= 0, as in `dual_cross_entropy`.

    `y_true`, `y_pred`, `from_logits`, `ignore_class`, `axis`, shapes, dtypes
    and the result are as in `sparse_competing_ratio_loss`.

    Raises:
        TypeError, ValueError: As in `sparse_competing_ratio_loss`.

    Example:

        >>> logits = [[2.0, 0.5]]
        >>> loss = sparse_dual_cross_entropy([1], logits, from_logits=True)
        >>> print(f"{float(loss[0]):.4f}")
        4.3902

    Reference:
        Li et al., "Dual Cross-Entropy Loss for Small-Sample Fine-Grained
        Vehicle Classification", IEEE Transactions on Vehicular Technology
        68(5), 2019. The CRL paper compares with it but gives no alpha and beta.
    """
    loss = _dual(alpha, beta)
    options = from_logits, ignore_class, axis
    return _forms.sparse_losses(
        sparse_dual_cross_entropy, loss, y_true, y_pred, *options
    )


def _dual(alpha, beta):
    alpha = _validation.check_number("alpha", alpha, "a finite number > 0")
    if alpha <= 0:
        raise ValueError(f"`alpha` must be > 0. Received: alpha={alpha}")
    beta = _validation.check_at_least_0("beta", beta)

    def log_terms(y_pred, from_logits, axis):
        """`log(alpha + p_k)` of each class."""
        p = _cross_entropy.probabilities(y_pred, from_logits, axis)
        return math.log(alpha) + ops.log1p(p / alpha)

    def dense(y_true, y_pred, from_logits, axis):
        cross_entropy = _cross_entropy.dense_cross_entropy(
            y_true, y_pred, from_logits, axis
        )
        rest = (1.0 - y_true) * log_terms(y_pred, from_logits, axis)
        return cross_entropy + beta * ops.sum(rest, axis=axis)

    def sparse(labels, y_pred, from_logits, axis):
        cross_entropy = _cross_entropy.sparse_cross_entropy(
            labels, y_pred, from_logits, axis
        )
        is_label = _cross_entropy.one_hot(labels, y_pred, axis)
        terms = log_terms(y_pred, from_logits, axis)
        rest = ops.where(is_label, 0.0, terms)
        return cross_entropy + beta * ops.sum(rest, axis=axis)

    return _forms.PerSample(dense, sparse, alpha=alpha, beta=beta)


@keras.saving.register_keras_serializable(package="crl_keras")
class DualCrossEntropy(DenseLoss):
    """The dual cross-entropy for one-hot or soft labels.

    With the label `y` and the softmax `p` of the logits of a sample:

    ```
    DCE = -sum_k y_k * log(p_k) + beta * sum_k (1 - y_k) * log(alpha + p_k)
    ```

    See `dual_cross_entropy` for the gradient and for what is not verified.

    Args:
        alpha: Finite number > 0, by default 1 (not verified).
        beta: Finite number >= 0, by default 4.5 (not verified); 0 is
            cross-entropy.

    `from_logits`, `label_smoothing`, `axis`, `reduction`, `name`, `dtype` and
    the call are as in `CompetingRatioLoss`.

    Raises:
        TypeError, ValueError: As in `CompetingRatioLoss`.

    Example:

        >>> loss = DualCrossEntropy(alpha=1, beta=4.5, from_logits=True)
        >>> y_true = [[1, 0, 0, 0], [0, 0, 1, 0]]
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(loss(y_true, logits)):.4f}")
        4.3016

    Reference:
        Li et al., "Dual Cross-Entropy Loss for Small-Sample Fine-Grained
        Vehicle Classification", IEEE Transactions on Vehicular Technology
        68(5), 2019.
    """

    function = staticmethod(dual_cross_entropy)

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 4.5,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "dual_cross_entropy",
        dtype: Any = None,
    ) -> None:
        loss = _dual(alpha, beta)
        super().__init__(
            loss, from_logits, label_smoothing, axis, reduction, name, dtype
        )


@keras.saving.register_keras_serializable(package="crl_keras")
class SparseDualCrossEntropy(SparseLoss):
    """The dual cross-entropy for integer labels.

    With the softmax `p` of the logits of a sample and its class `c`:

    ```
    DCE = -log(p_c) + beta * sum_{k != c} log(alpha + p_k)
    ```

    See `dual_cross_entropy` for the gradient and for what is not verified.

    Args:
        alpha: Finite number > 0, as in `DualCrossEntropy`.
        beta: Finite number >= 0, as in `DualCrossEntropy`.

    `from_logits`, `ignore_class`, `axis`, `reduction`, `name`, `dtype` and the
    call are as in `SparseCompetingRatioLoss`.

    Raises:
        TypeError, ValueError: As in `SparseCompetingRatioLoss`.

    Example:

        >>> loss = SparseDualCrossEntropy(alpha=1, beta=4.5, from_logits=True)
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(loss([0, 2], logits)):.4f}")
        4.3016

    Reference:
        Li et al., "Dual Cross-Entropy Loss for Small-Sample Fine-Grained
        Vehicle Classification", IEEE Transactions on Vehicular Technology
        68(5), 2019.
    """

    function = staticmethod(sparse_dual_cross_entropy)

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 4.5,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "sparse_dual_cross_entropy",
        dtype: Any = None,
    ) -> None:
        loss = _dual(alpha, beta)
        super().__init__(
            loss, from_logits, ignore_class, axis, reduction, name, dtype
        )
