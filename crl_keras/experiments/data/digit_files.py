"""scikit-learn's digits as files, laid out like CUB, Cars and Adience.

They replace data sets that cannot be downloaded freely, to show that code runs.
The module imports only NumPy until a function needs more.
"""

import os
import pathlib
import tempfile

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.adience import FOLDS
from crl_keras.experiments.data.adience import PREFIXES
from crl_keras.experiments.data.adience import RAW_AGES
from crl_keras.experiments.data.cars196_classes import CARS196
from crl_keras.experiments.data.named import load_dataset

TRAIN, TEST = 10, 4  # Images of each class.
OF_FOLD = 3  # Images of each age group in a fold.


def write_digit_files(folder):
    """Writes the folders cub, cars and adience, if they do not exist.

    `read_cub`, `read_cars` and `read_adience` can read them. The images are
    JPEG files of 32 x 32 pixels. Digits 0 to 9 are the classes of birds and
    cars, digits 0 to 7 are the eight age groups.

    Args:
        folder: path of the folder for them. If it exists, it is used as it is.
            If the process is killed early, no folder of that name is left.

    Raises:
        ImportError: if scikit-learn or Pillow is missing; the message has the
            pip command.
    """
    folder = pathlib.Path(folder)
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    split = load_dataset("digits32").train
    images = [list(split.images[split.labels == k]) for k in range(10)]
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = pathlib.Path(temporary) / folder.name
        _write_cub(made / "cub", images)
        _write_cars(made / "cars", images)
        _write_adience(made / "adience", images)
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.is_dir():  # Otherwise another process was first.
                raise


def _write_cub(root, images):
    rows = []
    for label, of_class in enumerate(images):
        for i, image in enumerate(of_class[: TRAIN + TEST]):
            path = f"{label + 1:03d}.Digit_{label}/{i:04d}.jpg"
            _write_jpeg(root / "images" / path, image)
            rows.append((path, label + 1, int(i < TRAIN)))
    for name, column in (
        ("images", 0),
        ("image_class_labels", 1),
        ("train_test_split", 2),
    ):
        lines = (f"{i} {row[column]}\n" for i, row in enumerate(rows, 1))
        (root / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    lines = (f"{k + 1} {k + 1:03d}.Digit_{k}\n" for k in range(len(images)))
    (root / "classes.txt").write_text("".join(lines), encoding="utf-8")


def _write_cars(root, images):
    for label, of_class in enumerate(images):
        for i, image in enumerate(of_class[: TRAIN + TEST]):
            split = "train" if i < TRAIN else "test"
            path = root / split / CARS196[label] / f"{i:05d}.jpg"
            _write_jpeg(path, image)


def _write_adience(root, images):
    ages = {label: raw for raw, label in reversed(RAW_AGES.items())}
    for fold in range(FOLDS):
        rows = ["user_id\toriginal_image\tface_id\tage"]
        for label, raw in sorted(ages.items()):
            for i in range(OF_FOLD):
                user, face = f"user{fold}", 10 * fold + label
                photo = f"{fold}{label}{i}.jpg"
                name = f"{PREFIXES['aligned']}.{face}.{photo}"
                image = images[label][OF_FOLD * fold + i]
                _write_jpeg(root / "aligned" / user / name, image)
                rows.append(f"{user}\t{photo}\t{face}\t{raw}")
        path = root / f"fold_{fold}_data.txt"
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _write_jpeg(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    pillow = require("PIL.Image")
    pillow.fromarray(np.ascontiguousarray(image)).save(path, quality=95)
