"""Loads saved models with their classes, to classify images."""

import concurrent.futures
import dataclasses
import glob
import json
import os
import pathlib

import numpy as np

from crl_keras.experiments.data.crops import Crop
from crl_keras.experiments.data.formats import image_suffixes
from crl_keras.experiments.data.image_trees import some
from crl_keras.experiments.measures import scores
from crl_keras.experiments.measures.posterior import crl_posterior
from crl_keras.experiments.runs.backbone_names import require_library
from crl_keras.experiments.runs.chosen import best_validated
from crl_keras.experiments.runs.chosen import run_name
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.config import canonical_loss
from crl_keras.experiments.runs.config import crl_parameters

__all__ = ["Classifier", "load_classifier"]

BATCH = 32


class Classifier:
    """A trained model with the names of its classes.

    Attributes:
        model: `keras.Model` from uint8 images to logits.
        info: dict of model.json: `classes`, `input_shape`, `input_dtype`,
            `input_range`, `resize_ratio`, `keep_aspect`, `crop_to_box`
            (whether it was trained on objects cut out by their boxes),
            `dataset`, `network`, `loss`.
        choice: str, which of several models this is and why; "" if there was
            only one.
        folder: path that it was loaded from, or None.
    """

    def __init__(self, model, info, choice="", folder=None):
        self.model, self.info = model, info
        self.choice, self.folder = choice, folder
        height, width, self.channels = info["input_shape"]
        if height != width:
            raise ValueError(
                "Expected a model of square images. "
                f"Received: {height} x {width} pixels."
            )
        self.crop = Crop(
            height, "centre", info["resize_ratio"], info["keep_aspect"]
        )

    @property
    def classes(self):
        """The names of the classes, a list of str."""
        return self.info["classes"]

    def __call__(self, path, posterior=False, mirror=False):
        """Classes of an image, the most likely first.

        Args:
            path: path of an image file.
            posterior: bool, whether to return the class posterior of a model
                trained with CRL instead of its softmax.
            mirror: bool, whether to average the probabilities of the image
                and its mirror image.

        Returns:
            List of `(class name, probability)`, all classes.

        Raises:
            OSError: for a file that is not an image.
            ValueError: for `posterior` with a model trained with another loss.
        """
        ((_, found),) = self.predict([path], posterior, mirror, batch_size=1)
        if isinstance(found, OSError):
            raise found
        order = np.argsort(-found, kind="stable")
        return [(self.classes[k], float(found[k])) for k in order]

    def predict(self, paths, posterior=False, mirror=False, batch_size=BATCH):
        """Probabilities of the classes of many images, batch by batch.

        All batches have one size, so that the model is compiled once.

        Args:
            paths: iterable of paths of image files.
            posterior: as in a call.
            mirror: as in a call.
            batch_size: int, images per batch.

        Yields:
            `(path, probabilities)` in the order of `paths`, float64
            `[classes]`; for a file that is not an image, an `OSError` instead
            of the probabilities.

        Raises:
            ValueError: for `posterior` with a model trained with another loss.
        """
        parameters = crl_parameters(self.info["loss"]) if posterior else None
        paths = list(paths)
        size = min(batch_size, len(paths))
        with concurrent.futures.ThreadPoolExecutor() as threads:
            for start in range(0, len(paths), size or 1):
                part = paths[start : start + size]
                read = list(threads.map(self._read_or_error, part))
                images = [x for x in read if not isinstance(x, OSError)]
                rows = iter(())
                if images:
                    x = np.zeros((size, *images[0].shape), np.uint8)
                    x[: len(images)] = images
                    rows = iter(self._probabilities(x, parameters, mirror))
                for path, found in zip(part, read, strict=True):
                    is_error = isinstance(found, OSError)
                    yield path, found if is_error else next(rows)

    def read(self, path):
        """Reads an image file as the model sees it, uint8 `[H, W, C]`.

        Raises:
            OSError: for a file that is not an image.
        """
        try:
            # Older models without this entry saw images as stored.
            turn = None if self.info.get("exif") else 1
            image = self.crop.read(path, orientation=turn)
        # For a damaged file Pillow can raise almost any error.
        except Exception as error:
            raise OSError(
                f"Expected an image in {path}. Received a file that cannot be "
                f"read ({type(error).__name__}: {error})."
            ) from error
        if self.channels == 1:
            image = image.mean(axis=-1, keepdims=True).round().astype(np.uint8)
        return image

    def _read_or_error(self, path):
        try:
            return self.read(path)
        except OSError as error:
            return error

    def _probabilities(self, images, parameters, mirror):
        views = [images, images[:, :, ::-1]] if mirror else [images]
        found = []
        for view in views:
            logits = np.asarray(self.model.predict_on_batch(view))
            if parameters is not None:
                logits = crl_posterior(logits, **parameters)
            found.append(scores.softmax(logits))
        return np.mean(found, axis=0)


def load_classifier(
    path: str | os.PathLike[str],
    loss: str | None = None,
    seed: int | None = None,
    fold: int | None = None,
) -> Classifier:
    """Loads a model that a run saved.

    Args:
        path: path of model.keras, of the folder of its run, or of an
            experiment with saved models.
        loss: str, loss of the run if there are several, such as `"crl"`.
        seed: int, seed of the run if there are several.
        fold: int, fold of the run if there are several.

    Returns:
        `Classifier`. If several models fit, it is the one with the lowest
        error on its held-out images, and its `choice` says so. The test set
        is not used for this.

    Raises:
        FileNotFoundError: if there is no saved model.
        ValueError: if no model fits, or several fit and none held images out.
        ImportError: if the library of its backbone is not installed.
    """
    import keras

    # Saved models may have our layers: importing registers them.
    import crl_keras.layers  # noqa: F401

    path = pathlib.Path(path).expanduser()
    folder, choice = _chosen_folder(path, loss, seed, fold)
    info = json.loads((folder / "model.json").read_text())
    library, _, name = info["network"].rpartition("/")
    if library:
        require_library(library)  # The model may have its layers.
    # Predicting needs no loss and no optimizer.
    model = keras.models.load_model(folder / "model.keras", compile=False)
    return Classifier(model, info, choice, folder)


def _chosen_folder(path, loss, seed, fold):
    """Returns the folder of the chosen model, and why it was chosen."""
    folders = _folders_with_models(path)
    if len(folders) == 1 and loss is seed is fold is None:
        return folders[0], ""  # A moved model may lack config.json.
    found = [SavedRun.read(folder) for folder in folders]
    if loss is not None:
        loss = canonical_loss(loss)
    kept = [run for run in found if run.fits(loss, seed, fold)]
    if not kept:
        raise ValueError(
            f"Expected a saved model in {path} of loss={loss!r}, seed={seed} "
            f"and fold={fold}, where None is any. Received: "
            f"{some([run.name for run in found])}."
        )
    chosen = best_validated(kept)
    if chosen.among == 1:
        return chosen.run.path, ""
    if chosen.error is None:
        raise ValueError(
            f"Expected one saved model in {path}, or images held out from "
            f"training to choose by. Received {len(kept)}: "
            f"{some([run.name for run in kept])}. Name the folder of one run, "
            "or choose with --loss, --seed and --fold (loss=, seed=, fold=)."
        )
    return chosen.run.path, f"{chosen.run.name}: {chosen.why}"


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A run whose model was kept: its folder and its configuration."""

    path: pathlib.Path
    config: RunConfig

    @classmethod
    def read(cls, folder):
        config = json.loads((folder / "config.json").read_text())
        return cls(folder, RunConfig.from_dict(config))

    @property
    def name(self):
        return f"{self.path} ({run_name(self.config)})"

    def fits(self, loss, seed, fold):
        """Whether it has that canonical loss, seed and fold; None fits all."""
        wanted = (loss, seed, fold)
        own = (self.config.loss, self.config.seed, self.config.fold)
        return all(w in (None, o) for w, o in zip(wanted, own, strict=True))


def _folders_with_models(path):
    """Finds the folders with a model.keras, at or in a path."""
    found = [path] if path.suffix == ".keras" else []
    found = found or sorted(path.glob("model.keras"))
    found = found or sorted(path.glob("*/model.keras"))
    if not found or not found[0].is_file():
        raise FileNotFoundError(
            f"Expected a saved model, model.keras, in {path} or in the folder "
            "of one of its runs. Received none: train with --save-model."
        )
    return [file.parent for file in found]


def image_files(wanted):
    """Finds image files by their path, folder or pattern.

    Args:
        wanted: iterable of str: an image file with any ending; a folder, which
            is searched with its subfolders for the endings of images; a
            pattern such as `"photos/*.jpg"`, with `**` for any folders.

    Returns:
        `(files, missing)`: a list of paths, each once, in the order of
        `wanted` and by name within an entry; a dict from each entry without
        images to the reason.
    """
    files, missing = {}, {}
    for text in wanted:
        path = pathlib.Path(text).expanduser()
        if path.is_dir():
            found = _below(path)
            reason = "a folder without images"
        elif path.exists() or not any(c in str(text) for c in "*?["):
            found, reason = [path], ""
        else:
            found = []
            for name in sorted(glob.glob(str(path), recursive=True)):
                fits = pathlib.Path(name)
                found += _below(fits) if fits.is_dir() else [fits]
            reason = "a pattern that matches no image"
        files.update(dict.fromkeys(found))
        if not found:
            missing[str(text)] = reason
    return list(files), missing


def _below(folder):
    """Finds the images in a folder and its subfolders, except hidden ones."""
    found, suffixes = [], image_suffixes()
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(x for x in folders if not x.startswith("."))
        found += [
            pathlib.Path(where, name)
            for name in sorted(names)
            if not name.startswith(".") and name.lower().endswith(suffixes)
        ]
    return found
