"""B-CNN: products of all pairs of channels instead of their averages."""

from typing import Any

import keras

from crl_keras.layers import BilinearPooling
from crl_keras.layers import CompactBilinearPooling
from crl_keras.losses._validation import check_choice
from crl_keras.methods.taps import Taps

__all__ = ["bilinear_cnn"]

POOLINGS = ("bilinear", "compact")


def bilinear_cnn(
    backbone: Any,
    classes: int,
    tap: str | None = None,
    pooling: str = "bilinear",
    dimensions: int = 8192,
    frozen: bool = False,
    name: str = "bcnn",
) -> Any:
    """Builds a bilinear CNN with one stream (B-CNN).

    The model applies `BilinearPooling` to the last feature map of the backbone
    and ends in a float32 dense layer named "logits". The kernel of this layer
    starts uniform within `1 / sqrt(inputs)`, as in the authors' PyTorch code.
    Train the dense layer first and then the whole model: with VGG16 the layer
    has 512 * 512 inputs per image.

    The paper's best results, 84.1 and 91.3, use two streams, VGG16 and VGG-M,
    and support vector machines on top. The authors' PyTorch code reaches 84.1
    and 90.5 with VGG16 alone.

    Args:
        backbone: Functional `keras.Model` from scaled images to feature maps,
            such as `keras.applications.VGG16(include_top=False)`.
        classes: Number of classes, at least 2.
        tap: Layer whose feature map is used, see `find_tap`. Defaults to the
            last one; for VGG16 this is "block5_conv3", before the last pooling.
        pooling: "bilinear", or "compact" for `CompactBilinearPooling`.
        dimensions: Number of outputs of compact pooling. Defaults to `8192`.
        frozen: Whether to freeze the backbone: it is not trained, and its batch
            normalisation uses the running statistics. Defaults to `False`.
        name: Name of the model. Defaults to `"bcnn"`.

    Returns:
        Functional `keras.Model` from scaled images to logits
        `(batch, classes)`.

    Raises:
        ValueError: If there is no such tap or pooling.

    Example:

        >>> backbone = keras.applications.VGG16(
        ...     include_top=False, weights=None, input_shape=(64, 64, 3)
        ... )
        >>> model = bilinear_cnn(backbone, 200)
        >>> model.output_shape, f"{model.count_params():,}"
        ((None, 200), '67,143,688')

    Source: Lin, RoyChowdhury and Maji, [Bilinear CNN Models for Fine-grained
    Visual Recognition](https://arxiv.org/abs/1504.07889); cvl-umass/
    bilinear-cnn @d6a05aa.
    """
    check_choice("pooling", pooling, POOLINGS)
    inputs = keras.Input(backbone.input_shape[1:])
    taps = Taps(backbone)
    _, features = taps.call(taps.find(tap), inputs, frozen)
    if pooling == "bilinear":
        pool = BilinearPooling(dtype="float32", name="pool")
    else:
        pool = CompactBilinearPooling(dimensions, dtype="float32", name="pool")
    logits = keras.layers.Dense(
        int(classes),
        kernel_initializer=keras.initializers.VarianceScaling(
            1 / 3, "fan_in", "uniform"
        ),
        dtype="float32",
        name="logits",
    )
    return keras.Model(inputs, logits(pool(features)), name=name)
