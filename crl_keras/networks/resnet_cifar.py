"""ResNets for small images, as PyTorch's users train them."""

import keras
from keras import layers
from keras import ops

from crl_keras.networks.simple import check_shape
from crl_keras.networks.simple import logits

WIDTHS = (16, 32, 64)


def resnet20(input_shape, classes):
    """Builds the ResNet-20 for CIFAR: three stages of three basic blocks.

    Widths 16, 32 and 64; a block is conv3x3-BN-ReLU-conv3x3-BN, plus its
    shortcut, then ReLU. Shortcuts have no parameters: where a stage begins,
    every second pixel is taken and the new channels are zeros, half of them on
    each side (option A of the paper, the one it uses for CIFAR). 269,722
    trainable parameters at 3 channels and 10 classes; the published number is
    0.27M. `count_params()` adds the 1,376 running statistics.

    As in PyTorch: stride-2 convolutions pad one pixel on all sides (Keras's
    "same" pads right and bottom alone); batch normalisation with momentum 0.9
    and epsilon 1e-5; no bias in convolutions; convolutions drawn from
    `N(0, 2 / (9 * filters))` (He et al. 2015, by fan-out); the last layer from
    `U(-1/8, 1/8)`, bias too. What remains different: the running variance in
    Keras is that of the batch, in PyTorch its unbiased estimate.

    Args:
        input_shape: `(height, width, channels)`, at least 4 x 4. Made for
            32 x 32; a global average ends it, so other sizes will do.
        classes: Number of classes, at least 2.

    Returns:
        `keras.Model` from scaled float images to float32 logits
        `(batch, classes)`.

    Raises:
        ValueError: `input_shape` or `classes` is no such thing, or the images
            are smaller than 4 x 4.

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
    x = layers.ReLU()(_norm(_conv(inputs, WIDTHS[0])))
    for stage, width in enumerate(WIDTHS):
        for block in range(blocks):
            strides = 2 if stage and not block else 1
            x = _basic_block(x, width, strides)
    x = layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    # The weights of torch.nn.Linear: U(+-1 / sqrt(fan_in)), bias too.
    limit = WIDTHS[-1] ** -0.5
    head = logits(
        classes,
        kernel_initializer=keras.initializers.RandomUniform(-limit, limit),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
    )
    return keras.Model(inputs, head(x), name=name)


def _basic_block(x, width, strides):
    y = layers.ReLU()(_norm(_conv(x, width, strides)))
    y = _norm(_conv(y, width))
    return layers.ReLU()(layers.Add()([_shortcut(x, width, strides), y]))


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


def _conv(x, filters, strides=1):
    padding = "same"
    if strides != 1:
        x = layers.ZeroPadding2D(1, data_format="channels_last")(x)
        padding = "valid"
    return layers.Conv2D(
        filters,
        3,
        strides=strides,
        padding=padding,
        use_bias=False,
        data_format="channels_last",
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0, mode="fan_out", distribution="untruncated_normal"
        ),
    )(x)


def _norm(x):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
