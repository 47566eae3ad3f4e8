"""Pipelines over TensorFlow Datasets that do not fit in memory.

Nothing heavy is imported before a function needs it.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.image_trees import some


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
    tfds = require_tfds()
    builder = _prepared(tfds, tfds_name, data_dir)
    test_split = test_split or _default_test(builder)
    sizes = [tfds_size(builder, s) for s in (train_split, test_split)]
    image, label = tfds_keys(tfds, builder)
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


def require_tfds():
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
        f"{some(sorted(splits))}. Name parts of them, such as "
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
        self.tf, self.tfds = require("tensorflow"), require_tfds()
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
