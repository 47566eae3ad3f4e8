"""Networks by name, from scaled images to logits."""

from crl_keras.networks.resnet_cifar import resnet20 as resnet20
from crl_keras.networks.simple import logistic as logistic
from crl_keras.networks.simple import mlp as mlp
from crl_keras.networks.simple import zhu2018 as zhu2018

NETWORKS = {
    "logistic": logistic,
    "mlp": mlp,
    "zhu2018": zhu2018,
    "resnet20": resnet20,
}


def build_network(name, input_shape, classes):
    """Builds the network of a name.

    Args:
        name: A key of `NETWORKS`.
        input_shape: `(height, width, channels)` of one image, in pixels.
        classes: Number of classes, at least 2.

    Returns:
        `keras.Model` from float images, scaled already, channels last, to
        logits `(batch, classes)`: no softmax, float32 under any dtype policy.

    Raises:
        ValueError: The name is unknown, `input_shape` or `classes` is no
            such thing, or the images are too small for the network.

    Example:

    >>> model = build_network("mlp", (8, 8, 1), 10)
    >>> model.output_shape
    (None, 10)
    """
    if name not in NETWORKS:
        raise ValueError(
            f"Unknown network. Expected one of: {', '.join(NETWORKS)}. "
            f"Received: {name!r}"
        )
    return NETWORKS[name](input_shape, classes)
