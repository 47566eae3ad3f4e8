"""Keras layers: augmentation of small images, and last layers with a margin."""

import keras
from keras import ops

from crl_keras.losses import _validation
from crl_keras.losses import large_margin
from crl_keras.losses._forms import at_least_float32


@keras.saving.register_keras_serializable(package="crl_keras")
class RandomPadCrop(keras.layers.Layer):
    """Pads images with black and crops each at a place of its own.

    Every image is padded with `padding` zeros on all four sides and cropped
    back to its size, with offsets drawn uniformly from 0 to `2 * padding`, for
    height and width and for each image apart. This is what
    `torchvision.transforms.RandomCrop(size, padding)` does, and the usual
    augmentation for CIFAR. Pixels are moved and never interpolated, so it may
    stand before or after a scaling; before it, the border is black.

    Args:
        padding: Pixels, integer >= 0. Defaults to `4`.
        seed: Integer in [0, 2**31) or None, drawn then from Keras's global
            seed. Defaults to `None`. On PyTorch, seeds close to each other
            give the same stream, shifted in time: see `augmentation_layers`.
        **kwargs: Those of `keras.layers.Layer`: `name`, `dtype`. Images are
            not cast to it.

    Call arguments:
        images: `(batch, height, width, channels)`, integer or float; all but
            the batch must be known sizes. In `tf.data`, on TensorFlow alone.
        training: Whether to crop; otherwise the images come back as they are.

    Returns:
        Images of the shape and dtype of the input.

    Raises:
        TypeError: `padding` is not an integer.
        ValueError: `padding` is negative, or the images are not of rank 4.

    Example:

    >>> images = np.ones((2, 8, 8, 1), "uint8")
    >>> crops = RandomPadCrop(padding=4, seed=0)(images, training=True)
    >>> tuple(crops.shape), keras.backend.standardize_dtype(crops.dtype)
    ((2, 8, 8, 1), 'uint8')

    Source: He et al.,
    [Deep Residual Learning](https://arxiv.org/abs/1512.03385), section 4.2.
    """

    # `keras.layers.RandomCrop` is no substitute: it "will crop all the images
    # in the same batch to the same cropping location" (its docstring, and its
    # code, Keras 3.15.1), does not pad, and stops compilation on JAX.

    def __init__(self, padding=4, seed=None, **kwargs):
        # No autocast: under a mixed policy 16-bit floats would round pixels.
        super().__init__(autocast=False, **kwargs)
        if isinstance(padding, bool) or not isinstance(padding, int):
            raise TypeError(
                "`padding` must be an integer. "
                f"Received: padding={padding!r}, type={type(padding)}"
            )
        if padding < 0:
            raise ValueError(f"`padding` must be >= 0. Received: {padding}")
        self.padding = padding
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, images, training=False):
        if not training or not self.padding:
            return images
        images = ops.convert_to_tensor(images)
        _, height, width, channels = images.shape
        offsets = keras.random.randint(
            (ops.shape(images)[0], 2),
            0,
            2 * self.padding + 1,
            seed=self.seed_generator,
        )
        around = [self.padding, self.padding]
        padded = ops.pad(images, [[0, 0], around, around, [0, 0]])
        # One gather over flattened pixels: half the time of two, one for the
        # rows and one for the columns.
        padded_width = width + 2 * self.padding
        rows = offsets[:, :1] + ops.arange(height, dtype="int32")
        columns = offsets[:, 1:] + ops.arange(width, dtype="int32")
        pixels = rows[:, :, None] * padded_width + columns[:, None, :]
        crops = ops.take_along_axis(
            ops.reshape(
                padded,
                (-1, (height + 2 * self.padding) * padded_width, channels),
            ),
            ops.reshape(pixels, (-1, height * width, 1)),
            axis=1,
        )
        return ops.reshape(crops, (-1, height, width, channels))

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, images, training=False):
        # The default would announce the layer's dtype instead.
        return keras.KerasTensor(images.shape, dtype=images.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "padding": self.padding,
            "seed": self.seed,
        }


class MarginDense(keras.layers.Layer):
    """Base of the last layers with a margin: kernel, counter and schedule.

    Subclasses have `scores`: features and kernel to scores and their scale.
    """

    def __init__(
        self,
        units,
        margin,
        base,
        gamma,
        power,
        minimum,
        kernel_initializer,
        kernel_regularizer,
        **kwargs,
    ):
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

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        # A weight, and so saved: a training that is resumed goes on exactly.
        self.step = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
            name="step",
        )

    def call(self, features, training=False):
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

    def compute_output_shape(self, input_shape):
        """Outside of training, which is what a model announces."""
        return (*input_shape[:-1], self.units)

    def get_config(self):
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
class LSoftmaxDense(MarginDense):
    """The last layer for L-Softmax: class scores, in training with a margin.

    A dense layer without a bias. It goes with
    `crl_keras.losses.SparseMarginCrossEntropy(units)`; the formulas of the
    scores and of the margin are those of
    `crl_keras.losses.sparse_l_softmax_loss`. The margin is annealed: with the
    number `i` of the training step, from 1,

    ```
    lambda = max(minimum, base * (1 + gamma * i) ** -power)
    ```

    so that training starts near plain cross-entropy (`lambda` large) and ends
    at the full margin (`lambda` 0). `step` counts the calls in training. It is
    a weight, saved with the model, and goes on in a second `fit`; set it back
    by `layer.step.assign(0)`.

    Args:
        units: Number of classes, integer >= 2.
        margin: Integer >= 1, `m`. Defaults to `4`, as the authors say for
            their results on CIFAR; the CRL paper does not say.
        base: Number >= 0. Defaults to `1000`.
        gamma: Number >= 0. Defaults to `2.5e-5`.
        power: Number >= 0. Defaults to `35`.
        minimum: Number >= 0. Defaults to `0`.
        kernel_initializer: Defaults to `"glorot_uniform"`.
        kernel_regularizer: Defaults to `None`.
        **kwargs: Those of `keras.layers.Layer`: `name`, `dtype`. Under a mixed
            policy, `dtype="float32"` keeps the digits of the scores.

    The schedule is that of the authors' MNIST example at `m = 4`: `lambda` is
    421 at step 1,000, 16 at 5,000 and 0.4 at 10,000. In a shorter or longer
    training, change `gamma` in inverse proportion to the steps. A `lambda` that
    falls too fast makes the loss diverge; the authors then advise a smaller
    `gamma` or a `minimum` of 0.5 to 10.

    Call arguments:
        features: `(batch, ..., features)`, float.
        training: Whether to add the scores with margin.

    Returns:
        Scores `(batch, ..., units)`; in training `(batch, ..., 2 * units)`,
        the scores with margin after the others. Their largest is a score, so
        accuracy is exact in training too; metrics that look at more than the
        largest number are exact in validation only.

    Raises:
        TypeError, ValueError: An argument is of another type or out of its
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
        units,
        margin=4,
        base=1000.0,
        gamma=2.5e-5,
        power=35.0,
        minimum=0.0,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
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

    def scores(self, features, kernel):
        return large_margin.l_softmax_scores(features, kernel)


@keras.saving.register_keras_serializable(package="crl_keras")
class ASoftmaxDense(MarginDense):
    """The last layer for A-Softmax (SphereFace): scores, with an angle margin.

    `LSoftmaxDense` with every column of the kernel divided by its length: the
    scores are `|x| * cos(t_j)`, in training and outside. The formulas are those
    of `crl_keras.losses.sparse_a_softmax_loss`; the loss is
    `crl_keras.losses.SparseMarginCrossEntropy(units)`; the counter, the
    annealing and the shapes are those of `LSoftmaxDense`.

    Args:
        units: Number of classes, integer >= 2.
        margin: Integer >= 1, `m`. Defaults to `4` as in the authors' code.
        base: Number >= 0. Defaults to `1000`.
        gamma: Number >= 0. Defaults to `0.12`.
        power: Number >= 0. Defaults to `1`.
        minimum: Number >= 0. Defaults to `5`: the margin never acts alone.
        kernel_initializer: Defaults to `"glorot_uniform"`.
        kernel_regularizer: Defaults to `None`.
        **kwargs: Those of `keras.layers.Layer`: `name`, `dtype`. Under a mixed
            policy, `dtype="float32"` keeps the digits of the scores.

    The schedule is that of the authors' sphereface_model.prototxt, of 28,000
    steps: `lambda` is 77 at step 100, 8.3 at 1,000 and 5 from 1,659 on.

    Call arguments:
        features: `(batch, ..., features)`, float. The layer before it should
            be able to become negative: after a ReLU all angles are narrow.
        training: Whether to add the scores with margin.

    Returns:
        As `LSoftmaxDense`.

    Raises:
        TypeError, ValueError: An argument is of another type or out of its
            range.

    Example:

    >>> layer = ASoftmaxDense(3)
    >>> features = np.ones((2, 8), "float32")
    >>> for training in (False, True):
    ...     print(tuple(layer(features, training=training).shape))
    (2, 3)
    (2, 6)

    Source: Liu et al., [SphereFace](https://arxiv.org/abs/1704.08063);
    schedule after wy1iu/sphereface. Its code scales gradients by hand and
    projects the kernel; here they are the gradients of the formula.
    """

    def __init__(
        self,
        units,
        margin=4,
        base=1000.0,
        gamma=0.12,
        power=1.0,
        minimum=5.0,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
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

    def scores(self, features, kernel):
        return large_margin.a_softmax_scores(features, kernel)
