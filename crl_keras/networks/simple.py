"""Small networks: softmax regression, an MLP, and four convolutions."""

from collections.abc import Sequence

import keras
from keras import layers

from crl_keras.networks._blocks import check_shape
from crl_keras.networks._blocks import logits


def logistic(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds softmax regression: one linear layer on the flattened pixels.

    Args:
        input_shape: `(height, width, channels)`, any size.
        classes: Number of classes, at least 2.

    The result and the errors are as in `build_network`.

    Example:

        >>> logistic((28, 28, 1), 10).count_params()
        7850

    Source: "Logistic Regression" in Table IV of
    [Competing Ratio Loss](https://arxiv.org/abs/1912.11642). The paper gives
    no details of it.
    """
    check_shape("logistic", input_shape, classes)
    inputs = keras.Input(input_shape)
    x = layers.Flatten(data_format="channels_last")(inputs)
    return keras.Model(inputs, logits(classes)(x), name="logistic")


def mlp(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds an MLP with two hidden layers of 256 units and ReLU.

    The layers are our choice: no dropout, He-normal weights. The paper's Table
    IV has an "MLP" on MNIST, but the paper does not describe its layers,
    optimizer or epochs. Its error of 9.1 % is far above what such networks
    reach (below 2 %).

    Arguments, result and errors are as in `logistic`.

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


def zhu2018(input_shape: Sequence[int], classes: int) -> keras.Model:
    """Builds four convolutions, two dense layers, max-pooling and dropout.

    This is the network of the paper's Table II. The paper describes it only
    with the words of the first line. We take it to be the example
    `cifar10_cnn.py` that Keras had when Zhu et al. wrote (spring 2018); this is
    not verified. That example has 3x3 convolutions of 32, 32, 64 and 64
    filters. The second of each pair has no padding. Pooling and dropout 0.25
    follow each pair, then 512 hidden units and dropout 0.5. The weights are
    Glorot-uniform, Keras's default.

    Args:
        input_shape: `(height, width, channels)`, at least 10 x 10.
        classes: Number of classes, at least 2.

    The result and the errors are as in `build_network`.

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
