"""Data sets of images for classification, in memory or streamed.

A `Dataset` has its images in memory as uint8 arrays `[N, H, W, C]` with
values in `[0, 255]`, and its labels as int32 arrays `[N]` in `[0, classes)`,
the positions in `class_names`. `load_dataset` reads the small sets and any
folder of images; it needs no TensorFlow, but for SVHN without local files.
`streams` has pipelines over what does not fit in memory.

Nothing but NumPy is imported before a function needs it.
"""

import hashlib
import pathlib
import re
import zlib
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.image_trees import ARCHIVE_SUFFIXES
from crl_keras.experiments.data.image_trees import read_tree
from crl_keras.experiments.data.image_trees import some
from crl_keras.experiments.data.streams import require_tfds

# The share of a folder without train and test folders that becomes the test.
TEST_FRACTION = 0.2
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
BUILT_IN = ("digits", "digits32")  # Of scikit-learn: there is nothing to give.
NAMES = (*BUILT_IN, *CLASS_NAMES, "folder:PATH")
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
        images = np.asarray(self.images)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                "Expected images as uint8 of shape (N, H, W, C). Received: "
                f"{images.dtype} of shape {images.shape}."
            )
        labels = as_labels(self.labels)
        if len(images) != len(labels) or not len(labels):
            raise ValueError(
                "Expected as many images as labels, at least one. Received: "
                f"{len(images)} images and {len(labels)} labels."
            )
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels)

    def __len__(self):
        return len(self.labels)

    def take(self, indices):
        """The samples at these positions, as another `Split`."""
        return Split(self.images[indices], self.labels[indices])


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
        names = as_class_names(self.class_names)
        object.__setattr__(self, "class_names", names)
        for where, split in self._splits():
            if split.images.shape[1:] != self.input_shape:
                raise ValueError(
                    f"Expected {where} images of the shape of the training "
                    f"images, {self.input_shape}. Received: "
                    f"{split.images.shape[1:]}."
                )
            check_labels(split.labels, names, where)

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


def as_labels(labels):
    """The labels as int32 `[N]`, or a ValueError that says what is wrong."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            "Expected labels as integers of shape (N,); take the argmax "
            "of one-hot rows and squeeze a column. Received: "
            f"{labels.dtype} of shape {labels.shape}."
        )
    # Before the conversion, where a large value would wrap around.
    check_range(labels, np.iinfo(np.int32).max)
    return labels.astype(np.int32)


def as_class_names(class_names):
    """The names as a tuple of str, or a ValueError that says what is wrong."""
    names = tuple(str(name) for name in class_names)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            "Expected at least two classes with names of their own. "
            f"Received: {names}."
        )
    return names


def check_range(labels, classes):
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"Expected labels from 0 to {classes - 1}. Received: "
            f"{labels[first]} at index {first}, {int(wrong.sum())} such in "
            "all. Subtract 1 from labels that start at 1."
        )


def check_labels(labels, class_names, where):
    check_range(labels, len(class_names))
    counts = np.bincount(labels, minlength=len(class_names))
    empty = [class_names[k] for k in np.flatnonzero(counts == 0)]
    if empty:
        raise ValueError(
            f"Expected samples of every class in the {where} split. "
            f"Received none of {some(empty)}. Add images or remove the class."
        )


def load_dataset(
    name, data_dir=None, skip_unreadable=False, seed=0, cache=True
):
    """Loads a data set into memory.

    Args:
        name: str. `"digits"` (1,797 grey 8x8 digits that scikit-learn brings,
            a fixed stratified 75/25 split), `"digits32"` (the same, four
            times as large and in three channels, to try networks for CIFAR
            on), `"mnist"`, `"cifar10"`, `"cifar100"`, `"svhn"` (train and
            extra for training), or
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
    if name == "digits32":
        return _enlarged(_digits())
    if name == "svhn":
        return _svhn(data_dir)
    if name in CLASS_NAMES and data_dir is not None:
        return _local_copy(name, data_dir, skip_unreadable, cache)
    if name in CLASS_NAMES:
        return _downloaded(name)
    raise ValueError(
        f"Expected one of {', '.join(NAMES)} to read into memory. Received: "
        f"{name!r}."
    )


def hold_out(dataset, fraction, seed=0):
    """Moves a stratified part of the training split to `held_out`.

    Args:
        dataset: `Dataset`, or `FileDataset` of `image_files`, without a
            held-out part.
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
    check_fraction(dataset, fraction)
    if fraction == 0:
        return dataset
    kept, held = _stratified_parts(
        dataset.train.labels, fraction, dataset.class_names, seed
    )
    return replace(
        dataset,
        train=dataset.train.take(kept),
        held_out=dataset.train.take(held),
    )


def check_fraction(dataset, fraction):
    """Raises unless this share of the training split can be held out."""
    if not 0 <= fraction < 1:
        raise ValueError(
            f"Expected a fraction in [0, 1). Received: fraction={fraction}."
        )
    if fraction and dataset.held_out is not None:
        raise ValueError(
            f"Expected a data set without a held-out part. Received: "
            f"{dataset.name!r} with {len(dataset.held_out)} images held out. "
            "Use a fraction of 0: --held-out 0 (held_out=0)."
        )


def limit(dataset, train=None, test=None, seed=0):
    """Stratified subsets of the splits, for a quick run.

    Args:
        dataset: `Dataset` or `FileDataset`; its held-out part stays as it is.
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
    starts = range(0, len(split), STATISTICS_CHUNK)
    chunks = (split.images[i : i + STATISTICS_CHUNK] for i in starts)
    return statistics_of(chunks, split.images.shape[-1])


def statistics_of(chunks, channels):
    """`channel_statistics` of images that come in parts."""
    counts = np.zeros((channels, 256), np.int64)
    for chunk in chunks:
        for k in range(channels):
            counts[k] += np.bincount(chunk[..., k].ravel(), minlength=256)
    values = np.arange(256) / 255
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
    return mean, np.sqrt(variance)


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
            f"Received one of {some(small)}. Add images, remove the class, or "
            "hold none out (--held-out 0)."
        )
    check_labels(labels, class_names, "whole")
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
    return split.take(_draw(split.labels, quotas, seed))


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
    return Dataset("digits", whole.take(train), whole.take(test), DIGITS)


def _enlarged(digits):
    """Digits of 32 x 32 pixels in three equal channels."""
    larger = np.ones((1, 4, 4, 3), np.uint8)
    train, test = (
        Split(np.kron(split.images, larger), split.labels)
        for split in (digits.train, digits.test)
    )
    return Dataset("digits32", train, test, DIGITS)


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
    tree = read_tree(path, skip_unreadable, cache)
    layout = _layout(tree, path)
    expected = CLASS_NAMES[name]
    if set(layout.class_names) != set(expected):
        raise ValueError(
            f"Expected the classes of {name}, {some(expected)}, in {path}. "
            f"Received: {some(layout.class_names)}. Read it under its own "
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
        f"{some([p.name for p in found or inside]) or 'an empty folder'}. "
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
            f"{some(missing)}. The files are the cropped digits (format 2) "
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
    tfds = require_tfds()
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


class _Layout(NamedTuple):
    """The rows of a tree's images, as {split: {class name: [row]}}."""

    rows: dict
    class_names: list


def _folder(path, skip_unreadable, seed, cache):
    path = pathlib.Path(path).expanduser()
    tree = read_tree(path, skip_unreadable, cache)
    name = path.resolve().name
    for suffix in ARCHIVE_SUFFIXES:
        name = name.removesuffix(suffix)
    return _as_dataset(f"folder:{name}", tree, _layout(tree, path), seed)


def _as_dataset(name, tree, layout, seed):
    splits = {
        split: Split(tree.images[rows], labels)
        for split, (rows, labels) in _splits_of(layout, seed).items()
    }
    return Dataset(name, class_names=layout.class_names, **splits)


def splits_of_tree(tree, path, seed=0):
    """The splits of a tree of class folders.

    Args:
        tree: `Tree`; its images may be None.
        path: path it was read from, for messages.
        seed: int, draws the test part of a tree without test folders.

    Returns `(splits, class_names)`: a dict from "train", "test" and maybe
    "held_out" to `(rows, labels)`, positions in `tree.paths` and int64 labels.

    Raises:
        ValueError: for a tree that is laid out otherwise, or a class without
            images in a split.
    """
    layout = _layout(tree, path)
    return _splits_of(layout, seed), tuple(layout.class_names)


def _splits_of(layout, seed):
    names = layout.class_names
    splits = {
        split: _labelled(rows, names, split)
        for split, rows in layout.rows.items()
    }
    if "all" in splits:
        rows, labels = splits["all"]
        parts = _stratified_parts(labels, TEST_FRACTION, names, seed)
        train, test = ((rows[part], labels[part]) for part in parts)
        return {"train": train, "test": test}
    # A validation part serves as the test where there is none.
    validation = splits.pop("validation", None)
    if "test" not in splits:
        splits["test"] = validation
    elif validation is not None:
        splits["held_out"] = validation
    return splits


def _labelled(rows, class_names, where):
    counts = [len(rows[name]) for name in class_names]
    labels = np.repeat(np.arange(len(class_names)), counts)
    # Here, not in Dataset alone: a split may have no image at all.
    check_labels(labels, class_names, where)
    order = np.concatenate([rows[name] for name in class_names])
    return order.astype(int), labels


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
            f"Received: {some(loose)}. Move or remove them."
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
            f"{some(sorted(nested | flat))}. Rename or remove folders."
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
                f"Received no folder in {split} for {some(missing)}. Add or "
                "remove the class."
            )
    return names
