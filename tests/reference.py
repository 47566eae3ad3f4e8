"""The loss in float64 NumPy, written from the paper; imports nothing of ours.

Loops over samples and classes on purpose: slow, and hard to get wrong.
"""

import math

import numpy as np


def log_softmax(logits):
    logits = np.asarray(logits, dtype="float64")
    largest = logits.max()
    return logits - largest - math.log(np.exp(logits - largest).sum())


def competing_ratio_one(y_true, logits, alpha, beta):
    """Eq. (11) of the paper for one sample, its label one-hot or soft.

    For a one-hot label c this is -log p_c + beta log(alpha + sum_{k!=c} p_k),
    summed over the competing classes as the paper writes it.
    """
    y_true = np.asarray(y_true, dtype="float64")
    logits = np.asarray(logits, dtype="float64")
    log_p = log_softmax(logits)
    (labels,) = np.nonzero(y_true)
    if len(labels) == 1 and y_true[labels[0]] == 1.0:
        c = labels[0]
        others = np.delete(logits, c)
        # log of sum_{k != c} p_k, which underflows for a confident sample.
        margin = others.max() - logits[c]
        margin += math.log(np.exp(others - others.max()).sum())
        cross_entropy = np.logaddexp(0.0, margin)
        log_competing = -np.logaddexp(0.0, -margin)
    else:
        cross_entropy = 0.0
        for k in labels:
            cross_entropy -= y_true[k] * log_p[k]
        log_competing = math.log(-math.expm1(-cross_entropy))
    if beta == 0:
        return cross_entropy
    if alpha == 0:
        return cross_entropy + beta * log_competing
    return cross_entropy + beta * math.log(alpha + math.exp(log_competing))


def competing_ratio(y_true, logits, alpha, beta):
    """Per-sample losses of (N, C) labels and logits."""
    return np.array(
        [
            competing_ratio_one(y, x, alpha, beta)
            for y, x in zip(y_true, logits, strict=True)
        ]
    )


def gradient(y_true, logits, alpha, beta, step=1e-5):
    """Central differences of `competing_ratio`, (N, C)."""
    logits = np.asarray(logits, dtype="float64")
    result = np.zeros_like(logits)
    for n in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            values = []
            for sign in (1, -1):
                moved = logits[n].copy()
                moved[k] += sign * step
                values.append(
                    competing_ratio_one(y_true[n], moved, alpha, beta)
                )
            result[n, k] = (values[0] - values[1]) / (2 * step)
    return result


def exact_gradient(y_true, logits, alpha, beta):
    """(1 + beta e / (alpha + 1 - e)) (p - y), e = exp(-ce), hard labels.

    For many classes, where differences are slow; `test_gradients` checks it
    against `gradient`. The weight is taken from the margin, where 1 - e is
    exact.
    """
    result = np.zeros(np.shape(logits))
    for n, (y, x) in enumerate(zip(y_true, logits, strict=True)):
        x = np.asarray(x, dtype="float64")
        c = int(np.argmax(y))
        others = np.delete(x, c)
        largest = others.max()
        total = np.exp(others - largest).sum()
        margin = largest - x[c] + math.log(total)
        p = math.exp(-np.logaddexp(0.0, margin))
        competing = math.exp(-np.logaddexp(0.0, -margin))  # 1 - p
        if competing == 0.0 and alpha == 0:
            push = beta
        else:
            push = competing + beta * p * competing / (alpha + competing)
        share = np.exp(others - largest) / total
        result[n] = np.insert(push * share, c, -push)
    return result


def one_hot(labels, classes):
    result = np.zeros((len(labels), classes))
    for n, label in enumerate(labels):
        result[n, label] = 1.0
    return result
