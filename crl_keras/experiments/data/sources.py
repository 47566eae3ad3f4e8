"""Data sets by name, whatever their size: in memory, in files, or of TFDS."""

import concurrent.futures
import functools
import importlib.util
import os
import pathlib
import types
import warnings
from dataclasses import replace

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.data import named as datasets
from crl_keras.experiments.data.adience import hold_out_people
from crl_keras.experiments.data.adience import read_adience
from crl_keras.experiments.data.crops import decoded
from crl_keras.experiments.data.fine_grained import read_cars
from crl_keras.experiments.data.fine_grained import read_cub
from crl_keras.experiments.data.image_files import FileDataset
from crl_keras.experiments.data.image_files import FileSplit
from crl_keras.experiments.data.image_trees import ReadingProgress
from crl_keras.experiments.data.image_trees import list_images
from crl_keras.experiments.data.image_trees import some
from crl_keras.experiments.data.streams import TfdsSet
from crl_keras.experiments.data.streams import open_tfds
from crl_keras.experiments.devices import leave_gpus_to_backend

FILE_SETS = ("cub", "cars", "adience", "adience_faces")
FOLDS = {"adience": 5, "adience_faces": 5}
# Whose classes have an order, so that it counts how far off a prediction is.
ORDINAL = ("adience", "adience_faces")
# What TFDS calls them, where it has prepared them in the folder that is given.
TFDS_NAMES = {
    "cub": ("caltech_birds2011",),
    "cars": ("stanford_cars", "cars196"),
    "adience": ("adience/fold_{fold}",),
}
READERS = ("auto", "memory", "pillow", "tf.data")
CHUNK = 64
_READABLE = set()  # Files, as they are now, that this process could decode.


def resolve_reader(name, resized, reader="auto"):
    """What decodes the images of a data set: a name of READERS but "auto".

    Images in memory are decoded already; those of TFDS need TensorFlow. Image
    files are read by TensorFlow where it is installed, else by Pillow.

    Args:
        name: str, name of the data set.
        resized: bool, whether images are brought to one size.
        reader: what the user asks for.

    Raises:
        ValueError: for a reader that cannot read that data set.

    >>> resolve_reader("digits", False), resolve_reader("tfds:cifar10", False)
    ('memory', 'tf.data')
    """
    kind = str(name).partition(":")[0]
    if name == "imagenet2012" or kind == "tfds":
        possible = ("tf.data",)
    elif name in FILE_SETS or (kind == "folder" and resized):
        possible = ("tf.data", "pillow")
        if importlib.util.find_spec("tensorflow") is None:
            possible = ("pillow", "tf.data")
    else:
        possible = ("memory",)
    if reader not in ("auto", *possible):
        raise ValueError(
            f"Expected a reader for {name} of: {', '.join(possible)}. "
            f"Received: {reader!r}."
        )
    return possible[0] if reader == "auto" else reader


def open_dataset(
    name,
    data_dir=None,
    fold=None,
    resized=False,
    skip_unreadable=False,
    reader="pillow",
):
    """Opens a data set of any kind.

    Args:
        name: str. A name of `load_dataset`, which reads it into memory;
            `"cub"`, `"cars"`, `"adience"` (aligned faces) or
            `"adience_faces"`, whose images stay in their files;
            `"imagenet2012"` or `"tfds:NAME"`, which TensorFlow streams.
        data_dir: path of a local copy; of "cub", "cars" and "adience" it is
            needed. It may be a folder of several copies, with that of "svhn",
            "cub", "cars" or "adience" in a folder of this name, or the data
            folder of TFDS, where it has prepared one of the three.
        fold: int, the fold that is the test, for "adience"; else None.
        resized: bool, whether images are brought to one size when they are
            read: then those of `"folder:PATH"` stay in their files too.
        skip_unreadable: bool, whether unreadable images are left out, with
            one warning for all, or are an error, the default.
        reader: str, what will decode images that stay in their files:
            `"tf.data"` reads fewer kinds than `"pillow"`, the default.

    Returns a `Dataset`, a `FileDataset` or a `TfdsSet`.

    Raises:
        ValueError: for an unknown name, a fold that there is not, or data
            that are not as expected.
        FileNotFoundError: for a path that is not there.
        OSError: if the data could not be downloaded.
        ImportError: if a package is missing; names the pip command.

    >>> open_dataset("digits").classes
    10
    """
    kind, _, path = str(name).partition(":")
    _check_fold(name, fold)
    if prepared := _prepared_by_tfds(name, data_dir, fold):
        return replace(open_tfds(f"tfds:{prepared}", data_dir), name=name)
    data_dir = _own_folder(name, data_dir)
    if name == "imagenet2012" or kind == "tfds":
        return open_tfds(name, data_dir)
    if name in FILE_SETS:
        if data_dir is None:
            raise ValueError(
                f"Expected the folder of {name}, which is not downloaded "
                "here. Received none: give it with --data-dir (data_dir=)."
            )
        found = _read_files(name, data_dir, fold)
    elif kind == "folder" and resized:
        found = _folder_of_files(path)
    elif kind == "folder" or name in datasets.NAMES:
        return datasets.load_dataset(name, data_dir, skip_unreadable)
    else:
        names = [n for n in datasets.NAMES if ":" not in n]
        names += [*FILE_SETS, "imagenet2012", "tfds:NAME"]
        raise ValueError(
            f"Expected a data set of {', '.join(names)} or folder:PATH. "
            f"Received: {name!r}"
        )
    return readable(found, skip_unreadable, reader)


def _prepared_by_tfds(name, data_dir, fold):
    """TFDS's name of a set that it has prepared in this folder, or None."""
    for pattern in TFDS_NAMES.get(name, ()) if data_dir else ():
        tfds_name = pattern.format(fold=fold)
        root = pathlib.Path(data_dir).expanduser()
        if any((root / tfds_name).glob("*/dataset_info.json")):
            return tfds_name
        others = pattern.format(fold="*") + "/*/dataset_info.json"
        if fold is not None and any(root.glob(others)):
            raise FileNotFoundError(
                f"Expected {tfds_name} in {root}, where TensorFlow Datasets "
                "has prepared another fold. Prepare it too, or name one that "
                "is there with --fold"
            )
    return None


def _own_folder(name, data_dir):
    """The folder of one set in a folder of several, or `data_dir` itself."""
    if data_dir is None or name not in (*FILE_SETS, "svhn"):
        return data_dir
    name = name.removesuffix("_faces")
    own = pathlib.Path(data_dir).expanduser() / name
    return own if own.is_dir() else data_dir


def _check_fold(name, fold):
    folds = FOLDS.get(name)
    if folds is None and fold is not None:
        raise ValueError(
            f"Expected no fold for {name}, which has one test set. "
            f"Received: fold={fold}."
        )
    if folds is not None and fold not in range(folds):
        raise ValueError(
            f"Expected a fold of {name} from 0 to {folds - 1}. "
            f"Received: fold={fold}."
        )


def _read_files(name, data_dir, fold):
    if name == "cub":
        return read_cub(data_dir)
    if name == "cars":
        return read_cars(data_dir)
    faces = "faces" if name == "adience_faces" else "aligned"
    return read_adience(data_dir, fold, faces)


def _folder_of_files(path):
    """Class folders with images of any size, laid out as in memory."""
    folder = pathlib.Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            "Expected a folder of class folders. Received: "
            f"{str(folder)!r}, which is none: images that are resized are read "
            "from an unpacked folder."
        )
    tree = list_images(folder)
    splits, names = datasets.splits_of_tree(tree, folder)
    made = {
        split: FileSplit(
            tuple(str(folder / tree.paths[i]) for i in rows), labels
        )
        for split, (rows, labels) in splits.items()
    }
    return FileDataset(
        f"folder:{folder.name}",
        made["train"],
        made["test"],
        names,
        made.get("held_out"),
    )


def cut_to_boxes(dataset, wanted):
    """Cuts images to the boxes of their objects, or leaves them whole.

    Raises ValueError if it is wanted and the data set has no boxes.
    """
    if isinstance(dataset, TfdsSet):
        return dataset.with_boxes() if wanted else dataset
    boxes = getattr(dataset.train, "boxes", None)
    if not wanted:
        return dataset if boxes is None else dataset.without_boxes()
    if boxes is None:
        raise ValueError(
            f"Expected bounding boxes in {dataset.name}, to crop to. Received: "
            "images without. Leave out --crop-to-box (crop_to_box=)."
        )
    return dataset


def hold_out(dataset, fraction):
    """Moves a part of the training split to `held_out`, for all seeds the same.

    Of Adience whole people, of a `TfdsSet` the last images, of other sets a
    stratified part; see the functions that do it.

    Raises:
        ValueError: For a fraction that leaves a part empty, or any of Adience
            from TensorFlow Datasets, which does not say who is in an image.
    """
    if isinstance(dataset, TfdsSet):
        if fraction and dataset.name.startswith("adience"):
            raise ValueError(
                "Expected held_out=0 for Adience of TensorFlow Datasets, whose "
                f"people cannot be kept apart. Received: {fraction}. Take "
                "--held-out 0, or the unpacked folder."
            )
        return dataset.hold_out(fraction)
    if dataset.name.startswith("adience"):
        return hold_out_people(dataset, fraction)
    return datasets.hold_out(dataset, fraction)


def limit(dataset, train=None, test=None):
    """Keeps fewer images: of a `TfdsSet` the first, else a stratified part."""
    if isinstance(dataset, TfdsSet):
        return dataset.limit(train, test)
    return datasets.limit(dataset, train, test)


def readable(dataset, skip_unreadable=False, reader="pillow"):
    """Decodes all images once, before any training.

    Args:
        dataset: `FileDataset`.
        skip_unreadable: bool, whether unreadable ones are left out, with one
            warning for all.
        reader: str, `"pillow"` or `"tf.data"`, what will decode them.

    Returns the `FileDataset`, without what was left out.

    Raises:
        OSError: for an image that cannot be read; it is named.
    """
    splits = {
        name: split
        for name in ("train", "test", "held_out")
        if (split := getattr(dataset, name)) is not None
    }
    paths = [path for split in splits.values() for path in split.paths]
    broken = _unreadable(dataset.name, paths, reader)
    if not broken:
        return dataset
    if not skip_unreadable:
        path, error = next(iter(broken.items()))
        raise unreadable(path, error) from error
    warnings.warn(
        f"{dataset.name}: {len(broken)} unreadable images skipped: "
        f"{some(list(broken))}.",
        stacklevel=2,
    )
    kept = {
        name: split.take(
            np.flatnonzero([path not in broken for path in split.paths])
        )
        for name, split in splits.items()
    }
    return FileDataset(dataset.name, class_names=dataset.class_names, **kept)


def unreadable(path, error):
    """What is raised for an image file that cannot be read."""
    return OSError(
        f"Expected an image in {path}. Received what cannot be read "
        f"({type(error).__name__}: {error}). Repair or remove it, or leave "
        "such images out with --skip-unreadable (skip_unreadable=True)."
    )


def _unreadable(name, paths, reader):
    """{path: error} of the images that cannot be decoded."""
    # Folds share their images.
    stamps = {path: _stamp(path, reader) for path in paths}
    paths = [path for path in paths if stamps[path] not in _READABLE]
    chunks = [paths[i : i + CHUNK] for i in range(0, len(paths), CHUNK)]
    if reader == "tf.data":
        leave_gpus_to_backend()
    shown = types.SimpleNamespace(total=len(chunks), done=0)
    broken = {}
    with (
        ReadingProgress(f"Checking {name}", shown) as progress,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        check = functools.partial(_unreadable_of, reader=reader)
        for found in pool.map(check, chunks):
            broken.update(found)
            shown.done += 1
            progress.update()
    _READABLE.update(stamps[path] for path in paths if path not in broken)
    return broken


def _stamp(path, reader):
    try:
        found = os.stat(path)
    except OSError:  # A link that leads nowhere: Pillow says so.
        return path, reader
    return path, reader, found.st_mtime_ns, found.st_size


def _unreadable_of(paths, reader):
    pillow = require("PIL.Image")
    broken = {}
    for path in paths:
        try:
            with pillow.open(path) as image:
                # An eighth of the pixels, from all of the file's bytes.
                image.draft("RGB", (1, 1))
                image.load()
                if reader == "tf.data":
                    _check_tensorflow_reads(image, path)
        # A damaged file makes Pillow raise nearly anything.
        except Exception as error:
            broken[path] = error
    return broken


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
