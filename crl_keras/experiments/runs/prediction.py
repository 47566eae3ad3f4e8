"""Saved models with their classes, to be asked about images."""

import json
import pathlib

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.analysis.comparison import crl_posterior
from crl_keras.experiments.data.crops import Crop
from crl_keras.experiments.data.image_trees import some
from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs.config import crl_parameters
from crl_keras.experiments.runs.config import loss_label


class Classifier:
    """A trained model with the names of its classes.

    Attributes:
        model: `keras.Model` from uint8 images to logits.
        info: dict of model.json: `classes`, `input_shape`, `resize_ratio`,
            `keep_aspect`, `crop_to_box` (whether it was trained on objects
            cut out by their boxes), `dataset`, `network`, `loss`.
    """

    def __init__(self, model, info):
        self.model, self.info = model, info
        height, width, self.channels = info["input_shape"]
        if height != width:
            raise ValueError(
                "Expected a model of square images. "
                f"Received: {height} x {width} pixels."
            )
        self.crop = Crop(
            height, "centre", info["resize_ratio"], info["keep_aspect"]
        )

    def __call__(self, path, posterior=False):
        """Classes of an image, the most likely first.

        Args:
            path: path of an image file.
            posterior: bool, whether the probabilities are the class posterior
                of a model trained with CRL instead of its softmax.

        Returns:
            List of `(class name, probability)`, all classes.

        Raises:
            OSError: for a file that is no image.
            ValueError: for `posterior` and a model trained with another loss.
        """
        try:
            image = self.crop.read(path)
        # A damaged file makes Pillow raise nearly anything.
        except Exception as error:
            raise OSError(
                f"Expected an image in {path}. Received what cannot be read "
                f"({type(error).__name__}: {error})."
            ) from error
        if self.channels == 1:
            image = image.mean(axis=-1, keepdims=True).round().astype(np.uint8)
        logits = np.asarray(self.model.predict(image[None], verbose=0))
        if posterior:
            logits = crl_posterior(logits, **crl_parameters(self.info["loss"]))
        (probabilities,) = scores.softmax(logits)
        order = np.argsort(-probabilities, kind="stable")
        names = self.info["classes"]
        return [(names[k], float(probabilities[k])) for k in order]


def load_classifier(path):
    """Loads a model that a run saved.

    Args:
        path: path of model.keras, of the folder of its run, or of an
            experiment with one saved model.

    Returns:
        `Classifier`.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: if there are several.
        ImportError: without the library of its backbone.
    """
    import keras

    # What saved models may hold: layers of ours, and of KerasCV if it is
    # there, register themselves when they are imported.
    import crl_keras.layers  # noqa: F401

    path = pathlib.Path(path).expanduser()
    found = (
        [path] if path.suffix == ".keras" else sorted(path.glob("model.keras"))
    )
    found = found or sorted(path.glob("*/model.keras"))
    if not found or not found[0].is_file():
        raise FileNotFoundError(
            f"Expected a saved model, model.keras, in {path} or in the folder "
            "of one of its runs. Received none: train with --save-model."
        )
    if len(found) > 1:
        names = [f"{p.parent} ({_trained(p)})" for p in found]
        raise ValueError(
            f"Expected one saved model in {path}. Received {len(found)}: "
            f"{some(names)}. Name the folder of one run."
        )
    info = json.loads((found[0].parent / "model.json").read_text())
    library, _, name = info["network"].rpartition("/")
    if library:
        require(library, library)  # Whose layers the model may have.
    return Classifier(keras.models.load_model(found[0]), info)


def _trained(path):
    """The loss, seed and fold of the run that saved a model."""
    config = json.loads(path.with_name("config.json").read_text())
    text = f"{loss_label(config['loss'])}, seed {config['seed']}"
    fold = config.get("fold")
    return text if fold is None else f"{text}, fold {fold}"
