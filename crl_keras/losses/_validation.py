"""Checks of arguments, labels and shapes, shared by all losses.

Values of arguments are checked when a loss is made, shapes when it is called.
Label values are never checked here, because they are unknown under `jax.jit` or
`tf.function`. Instead, `_cross_entropy` turns a label that is not a class id
into NaN or an exception.
"""

import math
from numbers import Integral
from numbers import Real
from typing import Any

import keras
from keras import ops

# Not -1: it is a common `ignore_class`, and a NaN label must not be ignored.
NO_CLASS = -(2**31)


def check_number(name, value, expected):
    """Returns `value` as a float; an error names the argument."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"`{name}` must be {expected}. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
        )
    value = float(value)
    # By comparison, which torch.compile can trace, unlike math.isfinite.
    if not -math.inf < value < math.inf:
        raise ValueError(
            f"`{name}` must be {expected}. Received: {name}={value}"
        )
    return value


def check_at_least_0(name, value):
    """Returns `value` as a float; an error names the argument."""
    value = check_number(name, value, "a finite number >= 0")
    if value < 0:
        raise ValueError(f"`{name}` must be >= 0. Received: {name}={value}")
    return value


def check_count(name, value, least):
    """Returns `value` as an int that is at least `least`, or raises."""
    expected = f"an integer >= {least}"
    value = check_number(name, value, expected)
    if value < least or value != int(value):
        raise ValueError(
            f"`{name}` must be {expected}. Received: {name}={value:g}"
        )
    return int(value)


def check_choice(name, value, choices):
    """Raises, naming the argument, unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(
            f"`{name}` must be one of: {', '.join(choices)}. "
            f"Received: {name}={value!r}"
        )


def check_alpha_beta(alpha, beta):
    """Returns `(alpha, beta)` as floats; an error names the argument.

    Both must be finite, with `alpha >= 0` and `alpha + beta >= 0`. Then the
    weight `1 + beta * p / (alpha + 1 - p)` of a sample is never negative.
    """
    alpha = check_at_least_0("alpha", alpha)
    beta = check_number("beta", beta, "a finite number")
    if alpha + beta < 0:
        raise ValueError(
            "`alpha + beta` must be >= 0, or the gradient of confident "
            "samples changes sign: raise `alpha` or `beta`. "
            f"Received: alpha={alpha}, beta={beta}"
        )
    return alpha, beta


def check_label_smoothing(label_smoothing):
    expected = "a number in [0, 1]"
    label_smoothing = check_number("label_smoothing", label_smoothing, expected)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(
            f"`label_smoothing` must be {expected}. "
            f"Received: label_smoothing={label_smoothing}"
        )
    return label_smoothing


def check_axis(axis):
    if isinstance(axis, bool) or not isinstance(axis, Integral):
        raise TypeError(
            "`axis` must be an int. "
            f"Received: axis={axis!r} of type {type(axis).__name__}"
        )
    return int(axis)


def check_from_logits(from_logits):
    # A number here is a positional argument meant for another loss.
    if from_logits not in (True, False):
        raise TypeError(
            "`from_logits` must be True or False. Received: "
            f"from_logits={from_logits!r} of type {type(from_logits).__name__}"
        )
    return bool(from_logits)


def check_ignore_class(ignore_class):
    if ignore_class is None:
        return None
    if isinstance(ignore_class, bool) or not isinstance(ignore_class, Real):
        raise TypeError(
            "`ignore_class` must be an integer class id or None. Received: "
            f"ignore_class={ignore_class!r} of type "
            f"{type(ignore_class).__name__}"
        )
    number: Any = ignore_class  # Type checkers cannot compare a Real.
    # NO_CLASS is excluded: labels that are not integers become NO_CLASS.
    in_range = NO_CLASS < number < 2**31
    if not in_range or int(number) != number:
        raise ValueError(
            "`ignore_class` must be an integer class id, within 32 bits, or "
            f"None. Received: ignore_class={ignore_class}"
        )
    return int(number)


def check_options(**options):
    """Checks arguments that many losses share, and returns them."""
    checks = {
        "from_logits": check_from_logits,
        "label_smoothing": check_label_smoothing,
        "ignore_class": check_ignore_class,
        "axis": check_axis,
    }
    return {name: checks[name](value) for name, value in options.items()}


def class_axis(y_pred, axis):
    """Returns `axis` counted from the front, checked against `y_pred`."""
    rank = len(y_pred.shape)
    if not -rank <= axis < rank:
        raise ValueError(
            f"`axis` must name one of the {rank} dimensions of `y_pred`. "
            f"Received: axis={axis}, y_pred.shape={tuple(y_pred.shape)}"
        )
    axis %= rank
    if y_pred.shape[axis] in (0, 1):
        raise ValueError(
            "`y_pred` must have at least 2 classes along `axis`: for a single "
            "sigmoid output, use two logits (0, x). "
            f"Received: axis={axis}, y_pred.shape={tuple(y_pred.shape)}"
        )
    return axis


def static_shape(x):
    """The shape as a tuple, None for unknown sizes; None if all is unknown."""
    try:
        return tuple(x.shape)
    except ValueError:  # TensorFlow: the rank itself is unknown.
        return None


def fits(shape, expected):
    return len(shape) == len(expected) and all(
        a is None or b is None or a == b
        for a, b in zip(shape, expected, strict=True)
    )


def check_dense_labels(y_true, y_pred, axis, function, label_smoothing=0.0):
    """Raises unless `y_true` holds one probability per class of `y_pred`.

    `function` is the public function that is called.
    """
    shape, expected = static_shape(y_true), tuple(y_pred.shape)
    if shape is None or fits(shape, expected):
        return
    message = (
        "`y_true` must hold one-hot or soft labels of the shape of `y_pred`. "
        f"Received: y_true.shape={shape}, y_pred.shape={expected}"
    )
    if any(fits(shape, other) for other in _sparse_shapes(expected, axis)):
        advice = _twin(function, "a loss for integer labels")
        message += f". These look like integer labels: use {advice}"
        if label_smoothing:
            message += (
                ", or, since `label_smoothing` needs one-hot labels, make "
                "them with keras.ops.one_hot"
            )
    raise ValueError(message)


def check_sparse_labels(y_true, y_pred, axis, function=None):
    """Raises unless `y_true` holds one class id per sample of `y_pred`.

    `function` is the public function that is called, if it is a loss.
    """
    shape, y_pred_shape = static_shape(y_true), tuple(y_pred.shape)
    expected, with_one = _sparse_shapes(y_pred_shape, axis)
    if shape is None or fits(shape, expected) or fits(shape, with_one):
        return
    message = (
        "`y_true` must hold integer labels of the shape of `y_pred` "
        f"without its class axis: {expected} or {with_one}. "
        f"Received: y_true.shape={shape}, y_pred.shape={y_pred_shape}, "
        f"axis={axis}"
    )
    if fits(shape, y_pred_shape):
        twin = _twin(function, None)
        message += ". These look like one-hot labels: " + (
            f"use {twin}" if twin else "take their keras.ops.argmax"
        )
    raise ValueError(message)


def _sparse_shapes(shape, axis):
    """The two shapes of integer labels for predictions of `shape`."""
    before, after = shape[:axis], shape[axis + 1 :]
    return before + after, (*before, 1, *after)


def _twin(function, otherwise):
    """The name in errors of the loss for the other form of the labels."""
    name = getattr(function, "__name__", "")
    twin = f"sparse_{name}"
    if name.startswith("sparse_"):
        twin = name.removeprefix("sparse_")
    if keras.saving.get_registered_object(f"crl_keras>{twin}") is None:
        return otherwise
    return f"{twin.title().replace('_', '')} ({twin})"


def integer_labels(y_true, y_pred, axis):
    """Returns the labels as exact integers of the shape of the loss.

    `y_true` has the shape of `y_pred` without its class axis, or with 1 there.
    A label that is not an integer becomes NO_CLASS.
    """
    y_true = ops.convert_to_tensor(y_true)
    check_sparse_labels(y_true, y_pred, axis)
    shape = static_shape(y_true)
    expected, with_one = _sparse_shapes(tuple(y_pred.shape), axis)
    if shape is None or (shape != expected and fits(shape, with_one)):
        # (N, 1) and (N,) would broadcast to (N, N).
        target = ops.shape(y_pred)
        y_true = ops.reshape(y_true, target[:axis] + target[axis + 1 :])
    return _to_integers(y_true)


def _to_integers(y_true):
    dtype = keras.backend.standardize_dtype(y_true.dtype)
    if dtype == "int64":
        return y_true
    if dtype in ("uint32", "uint64"):
        # int32 would turn 2**32 into class 0, and JAX has no int64 by default.
        if keras.backend.backend() != "jax":
            return ops.cast(y_true, "int64")
        fits_int32 = ops.less_equal(y_true, ops.cast(2**31 - 1, dtype))
        return ops.where(fits_int32, ops.cast(y_true, "int32"), NO_CLASS)
    if not keras.backend.is_float_dtype(dtype):
        return ops.cast(y_true, "int32")
    labels = ops.cast(y_true, "int32")
    is_integer = ops.equal(ops.cast(labels, "float32"), y_true)
    return ops.where(is_integer, labels, NO_CLASS)
