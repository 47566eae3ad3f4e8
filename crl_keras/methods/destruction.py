"""DCL: image regions are shuffled, and the network predicts their places."""

from typing import Any

import keras

from crl_keras.layers import RegionAlignment
from crl_keras.layers import RegionConfusion
from crl_keras.losses._validation import check_choice
from crl_keras.methods.heads import Head
from crl_keras.methods.heads import MultiHeadClassifier
from crl_keras.methods.taps import Taps

__all__ = ["dcl"]

SWAPS = ("classes", "origin")
FUSIONS = ("classifier", "swap")


def dcl(
    backbone: Any,
    classes: int,
    regions: int = 7,
    reach: int = 2,
    mode: str = "exact",
    form: str = "code",
    swap: str = "classes",
    gamma: float = 1.0,
    loss_on_swap: str = "ce",
    fusion: str = "classifier",
    tap: str | None = None,
    frozen: bool = False,
    seed: int | None = None,
    name: str = "dcl",
) -> MultiHeadClassifier:
    """Builds destruction and construction learning (DCL).

    In training `RegionConfusion` pairs each image with a destroyed image, and
    the backbone sees both. With the loss `L` given to `compile`, the labels
    `y`, and means over the `2 B` images,

    ```
    loss = L(classifier, y) + CE(swap, labels) + gamma * mean(|where - truth|)
    ```

    - classifier: global average pooling and a dense layer without bias. Both
      images of a pair have the same label.
    - swap: a second such layer, which also tells which image is destroyed. With
      "classes" it has `2 * classes` outputs, and the labels are `y` and
      `y + classes`. With "origin" it has two outputs, and the labels are 1 and
      0. Backbone and head learn together: there is no gradient reversal.
    - where: the prediction of `RegionAlignment` for every region.

    Args:
        backbone: Functional `keras.Model` from scaled images to feature maps,
            such as `keras.applications.ResNet50(include_top=False)`.
        classes: Number of classes, at least 2.
        regions: Integer >= 1. It must divide the sides of the image and of the
            last feature map. Defaults to `7`, for 448 pixels.
        reach: See `RegionConfusion`. Defaults to `2`.
        mode: See `RegionConfusion`. Defaults to `"exact"`.
        form: See `RegionAlignment`. Defaults to `"code"`; with "paper" the sum
            over a pair of images replaces the mean.
        swap: "classes" or "origin". Defaults to `"classes"`, as in the released
            code for CUB and Cars.
        gamma: Number >= 0. Defaults to `1.0`, as in the released code for CUB.
            For Cars the code has 0.01.
        loss_on_swap: "ce" for cross-entropy, or "given" for the loss given to
            `compile`. Defaults to `"ce"`: the released code uses other losses
            for the classifier only.
        fusion: What the model predicts: "classifier" as in the paper, or "swap"
            as in the code. "swap" adds both halves of the swap head to the
            classifier and needs `swap="classes"`. Defaults to `"classifier"`.
        tap: Layer whose feature map is used, see `find_tap`. Defaults to the
            end of the backbone.
        frozen: Whether to freeze the backbone: it is not trained, and its batch
            normalisation uses the running statistics. Defaults to `False`.
        seed: Seed of the destruction, integer in [0, 2**31) or None.
        name: Name of the model. Defaults to `"dcl"`.

    Returns:
        `MultiHeadClassifier` from scaled images to logits `(batch, classes)`.
        In training its outputs are "pair", "swap" and "alignment". They have
        `2 * batch` rows, in which image and destroyed image alternate.

    Raises:
        ValueError: If there is no such choice, or `regions` does not divide the
            image and its last feature map.

    Example:

        >>> backbone = keras.applications.VGG16(
        ...     include_top=False, weights=None, input_shape=(64, 64, 3)
        ... )
        >>> model = dcl(backbone, 200, regions=2)
        >>> [f"{m.count_params():,}" for m in (model, model.classifier)]
        ['15,022,401', '14,817,088']

    Source: Chen et al., Destruction and Construction Learning for Fine-grained
    Image Recognition, CVPR 2019; JDAI-CV/DCL @8950816.
    """
    _check_heads(swap, fusion, loss_on_swap)
    classes = int(classes)
    inputs = keras.Input(backbone.input_shape[1:])
    taps = Taps(backbone)
    end = taps.find(tap) if tap or taps.last is None else taps.last
    _check_regions(regions, (*inputs.shape[1:3], *end.shape[1:3]))
    confusion = RegionConfusion(
        regions, reach, mode, seed, dtype="float32", name="confusion"
    )
    pairs, sources = confusion(inputs)
    # Image and destroyed image alternate.
    images = keras.ops.reshape(pairs, (-1, *inputs.shape[1:]))
    sources = keras.ops.reshape(sources, (-1, regions**2))
    part, plain = taps.call(end, inputs, frozen)
    features = part(images, training=False if frozen else None)
    pool = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", name="pool"
    )
    classify = _dense(classes, "logits")
    width = 2 * classes if swap == "classes" else 2
    tell = _dense(width, "swap")
    align = RegionAlignment(regions, form, dtype="float32", name="alignment")
    logits = classify(pool(plain))
    if fusion == "swap":
        halves = tell(pool(plain))
        logits = logits + halves[:, :classes] + halves[:, classes:]
    outputs = {
        "pair": classify(pool(features)),
        "swap": tell(pool(features)),
        "alignment": align([features, sources]),
        "logits": logits,
    }
    heads = {
        "pair": Head("pair"),
        "swap": Head("swap" if swap == "classes" else "origin", loss_on_swap),
        "alignment": Head(
            "none", "mean" if form == "code" else "sum", float(gamma)
        ),
    }
    network = keras.Model(inputs, outputs)
    return MultiHeadClassifier(network, heads, "pair", name=name)


def _check_heads(swap: str, fusion: str, loss_on_swap: str) -> None:
    check_choice("swap", swap, SWAPS)
    check_choice("fusion", fusion, FUSIONS)
    check_choice("loss_on_swap", loss_on_swap, ("ce", "given"))
    if fusion == "swap" and swap != "classes":
        raise ValueError(
            'fusion="swap" needs swap="classes", because it adds the outputs '
            f"of the swap head for the classes. Received: swap={swap!r}"
        )


def _dense(units: int, name: str) -> Any:
    return keras.layers.Dense(units, use_bias=False, dtype="float32", name=name)


def _check_regions(regions: int, sides: tuple[Any, ...]) -> None:
    if None in sides or any(side % regions for side in sides):
        raise ValueError(
            "`regions` must divide the sides of the image and of its feature "
            f"map. Received: regions={regions} for {sides[0]} x {sides[1]} "
            f"pixels and a map of {sides[2]} x {sides[3]}; choose other "
            'regions (--method "dcl(regions=2)") or another image size '
            "(--image-size)"
        )
