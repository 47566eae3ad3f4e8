"""What the networks share, all of it as PyTorch pads, draws and normalises."""

import keras
from keras import layers


def logits(classes, **kwargs):
    """The last layer: linear, in float32 under any dtype policy."""
    # int: Keras takes no NumPy integer such as `labels.max() + 1`.
    return layers.Dense(int(classes), dtype="float32", name="logits", **kwargs)


def pooled_logits(x, classes, bias_initializer=None):
    """The mean of the whole map, then `torch.nn.Linear`."""
    x = layers.GlobalAveragePooling2D(data_format="channels_last")(x)
    return logits(
        classes,
        kernel_initializer=torch_uniform(x.shape[-1]),
        bias_initializer=bias_initializer or torch_uniform(x.shape[-1]),
    )(x)


def conv(x, filters, size=3, strides=1, bias=False, kernel_initializer=None):
    """`torch.nn.Conv2d` with padding `size // 2`, drawn as PyTorch draws."""
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
    """Pads `size // 2` pixels on all sides, or says what Keras is to pad.

    With strides Keras's "same" pads right and bottom alone.
    """
    if strides == 1:
        return x, "same"
    if size > 1:
        x = layers.ZeroPadding2D(size // 2, data_format="channels_last")(x)
    return x, "valid"


def norm(x):
    """PyTorch's defaults, whose momentum of 0.1 is 0.9 in Keras."""
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def relu(x):
    return layers.ReLU()(x)


def torch_uniform(fan_in):
    """PyTorch's default for weights and biases: `U(+-1 / sqrt(fan_in))`.

    Keras's own variance scaling would take a depthwise kernel for a dense one
    and its fan-in for `channels` times what it is.
    """
    limit = fan_in**-0.5
    return keras.initializers.RandomUniform(-limit, limit)


def check_shape(network, input_shape, classes, smallest=1):
    """Raises ValueError for images that the network cannot take."""
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
    """Raises ValueError for what is no number of classes or channels."""
    if not _is_count(value) or value < smallest:
        raise ValueError(
            f"`{argument}` must be an integer, at least {smallest}. "
            f"Received: {argument}={value!r}"
        )


def _is_count(number):
    return hasattr(number, "__index__") and number > 0
