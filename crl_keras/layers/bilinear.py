"""Bilinear pooling of feature maps, exact and compact."""

import random
from typing import Any

import keras
from keras import ops

from crl_keras.losses import _validation
from crl_keras.losses._forms import at_least_float32

__all__ = ["BilinearPooling", "CompactBilinearPooling"]


class _Normalised(keras.layers.Layer):
    """Base class: pools, then applies signed square root and L2 norm."""

    def __init__(
        self, epsilon: float, norm_epsilon: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.epsilon = _above_0("epsilon", epsilon)
        self.norm_epsilon = _above_0("norm_epsilon", norm_epsilon)

    def call(self, inputs: Any) -> Any:
        streams = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        # Sums of hundreds of products of 16-bit features lose precision.
        streams = [
            at_least_float32(ops.convert_to_tensor(x))[0] for x in streams
        ]
        first, second = _positions(streams[0]), _positions(streams[-1])
        pooled = self.pool(first, second)
        rooted = signed_square_root(pooled, self.epsilon)
        return ops.cast(
            l2_normalised(rooted, self.norm_epsilon), self.compute_dtype
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        shapes = [input_shape]
        if isinstance(input_shape[0], (list, tuple)):
            shapes = input_shape
        for shape in shapes:
            if len(shape) != 4:
                raise ValueError(
                    "Expected feature maps (batch, height, width, channels). "
                    f"Received: shape={tuple(shape)}"
                )
        if len(shapes) > 2 or any(
            a is not None and b is not None and a != b
            for a, b in zip(shapes[0][:3], shapes[-1][:3], strict=True)
        ):
            raise ValueError(
                "Expected one feature map, or two of the same height and "
                "width. "
                f"Received: shapes={[tuple(shape) for shape in shapes]}"
            )
        channels = shapes[0][-1], shapes[-1][-1]
        if None in channels:
            raise ValueError(
                "Expected a known number of channels. "
                f"Received: shapes={[tuple(shape) for shape in shapes]}"
            )
        return (shapes[0][0], self.units(*channels))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "epsilon": self.epsilon,
            "norm_epsilon": self.norm_epsilon,
        }


@keras.saving.register_keras_serializable(package="crl_keras")
class BilinearPooling(_Normalised):
    r"""Pools the outer products of features over all places of an image.

    With the features $a_p \in R^m$ and $b_p \in R^n$ at the $P$ places of two
    feature maps (with one map, $b = a$),

    $$G = \frac{1}{P} \sum_p a_p b_p^T, \quad z = \mathrm{vec}(G), \quad
    s_i = \mathrm{sign}(z_i)
    \left(\sqrt{|z_i| + \epsilon} - \sqrt{\epsilon}\right), \quad
    y = \frac{s}{\sqrt{\sum_i s_i^2 + \epsilon_2}}$$

    $G$ is flattened by rows: index `i * n + j` belongs to channel `i` of the
    first map and channel `j` of the second. The norm is taken over the whole
    vector. The gradient is finite everywhere: the slope of the root is at most
    $1 / (2 \sqrt\epsilon)$, 158 with the default, and 0 at exactly 0.

    Args:
        epsilon: Number > 0, in the root. Defaults to `1e-5`, as in the authors'
            PyTorch code. With `epsilon` near 0 the slope of the root at 0 is
            not finite, and training stays at chance.
        norm_epsilon: Number > 0, in the norm. Defaults to `1e-10`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`. The layer
            computes in float32 or better, and returns the dtype of its policy.
            Under a mixed policy, `dtype="float32"` keeps the precision.

    Call arguments:
        inputs: `(batch, height, width, m)`, float; or a list of two maps, the
            second `(batch, height, width, n)`.

    Returns:
        `(batch, m * n)`, with norm 1, or norm 0 if all features are 0.

    Raises:
        ValueError: If `epsilon` or `norm_epsilon` is not above 0, or the inputs
            are not one feature map or two of the same height and width.

    Example:

        >>> features = np.random.default_rng(0).random((2, 7, 5, 8), "float32")
        >>> pooled = BilinearPooling()(features)
        >>> tuple(pooled.shape), f"{float(keras.ops.norm(pooled[0])):.4f}"
        ((2, 64), '1.0000')

    Source: Lin, RoyChowdhury and Maji, [Bilinear CNN Models for Fine-grained
    Visual Recognition](https://arxiv.org/abs/1504.07889), Section 3; the root
    as in cvl-umass/bilinear-cnn @d6a05aa.
    """

    def __init__(
        self,
        epsilon: float = 1e-5,
        norm_epsilon: float = 1e-10,
        **kwargs: Any,
    ) -> None:
        super().__init__(epsilon, norm_epsilon, **kwargs)

    def pool(self, first: Any, second: Any) -> Any:
        places = ops.cast(ops.shape(first)[1], first.dtype)
        products = ops.matmul(ops.transpose(first, (0, 2, 1)), second)
        size = first.shape[-1] * second.shape[-1]
        return ops.reshape(products / places, (-1, size))

    def units(self, first: int, second: int) -> int:
        return first * second


@keras.saving.register_keras_serializable(package="crl_keras")
class CompactBilinearPooling(_Normalised):
    r"""Kernel pooling: approximates polynomials of features by few numbers.

    The layer pools a random map $\phi: R^m \to R^d$ of the features over all
    places. In expectation over the seed, its products are a polynomial kernel:

    $$E\left[\phi(x)^T \phi(y)\right] = (x^T y)^r, \quad
    \phi(x) = F^{-1}\left(F(C_1 x) \cdots F(C_r x)\right), \quad
    C_k x = \sum_i s_k(i)\, x_i\, e_{h_k(i)}$$

    $F$ is the Fourier transform. The seed determines the signs $s_k(i)$ and the
    indices $h_k(i)$. Each $C_k x$ is a count sketch, and the transform
    convolves the sketches. With order 2 the layer approximates
    `BilinearPooling`, with `d` numbers instead of `m * m`. The mean over
    places, the signed root and the norm are as in `BilinearPooling`. The layer
    has no weights.

    Args:
        dimensions: Integer >= 2, `d`. Defaults to `8192`.
        order: Integer >= 1, `r`. Defaults to `2`.
        seed: Integer >= 0. Defaults to `0`.
        epsilon: As in `BilinearPooling`.
        norm_epsilon: As in `BilinearPooling`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        inputs: `(batch, height, width, m)`, float; or, with order 2, a list of
            two maps of the same height and width: the first factor is a sketch
            of the first map, the second factor of the second map.

    Returns:
        `(batch, dimensions)`, with norm 1.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range, or there are two inputs and the order is not 2.

    Example:

        >>> features = np.random.default_rng(0).random((2, 7, 5, 8), "float32")
        >>> tuple(CompactBilinearPooling(32)(features).shape)
        (2, 32)

    Source: Gao et al., [Compact Bilinear
    Pooling](https://arxiv.org/abs/1511.06062), Section 3.2, Tensor Sketch; Cui
    et al., Kernel Pooling for Convolutional Neural Networks, CVPR 2017.
    """

    def __init__(
        self,
        dimensions: int = 8192,
        order: int = 2,
        seed: int = 0,
        epsilon: float = 1e-5,
        norm_epsilon: float = 1e-10,
        **kwargs: Any,
    ) -> None:
        super().__init__(epsilon, norm_epsilon, **kwargs)
        self.dimensions = _validation.check_count("dimensions", dimensions, 2)
        self.order = _validation.check_count("order", order, 1)
        self.seed = _validation.check_count("seed", seed, 0)

    def pool(self, first: Any, second: Any) -> Any:
        transform: Any = None
        for factor in range(self.order):
            x = second if factor == 1 else first
            one = ops.rfft(self.sketch(x, factor))
            transform = one if transform is None else _product(transform, one)
        # The transform is linear: one inverse after the mean over places is
        # enough.
        transform = [ops.mean(part, axis=1) for part in transform]
        return ops.irfft(tuple(transform), fft_length=self.dimensions)

    def sketch(self, x: Any, factor: int) -> Any:
        """`C_k x` of `(batch, places, m)`: `(batch, places, dimensions)`."""
        # Python's generator: the same on every backend, and no weights.
        draw = random.Random(f"{self.seed} {factor}")
        channels = x.shape[-1]
        places = [draw.randrange(self.dimensions) for _ in range(channels)]
        signs = [draw.choice((-1.0, 1.0)) for _ in range(channels)]
        signed = x * ops.convert_to_tensor(signs, dtype=x.dtype)
        rows = ops.reshape(signed, (-1, channels))
        sums = ops.segment_sum(
            ops.transpose(rows),
            ops.convert_to_tensor(places, dtype="int32"),
            num_segments=self.dimensions,
        )
        shape = (-1, ops.shape(x)[1], self.dimensions)
        return ops.reshape(ops.transpose(sums), shape)

    def units(self, first: int, second: int) -> int:
        return self.dimensions

    def compute_output_shape(self, input_shape: Any) -> Any:
        two = isinstance(input_shape[0], (list, tuple)) and len(input_shape) > 1
        if two and self.order != 2:
            raise ValueError(
                f"Two feature maps need `order=2`. Received: order={self.order}"
            )
        return super().compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dimensions": self.dimensions,
            "order": self.order,
            "seed": self.seed,
        }


def signed_square_root(x: Any, epsilon: float = 1e-5) -> Any:
    """`sign(x) * (sqrt(|x| + epsilon) - sqrt(epsilon))`, slope 0 at 0."""
    root = epsilon**0.5

    # Not a difference of two roots, which cancels if x is small.
    def of_positive(x: Any) -> Any:
        return x / (ops.sqrt(x + epsilon) + root)

    return of_positive(ops.relu(x)) - of_positive(ops.relu(-x))


def l2_normalised(x: Any, epsilon: float = 1e-10) -> Any:
    """`x` divided by its length; the gradient at 0 is finite.

    The gradient of `keras.ops.normalize` at 0 is NaN.
    """
    squares = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(squares + epsilon)


def _positions(x: Any) -> Any:
    """`(batch, places, channels)` of feature maps."""
    places = ops.shape(x)[1] * ops.shape(x)[2]
    return ops.reshape(x, (-1, places, x.shape[-1]))


def _product(a: Any, b: Any) -> tuple[Any, Any]:
    """Product of complex numbers, given as (real, imaginary)."""
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


def _above_0(name: str, value: float) -> float:
    value = _validation.check_at_least_0(name, value)
    if value == 0:
        raise ValueError(f"`{name}` must be > 0. Received: {name}={value}")
    return value
