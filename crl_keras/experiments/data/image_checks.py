"""Checks which image files can be decoded, and finds their orientation."""

import concurrent.futures
import functools
import os
import pathlib
import types

from crl_keras.experiments.data.crops import decoded
from crl_keras.experiments.data.formats import image_opener
from crl_keras.experiments.data.formats import is_unread
from crl_keras.experiments.data.formats import said_of_unread
from crl_keras.experiments.data.image_trees import ReadingProgress
from crl_keras.experiments.data.orientation import orientation_of
from crl_keras.experiments.devices import leave_gpus_to_backend

CHUNK = 64
# EXIF orientations of files that this process could decode, by `_stamp`.
_READABLE = {}


def unreadable(path, error):
    """The error for an image file that cannot be read."""
    return OSError(
        f"Expected an image in {path}. Received a file that cannot be read "
        f"({type(error).__name__}: {error}). Repair or remove it, or leave "
        "such images out with --skip-unreadable (skip_unreadable=True)."
    )


def check_images(name, paths, reader):
    """Decodes images once.

    Args:
        name: Name of the data set, for the progress bar.
        paths: Paths of the images.
        reader: "pillow" or "tf.data", the reader that decodes them later.

    Returns:
        `(broken, orientations)`, two dicts: the error for each path that cannot
        be decoded, and the EXIF orientation for each other path.
    """
    # Folds share images: each file is decoded once.
    stamps = {path: _stamp(path, reader) for path in paths}
    wanted, paths = paths, [p for p in paths if stamps[p] not in _READABLE]
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    if reader == "tf.data":
        leave_gpus_to_backend()
    shown = types.SimpleNamespace(total=len(chunks), done=0)
    broken = {}
    with (
        ReadingProgress(f"Checking {name}", shown) as progress,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        check = functools.partial(_checked, reader=reader)
        for errors, turned in pool.map(check, chunks):
            broken.update(errors)
            _READABLE.update((stamps[p], turned[p]) for p in turned)
            shown.done += 1
            progress.update()
    return broken, {p: _READABLE[stamps[p]] for p in wanted if p not in broken}


def _stamp(path, reader):
    try:
        found = os.stat(path)
    except OSError:  # A broken link: Pillow reports it later.
        return path, reader
    return path, reader, found.st_mtime_ns, found.st_size


def _checked(paths, reader):
    pillow = image_opener()
    broken, orientations = {}, {}
    for path in paths:
        try:
            with pillow.open(path) as image:
                # Decode an eighth of the pixels; this still reads all bytes.
                image.draft("RGB", (1, 1))
                image.load()
                orientations[path] = orientation_of(image)
                if reader == "tf.data":
                    _check_tensorflow_reads(image, path)
        # Pillow can raise almost any error for a damaged file.
        except Exception as error:
            broken[path] = error
            orientations.pop(path, None)
            if is_unread(path):
                broken[path] = ValueError(said_of_unread([path]))
    return broken, orientations


def _check_tensorflow_reads(image, path):
    # MPO is a JPEG followed by more JPEGs. TensorFlow reads a BMP with a
    # palette wrongly: it uses the indices of the colours as colours.
    kinds = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP")
    palette = image.format == "BMP" and image.mode not in ("RGB", "RGBA", "L")
    if image.format not in kinds or palette:
        raise ValueError(
            f"TensorFlow does not read {image.format} of mode {image.mode}; "
            "Pillow does, with --reader pillow"
        )
    if image.format not in ("JPEG", "MPO"):
        # TensorFlow cannot read all of these: no animated WebP, no cut PNG.
        decoded(pathlib.Path(path).read_bytes())
