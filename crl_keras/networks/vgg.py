"""VGG with batch normalisation for small images."""

from collections.abc import Sequence

import keras
from keras import layers

from crl_keras.networks._blocks import check_shape
from crl_keras.networks._blocks import conv
from crl_keras.networks._blocks import norm
from crl_keras.networks._blocks import pooled_logits
from crl_keras.networks._blocks import relu

WIDTHS = (64, 128, 256, 512, 512)


def vgg16(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds VGG16 with batch normalisation and one linear layer.

    The network has five stages of 2, 2, 3, 3 and 3 conv3x3-BN-ReLU with 64,
    128, 256, 512 and 512 channels. A 2x2 max-pooling ends each stage; a linear
    layer ends the network. The convolutions have biases, although batch
    normalisation cancels them. There is no dropout, and VGG's two layers of
    4096 units for ImageNet are left out. The network has 14,728,266 trainable
    parameters at 10 classes and 14,774,436 at 100. The authors' code has 10
    outputs only.

    As in PyTorch, batch normalisation has momentum 0.9 and epsilon 1e-5, and
    weights and biases start from `U(+-1 / sqrt(fan_in))`. `build_network` says
    what differs.

    Args:
        input_shape: `(height, width, channels)`, at least 32 x 32. The five
            poolings reduce 32 x 32 to one pixel; a larger map is averaged.
        classes: Number of classes, at least 2.

    The result and the errors are as in `build_network`.

    Source: models/vgg.py of guoyurong0104/CRL-code @b66d835, the same as in
    kuangliu/pytorch-cifar; Simonyan and Zisserman,
    [Very Deep Networks](https://arxiv.org/abs/1409.1556).
    """
    check_shape("vgg16", input_shape, classes, smallest=32)
    return _vgg(input_shape, classes, (2, 2, 3, 3, 3), WIDTHS, "vgg16")


def vgg19(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds VGG19: `vgg16` with 2, 2, 4, 4 and 4 convolutions in its stages.

    It has 20,040,522 trainable parameters at 10 classes and 20,086,692 at 100.

    Arguments, result, errors and source are as in `vgg16`.
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
