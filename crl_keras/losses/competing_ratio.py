"""The Competing Ratio Loss, for one-hot, soft and integer labels."""

import math
from typing import Any

import keras
from keras import ops

from crl_keras.losses import _cross_entropy
from crl_keras.losses import _forms
from crl_keras.losses import _validation
from crl_keras.losses._reduction import DenseLoss
from crl_keras.losses._reduction import SparseLoss

# For a smaller alpha, `alpha + 1 - p` is computed from the margin. For a
# confident sample float32 holds 1 - p only to 6e-8, and the logarithm would
# magnify this error.
SMALL_ALPHA = 0.1


@keras.saving.register_keras_serializable(package="crl_keras")
def competing_ratio_loss(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 1.5,
    beta: float = 1.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Computes the Competing Ratio Loss of each sample, one-hot or soft labels.

    With the probabilities `p = softmax(logits)`:

    ```
    ce  = -sum_k y_k * log(p_k)
    CRL = ce + beta * log(alpha + 1 - exp(-ce))
    ```

    For a one-hot label `exp(-ce)` is `p_c`, the probability of the correct
    class, and `alpha + 1 - p_c` is `alpha` plus the probability of all classes
    that compete with it. The gradient with respect to the logits is the
    gradient of cross-entropy, `p - y`, times `1 + beta * e / (alpha + 1 - e)`
    with `e = exp(-ce)`. `beta=0` is Keras's cross-entropy, and
    `alpha=0, beta=1` is the negative log likelihood ratio (NLLR).

    Args:
        y_true: One-hot or soft labels with the shape of `y_pred`; float,
            integer or bool. Each label must sum to 1 along `axis`. The loss
            does not check this. If rows of zeros mark padding, give them a
            `sample_weight` of 0.
        y_pred: Logits or probabilities, `(..., classes)`, or with the classes
            along `axis`; at least 2 classes. For 16-bit floats the loss is
            computed in float32.
        alpha: Finite number >= 0, by default 1.5 as in the paper. For
            `alpha >= 1` and `beta >= 0`, the loss of a one-hot label is >= 0.
            For `alpha=0` it has no lower bound.
        beta: Finite number, `alpha + beta >= 0`, by default 1 as in the paper.
            If positive, confident samples weigh more than under cross-entropy.
            If negative, they weigh less.
        from_logits: Whether `y_pred` holds logits. Prefer logits. Probabilities
            are renormalised and clipped to `[epsilon, 1 - epsilon]` as in Keras
            (`keras.config.epsilon()`, 1e-7). Samples outside this range have no
            gradient, unless Keras on TensorFlow finds the softmax that made
            them.
        label_smoothing: Number in [0, 1], by default 0. The labels become
            `y * (1 - label_smoothing) + label_smoothing / classes`.
        axis: The axis of the classes, by default the last.

    Returns:
        The loss of each sample, the shape of `y_pred` without `axis`, in the
        dtype of `y_pred`; natural logarithm.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range, or the shapes do not match. For integer labels use
            `sparse_competing_ratio_loss`.

    Example:

        >>> y_true = [[1, 0, 0, 0], [0, 0, 1, 0]]
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> loss = competing_ratio_loss(y_true, logits, from_logits=True)
        >>> print(keras.ops.convert_to_numpy(loss).round(4))
        [0.9704 4.2779]

    Reference:
        Zhang et al., "Competing Ratio Loss for Discriminative Multi-class
        Image Classification", arXiv:1912.11642, Eq. (11). Its Eq. (14), the
        gradient, has a sign error: see docs/paper-errata.md.
    """
    loss = _competing_ratio(alpha, beta)
    options = from_logits, label_smoothing, axis
    return _forms.dense_losses(
        competing_ratio_loss, loss, y_true, y_pred, *options
    )


@keras.saving.register_keras_serializable(package="crl_keras")
def sparse_competing_ratio_loss(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 1.5,
    beta: float = 1.0,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """Computes the Competing Ratio Loss of each sample, integer labels.

    With the probability `p_c` of the correct class `c`,
    `p = softmax(logits)`:

    ```
    CRL = -log(p_c) + beta * log(alpha + 1 - p_c)
    ```

    `competing_ratio_loss` gives the same number for the one-hot label.

    Args:
        y_true: Class ids 0 to classes - 1, shaped like `y_pred` with the class
            axis removed or set to 1: `(N,)` or `(N, 1)` for `(N, classes)`. Any
            integer dtype, or floats that hold integers. A label that is not a
            class id gives NaN, or an exception if the backend's kernel raises
            one.
        y_pred: Logits or probabilities, `(..., classes)`, or with the classes
            along `axis`; at least 2 classes. For 16-bit floats the loss is
            computed in float32.
        alpha: Finite number >= 0, by default 1.5 as in the paper.
        beta: Finite number, `alpha + beta >= 0`, by default 1 as in the paper.
        from_logits: Whether `y_pred` holds logits. Prefer logits: see
            `competing_ratio_loss`.
        ignore_class: Integer or None (default). Samples with this label have
            loss 0 and gradient 0 for every prediction. It can be any integer,
            also outside the class ids; -1 and 255 are common.
        axis: The axis of the classes, by default the last.

    Returns:
        The loss of each sample, the shape of `y_pred` without `axis`, in the
        dtype of `y_pred`; natural logarithm.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range, or the shapes do not match.

    Example:

        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> loss = sparse_competing_ratio_loss([0, 2], logits, from_logits=True)
        >>> print(keras.ops.convert_to_numpy(loss).round(4))
        [0.9704 4.2779]

    Reference:
        Zhang et al., arXiv:1912.11642, Eq. (11).
    """
    loss = _competing_ratio(alpha, beta)
    options = from_logits, ignore_class, axis
    return _forms.sparse_losses(
        sparse_competing_ratio_loss, loss, y_true, y_pred, *options
    )


def _competing_ratio(alpha, beta):
    alpha, beta = _validation.check_alpha_beta(alpha, beta)
    loss = _forms.of_cross_entropy(
        lambda ce: _from_cross_entropy(ce, alpha, beta), alpha=alpha, beta=beta
    )
    if beta == 0 or alpha >= SMALL_ALPHA:
        return loss

    def dense(y_true, y_pred, from_logits, axis):
        if not from_logits:
            return loss.dense(y_true, y_pred, from_logits, axis)
        cross_entropy, margin, is_hard = _cross_entropy.dense_margin(
            y_true, y_pred, axis
        )
        # The inner `where` keeps log(0) out of the gradient. `maximum` does the
        # same for a label of zeros, which is padding and has a weight of 0.
        soft = ops.where(is_hard, 1.0, cross_entropy)
        soft = ops.maximum(-ops.expm1(-soft), 1e-30)
        log_competing = ops.where(
            is_hard, ops.log_sigmoid(margin), ops.log(soft)
        )
        return _from_log_competing(cross_entropy, log_competing, alpha, beta)

    def sparse(labels, y_pred, from_logits, axis):
        if not from_logits:
            return loss.sparse(labels, y_pred, from_logits, axis)
        margin = _cross_entropy.sparse_margin(labels, y_pred, axis)
        return _from_log_competing(
            ops.softplus(margin), ops.log_sigmoid(margin), alpha, beta
        )

    return _forms.PerSample(dense, sparse, alpha=alpha, beta=beta)


def _from_cross_entropy(cross_entropy, alpha, beta):
    """The loss as a function of the cross-entropy, Eq. (11), for any labels."""
    if beta == 0:
        return cross_entropy
    if alpha < SMALL_ALPHA:
        # Only probabilities come here. They hold 1 - p no more precisely than
        # this.
        competing = ops.maximum(
            -ops.expm1(-cross_entropy), keras.backend.epsilon()
        )
        return cross_entropy + beta * ops.log(alpha + competing)
    # log(alpha + 1 - p), exact if p is near 1. It is exact at alpha = 1 too,
    # where the loss of a confident sample tends to 0.
    log_term = ops.log1p((alpha - 1.0) - ops.expm1(-cross_entropy))
    # PyTorch runs eagerly: in a small batch each operation costs time.
    return cross_entropy + (log_term if beta == 1 else beta * log_term)


def _from_log_competing(cross_entropy, log_competing, alpha, beta):
    """The same function, from log(1 - p) too, for a small alpha."""
    if alpha:
        log_competing = ops.logaddexp(math.log(alpha), log_competing)
    return cross_entropy + beta * log_competing


@keras.saving.register_keras_serializable(package="crl_keras")
class CompetingRatioLoss(DenseLoss):
    """The Competing Ratio Loss (CRL) for one-hot or soft labels.

    Use it in place of `keras.losses.CategoricalCrossentropy`. With the
    cross-entropy `ce` between the label of a sample and the softmax of its
    logits:

    ```
    CRL = ce + beta * log(alpha + 1 - exp(-ce))
    ```

    For a one-hot label `exp(-ce)` is the probability of the correct class. See
    `competing_ratio_loss` for the gradient and the bounds.

    Args:
        alpha: Finite number >= 0, by default 1.5 as in the paper.
        beta: Finite number, `alpha + beta >= 0`, by default 1 as in the paper.
            `beta=0` is cross-entropy; `alpha=0, beta=1` is the negative log
            likelihood ratio (NLLR).
        from_logits: Whether the model ends in logits (recommended) or in
            probabilities (the default, as in Keras).
        label_smoothing: Number in [0, 1], by default 0.
        axis: The axis of the classes, by default the last.
        reduction: `"sum_over_batch_size"` (default), `"mean"`, `"sum"`,
            `"mean_with_sample_weight"`, `"none"` or None, as in Keras.
        name: Name of the loss.
        dtype: Predictions are cast to this dtype, and the result has it; by
            default `keras.config.floatx()`. The loss itself is computed in
            float32 or better.

    Call it with `y_true` and `y_pred`, both `(batch, ..., classes)`, and
    optionally `sample_weight`. It returns a scalar, or one value for each
    sample if `reduction` is None.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range; when called, if the shapes do not match.

    Example:

        >>> loss = CompetingRatioLoss(alpha=1.5, beta=1, from_logits=True)
        >>> y_true = [[1, 0, 0, 0], [0, 0, 1, 0]]
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(loss(y_true, logits)):.4f}")
        2.6242

        Keras finds only its own losses by a string. To get this loss by name:

        >>> config = {"alpha": 2.0, "from_logits": True}
        >>> name = "crl_keras>CompetingRatioLoss"
        >>> loss = keras.losses.get({"class_name": name, "config": config})
        >>> loss.alpha
        2.0

    Reference:
        Zhang et al., "Competing Ratio Loss for Discriminative Multi-class
        Image Classification", arXiv:1912.11642, Eq. (11).
    """

    function = staticmethod(competing_ratio_loss)

    def __init__(
        self,
        alpha: float = 1.5,
        beta: float = 1.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "competing_ratio_loss",
        dtype: Any = None,
    ) -> None:
        loss = _competing_ratio(alpha, beta)
        super().__init__(
            loss, from_logits, label_smoothing, axis, reduction, name, dtype
        )


@keras.saving.register_keras_serializable(package="crl_keras")
class SparseCompetingRatioLoss(SparseLoss):
    """The Competing Ratio Loss (CRL) for integer labels.

    Use it in place of `keras.losses.SparseCategoricalCrossentropy`.
    With the probability `p_c` of the correct class:

    ```
    CRL = -log(p_c) + beta * log(alpha + 1 - p_c)
    ```

    Unlike Keras's loss, it keeps labels exact under every `dtype`, takes any
    `axis` on every backend, and never gives a number for a label that is not a
    class id.

    Args:
        alpha: Finite number >= 0, by default 1.5 as in the paper.
        beta: Finite number, `alpha + beta >= 0`, by default 1 as in the paper.
            `beta=0` is cross-entropy; `alpha=0, beta=1` is the negative log
            likelihood ratio (NLLR).
        from_logits: Whether the model ends in logits (recommended) or in
            probabilities (the default, as in Keras).
        ignore_class: Integer or None (default). Samples with this label have
            loss 0, and a mean is taken over the other samples.
        axis: The axis of the classes, by default the last.
        reduction: `"sum_over_batch_size"` (default), `"mean"`, `"sum"`,
            `"mean_with_sample_weight"`, `"none"` or None, as in Keras.
        name: Name of the loss.
        dtype: Predictions are cast to this dtype, and the result has it; by
            default `keras.config.floatx()`. The loss itself is computed in
            float32 or better.

    Call it with `y_true`, `(batch, ...)` or `(batch, ..., 1)`, `y_pred`,
    `(batch, ..., classes)`, and optionally `sample_weight`. It returns a
    scalar, or one value for each sample if `reduction` is None.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range; when called, if the shapes do not match. There is no
            `label_smoothing`: it needs one-hot labels, so use
            `CompetingRatioLoss`.

    Example:

        >>> loss = SparseCompetingRatioLoss(alpha=1.5, beta=1, from_logits=True)
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [2.0, 0.5, -1.0, 0.3]]
        >>> print(f"{float(loss([0, 2], logits)):.4f}")
        2.6242

    Reference:
        Zhang et al., "Competing Ratio Loss for Discriminative Multi-class
        Image Classification", arXiv:1912.11642, Eq. (11).
    """

    function = staticmethod(sparse_competing_ratio_loss)

    def __init__(
        self,
        alpha: float = 1.5,
        beta: float = 1.0,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "sparse_competing_ratio_loss",
        dtype: Any = None,
    ) -> None:
        loss = _competing_ratio(alpha, beta)
        super().__init__(
            loss, from_logits, ignore_class, axis, reduction, name, dtype
        )
