"""The ResNet-20 for small images, as in PyTorch."""

from collections.abc import Sequence

import keras
from keras import layers
from keras import ops

from crl_keras.networks._blocks import check_shape
from crl_keras.networks._blocks import he_conv
from crl_keras.networks._blocks import norm
from crl_keras.networks._blocks import pooled_logits
from crl_keras.networks._blocks import relu

WIDTHS = (16, 32, 64)


def resnet20(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds the ResNet-20 for CIFAR: three stages of three basic blocks.

    The stages have 16, 32 and 64 channels. A block is
    conv3x3-BN-ReLU-conv3x3-BN, plus its shortcut, then ReLU. Shortcuts have no
    parameters: at the start of a stage they take every second pixel and add
    channels of zeros, half of them on each side (option A of the paper, which
    it uses for CIFAR). The network has 269,722 trainable parameters at 3
    channels and 10 classes; the published number is 0.27M. `count_params()`
    adds the 1,376 running statistics.

    As in PyTorch, stride-2 convolutions pad one pixel on all sides (Keras's
    "same" pads at the right and the bottom only), convolutions have no bias,
    and batch normalisation has momentum 0.9 and epsilon 1e-5. Convolutions
    start from `N(0, 2 / (9 * filters))` (He et al. 2015, by fan-out), the last
    layer and its bias from `U(-1/8, 1/8)`. `build_network` says what differs.

    Args:
        input_shape: `(height, width, channels)`, designed for 32 x 32; any
            size from 4 x 4 works.
        classes: Number of classes, at least 2.

    The result and the errors are as in `build_network`.

    Example:

        >>> resnet20((32, 32, 3), 10).count_params() - 1376
        269722

    Source: He et al.,
    [Deep Residual Learning](https://arxiv.org/abs/1512.03385), section 4.2.
    """
    check_shape("resnet20", input_shape, classes, smallest=4)
    return _resnet(input_shape, classes, blocks=3, name="resnet20")


def _resnet(input_shape, classes, blocks, name):
    inputs = keras.Input(input_shape)
    x = relu(norm(he_conv(inputs, WIDTHS[0])))
    for stage, width in enumerate(WIDTHS):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            x = _basic_block(x, width, strides)
    return keras.Model(inputs, pooled_logits(x, classes), name=name)


def _basic_block(x, width, strides):
    y = relu(norm(he_conv(x, width, strides=strides)))
    y = norm(he_conv(y, width))
    return relu(layers.Add()([_shortcut(x, width, strides), y]))


def _shortcut(x, width, strides):
    if strides != 1:
        # Pools of one pixel: x[:, ::strides, ::strides].
        x = layers.AveragePooling2D(
            1, strides=strides, data_format="channels_last"
        )(x)
    new = width - x.shape[-1]
    if new:
        x = ops.pad(x, [[0, 0], [0, 0], [0, 0], [new // 2, new - new // 2]])
    return x
