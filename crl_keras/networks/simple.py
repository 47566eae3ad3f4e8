"""Small networks: softmax regression, a perceptron, four convolutions."""

import keras
from keras import layers

from crl_keras.networks._blocks import check_shape
from crl_keras.networks._blocks import logits


def logistic(input_shape, classes):
    """Builds softmax regression: one linear layer on the flattened pixels.

    Args:
        input_shape: `(height, width, channels)`, any size.
        classes: Number of classes, at least 2.

    Returns:
        `keras.Model` from scaled float images to float32 logits
        `(batch, classes)`.

    Raises:
        ValueError: `input_shape` or `classes` is no such thing.

    Example:

    >>> logistic((28, 28, 1), 10).count_params()
    7850

    Source: "Logistic Regression" of Table IV of
    [Competing Ratio Loss](https://arxiv.org/abs/1912.11642), which says no
    more about it.
    """
    check_shape("logistic", input_shape, classes)
    inputs = keras.Input(input_shape)
    x = layers.Flatten(data_format="channels_last")(inputs)
    return keras.Model(inputs, logits(classes)(x), name="logistic")


def mlp(input_shape, classes):
    """Builds a perceptron with two hidden layers of 256 units, ReLU.

    The paper's Table IV has an "MLP" on MNIST and tells nothing of its layers,
    optimizer or epochs; its 9.1 % error is far above what such networks reach
    (below 2 %). This one is our choice: no dropout, He-normal weights.

    Args:
        input_shape: `(height, width, channels)`, any size.
        classes: Number of classes, at least 2.

    Returns:
        `keras.Model` from scaled float images to float32 logits
        `(batch, classes)`.

    Raises:
        ValueError: `input_shape` or `classes` is no such thing.

    Example:

    >>> mlp((28, 28, 1), 10).count_params()
    269322

    Source: our choice; the paper gives none.
    """
    check_shape("mlp", input_shape, classes)
    inputs = keras.Input(input_shape)
    x = layers.Flatten(data_format="channels_last")(inputs)
    for _ in range(2):
        x = layers.Dense(
            256, activation="relu", kernel_initializer="he_normal"
        )(x)
    return keras.Model(inputs, logits(classes)(x), name="mlp")


def zhu2018(input_shape, classes):
    """Builds four convolutions, two dense layers, max-pooling and dropout.

    The network of the paper's Table II, of which the text says only this one
    line. The closest that is documented is the example `cifar10_cnn.py` that
    Keras had when Zhu et al. wrote (spring 2018): 3x3 convolutions of 32, 32,
    64, 64 filters, the second of each pair without padding, pooling and
    dropout .25 after each pair, 512 hidden units, dropout .5; Glorot-uniform
    weights, Keras's default. That it is the same network is our reading.

    Args:
        input_shape: `(height, width, channels)`, at least 10 x 10.
        classes: Number of classes, at least 2.

    Returns:
        `keras.Model` from scaled float images to float32 logits
        `(batch, classes)`.

    Raises:
        ValueError: `input_shape` or `classes` is no such thing, or the images
            are smaller than 10 x 10.

    Example:

    >>> zhu2018((32, 32, 3), 10).count_params()
    1250858

    Source: Zhu et al.,
    [Negative Log Likelihood Ratio Loss](https://arxiv.org/abs/1804.10690), as
    Table II of [Competing Ratio Loss](https://arxiv.org/abs/1912.11642) cites
    it; layers after examples/cifar10_cnn.py of keras-team/keras @4f2e65c385.
    """
    check_shape("zhu2018", input_shape, classes, smallest=10)
    inputs = keras.Input(input_shape)
    x = inputs
    for filters in (32, 64):
        for padding in ("same", "valid"):
            x = layers.Conv2D(
                filters,
                3,
                padding=padding,
                activation="relu",
                data_format="channels_last",
            )(x)
        x = layers.MaxPooling2D(data_format="channels_last")(x)
        x = layers.Dropout(0.25)(x)
    x = layers.Flatten(data_format="channels_last")(x)
    x = layers.Dense(512, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, logits(classes)(x), name="zhu2018")
