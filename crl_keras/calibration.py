"""Class probabilities from models trained with the Competing Ratio Loss."""

import math
from typing import Any

import keras
from keras import ops

from crl_keras.losses._validation import check_alpha_beta
from crl_keras.losses._validation import check_axis
from crl_keras.losses._validation import class_axis

__all__ = ["posterior_from_crl"]


def posterior_from_crl(
    y_pred: Any,
    alpha: float = 1.5,
    beta: float = 1.0,
    *,
    from_logits: bool = False,
    axis: int = -1,
) -> Any:
    r"""Recovers the class posterior from the softmax of a CRL-trained model.

    CRL is not a proper scoring rule. If labels are drawn from a posterior
    $\eta$, the expected loss of a prediction $p$ is

    $$\sum_k \eta_k [-\log p_k + \beta \log(\alpha + 1 - p_k)]$$

    and its minimiser is sharper than $\eta$ if $\beta > 0$ and duller if
    $\beta < 0$. This function computes $\eta$ from the minimiser,

    $$\eta_k = h(p_k) / \sum_j h(p_j), \quad
    h(p) = p (\alpha + 1 - p) / (\alpha + 1 + (\beta - 1) p)$$

    with $p_k$ the predicted probability of class $k$ and $\alpha$, $\beta$
    the parameters of the loss the model was trained with.

    For every `y_pred`, the classes keep their order, and so the argmax, if and
    only if $\beta \le (2 \alpha + 1)^2$. Under the same condition, and with
    $\alpha > 0$, every $\eta$ without zeros has exactly one stationary $p$.
    ($h$ increases on all of [0, 1] if and only if $\beta \le 0$ or
    $\alpha \ge \sqrt{\beta}$. This is sufficient, but not necessary.) Beyond
    this bound the function still computes the formula. The result is right if
    `y_pred` minimises the expected loss. Otherwise it can rank classes
    differently.

    $\alpha = 0$ with $\beta > 0$ is degenerate: the expected loss has no
    minimum if some $\eta_k > 1 / (1 + \beta)$, and a class whose $p_k$ tends to
    1 gets $1 / (1 + \beta)$. For NLLR ($\alpha = 0$, $\beta = 1$) no class gets
    more than 1/2, and two classes always get (1/2, 1/2).

    Args:
        y_pred: Softmax outputs, or logits with `from_logits=True`. Any shape
            with at least 2 classes along `axis`; any dtype; half precision is
            computed in float32. Probabilities are >= 0 and are divided by their
            sum. Logits may be -inf.
        alpha: Number >= 0. Defaults to `1.5`.
        beta: Number >= `-alpha`. `0` is cross-entropy: the probabilities do
            not change. Defaults to `1.0`.
        from_logits: Whether `y_pred` holds logits. They are more precise than
            probabilities that round to 0. Defaults to `False`.
        axis: The axis of the classes. Defaults to `-1`.

    Returns:
        Posterior probabilities with the shape of `y_pred` and sum 1 along
        `axis`; float64 for a float64 tensor, otherwise float32. If `y_pred`
        holds a NaN, a negative probability or a logit of +inf, all classes are
        NaN. With `alpha=0` and one-hot probabilities, the other classes get
        equal shares.

    Raises:
        TypeError: If `alpha` or `beta` is not a number, or `axis` is not an
            int.
        ValueError: If `alpha < 0`, `alpha + beta < 0`, one of them is not
            finite, `axis` is out of range, or there is only one class.

    Source: stationarity of the expected loss of Eq. 11 of
    [Competing Ratio Loss](https://arxiv.org/abs/1912.11642); the paper itself
    does not treat calibration. Derivation in `docs/calibration.md`.

    Example:

        >>> from keras import ops
        >>> from crl_keras.calibration import posterior_from_crl
        >>> y_pred = [[0.8, 0.15, 0.05], [0.4, 0.3, 0.3]]
        >>> eta = posterior_from_crl(y_pred, alpha=1.5, beta=1.0)
        >>> print(ops.convert_to_numpy(eta).round(4))
        [[0.7411 0.1921 0.0668]
         [0.3889 0.3056 0.3056]]
    """
    alpha, beta = check_alpha_beta(alpha, beta)
    y_pred = ops.convert_to_tensor(y_pred)
    axis = class_axis(y_pred, check_axis(axis))
    if keras.backend.standardize_dtype(y_pred.dtype) != "float64":
        y_pred = ops.cast(y_pred, "float32")

    logits = y_pred if from_logits else ops.log(y_pred)
    if beta != 0:
        h = _h_relative_to_top(logits, alpha, beta, axis)
    elif from_logits:
        h = ops.softmax(logits, axis=axis)
    else:
        h = ops.where(y_pred < 0, math.nan, y_pred)
    return h / ops.sum(h, axis=axis, keepdims=True)


def _h_relative_to_top(logits, alpha, beta, axis):
    """Returns `h(p) * p_top / h(p_top)`, `p_top` the largest probability.

    Only the top class can have a small `1 - p`. For this class it is computed
    from the competing classes, never by subtraction.
    """
    classes = ops.arange(ops.shape(logits)[axis], dtype="int32")
    classes = ops.reshape(classes, [-1] + [1] * (len(logits.shape) - 1 - axis))
    best = ops.argmax(logits, axis=axis, keepdims=True)
    is_top = ops.equal(classes, ops.cast(best, "int32"))

    def at_top(x):
        x = ops.where(is_top, x, 0.0)
        return ops.sum(x, axis=axis, keepdims=True)

    # From the original logits, so that no NaN or inf gets lost.
    p_top = at_top(ops.softmax(logits, axis=axis))
    # Make them finite, so that classes of probability 0 never give inf - inf.
    logits = ops.where(logits < -1e38, -1e38, logits)
    competing = logits - 3e38 * ops.cast(is_top, logits.dtype)
    share = ops.softmax(competing, axis=axis)
    log_odds = ops.logsumexp(
        competing - at_top(logits), axis=axis, keepdims=True
    )
    q_top = ops.sigmoid(log_odds)
    p = share * q_top
    q = 1.0 - p

    # q_top / (alpha + q_top); numerator and denominator may underflow.
    ratio = 1.0
    if alpha > 0:
        ratio = ops.sigmoid(ops.log_sigmoid(log_odds) - math.log(alpha))
    # The denominator of h, divided by alpha + 1, is c * p + q: no cancellation.
    c = (alpha + beta) / (alpha + 1.0)
    h = share * ratio * (alpha + q) * ((c * p_top + q_top) / (c * p + q))
    return ops.where(is_top, p_top, h)
