"""The Competing Ratio Loss as its authors released it, with their clamps."""

from typing import Any

import keras
from keras import ops

from crl_keras.losses import _cross_entropy
from crl_keras.losses import _forms
from crl_keras.losses import _validation
from crl_keras.losses._reduction import SparseLoss

# The authors' value in float32, independent of `keras.config.epsilon()`.
EPSILON = 1e-7


@keras.saving.register_keras_serializable(package="crl_keras")
def released_competing_ratio_loss(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 1.5,
    beta: float = 1.0,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """Computes CRL of each sample as its authors' code does, integer labels.

    With the probability `p_c` of the correct class, clamped to
    `[1e-7, 1 - 1e-7]`, and the constant of the code, `a = alpha + 1`:

    ```
    released CRL = log((a - p_c) ** beta / p_c + 1e-7)
    ```

    Use it for reproductions only. To train, use `sparse_competing_ratio_loss`,
    the exact loss of the paper. With `alpha >= 1` the two agree to 1e-5 if
    `p_c` is between 1e-5 and 1 - 1e-5. Outside the clamp they differ:

    - `p_c < 1e-7`: the gradient is exactly 0. So a sample that is hard or has a
      wrong label is ignored. The exact loss has the gradient -1 in the logit of
      the correct class. The released loss stays at
      `16.118 + beta * log(alpha + 1)`.
    - `p_c > 1 - 1e-7`: the gradient is exactly 0.
    - `alpha = 0`: the loss of the paper has no lower bound. The released loss
      is at least -15.33 for `beta = 1`, and the 1e-7 inside the logarithm
      shrinks the gradient of confident samples.

    `alpha` and `beta` are those of the paper. The parameter `a` of the code is
    larger by 1. Its folders named `alpha_0` have `a = 1`, which is NLLR.

    Args:
        alpha: Finite number >= 0, by default 1.5 as in the paper.
        beta: Finite number, `alpha + beta >= 0`, by default 1 as in the paper.

    `y_true`, `y_pred`, `from_logits`, `ignore_class`, `axis`, shapes, dtypes
    and the result are as in `sparse_competing_ratio_loss`. The authors' code
    takes logits.

    Raises:
        TypeError, ValueError: As in `sparse_competing_ratio_loss`.

    Example:

        >>> logits = [[2.0, 0.5, -1.0, 0.3], [0.0, 40.0, 0.0, 0.0]]
        >>> loss = released_competing_ratio_loss(
        ...     [0, 2], logits, from_logits=True
        ... )
        >>> print(keras.ops.convert_to_numpy(loss).round(4))
        [ 0.9704 17.0344]

    Reference:
        ratio.py of guoyurong0104/CRL-code @b66d835, for Eq. (11) of
        arXiv:1912.11642.
    """
    loss = _released(alpha, beta)
    options = from_logits, ignore_class, axis
    return _forms.sparse_losses(
        released_competing_ratio_loss, loss, y_true, y_pred, *options
    )


def _released(alpha, beta):
    alpha, beta = _validation.check_alpha_beta(alpha, beta)

    def sparse(labels, y_pred, from_logits, axis):
        p = _cross_entropy.probabilities(y_pred, from_logits, axis)
        p = ops.clip(p, EPSILON, 1.0 - EPSILON)
        is_label = _cross_entropy.one_hot(labels, p, axis)
        p = ops.sum(ops.where(is_label, p, 0.0), axis=axis)
        # The authors' code fails if a label is not a class id; here it gives
        # NaN.
        p = ops.where(ops.any(is_label, axis=axis), p, float("nan"))
        return ops.log(ops.power(alpha + 1.0 - p, beta) / p + EPSILON)

    return _forms.PerSample(None, sparse, alpha=alpha, beta=beta)


@keras.saving.register_keras_serializable(package="crl_keras")
class ReleasedCompetingRatioLoss(SparseLoss):
    """The Competing Ratio Loss as its authors' code has it, integer labels.

    With the probability `p_c` of the correct class, clamped to
    `[1e-7, 1 - 1e-7]`:

    ```
    released CRL = log((alpha + 1 - p_c) ** beta / p_c + 1e-7)
    ```

    Use it for reproductions only: `released_competing_ratio_loss` says what the
    clamp does. To train, use `SparseCompetingRatioLoss`.

    Args:
        alpha: Finite number >= 0, by default 1.5 as in the paper. The
            parameter of the authors' code is larger by 1.
        beta: Finite number, `alpha + beta >= 0`, by default 1 as in the paper.
            `alpha=0, beta=1` is the authors' NLLR.

    `from_logits`, `ignore_class`, `axis`, `reduction`, `name`, `dtype` and the
    call are as in `SparseCompetingRatioLoss`.

    Raises:
        TypeError, ValueError: As in `SparseCompetingRatioLoss`.

    Example:

        >>> loss = ReleasedCompetingRatioLoss(from_logits=True)
        >>> logits = [[2.0, 0.5, -1.0, 0.3], [0.0, 40.0, 0.0, 0.0]]
        >>> print(f"{float(loss([0, 2], logits)):.4f}")
        9.0024

    Reference:
        ratio.py of guoyurong0104/CRL-code @b66d835.
    """

    function = staticmethod(released_competing_ratio_loss)

    def __init__(
        self,
        alpha: float = 1.5,
        beta: float = 1.0,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str = "released_competing_ratio_loss",
        dtype: Any = None,
    ) -> None:
        loss = _released(alpha, beta)
        super().__init__(
            loss, from_logits, ignore_class, axis, reduction, name, dtype
        )
