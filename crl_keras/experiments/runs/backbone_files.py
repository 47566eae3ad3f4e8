"""Makes a backbone of a user's own model: reads its file and cuts it."""

import pathlib
import zipfile

from crl_keras.experiments._optional import require
from crl_keras.experiments.words import first_line

# A file may have layers of these libraries; importing registers the layers.
OTHERS = ("keras_cv", "keras_hub")


def open_backbone(path, input_shape):
    """Reads a .keras file and cuts the model before its classifier.

    The cut is after the last global pooling. Without one, it is after the last
    pooling if no convolution follows, else before the last dense layer. If the
    last layer is itself a model, the cut may be inside it.

    Args:
        path: Path of the file.
        input_shape: `(height, width, 3)` of the images it will get.

    Returns:
        `(backbone, scaling)`: a `keras.Model` up to the cut; a function from
        images with values in `[0, 255]` to its input, with the same values.

    Raises:
        ValueError: The file holds no model, or one that takes other images or
            has no such layer.
        ImportError: It has layers of a library that is not installed.
    """
    import keras

    model = _load(path)
    _check_images(path, model, input_shape)
    backbone, _, _ = _cut_or_raise(path, model)
    whole = keras.backend.is_int_dtype(model.inputs[0].dtype)

    def scaling(images):
        images = keras.ops.cast(images, "float32")
        # A model with integer inputs would cut off the decimals that
        # augmentation makes.
        return keras.ops.round(images) if whole else images

    return backbone, scaling


def describe(path):
    """Describes where a model is cut, and which pixels it gets."""
    backbone, layer, side = _cut_or_raise(path, _load(path))
    shape = " x ".join(str(n or "any") for n in backbone.output.shape[1:])
    return (
        f"{path} is used up to {side} its layer {layer.name!r} "
        f"({type(layer).__name__}), which makes {shape} features, with its "
        f"weights. It is given pixels from 0 to 255{_about_scaling(backbone)}"
    )


def _load(path):
    import keras

    path = pathlib.Path(path).expanduser()
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read("config.json").decode()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"Expected in {path} a model that model.save wrote. Received "
            f"another file ({error})"
        ) from error
    for library in OTHERS:
        if f'"{library}' in text:
            require(library, library.replace("_", "-"))
    try:
        return keras.models.load_model(path, compile=False)
    # Unknown layers can raise any error.
    except Exception as error:
        why = first_line(error)
        raise ValueError(
            f"Expected in {path} a model that keras.models.load_model can "
            f"read without your own code. Received: {why}. Save it without "
            "layers of your own classes and without Lambda layers"
        ) from error


def _check_images(path, model, input_shape):
    shapes = [tuple(x.shape) for x in getattr(model, "inputs", None) or ()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] not in (None, 3):
        raise ValueError(
            f"Expected in {path} a model that takes images in colour, (batch, "
            f"height, width, 3), and nothing else. Received: inputs {shapes}"
        )
    for wanted, size in zip(shapes[0][1:3], input_shape, strict=False):
        if wanted not in (None, size):
            raise ValueError(
                f"The model in {path} takes images of {shapes[0][1]} x "
                f"{shapes[0][2]} pixels. Received: {input_shape[0]} x "
                f"{input_shape[1]}. Choose --image-size {shapes[0][1]}"
            )


def _cut_or_raise(path, model):
    found = _cut(model)
    if found[0] is None:
        raise ValueError(
            f"Expected in {path} a model with a pooling or a dense layer that "
            "all paths go through. Received one without: cut the model "
            "and save it with keras.layers.GlobalAveragePooling2D at its end"
        )
    return found


def _cut(model):
    """`(backbone, layer, "and with" or "but without")`, or Nones."""
    import keras

    images, steps = steps_of(model)
    last, before, end = steps[-1]
    for layer, _, output in reversed(steps):
        if _is_pooling(layer, "Global") and _all_pass(output, end):
            return keras.Model(images, output), layer, "and with"
    for layer, _, output in reversed(steps):
        if _is_convolution(layer) or isinstance(layer, keras.Model):
            break
        if _is_pooling(layer) and _all_pass(output, end):
            return keras.Model(images, output), layer, "and with"
    for layer, entering, output in reversed(steps):
        if isinstance(layer, keras.layers.Dense) and _all_pass(output, end):
            return keras.Model(images, entering), layer, "but without"
    if isinstance(last, keras.Model):
        inner, layer, side = _cut(last)
        if inner is not None:
            return keras.Model(images, inner(before)), layer, side
    return None, None, None


def steps_of(model):
    """`(images, [(layer, what enters it, what leaves it), ...])` of a model.

    It calls all layers in a new graph: the layers of nested and Sequential
    models remember another graph from their first call.
    """
    import keras

    steps = []

    def call(layer, *arguments, **options):
        output = layer(*arguments, **options)
        steps.append((layer, arguments[0], output))
        return output

    if not isinstance(model, keras.Sequential):
        copy = keras.models.clone_model(
            model, clone_function=lambda layer: layer, call_function=call
        )
        return copy.inputs[0], steps
    inputs = keras.Input(
        batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype
    )
    here = inputs
    for layer in model.layers:
        here = call(layer, here)
    return inputs, steps


def _is_pooling(layer, start=""):
    name = type(layer).__name__
    return name.startswith(start) and name.endswith("Pooling2D")


def _is_convolution(layer):
    return "Conv" in type(layer).__name__


def _all_pass(output, end):
    """Whether all paths from the images to the end go through `output`.

    Other paths bypass the global poolings of squeeze-and-excitation blocks.
    """
    import keras

    if output is end:
        return True
    try:
        keras.Model(output, end)
    except ValueError:  # Another path needs the images.
        return False
    return True


def _about_scaling(backbone):
    """Returns a warning if a model seems to take scaled pixels, else ""."""
    import keras

    scalings = (keras.layers.Rescaling, keras.layers.Normalization)
    for layer in _flat(backbone):
        if isinstance(layer, scalings):
            return ""
        if _is_convolution(layer):
            break
    return (
        ". It has no Rescaling or Normalization layer in front: if it was "
        "trained on pixels of another range, put such a layer before it"
    )


def _flat(model):
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flat(layer)
        else:
            yield layer
