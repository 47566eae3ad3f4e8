"""Networks by name, from scaled images to logits."""

from collections.abc import Sequence

import keras

from crl_keras.networks.densenet import densenet40
from crl_keras.networks.mobilenet import mobilenetv2
from crl_keras.networks.resnet import resnet34
from crl_keras.networks.resnet import resnet34_w64
from crl_keras.networks.resnet import resnet50
from crl_keras.networks.resnet import resnet50_w64
from crl_keras.networks.resnet import resnet101
from crl_keras.networks.resnet import resnet101_w64
from crl_keras.networks.resnet_cifar import resnet20
from crl_keras.networks.resnet_preact import resnet164
from crl_keras.networks.simple import logistic
from crl_keras.networks.simple import mlp
from crl_keras.networks.simple import zhu2018
from crl_keras.networks.vgg import vgg16
from crl_keras.networks.vgg import vgg19

__all__ = [
    "NETWORKS",
    "build_network",
    "densenet40",
    "mobilenetv2",
    "resnet34",
    "resnet34_w64",
    "resnet50",
    "resnet50_w64",
    "resnet101",
    "resnet101_w64",
    "resnet20",
    "resnet164",
    "logistic",
    "mlp",
    "zhu2018",
    "vgg16",
    "vgg19",
]

NETWORKS = {
    "logistic": logistic,
    "mlp": mlp,
    "zhu2018": zhu2018,
    "resnet20": resnet20,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "resnet34_w64": resnet34_w64,
    "resnet50_w64": resnet50_w64,
    "resnet101_w64": resnet101_w64,
    "resnet164": resnet164,
    "vgg16": vgg16,
    "vgg19": vgg19,
    "densenet40": densenet40,
    "mobilenetv2": mobilenetv2,
}


def __dir__():
    return sorted(__all__)


def build_network(
    name: str, input_shape: Sequence[int], classes: int
) -> keras.Model:
    """Builds a network by its name.

    All networks differ from PyTorch's in one way: Keras's running variance uses
    the variance of the batch, and PyTorch's its unbiased estimate. Those of the
    authors' code (`mobilenetv2`, `resnet34` to `resnet101`, `vgg16` and
    `vgg19`) differ in another: the paper used PyTorch 1.0, where the scales of
    batch normalisation started from `U(0, 1)`. Here, and in PyTorch since 1.2,
    they start as 1.

    Args:
        name: A key of `NETWORKS`.
        input_shape: `(height, width, channels)` of one image, in pixels.
        classes: Number of classes, at least 2.

    Returns:
        `keras.Model` from scaled float images, channels last, to logits
        `(batch, classes)`. It has no softmax, and the logits are float32 under
        any dtype policy.

    Raises:
        ValueError: If the name is unknown, `input_shape` or `classes` is
            invalid, or the images are too small for the network.

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
