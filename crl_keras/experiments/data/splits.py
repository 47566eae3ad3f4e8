"""Images and labels in memory, and the drawing of one split from another.

A `Dataset` has its images as uint8 arrays `[N, H, W, C]` with values in
`[0, 255]`, and its labels as int32 arrays `[N]` in `[0, classes)`, the
positions in `class_names`. The module imports only NumPy until a function
needs more.
"""

import hashlib
import zlib
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property

import numpy as np

from crl_keras.experiments.data.image_trees import some

STATISTICS_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 `[N, H, W, C]`, values in `[0, 255]`.
        labels: int32 `[N]`; any integer dtype is converted.

    Raises:
        ValueError: for a wrong dtype or shape, no images, a negative label, or
            different numbers of images and labels.
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

    @property
    def names(self):
        """Names of the images in records: their positions, as text."""
        return tuple(map(str, range(len(self))))

    def take(self, indices):
        """The samples at these positions, as another `Split`."""
        return Split(self.images[indices], self.labels[indices])


@dataclass(frozen=True, eq=False)
class PickedSet:
    """A data set whose images can be picked one by one.

    The base of `Dataset` (in memory) and `image_files.FileDataset` (in files).
    `streams.TfdsSet` has the same methods for images that come as a stream.
    Methods never change a data set: they return one of the same kind.

    Attributes:
        name: str, its name in reports.
        train, test: `Split` or `FileSplit`.
        class_names: tuple of str; a label is a position in it.
        held_out: a split or None, images held out of training, to fit a
            temperature.
        notes: tuple of str, sentences for the user on how it was read.

    Raises:
        ValueError: for fewer than two classes, repeated names, a label out of
            range, or a class without samples in a split.
    """

    name: str
    train: object
    test: object
    class_names: tuple
    held_out: object = None
    notes: tuple = ()

    def __post_init__(self):
        names = as_class_names(self.class_names)
        object.__setattr__(self, "class_names", names)
        for where, split in self.parts():
            self._check_images(where, split)
            check_labels(split.labels, names, where)

    def _check_images(self, where, split):
        """Raises if the images of a split do not fit the data set."""

    def parts(self):
        """`[(where, split)]` of the splits that exist."""
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

    def limited(self, train=None, test=None, seed=0):
        """Stratified subsets of the splits, for a quick run.

        Args:
            train, test: int, how many images to keep, at least one per class;
                None, the default, or a number above the split's size keeps
                all. The held-out part stays as it is.
            seed: int in `[0, 2**32)`, seed for drawing images; 0 by default.

        Raises:
            ValueError: for fewer images than classes.
        """
        classes = self.classes
        return replace(
            self,
            train=_limited(self.train, train, "train", classes, seed),
            test=_limited(self.test, test, "test", classes, seed),
        )

    def with_held_out(self, fraction, seed=0):
        """Moves a stratified part of the training split to `held_out`.

        Args:
            fraction: float in `[0, 1)`, the share of each class, rounded, at
                least one image and never all; 0 returns the data set itself.
            seed: int in `[0, 2**32)`, seed for drawing images; 0 by default.

        Raises:
            ValueError: if the fraction is out of range, a class has only one
                image, or the data set already has a held-out part.
        """
        self.check_fraction(fraction)
        if fraction == 0:
            return self
        kept, held = stratified_parts(
            self.train.labels,
            fraction,
            self.class_names,
            seed,
            ", or hold none out (--held-out 0)",
        )
        return replace(
            self, train=self.train.take(kept), held_out=self.train.take(held)
        )

    def check_fraction(self, fraction):
        """Raises if this share of the training split cannot be held out."""
        if not 0 <= fraction < 1:
            raise ValueError(
                f"Expected a fraction in [0, 1). Received: fraction={fraction}."
            )
        if fraction and self.held_out is not None:
            raise ValueError(
                f"Expected a data set without a held-out part. Received: "
                f"{self.name!r} with {len(self.held_out)} images held out. "
                "Use a fraction of 0: --held-out 0 (held_out=0)."
            )

    def cut_to_boxes(self, wanted):
        """Cuts images to the boxes of their objects, or leaves them whole.

        Raises:
            ValueError: if `wanted` is true and the data set has no boxes.
        """
        if wanted:
            raise ValueError(
                f"Expected bounding boxes in {self.name}, to crop to. "
                "Received: images without boxes. Leave out --crop-to-box "
                "(crop_to_box=)."
            )
        return self

    def checked(self, skip_unreadable=False, reader=None, exif=True):
        """Checks that all images can be read; in memory they always can."""
        return self


@dataclass(frozen=True, eq=False)
class Dataset(PickedSet):
    """A classification data set in memory.

    The attributes are those of `PickedSet`, its splits `Split`. ValueError also
    if the images of the splits differ in shape.
    """

    kind = "memory"

    def _check_images(self, where, split):
        if split.images.shape[1:] != self.input_shape:
            raise ValueError(
                f"Expected {where} images of the shape of the training "
                f"images, {self.input_shape}. Received: "
                f"{split.images.shape[1:]}."
            )

    @property
    def input_shape(self):
        """The shape `(H, W, C)` of an image."""
        return self.train.images.shape[1:]

    @cached_property
    def fingerprint(self):
        """16 hexadecimal digits that change with any change of the data.

        SHA-256 of the class names and, for each split, of its shape, its
        labels and the CRC-32 of its pixels. The name does not count.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        for where, split in self.parts():
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
            "Expected at least two classes with different names. "
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


def channel_statistics(split):
    """Mean and standard deviation of each channel, for pixels in `[0, 1]`.

    Args:
        split: `Split`; its pixels are divided by 255.

    Returns two float64 arrays `[C]`; the mean is in `[0, 1]`, the deviation
    (of the population, divided by N) in `[0, 0.5]`. They are exact except for
    the last rounding, because integers are summed.

    >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    >>> mean, deviation = channel_statistics(Split(images, [0, 1]))
    >>> mean.tolist(), deviation.tolist()
    ([0.5], [0.5])
    """
    starts = range(0, len(split), STATISTICS_CHUNK)
    chunks = (split.images[i : i + STATISTICS_CHUNK] for i in starts)
    return statistics_of(chunks, split.images.shape[-1])


def statistics_of(chunks, channels):
    """`channel_statistics` for images that come in chunks."""
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
    """Integers in proportion to `counts` that sum to `size`."""
    exact = counts * (size / counts.sum())
    quotas = np.floor(exact).astype(int)
    # The largest remainders are rounded up; if they are equal, the first.
    order = np.argsort(quotas - exact, kind="stable")
    quotas[order[: size - quotas.sum()]] += 1
    return quotas


def _draw(labels, quotas, seed):
    """Sorted indices of `quotas[k]` samples of each class `k`."""
    # NumPy never changes RandomState's stream: a seed draws the same images in
    # any version of NumPy.
    random = np.random.RandomState(seed)
    chosen = [
        random.permutation(np.flatnonzero(labels == k))[:quota]
        for k, quota in enumerate(quotas)
    ]
    return np.sort(np.concatenate(chosen))


def stratified_parts(labels, fraction, class_names, seed, remedy=""):
    """Indices of the rest and of the `fraction`; both have every class.

    `remedy` is one more way out for an error to name.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    small = [class_names[k] for k in np.flatnonzero(counts == 1)]
    if small:
        raise ValueError(
            "Expected at least two images of every class, one for each part. "
            f"Received one of {some(small)}. Add images or remove the class"
            f"{remedy}."
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
            f"Expected {where} to be at least {classes}, one per class. "
            f"Received: {where}={size}."
        )
    counts = np.bincount(split.labels, minlength=classes)
    quotas = np.maximum(_quotas(counts, size), 1)
    # The smallest classes may get too much: the largest give it up.
    while quotas.sum() > size:
        quotas[np.argmax(quotas)] -= 1
    return split.take(_draw(split.labels, quotas, seed))
