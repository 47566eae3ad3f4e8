"""Trains runs together, epoch by epoch, and records each of them.

Runs are built, resumed and recorded as in `training`; `programs` makes the step
of all runs.
"""

import dataclasses
import functools
import itertools
import time

import jax
import keras
import numpy as np

from crl_keras.experiments.runs import training
from crl_keras.experiments.runs.batch_norm import to_numpy
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.epochs import Diverged
from crl_keras.experiments.runs.epochs import make_row
from crl_keras.experiments.runs.epochs import state_variables
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.models import build_model
from crl_keras.experiments.runs.programs import Lane
from crl_keras.experiments.runs.programs import in_lanes
from crl_keras.experiments.runs.programs import train_lanes
from crl_keras.experiments.runs.recipes import rate_schedule
from crl_keras.experiments.runs.records import RunFolder

# States are saved after an epoch, but at most once in this many seconds.
SAVE_SECONDS = 30


@dataclasses.dataclass
class Run:
    """One run while it is trained.

    Args:
        config: `RunConfig`.
        folder: Its `RunFolder`.
        values: Values of `state_variables` that it starts or resumes with.
        rows: Rows of the epochs so far.
        rate: Learning rate that its optimizer started with.
        failure: Where it diverged, or None.
    """

    config: RunConfig
    folder: RunFolder
    values: list
    rows: list
    rate: float
    failure: dict | None = None


def loaded(runs, dataset):
    """Loads the `Run`s, sorted by their epochs and losses."""
    loaded = []
    runs = sorted(runs, key=lambda run: run[0].seed)
    for _, group in itertools.groupby(runs, lambda run: run[0].seed):
        model = None  # All runs of a seed start alike.
        for config, folder in group:
            folder.begin()
            if model is None:
                feed = make_feed(dataset, config.recipe, config.seed)
                model, _, _ = build_model(config, feed)
            rate = model.optimizer.learning_rate
            if isinstance(rate, keras.Variable):
                rate.assign(_first_rate(config, dataset))
            values, rows = training.stored(model, folder, dataset)
            if values is None:
                values = [to_numpy(v) for v in state_variables(model)]
            started = float(keras.ops.convert_to_numpy(rate))
            loaded.append(Run(config, folder, values, rows, started))
    return sorted(loaded, key=lambda run: (len(run.rows), run.config.loss))


def _first_rate(config, dataset):
    rate = config.recipe.learning_rate
    if dataset.kind == "own":  # A user's function may change the rate.
        return dataset.make_optimizer(rate).learning_rate
    return rate


class Stack:
    """Runs at the same epoch that are trained together, in parallel lanes."""

    def __init__(self, runs, dataset, options, choice, on_run):
        self.options = options
        self.on_run = on_run or (lambda config, result: None)
        self.record = choice.record(len(runs))
        parts = in_lanes(runs, [run.config.loss for run in runs])
        self.runs = sum(parts, [])
        self.lanes = []
        for part in parts:
            configs = [run.config for run in part]
            programs = choice.programs_of(configs, dataset)
            values = [run.values for run in part]
            self.lanes.append(Lane(programs, configs, values))
        self.programs = self.lanes[0].programs
        self.feed = self.programs.feed
        self.logits = None

    def alive(self):
        """Numbers of the runs that have not diverged."""
        return [i for i, run in enumerate(self.runs) if run.failure is None]

    def train(self, on_epoch=None):
        saved = time.monotonic()
        for epoch in range(len(self.runs[0].rows), self.feed.recipe.epochs):
            row = self._epoch(epoch)
            if not self.alive():
                return
            if time.monotonic() - saved >= SAVE_SECONDS:
                self._save()
                saved = time.monotonic()
            if on_epoch:
                on_epoch(row)

    def _epoch(self, epoch):
        """Trains and tests all; returns what `on_epoch` is called with."""
        started, alive = time.perf_counter(), self.alive()
        found, images = self._trained(epoch, alive)
        trained = time.perf_counter()
        self.logits, losses, accuracies = self._of_all(
            lambda lane: lane.programs.test(lane.state)
        )
        # Each run gets an equal share of the time of all.
        seconds = (trained - started) / len(alive)
        test_seconds = (time.perf_counter() - trained) / len(alive)
        for i in alive:
            run, steps = self.runs[i], int(found["steps"][i])
            if not found["alive"][i]:
                where = (epoch + 1, steps + 1)
                rate = self._rate(run, epoch, steps + 1)
                run.failure = Diverged(*where, rate).where
                self._finish(i, {})
                continue
            row = make_row(
                epoch + 1,
                self._rate(run, epoch, self.feed.steps),
                (found["loss"][i] / images, found["right"][i] / images),
                dict(
                    test_loss=float(losses[i]),
                    test_accuracy=float(accuracies[i]),
                ),
                seconds,
                test_seconds,
                self.feed.size("train"),
            )
            run.rows.append(row)
        return dict(
            epoch=(epoch + 1) * len(self.runs),
            train_loss=float(found["loss"][alive].mean() / images),
            train_accuracy=float(found["right"][alive].mean() / images),
            test_accuracy=float(accuracies[alive].mean()),
            images_per_second=self.feed.size("train") / seconds,
        )

    def _trained(self, epoch, alive):
        """Trains an epoch; returns `Lane.end` and the images per run."""
        is_alive = np.isin(np.arange(len(self.runs)), alive)
        cuts = np.cumsum([lane.runs for lane in self.lanes])[:-1]
        parts = np.split(is_alive, cuts)
        for lane, part in zip(self.lanes, parts, strict=True):
            lane.begin(epoch, part)
        train_lanes(self.lanes)
        ended = [lane.end() for lane in self.lanes]
        found = jax.tree.map(lambda *values: np.concatenate(values), *ended)
        return found, self.lanes[0].images

    def _of_all(self, function):
        """Joins the arrays that `function` returns for each lane."""
        found = [function(lane) for lane in self.lanes]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _logits(self, split):
        (found,) = self._of_all(
            lambda lane: [lane.programs.logits(lane.state, split)]
        )
        return found

    def _values(self):
        """Values of `state_variables` of each run."""
        return sum(
            [lane.programs.unstack(lane.state) for lane in self.lanes], []
        )

    def _rate(self, run, epoch, step):
        steps = self.feed.steps
        if self.feed.dataset.kind == "own":
            return run.rate  # It has no schedule.
        return _rate_after(run.config.recipe, steps, epoch * steps + step)

    def _save(self):
        values = self._values()
        for i in self.alive():
            run = self.runs[i]
            fingerprint = self.feed.dataset.fingerprint
            run.folder.save_state(values[i], run.rows, fingerprint)

    def finish(self):
        """Writes the results of the runs that have not diverged."""
        alive = self.alive()
        if not alive:
            return
        if self.logits is None:  # It was killed after its last epoch.
            self.logits = self._logits("test")
        logits = dict(test=self.logits)
        if self.feed.size("held_out"):
            logits["held_out"] = self._logits("held_out")
        values, dataset = None, self.feed.dataset
        if self.options.save_model or getattr(dataset, "keeps_models", False):
            values = self._values()
        for i in alive:
            built = None
            if values:
                built = _built(self.runs[i].config, self.feed, values[i])
            of_run = {split: found[i] for split, found in logits.items()}
            if "held_out" in logits:
                of_run["held_out_labels"] = self.feed.labels("held_out")
            self._finish(i, of_run, built)

    def _finish(self, i, logits, built=None):
        run = self.runs[i]
        result = training.finish_run(
            run.config,
            self.feed,
            run.folder,
            self.options,
            training.Outcome(run.rows, logits, run.failure, len(run.rows)),
            built or self.programs.built,
            self.record,
        )
        self.on_run(run.config, result)


def _built(config, feed, values):
    """Builds a run's own model, with its loss and optimizer, to be kept."""
    built = training.Built(*build_model(config, feed))
    variables = state_variables(built.model)
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return built


@functools.cache
def _rate_after(recipe, steps_per_epoch, steps):
    """The learning rate after so many steps, as `training` records it."""
    rate = rate_schedule(recipe, steps_per_epoch)
    return float(rate(steps) if callable(rate) else np.float32(rate))
