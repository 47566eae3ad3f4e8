"""L-Softmax and A-Softmax: cross-entropies with an angle margin.

They need more than class scores: the features before the last layer, the
weights of the last layer, and the number of the step. So each has two parts: a
last layer (`crl_keras.layers.LSoftmaxDense`, `ASoftmaxDense`), and a loss that
is the same for both (`SparseMarginCrossEntropy`). The layer does not know the
label, so in training it returns two numbers for each class: its score, and what
the score would be if the class were the correct one. The loss picks the second
for the label and the first for all others. In `predict`, `evaluate` and
validation the layer returns only the scores.

Both numbers are in the output because an output is plain data: compilers,
gradient checkpoints, mixed precision and devices that share a batch handle it
correctly, and no tensor outlives a trace. Other ways are weaker. A hidden
attribute of the output, like Keras's masks, is silently lost when an operation
changes the output, and training continues without a margin. A tensor that the
layer keeps for the loss leaks from JAX's traces, and replicas overwrite it.
Overriding `compute_loss` needs our own model class and does not see the
features. Labels as an input change `fit` and `predict`.

A score with margin is never above the score itself, so the largest number is
always a score, and accuracy is right in training too. Metrics that use other
numbers than the largest (top 5, cross-entropy) are right in validation only.
"""

import math
import numbers
from typing import Any

import keras
from keras import ops

from crl_keras.losses import _cross_entropy
from crl_keras.losses import _forms
from crl_keras.losses import _validation
from crl_keras.losses._functional import LossOperation
from crl_keras.losses._functional import has_keras_tensors
from crl_keras.losses._reduction import PerSampleLoss


@keras.saving.register_keras_serializable(package="crl_keras")
def sparse_l_softmax_loss(
    y_true: Any,
    features: Any,
    kernel: Any,
    *,
    margin: int = 4,
    annealing: Any = 0.0,
) -> Any:
    """Computes the L-Softmax loss of each sample, integer labels.

    With the features `x`, the column `W_j` of the kernel, the angle `t_j`
    between them, the correct class `c`, the margin `m` and the annealing
    `lambda`, it is the cross-entropy of the scores `W_j . x`. The score of
    class `c` is replaced by

    ```
    (lambda * W_c . x + |W_c| * |x| * psi(t_c)) / (1 + lambda)
    psi(t) = (-1) ** k * cos(m * t) - 2 * k,  k * pi / m <= t <= (k+1) * pi / m
    ```

    `psi` falls from 1 to `1 - 2 * m` and is at most the cosine, so the correct
    class has to win by a margin. `margin=1` is plain cross-entropy without a
    bias.

    This function is for your own training loop. With `compile` and `fit`, use
    `crl_keras.layers.LSoftmaxDense` and `SparseMarginCrossEntropy`, which also
    anneal the margin.

    Args:
        y_true: Class ids 0 to classes - 1, `(batch, ...)` or
            `(batch, ..., 1)`.
        features: Input of the last layer, `(batch, ..., features)`. For 16-bit
            floats the loss is computed in float32.
        kernel: Weights of the last layer, `(features, classes)`; no bias.
        margin: Integer >= 1, by default 4, the authors' value for their results
            on CIFAR.
        annealing: `lambda`, a number or scalar tensor >= 0, by default 0, the
            full margin.

    Returns:
        The loss of each sample, `(batch, ...)`, >= 0, in the dtype of the
        features; natural logarithm. If `x` or `W_c` is 0, the loss and its
        gradient are finite.

    Raises:
        TypeError, ValueError: If `margin` is not an integer >= 1, `annealing`
            is negative, or the shapes do not match.

    Example:

        >>> features, kernel = [[2.0, 0.0]], [[0.6, 0.0], [0.8, 1.0]]
        >>> for margin in (1, 4):
        ...     loss = sparse_l_softmax_loss(
        ...         [0], features, kernel, margin=margin
        ...     )
        ...     print(keras.ops.convert_to_numpy(loss).round(4))
        [0.2633]
        [2.4079]

    Reference:
        Liu et al., "Large-Margin Softmax Loss for Convolutional Neural
        Networks", arXiv:1612.02295; annealing and margin after
        wy1iu/LargeMargin_Softmax_Loss. The CRL paper compares with it but gives
        no margin.
    """
    return _margin_losses(
        sparse_l_softmax_loss,
        l_softmax_scores,
        (y_true, features, kernel),
        margin,
        annealing,
    )


@keras.saving.register_keras_serializable(package="crl_keras")
def sparse_a_softmax_loss(
    y_true: Any,
    features: Any,
    kernel: Any,
    *,
    margin: int = 4,
    annealing: Any = 0.0,
) -> Any:
    """Computes the A-Softmax (SphereFace) loss of each sample, integer labels.

    It is `sparse_l_softmax_loss` with every column of the kernel divided by its
    length: the cross-entropy of the scores `|x| * cos(t_j)`. The score of the
    correct class `c` is replaced by

    ```
    |x| * (lambda * cos(t_c) + psi(t_c)) / (1 + lambda)
    ```

    with the same `psi`. The features are not normalised. The gradient flows
    through the normalisation of the kernel. Instead, the authors' code projects
    the kernel in each step and scales its gradients by hand.

    Args:
        margin: Integer >= 1, by default 4 as in the authors' code.
        annealing: `lambda`, a number or scalar tensor >= 0, by default 0, the
            full margin; the authors never go below 5.

    `y_true`, `features`, `kernel` and the result are as in
    `sparse_l_softmax_loss`.

    Raises:
        TypeError, ValueError: As in `sparse_l_softmax_loss`.

    Example:

        >>> features, kernel = [[2.0, 0.0]], [[1.2, 0.0], [1.6, 1.0]]
        >>> loss = sparse_a_softmax_loss([0], features, kernel)
        >>> print(keras.ops.convert_to_numpy(loss).round(4))
        [2.4079]

    Reference:
        Liu et al., "SphereFace: Deep Hypersphere Embedding for Face
        Recognition", arXiv:1704.08063; annealing after wy1iu/sphereface. The
        CRL paper compares with it but gives no margin.
    """
    return _margin_losses(
        sparse_a_softmax_loss,
        a_softmax_scores,
        (y_true, features, kernel),
        margin,
        annealing,
    )


@keras.saving.register_keras_serializable(package="crl_keras")
def sparse_margin_cross_entropy(
    y_true: Any, y_pred: Any, *, classes: int
) -> Any:
    """Computes the loss of each sample for a last layer with a margin.

    `y_pred` is the output of `LSoftmaxDense` or `ASoftmaxDense`. In training it
    holds the scores `z` of all classes, followed by the scores with margin `t`.
    Otherwise it holds only `z`. With the correct class `c`:

    ```
    training:   -log(exp(t_c) / (exp(t_c) + sum_{k != c} exp(z_k)))
    otherwise:  -log(exp(z_c) / sum_k exp(z_k))
    ```

    Args:
        y_true: Class ids 0 to `classes - 1`, shaped like `y_pred` with the last
            axis removed or set to 1.
        y_pred: `(..., 2 * classes)` in training, else `(..., classes)`.
        classes: Number of classes, integer >= 2, the `units` of the layer.

    Returns:
        The loss of each sample, >= 0, the shape of `y_pred` without the last
        axis, in its dtype; natural logarithm.

    Raises:
        TypeError, ValueError: If `classes` is not an integer >= 2, or the
            shapes do not match.

    Example:

        >>> for y_pred in ([[2.0, 0.5, 1.0, 0.0]], [[2.0, 0.5]]):
        ...     loss = sparse_margin_cross_entropy([0], y_pred, classes=2)
        ...     print(keras.ops.convert_to_numpy(loss).round(4))
        [0.4741]
        [0.2014]

    Reference:
        Liu et al., arXiv:1612.02295, Eq. (4) to (6); arXiv:1704.08063.
    """
    classes = _validation.check_count("classes", classes, 2)

    def sparse(labels, y_pred, from_logits, axis):
        width = y_pred.shape[axis]
        if width == 2 * classes:
            scores, with_margin = y_pred[..., :classes], y_pred[..., classes:]
            is_label = _cross_entropy.one_hot(labels, scores, axis)
            y_pred = ops.where(is_label, with_margin, scores)
        elif width != classes:
            raise ValueError(
                "`y_pred` must have `classes` scores, and in training as many "
                "scores with margin after them: use the unchanged output of "
                "LSoftmaxDense or ASoftmaxDense. "
                f"Received: classes={classes}, "
                f"y_pred.shape={tuple(y_pred.shape)}"
            )
        return _cross_entropy.sparse_cross_entropy(
            labels, y_pred, from_logits, axis
        )

    function, loss = sparse_margin_cross_entropy, _forms.PerSample(None, sparse)
    if has_keras_tensors(y_true, y_pred):
        return LossOperation(function)(y_true, y_pred, classes=classes)
    return _forms.sparse_losses(function, loss, y_true, y_pred, True, None, -1)


def l_softmax_scores(features, kernel):
    """`W_j . x` and `|W_j| * |x|`."""
    norms = _norm(features, axis=-1) * _norm(kernel, axis=0)
    return ops.matmul(features, kernel), norms


def a_softmax_scores(features, kernel):
    """`|x| * cos(t_j)` and `|x|`."""
    kernel = kernel / _or_1(_norm(kernel, axis=0))
    return ops.matmul(features, kernel), _norm(features, axis=-1)


def with_margin(scores, norms, margin, annealing):
    """The score that each class would have if it were the correct class."""
    cosine = scores / _or_1(norms)
    # Rounding must not lift it above the score: accuracy relies on that.
    less = ops.minimum(norms * psi(cosine, margin) - scores, 0.0)
    return scores + less / (1.0 + annealing)


def psi(cosine, margin):
    """`(-1)^k cos(m t) - 2k` for `cosine = cos t`, `k = floor(m t / pi)`.

    `cos(m t)` is Chebyshev's polynomial of the cosine, and `k` is counted by
    comparing cosines: acos has no derivative at 1 and would be slow. `k` is
    piecewise constant, so no gradient goes through it.
    """
    k = ops.zeros_like(cosine)
    for i in range(1, margin):
        bound = math.cos(i * math.pi / margin)
        k = k + ops.cast(ops.less(cosine, bound), cosine.dtype)
    before, polynomial = 1.0, cosine
    for _ in range(margin - 1):
        before, polynomial = polynomial, 2.0 * cosine * polynomial - before
    return (1.0 - 2.0 * ops.mod(k, 2.0)) * polynomial - 2.0 * k


def annealed(step, base, gamma, power, minimum):
    """`max(minimum, base * (1 + gamma * step)^-power)`, step from 1."""
    step = ops.cast(step, "float32")
    decay = ops.exp(-power * ops.log1p(gamma * step))
    return ops.maximum(base * decay, minimum)


def _margin_losses(function, scores_of, inputs, margin, annealing):
    margin = _validation.check_count("margin", margin, 1)
    if isinstance(annealing, numbers.Real):
        annealing = _validation.check_at_least_0("annealing", annealing)
    if has_keras_tensors(*inputs, annealing):
        operation = LossOperation(function)
        return operation(*inputs, margin=margin, annealing=annealing)
    y_true, features, kernel = inputs
    features = ops.convert_to_tensor(features)
    features, dtype = _forms.at_least_float32(features)
    kernel = ops.convert_to_tensor(kernel, dtype=features.dtype)
    scores, norms = scores_of(features, kernel)
    wide = [scores, with_margin(scores, norms, margin, annealing)]
    losses = sparse_margin_cross_entropy(
        y_true, ops.concatenate(wide, axis=-1), classes=scores.shape[-1]
    )
    return ops.cast(losses, dtype)


def _norm(x, axis):
    square = ops.sum(ops.square(x), axis=axis, keepdims=True)
    # The root has no derivative at 0, which a ReLU before it can give.
    is_0 = ops.equal(square, 0.0)
    return ops.where(is_0, 0.0, ops.sqrt(ops.where(is_0, 1.0, square)))


def _or_1(norm):
    return ops.where(ops.equal(norm, 0.0), 1.0, norm)


@keras.saving.register_keras_serializable(package="crl_keras")
class SparseMarginCrossEntropy(PerSampleLoss):
    """The loss for a last layer with a margin, integer labels.

    Use it with `crl_keras.layers.LSoftmaxDense` (L-Softmax) or `ASoftmaxDense`
    (A-Softmax, SphereFace) as the last layer. It takes the output of the layer
    unchanged. In training it is the cross-entropy with the score of the correct
    class reduced by the margin. In `evaluate` and validation it is the plain
    cross-entropy of the scores. A loss only sees the labels and the output, so
    in training the layer returns both scores of each class.

    Args:
        classes: Number of classes, integer >= 2, the `units` of the layer.

    `reduction`, `name`, `dtype` and the call are as in
    `SparseCompetingRatioLoss`. Predictions are always scores, never
    probabilities.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range; when called, if the shapes do not match.

    Example:

        >>> from crl_keras.layers import LSoftmaxDense
        >>> model = keras.Sequential([keras.Input((4,)), LSoftmaxDense(3)])
        >>> loss = SparseMarginCrossEntropy(3)
        >>> model.compile("sgd", loss, metrics=["accuracy"])
        >>> x, labels = np.ones((6, 4), "float32"), np.arange(6) % 3
        >>> history = model.fit(x, labels, verbose=0)
        >>> model.predict(x, verbose=0).shape
        (6, 3)

    Reference:
        Liu et al., arXiv:1612.02295, and arXiv:1704.08063.
    """

    function = staticmethod(sparse_margin_cross_entropy)

    def __init__(
        self,
        classes: int,
        reduction: str | None = "sum_over_batch_size",
        name: str = "sparse_margin_cross_entropy",
        dtype: Any = None,
    ) -> None:
        classes = _validation.check_count("classes", classes, 2)
        super().__init__(reduction, name, dtype, classes=classes)
