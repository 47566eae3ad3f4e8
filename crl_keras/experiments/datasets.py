"""Data sets of images for classification, in memory or streamed.

A `Dataset` has its images in memory as uint8 arrays `[N, H, W, C]` with
values in `[0, 255]`, and its labels as int32 arrays `[N]` in `[0, classes)`,
the positions in `class_names`. `load_dataset` reads the small sets and any
folder of images; it needs no TensorFlow, but for SVHN without local files.
`stream_tfds` gives pipelines over what does not fit in memory.

Nothing but NumPy is imported before a function needs it.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import importlib
import io
import os
import pathlib
import re
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from typing import Any
from typing import NamedTuple

import numpy as np

from crl_keras.experiments._optional import require

# The share of a folder without train and test folders that becomes the test.
TEST_FRACTION = 0.2

IMAGE_SUFFIXES = tuple(
    ".bmp .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split()
)
ARCHIVE_SUFFIXES = tuple(".tar.gz .tgz .tar.bz2 .tar.xz .tar .zip".split())
SPLIT_OF_FOLDER = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}

DIGITS = tuple("0123456789")
CIFAR10 = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()
)
CIFAR100 = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl
    boy bridge bus butterfly camel can castle caterpillar cattle chair
    chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
    rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf
    woman worm
    """.split()
)
CLASS_NAMES = {
    "mnist": DIGITS,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "svhn": DIGITS,
}
NAMES = ("digits", *CLASS_NAMES, "folder:PATH")

# A cache pays when decoding took longer than reading it back would.
CACHE_AFTER_SECONDS = 2.0
CACHE_FORMAT = "1"
BAR_AFTER_SECONDS = 1.0
# Images decoded by one task of the thread pool: enough to hide its overhead,
# few enough to bound the bytes that wait.
CHUNK = 64
STATISTICS_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 `[N, H, W, C]`, values in `[0, 255]`.
        labels: int32 `[N]`; any integer dtype is taken and converted.

    Raises:
        ValueError: for another dtype or shape, no images, a negative label,
            or other numbers of images and labels.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                "Expected images as uint8 of shape (N, H, W, C). Received: "
                f"{images.dtype} of shape {images.shape}."
            )
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                "Expected labels as integers of shape (N,); take the argmax "
                "of one-hot rows and squeeze a column. Received: "
                f"{labels.dtype} of shape {labels.shape}."
            )
        if len(images) != len(labels) or not len(labels):
            raise ValueError(
                "Expected as many images as labels, at least one. Received: "
                f"{len(images)} images and {len(labels)} labels."
            )
        # Before the conversion, where a large value would wrap around.
        _check_range(labels, np.iinfo(np.int32).max)
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32))

    def __len__(self):
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set in memory.

    Attributes:
        name: str, what reports call it.
        train, test: `Split`.
        class_names: tuple of str; a label is a position in it.
        held_out: `Split` or None, training images kept from training, for
            fitting a temperature.

    Raises:
        ValueError: for fewer than two classes, repeated names, a label out of
            range, a class without samples in a split, or splits whose images
            differ in shape.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple
    held_out: Split | None = None

    def __post_init__(self):
        names = tuple(str(name) for name in self.class_names)
        object.__setattr__(self, "class_names", names)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(
                "Expected at least two classes with names of their own. "
                f"Received: {names}."
            )
        for where, split in self._splits():
            if split.images.shape[1:] != self.input_shape:
                raise ValueError(
                    f"Expected {where} images of the shape of the training "
                    f"images, {self.input_shape}. Received: "
                    f"{split.images.shape[1:]}."
                )
            _check_labels(split.labels, names, where)

    def _splits(self):
        splits = (
            ("train", self.train),
            ("test", self.test),
            ("held-out", self.held_out),
        )
        return [(where, split) for where, split in splits if split is not None]

    @property
    def classes(self):
        """The number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self):
        """The shape `(H, W, C)` of an image."""
        return self.train.images.shape[1:]

    @cached_property
    def fingerprint(self):
        """16 hexadecimal digits that change with anything in the data.

        SHA-256 of the class names and, for each split, of its shape, its
        labels and the CRC-32 of its pixels. The name does not enter.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        for where, split in self._splits():
            pixels = zlib.crc32(np.ascontiguousarray(split.images))
            head = (where, split.images.shape, pixels)
            digest.update(repr(head).encode())
            digest.update(split.labels.astype("<i4").tobytes())
        return digest.hexdigest()[:16]


def _check_range(labels, classes):
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"Expected labels from 0 to {classes - 1}. Received: "
            f"{labels[first]} at index {first}, {int(wrong.sum())} such in "
            "all. Subtract 1 from labels that start at 1."
        )


def _check_labels(labels, class_names, where):
    _check_range(labels, len(class_names))
    counts = np.bincount(labels, minlength=len(class_names))
    empty = [class_names[k] for k in np.flatnonzero(counts == 0)]
    if empty:
        raise ValueError(
            f"Expected samples of every class in the {where} split. "
            f"Received none of {_some(empty)}. Add images or remove the class."
        )


def _some(items, most=5):
    """The first few as text, and how many more."""
    text = ", ".join(repr(item) for item in items[:most])
    more = len(items) - most
    return f"{text} and {more} more" if more > 0 else text


def load_dataset(
    name, data_dir=None, skip_unreadable=False, seed=0, cache=True
):
    """Loads a data set into memory.

    Args:
        name: str. `"digits"` (1,797 grey 8x8 digits that scikit-learn brings,
            a fixed stratified 75/25 split), `"mnist"`, `"cifar10"`,
            `"cifar100"`, `"svhn"` (train and extra for training), or
            `"folder:PATH"`: a folder, or a .tar, .tar.gz or .zip file of one,
            read without unpacking, with one folder of images a class. These
            may lie in `train` and `test` folders (also `training`, `testing`;
            `validation` or `val` serves as the test, or is `held_out` where
            there is a test too). Without them a stratified 20 % becomes the
            test. All images must have one size and be all grey or all colour.
        data_dir: path of a local copy, or of a folder that holds one, or
            None, the default, to download. For `mnist`, `cifar10`,
            `cifar100`: images in class folders as above, with train and test
            folders, named like `cifar10.tar.gz` or `cifar10/` in a folder of
            several. For `svhn`: the folder of `train_32x32.mat`,
            `extra_32x32.mat`, `test_32x32.mat`, or TFDS's data folder.
        skip_unreadable: bool, whether an unreadable or truncated image is
            skipped, with one warning for all, or is an error, the default.
        seed: int in `[0, 2**32)`, draws the test part of a folder without a
            test folder; 0 by default.
        cache: bool, whether the images of an archive that was slow to read
            are kept, decoded, in the folder that the environment variable
            CRL_CACHE_DIR names, by default `~/.cache/crl_keras`; True by
            default.

    Returns a `Dataset`. Images read from JPEGs under the name of a published
    set are not quite its pixels: its name then ends in " (JPEG)".

    Raises:
        ValueError: for an unknown name, or data that are not as expected.
        FileNotFoundError: for a path that is not there.
        OSError: if the data could not be downloaded.
        ImportError: if a package is missing; names the pip command.

    >>> digits = load_dataset("digits")
    >>> digits.train.images.shape, digits.test.images.shape
    ((1347, 8, 8, 1), (450, 8, 8, 1))
    >>> digits.classes, digits.input_shape
    (10, (8, 8, 1))
    """
    kind, _, path = str(name).partition(":")
    if kind == "folder" and path:
        return _folder(path, skip_unreadable, seed, cache)
    if name == "digits":
        return _digits()
    if name == "svhn":
        return _svhn(data_dir)
    if name in CLASS_NAMES and data_dir is not None:
        return _local_copy(name, data_dir, skip_unreadable, cache)
    if name in CLASS_NAMES:
        return _downloaded(name)
    streamed = name == "imagenet2012" or kind == "tfds"
    advice = " Use stream_tfds for it." if streamed else ""
    raise ValueError(
        f"Expected one of {', '.join(NAMES)}. Received: {name!r}.{advice}"
    )


def hold_out(dataset, fraction, seed=0):
    """Moves a stratified part of the training split to `held_out`.

    Args:
        dataset: `Dataset` without a held-out part.
        fraction: float in `[0, 1)`, the share of each class, rounded, but at
            least one image and not all; 0 returns the data set unchanged.
        seed: int in `[0, 2**32)`, draws the images; 0 by default.

    Raises:
        ValueError: for a fraction out of range, a class of one image, or a
            data set that has a held-out part.

    >>> digits = hold_out(load_dataset("digits"), 0.1)
    >>> len(digits.train), len(digits.held_out)
    (1212, 135)
    """
    if not 0 <= fraction < 1:
        raise ValueError(
            f"Expected a fraction in [0, 1). Received: fraction={fraction}."
        )
    if fraction == 0:
        return dataset
    if dataset.held_out is not None:
        raise ValueError(
            f"Expected a data set without a held-out part. Received: "
            f"{dataset.name!r} with {len(dataset.held_out)} images held out. "
            "Use a fraction of 0."
        )
    kept, held = _stratified_parts(
        dataset.train.labels, fraction, dataset.class_names, seed
    )
    return replace(
        dataset,
        train=_part(dataset.train, kept),
        held_out=_part(dataset.train, held),
    )


def limit(dataset, train=None, test=None, seed=0):
    """Stratified subsets of the splits, for a quick run.

    Args:
        dataset: `Dataset`; its held-out part stays as it is.
        train, test: int, how many images to keep, at least one a class; None,
            the default, or a number above the split's size keeps all.
        seed: int in `[0, 2**32)`, draws the images; 0 by default.

    Raises:
        ValueError: for fewer images than classes.

    >>> small = limit(load_dataset("digits"), train=100, test=50)
    >>> len(small.train), len(small.test)
    (100, 50)
    """
    return replace(
        dataset,
        train=_limited(dataset.train, train, "train", dataset.classes, seed),
        test=_limited(dataset.test, test, "test", dataset.classes, seed),
    )


def channel_statistics(split):
    """Mean and standard deviation of each channel, in units of 1.

    Args:
        split: `Split`; its pixels are divided by 255.

    Returns two float64 arrays `[C]`; the mean is in `[0, 1]`, the deviation
    (that of the population, over N) in `[0, 0.5]`. Exact but for the last
    rounding: the sums are of integers.

    >>> mean, deviation = channel_statistics(load_dataset("digits").train)
    >>> mean.round(3).tolist(), deviation.round(3).tolist()
    ([0.305], [0.376])
    """
    channels = split.images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(split), STATISTICS_CHUNK):
        chunk = split.images[start : start + STATISTICS_CHUNK]
        for k in range(channels):
            counts[k] += np.bincount(chunk[..., k].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean, np.sqrt(variance)


# Subsets


def _part(split, indices):
    return Split(split.images[indices], split.labels[indices])


def _quotas(counts, size):
    """Shares of `size` in proportion to `counts`, summing to it."""
    exact = counts * (size / counts.sum())
    quotas = np.floor(exact).astype(int)
    # The largest remainders are rounded up; of equal ones, the first.
    order = np.argsort(quotas - exact, kind="stable")
    quotas[order[: size - quotas.sum()]] += 1
    return quotas


def _draw(labels, quotas, seed):
    """Sorted indices of `quotas[k]` samples of each class `k`."""
    # RandomState's stream is frozen: a seed means the same images in any
    # version of NumPy.
    random = np.random.RandomState(seed)
    chosen = [
        random.permutation(np.flatnonzero(labels == k))[:quota]
        for k, quota in enumerate(quotas)
    ]
    return np.sort(np.concatenate(chosen))


def _stratified_parts(labels, fraction, class_names, seed):
    """Indices of the rest and of the `fraction`, both with every class."""
    counts = np.bincount(labels, minlength=len(class_names))
    small = [class_names[k] for k in np.flatnonzero(counts == 1)]
    if small:
        raise ValueError(
            "Expected at least two images of every class, one for each part. "
            f"Received one of {_some(small)}. Add images or remove the class."
        )
    _check_labels(labels, class_names, "whole")
    quotas = _quotas(counts, round(fraction * len(labels)))
    chosen = _draw(labels, np.clip(quotas, 1, counts - 1), seed)
    rest = np.ones(len(labels), bool)
    rest[chosen] = False
    return np.flatnonzero(rest), chosen


def _limited(split, size, where, classes, seed):
    if size is None or size >= len(split):
        return split
    if size < classes:
        raise ValueError(
            f"Expected {where} to be at least {classes}, an image a class. "
            f"Received: {where}={size}."
        )
    counts = np.bincount(split.labels, minlength=classes)
    quotas = np.maximum(_quotas(counts, size), 1)
    # What the smallest classes got beyond their share, the largest give.
    while quotas.sum() > size:
        quotas[np.argmax(quotas)] -= 1
    return _part(split, _draw(split.labels, quotas, seed))


# Named sets


def _digits():
    sets = require("sklearn.datasets")
    selection = require("sklearn.model_selection")
    digits = sets.load_digits()
    # 0..16 to 0..255.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    train, test = selection.train_test_split(
        np.arange(len(images)),
        test_size=0.25,
        stratify=digits.target,
        random_state=0,
    )
    whole = Split(images, digits.target)
    return Dataset("digits", _part(whole, train), _part(whole, test), DIGITS)


def _downloaded(name):
    sets = require("keras.datasets")
    try:
        pairs = getattr(sets, name).load_data()
    # Keras raises a bare Exception for what it cannot fetch.
    except Exception as error:
        raise OSError(
            f"keras.datasets could not load {name} ({error}). With a local "
            "copy go on with --data-dir PATH (data_dir=PATH): a folder or a "
            ".tar.gz of class folders in train and test folders."
        ) from error
    splits = (_channels_last(x, y) for x, y in pairs)
    return Dataset(name, *splits, CLASS_NAMES[name])


def _channels_last(images, labels):
    if images.ndim == 3:
        images = images[..., None]
    # What keras.datasets gives follows Keras's image_data_format.
    if images.shape[-1] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels.reshape(-1))


def _local_copy(name, data_dir, skip_unreadable, cache):
    path = _find_copy(name, pathlib.Path(data_dir).expanduser())
    tree = _read_tree(path, skip_unreadable, cache)
    layout = _layout(tree, path)
    expected = CLASS_NAMES[name]
    if set(layout.class_names) != set(expected):
        raise ValueError(
            f"Expected the classes of {name}, {_some(expected)}, in {path}. "
            f"Received: {_some(layout.class_names)}. Read it under its own "
            f"name, --dataset folder:{path}, or give another --data-dir."
        )
    if set(layout.rows) == {"all"}:
        raise ValueError(
            f"Expected train and test folders for {name} in {path}. Received: "
            "class folders alone, whose split would not be the published one. "
            f"Use --dataset folder:{path} for a split drawn from the seed."
        )
    lossy = any(p.lower().endswith((".jpg", ".jpeg")) for p in tree.paths)
    title = f"{name} (JPEG)" if lossy else name
    return _as_dataset(title, tree, layout, seed=0)


def _find_copy(name, data_dir):
    """The file or folder of the named set in what the user gave."""
    if data_dir.is_file():
        return data_dir
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"Expected a local copy of {name}, a folder or an archive. "
            f"Received: data_dir={str(data_dir)!r}, which does not exist."
        )
    inside = sorted(data_dir.iterdir())
    if any(p.name.lower() in SPLIT_OF_FOLDER for p in inside if p.is_dir()):
        return data_dir
    # cifar10, CIFAR-10 and cifar_10, but not cifar100.
    spelled = "cifar[-_]?" + name[5:] if name.startswith("cifar") else name
    named = re.compile(spelled + r"(?![0-9a-z])", re.IGNORECASE)
    found = [p for p in inside if named.match(p.name) and _may_hold_images(p)]
    if len(found) == 1:
        return found[0]
    raise FileNotFoundError(
        f"Expected one copy of {name} in {data_dir}: {name}/ or {name}.tar.gz "
        f"with train and test folders. Received: "
        f"{_some([p.name for p in found or inside]) or 'an empty folder'}. "
        "Name the file itself with --data-dir."
    )


def _may_hold_images(path):
    return path.is_dir() or path.name.lower().endswith(ARCHIVE_SUFFIXES)


def _svhn(data_dir):
    if data_dir is None:
        return _svhn_from_tfds(None)
    folder = pathlib.Path(data_dir).expanduser()
    if (folder / "svhn_cropped").is_dir():
        return _svhn_from_tfds(folder)
    parts = ("train", "extra", "test")
    files = {part: folder / f"{part}_32x32.mat" for part in parts}
    missing = [p.name for p in files.values() if not p.is_file()]
    if missing:
        raise FileNotFoundError(
            "Expected train_32x32.mat, extra_32x32.mat and test_32x32.mat, or "
            f"TFDS's svhn_cropped folder, in {folder}. Missing: "
            f"{_some(missing)}. The files are the cropped digits (format 2) "
            "of ufldl.stanford.edu/housenumbers."
        )
    train = _joined(_mat(files["train"]), _mat(files["extra"]))
    return Dataset("svhn", train, Split(*_mat(files["test"])), DIGITS)


def _mat(path):
    """Images and labels of one of SVHN's files, X `[32, 32, 3, N]`, y."""
    matlab = require("scipy.io")
    try:
        contents = matlab.loadmat(path)
        images = contents["X"].transpose(3, 0, 1, 2)
        labels = contents["y"].reshape(-1)
    except Exception as error:
        raise ValueError(
            f"Expected MATLAB arrays X of shape (32, 32, 3, N) and y in "
            f"{path}. Received: {error}. Fetch the file again."
        ) from error
    # The digit 0 is class 10 there.
    return images, np.where(labels == 10, 0, labels)


def _joined(*parts):
    images, labels = zip(*parts, strict=True)
    return Split(np.concatenate(images), np.concatenate(labels))


def _svhn_from_tfds(data_dir):
    tfds = _require_tfds()
    try:
        parts = {
            part: tfds.as_numpy(
                tfds.load(
                    "svhn_cropped",
                    split=part,
                    data_dir=data_dir,
                    batch_size=-1,
                    as_supervised=True,
                )
            )
            for part in ("train", "extra", "test")
        }
    except Exception as error:
        raise OSError(
            f"TensorFlow Datasets could not load svhn_cropped ({error}). "
            "With the three .mat files go on with --data-dir FOLDER."
        ) from error
    train = _joined(parts["train"], parts["extra"])
    return Dataset("svhn", train, Split(*parts["test"]), DIGITS)


# Folders and archives of images


class _Tree(NamedTuple):
    """All images of a tree, by path, and the folders it has."""

    images: np.ndarray
    paths: list
    folders: list


class _Layout(NamedTuple):
    """The rows of a tree's images, as {split: {class name: [row]}}."""

    rows: dict
    class_names: list


def _folder(path, skip_unreadable, seed, cache):
    path = pathlib.Path(path).expanduser()
    tree = _read_tree(path, skip_unreadable, cache)
    name = path.resolve().name
    for suffix in ARCHIVE_SUFFIXES:
        name = name.removesuffix(suffix)
    return _as_dataset(f"folder:{name}", tree, _layout(tree, path), seed)


def _as_dataset(name, tree, layout, seed):
    splits = {
        split: _labelled(tree.images, rows, layout.class_names, split)
        for split, rows in layout.rows.items()
    }
    if "all" in splits:
        whole = splits["all"]
        train, test = _stratified_parts(
            whole.labels, TEST_FRACTION, layout.class_names, seed
        )
        splits = {"train": _part(whole, train), "test": _part(whole, test)}
    held_out = splits.get("validation") if "test" in splits else None
    test = splits["test" if "test" in splits else "validation"]
    return Dataset(name, splits["train"], test, layout.class_names, held_out)


def _labelled(images, rows, class_names, where):
    counts = [len(rows[name]) for name in class_names]
    labels = np.repeat(np.arange(len(class_names)), counts)
    # Here, not in Dataset alone: a split may have no image at all.
    _check_labels(labels, class_names, where)
    order = np.concatenate([rows[name] for name in class_names])
    return Split(images[order.astype(int)], labels)


def _layout(tree, path):
    images = [p.split("/") for p in tree.paths]
    folders = [p.split("/") for p in tree.folders]
    depth = _wrapping_folders(images, folders)
    images = [parts[depth:] for parts in images]
    folders = [parts[depth:] for parts in folders if len(parts) > depth]
    loose = [tree.paths[i] for i, p in enumerate(images) if len(p) < 2]
    if loose:
        raise ValueError(
            f"Expected every image of {path} in the folder of its class. "
            f"Received: {_some(loose)}. Move or remove them."
        )
    found = _found_splits(images, path)
    level = 1 if found else 0
    rows = {split: {} for split in set(found.values()) or ["all"]}
    for i, parts in enumerate([*images, *folders]):
        split = found.get(parts[0]) if found else "all"
        if split is None or len(parts) <= level:
            continue
        of_class = rows[split].setdefault(parts[level], [])
        if i < len(images):
            of_class.append(i)
    return _Layout(rows, _common_classes(rows, path))


def _wrapping_folders(images, folders):
    """How many folders hold nothing but one folder that has all the rest."""
    depth = 0
    while all(len(parts) > depth + 2 for parts in images):
        names = {p[depth] for p in [*images, *folders] if len(p) > depth}
        if len(names) > 1:
            break
        depth += 1
    return depth


def _found_splits(images, path):
    """{folder: split}, empty if the folders are those of the classes."""
    nested = {parts[0] for parts in images if len(parts) > 2}
    flat = {parts[0] for parts in images if len(parts) == 2}
    # A class may be called "train" (CIFAR-100 has one): its images lie in it.
    found = {
        name: SPLIT_OF_FOLDER[name.lower()]
        for name in sorted(nested - flat)
        if name.lower() in SPLIT_OF_FOLDER
    }
    if not found:
        _check_one_set(images, path)
        return found
    splits = list(found.values())
    others = sorted((nested | flat) - set(found))
    if (
        others
        or len(set(splits)) < len(splits)
        or "train" not in splits
        or len(splits) < 2
    ):
        raise ValueError(
            f"Expected a train and a test folder in {path}, perhaps also a "
            "validation folder. Received folders of images: "
            f"{_some(sorted(nested | flat))}. Rename or remove folders."
        )
    return found


def _check_one_set(images, path):
    for parts in images:
        if len(parts) > 3 and parts[1].lower() in SPLIT_OF_FOLDER:
            raise ValueError(
                f"Expected one data set in {path}. Received train or test "
                f"folders inside several: {'/'.join(parts[:2])!r}. Name one "
                "of them."
            )


def _common_classes(rows, path):
    """Sorted class names, if every split has the same ones."""
    names = sorted(set().union(*rows.values()))
    for split, classes in rows.items():
        missing = [name for name in names if name not in classes]
        if missing:
            raise ValueError(
                f"Expected the same class folders in every split of {path}. "
                f"Received no folder in {split} for {_some(missing)}. Add or "
                "remove the class."
            )
    return names


def _read_tree(path, skip_unreadable=False, cache=True):
    source = _source(path)
    # Only a file has a size and a time that tell whether it changed.
    store = _Cache(path) if cache and path.is_file() else None
    tree = store.read() if store else None
    if tree is not None:
        return tree
    start = time.monotonic()
    tree, complete = _decoded_tree(source, path, skip_unreadable)
    slow = time.monotonic() - start > CACHE_AFTER_SECONDS
    # A tree with gaps would hide them from the next, strict reading.
    if store and slow and complete:
        store.write(tree)
    return tree


def _decoded_tree(source, path, skip_unreadable):
    images, folders, skipped = {}, set(), []
    first = None
    with _Progress(f"Reading {path.name}", source) as progress:
        for name, result in _decode_all(source):
            progress.update()
            if result is None:
                folders.add(name)
            elif isinstance(result, _Unreadable):
                if not skip_unreadable:
                    raise _unreadable_error(path, name, result) from result
                skipped.append(name)
            else:
                first = first or (name, result)
                _check_alike(path, name, result, *first)
                images[name] = result
    _report(path, skipped, source.ignored)
    if not images:
        raise ValueError(
            f"Expected images ({' '.join(IMAGE_SUFFIXES)}) in {path}, one "
            "folder a class. Received none that can be read."
        )
    # The same order from a folder as from any archive of it.
    paths = sorted(images)
    stacked = np.stack([images.pop(name) for name in paths])
    return _Tree(stacked, paths, sorted(folders)), not skipped


def _report(path, skipped, ignored):
    if skipped:
        warnings.warn(
            f"{path}: {len(skipped)} unreadable images skipped: "
            f"{_some(skipped)}.",
            stacklevel=2,
        )
    if ignored:
        warnings.warn(
            f"{path}: {len(ignored)} members ignored that are links or lie "
            f"outside the archive: {_some(ignored)}.",
            stacklevel=2,
        )


class _Unreadable(Exception):
    """Why one image could not be read."""


def _unreadable_error(path, name, why):
    return ValueError(
        f"Expected an image in {path}, {name!r}. Received what cannot be read "
        f"({why}). Repair or remove it, or skip such images with "
        "--skip-unreadable (skip_unreadable=True)."
    )


def _check_alike(path, name, image, first_name, first):
    if image.shape == first.shape:
        return

    def described(image):
        height, width, channels = image.shape
        return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"

    raise ValueError(
        f"Expected all images of {path} to have the size and mode of the "
        f"first, {first_name!r}: {described(first)}. Received: {name!r}, "
        f"{described(image)}. Resize or convert the images; only streamed "
        "data are resized here."
    )


def _decode_all(entries):
    """Yields (path, image, `_Unreadable` or None for a folder), in order."""
    # Pillow lets go of the interpreter while it decodes.
    workers = min(8, os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = collections.deque()
        for chunk in _chunks(entries):
            pending.append(pool.submit(_decode_chunk, chunk))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _chunks(entries):
    chunk = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    yield chunk


def _decode_chunk(chunk):
    pillow = require("PIL.Image")
    return [(name, _decode(pillow, data)) for name, data in chunk]


def _decode(pillow, data):
    if data is None or isinstance(data, _Unreadable):
        return data
    try:
        if isinstance(data, str):
            data = _file_bytes(data)
        with pillow.open(io.BytesIO(data)) as image:
            return _pixels(image)
    except MemoryError:
        raise
    # A damaged file makes Pillow raise nearly anything.
    except Exception as error:
        return _Unreadable(f"{type(error).__name__}: {error}")


def _file_bytes(path):
    # Opening a pipe would wait for ever.
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError("not a regular file")
    with open(path, "rb") as file:
        return file.read()


def _pixels(image):
    """uint8 `[H, W, 1]` or `[H, W, 3]`."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "PA", "RGBA"):
        if image.getchannel("A").getextrema()[0] < 255:
            raise ValueError("it has transparent pixels; flatten it")
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode in ("CMYK", "P", "YCbCr"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"mode {image.mode}; convert it to 8 bits a channel")
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _source(path):
    if path.is_dir():
        return _FolderSource(path)
    if not path.exists():
        raise FileNotFoundError(
            "Expected a folder, a .tar, .tar.gz or .zip file. Received: "
            f"{str(path)!r}, which does not exist."
        )
    with open(path, "rb") as file:
        start = file.read(4)
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        return _ZipSource(path)
    return _TarSource(path)


# A source is iterated over once and yields (path in the tree, what): None for
# a folder, the bytes of an image, an `_Unreadable`, or, from a folder, the
# path of a file, to be read in the thread that decodes it. `done` of `total`
# tells how far it is; `ignored` collects the members not read for safety.


class _FolderSource:
    def __init__(self, path):
        self.path, self.ignored = path, []
        self.entries = list(self._walk())
        self.total, self.done = len(self.entries), 0

    def _walk(self):
        for folder, inside, files in os.walk(
            self.path, followlinks=True, onerror=_raise
        ):
            inside[:] = sorted(d for d in inside if self._enters(folder, d))
            relative = pathlib.Path(folder).relative_to(self.path)
            if relative.parts:
                yield relative.as_posix(), None
            for name in sorted(files):
                path = (relative / name).as_posix()
                if _is_image(path):
                    yield path, os.path.join(folder, name)

    def _enters(self, folder, name):
        # A link to a folder above would lead in circles.
        here = os.path.realpath(folder)
        target = os.path.realpath(os.path.join(folder, name))
        above = target == here or here.startswith(target + os.sep)
        return not above and not _is_hidden(name)

    def __iter__(self):
        for entry in self.entries:
            self.done += 1
            yield entry


class _TarSource:
    def __init__(self, path):
        self.path, self.ignored = path, []
        self.total, self.done = path.stat().st_size, 0

    def __iter__(self):
        with open(self.path, "rb") as raw, _expanded(raw) as file:
            yield from self._entries(raw, file)

    def _entries(self, raw, file):
        try:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                for member in archive:
                    self.done = raw.tell()
                    yield from self._entry(archive, member)
            # tarfile takes a file cut within a header for a whole one; the
            # rest, read to its end, tells by its checksum.
            _check_end(raw, file)
        except MemoryError:
            raise
        # Each kind of compression has errors of its own.
        except Exception as error:
            raise ValueError(
                "Expected a folder, a whole .tar, .tar.gz or .zip file. "
                f"Received: {self.path} ({error}). Fetch or pack it again."
            ) from error

    def _entry(self, archive, member):
        name = _inside(member.name)
        if name is not None and member.isdir():
            yield name, None
        elif not _is_image(member.name):
            yield from _folder_of(name)
        elif name is None or not member.isreg():
            self.ignored.append(member.name)
        else:
            yield name, archive.extractfile(member).read()


class _ZipSource:
    def __init__(self, path):
        self.path, self.ignored = path, []
        self.total, self.done = 0, 0

    def __iter__(self):
        try:
            archive = zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"Expected a whole .zip file. Received: {self.path} "
                f"({error}). Fetch or pack it again."
            ) from error
        with archive:
            members = archive.infolist()
            self.total = len(members)
            for member in members:
                self.done += 1
                yield from self._entry(archive, member)

    def _entry(self, archive, member):
        name = _inside(member.filename)
        # The upper half holds the file's Unix mode, 0xA for a link.
        link = member.external_attr >> 28 == 0xA
        if name is not None and member.is_dir():
            yield name, None
        elif not _is_image(member.filename):
            yield from _folder_of(name)
        elif name is None or link:
            self.ignored.append(member.filename)
        else:
            yield name, self._bytes(archive, member)

    def _bytes(self, archive, member):
        try:
            return archive.read(member)
        # A wrong checksum, a password, a compression of another kind.
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            return _Unreadable(str(error))


def _folder_of(name):
    """The entry of a file's folder: not every archive has one of its own."""
    folder = (name or "").rpartition("/")[0]
    return [(folder, None)] if folder else []


def _expanded(raw):
    """The file, decompressed if its first bytes say so."""
    start = raw.read(6)
    raw.seek(0)
    for magic, module in (
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bz2"),
        (b"\xfd7zXZ\x00", "lzma"),
    ):
        if start.startswith(magic):
            return importlib.import_module(module).open(raw)
    return contextlib.nullcontext(raw)


def _check_end(raw, file):
    while file.read(1 << 20):
        pass
    if file is raw:
        raw.seek(-min(512, raw.seek(0, os.SEEK_END)), os.SEEK_END)
        if raw.read().strip(b"\0"):
            raise EOFError("it has no end mark: cut short?")


def _raise(error):
    raise error


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def _is_image(path):
    parts = path.replace("\\", "/").split("/")
    hidden = any(_is_hidden(p) for p in parts if p not in (".", ".."))
    return not hidden and path.lower().endswith(IMAGE_SUFFIXES)


def _inside(name):
    """The path of an archive's member, or None if outside or hidden."""
    name = name.replace("\\", "/")
    if name.startswith("/") or re.match("[A-Za-z]:/", name):
        return None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or any(_is_hidden(part) for part in parts):
        return None
    return "/".join(parts)


class _Progress:
    """A bar on a terminal, once reading has taken a moment."""

    def __init__(self, title, source):
        self.title, self.source = title, source
        self.start, self.bar = time.monotonic(), None
        self.wanted = sys.stderr.isatty()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

    def update(self):
        if not self.wanted:
            return
        if self.bar:
            self.bar.update(
                self.task, completed=self.source.done, total=self.source.total
            )
        elif time.monotonic() - self.start > BAR_AFTER_SECONDS:
            self._show()

    def _show(self):
        console = require("rich.console").Console(stderr=True)
        self.bar = require("rich.progress").Progress(console=console)
        self.task = self.bar.add_task(self.title, total=self.source.total)
        self.bar.start()


class _Cache:
    """The decoded images of one archive, in the user's cache folder."""

    def __init__(self, path):
        path = path.resolve()
        state = path.stat()
        name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        self.file = _cache_dir() / f"images-{name}.npz"
        # One file an archive: a changed archive replaces its old images.
        self.key = f"{CACHE_FORMAT} {state.st_size} {state.st_mtime_ns} {path}"

    def read(self):
        """The tree, or None if there is none of the archive as it is."""
        try:
            # NumPy would leave a damaged file open.
            with (
                open(self.file, "rb") as file,
                np.load(file, allow_pickle=False) as stored,
            ):
                if str(stored["key"]) != self.key:
                    return None
                tree = _Tree(
                    stored["images"],
                    stored["paths"].tolist(),
                    stored["folders"].tolist(),
                )
        except (FileNotFoundError, NotADirectoryError):
            return None
        # A damaged file makes NumPy raise nearly anything.
        except Exception as error:
            warnings.warn(
                f"The cache {self.file} cannot be read ({error}); the images "
                "are decoded again.",
                stacklevel=2,
            )
            return None
        alike = len(tree.images) == len(tree.paths)
        return tree if alike and tree.images.dtype == np.uint8 else None

    def write(self, tree):
        temporary = None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=self.file.parent, suffix=".tmp", delete=False
            ) as file:
                temporary = file.name
                np.savez(
                    file,
                    key=np.array(self.key),
                    images=tree.images,
                    paths=np.array(tree.paths, str),
                    folders=np.array(tree.folders, str),
                )
            os.replace(temporary, self.file)
        except OSError as error:
            if temporary:
                with contextlib.suppress(OSError):
                    os.remove(temporary)
            warnings.warn(
                f"The decoded images cannot be kept in {self.file.parent} "
                f"({error}); the next run decodes them again. Name another "
                "folder in CRL_CACHE_DIR.",
                stacklevel=2,
            )


def _cache_dir():
    named = os.environ.get("CRL_CACHE_DIR")
    if named:
        return pathlib.Path(named).expanduser()
    return pathlib.Path.home() / ".cache" / "crl_keras"


# Streamed sets


@dataclass(frozen=True, eq=False)
class Stream:
    """A data set as pipelines, what `stream_tfds` returns.

    Both pipelines yield batches of uint8 images `[batch, H, W, C]` in
    `[0, 255]` and int32 labels `[batch]`; the last batch may be smaller. Give
    them to `fit` with `shuffle=False`, or Keras warns that it does not shuffle
    them itself.

    Attributes:
        name: str, what reports call it.
        train: `tf.data.Dataset`, shuffled anew every time it is iterated
            over, in an order that the seed fixes.
        test: `tf.data.Dataset`, always in the same order.
        class_names: tuple of str; a label is a position in it.
        train_size, test_size: int, the images of the splits.
        epoch: function of an int from 0, the training pipeline of one epoch,
            whose order depends on the seed and that number alone. A run that
            is resumed needs it; `train` would begin with its first order.
    """

    name: str
    train: Any
    test: Any
    class_names: tuple
    train_size: int
    test_size: int
    epoch: Any

    @property
    def classes(self):
        """The number of classes."""
        return len(self.class_names)

    @property
    def input_shape(self):
        """The shape `(H, W, C)` of an image; None for what varies."""
        return tuple(self.train.element_spec[0].shape[1:])


def stream_tfds(
    name,
    image_size=224,
    batch_size=32,
    seed=0,
    data_dir=None,
    train_split="train",
    test_split=None,
    shuffle_buffer=10_000,
    resize_ratio=256 / 224,
):
    """Pipelines over a data set of TensorFlow Datasets, on any backend.

    The shorter side of an image is resized to `resize_ratio * image_size`,
    and a square of `image_size` cut out: at random in training, in the centre
    in the test. Nothing else is augmented.

    Args:
        name: str, `"imagenet2012"` or `"tfds:NAME"`, with TFDS's name, such
            as `"tfds:oxford_flowers102"` or `"tfds:cifar10:3.0.2"`.
        image_size: int, pixels a side, or None for images that have one size
            and keep it; 224 by default.
        batch_size: int, at least 1; 32 by default.
        seed: int in `[0, 2**31)`, of order and crops, beside TensorFlow's
            global seed, where one is set; 0 by default.
        data_dir: path of TFDS's data folder, None for its default. A set that
            is not there is downloaded and prepared.
        train_split, test_split: str in TFDS's notation, such as
            `"train[:90%]"`. The test is by default `"test"`, for ImageNet,
            whose test labels are secret, and where there is no test,
            `"validation"`.
        shuffle_buffer: int, images the order is drawn from; 10,000 by
            default.
        resize_ratio: float, at least 1; 256/224 by default.

    Returns a `Stream`.

    Raises:
        ValueError: for an unknown name or split, a size or ratio out of
            range, or a set without class labels.
        OSError: if the set could not be prepared.
        ImportError: without TensorFlow or TFDS; names the pip command.
    """
    kind, _, tfds_name = str(name).partition(":")
    if name == "imagenet2012":
        tfds_name = name
    elif kind != "tfds" or not tfds_name:
        raise ValueError(
            "Expected 'imagenet2012' or 'tfds:NAME' with a name of TensorFlow "
            f"Datasets. Received: {name!r}."
        )
    _check_stream_sizes(image_size, batch_size, shuffle_buffer, resize_ratio)
    tfds = _require_tfds()
    builder = _prepared(tfds, tfds_name, data_dir)
    test_split = test_split or _default_test(builder)
    sizes = [_tfds_size(builder, s) for s in (train_split, test_split)]
    image, label = _tfds_keys(tfds, builder)
    pipelines = _Pipelines(
        builder,
        (image, label),
        image_size,
        batch_size,
        shuffle_buffer,
        resize_ratio,
    )
    return Stream(
        name=str(name),
        train=pipelines.train(train_split, seed, reshuffle=True),
        test=pipelines.test(test_split),
        class_names=tuple(builder.info.features[label].names),
        train_size=sizes[0],
        test_size=sizes[1],
        epoch=lambda number: pipelines.train(
            train_split, _epoch_seed(seed, number), reshuffle=False
        ),
    )


def _require_tfds():
    names = ("tensorflow", "importlib_resources", "tensorflow_datasets")
    try:
        # TFDS 4.9.10 imports importlib_resources without declaring it.
        return [require(name) for name in names][-1]
    except ImportError as error:
        raise ImportError(
            f"TensorFlow Datasets is needed here: {error.name} could not be "
            f"imported ({error.__cause__}). Install it with: pip install "
            '"crl-keras[experiments]" tensorflow tensorflow-datasets '
            "importlib_resources",
            name=error.name,
        ) from error


def _check_stream_sizes(image_size, batch_size, shuffle_buffer, resize_ratio):
    sizes = {"batch_size": batch_size, "shuffle_buffer": shuffle_buffer}
    if image_size is not None:
        sizes["image_size"] = image_size
    for argument, size in sizes.items():
        if size < 1 or size != int(size):
            raise ValueError(
                f"Expected {argument} as an integer of at least 1. Received: "
                f"{argument}={size}."
            )
    if not resize_ratio >= 1:
        raise ValueError(
            "Expected resize_ratio to be at least 1, the crop within the "
            f"image. Received: resize_ratio={resize_ratio}."
        )


def _prepared(tfds, name, data_dir):
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"Expected a data set of TensorFlow Datasets. Received: {name!r} "
            f"({error}). Check the name, or --data-dir for a set of your own."
        ) from error
    if builder.info.splits:
        return builder
    try:
        builder.download_and_prepare()
    # Whatever a builder's own code and the servers bring forth.
    except Exception as error:
        raise OSError(
            f"TensorFlow Datasets could not prepare {name} ({error}). Prepare "
            "it where it can be downloaded and give that data folder with "
            "--data-dir (data_dir=)."
        ) from error
    return builder


def _default_test(builder):
    splits = builder.info.splits
    # The test labels of ImageNet are all -1.
    wanted = ("test", "validation")
    wanted = wanted[1:] if builder.name == "imagenet2012" else wanted
    for split in wanted:
        if split in splits:
            return split
    raise ValueError(
        f"Expected a test or validation split in {builder.name}. Received: "
        f"{_some(sorted(splits))}. Name parts of them, such as "
        "train_split='train[:90%]' and test_split='train[90%:]'."
    )


def _tfds_size(builder, split):
    try:
        size = builder.info.splits[split].num_examples
    except Exception as error:
        raise ValueError(
            f"Expected splits of {builder.name}, "
            f"{_some(sorted(builder.info.splits))}, or parts of them. "
            f"Received: {split!r} ({error})."
        ) from error
    if not size:
        raise ValueError(f"Expected images in {split!r}. Received: none.")
    return size


def _tfds_keys(tfds, builder):
    """The names of the features that hold the image and the label."""
    info = builder.info
    keys = info.supervised_keys
    # A set of the user's own may not say which they are.
    if not keys or len(keys) != 2:
        keys = [
            key
            for kind in (tfds.features.Image, tfds.features.ClassLabel)
            for key, feature in info.features.items()
            if isinstance(feature, kind)
        ]
    try:
        image, label = (info.features[key] for key in keys)
        right = image.shape[-1] in (1, 3) and image.np_dtype == np.uint8
        right = right and label.num_classes >= 2
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        right = False
    if not right:
        raise ValueError(
            f"Expected {builder.name} to have one image of 8 bits, grey or "
            "colour, and one class label a sample. Received: "
            f"{dict(info.features)}. Take another set."
        )
    return tuple(keys)


def _epoch_seed(seed, number):
    mixed = hashlib.sha256(f"{seed} {number}".encode()).digest()
    return int.from_bytes(mixed[:4], "little") >> 1


class _Pipelines:
    def __init__(self, builder, keys, image_size, batch_size, buffer, ratio):
        self.tf, self.tfds = require("tensorflow"), _require_tfds()
        self.builder, self.keys, self.image_size = builder, keys, image_size
        self.batch_size, self.buffer, self.ratio = batch_size, buffer, ratio

    def train(self, split, seed, reshuffle):
        samples = self._samples(
            split,
            shuffle_files=True,
            read_config=self.tfds.ReadConfig(
                shuffle_seed=seed,
                shuffle_reshuffle_each_iteration=reshuffle,
                # A set stored in a fixed order is shuffled like any other.
                enable_ordering_guard=False,
            ),
        )
        samples = samples.shuffle(
            self.buffer, seed=seed, reshuffle_each_iteration=reshuffle
        )
        # Seeds that travel with the samples: threads cannot reorder them.
        seeds = self.tf.data.Dataset.random(
            seed, rerandomize_each_iteration=reshuffle
        ).batch(2)
        return self._batched(self.tf.data.Dataset.zip((samples, seeds)))

    def test(self, split):
        samples = self._samples(split)
        return self._batched(samples.map(lambda sample: (sample, None)))

    def _samples(self, split, **arguments):
        # Boxes, masks and the like stay encoded.
        wanted = self.tfds.decode.PartialDecoding(
            dict.fromkeys(self.keys, True)
        )
        return self.builder.as_dataset(
            split=split, decoders=wanted, **arguments
        )

    def _batched(self, samples):
        parallel = self.tf.data.AUTOTUNE
        samples = samples.map(
            self._sample, num_parallel_calls=parallel, deterministic=True
        )
        return samples.batch(self.batch_size).prefetch(parallel)

    def _sample(self, sample, seed):
        image, label = (sample[key] for key in self.keys)
        if self.image_size is not None:
            image = self._cropped(self._resized(image), seed)
        return image, self.tf.cast(label, self.tf.int32)

    def _resized(self, image):
        tf = self.tf
        shape = tf.shape(image)[:2]
        shorter = max(self.image_size, round(self.ratio * self.image_size))
        scale = shorter / tf.reduce_min(shape)
        size = tf.cast(tf.round(tf.cast(shape, tf.float64) * scale), tf.int32)
        # Without antialiasing a large image made small is full of jags.
        image = tf.image.resize(image, size, antialias=True)
        image = tf.clip_by_value(tf.round(image), 0, 255)
        return tf.cast(image, tf.uint8)

    def _cropped(self, image, seed):
        tf, side = self.tf, self.image_size
        if seed is None:
            margin = (tf.shape(image)[:2] - side) // 2
            return tf.image.crop_to_bounding_box(
                image, margin[0], margin[1], side, side
            )
        shape = (side, side, image.shape[-1])
        return tf.image.stateless_random_crop(image, shape, seed)
