"""Builds backbones of other libraries, or of a file, with our own head.

KerasCV is frozen since 2024 and needs TensorFlow on every backend; KerasHub and
keras.applications do not need it. A library is imported only when used.
"""

import pathlib
import re

from crl_keras.experiments._optional import require
from crl_keras.experiments.runs.backbone_files import open_backbone
from crl_keras.experiments.runs.backbone_names import IMAGENET
from crl_keras.experiments.runs.backbone_names import RESNETS
from crl_keras.experiments.runs.backbone_names import application_families
from crl_keras.experiments.runs.backbone_names import check_backbone
from crl_keras.experiments.runs.backbone_names import names_of
from crl_keras.experiments.runs.backbone_names import require_library
from crl_keras.experiments.runs.method_names import split_method
from crl_keras.experiments.words import first_line

BLOCKS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}
WIDTHS = (64, 128, 256, 512)
# Statistics of ImageNet, for pixels divided by 255.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build_backbone(
    name, input_shape, classes, weights="none", frozen=False, seed=None
):
    """Builds a backbone with our own head, or with a fine-grained method.

    The head is a global average and a dense layer named "logits", in float32
    under any dtype policy. It has no softmax: 16-bit probabilities would spoil
    a loss. If the backbone has a class token, the token replaces the average,
    as in the training of its weights.

    Args:
        name: "LIBRARY/NAME" with a library and a name of
            `backbone_names.names_of`, or "file/NAME-FINGERPRINT" for a user's
            file, as `backbone_names.find_backbone` returns it; with "+METHOD"
            for a method of `crl_keras.methods`, see `method_names`.
        input_shape: `(height, width, 3)`, in pixels.
        classes: Number of classes, at least 2.
        weights: "none" for random ones, "imagenet", or the path of a file that
            `save_weights` of the same backbone wrote; for "file/", the path of
            the .keras file.
        frozen: Whether to freeze the backbone; its batch normalisation then
            uses its running statistics.
        seed: Integer in [0, 2**31) or None, for the images that DCL destroys.

    Returns:
        `(model, scaling)`: a `keras.Model` from scaled images to logits
        `(batch, classes)`, for DFL and DCL a `MultiHeadClassifier`; and a
        function from images with values in `[0, 255]`, of any dtype, to the
        input of the model.

    Raises:
        ValueError: The name, the weights or the shape is not valid.
        ImportError: The library is not installed.
        OSError: The weights could not be fetched.

    Example:

    >>> model, _ = build_backbone("keras/mobilenet_v2", (32, 32, 3), 8)
    >>> model.output_shape
    (None, 8)
    """
    import keras

    name, method, options = split_method(name)
    check_backbone(name, weights)
    if tuple(input_shape)[2:] != (3,):
        raise ValueError(
            "A backbone takes images in colour, (height, width, 3). "
            f"Received: input_shape={tuple(input_shape)}"
        )
    library, _, backbone_name = name.partition("/")
    require_library(library)
    if library == "file":
        backbone, scaling = open_backbone(weights, input_shape)
    else:
        backbone, scaling = _of_library(name, tuple(input_shape), weights)
    backbone.trainable = not frozen
    if method is not None:
        model = _with_method(backbone, method, options, classes, frozen, seed)
        return model, scaling
    inputs = keras.Input(input_shape)
    features = backbone(inputs, training=False if frozen else None)
    head = keras.layers.Dense(int(classes), dtype="float32", name="logits")
    outputs = head(_pooled(features, backbone))
    return keras.Model(inputs, outputs, name=backbone_name), scaling


def _with_method(backbone, method, options, classes, frozen, seed):
    """Builds the network of a method of `method_names.METHODS`."""
    from crl_keras import methods

    options = dict(options, frozen=frozen, tap=options["tap"] or None)
    if method == "dcl":
        return methods.dcl(backbone, classes, seed=seed, **options)
    if method == "bcnn":
        return methods.bilinear_cnn(backbone, classes, **options)
    # The filters are started later, as that needs the data.
    del options["start"], options["start_images"]
    return methods.dfl_cnn(backbone, classes, **options)


def _of_library(name, input_shape, weights):
    _check_size(name, input_shape, weights)
    make = {"keras_cv": _keras_cv, "keras_hub": _keras_hub, "keras": _keras}
    library, _, backbone_name = name.partition("/")
    try:
        backbone, scaling = make[library](
            backbone_name, input_shape, weights == "imagenet"
        )
    # Libraries and their servers can raise any error, even an ImportError of
    # huggingface_hub.
    except Exception as error:
        _explain(error, name, input_shape, weights)
        raise
    if weights not in ("none", "imagenet"):
        _load_weights(backbone, name, weights)
    return backbone, scaling


def _explain(error, name, input_shape, weights):
    """Raises an error that says what to do, if anything can be done."""
    height, width, _ = input_shape
    smallest = re.search(r"at least (\d+) ?x ?\d+", str(error))
    if smallest:
        raise ValueError(
            f"{name} takes images of at least {smallest[1]} pixels a side. "
            f"Received: {height} x {width}. Choose a larger --image-size"
        ) from error
    library, _, backbone = name.partition("/")
    if weights == "imagenet":
        raise OSError(
            f"The ImageNet weights of {name} could not be fetched or used "
            f"({error}). Run this once with an internet connection: the "
            "library keeps them in its cache. Weights of timm (hf://) need: "
            "pip install huggingface_hub safetensors. Or give --weights PATH, "
            "or --weights none"
        ) from error
    if library != "keras" and backbone not in RESNETS:
        raise OSError(
            f"The architecture of {name} could not be fetched ({error}): "
            f"{library} keeps it with the weights. Run this once with an "
            "internet connection, or take a ResNet or --library keras"
        ) from error
    if isinstance(error, ValueError):
        raise ValueError(
            f"{name} cannot be built for images of {height} x {width} pixels "
            f"({error}). If they are too small, choose a larger --image-size"
        ) from error


def _pooled(features, backbone):
    """Pools the output of a backbone to one vector per image."""
    import keras

    if isinstance(features, dict):  # KerasHub's HGNetV2 returns all stages.
        features = features[backbone.stage_names[-1]]
    if len(features.shape) == 4:
        return keras.layers.GlobalAveragePooling2D(
            data_format="channels_last", name="pool"
        )(features)
    if len(features.shape) == 2:  # A user's own model has pooled them.
        return features
    # KerasHub's DeiT always has a class token, its ViT may have one.
    deit = type(backbone).__name__.startswith("DeiT")
    if getattr(backbone, "use_class_token", deit):
        return features[:, 0]
    return keras.layers.GlobalAveragePooling1D(name="pool")(features)


def _load_weights(backbone, name, path):
    try:
        backbone.load_weights(pathlib.Path(path).expanduser())
    # Errors of h5py and Keras do not help here, or have hundreds of lines.
    except Exception as error:
        why = first_line(error)
        raise ValueError(
            f"Expected in {path} weights that save_weights of {name}, without "
            f"its head, wrote. Received: a file that does not fit ({why}). "
            "Choose the backbone and --library of the file, or --weights "
            "imagenet"
        ) from error


def _keras_cv(name, input_shape, imagenet):
    models = require("keras_cv", "keras-cv").models
    kind = models.ResNetV2Backbone if _is_v2(name) else models.ResNetBackbone
    preset = names_of("keras_cv")[name] if imagenet else name
    if name not in RESNETS:
        kind = next(
            kind
            for label, kind in vars(models).items()
            if label.endswith("Backbone") and name in kind.presets
        )
    if imagenet or name not in RESNETS:
        backbone = kind.from_preset(
            preset, load_weights=imagenet, input_shape=input_shape
        )
    else:
        block, counts = BLOCKS[name.removesuffix("_v2")]
        # Not its aliases such as ResNet50Backbone(): they go online even for
        # random weights.
        backbone = kind(
            stackwise_filters=list(WIDTHS),
            stackwise_blocks=list(counts),
            stackwise_strides=[1, 2, 2, 2],
            include_rescaling=True,
            input_shape=input_shape,
            block_type={"basic": "basic_block", "bottleneck": "block"}[block],
        )
    # The backbone may divide by 255 itself.
    return backbone, _rescaling(1.0 if backbone.include_rescaling else 1 / 255)


def _keras_hub(name, input_shape, imagenet):
    hub = require("keras_hub", "keras-hub")
    preset = IMAGENET["keras_hub"].get(name) or names_of("keras_hub")[name]
    if imagenet or name not in RESNETS:
        backbone = hub.models.Backbone.from_preset(
            preset, load_weights=imagenet, image_shape=input_shape
        )
        converter = hub.layers.ImageConverter.from_preset(preset)
        scale = 1.0 if converter.scale is None else converter.scale
        return backbone, _rescaling(scale, converter.offset or 0.0)
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


def _check_size(name, input_shape, weights):
    """Checks the size: transformer weights have a position per patch."""
    size = re.match(r"keras_hub/(?:vit|deit)_.*_patch\d+_(\d+)", name)
    if weights != "none" and size and set(input_shape[:2]) != {int(size[1])}:
        raise ValueError(
            f"The weights of {name} are for images of {size[1]} x {size[1]} "
            f"pixels. Received: {input_shape[0]} x {input_shape[1]}. Choose "
            f"--image-size {size[1]}"
        )


def _keras(name, input_shape, imagenet):
    import keras

    kind = names_of("keras")[name]
    family = application_families()[kind]
    backbone = getattr(keras.applications, kind)(
        include_top=False,
        weights="imagenet" if imagenet else None,
        input_shape=input_shape,
    )
    preprocess = getattr(keras.applications, family).preprocess_input

    def scaling(images):
        images = keras.ops.cast(images, "float32")
        if not isinstance(images, keras.KerasTensor):
            # On PyTorch, `preprocess_input` overwrites its argument.
            images = keras.ops.copy(images)
        return preprocess(images, data_format="channels_last")

    return backbone, scaling


def _is_v2(name):
    return name.endswith("_v2")


def _rescaling(scale, offset=0.0):
    import keras

    return keras.layers.Rescaling(
        scale, offset, dtype="float32", name="scaling"
    )
