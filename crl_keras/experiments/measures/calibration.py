"""How well a model's confidence matches its accuracy, and the temperature.

`logits` and `labels` are as in `scores`, which has these functions too.
"""

import math
from dataclasses import dataclass

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.measures._checks import checked_integer
from crl_keras.experiments.measures._checks import checked_predictions
from crl_keras.experiments.measures._logits import log_softmax
from crl_keras.experiments.measures._logits import mean_nll
from crl_keras.experiments.measures._logits import predicted

# Within these limits, differences of valid logits cannot overflow.
TEMPERATURES = (1e-3, 1e3)


@dataclass(frozen=True)
class ReliabilityCurve:
    """The data of a reliability diagram, one entry per bin, by confidence.

    Attributes:
        confidence: float64 `[bins]`, the mean confidence, in `(0, 1]`.
        accuracy: float64 `[bins]`, the share predicted right, in `[0, 1]`.
        count: int64 `[bins]`, the number of samples, at least 1.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def reliability_curve(logits, labels, bins=15):
    """Confidence and accuracy in bins with equally many samples.

    The samples are sorted by confidence and cut into bins whose sizes differ
    by at most 1. Samples with the same confidence each count with their mean
    accuracy. So the curve does not depend on the order of the samples, nor on
    how the bins cut many confidences of 1.0.

    Args:
        logits: numbers, shape `[samples, classes]`.
        labels: integers, shape `[samples]`.
        bins: an integer of 1 or more; with fewer samples, one bin per sample.

    Returns:
        A `ReliabilityCurve`, by increasing confidence.

    Raises:
        ValueError: also if `bins` is out of its range.

    Source: Nguyen and O'Connor, EMNLP (2015), 1587-1598, adaptive binning.

    >>> x = np.log([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.8, 0.2]])
    >>> curve = reliability_curve(x, [0, 1, 0, 0], bins=2)
    >>> curve.confidence.round(4).tolist(), curve.accuracy.tolist()
    ([0.6, 0.85], [0.5, 1.0])
    """
    logits, labels = checked_predictions(logits, labels)
    bins = checked_integer("bins", bins, 1)
    # From the logits: softmax may round two different ones to the same value.
    correct = predicted(logits) == labels
    levels, level, repeats = np.unique(
        np.exp(log_softmax(logits)).max(axis=1),
        return_inverse=True,
        return_counts=True,
    )
    correct = np.bincount(level, weights=correct) / repeats
    level = np.array_split(np.sort(level), min(bins, len(labels)))
    return ReliabilityCurve(
        confidence=np.array([levels[part].mean() for part in level]),
        accuracy=np.array([correct[part].mean() for part in level]),
        count=np.array([len(part) for part in level]),
    )


def expected_calibration_error(logits, labels, bins=15):
    """Mean distance between confidence and accuracy, in `[0, 1]`.

    `ECE = sum_b (n_b / N) |acc_b - conf_b|` over the bins `b` of
    `reliability_curve`, with `n_b` of the `N` samples in bin `b`, `acc_b` the
    share of them predicted right and `conf_b` their mean confidence. The bins
    have equal mass; the equal-width bins of Guo et al. give other numbers.
    With few samples per bin it is biased upwards, even for a calibrated model.

    The arguments and errors are as in `reliability_curve`.

    Source: Guo et al., ICML (2017), eq. 3; bins of equal mass from Nguyen and
    O'Connor, EMNLP (2015).

    >>> x = np.log([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.8, 0.2]])
    >>> round(expected_calibration_error(x, [0, 1, 0, 0], bins=2), 4)
    0.125
    """
    curve = reliability_curve(logits, labels, bins)
    gaps = np.abs(curve.accuracy - curve.confidence)
    return float(np.average(gaps, weights=curve.count))


def fit_temperature(logits, labels):
    """Finds the temperature with the smallest negative log-likelihood.

    `T = argmin_T (1/N) sum_i -log softmax(x_i / T)[y_i]` over `N` samples with
    logits `x_i` and labels `y_i`. Calibrated logits are `x / T`: a `T` above 1
    softens, below 1 sharpens. Fit it on samples that are in neither the
    training nor the test set. The mean is convex in `1/T`, so there is one
    minimum. The search is on `log T` within `[0.001, 1000]`. If the minimum is
    outside, it returns a bound: 0.001 if every sample is predicted right, 1000
    if the logits do worse than guessing. If no temperature does better than 1,
    as for logits that are all equal, it returns 1.

    Returns:
        The temperature, a float.

    Raises:
        ValueError: for logits or labels that are not valid.
        ImportError: if SciPy is missing.

    Source: Guo et al., ICML (2017), section 4.2.

    >>> logits = [[2.0, 0.0]] * 4  # p = 3/4 fits, so T = 2 / log 3.
    >>> round(fit_temperature(logits, [0, 0, 0, 1]), 4)
    1.8205
    """
    optimize = require("scipy.optimize")
    logits, labels = checked_predictions(logits, labels)

    def nll(log_temperature):
        return mean_nll(log_softmax(logits / math.exp(log_temperature)), labels)

    low, high = np.log(TEMPERATURES)
    found = optimize.minimize_scalar(
        nll, bounds=(low, high), method="bounded", options={"xatol": 1e-9}
    ).x
    # The search stays inside its bounds, and stops anywhere on a flat curve:
    # if temperatures are equally good, return the first one of this list.
    return math.exp(min((0.0, low, high, found), key=nll))


def is_bound(temperature):
    """Whether `fit_temperature` found no minimum, only a bound of its search.

    Logits divided by a bound are not calibrated. `fit_temperature` says when it
    returns a bound.

    >>> is_bound(fit_temperature([[2.0, 0.0]], [0])), is_bound(1.5)
    (True, False)
    """
    low, high = TEMPERATURES
    return temperature < 1.001 * low or temperature > high / 1.001
