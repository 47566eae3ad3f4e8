"""Data sets whose images stay in files: paths, labels, and maybe boxes.

Readers (`fine_grained`, `adience`) return a `FileDataset`. An image is read
only when a pipeline needs its pixels. The module imports only NumPy until a
function needs more.
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

from crl_keras.experiments.data.image_checks import check_images
from crl_keras.experiments.data.image_trees import NAMED
from crl_keras.experiments.data.image_trees import said_of_unreadable
from crl_keras.experiments.data.image_trees import some
from crl_keras.experiments.data.orientation import as_orientations
from crl_keras.experiments.data.splits import PickedSet
from crl_keras.experiments.data.splits import as_labels
from crl_keras.experiments.words import counted


class IncompleteDataWarning(UserWarning):
    """A copy of a published data set has another number of samples."""


@dataclass(frozen=True, eq=False)
class FileSplit:
    """Image files and their labels.

    Attributes:
        paths: tuple of str, N absolute paths of image files.
        labels: int32 `[N]`; any integer dtype is converted.
        boxes: float32 `[N, 4]`, the box of the object in each image as
            `x0, y0, x1, y1`, left, top, right and bottom, in pixels of the
            stored image; None, the default, if there are no boxes. The numbers
            come from the annotations and may reach beyond the image.
        orientations: int8 `[N]`, the EXIF orientation of each image, 1 to 8,
            to apply when it is read; None, the default, reads all images as
            they are stored.

    Raises:
        ValueError: for a wrong dtype or shape, no images, a path that is not
            absolute, a negative label, different numbers of paths, labels,
            boxes and orientations, or a box that is not finite.

    >>> split = FileSplit(["/a/1.jpg", "/a/2.jpg"], [0, 1])
    >>> len(split), split.take([1]).paths
    (2, ('/a/2.jpg',))
    """

    paths: tuple
    labels: np.ndarray
    boxes: np.ndarray | None = None
    orientations: np.ndarray | None = None

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
        turned = as_orientations(self.orientations, len(paths))
        object.__setattr__(self, "orientations", turned)

    def __len__(self):
        return len(self.labels)

    @property
    def names(self):
        """Names of the images in records: the last two parts of their paths."""
        return tuple(
            "/".join(pathlib.PurePath(path).parts[-2:]) for path in self.paths
        )

    def take(self, indices):
        """The samples at these positions, as another `FileSplit`."""
        return FileSplit(
            tuple(self.paths[i] for i in indices),
            self.labels[indices],
            None if self.boxes is None else self.boxes[indices],
            None if self.orientations is None else self.orientations[indices],
        )


@dataclass(frozen=True, eq=False)
class FileDataset(PickedSet):
    """A classification data set of image files.

    The attributes are those of `PickedSet`, its splits `FileSplit`. ValueError
    also if an image occurs twice, or only some splits have boxes.

    >>> train = FileSplit(["/a/1.jpg", "/a/2.jpg"], [0, 1])
    >>> test = FileSplit(["/b/1.jpg", "/b/2.jpg"], [0, 1])
    >>> dataset = FileDataset("pets", train, test, ("cat", "dog"))
    >>> dataset.classes, dataset.fingerprint
    (2, 'f8a9ab3766e3abed')
    """

    kind = "files"

    def __post_init__(self):
        super().__post_init__()
        self._check_every_image_is_there_once()
        boxes = {where: s.boxes is not None for where, s in self.parts()}
        if len(set(boxes.values())) > 1:
            raise ValueError(
                "Expected boxes for every split or for none. Received none "
                f"for {some([w for w, given in boxes.items() if not given])}."
            )

    def _check_every_image_is_there_once(self):
        splits = collections.defaultdict(list)
        for where, split in self.parts():
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

    def cut_to_boxes(self, wanted):
        """See `PickedSet`; drops boxes that are not wanted."""
        if (self.train.boxes is None) or not wanted:
            return super().cut_to_boxes(wanted)._without_boxes()
        return self

    def _without_boxes(self):
        if self.train.boxes is None:
            return self
        return self._changed(lambda split: replace(split, boxes=None))

    def checked(self, skip_unreadable=False, reader="pillow", exif=True):
        """Decodes all images once, before any training.

        Args:
            skip_unreadable: bool, whether to leave out unreadable images, with
                one warning for all of them.
            reader: str, `"pillow"`, `"simplejpeg"` or `"tf.data"`, the reader
                that will decode them.
            exif: bool, whether to turn images upright, by their EXIF
                orientation, when they are read.

        Raises:
            OSError: if images cannot be read; the message names the first.
        """
        paths = [path for _, split in self.parts() for path in split.paths]
        broken, turned = check_images(self.name, paths, reader)
        if broken and not skip_unreadable:
            reasons = {
                path: f"{type(error).__name__}: {error}"
                for path, error in broken.items()
            }
            error = next(iter(broken.values()))
            raise OSError(said_of_unreadable(self.name, reasons)) from error
        data = self
        if broken:
            warnings.warn(
                f"{self.name}: {len(broken)} unreadable images skipped: "
                f"{some(list(broken), NAMED)}.",
                stacklevel=2,
            )
            data = self._changed(
                lambda split: split.take(
                    np.flatnonzero([path not in broken for path in split.paths])
                )
            )
        return data._turned(turned) if exif else data

    def _turned(self, orientations):
        count = sum(turn != 1 for turn in orientations.values())
        if not count:
            return self
        data = self._changed(
            lambda split: replace(
                split, orientations=[orientations[p] for p in split.paths]
            )
        )
        note = (
            f"{counted(count, 'image')} of {len(orientations):,} will be turned"
            " upright, as the EXIF orientation says. --no-exif (exif=False) "
            "leaves them as they are stored."
        )
        return replace(data, notes=(*data.notes, note))

    def _changed(self, change):
        splits = {
            name: change(split)
            for name in ("train", "test", "held_out")
            if (split := getattr(self, name)) is not None
        }
        return replace(self, **splits)

    @cached_property
    def fingerprint(self):
        """16 hexadecimal digits that change with the lists of images.

        SHA-256 of the class names and, for each image of each split, the last
        two parts of its path, its label, its box and, if it is turned, its
        EXIF orientation. The pixels, the location of the folder and the name
        of the data set do not count.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        for where, split in self.parts():
            digest.update(repr((where, len(split))).encode())
            boxes = [None] * len(split)
            if split.boxes is not None:
                boxes = split.boxes.tolist()
            turns = [1] * len(split)
            if split.orientations is not None:
                turns = split.orientations.tolist()
            labels = split.labels.tolist()
            rows = zip(split.paths, labels, boxes, turns, strict=True)
            for path, label, box, turn in rows:
                row = (*pathlib.PurePath(path).parts[-2:], label, box)
                # Upright images add nothing, so older fingerprints stay valid.
                row += () if turn == 1 else (turn,)
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
    """Raises an error if an image file is missing.

    Args:
        paths: sequence of str, absolute. Each folder is listed once, which is
            faster than looking for each file.
        listed_in: str, the file that lists the images, for the message.

    Raises:
        FileNotFoundError: if files are missing; the message says how many and
            names some.
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
            "again, or remove the rows of missing images from the lists."
        )


def _files_of(folder):
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def what_is_in(path):
    """A sentence about the contents of a folder, for messages."""
    if not path.is_dir():
        return "Received a folder that does not exist."
    inside = sorted(p.name for p in path.iterdir())
    return f"Received {some(inside) or 'an empty folder'}."


def warn_unless_full(dataset, train, test, source):
    """Warns if the sizes of the splits differ from the published ones.

    Args:
        dataset: `FileDataset`.
        train, test: int, the number of images in the full set's splits.
        source: str, the place of the data set.
    """
    if (len(dataset.train), len(dataset.test)) == (train, test):
        return
    warnings.warn(
        f"{source} is not the full {dataset.name}: {len(dataset.train):,} "
        f"training and {len(dataset.test):,} test images instead of {train:,} "
        f"and {test:,}. Results on it are not results on the full set.",
        IncompleteDataWarning,
        stacklevel=3,
    )
