"""Which image files can be decoded, and which way up they are stored."""

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
# EXIF orientations of files, as they are now, that this process could decode.
_READABLE = {}


def unreadable(path, error):
    """What is raised for an image file that cannot be read."""
    return OSError(
        f"Expected an image in {path}. Received what cannot be read "
        f"({type(error).__name__}: {error}). Repair or remove it, or leave "
        "such images out with --skip-unreadable (skip_unreadable=True)."
    )


def check_images(name, paths, reader):
    """Decodes images once.

    Args:
        name: Of the data set, for the progress bar.
        paths: Of the images.
        reader: "pillow" or "tf.data", what is to decode them later.

    Returns:
        `(broken, orientations)`: the error of each path that cannot be
        decoded, and the EXIF orientation of each other, two dicts.
    """
    # Folds share their images.
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
    except OSError:  # A link that leads nowhere: Pillow says so.
        return path, reader
    return path, reader, found.st_mtime_ns, found.st_size


def _checked(paths, reader):
    pillow = image_opener()
    broken, orientations = {}, {}
    for path in paths:
        try:
            with pillow.open(path) as image:
                # An eighth of the pixels, from all of the file's bytes.
                image.draft("RGB", (1, 1))
                image.load()
                orientations[path] = orientation_of(image)
                if reader == "tf.data":
                    _check_tensorflow_reads(image, path)
        # A damaged file makes Pillow raise nearly anything.
        except Exception as error:
            broken[path] = error
            orientations.pop(path, None)
            if is_unread(path):
                broken[path] = ValueError(said_of_unread([path]))
    return broken, orientations


def _check_tensorflow_reads(image, path):
    # MPO is a JPEG with further ones behind it. Of a BMP with a palette
    # TensorFlow takes the numbers of its colours for the colours.
    kinds = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP")
    palette = image.format == "BMP" and image.mode not in ("RGB", "RGBA", "L")
    if image.format not in kinds or palette:
        raise ValueError(
            f"TensorFlow does not read {image.format} of mode {image.mode}; "
            "Pillow does, with --reader pillow"
        )
    if image.format not in ("JPEG", "MPO"):
        # Of rarer kinds not all: no animated WebP, no PNG that lacks its end.
        decoded(pathlib.Path(path).read_bytes())
