"""Checks the arguments of `statistics` and `scores`; errors name them."""

from numbers import Integral
from numbers import Real

import numpy as np

LARGEST = 1e100
SMALLEST = 1e-100  # Squares of smaller spreads would underflow.


def checked_values(name, values):
    """Float64 values, one per run."""
    values = _one_dimensional(name, values, "one value per run")
    if values.dtype.kind not in "iuf":
        raise ValueError(
            f"`{name}` must be numbers: leave out the runs without a number. "
            f"Received: {values.dtype}"
        )
    values = values.astype(np.float64)
    # Not `> LARGEST`: NaN compares as false.
    wrong = ~(np.abs(values) <= LARGEST)
    if wrong.any():
        raise ValueError(
            f"`{name}` must be finite and at most {LARGEST:g} in magnitude: "
            "leave out the runs that diverged, in pairs both. Received: "
            f"{values[wrong][0]} at index {np.argmax(wrong)}"
        )
    return values


def checked_flags(name, flags):
    """Booleans, one per sample."""
    flags = _one_dimensional(name, flags, "one boolean per sample")
    if flags.dtype.kind != "b" and flags.size:
        raise ValueError(
            f"`{name}` must be booleans: pass `predictions == labels`. "
            f"Received: {flags.dtype}"
        )
    return flags.astype(bool)


def _one_dimensional(name, values, entries):
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(
            f"`{name}` must be one-dimensional, {entries}. "
            f"Received: shape {values.shape}"
        )
    return values


def check_same_length(name_a, a, name_b, b):
    if len(a) != len(b):
        raise ValueError(
            f"`{name_a}` and `{name_b}` must be paired, with equal lengths: "
            "leave out the entries that only one of them has. "
            f"Received: lengths {len(a)} and {len(b)}"
        )


def checked_number(name, value, low, high):
    """`value` as a float in `[low, high]`."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise ValueError(
            f"`{name}` must be a number from {low:g} to {high:g}. "
            f"Received: {value!r}"
        )
    return float(value)


def checked_integer(name, value, low, classes=None):
    """`value` as an int, at least `low`, at most the number of classes."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    high = value if classes is None else classes
    if not is_integer or not low <= value <= high:
        allowed = f"of {low} or more"
        if classes is not None:
            allowed = f"from {low} to the number of classes, {classes}"
        raise ValueError(
            f"`{name}` must be an integer {allowed}. Received: {name}={value!r}"
        )
    return int(value)


def checked_predictions(logits, labels):
    """Float64 logits and int64 labels of the same samples."""
    logits = checked_logits(logits)
    labels = np.asarray(labels)
    samples, classes = logits.shape
    if labels.shape != (samples,):
        raise ValueError(
            "`labels` must have one class number per sample, shape "
            f"({samples},). For one-hot labels pass the argmax, for shape "
            "(samples, 1) pass the column. Received: labels of shape "
            f"{labels.shape}"
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
            f"{classes} classes: renumber them, or drop these samples. "
            f"Received: {labels[wrong][0]} at index {np.argmax(wrong)}, "
            f"{np.sum(wrong)} such"
        )
    return logits, labels.astype(np.int64)


def checked_logits(logits):
    """Float64 logits, shape `[samples, classes]`."""
    logits = np.asarray(logits)
    shape = logits.shape
    if logits.ndim != 2 or shape[0] < 1 or shape[1] < 2:
        raise ValueError(
            "`logits` must have shape (samples, classes), at least 1 and 2. "
            "From a single logit x per sample make two, 0 and x. "
            f"Received: shape {shape}"
        )
    # "V": types such as bfloat16, which NumPy has only through an extension.
    if logits.dtype.kind not in "iufV":
        raise ValueError(
            f"`logits` must be real numbers. Received: {logits.dtype}"
        )
    logits = logits.astype(np.float64)
    # Not `> LARGEST`: NaN compares as false.
    wrong = ~(np.abs(logits) <= LARGEST)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"`logits` must be finite and at most {LARGEST:g} in "
            "magnitude: drop the runs or samples that diverged, and clip "
            "probabilities of 0 before taking their logarithm. Received: "
            f"{logits[row, column]} in row {row}, column {column}"
        )
    return logits


def checked_pairs(a, b):
    """`a`, `b`, and how far rounding alone moves equal differences apart."""
    a, b = checked_values("a", a), checked_values("b", b)
    check_same_length("a", a, "b", b)
    return a, b, rounding_of(np.concatenate([a, b]))


def rounding_of(values):
    """How far rounding alone moves two equal values apart."""
    largest = np.max(np.abs(values), initial=0.0)
    return 8 * np.finfo(np.float64).eps * largest + SMALLEST


def checked_difference(mean_a, mean_b):
    """`mean_a - mean_b`."""
    mean_a = checked_number("mean_a", mean_a, -LARGEST, LARGEST)
    return mean_a - checked_number("mean_b", mean_b, -LARGEST, LARGEST)


def checked_stds(std_a, std_b):
    """Both deviations, as 0 if their squares would underflow."""
    std_a = checked_number("std_a", std_a, 0.0, LARGEST)
    std_b = checked_number("std_b", std_b, 0.0, LARGEST)
    return [std if std > SMALLEST else 0.0 for std in (std_a, std_b)]
