"""Networks by name, from scaled images to logits."""

from crl_keras.networks.densenet import densenet40 as densenet40
from crl_keras.networks.mobilenet import mobilenetv2 as mobilenetv2
from crl_keras.networks.resnet import resnet34 as resnet34
from crl_keras.networks.resnet import resnet34_w64 as resnet34_w64
from crl_keras.networks.resnet import resnet50 as resnet50
from crl_keras.networks.resnet import resnet50_w64 as resnet50_w64
from crl_keras.networks.resnet import resnet101 as resnet101
from crl_keras.networks.resnet import resnet101_w64 as resnet101_w64
from crl_keras.networks.resnet_cifar import resnet20 as resnet20
from crl_keras.networks.resnet_preact import resnet164 as resnet164
from crl_keras.networks.simple import logistic as logistic
from crl_keras.networks.simple import mlp as mlp
from crl_keras.networks.simple import zhu2018 as zhu2018
from crl_keras.networks.vgg import vgg16 as vgg16
from crl_keras.networks.vgg import vgg19 as vgg19

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
