"""Scores of one set of test logits: how right, and how well calibrated.

Pure NumPy functions of `logits`, shape `[samples, classes]`, and `labels`,
shape `[samples]`. They compute in float64, whatever the logits were stored in.

Log-probabilities are valid logits, since `softmax(log p) = p`: all that is
said of logits holds for a model that gives probabilities, once their logarithm
is taken. The predicted class is the one of the largest logit, the first of
them where several are equal; its probability is the model's confidence.

`logits` must be real and below 1e100 in magnitude, with at least one sample
and two classes; `labels` must have an integer dtype and lie in
`[0, classes)`. Anything else is a `ValueError`.
"""

import math
from dataclasses import dataclass
from numbers import Integral

import numpy as np

from crl_keras.experiments._optional import require

# Differences of such logits cannot overflow, at any temperature below.
LARGEST_LOGIT = 1e100
TEMPERATURES = (1e-3, 1e3)


@dataclass(frozen=True)
class ReliabilityCurve:
    """What a reliability diagram draws, one entry a bin, by confidence.

    Attributes:
        confidence: float64 `[bins]`, the mean confidence, in `(0, 1]`.
        accuracy: float64 `[bins]`, the share predicted right, in `[0, 1]`.
        count: int64 `[bins]`, the samples, at least 1.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def softmax(logits):
    """Probabilities of the classes, `p_k = exp(x_k) / sum_j exp(x_j)`.

    `x_k` is the logit of class `k` of a sample. Returns float64 of the shape
    of `logits`, rows summing to 1.

    Raises:
        ValueError: for logits the module does not take.

    Source: Bridle, Neurocomputing NATO ASI F68 (1990), 227-236.

    >>> softmax([[0.0, 0.0], [0.0, np.log(3.0)]]).round(4).tolist()
    [[0.5, 0.5], [0.25, 0.75]]
    """
    return np.exp(_log_softmax(_checked_logits(logits)))


def accuracy(logits, labels):
    """Share of the samples predicted right, in `[0, 1]`.

    `(1/N) sum_i [argmax_k x_ik = y_i]` over `N` samples with logits `x_i` and
    labels `y_i`.

    Raises:
        ValueError: for logits or labels the module does not take.

    Source: the definition; the paper prints it in percent.

    >>> accuracy([[2, 1], [0, 3], [5, 4], [1, 0]], [0, 1, 1, 0])
    0.75
    """
    logits, labels = _checked(logits, labels)
    return float(np.mean(_predicted(logits) == labels))


def error(logits, labels):
    """Share of the samples predicted wrong, `1 - accuracy`, in `[0, 1]`.

    Counted as `(1/N) sum_i [argmax_k x_ik != y_i]` over `N` samples with
    logits `x_i` and labels `y_i`.

    Raises:
        ValueError: for logits or labels the module does not take.

    Source: the definition; the paper prints it in percent.

    >>> error([[2, 1], [0, 3], [5, 4], [1, 0]], [0, 1, 1, 0])
    0.25
    """
    logits, labels = _checked(logits, labels)
    return float(np.mean(_predicted(logits) != labels))


def macro_f1(logits, labels):
    """Mean over the classes of their F1, in `[0, 1]`.

    `F1_k = 2 TP_k / (2 TP_k + FP_k + FN_k)`, with `TP_k` the samples of class
    `k` predicted as `k`, `FP_k` those of other classes predicted as `k`, and
    `FN_k` those of class `k` predicted otherwise. The mean is over the classes
    that occur among the labels or the predictions, as
    `sklearn.metrics.f1_score(average="macro")` takes it when it is given no
    label set; a class in neither has no F1 and does not count.

    Raises:
        ValueError: for logits or labels the module does not take.

    Source: Opitz and Burst, arXiv 1911.03347 (2019), "averaged F1".

    >>> round(macro_f1([[2, 1], [0, 3], [5, 4], [1, 0]], [0, 1, 1, 0]), 4)
    0.7333
    """
    logits, labels = _checked(logits, labels)
    counts = _confusion(logits, labels)
    occurrences = counts.sum(axis=0) + counts.sum(axis=1)
    present = occurrences > 0
    return float(np.mean(2 * np.diag(counts)[present] / occurrences[present]))


def top_k_accuracy(logits, labels, k=5):
    """Share of the samples whose label is among the `k` largest logits.

    `(1/N) sum_i [r_i < k]`, with `r_i` the number of classes that come before
    the label of sample `i`: those of a larger logit, and of an equal one and a
    smaller class number. So `k=1` is `accuracy`, and `k` = classes gives 1.

    Args:
        logits: numbers, shape `[samples, classes]`.
        labels: integers, shape `[samples]`.
        k: an integer from 1 to the number of classes. The default, 5, is
            ImageNet's.

    Raises:
        ValueError: for logits or labels the module does not take, or `k` out
            of its range.

    Source: Russakovsky et al., IJCV 115 (2015), section 4.1.

    >>> top_k_accuracy([[3, 2, 1], [3, 2, 1]], [1, 2], k=2)
    0.5
    """
    logits, labels = _checked(logits, labels)
    classes = logits.shape[1]
    if not _is_integer(k) or not 1 <= k <= classes:
        raise ValueError(
            f"`k` must be an integer from 1 to the number of classes, "
            f"{classes}. Received: k={k!r}"
        )
    return _top_k(logits, labels, k)


def one_off_accuracy(logits, labels, k=1):
    """Share of the samples predicted within `k` classes of their label.

    `(1/N) sum_i [|argmax_j x_ij - y_i| <= k]` over `N` samples with logits
    `x_i` and labels `y_i`, for classes whose numbers follow their order, as
    age groups do. Range `[0, 1]`.

    Args:
        logits: numbers, shape `[samples, classes]`.
        labels: integers, shape `[samples]`.
        k: an integer of 0 or more. The default, 1, is Adience's; 0 gives
            `accuracy`.

    Raises:
        ValueError: for logits or labels the module does not take, or `k` out
            of its range.

    Source: Eidinger, Enbar and Hassner, IEEE TIFS 9 (2014), 2170-2179; the
    paper prints it in percent in Table X.

    >>> one_off_accuracy([[3, 2, 1], [3, 2, 1], [3, 2, 1]], [0, 1, 2])
    0.6666666666666666
    """
    logits, labels = _checked(logits, labels)
    if not _is_integer(k) or k < 0:
        raise ValueError(
            f"`k` must be an integer of 0 or more. Received: k={k!r}"
        )
    return float(np.mean(np.abs(_predicted(logits) - labels) <= k))


def negative_log_likelihood(logits, labels):
    """Mean of `-log p_y` in nats: 0 for certainty, `log(classes)` for guessing.

    `(1/N) sum_i (log sum_k exp(x_ik) - x_i,y_i)` over `N` samples with logits
    `x_i` and labels `y_i`, computed without ever forming `p`. It is the
    cross-entropy against hard labels. Range `[0, inf)`.

    Raises:
        ValueError: for logits or labels the module does not take.

    Source: Gneiting and Raftery, JASA 102 (2007), 359-378, the logarithmic
    score.

    >>> round(negative_log_likelihood([[0.0, 0.0]], [1]), 4)
    0.6931
    """
    logits, labels = _checked(logits, labels)
    return _nll(_log_softmax(logits), labels)


def brier_score(logits, labels):
    """Mean squared distance of the probabilities to the one-hot label.

    The multi-class score `(1/N) sum_i sum_k (p_ik - [k = y_i])^2`, with `p_i`
    the softmax of sample `i` of `N` and `y_i` its label. Range `[0, 2]`: for
    two classes it is twice the score of `sklearn.metrics.brier_score_loss`.

    Raises:
        ValueError: for logits or labels the module does not take.

    Source: Brier, Monthly Weather Review 78 (1950), 1-3.

    >>> brier_score([[0.0, 0.0]], [1])
    0.5
    """
    logits, labels = _checked(logits, labels)
    return _brier(np.exp(_log_softmax(logits)), labels)


def reliability_curve(logits, labels, bins=15):
    """Confidence and accuracy in bins of equally many samples.

    The samples are sorted by confidence and cut into bins whose sizes differ
    by at most 1. Samples of one same confidence each count as right by the
    share of them that are, so that neither the order of the samples nor the
    cut through many confidences of 1.0 changes the curve.

    Args:
        logits: numbers, shape `[samples, classes]`.
        labels: integers, shape `[samples]`.
        bins: an integer of 1 or more; with fewer samples, one bin a sample.

    Returns:
        A `ReliabilityCurve`, of increasing confidence.

    Raises:
        ValueError: for logits or labels the module does not take, or `bins`
            out of its range.

    Source: Nguyen and O'Connor, EMNLP (2015), 1587-1598, adaptive binning.

    >>> x = np.log([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.8, 0.2]])
    >>> curve = reliability_curve(x, [0, 1, 0, 0], bins=2)
    >>> curve.confidence.round(4).tolist(), curve.accuracy.tolist()
    ([0.6, 0.85], [0.5, 1.0])
    """
    logits, labels = _checked(logits, labels)
    return _reliability(np.exp(_log_softmax(logits)), logits, labels, bins)


def expected_calibration_error(logits, labels, bins=15):
    """Mean distance between confidence and accuracy, in `[0, 1]`.

    `ECE = sum_b (n_b / N) |acc_b - conf_b|` over the bins `b` of
    `reliability_curve`, with `n_b` of the `N` samples in bin `b`, `acc_b` the
    share of them predicted right and `conf_b` their mean confidence. The bins
    have equal mass; the bins of equal width of Guo et al. give other numbers.
    With few samples a bin it is biased upwards, also for a calibrated model.

    Args:
        logits: numbers, shape `[samples, classes]`.
        labels: integers, shape `[samples]`.
        bins: an integer of 1 or more; with fewer samples, one bin a sample.

    Raises:
        ValueError: for logits or labels the module does not take, or `bins`
            out of its range.

    Source: Guo et al., ICML (2017), eq. 3; bins of equal mass from Nguyen and
    O'Connor, EMNLP (2015).

    >>> x = np.log([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.8, 0.2]])
    >>> round(expected_calibration_error(x, [0, 1, 0, 0], bins=2), 4)
    0.125
    """
    return _calibration_error(reliability_curve(logits, labels, bins))


def per_class_accuracy(logits, labels):
    """Share of each class's samples that are predicted right.

    `a_k = (1/N_k) sum_{i: y_i = k} [argmax_j x_ij = k]`, with `x_i` and `y_i`
    the logits and label of sample `i`, and `N_k` the samples of class `k`:
    the class's recall. Returns float64 `[classes]` in `[0, 1]`, NaN for a
    class without samples.

    Raises:
        ValueError: for logits or labels the module does not take.

    Source: the definition.

    >>> per_class_accuracy([[2, 1], [0, 3], [5, 4]], [0, 1, 1]).tolist()
    [1.0, 0.5]
    """
    counts = confusion_matrix(logits, labels)
    samples = counts.sum(axis=1)
    shares = np.full(len(samples), np.nan)
    return np.divide(np.diag(counts), samples, out=shares, where=samples > 0)


def confusion_matrix(logits, labels):
    """Number of samples of each true class predicted as each class.

    `M[j, k] = sum_i [y_i = j] [argmax_l x_il = k]`, with `x_i` and `y_i` the
    logits and label of sample `i`: rows are true classes, columns predicted
    ones. Returns int64 `[classes, classes]`.

    Raises:
        ValueError: for logits or labels the module does not take.

    Source: the definition, laid out as in scikit-learn.

    >>> confusion_matrix([[2, 1], [0, 3], [5, 4]], [0, 1, 1]).tolist()
    [[1, 0], [1, 1]]
    """
    return _confusion(*_checked(logits, labels))


def all_scores(logits, labels):
    """The scalar scores of this module, by name.

    Returns:
        A dict of floats: `accuracy`, `error`, `macro_f1`, `top_5_accuracy`
        (None with 5 classes or fewer, which hold every label), `nll` in nats,
        `brier` and `ece` (15 bins), each as its own function computes it.

    Raises:
        ValueError: for logits or labels the module does not take.

    Source: the functions named.

    >>> scores = all_scores([[0.0, 0.0], [0.0, 0.0]], [0, 1])
    >>> {name: value and round(value, 4) for name, value in scores.items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'accuracy': 0.5, 'error': 0.5, 'macro_f1': 0.3333,
     'top_5_accuracy': None, 'nll': 0.6931, 'brier': 0.5, 'ece': 0.0}
    """
    logits, labels = _checked(logits, labels)
    log_probabilities = _log_softmax(logits)
    probabilities = np.exp(log_probabilities)
    many = logits.shape[1] > 5
    curve = _reliability(probabilities, logits, labels, bins=15)
    return {
        "accuracy": accuracy(logits, labels),
        "error": error(logits, labels),
        "macro_f1": macro_f1(logits, labels),
        "top_5_accuracy": _top_k(logits, labels, 5) if many else None,
        "nll": _nll(log_probabilities, labels),
        "brier": _brier(probabilities, labels),
        "ece": _calibration_error(curve),
    }


def fit_temperature(logits, labels):
    """The temperature that makes the negative log-likelihood smallest.

    `T = argmin_T (1/N) sum_i -log softmax(x_i / T)[y_i]` over `N` samples with
    logits `x_i` and labels `y_i`. Calibrated logits are `x / T`: above 1 it
    softens, below 1 it sharpens. Fit it on samples kept from training and
    test. In `1/T` the mean is convex, so there is one minimum, found on
    `log T` within `[0.001, 1000]`. A bound itself comes back where the minimum
    is not between them: 0.001 when every sample is predicted right, 1000 when
    the logits do worse than guessing. Where no temperature does better than 1,
    as for logits that are all equal, it is 1.

    Returns:
        The temperature, a float.

    Raises:
        ValueError: for logits or labels the module does not take.
        ImportError: without SciPy.

    Source: Guo et al., ICML (2017), section 4.2.

    >>> logits = [[2.0, 0.0]] * 4  # p = 3/4 fits, so T = 2 / log 3.
    >>> round(fit_temperature(logits, [0, 0, 0, 1]), 4)
    1.8205
    """
    optimize = require("scipy.optimize")
    logits, labels = _checked(logits, labels)

    def nll(log_temperature):
        return _nll(_log_softmax(logits / math.exp(log_temperature)), labels)

    low, high = np.log(TEMPERATURES)
    found = optimize.minimize_scalar(
        nll, bounds=(low, high), method="bounded", options={"xatol": 1e-9}
    ).x
    # The search stays inside its bounds, and stops anywhere on a flat stretch:
    # of equally good temperatures the first of these is the one to name.
    return math.exp(min((0.0, low, high, found), key=nll))


def is_bound(temperature):
    """Whether `fit_temperature` found no minimum, only a bound of its search.

    Such logits, divided by it, say nothing of how sure a network should be:
    see there when it comes back.

    >>> is_bound(fit_temperature([[2.0, 0.0]], [0])), is_bound(1.5)
    (True, False)
    """
    low, high = TEMPERATURES
    return temperature < 1.001 * low or temperature > high / 1.001


def _checked(logits, labels):
    """Float64 logits and int64 labels, or an error that says what is wrong."""
    logits = _checked_logits(logits)
    labels = np.asarray(labels)
    samples, classes = logits.shape
    if labels.shape != (samples,):
        raise ValueError(
            f"`labels` must have one class number a sample, shape ({samples},)."
            " Of one-hot labels pass the argmax, of shape (samples, 1) the "
            f"column. Received: labels of shape {labels.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise ValueError(
            "`labels` must have an integer dtype: convert them with "
            f"`labels.astype(int)` if all are whole. Received: {labels.dtype}"
        )
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        raise ValueError(
            f"`labels` must be from 0 to {classes - 1}, as `logits` has "
            f"{classes} classes: number them so, or drop these samples. "
            f"Received: {labels[wrong][0]} at index {np.argmax(wrong)}, "
            f"{np.sum(wrong)} such"
        )
    return logits, labels.astype(np.int64)


def _checked_logits(logits):
    logits = np.asarray(logits)
    shape = logits.shape
    if logits.ndim != 2 or shape[0] < 1 or shape[1] < 2:
        raise ValueError(
            "`logits` must have shape (samples, classes), at least 1 and 2. "
            "Of a single logit x a sample make two, 0 and x. "
            f"Received: shape {shape}"
        )
    # "V": bfloat16 and its like, which NumPy knows through an extension only.
    if logits.dtype.kind not in "iufV":
        raise ValueError(
            f"`logits` must be real numbers. Received: {logits.dtype}"
        )
    logits = logits.astype(np.float64)
    # Not `> LARGEST_LOGIT`: NaN compares as false.
    wrong = ~(np.abs(logits) <= LARGEST_LOGIT)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"`logits` must be finite and at most {LARGEST_LOGIT:g} in "
            "magnitude: drop the runs or samples that diverged, and clip "
            "probabilities of 0 before taking their logarithm. Received: "
            f"{logits[row, column]} in row {row}, column {column}"
        )
    return logits


def _is_integer(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _predicted(logits):
    return np.argmax(logits, axis=1)


def _log_softmax(logits):
    largest = _predicted(logits)[:, None]
    shifted = logits - np.take_along_axis(logits, largest, axis=1)
    others = np.exp(shifted)
    np.put_along_axis(others, largest, 0.0, axis=1)
    # log(1 + others): 1e-20 would be lost in a sum with the largest one's 1.
    return shifted - np.log1p(others.sum(axis=1, keepdims=True))


def _nll(log_probabilities, labels):
    # `+ 0.0` turns the -0.0 of a sure and right model into 0.0.
    return float(-np.mean(_of_labels(log_probabilities, labels)) + 0.0)


def _brier(probabilities, labels):
    of_label = _of_labels(probabilities, labels)
    squares = np.sum(probabilities**2, axis=1)
    return float(np.mean(squares - of_label**2 + (1.0 - of_label) ** 2))


def _of_labels(values, labels):
    return np.take_along_axis(values, labels[:, None], axis=1)[:, 0]


def _top_k(logits, labels, k):
    of_label = _of_labels(logits, labels)[:, None]
    is_earlier = np.arange(logits.shape[1]) < labels[:, None]
    before = (logits > of_label) | ((logits == of_label) & is_earlier)
    return float(np.mean(before.sum(axis=1) < k))


def _confusion(logits, labels):
    classes = logits.shape[1]
    cells = labels * classes + _predicted(logits)
    counts = np.bincount(cells, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64)


def _reliability(probabilities, logits, labels, bins):
    if not _is_integer(bins) or bins < 1:
        raise ValueError(
            f"`bins` must be an integer of 1 or more. Received: bins={bins!r}"
        )
    # Of the logits: softmax may round two different ones to one probability.
    correct = _predicted(logits) == labels
    levels, level, repeats = np.unique(
        probabilities.max(axis=1), return_inverse=True, return_counts=True
    )
    correct = np.bincount(level, weights=correct) / repeats
    level = np.array_split(np.sort(level), min(bins, len(labels)))
    return ReliabilityCurve(
        confidence=np.array([levels[part].mean() for part in level]),
        accuracy=np.array([correct[part].mean() for part in level]),
        count=np.array([len(part) for part in level]),
    )


def _calibration_error(curve):
    gaps = np.abs(curve.accuracy - curve.confidence)
    return float(np.average(gaps, weights=curve.count))
