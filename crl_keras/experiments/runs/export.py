"""Exports models to the formats of other runtimes, and checks the result."""

import dataclasses
import importlib.util
import json
import pathlib
import shutil
import warnings

import numpy as np

from crl_keras.experiments._optional import require

CHECKED = 4  # Noise images whose logits are compared.
TOLERANCE = 1e-3  # As a share of the largest logit.


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that a model can be exported to.

    Attributes:
        name: its name for users.
        ending: ending of its file, "" for a folder.
        backends: names of the Keras backends that write it.
        needs: dict from a backend to the package that it needs for that.
        runtime: the package that reads it back.
    """

    name: str
    ending: str
    backends: tuple
    needs: dict
    runtime: str


FORMATS = {
    f.name: f
    for f in (
        Format(
            "savedmodel",
            "",
            ("tensorflow", "jax"),
            {"jax": "tensorflow"},
            "tensorflow",
        ),
        Format(
            "onnx",
            ".onnx",
            ("tensorflow", "jax", "torch"),
            {"tensorflow": "tf2onnx", "jax": "jax2onnx", "torch": "onnx"},
            "onnxruntime",
        ),
        Format(
            "tflite",
            ".tflite",
            ("tensorflow", "torch"),
            {"torch": "litert_torch"},
            "tensorflow",
        ),
        Format("torchscript", ".pt", ("torch",), {}, "torch"),
    )
}


@dataclasses.dataclass(frozen=True)
class Exported:
    """An exported model.

    Attributes:
        path: its file or folder.
        difference: largest difference between a logit and the model's, or
            None if it was not checked.
        unchecked: why it was not checked, or "".
    """

    path: pathlib.Path
    difference: float | None
    unchecked: str


def export_model(model, name, folder):
    """Exports a model to the format of another runtime, and checks it.

    The exported model takes the model's input, uint8 pixels of 0 to 255 of
    shape `(batch, height, width, channels)`, and returns its logits, float32.
    A 16-bit model is exported in float32.

    Args:
        model: `keras.Model` from uint8 images to logits.
        name: "savedmodel", "onnx", "tflite" or "torchscript".
        folder: path of the folder for `model.onnx` and so on; "savedmodel" is
            a folder in it.

    Returns:
        `Exported`. The exported model is run in its own runtime, and must give
        the same logits as the model for noise images.

    Raises:
        ValueError: for an unknown format, a format that this backend does not
            write, or logits that differ.
        ImportError: without a package that the format needs.
    """
    if name not in FORMATS:
        raise ValueError(
            f"Expected a format of {', '.join(FORMATS)}. Received: {name!r}."
        )
    kind = FORMATS[name]
    _check_backend(kind)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (f"model{kind.ending}" if kind.ending else name)
    model = in_float32(model)
    with warnings.catch_warnings():
        # Tracing warns that it sees only one shape.
        warnings.simplefilter("ignore")
        images = _noise(model)
        # Keras exports only called models to ONNX; on JAX, predicting does
        # not count as a call.
        model(images[:1], training=False)
        logits = np.asarray(model.predict_on_batch(images), np.float64)
        _WRITERS[name](model, path)
        return _checked(images, logits, kind, path)


def _check_backend(kind):
    import keras

    backend = keras.backend.backend()
    if backend not in kind.backends:
        raise ValueError(
            f"Expected Keras on {' or '.join(kind.backends)} to export to "
            f"{kind.name}. Received: {backend}. Add --backend "
            f"{kind.backends[0]} (set KERAS_BACKEND): a saved model loads on "
            "every backend."
        )
    package = kind.needs.get(backend)
    if package and importlib.util.find_spec(package) is None:
        raise ImportError(
            f"{package} is needed to export to {kind.name} on {backend}. "
            f"Install it with: pip install {package.replace('_', '-')}",
            name=package,
        )


def in_float32(model):
    """Returns the model, or a copy that computes only in float32."""
    import keras

    text = json.dumps(keras.saving.serialize_keras_object(model))
    plain = text
    for policy in ("mixed_bfloat16", "mixed_float16"):
        plain = plain.replace(f'"{policy}"', '"float32"')
    if plain == text:
        return model
    made = keras.saving.deserialize_keras_object(json.loads(plain))
    made.set_weights(model.get_weights())
    return made


def _keras_export(kind):
    def write(model, path):
        if path.is_dir():
            shutil.rmtree(path)
        model.export(str(path), format=kind, verbose=False)

    return write


def _write_torchscript(model, path):
    import torch

    model.eval()
    image = torch.from_numpy(_noise(model)[:1])
    with torch.no_grad():
        traced = torch.jit.trace(model, image, check_trace=False)
    torch.jit.save(traced, str(path))


_WRITERS = {
    "savedmodel": _keras_export("tf_saved_model"),
    "onnx": _keras_export("onnx"),
    "tflite": _keras_export("litert"),
    "torchscript": _write_torchscript,
}


def _checked(images, expected, kind, path):
    """Runs the exported model on images whose logits are known."""
    if importlib.util.find_spec(kind.runtime) is None:
        why = f"{kind.runtime}, which runs it, is not installed"
        return Exported(path, None, why)
    found = _READERS[kind.name](path, images)
    difference = float(np.abs(found - expected).max())
    largest = float(np.abs(expected).max())
    if not difference <= TOLERANCE * max(largest, 1.0):
        raise ValueError(
            f"Expected {path} to give the logits of the model. Received logits "
            f"that differ by up to {difference:.3g} of {largest:.3g}: do not "
            "use it, and try another format or --backend."
        )
    return Exported(path, difference, "")


def _noise(model):
    shape = (CHECKED, *model.input_shape[1:])
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _run_savedmodel(path, images):
    tf = require("tensorflow", "tensorflow")
    loaded = tf.saved_model.load(str(path))  # It keeps its variables alive.
    return loaded.serve(images).numpy()


def _run_onnx(path, images):
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path))
    (given,) = session.get_inputs()
    return session.run(None, {given.name: images})[0]


def _run_tflite(path, images):
    interpreter = require("tensorflow", "tensorflow").lite.Interpreter(
        model_path=str(path)
    )
    (given,), (made,) = (
        interpreter.get_input_details(),
        interpreter.get_output_details(),
    )
    interpreter.allocate_tensors()
    found = []
    for image in images:  # It takes one image at a time.
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(made["index"])[0])
    return np.stack(found)


def _run_torchscript(path, images):
    import torch

    loaded = torch.jit.load(str(path))
    with torch.no_grad():
        return loaded(torch.from_numpy(images)).cpu().numpy()


_READERS = {
    "savedmodel": _run_savedmodel,
    "onnx": _run_onnx,
    "tflite": _run_tflite,
    "torchscript": _run_torchscript,
}
