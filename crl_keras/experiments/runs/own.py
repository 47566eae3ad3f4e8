"""Adapts a user's own model and data to runs, see `compare_losses`.

`OwnProblem` takes the place of a data set of the command line. It makes the
feed of its data and builds its model; the rest of a run is the same.
"""

import hashlib
import inspect
import json
import math
import zlib
from dataclasses import dataclass
from dataclasses import field

import numpy as np

from crl_keras.experiments.data.splits import stratified_parts
from crl_keras.experiments.runs import feeds
from crl_keras.experiments.runs.config import control_named
from crl_keras.experiments.runs.own_data import leaves
from crl_keras.experiments.runs.own_data import mapped
from crl_keras.experiments.runs.own_data import seed_pipelines


@dataclass(eq=False)
class OwnProblem:
    """Data, model, optimizer and losses of a user, as a kind of data set.

    Attributes:
        name: Name of the data in tables.
        make_model: Function without arguments that builds the Keras model.
        make_optimizer: Function of a learning rate that makes an optimizer.
        losses: Dict from a spec of the configuration to a Keras loss.
        train, test: `Samples` or `Pipeline`.
        held_out: The same, or None.
        class_names: Tuple of str.
        class_weight: Dict from a class to its weight, or None.
        make_callbacks: Functions that make Keras callbacks.
        steps_per_epoch: Most batches per epoch, for arrays; or None.
        jit_compile: As `compile` takes it.
        weights: Dict from a seed to the digest of its initial weights.
        keeps_models: Whether the weights of every run are wanted.
        scheduled: Whether the optimizer has a schedule of learning rates.
        seen: Checksums of the batches of an epoch, by seed and loss.
        model: The model that the last run trained.
    """

    name: str
    make_model: object
    make_optimizer: object
    losses: dict
    train: object
    test: object
    held_out: object
    class_names: tuple
    class_weight: dict | None = None
    make_callbacks: tuple = ()
    steps_per_epoch: int | None = None
    jit_compile: object = "auto"
    keeps_models: bool = False
    scheduled: bool = False
    weights: dict = field(default_factory=dict)
    seen: dict = field(default_factory=dict)
    model: object = None
    kind = "own"

    def __post_init__(self):
        digest = hashlib.sha256()
        for split in (self.train, self.test, self.held_out):
            digest.update(b"split")
            if split is not None:
                split.update(digest)
        self.fingerprint = digest.hexdigest()[:16]

    @property
    def classes(self):
        return len(self.class_names)

    def make_feed(self, recipe, seed):
        return OwnFeed(self, recipe, seed)

    def make_loss(self, name):
        """The mean loss of a batch, a function of labels and logits."""
        import keras

        loss = self.losses[name]
        return lambda labels, logits: keras.ops.mean(loss(labels, logits))

    def why_alone(self):
        """Why its runs cannot be trained as one program, or None."""
        splits = filter(None, (self.train, self.test, self.held_out))
        reasons = {
            "their data come from a pipeline": any(s.streamed for s in splits),
            "their samples have weights": (
                self.class_weight or self.train.weights is not None
            ),
            "they have callbacks": self.make_callbacks,
            "their optimizer has a schedule": self.scheduled,
            "they are not to be compiled": not self.jit_compile,
        }
        return next((why for why, holds in reasons.items() if holds), None)

    def build_model(self, config, feed):
        """Returns what `models.build_model` returns, for the user's model."""
        import keras

        keras.utils.set_random_seed(config.seed)
        model = self.make_model()
        # Some layers make their weights in their first call.
        model(as_tensors(self.train.first(2)[0]), training=False)
        self._check_weights(model, config)
        model.compile(
            self.make_optimizer(config.recipe.learning_rate),
            self.losses[config.loss],
            metrics=["accuracy"],
            jit_compile=self.jit_compile,
        )
        model.optimizer.build(model.trainable_variables)
        self.model = model
        feed.seen = self.seen.setdefault((config.seed, config.loss), {})
        return model, model, model.count_params()

    def _check_weights(self, model, config):
        digest = weights_digest(model)
        first = self.weights.setdefault(config.seed, digest)
        if digest != first:
            raise ValueError(
                "Expected `build_model` to give the same initial weights for "
                "the same seed. Received: other ones in its second call after "
                f"keras.utils.set_random_seed({config.seed}). Build the model "
                "anew in every call, and draw nothing from a generator of its "
                "own, such as numpy.random.default_rng()"
            )

    def with_held_out(self, fraction):
        """Moves a stratified part of the training arrays to `held_out`."""
        labels = self.train.labels
        # A class with one sample cannot be in both parts: it is trained on.
        found, compact, counts = np.unique(
            labels, return_inverse=True, return_counts=True
        )
        many = np.flatnonzero(counts[compact] > 1)
        classes, compact = np.unique(labels[many], return_inverse=True)
        _, held = stratified_parts(
            compact.astype(np.int32),
            fraction,
            [str(k) for k in classes],
            0,  # One split for all seeds, as in `prepare_dataset`.
        )
        kept = np.ones(len(labels), bool)
        kept[many[held]] = False
        whole = self.train
        self.train = whole.take(np.flatnonzero(kept))
        self.held_out = whole.take(many[held])
        self.__post_init__()


def weights_digest(model):
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value))
    return digest.hexdigest()[:16]


def as_tensors(inputs):
    import keras

    return mapped(keras.ops.convert_to_tensor, inputs)


class OwnFeed(feeds.IndexedFeed):
    """Batches of a user's data; if they have no order, the seed sets it.

    Attributes:
        seen: Dict from (epoch, step) to a checksum of the labels of that batch.
    """

    def __init__(self, dataset, recipe, seed):
        super().__init__(dataset, recipe, seed)
        self.seen = {}

    @property
    def steps(self):
        if self.dataset.train.streamed:
            return self.dataset.train.steps
        steps = math.ceil(self.size("train") / self.recipe.batch_size)
        return min(steps, self.dataset.steps_per_epoch or steps)

    def _input_shape(self):
        (inputs, _) = self.dataset.train.first(1)
        first = leaves(inputs)[0]
        return first.shape[1:] if first.ndim == 4 else (first[0].size, 1, 1)

    def names(self, split):
        return tuple(map(str, range(self.size(split))))

    def callbacks(self):
        made = [make() for make in self.dataset.make_callbacks]
        return [_on_held_out(callback, self) for callback in made]

    def thumbnails(self):
        """Returns inputs that look like images, scaled to uint8."""
        split = self.dataset.test
        inputs = leaves(split.first(1)[0])[0]
        height, width, channels = (*inputs.shape[1:], 0, 0, 0)[:3]
        if inputs.ndim != 4 or channels not in (1, 3) or split.streamed:
            return np.zeros((0, 1, 1, 1), np.uint8)
        low, high = float(inputs.min()), float(inputs.max())
        for images, *_ in self.ordered("test"):
            part = leaves(images)[0]
            low = min(low, float(part.min()))
            high = max(high, float(part.max()))
        self.scale = (low, 255 / ((high - low) or 1))
        try:
            return super().thumbnails()
        finally:
            self.scale = None

    scale = None

    def _batches(self, split, epoch):
        if getattr(self.dataset, split).streamed:
            return _streamed(self, split, epoch)
        return super()._batches(split, epoch)

    def _take(self, split, chosen, draws):
        part = getattr(self.dataset, split)
        inputs = mapped(lambda values: values[chosen], part.inputs)
        weights = [] if part.weights is None else [part.weights[chosen]]
        return (inputs, part.targets[chosen], *weights)

    def _finished(self, batch, epoch, step):
        """Returns a batch for `fit`, with weights only in training."""
        inputs, targets, *weights = batch
        if epoch is None:
            if self.scale:
                low, factor = self.scale
                inputs = leaves(inputs)[0].astype(np.float32)
                inputs = np.rint((inputs - low) * factor).astype(np.uint8)
            return inputs, targets
        self.seen[epoch, step] = zlib.crc32(np.ascontiguousarray(targets))
        if self.dataset.class_weight:
            labels = targets.argmax(1) if targets.ndim == 2 else targets
            given = self.dataset.class_weight
            of_class = np.array([given.get(int(k), 1.0) for k in labels])
            before = weights[0] if weights else np.float32(1)
            weights = [(before * of_class).astype(np.float32)]
        return inputs, targets, *weights


def _streamed(feed, split, epoch):
    """Returns a `PyDataset` of a pipeline, read from its start each epoch.

    If an epoch has fewer batches than the pipeline, the next epoch goes on
    where it ended.
    """
    part = getattr(feed.dataset, split)

    class Batches(feeds.epochs_class()):
        iterator, position = None, 0

        def begin(self, epoch):
            super().begin(epoch)
            if not part.limited or epoch is None:
                if self.iterator is not None and self.position == part.steps:
                    next(self.iterator, None)  # At its end it may shuffle.
                self.iterator = None
            self.position = 0

        def __len__(self):
            return part.steps

        def __getitem__(self, i):
            # Keras reads the first batches in advance.
            if self.iterator is None or i < self.position:
                self._open()
            while True:
                batch = self._next()
                self.position += 1
                if self.position > i:
                    break
            if self.epoch is None:
                self.at = 0 if i == 0 else self.at
                self.at += _check_order(part, self.at, batch[1])
            return feed._finished(batch, self.epoch, i)

        def _open(self):
            seed_pipelines(feed.seed, self.epoch or 0)
            self.iterator = part.batches(feed.seed)
            self.position, self.at = 0, 0
            if part.limited and self.epoch:
                for _ in range(self.epoch * part.steps):
                    self._next()

        def _next(self):
            try:
                return next(self.iterator)
            except StopIteration:
                self.iterator = part.batches(feed.seed)
                return next(self.iterator)

    return Batches(feed, split, epoch)


def _check_order(part, start, targets):
    """Checks that the labels are as in the first reading; returns how many."""
    labels = targets.argmax(1) if targets.ndim == 2 else targets
    known = part.labels[start : start + len(labels)]
    if not np.array_equal(labels, known):
        raise ValueError(
            f"Expected the pipeline of {part.where} to give its samples in the "
            "same order each time. Received: other labels in a second "
            "reading; leave out its shuffling"
        )
    return len(labels)


def _on_held_out(callback, feed):
    """Wraps a user's callback: it sees held-out samples, never the test."""
    import keras

    class OnHeldOut(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.inner = callback

        def set_model(self, model):
            super().set_model(model)
            callback.set_model(model)

        def set_params(self, params):
            super().set_params(params)
            callback.set_params(params)

        def on_epoch_end(self, epoch, logs=None):
            logs = {
                name: value
                for name, value in (logs or {}).items()
                if not name.startswith("val_")
            }
            if feed.size("held_out"):
                found = self.model.evaluate(
                    feed.for_predict("held_out"), verbose=0, return_dict=True
                )
                logs.update({f"val_{name}": v for name, v in found.items()})
            callback.on_epoch_end(epoch, logs)

    def forwarded(name):
        def forward(self, *arguments, **options):
            return getattr(callback, name)(*arguments, **options)

        return forward

    for name in dir(keras.callbacks.Callback):
        if name.startswith("on_") and name != "on_epoch_end":
            setattr(OnHeldOut, name, forwarded(name))
    return OnHeldOut()


def identity(problem, model, optimizer, extra):
    """Returns `OwnConfig.own`: JSON that describes a problem."""
    settings = _settings(optimizer)
    rate = settings.pop("learning_rate", None)  # The recipe has it.
    if isinstance(rate, dict):  # A schedule.
        settings["schedule"] = rate.get("class_name")
    return json.dumps(
        {
            "model": _digest(_model_text(model)),
            "optimizer": f"{type(optimizer).__name__} {_short(settings)}",
            "data": problem.fingerprint,
            **{name: value for name, value in extra.items() if value},
        },
        sort_keys=True,
    )


def _model_text(model):
    shapes = [(v.path, tuple(v.shape), str(v.dtype)) for v in model.variables]
    try:
        text = model.to_json()
    except (NotImplementedError, TypeError, ValueError):
        text = ""  # The model's class has no configuration.
    return f"{type(model).__name__} {text} {shapes}"


def _settings(thing):
    settings = dict(thing.get_config())
    settings.pop("name", None)
    return settings


def _short(settings):
    values = (
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in settings.items()
        if value not in (None, False)
    )
    return ", ".join(values)


def _digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def definition_of(loss, hard):
    """Returns a text that identifies a Keras loss; its spec if it is known.

    `hard` says whether labels are integers or one-hot: only then is the class
    posterior behind a CRL known.
    """
    from crl_keras import losses

    for kind, control in (
        (losses.StepMatchedCrossEntropy, "steps"),
        (losses.StepNormalizedLoss, "weights"),
    ):
        if isinstance(loss, kind):
            return control_named(definition_of(loss.loss, hard), control)
    config = _settings(loss) if hasattr(loss, "get_config") else {}
    plain = config.get("from_logits") and not config.get("label_smoothing")
    plain = plain and config.get("ignore_class") is None and hard
    if plain and type(loss) in (
        losses.SparseCompetingRatioLoss,
        losses.CompetingRatioLoss,
    ):
        return f"crl(alpha={config['alpha']!r},beta={config['beta']!r})"
    if config:
        name = type(loss).__name__
        return (
            f"{name} {_digest(json.dumps(config, sort_keys=True, default=str))}"
        )
    code = getattr(loss, "__code__", None)
    text = repr((code.co_code, code.co_consts)) if code else repr(loss)
    name = getattr(loss, "__qualname__", type(loss).__name__)
    return f"{name} {_digest(text)}".replace("[", "(").replace("]", ")")


def is_from_logits(loss):
    """Returns `from_logits` of a loss, or None if the loss does not say."""
    if hasattr(loss, "get_config"):
        config = loss.get_config()
        if "from_logits" in config:
            return bool(config["from_logits"])
        return getattr(loss, "from_logits", None)
    try:
        found = inspect.signature(loss).parameters.get("from_logits")
    except (TypeError, ValueError):
        return None
    default = inspect.Parameter.empty if found is None else found.default
    return None if default is inspect.Parameter.empty else bool(default)
