"""Last layers with a margin: L-Softmax and A-Softmax."""

from typing import Any

import keras
from keras import ops

from crl_keras.losses import _validation
from crl_keras.losses import large_margin
from crl_keras.losses._forms import at_least_float32

__all__ = ["ASoftmaxDense", "LSoftmaxDense"]


@keras.saving.register_keras_serializable(package="crl_keras")
class LSoftmaxDense(keras.layers.Layer):
    """The last layer for L-Softmax: class scores, with a margin in training.

    It is a dense layer without a bias. Use it with the loss
    `crl_keras.losses.SparseMarginCrossEntropy(units)`. For the formulas of the
    scores and the margin see `crl_keras.losses.sparse_l_softmax_loss`. The
    margin is annealed. At training step `i`, counted from 1,

    ```
    lambda = max(minimum, base * (1 + gamma * i) ** -power)
    ```

    So training starts near plain cross-entropy (`lambda` large) and ends at the
    full margin (`lambda` 0). `step` counts the calls in training. It is a
    weight: it is saved with the model, and continues in a second `fit`.
    `layer.step.assign(0)` resets it.

    Args:
        units: Number of classes, integer >= 2.
        margin: Integer >= 1, `m`. Defaults to `4`, the authors' value for their
            results on CIFAR; the CRL paper gives none.
        base: Number >= 0. Defaults to `1000`.
        gamma: Number >= 0. Defaults to `2.5e-5`.
        power: Number >= 0. Defaults to `35`.
        minimum: Number >= 0. Defaults to `0`.
        kernel_initializer: Defaults to `"glorot_uniform"`.
        kernel_regularizer: Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`. Under a
            mixed policy, `dtype="float32"` keeps the scores precise.

    The schedule is from the authors' MNIST example with `m = 4`: `lambda` is
    421 at step 1,000, 16 at 5,000 and 0.4 at 10,000. In a shorter or longer
    training, change `gamma` in inverse proportion to the steps. If `lambda`
    falls too fast, the loss diverges. The authors then advise a smaller `gamma`
    or a `minimum` of 0.5 to 10.

    Call arguments:
        features: `(batch, ..., features)`, float.
        training: Whether to add the scores with margin.

    Returns:
        Scores `(batch, ..., units)`; in training `(batch, ..., 2 * units)`, the
        scores followed by the scores with margin. The largest number is always
        a score, so accuracy is exact in training too. Metrics that use more
        than the largest number are exact in validation only.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range.

    Example:

        >>> layer = LSoftmaxDense(3)
        >>> features = np.ones((2, 8), "float32")
        >>> for training in (False, True):
        ...     print(tuple(layer(features, training=training).shape))
        (2, 3)
        (2, 6)

    Source: Liu et al., [Large-Margin Softmax
    Loss](https://arxiv.org/abs/1612.02295); schedule after
    wy1iu/LargeMargin_Softmax_Loss.
    """

    def __init__(
        self,
        units: int,
        margin: int = 4,
        base: float = 1000.0,
        gamma: float = 2.5e-5,
        power: float = 35.0,
        minimum: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = _validation.check_count("units", units, 2)
        self.margin = _validation.check_count("margin", margin, 1)
        self.base = _validation.check_at_least_0("base", base)
        self.gamma = _validation.check_at_least_0("gamma", gamma)
        self.power = _validation.check_at_least_0("power", power)
        self.minimum = _validation.check_at_least_0("minimum", minimum)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        # A weight, so that it is saved and resumed training continues exactly.
        self.step = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )

    def call(self, features: Any, training: bool = False) -> Any:
        # Squares of 16-bit features overflow.
        features, _ = at_least_float32(ops.convert_to_tensor(features))
        kernel = ops.cast(self.kernel, features.dtype)
        scores, norms = self.scores(features, kernel)
        if not training:
            return ops.cast(scores, self.compute_dtype)
        self.step.assign_add(1)
        annealing = large_margin.annealed(
            self.step, self.base, self.gamma, self.power, self.minimum
        )
        annealing = ops.cast(annealing, scores.dtype)
        with_margin = large_margin.with_margin(
            scores, norms, self.margin, annealing
        )
        both = ops.concatenate([scores, with_margin], axis=-1)
        return ops.cast(both, self.compute_dtype)

    def scores(self, features: Any, kernel: Any) -> Any:
        return large_margin.l_softmax_scores(features, kernel)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape outside of training, which a model shows."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "margin": self.margin,
            "base": self.base,
            "gamma": self.gamma,
            "power": self.power,
            "minimum": self.minimum,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
            "kernel_regularizer": keras.regularizers.serialize(
                self.kernel_regularizer
            ),
        }


@keras.saving.register_keras_serializable(package="crl_keras")
class ASoftmaxDense(LSoftmaxDense):
    """The last layer for A-Softmax (SphereFace): scores, with an angle margin.

    It is `LSoftmaxDense` with every column of the kernel divided by its length.
    The scores are `|x| * cos(t_j)`, in training and outside. Use it with the
    loss `crl_keras.losses.SparseMarginCrossEntropy(units)`. For the formulas
    see `crl_keras.losses.sparse_a_softmax_loss`. The counter, the annealing and
    the shapes are as in `LSoftmaxDense`.

    Args:
        units: Number of classes, integer >= 2.
        margin: Integer >= 1, `m`. Defaults to `4` as in the authors' code.
        base: Number >= 0. Defaults to `1000`.
        gamma: Number >= 0. Defaults to `0.12`.
        power: Number >= 0. Defaults to `1`.
        minimum: Number >= 0. Defaults to `5`: the full margin is never reached.
        kernel_initializer: Defaults to `"glorot_uniform"`.
        kernel_regularizer: Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`. Under a
            mixed policy, `dtype="float32"` keeps the scores precise.

    The schedule is from the authors' sphereface_model.prototxt, with 28,000
    steps: `lambda` is 77 at step 100, 8.3 at 1,000 and 5 from 1,659 on.

    Call, result and errors are as in `LSoftmaxDense`. The layer before should
    also give negative values: after a ReLU all angles are narrow.

    Example:

        >>> layer = ASoftmaxDense(3)
        >>> tuple(layer(np.ones((2, 8), "float32"), training=True).shape)
        (2, 6)

    Source: Liu et al., [SphereFace](https://arxiv.org/abs/1704.08063); schedule
    after wy1iu/sphereface. That code scales gradients by hand and projects the
    kernel. This layer uses the gradients of the formula.
    """

    def __init__(
        self,
        units: int,
        margin: int = 4,
        base: float = 1000.0,
        gamma: float = 0.12,
        power: float = 1.0,
        minimum: float = 5.0,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            units,
            margin,
            base,
            gamma,
            power,
            minimum,
            kernel_initializer,
            kernel_regularizer,
            **kwargs,
        )

    def scores(self, features: Any, kernel: Any) -> Any:
        return large_margin.a_softmax_scores(features, kernel)
