"""Cross-entropy and margin of each sample, which all our losses need.

Each backend computes the cross-entropy in its fastest exact way. TensorFlow and
PyTorch have fused kernels, which Keras calls. JAX has none. There the formula
below is compiled to fewer passes over the classes than Keras's own formula.
"""

import keras
from keras import ops

# Replaces a logit of -inf: its exponential is 0, but 0 times it is 0 too.
LOWEST = -1e38


def dense_cross_entropy(y_true, y_pred, from_logits, axis):
    """`-sum_k y_k log p_k` along `axis`, as Keras computes it.

    Unlike Keras, it takes 0 times infinity as 0: a logit of -inf may mask a
    class that is not the label. If the label is a masked class, the loss is
    inf.
    """
    backend = keras.backend.backend()
    if from_logits and backend == "jax":
        shifted, log_partition, _ = _shift(y_pred, axis)
        # The sum is 1, except for rows that are not a distribution, such as
        # zeros that mark padding. For those we do what Keras does.
        log_partition = ops.sum(y_true, axis=axis) * log_partition
        return log_partition - _sum_of_products(y_true, shifted, y_pred, axis)
    if from_logits and backend == "torch":
        log_p = ops.log_softmax(y_pred, axis=axis)
        # `_sum_of_products` drops NaN; this adds it again. If one logit is NaN,
        # all of log_p is NaN. Otherwise log_p is at most 0.
        nan_or_0 = log_p.detach().select(axis, 0).relu()
        nan_or_0 = ops.sum(y_true, axis=axis) * nan_or_0
        return nan_or_0 - _sum_of_products(y_true, log_p, y_pred, axis)
    if from_logits:  # TensorFlow's kernel, which must not get -inf.
        cross_entropy = ops.categorical_crossentropy(
            y_true, _finite(y_pred), from_logits=True, axis=axis
        )
        # The label is a masked class: no finite logits give such a value.
        is_masked = ops.greater(cross_entropy, 1e30)
        return cross_entropy + ops.where(is_masked, float("inf"), 0.0)
    return ops.categorical_crossentropy(y_true, y_pred, axis=axis)


def sparse_cross_entropy(labels, y_pred, from_logits, axis):
    """`-log p_c` along `axis`, for exact integer labels.

    A label that is not a class id gives NaN, or an exception if the backend's
    kernel raises one.
    """
    if not from_logits:
        # On TensorFlow Keras's sparse cross-entropy clips before it
        # renormalises. On other backends it clips after that, and the dense one
        # always does.
        is_label = one_hot(labels, y_pred, axis)
        cross_entropy = dense_cross_entropy(
            ops.cast(is_label, y_pred.dtype), y_pred, from_logits, axis
        )
        return ops.where(
            ops.any(is_label, axis=axis), cross_entropy, float("nan")
        )
    # A label past the end gives NaN or raises on every backend. On TensorFlow a
    # negative label does too.
    past_the_end = ops.shape(y_pred)[axis]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        # This changes no label, but XLA fuses int64 labels better after an
        # operation.
        labels = ops.maximum(labels, -(2**31))
    if backend == "torch":  # PyTorch would ignore -100.
        labels = ops.where(ops.equal(labels, -100), past_the_end, labels)
    if backend == "jax":  # Negative labels would count from the end.
        labels = ops.where(ops.less(labels, 0), past_the_end, labels)
        shifted, log_partition, _ = _shift(y_pred, axis)
        logit = ops.take_along_axis(
            shifted, ops.expand_dims(labels, axis), axis=axis
        )
        return log_partition - ops.squeeze(logit, axis=axis)
    if backend == "tensorflow" and axis != len(y_pred.shape) - 1:
        # Its kernel takes the last axis only. + 0: a `tf.Variable` has no
        # `ndim`.
        y_pred = ops.moveaxis(y_pred + 0, axis, -1)
        axis = -1
    return ops.sparse_categorical_crossentropy(
        labels, y_pred, from_logits=True, axis=axis
    )


def probabilities(y_pred, from_logits, axis):
    """The softmax of logits, or probabilities that sum to 1; not clipped."""
    if from_logits:
        return ops.softmax(y_pred, axis=axis)
    return y_pred / ops.sum(y_pred, axis=axis, keepdims=True)


def dense_margin(y_true, logits, axis):
    """Returns `(cross_entropy, margin, is_hard)` of every sample.

    If `is_hard`, the label is one-hot and `margin` is as in `sparse_margin`.
    Otherwise `margin` has no meaning. The cross-entropy is then at least the
    entropy of the label, and still exact to the last digits.
    """
    # At most one class has more than half of the label. If no class has, the
    # cross-entropy is at least log(2), and any reference logit will do.
    total = ops.sum(y_true, axis=axis)
    is_label = ops.greater(y_true, 0.5 * ops.expand_dims(total, axis))
    has_label = ops.any(is_label, axis=axis)
    logit = ops.sum(ops.where(is_label, logits, 0.0), axis=axis)
    largest = ops.stop_gradient(ops.amax(logits, axis=axis))
    logit = ops.where(has_label, logit, largest)
    difference = logits - ops.expand_dims(logit, axis)
    margin = _logsumexp(ops.where(is_label, LOWEST, difference), axis)
    rest = -_sum_of_products(y_true, difference, logits, axis)
    log_partition = ops.where(has_label, ops.softplus(margin), margin)
    cross_entropy = total * log_partition + rest
    # Tests the label, not `rest`, which is 0 for equal logits too.
    is_0 = ops.logical_or(is_label, ops.equal(y_true, 0.0))
    is_hard = ops.logical_and(ops.equal(total, 1.0), ops.all(is_0, axis=axis))
    is_hard = ops.logical_and(is_hard, has_label)
    return cross_entropy, margin, is_hard


def sparse_margin(labels, logits, axis):
    """`logsumexp_{k != c} x_k - x_c`; NaN if the label is no class id."""
    is_label = one_hot(labels, logits, axis)
    logit = ops.sum(ops.where(is_label, logits, 0.0), axis=axis, keepdims=True)
    # Subtract first: a later difference of logits of 1e4 would lose digits.
    margin = _logsumexp(ops.where(is_label, LOWEST, logits - logit), axis)
    return ops.where(ops.any(is_label, axis=axis), margin, float("nan"))


def _sum_of_products(y_true, x, logits, axis):
    """`sum_k y_k x_k`; if a logit is -inf and `y_k` is 0, `x_k` may be -inf."""
    if keras.backend.backend() == "torch":
        # The gradient of a plain sum is right here, but its value is not. So
        # the right value is copied into it, in two passes over the classes;
        # `where` takes six. NaN of other causes returns through the logsumexp.
        products = y_true * x
        result = ops.sum(products, axis=axis)
        result.detach().copy_(products.detach().nansum(axis))
        return result
    # Tests the logits, not x: compilers would compute x again, not keep it.
    is_masked = ops.logical_and(
        ops.equal(y_true, 0.0), ops.equal(logits, -float("inf"))
    )
    return ops.sum(y_true * ops.where(is_masked, 0.0, x), axis=axis)


def _finite(logits):
    """`logits` with LOWEST in place of -inf; the gradient does not change.

    For a replaced logit the gradient is already 0: the class has no probability
    and is not the label. Computing it with `where` would take another pass.
    """

    @ops.custom_gradient
    def finite(logits):
        return ops.maximum(logits, LOWEST), lambda upstream: upstream

    return finite(logits)


def _shift(logits, axis):
    """Logits minus maximum, log of the sum of their exponentials, and maximum.

    Without the shift, logits of 1e4 would leave 3 digits of a difference.
    """
    # Not ops.max, which breaks the graph of `torch.compile`.
    largest = ops.amax(logits, axis=axis, keepdims=True)
    largest = ops.stop_gradient(largest)
    shifted = logits - largest
    log_sum = ops.log(ops.sum(ops.exp(shifted), axis=axis))
    return shifted, log_sum, ops.squeeze(largest, axis=axis)


def _logsumexp(x, axis):
    # Not ops.logsumexp: on PyTorch its gradient is exp(x - result), which at
    # 1e4 is off by 1e-4.
    _, log_sum, largest = _shift(x, axis)
    return largest + log_sum


def one_hot(labels, logits, axis):
    """True for the class of the label; all False if it is no class id."""
    shape = [1] * len(logits.shape)
    shape[axis] = ops.shape(logits)[axis]
    classes = ops.arange(shape[axis], dtype=labels.dtype)
    classes = ops.reshape(classes, shape)
    return ops.equal(classes, ops.expand_dims(labels, axis))
