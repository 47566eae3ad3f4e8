"""The pre-activation ResNet-164 for small images."""

from collections.abc import Sequence

import keras
from keras import layers

from crl_keras.networks._blocks import check_shape
from crl_keras.networks._blocks import he_conv
from crl_keras.networks._blocks import norm
from crl_keras.networks._blocks import pooled_logits
from crl_keras.networks._blocks import relu

WIDTHS = (16, 32, 64)


def resnet164(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds the pre-activation ResNet-164: 54 bottleneck blocks.

    The network starts with a conv3x3 to 16 channels. Three stages of 18 blocks
    with widths 16, 32 and 64 follow; the second and third halve the map. It
    ends in BN-ReLU, global average pooling and a linear layer. A block is
    BN-ReLU-conv1x1-BN-ReLU-conv3x3-BN-ReLU-conv1x1, the last with four times
    the width, plus its shortcut. In the first block of a stage the shortcut is
    a conv1x1 without BN on the output of the block's first BN-ReLU. In all
    other blocks it is the input. The network has 1,703,258 trainable parameters
    at 10 classes and 1,726,388 at 100.

    The paper cites the first ResNet paper for this network, but its code builds
    the network of the second.

    As in PyTorch, stride-2 convolutions pad one pixel on all sides, and batch
    normalisation has momentum 0.9 and epsilon 1e-5. Convolutions start from
    `N(0, 2 / (k * k * filters))` for a k x k kernel, the last layer and its
    bias from `U(+-1/16)`. `build_network` says what differs.

    Args:
        input_shape: `(height, width, channels)`, designed for 32 x 32; any
            size from 4 x 4 works.
        classes: Number of classes, at least 2.

    The result and the errors are as in `build_network`.

    Source: `preact_resnet164_cifar` in models/resnet_cifar.py of
    guoyurong0104/CRL-code @b66d835; He et al.,
    [Identity Mappings](https://arxiv.org/abs/1603.05027).
    """
    check_shape("resnet164", input_shape, classes, smallest=4)
    return _preact_resnet(input_shape, classes, blocks=18, name="resnet164")


def _preact_resnet(input_shape, classes, blocks, name):
    inputs = keras.Input(input_shape)
    x = he_conv(inputs, WIDTHS[0])
    for stage, width in enumerate(WIDTHS):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            x = _bottleneck(x, width, strides)
    x = relu(norm(x))
    return keras.Model(inputs, pooled_logits(x, classes), name=name)


def _bottleneck(x, width, strides):
    y = relu(norm(x))
    if strides != 1 or x.shape[-1] != 4 * width:
        x = he_conv(y, 4 * width, 1, strides)
    y = he_conv(y, width, 1)
    y = he_conv(relu(norm(y)), width, strides=strides)
    y = he_conv(relu(norm(y)), 4 * width, 1)
    return layers.Add()([x, y])
