"""MobileNetV2 for small images, as the paper's authors build it."""

from collections.abc import Sequence

import keras
from keras import layers

from crl_keras.networks._blocks import check_shape
from crl_keras.networks._blocks import conv
from crl_keras.networks._blocks import norm
from crl_keras.networks._blocks import pad
from crl_keras.networks._blocks import pooled_logits
from crl_keras.networks._blocks import relu
from crl_keras.networks._blocks import torch_uniform

# Expansion, channels, blocks, strides of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenetv2(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds MobileNetV2 for CIFAR: 17 inverted residuals, three strides.

    The network starts with a conv3x3-BN-ReLU to 32 channels. Seven stages of 1,
    2, 3, 4, 3, 3 and 1 blocks follow, with 16, 24, 32, 64, 96, 160 and 320
    channels; the third, fourth and sixth halve the map. It ends in a
    conv1x1-BN-ReLU to 1280 channels, global average pooling and a linear layer.
    A block expands its channels by 6 (in the first stage by 1) with
    conv1x1-BN-ReLU, filters each channel with a depthwise conv3x3-BN-ReLU, and
    projects with conv1x1-BN. Blocks of stride 1 add their input. If the
    channels differ, the input passes a conv1x1-BN first. No convolution has a
    bias. The network has 2,296,922 trainable parameters at 10 classes and
    2,412,212 at 100.

    The paper gives its depth as 54: the 51 convolutions of the blocks, the
    first and the last convolution, and the linear layer. Shortcuts are not
    counted.

    It differs from the MobileNetV2 paper: ReLU instead of ReLU6, strides for
    small images (32 x 32), projections on shortcuts, no dropout.

    As in PyTorch, stride-2 convolutions pad one pixel on all sides, batch
    normalisation has momentum 0.9 and epsilon 1e-5, and the weights and the
    bias of the last layer start from `U(+-1 / sqrt(fan_in))`, with a fan-in of
    9 for a depthwise kernel. `build_network` says what differs.

    Args:
        input_shape: `(height, width, channels)`, designed for 32 x 32; any
            size from 8 x 8 works.
        classes: Number of classes, at least 2.

    The result and the errors are as in `build_network`.

    Source: models/mobilenetv2.py of guoyurong0104/CRL-code @b66d835, the
    same as in kuangliu/pytorch-cifar; Sandler et al.,
    [MobileNetV2](https://arxiv.org/abs/1801.04381).
    """
    check_shape("mobilenetv2", input_shape, classes, smallest=8)
    return _mobilenet(input_shape, classes, STAGES, 1280, "mobilenetv2")


def _mobilenet(input_shape, classes, stages, last_filters, name):
    inputs = keras.Input(input_shape)
    x = relu(norm(conv(inputs, 32)))
    for expansion, filters, blocks, first_strides in stages:
        for block in range(blocks):
            strides = 1 if block else first_strides
            x = _inverted_residual(x, expansion, filters, strides)
    x = relu(norm(conv(x, last_filters, 1)))
    return keras.Model(inputs, pooled_logits(x, classes), name=name)


def _inverted_residual(x, expansion, filters, strides):
    y = relu(norm(conv(x, expansion * x.shape[-1], 1)))
    y = relu(norm(_depthwise(y, strides)))
    y = norm(conv(y, filters, 1))
    if strides != 1:
        return y
    if x.shape[-1] != filters:
        x = norm(conv(x, filters, 1))
    return layers.Add()([x, y])


def _depthwise(x, strides):
    x, padding = pad(x, 3, strides)
    return layers.DepthwiseConv2D(
        3,
        strides=strides,
        padding=padding,
        use_bias=False,
        data_format="channels_last",
        depthwise_initializer=torch_uniform(9),
    )(x)
