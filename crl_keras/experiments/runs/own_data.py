"""A user's own data: arrays or a pipeline, their labels, their fingerprint.

Labels are integers `[N]`, or one-hot or soft `[N, C]`. Batches are always
NumPy arrays. Imports no backend by itself.
"""

import hashlib
import random
import sys

import numpy as np

FOR_CLASSES = (
    "`compare_losses` is for classification with one class a sample: it "
    "compares errors, calibration and confusions of classes."
)


def as_array(value):
    """Converts an array, a tensor of any backend or pandas to NumPy."""
    if hasattr(value, "detach"):  # PyTorch, maybe on a GPU.
        value = value.detach().cpu()
    elif hasattr(value, "to_numpy"):  # pandas
        value = value.to_numpy()
    array = np.asarray(value)
    # Keras does the same with its input arrays.
    return array.astype(np.float32) if array.dtype == np.float64 else array


def mapped(function, inputs):
    """Applies a function to each array of a dict, tuple or list of inputs."""
    if isinstance(inputs, dict):
        return {name: mapped(function, part) for name, part in inputs.items()}
    if isinstance(inputs, (tuple, list)) and any(
        isinstance(part, (dict, tuple)) or np.ndim(part) for part in inputs
    ):
        if not isinstance(inputs[0], list):  # Lists of lists are one array.
            return tuple(mapped(function, part) for part in inputs)
    return function(inputs)


def leaves(inputs):
    """Returns the arrays of a structure of inputs, a list."""
    found = []
    mapped(found.append, inputs)
    return found


def as_targets(values, where):
    """Converts labels for training, and finds the class of each.

    Returns:
        `(kind, targets, labels)`: kind is "integer", "one-hot" or "soft";
        targets int32 `[N]` or float32 `[N, C]`; labels int32 `[N]`.

    Raises:
        ValueError: for regression targets, several classes per sample, or
            targets that are not numbers.
    """
    targets = as_array(values)
    if targets.dtype == bool or targets.dtype.kind not in "iuf":
        raise ValueError(
            f"Expected the labels of {where} to be integers from 0, or "
            f"one-hot. Received: dtype {targets.dtype}; number the classes, "
            "as sklearn.preprocessing.LabelEncoder does"
        )
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim == 1:
        return _integers(targets, where)
    if targets.ndim != 2:
        raise ValueError(
            f"{FOR_CLASSES} Received: labels of {where} of shape "
            f"{targets.shape}, expected (N,) or (N, C)"
        )
    targets = targets.astype(np.float32)
    sums = targets.sum(axis=1)
    if targets.min() < 0 or not np.allclose(sums, 1, atol=1e-3):
        what = (
            "of several classes a sample"
            if np.isin(targets, (0, 1)).all()
            else "of a regression"
        )
        raise ValueError(
            f"{FOR_CLASSES} Received: targets of {where} of shape "
            f"{targets.shape} whose rows do not sum to 1, as those {what}"
        )
    hard = np.isin(targets, (0, 1)).all()
    labels = targets.argmax(axis=1).astype(np.int32)
    return "one-hot" if hard else "soft", targets, labels


def _integers(targets, where):
    if not np.array_equal(targets, np.round(targets)) or targets.min() < 0:
        raise ValueError(
            f"{FOR_CLASSES} Received: targets of {where} from "
            f"{targets.min():g} to {targets.max():g} that are no class numbers "
            "from 0, as those of a regression"
        )
    labels = targets.astype(np.int32)
    return "integer", labels, labels


class Samples:
    """The arrays of one split, from which batches are taken.

    Attributes:
        kind: Kind of the labels, see `as_targets`.
        images: The inputs, an array or a structure of arrays. Other data sets
            use this name for them, too.
        labels: int32 `[N]`.
    """

    streamed = fixed = False

    def __init__(self, inputs, targets, weights=None, where="train"):
        self.where = where
        self.inputs = self.images = mapped(as_array, inputs)
        self.kind, self.targets, self.labels = as_targets(targets, where)
        self.weights = None
        if weights is not None:
            self.weights = as_array(weights).astype(np.float32)
        self._check_sizes()

    def _check_sizes(self):
        sizes = [part.shape[:1] for part in leaves(self.inputs)]
        sizes += [] if self.weights is None else [self.weights.shape]
        wrong = [size for size in sizes if size != (len(self.labels),)]
        if wrong or not len(self.labels):
            raise ValueError(
                f"Expected as many inputs (and weights) as labels in "
                f"{self.where}, at least one. Received: {sizes} for "
                f"{len(self.labels)} labels"
            )
        for part in leaves(self.inputs):
            if part.dtype.kind not in "iufb":
                raise ValueError(
                    f"Expected the inputs of {self.where} to be numbers. "
                    f"Received: dtype {part.dtype}; turn text and categories "
                    "into numbers first"
                )

    def __len__(self):
        return len(self.labels)

    def take(self, indices):
        weights = None if self.weights is None else self.weights[indices]
        return Samples(
            mapped(lambda part: part[indices], self.inputs),
            self.targets[indices],
            weights,
            self.where,
        )

    def first(self, count=8):
        """`(inputs, targets)` of the first samples."""
        return mapped(lambda part: part[:count], self.inputs), self.targets[
            :count
        ]

    def update(self, digest):
        """Adds all arrays of the samples to a hash."""
        parts = [*leaves(self.inputs), self.targets]
        parts += [] if self.weights is None else [self.weights]
        for part in parts:
            digest.update(f"{part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part))


class Pipeline:
    """A `tf.data.Dataset`, `PyDataset`, `DataLoader`, or a function of a seed.

    It is read once at the start, for its labels.

    Attributes:
        kind, labels, targets: As in `Samples`, in the order of the first
            reading; `targets` is None for training.
        fixed: Whether our seed has no effect on the order of batches: False
            for a function of the seed, otherwise True.
        steps: Batches per epoch.
        batch_size: Samples of the first batch.
    """

    weights, streamed = None, True

    def __init__(self, source, where, steps=None):
        self.where, self.limited = where, steps is not None
        self.fixed = not callable(source)
        self.make = source if callable(source) else lambda seed: source
        self._read_once(steps)

    def _read_once(self, steps):
        source = self.make(0)
        if steps is None and _is_endless(source):
            raise ValueError(
                f"The pipeline of {self.where} has no end. Give "
                "steps_per_epoch="
            )
        labels, kinds, inputs, targets = [], set(), hashlib.sha256(), []
        self.steps = 0
        for batch in self.batches(0):
            if self.steps == steps:
                break
            if not self.steps:
                self._first = batch
                self.batch_size = len(batch[1])
            kind, _, found = as_targets(batch[1], self.where)
            kinds.add(kind)
            labels.append(found)
            if self.where != "train":  # Training may be augmented.
                targets.append(batch[1])
                for part in [*leaves(batch[0]), batch[1]]:
                    inputs.update(np.ascontiguousarray(part))
            self.steps += 1
        if not labels:
            raise ValueError(f"The pipeline of {self.where} is empty")
        self.kind = "soft" if "soft" in kinds else kinds.pop()
        self.labels = np.concatenate(labels)
        self.targets = np.concatenate(targets) if targets else None
        self._inputs = inputs.hexdigest()

    def batches(self, seed):
        """Yields the batches of one reading, `(inputs, targets[, weights])`."""
        source = self.make(seed)
        if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
            source = self._in_order(source)  # A PyDataset.
        for batch in source:
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise ValueError(
                    f"Expected batches of {self.where} to be (inputs, labels) "
                    f"or (inputs, labels, weights). Received: {type(batch)}"
                )
            inputs, targets, *weights = batch
            _, targets, _ = as_targets(targets, self.where)
            yield (
                mapped(as_array, inputs),
                targets,
                *(as_array(w).astype(np.float32) for w in weights),
            )

    def _in_order(self, dataset):
        yield from (dataset[i] for i in range(len(dataset)))
        if self.where == "train":
            dataset.on_epoch_end()  # It may shuffle there.

    def __len__(self):
        return len(self.labels)

    def first(self, count=8):
        inputs, targets = self._first[:2]
        return mapped(lambda part: part[:count], inputs), targets[:count]

    def update(self, digest):
        inputs, targets = self._first[:2]
        shapes = [(str(p.dtype), p.shape) for p in [*leaves(inputs), targets]]
        labels = self.labels
        if self.where == "train":  # It may be shuffled.
            labels = np.bincount(labels)
        digest.update(repr((shapes, self._inputs)).encode())
        digest.update(np.ascontiguousarray(labels))


def _is_endless(source):
    cardinality = getattr(source, "cardinality", None)  # Of tf.data.
    return cardinality is not None and int(cardinality()) == -1


def seed_pipelines(seed, epoch):
    """Seeds the usual random generators, so that they draw the same again."""
    mixed = (seed * 1_000_003 + epoch) % 2**32
    random.seed(mixed)
    np.random.seed(mixed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(mixed)


def as_split(given, where, weights=None, steps=None):
    """Makes `Samples` or a `Pipeline` from a split that a user gave."""
    if isinstance(given, (tuple, list)):
        if len(given) not in (2, 3) or (weights is not None and len(given) > 2):
            raise ValueError(
                f"Expected `{where}` to be (inputs, labels), with the weights "
                f"given at most once. Received: {len(given)} parts; give "
                "several inputs as a dict or tuple, ((a, b), labels)"
            )
        inputs, targets, *own = given
        return Samples(inputs, targets, own[0] if own else weights, where)
    if weights is not None:
        raise ValueError(
            "`sample_weight` is for arrays. A pipeline gives its weights in "
            "its batches, (inputs, labels, weights)"
        )
    if not (hasattr(given, "__iter__") or callable(given)) and not hasattr(
        given, "__getitem__"
    ):
        raise ValueError(
            f"Expected `{where}` to be (inputs, labels), a tf.data.Dataset, a "
            "keras.utils.PyDataset, a DataLoader of PyTorch, or a function "
            f"of a seed that makes one. Received: {type(given).__name__}"
        )
    return Pipeline(given, where, steps)
