"""Blocks of the networks: padding, weights and normalisation as in PyTorch."""

import keras
from keras import layers


def logits(classes, **kwargs):
    """The last layer: linear, in float32 under any dtype policy."""
    # int: Keras does not take NumPy integers such as `labels.max() + 1`.
    return layers.Dense(int(classes), dtype="float32", name="logits", **kwargs)


def pooled_logits(x, classes, bias_initializer=None):
    """Global average pooling, then a layer initialised as `torch.nn.Linear`."""
    x = layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    return logits(
        classes,
        kernel_initializer=torch_uniform(x.shape[-1]),
        bias_initializer=bias_initializer or torch_uniform(x.shape[-1]),
    )(x)


def conv(x, filters, size=3, strides=1, bias=False, kernel_initializer=None):
    """`torch.nn.Conv2d` with padding `size // 2` and PyTorch's weights."""
    fan_in = size * size * x.shape[-1]
    x, padding = pad(x, size, strides)
    return layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        use_bias=bias,
        data_format="channels_last",
        kernel_initializer=kernel_initializer or torch_uniform(fan_in),
        bias_initializer=torch_uniform(fan_in) if bias else "zeros",
    )(x)


def he_conv(x, filters, size=3, strides=1):
    """`conv` with weights from `N(0, 2 / (size * size * filters))`."""
    initializer = keras.initializers.VarianceScaling(
        2.0, mode="fan_out", distribution="untruncated_normal"
    )
    return conv(x, filters, size, strides, kernel_initializer=initializer)


def pad(x, size, strides):
    """Pads `size // 2` pixels on all sides; returns the map and the padding.

    The padding is the argument of Keras's next layer. With strides, Keras's
    "same" pads at the right and the bottom only.
    """
    if strides == 1:
        return x, "same"
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, data_format="channels_last")(x)
    return x, "valid"


def norm(x):
    """Batch normalisation as in PyTorch; its momentum 0.1 is 0.9 in Keras."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def relu(x):
    return layers.ReLU()(x)


def torch_uniform(fan_in):
    """PyTorch's default for weights and biases: `U(+-1 / sqrt(fan_in))`.

    Keras's variance scaling treats a depthwise kernel as a dense one: its
    fan-in would be `channels` times too large.
    """
    limit = fan_in**-0.5
    return keras.initializers.RandomUniform(-limit, limit)


def check_shape(network, input_shape, classes, smallest=1):
    """Raises ValueError if the network cannot take such images or classes."""
    sizes = tuple(input_shape) if hasattr(input_shape, "__iter__") else ()
    if len(sizes) != 3 or not all(_is_count(n) for n in sizes):
        raise ValueError(
            "`input_shape` must be (height, width, channels), three positive "
            f"integers. Received: input_shape={input_shape!r}"
        )
    check_count("classes", classes, smallest=2)
    if min(sizes[:2]) < smallest:
        raise ValueError(
            f"{network} needs images of at least {smallest} x {smallest} "
            f"pixels. Received: input_shape={sizes}"
        )


def check_count(argument, value, smallest=1):
    """Raises ValueError unless `value` is an integer >= `smallest`."""
    if not _is_count(value) or value < smallest:
        raise ValueError(
            f"`{argument}` must be an integer, at least {smallest}. "
            f"Received: {argument}={value!r}"
        )


def _is_count(number):
    return hasattr(number, "__index__") and number > 0
