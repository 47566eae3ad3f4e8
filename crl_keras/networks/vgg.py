"""VGG with batch normalisation for small images."""

import keras
from keras import layers

from crl_keras.networks._blocks import check_shape
from crl_keras.networks._blocks import conv
from crl_keras.networks._blocks import norm
from crl_keras.networks._blocks import pooled_logits
from crl_keras.networks._blocks import relu

WIDTHS = (64, 128, 256, 512, 512)


def vgg16(input_shape, classes):
    """Builds VGG16 with batch normalisation and one linear layer.

    Five stages of conv3x3-BN-ReLU, 2, 2, 3, 3 and 3 of them with 64, 128, 256,
    512 and 512 channels, each stage followed by 2x2 max-pooling; then a linear
    layer. The convolutions have biases, though batch normalisation cancels
    them. No dropout and none of the two layers of 4096 units that VGG has on
    ImageNet. 14,728,266 trainable parameters at 10 classes, 14,774,436 at
    100; the authors' code has 10 outputs only.

    As in PyTorch: batch normalisation with momentum 0.9 and epsilon 1e-5;
    weights and biases from `U(+-1 / sqrt(fan_in))`. What remains different: the
    running variance is that of the batch, in PyTorch its unbiased estimate;
    and before PyTorch 1.2, so in the 1.0 of the paper, the scales of batch
    normalisation began as `U(0, 1)`, here and since then as 1.

    Args:
        input_shape: `(height, width, channels)`, at least 32 x 32, which the
            five poolings bring to one pixel. Of larger maps the mean is taken.
        classes: Number of classes, at least 2.

    Returns:
        `keras.Model` from scaled float images to float32 logits
        `(batch, classes)`.

    Raises:
        ValueError: `input_shape` or `classes` is no such thing, or the images
            are smaller than 32 x 32.

    Source: models/vgg.py of guoyurong0104/CRL-code @b66d835, which is that of
    kuangliu/pytorch-cifar; Simonyan and Zisserman,
    [Very Deep Networks](https://arxiv.org/abs/1409.1556).
    """
    check_shape("vgg16", input_shape, classes, smallest=32)
    return _vgg(input_shape, classes, (2, 2, 3, 3, 3), WIDTHS, "vgg16")


def vgg19(input_shape, classes):
    """Builds VGG19: `vgg16` with 2, 2, 4, 4 and 4 convolutions a stage.

    20,040,522 trainable parameters at 10 classes, 20,086,692 at 100.

    Args:
        input_shape: As in `vgg16`.
        classes: As in `vgg16`.

    Returns:
        As `vgg16`.

    Raises:
        ValueError: As in `vgg16`.

    Source: as `vgg16`.
    """
    check_shape("vgg19", input_shape, classes, smallest=32)
    return _vgg(input_shape, classes, (2, 2, 4, 4, 4), WIDTHS, "vgg19")


def _vgg(input_shape, classes, counts, widths, name):
    inputs = keras.Input(input_shape)
    x = inputs
    for count, width in zip(counts, widths, strict=True):
        for _ in range(count):
            x = relu(norm(conv(x, width, bias=True)))
        x = layers.MaxPooling2D(data_format="channels_last")(x)
    return keras.Model(inputs, pooled_logits(x, classes), name=name)
