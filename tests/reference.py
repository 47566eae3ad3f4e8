"""The losses in float64 NumPy, from their papers; imports nothing of ours.

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
    return of_each(competing_ratio_one, y_true, logits, alpha, beta)


def gradient(y_true, logits, alpha, beta, step=1e-5):
    """Central differences of `competing_ratio`, (N, C)."""
    return differences(
        competing_ratio_one, y_true, logits, alpha, beta, step=step
    )


def differences(loss_of_one, y_true, logits, *parameters, step=1e-5):
    """Central differences in the logits of the loss of each sample, (N, C)."""
    logits = np.asarray(logits, dtype="float64")
    result = np.zeros_like(logits)
    for n in range(logits.shape[0]):
        for k in range(logits.shape[1]):
            values = []
            for sign in (1, -1):
                moved = logits[n].copy()
                moved[k] += sign * step
                values.append(loss_of_one(y_true[n], moved, *parameters))
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


def cross_entropy_one(y_true, logits):
    """For a hard label from the margin, so that small losses keep digits."""
    return competing_ratio_one(y_true, logits, 1.0, 0.0)


def focal_one(y_true, logits, gamma):
    """-(1 - p_c)^gamma log p_c (Lin et al. 2017); soft: of the same ce."""
    cross_entropy = cross_entropy_one(y_true, logits)
    return (-math.expm1(-cross_entropy)) ** gamma * cross_entropy


def tamed_one(y_true, logits, alpha):
    """[(1 - log p_c)^(1 - alpha) - 1] / (1 - alpha), our reading."""
    base = 1 + cross_entropy_one(y_true, logits)
    if alpha == 1:
        return math.log(base)
    return (base ** (1 - alpha) - 1) / (1 - alpha)


def dual_one(y_true, logits, alpha, beta):
    """-sum_k y_k log p_k + beta sum_k (1 - y_k) log(alpha + p_k)."""
    y_true = np.asarray(y_true, dtype="float64")
    result = cross_entropy_one(y_true, logits)
    for y, log_p in zip(y_true, log_softmax(logits), strict=True):
        result += beta * (1 - y) * math.log(alpha + math.exp(log_p))
    return result


def released_one(y_true, logits, alpha, beta):
    """log((a - p_c)^beta / p_c + 1e-7), p clamped, as ratio.py computes it."""
    p = math.exp(log_softmax(logits)[int(np.argmax(y_true))])
    # In float32, the upper clamp of the code is 1 - 1.19e-7.
    p = min(max(p, 1e-7), float(np.float32(1 - 1e-7)))
    return math.log((alpha + 1 - p) ** beta / p + 1e-7)


def psi(angle, margin):
    """(-1)^k cos(m t) - 2k for t in [k pi / m, (k + 1) pi / m]."""
    k = min(int(margin * angle / math.pi), margin - 1)
    return (-1) ** k * math.cos(margin * angle) - 2 * k


def margin_one(label, features, kernel, margin, annealing, normalised=False):
    """L-Softmax (Liu et al. 2016); A-Softmax (2017) where `normalised`."""
    features = np.asarray(features, dtype="float64")
    scores, length = [], math.sqrt((features**2).sum())
    for j, column in enumerate(np.asarray(kernel, dtype="float64").T):
        norm = math.sqrt((column**2).sum())
        if normalised:
            column, norm = column / norm, 1.0
        score = float(column @ features)
        if j == label:
            cosine = max(-1.0, min(1.0, score / (norm * length)))
            reduced = norm * length * psi(math.acos(cosine), margin)
            score = (annealing * score + reduced) / (1 + annealing)
        scores.append(score)
    return -log_softmax(scores)[label]


def of_each(loss_of_one, y_true, logits, *parameters):
    """The losses of (N, C) labels and logits."""
    return np.array(
        [
            loss_of_one(y, x, *parameters)
            for y, x in zip(y_true, logits, strict=True)
        ]
    )


def one_hot(labels, classes):
    result = np.zeros((len(labels), classes))
    for n, label in enumerate(labels):
        result[n, label] = 1.0
    return result
