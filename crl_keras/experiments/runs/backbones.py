"""Backbones of other libraries under our own head.

A backbone is named "LIBRARY/NAME". KerasCV is frozen since 2024 and needs
TensorFlow on every backend; KerasHub and keras.applications do not. Each is
imported when asked for.
"""

import functools
import hashlib
import importlib.util
import pathlib

from crl_keras.experiments._optional import require

BLOCKS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
WIDTHS = (64, 128, 256, 512)
RESNETS = tuple(f"{name}{v2}" for v2 in ("", "_v2") for name in BLOCKS)

# What each library has ImageNet weights for, and their names there.
IMAGENET = {
    "keras_cv": {
        "resnet50": "resnet50_imagenet",
        "resnet50_v2": "resnet50_v2_imagenet",
    },
    "keras_hub": {
        "resnet18": "resnet_18_imagenet",
        # KerasHub has none of its own; it converts timm's.
        "resnet34": "hf://timm/resnet34.a1_in1k",
        "resnet50": "resnet_50_imagenet",
        "resnet101": "resnet_101_imagenet",
        "resnet152": "resnet_152_imagenet",
        "resnet50_v2": "resnet_v2_50_imagenet",
        "resnet101_v2": "resnet_v2_101_imagenet",
    },
    "keras": {
        "resnet50": "ResNet50",
        "resnet101": "ResNet101",
        "resnet152": "ResNet152",
        "resnet50_v2": "ResNet50V2",
        "resnet101_v2": "ResNet101V2",
        "resnet152_v2": "ResNet152V2",
        "mobilenet_v2": "MobileNetV2",
    },
}
LIBRARIES = {
    "keras_cv": RESNETS,
    "keras_hub": RESNETS,
    "keras": tuple(IMAGENET["keras"]),
}
# Of ImageNet, for pixels divided by 255.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def default_library(backbone, weights="none"):
    """The library a backbone is taken from when none is chosen.

    The first that has it, with the weights that are asked for, and is
    installed; if none is, the first to install.

    >>> default_library("resnet50"), default_library("mobilenet_v2")
    ('keras_cv', 'keras')
    >>> default_library("resnet34", "imagenet")
    'keras_hub'
    """
    having = [key for key, names in LIBRARIES.items() if backbone in names]
    if weights == "imagenet":
        having = [key for key in having if backbone in IMAGENET[key]] or having
    installed = [key for key in having if importlib.util.find_spec(key)]
    return (installed or having or ["keras_cv"])[0]


def check_backbone(name, weights="none"):
    """Raises ValueError for a backbone or weights that there are not.

    Args:
        name: "LIBRARY/NAME".
        weights: "none", "imagenet" or a path.
    """
    library, _, backbone = name.partition("/")
    if backbone not in LIBRARIES.get(library, ()):
        known = "; ".join(
            f"{key}/ {', '.join(names)}" for key, names in LIBRARIES.items()
        )
        raise ValueError(f"Expected a backbone of {known}. Received: {name!r}")
    have = IMAGENET[library]
    if weights == "imagenet" and backbone not in have:
        others = [key for key in IMAGENET if backbone in IMAGENET[key]]
        raise ValueError(
            f"{library} has ImageNet weights for {', '.join(have)}. Received: "
            f"{backbone!r}. Take it from {' or '.join(others) or 'a file'} "
            "(--library, --weights PATH), or train from random weights with "
            "--weights none"
        )
    if weights not in ("none", "imagenet"):
        if not pathlib.Path(weights).expanduser().is_file():
            raise ValueError(
                'Expected weights "none", "imagenet" or the path of a '
                f".weights.h5 file. Received: {weights!r}, which does not "
                "exist"
            )


def weights_fingerprint(weights):
    """16 hexadecimal digits of a file of weights, None for no file.

    >>> weights_fingerprint("imagenet")
    """
    if weights in ("none", "imagenet"):
        return None
    path = pathlib.Path(weights).expanduser()
    found = path.stat()
    return _digest(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache
def _digest(path, changed, size):
    # Many records ask for the same large file.
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def build_backbone(name, input_shape, classes, weights="none", frozen=False):
    """Builds a backbone under a head of our own.

    The head is a global average and a dense layer named "logits", in float32
    under any dtype policy: no softmax, whose 16-bit values would spoil a loss.

    Args:
        name: "keras_cv/NAME" or "keras_hub/NAME" with resnet18, 34, 50, 101 or
            152, or one of these with _v2; "keras/NAME" (keras.applications)
            with resnet50, 101, 152, these with _v2, or mobilenet_v2.
        input_shape: `(height, width, 3)`, in pixels.
        classes: Number of classes, at least 2.
        weights: "none" for random ones, "imagenet", or the path of a file that
            `save_weights` of the same backbone wrote.
        frozen: Whether the backbone is not trained, and its batch
            normalisation uses its running statistics.

    Returns:
        `(model, scaling)`: a `keras.Model` from scaled images to logits
        `(batch, classes)`, and a function from images with values in
        `[0, 255]`, of any dtype, to what the model takes.

    Raises:
        ValueError: The name, the weights or the shape are none that there are.
        ImportError: The library is not installed.
        OSError: The weights could not be fetched.

    Example:

    >>> model, _ = build_backbone("keras/mobilenet_v2", (32, 32, 3), 8)
    >>> model.output_shape
    (None, 8)
    """
    import keras

    check_backbone(name, weights)
    if tuple(input_shape)[2:] != (3,):
        raise ValueError(
            "A backbone takes images in colour, (height, width, 3). "
            f"Received: input_shape={tuple(input_shape)}"
        )
    library, _, backbone_name = name.partition("/")
    make = {"keras_cv": _keras_cv, "keras_hub": _keras_hub, "keras": _keras}
    require(library, library)
    try:
        backbone, scaling = make[library](
            backbone_name, tuple(input_shape), weights == "imagenet"
        )
    # Whatever the library and its server bring forth, an ImportError of
    # huggingface_hub included.
    except Exception as error:
        if weights != "imagenet":
            raise
        raise OSError(
            f"The ImageNet weights of {name} could not be fetched or used "
            f"({error}). Run this once where there is a network, which keeps "
            "them in the library's cache; those of timm (hf://) need: pip "
            "install huggingface_hub safetensors. Or give --weights PATH, or "
            "--weights none"
        ) from error
    if weights not in ("none", "imagenet"):
        _load_weights(backbone, name, weights)
    backbone.trainable = not frozen
    inputs = keras.Input(input_shape)
    features = backbone(inputs, training=False if frozen else None)
    pooled = keras.layers.GlobalAveragePooling2D(
        data_format="channels_last", name="pool"
    )(features)
    head = keras.layers.Dense(int(classes), dtype="float32", name="logits")
    return keras.Model(inputs, head(pooled), name=backbone_name), scaling


def _load_weights(backbone, name, path):
    try:
        backbone.load_weights(pathlib.Path(path).expanduser())
    # What h5py and Keras say of another file is no help, or hundreds of lines.
    except Exception as error:
        why = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"Expected in {path} what save_weights of {name}, without its "
            f"head, wrote. Received: a file that does not fit ({why}). Choose "
            "the backbone and --library that it is of, or --weights imagenet"
        ) from error


def _keras_cv(name, input_shape, imagenet):
    models = require("keras_cv", "keras_cv").models
    kind = models.ResNetV2Backbone if _is_v2(name) else models.ResNetBackbone
    if imagenet:
        backbone = kind.from_preset(
            IMAGENET["keras_cv"][name], input_shape=input_shape
        )
    else:
        block, counts = BLOCKS[name.removesuffix("_v2")]
        # Not its aliases such as ResNet50Backbone(): these go to the network
        # even for random weights.
        backbone = kind(
            stackwise_filters=list(WIDTHS),
            stackwise_blocks=list(counts),
            stackwise_strides=[1, 2, 2, 2],
            include_rescaling=True,
            input_shape=input_shape,
            block_type={"basic": "basic_block", "bottleneck": "block"}[block],
        )
    return backbone, _rescaling(1.0)  # It divides by 255 itself.


def _keras_hub(name, input_shape, imagenet):
    hub = require("keras_hub", "keras_hub")
    if imagenet:
        preset = IMAGENET["keras_hub"][name]
        backbone = hub.models.ResNetBackbone.from_preset(
            preset, image_shape=input_shape
        )
        converter = hub.layers.ImageConverter.from_preset(preset)
        return backbone, _rescaling(converter.scale, converter.offset)
    block, counts = BLOCKS[name.removesuffix("_v2")]
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=list(WIDTHS),
        stackwise_num_blocks=list(counts),
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=f"{block}_block",
        use_pre_activation=_is_v2(name),
        image_shape=input_shape,
    )
    scale = [1 / (255 * s) for s in STD]
    offset = [-m / s for m, s in zip(MEAN, STD, strict=True)]
    return backbone, _rescaling(scale, offset)


def _keras(name, input_shape, imagenet):
    import keras

    make = getattr(keras.applications, IMAGENET["keras"][name])
    backbone = make(
        include_top=False,
        weights="imagenet" if imagenet else None,
        input_shape=input_shape,
    )
    if name == "mobilenet_v2" or _is_v2(name):
        return backbone, _rescaling(1 / 127.5, -1.0)
    # These were trained by Caffe: blue first, mean subtracted, not divided.
    centre = _rescaling(1.0, [-103.939, -116.779, -123.68])
    return backbone, lambda images: centre(keras.ops.flip(images, axis=-1))


def _is_v2(name):
    return name.endswith("_v2")


def _rescaling(scale, offset=0.0):
    import keras

    return keras.layers.Rescaling(
        scale, offset, dtype="float32", name="scaling"
    )
