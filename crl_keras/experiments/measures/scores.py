"""Scores of one set of test logits: their accuracy and their calibration.

Pure functions of `logits`, shape `[samples, classes]`, and `labels`,
shape `[samples]`. They compute in float64, whatever the dtype of the logits.

Log-probabilities are valid logits, since `softmax(log p) = p`: if a model
returns probabilities, pass their logarithm. The predicted class has the largest
logit; if several are equal, it is the first of them. Its probability is the
model's confidence.

`logits` must be real and below 1e100 in magnitude, with at least one sample
and two classes; `labels` must have an integer dtype and lie in
`[0, classes)`. Otherwise every function raises `ValueError`. Classification
scores come from scikit-learn, and raise `ImportError` without it. This module
itself computes ranks and logarithms of tiny probabilities.
"""

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.measures import calibration
from crl_keras.experiments.measures._checks import checked_integer
from crl_keras.experiments.measures._checks import checked_logits
from crl_keras.experiments.measures._checks import checked_predictions
from crl_keras.experiments.measures._logits import log_softmax
from crl_keras.experiments.measures._logits import mean_nll
from crl_keras.experiments.measures._logits import of_labels
from crl_keras.experiments.measures._logits import predicted

# The scores of confidence can be called from here too.
reliability_curve = calibration.reliability_curve
expected_calibration_error = calibration.expected_calibration_error
fit_temperature = calibration.fit_temperature


def softmax(logits):
    """Probabilities of the classes, `p_k = exp(x_k) / sum_j exp(x_j)`.

    `x_k` is the logit of class `k` of a sample. Returns float64 in the shape
    of `logits`; each row sums to 1.

    Source: Bridle, Neurocomputing NATO ASI F68 (1990), 227-236.

    >>> softmax([[0.0, 0.0], [0.0, np.log(3.0)]]).round(4).tolist()
    [[0.5, 0.5], [0.25, 0.75]]
    """
    return np.exp(log_softmax(checked_logits(logits)))


def accuracy(logits, labels):
    """Share of the samples predicted right, in `[0, 1]`.

    `(1/N) sum_i [argmax_k x_ik = y_i]` over `N` samples with logits `x_i` and
    labels `y_i`.

    Source: the definition; the paper prints it in percent.

    >>> accuracy([[2, 1], [0, 3], [5, 4], [1, 0]], [0, 1, 1, 0])
    0.75
    """
    logits, labels = checked_predictions(logits, labels)
    return float(np.mean(predicted(logits) == labels))


def error(logits, labels):
    """Share of the samples predicted wrong, `1 - accuracy`, in `[0, 1]`.

    Counted as `(1/N) sum_i [argmax_k x_ik != y_i]` over `N` samples with
    logits `x_i` and labels `y_i`.

    Source: the definition; the paper prints it in percent.

    >>> error([[2, 1], [0, 3], [5, 4], [1, 0]], [0, 1, 1, 0])
    0.25
    """
    logits, labels = checked_predictions(logits, labels)
    return float(np.mean(predicted(logits) != labels))


def macro_f1(logits, labels):
    """Mean of the F1 scores of the classes, in `[0, 1]`.

    `F1_k = 2 TP_k / (2 TP_k + FP_k + FN_k)`, with `TP_k` the samples of class
    `k` predicted as `k`, `FP_k` the samples of other classes predicted as `k`,
    and `FN_k` the samples of class `k` predicted as another class. The mean is
    over the classes that occur in the labels or the predictions, as in
    `sklearn.metrics.f1_score(average="macro")` without a label set. A class in
    neither has no F1 and does not count.

    Source: Opitz and Burst, arXiv 1911.03347 (2019), "averaged F1".

    >>> round(macro_f1([[2, 1], [0, 3], [5, 4], [1, 0]], [0, 1, 1, 0]), 4)
    0.7333
    """
    # Every class that occurs has an F1, so there is no division by zero.
    return float(_of_predictions("f1_score", logits, labels, average="macro"))


def top_k_accuracy(logits, labels, k=5):
    """Share of the samples whose label is among the `k` largest logits.

    `(1/N) sum_i [r_i < k]`, with `r_i` the number of classes that come before
    the label of sample `i`: classes with a larger logit, or with an equal logit
    and a smaller class number. So `k=1` is `accuracy`, and `k` = classes gives
    1.

    Args:
        logits: numbers, shape `[samples, classes]`.
        labels: integers, shape `[samples]`.
        k: an integer from 1 to the number of classes. The default, 5, is
            usual for ImageNet.

    Raises:
        ValueError: also if `k` is out of its range.

    Source: Russakovsky et al., IJCV 115 (2015), section 4.1.

    >>> top_k_accuracy([[3, 2, 1], [3, 2, 1]], [1, 2], k=2)
    0.5
    """
    logits, labels = checked_predictions(logits, labels)
    k = checked_integer("k", k, 1, classes=logits.shape[1])
    of_label = of_labels(logits, labels)[:, None]
    # scikit-learn prefers the larger class number if logits are equal, and
    # takes one column of scores for two classes.
    is_earlier = np.arange(logits.shape[1]) < labels[:, None]
    before = (logits > of_label) | ((logits == of_label) & is_earlier)
    return float(np.mean(before.sum(axis=1) < k))


def one_off_accuracy(logits, labels, k=1):
    """Share of the samples predicted within `k` classes of their label.

    `(1/N) sum_i [|argmax_j x_ij - y_i| <= k]` over `N` samples with logits
    `x_i` and labels `y_i`. Class numbers must follow the order of the classes,
    as with age groups. Range `[0, 1]`.

    Args:
        logits: numbers, shape `[samples, classes]`.
        labels: integers, shape `[samples]`.
        k: an integer of 0 or more. The default, 1, is usual for Adience; 0
            gives `accuracy`.

    Raises:
        ValueError: also if `k` is out of its range.

    Source: Eidinger, Enbar and Hassner, IEEE TIFS 9 (2014), 2170-2179; the
    paper prints it in percent in Table X.

    >>> one_off_accuracy([[3, 2, 1], [3, 2, 1], [3, 2, 1]], [0, 1, 2])
    0.6666666666666666
    """
    logits, labels = checked_predictions(logits, labels)
    k = checked_integer("k", k, 0)
    return float(np.mean(np.abs(predicted(logits) - labels) <= k))


def negative_log_likelihood(logits, labels):
    """Mean of `-log p_y` in nats: 0 for certainty, `log(classes)` for guessing.

    `(1/N) sum_i (log sum_k exp(x_ik) - x_i,y_i)` over `N` samples with logits
    `x_i` and labels `y_i`, computed without `p` itself. It is the
    cross-entropy against hard labels. Range `[0, inf)`.

    Source: Gneiting and Raftery, JASA 102 (2007), 359-378, the logarithmic
    score.

    >>> round(negative_log_likelihood([[0.0, 0.0]], [1]), 4)
    0.6931
    """
    logits, labels = checked_predictions(logits, labels)
    return mean_nll(log_softmax(logits), labels)


def brier_score(logits, labels):
    """Mean squared distance between probabilities and one-hot label.

    The multi-class score `(1/N) sum_i sum_k (p_ik - [k = y_i])^2`, with `p_i`
    the softmax of sample `i` of `N` and `y_i` its label. Range `[0, 2]`: for
    two classes it is twice the score of `sklearn.metrics.brier_score_loss`.

    Source: Brier, Monthly Weather Review 78 (1950), 1-3.

    >>> brier_score([[0.0, 0.0]], [1])
    0.5
    """
    logits, labels = checked_predictions(logits, labels)
    return require("sklearn.metrics").brier_score_loss(
        labels,
        np.exp(log_softmax(logits)),
        labels=range(logits.shape[1]),
        scale_by_half=False,
    )


def confusion_matrix(logits, labels):
    """Number of samples of each true class predicted as each class.

    `M[j, k] = sum_i [y_i = j] [argmax_l x_il = k]`, with `x_i` and `y_i` the
    logits and label of sample `i`: rows are true classes, columns predicted
    ones. Returns int64 `[classes, classes]`.

    Source: the definition, laid out as in scikit-learn.

    >>> confusion_matrix([[2, 1], [0, 3], [5, 4]], [0, 1, 1]).tolist()
    [[1, 0], [1, 1]]
    """
    classes = range(checked_logits(logits).shape[1])
    return _of_predictions("confusion_matrix", logits, labels, labels=classes)


def cross_entropies(logits, labels):
    """The negative log-likelihood of each sample, `-log p_y`, in nats.

    `log sum_k exp(x_ik) - x_i,y_i` of sample `i` with logits `x_i` and label
    `y_i`. Returns float64 `[samples]`; their mean is
    `negative_log_likelihood`.

    Raises:
        ValueError: for logits or labels that are not valid.

    Source: the definition.

    >>> cross_entropies([[0.0, 0.0], [0.0, np.log(3.0)]], [0, 1]).round(4)
    array([0.6931, 0.2877])
    """
    logits, labels = checked_predictions(logits, labels)
    # `0.0 -` avoids -0.0 for a model that is sure and right.
    return 0.0 - of_labels(log_softmax(logits), labels)


def telling(logits, labels, count, among=None):
    """The most confident mistakes and the least confident hits.

    Args:
        logits: numbers, shape `[samples, classes]`.
        labels: integers, shape `[samples]`.
        count: an integer, the largest number of each kind.
        among: an integer: use only so many first samples; None for all.

    Returns:
        `(mistakes, hits)`, int64 positions of samples predicted wrong, the
        most confident first, and of samples predicted right, the least
        confident first. Equally confident samples keep their order.

    Raises:
        ValueError: for logits or labels that are not valid.

    >>> logits = np.log([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    >>> mistakes, hits = telling(logits, [1, 1, 1, 1], 1)
    >>> mistakes.tolist(), hits.tolist()
    ([0], [3])
    """
    logits, labels = checked_predictions(logits, labels)
    confidence = np.exp(log_softmax(logits).max(axis=1))[:among]
    right = (predicted(logits) == labels)[:among]
    order = np.argsort(confidence, kind="stable")
    hits = order[right[order]][:count]
    order = np.argsort(-confidence, kind="stable")
    return order[~right[order]][:count], hits


def all_scores(logits, labels):
    """The scalar scores of this module, by name.

    Returns:
        A dict of floats: `accuracy`, `error`, `macro_f1`, `top_5_accuracy`
        (None with 5 classes or fewer, as it would be 1), `nll` in nats, `brier`
        and `ece` (15 bins), each as its own function computes it.

    Source: the functions named.

    >>> scores = all_scores([[0.0, 0.0], [0.0, 0.0]], [0, 1])
    >>> {name: value and round(value, 4) for name, value in scores.items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'accuracy': 0.5, 'error': 0.5, 'macro_f1': 0.3333,
     'top_5_accuracy': None, 'nll': 0.6931, 'brier': 0.5, 'ece': 0.0}
    """
    logits, labels = checked_predictions(logits, labels)
    many = logits.shape[1] > 5
    return {
        "accuracy": accuracy(logits, labels),
        "error": error(logits, labels),
        "macro_f1": macro_f1(logits, labels),
        "top_5_accuracy": top_k_accuracy(logits, labels) if many else None,
        "nll": negative_log_likelihood(logits, labels),
        "brier": brier_score(logits, labels),
        "ece": expected_calibration_error(logits, labels),
    }


def _of_predictions(score, logits, y_true, **options):
    """A scikit-learn score of the predicted classes."""
    logits, y_true = checked_predictions(logits, y_true)
    score = getattr(require("sklearn.metrics"), score)
    return score(y_true, predicted(logits), **options)
