"""Makes batches for `fit` and `predict`, from memory, image files or TFDS.

A feed turns a data set and a recipe into batches of uint8 images
`[batch, H, W, C]` and labels. The batches of an epoch, their order and their
crops depend only on the seed and the number of the epoch. This makes losses
comparable and runs resumable.
"""

import concurrent.futures
import functools
import hashlib
import math
import os

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.data import splits
from crl_keras.experiments.data.crops import Crop
from crl_keras.experiments.data.crops import decoded
from crl_keras.experiments.data.image_checks import unreadable
from crl_keras.experiments.devices import leave_gpus_to_backend

TEST_BATCH_PIXELS = 2**22  # Per test batch: 1,000 images of 64 x 64.
TEST_BATCH = 1000
THUMBNAILS = 2000
THUMBNAIL_SIZE = 96
THUMBNAIL_BYTES = 2**25


def make_feed(dataset, recipe, seed=0, reader="pillow"):
    """Makes the feed of a data set.

    Args:
        dataset: `Dataset`, `FileDataset` or `TfdsSet`.
        recipe: `Recipe`: batch size, size of the images, crops, mixing.
        seed: Integer >= 0, for order, crops and mixing.
        reader: For a `FileDataset`: "pillow", the default, "simplejpeg" or
            "tf.data".

    Returns:
        `Feed`.

    Raises:
        ValueError: The recipe has no image size but the images have many, or
            it has one but the images are in memory and keep their size.
        ImportError: The package that reads the files is not installed.
    """
    if dataset.kind == "own":
        return dataset.make_feed(recipe, seed)
    return _KINDS[dataset.kind, reader if dataset.kind == "files" else None](
        dataset, recipe, seed
    )


class Feed:
    """Batches of one data set for one recipe and seed.

    Attributes:
        dataset: The data set.
        recipe: `Recipe`.
        seed: Integer.
        input_shape: `(height, width, channels)` of the images.
        crop: `Crop` that crops the images, or None if they stay whole.
        step_size: Images per step: a part of a batch if it is accumulated.
    """

    crop = None

    def __init__(self, dataset, recipe, seed):
        self.dataset, self.recipe, self.seed = dataset, recipe, seed
        self.input_shape = self._input_shape()
        self.step_size = recipe.batch_size // recipe.accumulate

        if not self.steps:
            raise ValueError(
                "Expected at least one whole batch of training images to "
                f"accumulate. Received: batch_size={recipe.batch_size} for "
                f"{self.size('train')} images; lower it, or leave out "
                "--accumulate (accumulate=)"
            )

    @property
    def steps(self):
        """Steps per epoch; accumulated batches count only if they are whole.

        Parts of one batch in two epochs would mix the epochs.
        """
        accumulate = self.recipe.accumulate
        if accumulate > 1:
            batches = self.size("train") // self.recipe.batch_size
            return batches * accumulate
        return math.ceil(self.size("train") / self.step_size)

    def batch_sizes(self):
        """Returns all batch sizes of training and tests, a sorted list."""
        sizes, step = set(), self.step_size
        rest = self.size("train") - (self.steps - 1) * step
        sizes.update({min(step, rest)}, {step} if self.steps > 1 else ())
        for split in ("test", "held_out"):
            size, most = self.size(split), self._test_batch()
            sizes.update({most} if size >= most else (), {size % most} - {0})
        return sorted(sizes)

    def _length(self, split, epoch):
        if epoch is not None:
            return self.steps
        return math.ceil(self.size(split) / self._test_batch())

    def size(self, split):
        """Images in "train", "test" or "held_out"; 0 for a missing split."""
        part = getattr(self.dataset, split)
        return 0 if part is None else len(part)

    def labels(self, split):
        """Labels of a split in order, int32 `[N]`."""
        return getattr(self.dataset, split).labels

    def names(self, split):
        """Names of a split's images in the records, in order; tuple of str."""
        return getattr(self.dataset, split).names

    def training(self, epoch=0):
        """`keras.utils.PyDataset` whose first epoch is number `epoch`."""
        return self._batches("train", epoch)

    def for_fit(self, epoch=0):
        """Returns a dict of the arguments of `fit`, from number `epoch` on.

        On TensorFlow, `x` is an endless `tf.data.Dataset` of the same batches.
        """
        batches = self.training(epoch)
        if not _on_tensorflow():
            arguments = {"x": batches}
        else:
            # `fit` calls `on_epoch_end` once before the first epoch, on every
            # backend.
            dataset = _tensorflow_dataset(batches, (epoch + 1) * self.steps)
            arguments = {"x": dataset, "steps_per_epoch": self.steps}
        if self.recipe.class_weights == "balanced":
            arguments["class_weight"] = self.class_weights()
        return arguments

    def class_weights(self):
        """{class: weight}, inversely proportional to its training images."""
        labels = self.labels("train")
        counts = np.bincount(labels, minlength=self.dataset.classes)
        weights = len(labels) / (self.dataset.classes * counts)
        return dict(enumerate(weights.tolist()))

    def for_predict(self, split):
        """Returns a split for `predict`, or for `fit` as `validation_data`.

        It has all images in order, not augmented.
        """
        batches = self.ordered(split)
        if not _on_tensorflow():
            return batches
        return _tensorflow_dataset(batches, 0, len(batches))

    def ordered(self, split):
        """`keras.utils.PyDataset` over a split in its order, not augmented."""
        return self._batches(split, None)

    def sample(self, most):
        """Yields whole batches of training images, at most `most` images.

        uint8 `[batch, H, W, C]`, not augmented, in an order that mixes the
        classes and is always the same.
        """
        count = min(most, self.size("train"))
        batch = min(self.step_size, count)
        order = np.random.default_rng(0).permutation(self.size("train"))
        for start in range(0, count - batch + 1, batch):
            yield self._images(order[start : start + batch])

    def callbacks(self):
        """Returns new Keras callbacks that belong to the data, for each run."""
        return []

    def statistics(self):
        """Mean and deviation of each training channel, in units of 1.

        If images are cropped, their middle is used.
        """
        parts = (images for images, _ in self.ordered("train"))
        return splits.statistics_of(parts, self.input_shape[-1])

    def thumbnails(self):
        """uint8 `[M, h, w, C]`: the first test images, shrunk if large."""
        size = min(max(self.input_shape[:2]), THUMBNAIL_SIZE)
        bytes_each = size**2 * self.input_shape[2]
        count = max(1, min(THUMBNAILS, THUMBNAIL_BYTES // bytes_each))
        parts, kept = [], 0
        for images, _ in self.ordered("test"):
            parts.append(shrunk(images[: count - kept], size))
            kept += len(parts[-1])
            if kept >= count:
                break
        return np.concatenate(parts)

    def _input_shape(self, channels=3):
        """Returns the shape of cropped images; sets `crop`."""
        recipe = self.recipe
        if recipe.image_size is None:
            raise ValueError(
                f"The images of {self.dataset.name} have many sizes, and the "
                f"recipe {recipe.name!r} gives none: choose one with "
                "--image-size (image_size=)"
            )
        self.crop = Crop(
            recipe.image_size,
            recipe.crop,
            recipe.resize_ratio,
            recipe.keep_aspect,
        )
        return recipe.image_size, recipe.image_size, channels

    def _test_batch(self):
        pixels = math.prod(self.input_shape[:2])
        return max(1, min(TEST_BATCH, TEST_BATCH_PIXELS // pixels))

    def _batch_size(self, epoch):
        return self._test_batch() if epoch is None else self.step_size

    def order(self, epoch):
        """Positions of the images that an epoch trains on, in order."""
        rng = np.random.default_rng([self.seed, epoch])
        size = self.size("train")
        if self.recipe.sampling == "balanced":
            return _balanced(rng, self.labels("train"), self.dataset.classes)
        return rng.permutation(size)

    def _draws(self, epoch):
        """Four numbers in [0, 1) for the crop of each place in the order."""
        if self.crop is None:
            return None  # Nothing is cropped.
        rng = np.random.default_rng([self.seed, epoch, 1])
        draws = rng.random((self.size("train"), 4), np.float32)
        if self.recipe.sampling == "balanced":
            return draws  # An image that comes twice gets two crops.
        return draws[self.order(epoch)]

    def _finished(self, batch, epoch, step):
        """Converts labels for the loss, and mixes images in training."""
        images, labels = batch
        if not self.recipe.soft_labels:
            return images, labels
        labels = np.eye(self.dataset.classes, dtype=np.float32)[labels]
        if epoch is None:
            return images, labels
        return _mixed(self.recipe, images, labels, [self.seed, epoch, step])


def _balanced(rng, labels, classes):
    """Draws as many positions as labels, each class equally often."""
    places = rng.permutation(np.arange(len(labels)) % classes)
    order = np.empty(len(labels), int)
    for k in range(classes):
        wanted, of_class = places == k, np.flatnonzero(labels == k)
        rounds = math.ceil(wanted.sum() / len(of_class))
        drawn = [rng.permutation(of_class) for _ in range(rounds)]
        order[wanted] = np.concatenate([*drawn, []])[: wanted.sum()]
    return order


def _on_tensorflow():
    import keras

    return keras.backend.backend() == "tensorflow"


def _tensorflow_dataset(batches, first, stop=None):
    """The batches of a PyDataset from number `first` on, over all epochs.

    Keras itself would turn a PyDataset into a TensorFlow generator with
    autotuning, see `_not_tuned`.
    """
    tf = require("tensorflow", "tensorflow")
    # Inputs may be dicts or tuples, and weights may follow the labels.
    structure = batches[0]
    specs = [
        tf.TensorSpec((None, *value.shape[1:]), value.dtype)
        for value in tf.nest.flatten(structure)
    ]

    def batch(number):
        epoch, i = divmod(int(number), len(batches))
        if batches.epoch not in (None, epoch):
            batches.begin(epoch)
        return tf.nest.flatten(batches[i])

    def tensors(number):
        found = tf.numpy_function(
            batch, [number], [spec.dtype for spec in specs]
        )
        found = map(tf.ensure_shape, found, [s.shape for s in specs])
        return tf.nest.pack_sequence_as(structure, list(found))

    numbers = tf.data.Dataset.range(first, stop or tf.int64.max)
    return _not_tuned(numbers.map(tensors).prefetch(2))


def _not_tuned(pipeline):
    """Turns a pipeline's autotuning off, so its iterators are freed at once.

    In TensorFlow 2.21, freeing the iterator of an autotuned pipeline may wait
    for the tuning thread, which sleeps longer and longer: an epoch of 20 s was
    followed by a wait of 4 to 20 s.
    """
    tf = require("tensorflow", "tensorflow")
    options = tf.data.Options()
    options.autotune.enabled = False
    return pipeline.with_options(options)


def _mixed(recipe, images, labels, seed):
    """Applies Keras's MixUp or CutMix, with a seed for the batch."""
    import keras

    digest = hashlib.sha256(repr(seed).encode()).digest()
    seed = int.from_bytes(digest[:4], "big") >> 2
    layers = []
    if recipe.mixup:
        layers.append(
            keras.layers.MixUp(recipe.mixup, seed=seed, dtype="float32")
        )
    if recipe.cutmix:
        # For one number, Keras would draw the parameter between 0 and it.
        alpha = (recipe.cutmix, recipe.cutmix)
        layers.append(keras.layers.CutMix(alpha, seed=seed, dtype="float32"))
    if not layers:
        return images, labels
    # If both are asked for, each gets half of the batches, as usual.
    layer = layers[seed % len(layers)]
    mixed = layer({"images": images.astype(np.float32), "labels": labels})
    images, labels = (
        keras.ops.convert_to_numpy(mixed[name]) for name in ("images", "labels")
    )
    return np.clip(np.rint(images), 0, 255).astype(np.uint8), labels


def shrunk(images, size):
    """Shrinks uint8 images `[N, H, W, C]` to at most `size` pixels a side."""
    if max(images.shape[1:3]) <= size:
        return images
    pillow = require("PIL.Image")
    scale = size / max(images.shape[1:3])
    shape = [max(1, round(side * scale)) for side in images.shape[2:0:-1]]
    small = [
        np.asarray(pillow.fromarray(image.squeeze()).resize(shape))
        for image in images
    ]
    return np.stack(small).reshape(len(images), *shape[::-1], images.shape[-1])


@functools.cache
def epochs_class():
    """Returns the base class of a feed's `PyDataset`; imports Keras late.

    A subclass has `begin`. Before each epoch it is called with the number of
    the epoch, or with None for a split in order.
    """
    import keras

    class Epochs(keras.utils.PyDataset):
        def __init__(self, feed, split, epoch):
            # No `workers` of Keras: on PyTorch, Keras 3.15 reads the first
            # batch of a PyDataset with workers for its shape and loses it.
            super().__init__()
            self.feed, self.split = feed, split
            self.begin(epoch)

        def begin(self, epoch):
            self.epoch = epoch

        def __len__(self):
            return self.feed._length(self.split, self.epoch)

        def on_epoch_end(self):
            self.begin(None if self.epoch is None else self.epoch + 1)

    return Epochs


class IndexedFeed(Feed):
    """A feed that can make any batch by itself."""

    threads = 0  # Threads that make batches ahead; 0 for none.

    def _batches(self, split, epoch):
        feed = self
        batch_size = self._batch_size(epoch)

        class Batches(epochs_class()):
            def __init__(self, *arguments):
                self.ahead = {}
                super().__init__(*arguments)

            def begin(self, epoch):
                concurrent.futures.wait(self.ahead.values())
                self.epoch, self.ahead = epoch, {}
                if epoch is not None:
                    self.order = feed.order(epoch)
                    self.draws = feed._draws(epoch)

            def __getitem__(self, i):
                batch = self._read(i)
                # Not in the threads: on PyTorch, Keras's MixUp seeds the
                # generator that all threads share.
                return feed._finished(batch, self.epoch, i)

            def _read(self, i):
                if not feed.threads:
                    return self._make(i)
                last = min(len(self), i + 1 + feed.threads)
                for k in range(i, last):
                    if k not in self.ahead:
                        self.ahead[k] = _threads().submit(self._make, k)
                return self.ahead.pop(i).result()

            def _make(self, i):
                chosen = slice(i * batch_size, (i + 1) * batch_size)
                draws = None
                if epoch is not None:
                    if self.draws is not None:
                        draws = self.draws[chosen]
                    chosen = self.order[chosen]
                return feed._take(split, chosen, draws)

        return Batches(self, split, epoch)

    def _images(self, chosen):
        return self._take("train", chosen, None)[0]


@functools.cache
def _threads():
    return concurrent.futures.ThreadPoolExecutor(_PillowFeed.threads)


class _MemoryFeed(IndexedFeed):
    def _input_shape(self):
        if self.recipe.image_size is not None:
            raise ValueError(
                f"The images of {self.dataset.name} are in memory and keep "
                "their size. Received: "
                f"image_size={self.recipe.image_size}; leave it out, or "
                "choose another recipe"
            )
        return self.dataset.input_shape

    def statistics(self):
        return splits.channel_statistics(self.dataset.train)

    def _take(self, split, chosen, draws):
        part = getattr(self.dataset, split)
        return part.images[chosen], part.labels[chosen]


class _PillowFeed(IndexedFeed):
    """Image files, decoded in threads: Pillow releases the GIL."""

    threads = max(2, os.cpu_count() or 1)

    def _take(self, split, chosen, draws):
        part = getattr(self.dataset, split)
        indices = np.arange(len(part))[chosen]
        images = [
            self._read(part, i, None if draws is None else draws[k])
            for k, i in enumerate(indices)
        ]
        return np.stack(images), part.labels[indices]

    def _images(self, chosen):
        part = self.dataset.train
        read = functools.partial(self._read, part, draws=None)
        return np.stack([*_threads().map(read, chosen)])

    def _read(self, part, i, draws):
        box = None if part.boxes is None else part.boxes[i]
        turn = 1 if part.orientations is None else part.orientations[i]
        try:
            return self._decoded(part.paths[i], box, draws, turn)
        # For a damaged file Pillow can raise almost any error.
        except Exception as error:
            raise unreadable(part.paths[i], error) from error

    def _decoded(self, path, box, draws, turn):
        return self.crop.read(path, box, draws, turn)


class _SimpleJpegFeed(_PillowFeed):
    """JPEG files, decoded in threads with libjpeg-turbo."""

    def __init__(self, dataset, recipe, seed):
        require("simplejpeg", "simplejpeg")
        require("cv2", "simplejpeg")
        super().__init__(dataset, recipe, seed)

    def _decoded(self, path, box, draws, turn):
        return self.crop.read_jpeg(path, box, draws, turn)


class _PipelineFeed(Feed):
    """A feed that reads batches in sequence from a TensorFlow pipeline."""

    def __init__(self, dataset, recipe, seed):
        leave_gpus_to_backend()
        super().__init__(dataset, recipe, seed)

    def _batches(self, split, epoch):
        feed = self
        batch_size = self._batch_size(epoch)

        class Batches(epochs_class()):
            def begin(self, epoch):
                super().begin(epoch)
                self.position, self.iterator = 0, None

            def __getitem__(self, i):
                # Keras on TensorFlow reads the first batches in advance.
                if self.iterator is None or i < self.position:
                    pipeline = feed._pipeline(split, batch_size, self.epoch)
                    self.iterator = _not_tuned(pipeline).as_numpy_iterator()
                    self.position = 0
                while True:
                    batch = feed._next(
                        self.iterator, split, self.epoch, self.position
                    )
                    self.position += 1
                    if self.position > i:
                        return feed._finished(batch, self.epoch, i)

        return Batches(self, split, epoch)

    def _next(self, iterator, split, epoch, position):
        return next(iterator)


class _TensorFlowFeed(_PipelineFeed):
    """Image files, read by TensorFlow."""

    def _pipeline(self, split, batch_size, epoch, order=None):
        tf = require("tensorflow", "tensorflow")
        part, crop = getattr(self.dataset, split), self.crop
        columns = {"path": np.array(part.paths), "label": part.labels}
        if part.boxes is not None:
            columns["box"] = part.boxes.astype(np.float32)
        if part.orientations is not None:
            columns["orientation"] = part.orientations
        if epoch is not None:
            order = self.order(epoch)
        if order is not None:
            columns = {name: value[order] for name, value in columns.items()}
        if epoch is not None:
            columns["draws"] = self._draws(epoch)

        # AutoGraph has nothing to convert, and warns that it cannot.
        @tf.autograph.experimental.do_not_convert
        def prepare(row):
            image = crop.tensorflow_file(
                row["path"],
                row.get("draws"),
                row.get("box"),
                row.get("orientation"),
            )
            return image, row["label"]

        rows = tf.data.Dataset.from_tensor_slices(columns)
        images = rows.map(
            prepare, num_parallel_calls=os.cpu_count(), deterministic=True
        )
        return images.batch(batch_size).prefetch(2)

    def sample(self, most):
        """See `Feed`."""
        count = min(most, self.size("train"))
        batch = min(self.step_size, count)
        order = np.random.default_rng(0).permutation(self.size("train"))
        chosen = order[: count // batch * batch]
        pipeline = self._pipeline("train", batch, None, chosen)
        for images, _ in _not_tuned(pipeline).as_numpy_iterator():
            yield images

    def _next(self, iterator, split, epoch, position):
        try:
            return next(iterator)
        except StopIteration:
            raise
        # TensorFlow's error names an operation, not the file.
        except Exception as error:
            tf = require("tensorflow", "tensorflow")
            part = getattr(self.dataset, split)
            order = range(len(part)) if epoch is None else self.order(epoch)
            first = position * self._batch_size(epoch)
            for i in order[first:]:
                try:
                    decoded(tf.io.read_file(part.paths[i]))
                except Exception as why:
                    raise unreadable(part.paths[i], why) from error
            raise


class _TfdsFeed(_PipelineFeed):
    def _input_shape(self):
        shape = self.dataset.image_shape
        whole = self.dataset.box is None and None not in shape
        if self.recipe.image_size is None and whole:
            return shape
        return super()._input_shape(shape[-1])

    def __init__(self, dataset, recipe, seed):
        if recipe.sampling != "none":
            raise ValueError(
                "Expected no --sampling (sampling=) for images that are "
                f"streamed, {dataset.name}. Received: {recipe.sampling!r}; "
                "take --class-weights balanced"
            )
        super().__init__(dataset, recipe, seed)

    def labels(self, split):
        return self.dataset.labels(split)

    def sample(self, most):
        """See `Feed`; the order has its own seed."""
        count = min(most, self.size("train"))
        batch = min(self.step_size, count)
        pipeline = self.dataset.pipeline(
            "train", batch, self.crop, seed=0, centre=True
        ).take(count // batch)
        for images, _ in _not_tuned(pipeline).as_numpy_iterator():
            yield images

    def _pipeline(self, split, batch_size, epoch):
        seed = None
        if epoch is not None:
            digest = hashlib.sha256(f"{self.seed} {epoch}".encode()).digest()
            seed = int.from_bytes(digest[:4], "little") >> 1
        return self.dataset.pipeline(split, batch_size, self.crop, seed)


# Keys: the kind of the data set and, if there is a choice, the reader.
_KINDS = {
    ("memory", None): _MemoryFeed,
    ("files", "pillow"): _PillowFeed,
    ("files", "simplejpeg"): _SimpleJpegFeed,
    ("files", "tf.data"): _TensorFlowFeed,
    ("tfds", None): _TfdsFeed,
}
