"""Data sets whose images lie in files: paths, labels, and maybe boxes.

Readers (`fine_grained`, `adience`) return a `FileDataset`; nothing of an image
is read before a pipeline wants its pixels. Nothing but NumPy is imported
before a function needs it.
"""

import collections
import hashlib
import os
import pathlib
import warnings
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property

import numpy as np

from crl_keras.experiments.data.image_trees import some
from crl_keras.experiments.data.named import as_class_names
from crl_keras.experiments.data.named import as_labels
from crl_keras.experiments.data.named import check_labels


class IncompleteDataWarning(UserWarning):
    """A published data set has not the samples it was published with."""


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Image files and their labels.

    Attributes:
        paths: tuple of str, N absolute paths of image files.
        labels: int32 `[N]`; any integer dtype is taken and converted.
        boxes: float32 `[N, 4]`, for each image the box of its object as
            `x0, y0, x1, y1`, left, top, right and bottom, in pixels; None,
            the default, where there are none. They are the numbers of the
            annotations and may reach beyond the image.

    Raises:
        ValueError: for another dtype or shape, no images, a path that is not
            absolute, a negative label, other numbers of paths, labels and
            boxes, or a box that is not finite.

    >>> split = FileSplit(["/a/1.jpg", "/a/2.jpg"], [0, 1])
    >>> len(split), split.take([1]).paths
    (2, ('/a/2.jpg',))
    """

    paths: tuple
    labels: np.ndarray
    boxes: np.ndarray | None = None

    def __post_init__(self):
        paths = tuple(os.fspath(path) for path in self.paths)
        labels = as_labels(self.labels)
        if len(paths) != len(labels) or not paths:
            raise ValueError(
                "Expected as many paths as labels, at least one. Received: "
                f"{len(paths)} paths and {len(labels)} labels."
            )
        relative = [path for path in paths if not os.path.isabs(path)]
        if relative:
            raise ValueError(
                "Expected absolute paths, which mean the same file from any "
                f"working directory. Received: {some(relative)}."
            )
        object.__setattr__(self, "paths", paths)
        object.__setattr__(self, "labels", labels)
        if self.boxes is not None:
            object.__setattr__(self, "boxes", _as_boxes(self.boxes, len(paths)))

    def __len__(self):
        return len(self.labels)

    def take(self, indices):
        """The samples at these positions, as another `FileSplit`."""
        return FileSplit(
            tuple(self.paths[i] for i in indices),
            self.labels[indices],
            None if self.boxes is None else self.boxes[indices],
        )


@dataclass(frozen=True, eq=False)
class FileDataset:
    """A classification data set of image files.

    `hold_out` and `limit` of `datasets` take it like a `Dataset`.

    Attributes:
        name: str, what reports call it.
        train, test: `FileSplit`.
        class_names: tuple of str; a label is a position in it.
        held_out: `FileSplit` or None, training images kept from training, for
            fitting a temperature.

    Raises:
        ValueError: for fewer than two classes, repeated names, a label out of
            range, a class without samples in train or test, an image that
            occurs twice, or splits some of which have boxes.

    >>> train = FileSplit(["/a/1.jpg", "/a/2.jpg"], [0, 1])
    >>> test = FileSplit(["/b/1.jpg", "/b/2.jpg"], [0, 1])
    >>> dataset = FileDataset("pets", train, test, ("cat", "dog"))
    >>> dataset.classes, dataset.fingerprint
    (2, 'f8a9ab3766e3abed')
    """

    name: str
    train: FileSplit
    test: FileSplit
    class_names: tuple
    held_out: FileSplit | None = None

    def __post_init__(self):
        names = as_class_names(self.class_names)
        object.__setattr__(self, "class_names", names)
        for where, split in self._splits():
            check_labels(split.labels, names, where)
        self._check_every_image_is_there_once()
        boxes = {where: s.boxes is not None for where, s in self._splits()}
        if len(set(boxes.values())) > 1:
            raise ValueError(
                "Expected boxes for every split or for none. Received none "
                f"for {some([w for w, given in boxes.items() if not given])}."
            )

    def _check_every_image_is_there_once(self):
        splits = collections.defaultdict(list)
        for where, split in self._splits():
            for path in split.paths:
                splits[path].append(where)
        repeated = {path: at for path, at in splits.items() if len(at) > 1}
        if repeated:
            path, at = next(iter(repeated.items()))
            raise ValueError(
                "Expected every image once: a test on training images says "
                f"nothing. Received {len(repeated)} that occur again: {path!r} "
                f"in {' and '.join(at)}. Correct the lists of the splits."
            )

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

    def without_boxes(self):
        """The same images without the boxes of their objects."""
        if self.train.boxes is None:
            return self
        splits = {
            name: None if split is None else replace(split, boxes=None)
            for name, split in (
                ("train", self.train),
                ("test", self.test),
                ("held_out", self.held_out),
            )
        }
        return replace(self, **splits)

    @cached_property
    def fingerprint(self):
        """16 hexadecimal digits that change with the lists of images.

        SHA-256 of the class names and, for each split, of the last two parts
        of each path, the label and the box. The pixels do not enter, nor does
        the place of the folder, nor the name.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        for where, split in self._splits():
            digest.update(repr((where, len(split))).encode())
            boxes = [None] * len(split)
            if split.boxes is not None:
                boxes = split.boxes.tolist()
            rows = zip(split.paths, split.labels.tolist(), boxes, strict=True)
            for path, label, box in rows:
                row = (*pathlib.PurePath(path).parts[-2:], label, box)
                digest.update(repr(row).encode())
        return digest.hexdigest()[:16]


def _as_boxes(boxes, count):
    boxes = np.asarray(boxes, np.float32)
    if boxes.shape != (count, 4):
        raise ValueError(
            "Expected boxes as x0, y0, x1, y1 for each image, shape "
            f"{(count, 4)}. Received: shape {boxes.shape}."
        )
    wrong = ~np.isfinite(boxes).all(axis=1)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            "Expected finite boxes. Received: "
            f"{boxes[first].tolist()} at index {first}."
        )
    return boxes


def check_files(paths, listed_in):
    """Raises unless all image files are there.

    Args:
        paths: sequence of str, absolute. Each folder is listed once, which is
            faster than a look for each file.
        listed_in: str, what named the images, for the message.

    Raises:
        FileNotFoundError: naming some that are missing, and how many.
    """
    files_of = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in files_of:
            files_of[folder] = _files_of(folder)
        if name not in files_of[folder]:
            missing.append(path)
    if missing:
        raise FileNotFoundError(
            f"Expected the {len(paths):,} images that {listed_in} lists. "
            f"Missing: {len(missing):,}, {some(missing)}. Unpack the archive "
            "again, or take the rows of images you do not have out of the "
            "lists."
        )


def _files_of(folder):
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def what_is_in(path):
    """A sentence on what a folder holds, for messages."""
    if not path.is_dir():
        return "Received a folder that does not exist."
    inside = sorted(p.name for p in path.iterdir())
    return f"Received {some(inside) or 'an empty folder'}."


def warn_unless_full(dataset, train, test, source):
    """Warns if the splits have other sizes than published.

    Args:
        dataset: `FileDataset`.
        train, test: int, the images of the full set's splits.
        source: str, where it was read from.
    """
    if (len(dataset.train), len(dataset.test)) == (train, test):
        return
    warnings.warn(
        f"{source} is not the full {dataset.name}: {len(dataset.train):,} "
        f"training and {len(dataset.test):,} test images instead of {train:,} "
        f"and {test:,}. Numbers measured on it are not those of the full set.",
        IncompleteDataWarning,
        stacklevel=3,
    )
