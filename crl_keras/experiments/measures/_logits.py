"""Helpers on checked logits, for the scores and the calibration."""

import numpy as np


def predicted(logits):
    return np.argmax(logits, axis=1)


def log_softmax(logits):
    largest = predicted(logits)[:, None]
    shifted = logits - np.take_along_axis(logits, largest, axis=1)
    others = np.exp(shifted)
    np.put_along_axis(others, largest, 0.0, axis=1)
    # log(1 + others): adding 1e-20 to the largest term, 1, would lose it.
    return shifted - np.log1p(others.sum(axis=1, keepdims=True))


def mean_nll(log_probabilities, labels):
    # scikit-learn's log_loss clips the probabilities, so exp(-1000) and
    # 1 - exp(-50) would be lost. `+ 0.0` turns -0.0, from a model that is sure
    # and right, into 0.0.
    return float(-np.mean(of_labels(log_probabilities, labels)) + 0.0)


def of_labels(values, labels):
    return np.take_along_axis(values, labels[:, None], axis=1)[:, 0]
