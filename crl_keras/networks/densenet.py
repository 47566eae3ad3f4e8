"""DenseNet for small images, without bottlenecks or compression."""

from collections.abc import Sequence

import keras
from keras import layers

from crl_keras.networks._blocks import check_count
from crl_keras.networks._blocks import check_shape
from crl_keras.networks._blocks import he_conv
from crl_keras.networks._blocks import norm
from crl_keras.networks._blocks import pooled_logits
from crl_keras.networks._blocks import relu

GROWTH = 12


def densenet40(
    input_shape: Sequence[int], classes: int, first_filters: int = 16
) -> keras.Model:
    """Builds DenseNet-40 with growth rate 12: three blocks of 12 layers.

    The network starts with a conv3x3 without BN. A layer appends the 12
    channels of a BN-ReLU-conv3x3 to its input. Between the blocks are a
    BN-ReLU-conv1x1, which keeps the number of channels, and 2x2
    average-pooling. The network ends in BN-ReLU, global average pooling and a
    linear layer. No convolution has a bias. There is no dropout, as published
    for training with augmentation. At 10 / 100 classes the network has
    1,019,722 / 1,060,132 trainable parameters, with `first_filters=24`
    1,059,298 / 1,100,428.

    The paper gives only the name DenseNet-40, and the authors' repository does
    not contain it. The paper's cross-entropy results (5.32 and 24.64 % error)
    are near those that Huang et al. publish for this network (5.24 and
    24.42 %).

    As in the official code, convolutions start from
    `N(0, 2 / (k * k * filters))` for a k x k kernel, and the last layer from
    `U(+-1 / sqrt(fan_in))` with a bias of 0. Batch normalisation has momentum
    0.9 and epsilon 1e-5. `build_network` says what differs.

    Args:
        input_shape: `(height, width, channels)`, designed for 32 x 32; any
            size from 4 x 4 works.
        classes: Number of classes, at least 2.
        first_filters: Channels of the first convolution, at least 1. Defaults
            to `16`, which gives the published 1.0M parameters. The official
            code has 24 channels, twice the growth rate.

    The result and the errors are as in `build_network`.

    Source: Huang et al.,
    [DenseNet](https://arxiv.org/abs/1608.06993); initial weights after
    models/densenet.lua of liuzhuang13/DenseNet @6d4c8da.
    """
    check_shape("densenet40", input_shape, classes, smallest=4)
    check_count("first_filters", first_filters)
    return _densenet(input_shape, classes, 12, first_filters, "densenet40")


def _densenet(input_shape, classes, depth, first_filters, name):
    inputs = keras.Input(input_shape)
    x = he_conv(inputs, first_filters)
    for block in range(3):
        if block:
            x = he_conv(relu(norm(x)), x.shape[-1], 1)
            x = layers.AveragePooling2D(2, data_format="channels_last")(x)
        for _ in range(depth):
            new = he_conv(relu(norm(x)), GROWTH)
            x = layers.Concatenate()([x, new])
    x = pooled_logits(relu(norm(x)), classes, bias_initializer="zeros")
    return keras.Model(inputs, x, name=name)
