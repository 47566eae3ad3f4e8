"""The class posterior that a network trained with CRL implies."""

import numpy as np


def crl_posterior(logits, alpha, beta):
    """Logarithm of the class posterior that a CRL-trained network implies.

    `eta_k = h(p_k) / sum_j h(p_j)`, `h(p) = p (A - p) / (A + (beta - 1) p)`,
    `A = alpha + 1`, with `p` the softmax of the logits. It inverts the map from
    the posterior to the `p` that minimises the expected loss.
    `crl_keras.calibration` computes the same on a backend. All is in log space,
    because at `alpha = 0` the result depends on `1 - p`, which rounds to 0 for
    a confident network.

    Args:
        logits: numbers, shape `[samples, classes]`.
        alpha: number >= 0, the `alpha` of the training loss.
        beta: number >= -alpha; at 0 the result is the logarithm of the softmax.

    Returns:
        `log eta`, float64 `[samples, classes]`; these are logits too.

    Raises:
        ValueError: if `alpha` or `beta` is out of its range.

    >>> p = np.array([[0.75, 0.25]])
    >>> np.exp(crl_posterior(np.log(p), alpha=1.0, beta=1.0)).round(4).tolist()
    [[0.6818, 0.3182]]
    """
    if not (alpha >= 0 and alpha + beta >= 0):
        raise ValueError(
            "`alpha` must be >= 0 and `beta` >= -alpha. "
            f"Received: alpha={alpha}, beta={beta}"
        )
    log_p, log_q = _log_p_and_rest(np.asarray(logits, np.float64))
    if beta == 0:
        return log_p
    with np.errstate(divide="ignore"):  # log(0) = -inf is intended.
        log_alpha, log_both = np.log(alpha), np.log(alpha + beta)
    # A - p = alpha + q and A + (beta-1) p = (alpha+beta) p + A q, for q = 1-p:
    # sums of terms that are never negative, so nothing cancels.
    log_h = log_p + np.logaddexp(log_alpha, log_q)
    log_h -= np.logaddexp(log_both + log_p, np.log(alpha + 1.0) + log_q)
    return log_h - np.logaddexp.reduce(log_h, axis=1, keepdims=True)


def _log_p_and_rest(logits):
    """Logarithms of the softmax `p` and of `1 - p`, computed separately."""
    top = np.argmax(logits, axis=1)[:, None]
    others = logits - np.take_along_axis(logits, top, axis=1)
    np.put_along_axis(others, top, -np.inf, axis=1)
    # Relative to the top logit: p_top = 1 / (1 + exp(log_odds)).
    log_odds = np.logaddexp.reduce(others, axis=1, keepdims=True)
    log_sum = np.logaddexp(0.0, log_odds)
    log_p = others - log_sum
    np.put_along_axis(log_p, top, -log_sum, axis=1)
    # 1 - p can be small only for the top class.
    log_q = np.log1p(-np.minimum(np.exp(log_p), 0.5))
    np.put_along_axis(log_q, top, log_odds - log_sum, axis=1)
    return log_p, log_q
