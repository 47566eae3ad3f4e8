"""DCL: images are destroyed, and the network is to tell where regions were."""

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

    In training `RegionConfusion` puts a destroyed image beside each image, and
    the backbone sees both. With the loss `L` that `compile` is given, means
    over the `2 B` images and labels `y`,

    ```
    loss = L(classifier, y) + CE(swap, labels) + gamma * mean(|where - truth|)
    ```

    - classifier: the global average and a dense layer without bias; both
      images have the label of the first.
    - swap: another such layer, which also tells the destroyed image. With
      "classes" it has `2 * classes` outputs, and the labels are `y` and
      `y + classes`; with "origin" two, and the labels are 1 and 0. The two
      parts of the network work together: there is no gradient reversal.
    - where: `RegionAlignment`, for every region.

    Args:
        backbone: Functional `keras.Model` from scaled images to feature maps,
            such as `keras.applications.ResNet50(include_top=False)`.
        classes: Number of classes, at least 2.
        regions: Integer >= 1, a divisor of the sides of the image and of the
            last feature map. Defaults to `7`, for 448 pixels.
        reach: See `RegionConfusion`. Defaults to `2`.
        mode: See `RegionConfusion`. Defaults to `"exact"`.
        form: See `RegionAlignment`. Defaults to `"code"`; with "paper" the
            sum over a pair of images takes the place of the mean.
        swap: "classes" or "origin". Defaults to `"classes"`, as the released
            code for CUB and Cars.
        gamma: Number >= 0. Defaults to `1.0`, the code's for CUB; 0.01 for
            Cars.
        loss_on_swap: "ce", or "given" for the loss of `compile`. Defaults to
            `"ce"`: where the code takes another loss, it does so for the
            classifier alone.
        fusion: What is predicted: "classifier" as in the paper, or "swap", as
            in the code, the classifier plus both halves of the swap head, for
            `swap="classes"`. Defaults to `"classifier"`.
        tap: Layer whose feature map is taken, see `find_tap`; by default the
            backbone's end.
        frozen: Whether the backbone is not trained, and its batch
            normalisation uses its running statistics. Defaults to `False`.
        seed: Integer in [0, 2**31) or None, of the destruction.
        name: Name of the model. Defaults to `"dcl"`.

    Returns:
        `MultiHeadClassifier`, from scaled images to logits
        `(batch, classes)`; its outputs in training, of `2 * batch` rows with
        image and destroyed image in turn, are "pair", "swap" and "alignment".

    Raises:
        ValueError: A choice is none that there is, or `regions` does not
            divide the image and its last feature map.

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
    # Image and destroyed image in turn.
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
            'fusion="swap" adds the classes of the swap head, which '
            f'swap="classes" has. Received: swap={swap!r}'
        )


def _dense(units: int, name: str) -> Any:
    return keras.layers.Dense(units, use_bias=False, dtype="float32", name=name)


def _check_regions(regions: int, sides: tuple[Any, ...]) -> None:
    if None in sides or any(side % regions for side in sides):
        raise ValueError(
            "`regions` must divide the sides of the image and of its feature "
            f"map. Received: regions={regions} for {sides[0]} x {sides[1]} "
            f"pixels and a map of {sides[2]} x {sides[3]}; choose others "
            '(--method "dcl(regions=2)"), or other images (--image-size)'
        )
