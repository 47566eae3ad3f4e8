"""The compiled training step of many runs of one network, on JAX.

Every variable of the model, its random numbers and its optimizer gets a leading
axis of runs. A step of all runs is one `jax.vmap` of Keras's own stateless call
and stateless update; the steps of an epoch are a loop on the device. Each loss
is computed by its own code, on the rows of its own runs, so it stays exact.
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

# Most steps in one call of the program. Ctrl-C waits for the call to end.
STEPS_A_CALL = 100


class Programs:
    """The compiled programs of some runs: a training step, and a prediction.

    Args:
        configs: List of `RunConfig` that differ only in seed, loss, rate and
            weight decay, with runs of one loss side by side. The programs fit
            all runs with these losses in this order.
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
        # Every seed has its own mixed images.
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
        """All training images and labels, on the device."""
        dataset = self.feed.dataset
        images = jax.tree.map(jnp.asarray, dataset.train.images)
        return images, _labels(dataset, self.feed.recipe, "train")

    @functools.cached_property
    def test_labels(self):
        return _labels(self.feed.dataset, self.feed.recipe, "test")

    def variables(self):
        return state_variables(self.model)

    def stack(self, values):
        """Stacks the values of `state_variables` of each run into a state.

        It is a tuple of lists: trainable, other and optimizer's variables.
        """
        stacked = [np.stack(of_runs) for of_runs in zip(*values, strict=True)]
        return tuple(
            [jnp.asarray(stacked[i]) for i in numbers]
            for numbers in self._numbers()
        )

    def unstack(self, state):
        """Reverses `stack`: returns a list of values for each run."""
        numbers = sum(self._numbers(), [])
        values = dict(zip(numbers, jax.device_get(sum(state, [])), strict=True))
        stacked = [values[i] for i in range(len(values))]
        return [[*of_run] for of_run in zip(*stacked, strict=True)]

    def settings(self, configs):
        """Dict of arrays `(runs,)` with the settings of each run.

        They are the seed's number, the learning rate relative to the first
        run's and, if it differs, the weight decay.
        """
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
        """Compiles `_train` for arguments of these shapes.

        It runs Keras's code: call it before a thread calls its result.
        """
        shapes = tuple(x.shape for x in jax.tree.leaves(arguments))
        if shapes not in self.compiled:
            # The donated argument makes room for the result.
            train = jax.jit(self._train, donate_argnums=0)
            self.compiled[shapes] = train.lower(*arguments).compile(
                compiler_options=_compiler_options()
            )
        return self.compiled[shapes]

    def begin(self, state, alive):
        """Makes what `train` takes and returns, before an epoch's first step.

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

        All seeds share `images` and `labels`, or these have an axis of seeds.
        `batches` are positions of images, `(seeds, steps, batch)`.
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
            # No run depends on another run's variables, so the gradient of the
            # sum has the gradient of each run.
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
        """Returns the test's logits, and loss and accuracy of each run."""
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
        """Returns the logits, and what layers add to the loss of each run."""
        logits = []
        for part, size in self._parts(split):
            found, added = jax.device_get(self.predict(*state[:2], part))
            logits.append(found[:, :size])
        return np.concatenate(logits, axis=1), added

    def _parts(self, split):
        """Returns a list of (images on the device, how many are wanted)."""
        if split not in self.parts:
            images = getattr(self.feed.dataset, split).images
            # The test's size for all splits: another would compile again.
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
    """Gives an optimizer the schedule and the weight decay of one run.

    A constant rate is already a variable of the optimizer.
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
    """Scales a recipe's schedule, which is proportional to its rate."""

    class Scaled(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return schedule(step) * factor

    return Scaled()


class Batches:
    """The data that `Programs.train` reads in an epoch, for some seeds."""

    def __init__(self, programs, seeds):
        dataset, recipe = programs.feed.dataset, programs.feed.recipe
        self.feeds = [make_feed(dataset, recipe, seed) for seed in seeds]
        self.programs = programs

    def epoch(self, epoch, most=None):
        """List of `(images, labels, batches)`: whole batches, then the rest.

        It has the first `most` steps, or all.
        """
        # As in `fit`, which calls `on_epoch_end` before the first epoch.
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
    """Runs that one thread trains through an epoch.

    Most operations of a small network are too small for several cores. On a
    CPU, one lane per core trains at least twice as many images per second.

    Args:
        programs: `Programs` for the losses of the runs, in their order.
        configs: Their `RunConfig`s.
        values: Values of `state_variables` of each run.

    Attributes:
        parts: The `Batches.epoch` of the epoch that is trained.
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
        """Prepares `steps` steps, with the first `images` of each batch."""
        *data, batches = self.batches.epoch(0, steps)[0]
        self.parts = [(*data, batches[..., :images])]
        self.carry = self.programs.begin(self.state, [True] * self.runs)

    def compile(self):
        """Compiles before a thread takes steps, as this runs Keras's code."""
        if self.compiled is None:  # All epochs have batches of equal sizes.
            self.compiled = [
                self.programs.train(*self._arguments(part, 0, 0))
                for part in self.parts
            ]

    def bytes(self):
        """Returns the memory that its program takes while it trains."""
        self.compile()
        found = self.compiled[0].memory_analysis()
        return (
            found.temp_size_in_bytes
            + found.argument_size_in_bytes
            + found.output_size_in_bytes
            - found.alias_size_in_bytes
        )

    def train(self, stopped, most=None):
        """Takes all steps, or the first `most`; stops if `stopped` is set."""
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
        """Returns the values that `Programs.begin` lists, after the epoch."""
        self.state = self.carry.pop("state")
        return jax.device_get(self.carry)

    @property
    def images(self):
        """Number of images that a run sees in the epoch."""
        shapes = [batches.shape for *_, batches in self.parts]
        return sum(steps * size for _, steps, size in shapes)


def most_lanes():
    """One lane per core; on a GPU one for all runs, as it is fullest then."""
    return cores() if jax.default_backend() == "cpu" else 1


def in_lanes(runs, losses):
    """Cuts runs, sorted by their `losses`, into a list for each lane.

    Each lane has all losses, so that lanes of one size share a program.
    """
    lanes = max(1, min(most_lanes(), len(runs) // len({*losses})))
    return [runs[i::lanes] for i in range(lanes)]


def train_lanes(lanes, most=None):
    """Trains the epoch that `Lane.begin` prepared, one thread per lane."""
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


def _compiler_options():
    """Avoids copies of the state: a tenth of a step of Adam on a CPU."""
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
