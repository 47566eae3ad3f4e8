"""The compiled step of many runs of one network, on JAX.

Every variable of the model, of its random numbers and of its optimizer gets a
leading axis of runs. A step of all runs is one `jax.vmap` of Keras's own
stateless call and stateless update; the steps of an epoch are a loop on the
device. Each loss is computed by its own code, on the rows of its own runs, so
that nothing of its exactness is lost.
"""

import concurrent.futures
import contextlib
import functools
import itertools
import threading

import jax
import keras
import numpy as np
from jax import numpy as jnp

from crl_keras.experiments.devices import cores
from crl_keras.experiments.runs.epochs import state_variables
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.models import build_model
from crl_keras.experiments.runs.models import loss_of
from crl_keras.experiments.runs.training import Built

# A call of the program makes so many steps at most: Ctrl-C waits for it.
STEPS_A_CALL = 100


class Programs:
    """The compiled programs of some runs: a training step, and a prediction.

    Args:
        configs: List of `RunConfig` that differ in seed, loss, rate and weight
            decay alone; runs of one loss stand side by side. The programs are
            for all runs of these losses in this order.
        dataset: Their `Dataset`.

    Attributes:
        feed: `Feed` of the first run.
        model: The compiled model of the first run, whose layers are called.
        built: Its `Built`.
    """

    def __init__(self, configs, dataset):
        self.first = first = configs[0]
        self.feed = make_feed(dataset, first.recipe, first.seed, first.reader)
        self.model, deployed, parameters = build_model(first, self.feed)
        self.built = Built(self.model, deployed, parameters)
        # Of mixed images every seed has its own.
        self.mixes = bool(first.recipe.mixup or first.recipe.cutmix)
        self.losses = [
            (loss, len([*group]))
            for loss, group in itertools.groupby(c.loss for c in configs)
        ]
        self.compiled, self.parts = {}, {}
        self.predict = jax.jit(jax.vmap(self._predict, in_axes=(0, 0, None)))
        self.score = jax.jit(self._score)

    @functools.cached_property
    def training_data(self):
        """All images and labels of the training, on the device."""
        dataset = self.feed.dataset
        images = jax.tree.map(jnp.asarray, dataset.train.images)
        return images, _labels(dataset, self.feed.recipe, "train")

    @functools.cached_property
    def test_labels(self):
        return _labels(self.feed.dataset, self.feed.recipe, "test")

    def variables(self):
        return state_variables(self.model)

    def stack(self, values):
        """The state of runs: values of `state_variables` of each, stacked.

        A tuple of lists: trainable, other and optimizer's variables.
        """
        stacked = [np.stack(of_runs) for of_runs in zip(*values, strict=True)]
        return tuple(
            [jnp.asarray(stacked[i]) for i in numbers]
            for numbers in self._numbers()
        )

    def unstack(self, state):
        """The opposite of `stack`: a list of values for each run."""
        numbers = sum(self._numbers(), [])
        values = dict(zip(numbers, jax.device_get(sum(state, [])), strict=True))
        stacked = [values[i] for i in range(len(values))]
        return [[*of_run] for of_run in zip(*stacked, strict=True)]

    def settings(self, configs):
        """Dict of arrays `(runs,)`: the number of the seed, the learning rate
        in units of the first run's and, if it is another, the weight decay."""
        recipes = [config.recipe for config in configs]
        rate = self.first.recipe.learning_rate
        seeds = [config.seed for config in configs]
        with np.errstate(over="ignore"):  # That run will diverge.
            rates = np.float32([r.learning_rate / rate for r in recipes])
        seed = np.unique(seeds, return_inverse=True)[1]
        settings = dict(seed=seed, rate=rates)
        decays = [recipe.weight_decay for recipe in recipes]
        if {*decays} != {self.first.recipe.weight_decay}:
            settings["decay"] = np.float32(decays)
        return settings

    def train(self, *arguments):
        """`_train`, compiled for arguments of these shapes.

        Has to be called before a thread calls what it returns, as it runs
        Keras's code.
        """
        shapes = tuple(x.shape for x in jax.tree.leaves(arguments))
        if shapes not in self.compiled:
            # What is given to a call makes room for what it returns.
            train = jax.jit(self._train, donate_argnums=0)
            self.compiled[shapes] = train.lower(*arguments).compile(
                compiler_options=_options()
            )
        return self.compiled[shapes]

    def begin(self, state, alive):
        """What `train` takes and returns, before the first step of an epoch.

        `loss` and `right` are sums over the images, `steps` is the number of
        steps whose loss was finite. A run that is not `alive` stays as it is.
        """
        return dict(
            state=state,
            alive=jnp.asarray(alive),
            steps=jnp.zeros(len(alive), "int32"),
            loss=jnp.zeros(len(alive)),
            right=jnp.zeros(len(alive)),
        )

    def _numbers(self):
        model = self.model
        numbers = {id(v): i for i, v in enumerate(self.variables())}
        kinds = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
        return [[numbers[id(variable)] for variable in kind] for kind in kinds]

    def _train(self, carry, images, labels, batches, settings, first, last):
        """Steps `first` to `last` of all runs.

        `images` and `labels` are those of all seeds, or have an axis of seeds.
        `batches` are numbers of images, `(seeds, steps, batch)`.
        """
        own = 0 if self.mixes else None
        take = jax.vmap(lambda values, i: values[i], in_axes=(own, 0))

        def step(i, carry):
            chosen = jax.tree.map(
                lambda values: take(values, batches[:, i])[settings["seed"]],
                (images, labels),
            )
            return self._step(carry, *chosen, settings)

        return jax.lax.fori_loop(first, last, step, carry)

    def _step(self, carry, images, labels, settings):
        trainable, others, optimizer = carry["state"]
        call = functools.partial(
            self.model.stateless_call, training=True, return_losses=True
        )

        def total(trainable):
            logits, changed, added = jax.vmap(call)(trainable, others, images)
            losses = sum(added, self._losses(labels, logits))
            # No run depends on another's variables: the gradient of the sum
            # is the gradient of each.
            return losses.sum(), (losses, logits, changed)

        gradients, (losses, logits, others) = jax.grad(total, has_aux=True)(
            trainable
        )
        updated, optimizer = jax.vmap(self._update)(
            optimizer, gradients, trainable, settings
        )
        alive = carry["alive"] & jnp.isfinite(losses)

        def chosen(now, before):
            rows = alive.reshape(-1, *[1] * (now.ndim - 1))
            return jnp.where(rows, now, before)

        return dict(
            state=jax.tree.map(
                chosen, (updated, others, optimizer), carry["state"]
            ),
            alive=alive,
            steps=carry["steps"] + alive,
            loss=carry["loss"] + labels.shape[1] * losses,
            right=carry["right"] + _right(labels, logits).sum(-1),
        )

    def _update(self, variables, gradients, trainable, settings):
        optimizer = self.model.optimizer
        with _with_settings(optimizer, settings):
            return optimizer.stateless_apply(variables, gradients, trainable)

    def _losses(self, labels, logits):
        """The loss of each run, `(runs,)`."""
        found, begin = [], 0
        for name, runs in self.losses:
            loss = loss_of(name, self.feed)
            rows = slice(begin, begin + runs)
            found.append(jax.vmap(loss)(labels[rows], logits[rows]))
            begin += runs
        return jnp.concatenate(found)

    def _predict(self, trainable, others, images):
        call = self.model.stateless_call
        logits, _, added = call(
            trainable, others, images, training=False, return_losses=True
        )
        return logits, sum(added)

    def test(self, state):
        """Logits of the test, and loss and accuracy of each run."""
        logits, added = self._asked(state, "test")
        losses, accuracies = jax.device_get(
            self.score(self.test_labels, logits)
        )
        return logits, losses + added, accuracies

    def _score(self, labels, logits):
        labels = jnp.broadcast_to(labels, (len(logits), *labels.shape))
        return self._losses(labels, logits), _right(labels, logits).mean(-1)

    def logits(self, state, split):
        """Logits of the images of a split, a NumPy array `(runs, N, C)`."""
        return self._asked(state, split)[0]

    def _asked(self, state, split):
        """The logits, and what layers add to the loss of each run."""
        logits = []
        for part, size in self._parts(split):
            found, added = jax.device_get(self.predict(*state[:2], part))
            logits.append(found[:, :size])
        return np.concatenate(logits, axis=1), added

    def _parts(self, split):
        """List of images on the device, and how many of them are wanted."""
        if split not in self.parts:
            images = getattr(self.feed.dataset, split).images
            # Of the test for all splits: another size would compile anew.
            size = len(self.feed.ordered("test")[0][1])
            whole = self.feed.size(split)
            self.parts[split] = [
                (_padded_part(images, begin, size), min(size, whole - begin))
                for begin in range(0, whole, size)
            ]
        return self.parts[split]


def _padded_part(images, begin, size):
    def padded(values):
        part = values[begin : begin + size]
        rest = [(0, size - len(part))] + [(0, 0)] * (part.ndim - 1)
        return jnp.asarray(np.pad(part, rest))

    return jax.tree.map(padded, images)


def _right(labels, logits):
    if labels.ndim == logits.ndim:
        labels = labels.argmax(-1)
    return logits.argmax(-1) == labels


@contextlib.contextmanager
def _with_settings(optimizer, settings):
    """An optimizer with the schedule and the weight decay of one run.

    A rate that is constant is a variable of the optimizer already.
    """
    schedule = optimizer._learning_rate
    decay = getattr(optimizer, "coupled_weight_decay", None)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        optimizer.learning_rate = _scaled(schedule, settings["rate"])
    if "decay" in settings:
        optimizer.coupled_weight_decay = settings["decay"]
    try:
        yield
    finally:
        if schedule is not optimizer._learning_rate:
            optimizer.learning_rate = schedule
        if "decay" in settings:
            optimizer.coupled_weight_decay = decay


def _scaled(schedule, factor):
    """All schedules of recipes are in proportion to their first rate."""

    class Scaled(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return schedule(step) * factor

    return Scaled()


class Batches:
    """What `Programs.train` reads of an epoch, for some seeds."""

    def __init__(self, programs, seeds):
        dataset, recipe = programs.feed.dataset, programs.feed.recipe
        self.feeds = [make_feed(dataset, recipe, seed) for seed in seeds]
        self.programs = programs

    def epoch(self, epoch, most=None):
        """List of `(images, labels, batches)`: whole batches, then the rest.

        Of the first `most` steps, or of all.
        """
        # As `fit` has them, which ends an epoch before the first.
        epoch += 1
        feed = self.feeds[0]
        steps = feed.steps if most is None else min(most, feed.steps)
        if self.programs.mixes:
            parts = [
                _in_a_row(feed.training(epoch), steps) for feed in self.feeds
            ]
            images, labels = [
                jnp.asarray(np.stack(values))
                for values in zip(*parts, strict=True)
            ]
            order = np.tile(np.arange(images.shape[1]), (len(parts), 1))
        else:
            images, labels = self.programs.training_data
            order = np.stack([feed.order(epoch) for feed in self.feeds])
        order = order[:, : steps * feed.step_size].astype(np.int32)
        whole = order.shape[1] // feed.step_size * feed.step_size
        batches = [
            order[:, :whole].reshape(len(order), -1, feed.step_size),
            order[:, None, whole:],
        ]
        return [(images, labels, part) for part in batches if part.size]


class Lane:
    """Runs that one thread takes through an epoch.

    Most of what a small network does is too little for more than one core: on
    a processor, a lane for each core trains twice as many images a second and
    more.

    Args:
        programs: `Programs` for the losses of the runs, in their order.
        configs: Their `RunConfig`s.
        values: Values of `state_variables` of each.

    Attributes:
        parts: What `Batches.epoch` gives, of the epoch that is trained.
    """

    def __init__(self, programs, configs, values):
        self.programs, self.runs = programs, len(configs)
        self.settings = jax.tree.map(jnp.asarray, programs.settings(configs))
        seeds = sorted({config.seed for config in configs})
        self.batches = Batches(programs, seeds)
        self.state = programs.stack(values)
        self.compiled = None

    def begin(self, epoch, alive):
        """Prepares an epoch for the runs that are `alive`."""
        self.parts = self.batches.epoch(epoch)
        self.carry = self.programs.begin(self.state, alive)

    def begin_trial(self, steps, images=None):
        """Prepares so many steps, with the first `images` of each batch."""
        *data, batches = self.batches.epoch(0, steps)[0]
        self.parts = [(*data, batches[..., :images])]
        self.carry = self.programs.begin(self.state, [True] * self.runs)

    def compile(self):
        """Before a thread takes steps, as Keras's code is run for that."""
        if self.compiled is None:  # All epochs have batches of equal sizes.
            self.compiled = [
                self.programs.train(*self._arguments(part, 0, 0))
                for part in self.parts
            ]

    def bytes(self):
        """What its program takes while it trains."""
        self.compile()
        found = self.compiled[0].memory_analysis()
        return (
            found.temp_size_in_bytes
            + found.argument_size_in_bytes
            + found.output_size_in_bytes
            - found.alias_size_in_bytes
        )

    def train(self, stopped, most=None):
        """All steps, or the first `most`, unless the event `stopped` is set."""
        for part, program in zip(self.parts, self.compiled, strict=True):
            steps = most or part[-1].shape[1]
            for first in range(0, steps, STEPS_A_CALL):
                if stopped.is_set():
                    return
                last = min(first + STEPS_A_CALL, steps)
                self.carry = program(*self._arguments(part, first, last))
                jax.block_until_ready(self.carry)

    def _arguments(self, part, first, last):
        steps = np.int32(first), np.int32(last)
        return (self.carry, *part, self.settings, *steps)

    def end(self):
        """What `Programs.begin` names, after the epoch."""
        self.state = self.carry.pop("state")
        return jax.device_get(self.carry)

    @property
    def images(self):
        """How many a run sees in the epoch."""
        shapes = [batches.shape for *_, batches in self.parts]
        return sum(steps * size for _, steps, size in shapes)


def most_lanes():
    """One for each core; a GPU is fullest with all runs in one."""
    return cores() if jax.default_backend() == "cpu" else 1


def in_lanes(runs, losses):
    """Cuts runs, sorted by their `losses`, into a list for each lane.

    Each has all losses, so that lanes of one size share their program.
    """
    lanes = max(1, min(most_lanes(), len(runs) // len({*losses})))
    return [runs[i::lanes] for i in range(lanes)]


def train_lanes(lanes, most=None):
    """Trains the epoch that `Lane.begin` has prepared, in a thread each."""
    for lane in lanes:
        lane.compile()
    stopped = threading.Event()
    if len(lanes) == 1:
        return lanes[0].train(stopped, most)
    with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
        futures = [pool.submit(lane.train, stopped, most) for lane in lanes]
        try:
            for future in futures:
                future.result()
        except BaseException:  # Ctrl-C too.
            stopped.set()
            raise


def _options():
    """On a processor, a seventh of a step of Adam was copies of its state."""
    if jax.default_backend() != "cpu":
        return None
    return {"xla_cpu_copy_insertion_use_region_analysis": True}


def _labels(dataset, recipe, split):
    if dataset.kind == "own":
        return jnp.asarray(getattr(dataset, split).targets)
    labels = getattr(dataset, split).labels
    if recipe.soft_labels:
        labels = np.eye(dataset.classes, dtype=np.float32)[labels]
    return jnp.asarray(labels)


def _in_a_row(batches, steps):
    parts = [batches[i] for i in range(steps)]
    return [np.concatenate(values) for values in zip(*parts, strict=True)]
