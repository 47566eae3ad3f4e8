"""DFL-CNN: filters for the discriminative patches of each class."""

from typing import Any

import keras

from crl_keras.layers import DiscriminativeFilters
from crl_keras.methods.heads import Head
from crl_keras.methods.heads import MultiHeadClassifier
from crl_keras.methods.taps import Taps

__all__ = ["dfl_cnn"]


def dfl_cnn(
    backbone: Any,
    classes: int,
    filters: int = 10,
    tap: str | None = None,
    side_weight: float = 0.1,
    loss_on_patch: str = "given",
    loss_on_side: str = "given",
    frozen: bool = False,
    name: str = "dfl",
) -> MultiHeadClassifier:
    """Builds a CNN with a discriminative filter bank (DFL-CNN).

    Two streams share the first layers of the backbone. The global stream
    continues to the end of the backbone, global average pooling and a dense
    layer, which gives the logits `G`. In the other stream,
    `DiscriminativeFilters` finds the maximum of each of `classes * filters`
    filters. A dense layer on the maxima gives the logits `P`. Their average
    over the filters of each class gives the logits `S`. With the loss `L` given
    to `compile`,

    ```
    loss = L(G) + L(P) + side_weight * L(S)
    logits = G + P + side_weight * S
    ```

    So the model adds logits. Adding probabilities can give another prediction.
    The paper initialises the filters from patches of the training images.

    Args:
        backbone: Functional `keras.Model` from scaled images to feature maps,
            such as `keras.applications.ResNet50(include_top=False)`.
        classes: Number of classes, at least 2.
        filters: Number of filters per class, integer >= 1. Defaults to `10`.
        tap: Layer that the filters look at, see `find_tap`. Defaults to the
            last map that is larger than the final one: "conv4_block6_out" for
            ResNet-50 (the paper's layer is not known), "block4_conv3" for
            VGG16.
        side_weight: Number >= 0. Defaults to `0.1`, from memory of the paper
            and as in songdejia/DFL-CNN.
        loss_on_patch: "given" for the loss given to `compile`, or "ce" for
            cross-entropy in any case. Defaults to `"given"`.
        loss_on_side: The same for the side branch. Defaults to `"given"`.
        frozen: Whether to freeze the backbone: it is not trained, and its batch
            normalisation uses the running statistics. Defaults to `False`.
        name: Name of the model. Defaults to `"dfl"`.

    Returns:
        `MultiHeadClassifier` from scaled images to logits `(batch, classes)`.
        In training its outputs are "global", "patch", "side" and "fused".

    Raises:
        ValueError: If there is no such tap.

    Example:

        >>> shape = (64, 64, 3)
        >>> vgg = keras.applications.VGG16(False, None, input_shape=shape)
        >>> model = dfl_cnn(vgg, 200)
        >>> model.output_shape, f"{model.count_params():,}"
        ((None, 200), '16,243,488')

    Source: Wang, Morariu and Davis, [Learning a Discriminative Filter Bank
    within a CNN](https://arxiv.org/abs/1611.09932); it has no official code.
    """
    classes = int(classes)
    inputs = keras.Input(backbone.input_shape[1:])
    taps = Taps(backbone)
    local = taps.find(tap, "finer")
    # The global stream goes to the end, after VGG's last pooling.
    _, (local, end) = taps.call([local, taps.last], inputs, frozen)
    bank = DiscriminativeFilters(
        classes, filters, dtype="float32", name="filters"
    )
    v, side = bank(local)
    pool = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", name="pool"
    )
    of_all = _dense(classes, "logits_global")(pool(end))
    of_patches = _dense(classes, "logits_patch")(v)
    fused = of_all + of_patches + float(side_weight) * side
    outputs = {
        "global": of_all,
        "patch": of_patches,
        "side": side,
        "fused": fused,
        "logits": fused,
    }
    heads = {
        "global": Head(),
        "patch": Head(loss=loss_on_patch),
        "side": Head(loss=loss_on_side, weight=float(side_weight)),
    }
    network = keras.Model(inputs, outputs)
    return MultiHeadClassifier(network, heads, "fused", name=name)


def _dense(classes: int, name: str) -> Any:
    return keras.layers.Dense(classes, dtype="float32", name=name)
