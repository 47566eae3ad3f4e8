"""Data sets of TensorFlow Datasets that do not fit in memory.

Heavy packages are imported only when a function needs them.
"""

import hashlib
import importlib
import os
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.image_trees import some

SHUFFLE_BUFFER = 10_000  # Images in the buffer that shuffles an epoch.
LABEL_BATCH = 1000


@dataclass(frozen=True)
class TfdsSplit:
    """A split in TFDS's notation, such as `train[:90%]`, and its size."""

    notation: str
    size: int

    def __len__(self):
        return self.size

    @property
    def names(self):
        """Names of the images in records: their positions, as text."""
        return tuple(map(str, range(self.size)))


@dataclass(frozen=True, eq=False)
class TfdsSet:
    """A classification data set that TensorFlow Datasets has prepared.

    Attributes:
        name: str, its name in reports.
        train, test: `TfdsSplit`.
        class_names: tuple of str; a label is a position in it.
        builder: the TFDS builder.
        keys: names of the features that hold the image and the label.
        held_out: `TfdsSplit` or None, images held out of training.
        box: name of the feature with the object boxes that images are cut to,
            or None for whole images.
    """

    name: str
    train: TfdsSplit
    test: TfdsSplit
    class_names: tuple
    builder: Any = field(repr=False)
    keys: tuple
    held_out: TfdsSplit | None = None
    box: str | None = None
    kind = "tfds"
    notes = ()
    _labels: dict = field(default_factory=dict, init=False, repr=False)

    @property
    def classes(self):
        """The number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self):
        """The shape `(H, W, C)` of an image; None for sizes that vary."""
        return tuple(self.builder.info.features[self.keys[0]].shape)

    @cached_property
    def fingerprint(self):
        """16 hexadecimal digits for the version, the splits and the classes.

        SHA-256 of the builder's name and version, the class names, the
        notation and size of each split, the name of the box if images are cut
        to it, and the test labels. TFDS checks the files themselves when it
        prepares them.
        """
        splits = [self.train, self.test, self.held_out]
        head = (self.builder.info.full_name, self.class_names, splits)
        head += (self.box,) if self.box else ()
        digest = hashlib.sha256(repr(head).encode())
        digest.update(self.labels("test").astype("<i4").tobytes())
        return digest.hexdigest()[:16]

    def labels(self, name):
        """The labels of a split, int32 `[N]`; this decodes no image."""
        if name not in self._labels:
            self._labels[name] = self._read_labels(name)
        return self._labels[name]

    def _read_labels(self, name):
        label = self.keys[1]
        tfds = require_tfds()
        labels = self.builder.as_dataset(
            split=getattr(self, name).notation,
            decoders=tfds.decode.PartialDecoding({label: True}),
        ).map(lambda sample: sample[label])
        batches = tfds.as_numpy(labels.batch(LABEL_BATCH))
        return np.concatenate([*batches]).astype(np.int32)

    def cut_to_boxes(self, wanted):
        """Cuts each image to its first object box, if `wanted`."""
        if not wanted:
            return self
        features = require_tfds().features
        for name, feature in self.builder.info.features.items():
            if isinstance(feature, features.Sequence):
                feature = feature.feature
            if isinstance(feature, features.BBoxFeature):
                return replace(self, box=name)
        raise ValueError(
            f"Expected bounding boxes in {self.name}, to crop to. Received: "
            f"features {some(sorted(self.builder.info.features))}. Leave out "
            "--crop-to-box (crop_to_box=)."
        )

    def with_held_out(self, fraction):
        """Holds the last part of the training split out of training.

        Raises:
            ValueError: for Adience and a fraction above 0: TensorFlow Datasets
                does not say who is in an image.
        """
        if fraction and self.name.startswith("adience"):
            raise ValueError(
                "Expected held_out=0 for Adience of TensorFlow Datasets, which "
                f"does not say who is in an image. Received: {fraction}. Use "
                "--held-out 0, or the unpacked folder."
            )
        count = round(fraction * self.train.size)
        if not count:
            return self
        kept = self.train.size - count
        return replace(
            self,
            train=self._part("train", None, kept),
            held_out=self._part("train", kept, None),
        )

    def limited(self, train=None, test=None):
        """Keeps only the first images of the splits, for a quick run."""
        sizes = {"train": train, "test": test}
        return replace(
            self,
            **{
                name: self._part(name, None, size)
                for name, size in sizes.items()
                if size is not None and size < getattr(self, name).size
            },
        )

    def checked(self, skip_unreadable=False, reader="tf.data", exif=True):
        """The same set, because TFDS has checked the files already."""
        return self

    def _part(self, name, start, end):
        """The images from `start` to `end` of the current split."""
        split = getattr(self, name)
        whole, _, part = split.notation.partition("[")
        first, last = 0, ""
        if part:  # It is a part already, such as "train[:500]".
            first, _, last = part.rstrip("]").partition(":")
            if not (first + last).isdigit():
                raise ValueError(
                    "Expected a whole split, or a part with image numbers, to "
                    f"cut further. Received: {split.notation!r}. Leave out "
                    "--train-limit, --test-limit and --held-out."
                )
            first = int(first or 0)
        last = last if end is None else first + end
        notation = f"{whole}[{first + (start or 0) or ''}:{last}]"
        return TfdsSplit(notation, tfds_size(self.builder, notation))

    def pipeline(self, name, batch_size, crop=None, seed=None, centre=False):
        """Batches of uint8 images `[batch, H, W, C]` and int32 labels.

        Args:
            name: str, "train", "test" or "held_out".
            batch_size: int; the last batch may be smaller.
            crop: `Crop`, or None if all images have the same size, keep it
                and are not cut to a box.
            seed: int in `[0, 2**31)` for training: order and crops depend only
                on it (and on TensorFlow's global seed, if it is set). None for
                the test: the order of the data set, and centre crops.
            centre: bool, whether to crop the centre even with a seed.

        Returns:
            `tf.data.Dataset`.
        """
        tf, tfds = require("tensorflow", "tfds"), require_tfds()
        read_config = tfds.ReadConfig(
            shuffle_seed=seed,
            shuffle_reshuffle_each_iteration=False,
            # Also shuffle a data set that is stored in a fixed order.
            enable_ordering_guard=False,
        )
        samples = self.builder.as_dataset(
            split=getattr(self, name).notation,
            shuffle_files=seed is not None,
            read_config=read_config,
            # Other features, such as masks, stay encoded.
            decoders=tfds.decode.PartialDecoding(
                {key: True for key in (*self.keys, self.box) if key}
            ),
        )
        image, label = self.keys
        if seed is None:
            samples = samples.map(lambda sample: (sample, None))
        else:
            samples = samples.shuffle(
                SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=False
            )
            # Each sample carries its seed, so threads cannot mix them up.
            seeds = tf.data.Dataset.random(
                seed, rerandomize_each_iteration=False
            ).batch(2)
            samples = tf.data.Dataset.zip((samples, seeds))

        # AutoGraph has nothing to convert here, and would warn.
        @tf.autograph.experimental.do_not_convert
        def prepare(sample, seed):
            pixels = sample[image]
            if crop is not None:
                draws = None
                if seed is not None and not centre:
                    draws = tf.random.stateless_uniform([4], seed)
                box = self._box_in_pixels(sample) if self.box else None
                pixels = crop.tensorflow(pixels, draws, box)
            return pixels, tf.cast(sample[label], tf.int32)

        samples = samples.map(
            prepare, num_parallel_calls=os.cpu_count(), deterministic=True
        )
        return samples.batch(batch_size).prefetch(2)

    def _box_in_pixels(self, sample):
        """`x0, y0, x1, y1`; the whole image if a sequence has no box."""
        tf = require("tensorflow", "tensorflow")
        boxes = tf.reshape(sample[self.box], (-1, 4))
        y0, x0, y1, x1 = tf.unstack(
            tf.concat([boxes, [[0.0, 0.0, 1.0, 1.0]]], axis=0)[0]
        )
        shape = tf.cast(tf.shape(sample[self.keys[0]]), tf.float32)
        edges = (x0 * shape[1], y0 * shape[0], x1 * shape[1], y1 * shape[0])
        # Rounding errors may move an edge slightly beyond its pixel, and the
        # crop would get a whole pixel more.
        return [tf.round(64 * edge) / 64 for edge in edges]


def open_tfds(name, data_dir=None, train_split="train", test_split=None):
    """Opens a data set of TensorFlow Datasets, for any backend.

    Args:
        name: str, `"imagenet2012"` or `"tfds:NAME"`, with TFDS's name, such
            as `"tfds:oxford_flowers102"` or `"tfds:cifar10:3.0.2"`.
        data_dir: path of TFDS's data folder, None for its default. A set that
            is not there is downloaded and prepared.
        train_split, test_split: str in TFDS's notation, such as
            `"train[:90%]"`. The default test split is `"test"`. It is
            `"validation"` if there is no test split, and for ImageNet, whose
            test labels are secret.

    Returns a `TfdsSet`.

    Raises:
        ValueError: if the name or split is unknown, or the set has no class
            labels.
        OSError: if the set could not be prepared.
        ImportError: if TensorFlow or TFDS is missing; the message has the pip
            command.
    """
    kind, _, tfds_name = str(name).partition(":")
    if name == "imagenet2012":
        tfds_name = name
    elif kind != "tfds" or not tfds_name:
        raise ValueError(
            "Expected 'imagenet2012' or 'tfds:NAME' with a name of TensorFlow "
            f"Datasets. Received: {name!r}."
        )
    tfds = require_tfds()
    # The import registers our own builders by name.
    importlib.import_module("crl_keras.experiments.data.tfds_builders")
    builder = _prepared(tfds, tfds_name, data_dir)
    test_split = test_split or _default_test(builder)
    train, test = (
        TfdsSplit(split, tfds_size(builder, split))
        for split in (train_split, test_split)
    )
    keys = tfds_keys(tfds, builder)
    names = tuple(builder.info.features[keys[1]].names)
    return TfdsSet(str(name), train, test, names, builder, keys)


def require_tfds():
    # TFDS 4.9.10 imports importlib_resources without declaring it.
    require("tensorflow", "tfds")
    require("importlib_resources", "tfds")
    return require("tensorflow_datasets", "tfds")


def _prepared(tfds, name, data_dir):
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise ValueError(
            f"Expected a data set of TensorFlow Datasets. Received: {name!r} "
            f"({error}). Check the name, or --data-dir for a set of your own."
        ) from error
    if builder.info.splits:
        file_format = builder.info.file_format
        if file_format is not None and file_format.value == "array_record":
            raise ValueError(
                f"Expected {name} in a file format that tf.data can stream. "
                f"Received: {file_format.value}, in {builder.data_dir}. "
                "Prepare it with the default format, tfrecord, in another "
                "folder"
            )
        return builder
    try:
        builder.download_and_prepare()
    # A builder's own code and the servers can cause any error.
    except Exception as error:
        raise OSError(
            f"TensorFlow Datasets could not prepare {name} ({error}). Prepare "
            "it on a machine that can download it, and pass that data folder "
            "with --data-dir (data_dir=)."
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
        f"{some(sorted(splits))}. Choose parts of them, such as "
        "train_split='train[:90%]' and test_split='train[90%:]'."
    )


def tfds_size(builder, split):
    try:
        size = builder.info.splits[split].num_examples
    except Exception as error:
        raise ValueError(
            f"Expected splits of {builder.name}, "
            f"{some(sorted(builder.info.splits))}, or parts of them. "
            f"Received: {split!r} ({error})."
        ) from error
    if not size:
        raise ValueError(f"Expected images in {split!r}. Received: none.")
    return size


def tfds_keys(tfds, builder):
    """The names of the features that hold the image and the label."""
    info = builder.info
    keys = info.supervised_keys
    # A user's own data set may not name these features.
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
            f"Expected {builder.name} to have one 8-bit image, grey or colour, "
            "and one class label in each sample. Received: "
            f"{dict(info.features)}. Choose another data set."
        )
    return tuple(keys)
