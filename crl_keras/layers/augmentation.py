"""Augmentation of small images."""

from typing import Any

import keras
from keras import ops

__all__ = ["RandomPadCrop"]


@keras.saving.register_keras_serializable(package="crl_keras")
class RandomPadCrop(keras.layers.Layer):
    """Pads images with black and crops each image at a random place.

    The layer pads every image with `padding` zeros on all four sides and crops
    it back to its size. The offsets are drawn uniformly from 0 to
    `2 * padding`, for height and width and for each image separately.
    `torchvision.transforms.RandomCrop(size, padding)` does the same. It is the
    usual augmentation for CIFAR. Pixels are moved and never interpolated, so
    the layer can be used before or after the pixels are scaled. Before scaling,
    the border is black.

    Args:
        padding: Pixels, integer >= 0. Defaults to `4`.
        seed: Integer in [0, 2**31), or None to draw it from Keras's global
            seed. Defaults to `None`. On PyTorch, seeds close to each other give
            the same stream, shifted in time: see `augmentation_layers`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`. Images are
            not cast to `dtype`.

    Call arguments:
        images: `(batch, height, width, channels)`, integer or float. All sizes
            except the batch must be known. In `tf.data` the layer works on
            TensorFlow only.
        training: Whether to crop; otherwise the images are returned unchanged.

    Returns:
        Images of the shape and dtype of the input.

    Raises:
        TypeError: If `padding` is not an integer.
        ValueError: If `padding` is negative, or the images are not of rank 4.

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

    def __init__(
        self, padding: int = 4, seed: int | None = None, **kwargs: Any
    ) -> None:
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

    def call(self, images: Any, training: bool = False) -> Any:
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

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def compute_output_spec(self, images: Any, training: bool = False) -> Any:
        # The default would return the layer's dtype instead.
        return keras.KerasTensor(images.shape, dtype=images.dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "padding": self.padding,
            "seed": self.seed,
        }
