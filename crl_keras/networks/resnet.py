"""ResNet-34, 50 and 101 for small images, in the authors' or usual widths."""

from collections.abc import Sequence

import keras
from keras import layers

from crl_keras.networks._blocks import check_count
from crl_keras.networks._blocks import check_shape
from crl_keras.networks._blocks import conv
from crl_keras.networks._blocks import norm
from crl_keras.networks._blocks import pooled_logits
from crl_keras.networks._blocks import relu


def resnet34(
    input_shape: Sequence[int], classes: int, width: int = 16
) -> keras.Model:
    """Builds a ResNet-34 for CIFAR: 16 basic blocks in four stages.

    The network starts with conv3x3-BN-ReLU. Four stages of 3, 4, 6 and 3 blocks
    follow, with 1, 2, 4 and 8 times `width` channels; all but the first halve
    the map. It ends in global average pooling and a linear layer. A block is
    conv3x3-BN-ReLU-conv3x3-BN, plus its shortcut, then ReLU. The shortcut is
    conv1x1-BN if the shapes differ. No convolution has a bias.

    The paper says "ResNet-34", but its code has a quarter of the usual widths:
    16, 32, 64 and 128. These are the default. `width=64` builds the usual
    network, as `resnet34_w64` does. At 10 / 100 classes the network has
    1,334,618 / 1,346,228 trainable parameters, at width 64 21,282,122 /
    21,328,292. The authors train 100 outputs on the 10 classes of CIFAR-10 too,
    because their `main.py` calls `ResNet34()` without an argument. We do not.

    As in PyTorch, stride-2 convolutions pad one pixel on all sides, batch
    normalisation has momentum 0.9 and epsilon 1e-5, and the weights and the
    bias of the last layer start from `U(+-1 / sqrt(fan_in))`. `build_network`
    says what differs.

    Args:
        input_shape: `(height, width, channels)`, designed for 32 x 32; any
            size from 8 x 8 works.
        classes: Number of classes, at least 2.
        width: Channels of the first stage, at least 1. Defaults to `16`. The
            name of the model ends in `_w` and any other width.

    The result and the errors are as in `build_network`.

    Example:

        >>> resnet34((32, 32, 3), 100).output_shape
        (None, 100)

    Source: models/resnet.py of guoyurong0104/CRL-code @b66d835, with a quarter
    of the widths of kuangliu/pytorch-cifar; He et al.,
    [Deep Residual Learning](https://arxiv.org/abs/1512.03385).
    """
    return _build(34, input_shape, classes, width)


def resnet50(
    input_shape: Sequence[int], classes: int, width: int = 16
) -> keras.Model:
    """Builds a ResNet-50 for CIFAR: `resnet34` with bottleneck blocks.

    A block is conv1x1-BN-ReLU-conv3x3-BN-ReLU-conv1x1-BN, the last with four
    times the channels, plus its shortcut, then ReLU. The 3x3 convolution has
    the stride. The first block of every stage has a projection. Everything else
    is as in `resnet34`. At 10 / 100 classes the network has 1,484,186 /
    1,530,356 trainable parameters, at width 64 23,520,842 / 23,705,252.

    Arguments, result, errors and source are as in `resnet34`.
    """
    return _build(50, input_shape, classes, width)


def resnet101(
    input_shape: Sequence[int], classes: int, width: int = 16
) -> keras.Model:
    """Builds a ResNet-101 for CIFAR: `resnet50` with 23 blocks in stage 3.

    At 10 / 100 classes the network has 2,680,986 / 2,727,156 trainable
    parameters, at width 64 42,512,970 / 42,697,380.

    Arguments, result, errors and source are as in `resnet34`.
    """
    return _build(101, input_shape, classes, width)


def resnet34_w64(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds `resnet34` in its usual widths, 64 to 512."""
    return resnet34(input_shape, classes, width=64)


def resnet50_w64(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds `resnet50` in its usual widths, 64 to 512 (times four)."""
    return resnet50(input_shape, classes, width=64)


def resnet101_w64(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds `resnet101` in its usual widths, 64 to 512 (times four)."""
    return resnet101(input_shape, classes, width=64)


def basic(x, width, strides):
    """conv3x3-BN-ReLU-conv3x3-BN, plus the shortcut, then ReLU."""
    y = relu(norm(conv(x, width, strides=strides)))
    y = norm(conv(y, width))
    return relu(layers.Add()([_shortcut(x, width, strides), y]))


def bottleneck(x, width, strides):
    """conv1x1, conv3x3, conv1x1 to four times the width; else as `basic`."""
    y = relu(norm(conv(x, width, 1)))
    y = relu(norm(conv(y, width, strides=strides)))
    y = norm(conv(y, 4 * width, 1))
    return relu(layers.Add()([_shortcut(x, 4 * width, strides), y]))


BLOCKS = {
    34: (basic, (3, 4, 6, 3)),
    50: (bottleneck, (3, 4, 6, 3)),
    101: (bottleneck, (3, 4, 23, 3)),
}


def _build(depth, input_shape, classes, width):
    check_count("width", width)
    name = f"resnet{depth}" if width == 16 else f"resnet{depth}_w{width}"
    check_shape(name, input_shape, classes, smallest=8)
    return _resnet(input_shape, classes, *BLOCKS[depth], width, name)


def _resnet(input_shape, classes, block, counts, width, name):
    inputs = keras.Input(input_shape)
    x = relu(norm(conv(inputs, width)))
    for stage, count in enumerate(counts):
        for i in range(count):
            strides = 2 if stage and not i else 1
            x = block(x, width * 2**stage, strides)
    return keras.Model(inputs, pooled_logits(x, classes), name=name)


def _shortcut(x, filters, strides):
    if strides == 1 and x.shape[-1] == filters:
        return x
    return norm(conv(x, filters, 1, strides))
