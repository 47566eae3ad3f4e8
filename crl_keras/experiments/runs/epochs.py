"""The end of an epoch: tests, saves, and decides whether to go on."""

import contextlib
import math
import time

from crl_keras.experiments.runs.batch_norm import IMAGES
from crl_keras.experiments.runs.batch_norm import Recompute
from crl_keras.experiments.runs.batch_norm import to_numpy


class Diverged(Exception):
    """The loss, or an output for the test, is not finite."""

    def __init__(self, epoch, step, learning_rate, what="loss is not finite"):
        super().__init__(
            f"{what} in epoch {epoch}, step {step}, "
            f"learning rate {learning_rate:g}"
        )
        self.where = dict(
            epoch=epoch,
            step=step,
            learning_rate=learning_rate,
            message=str(self),
        )


def finished(rows, recipe):
    """Whether training is over after these epochs."""
    if len(rows) >= recipe.epochs:
        return True
    if not rows or not recipe.early_stopping:
        return False
    return len(rows) - best_validated(rows) >= recipe.early_stopping


def best_validated(rows):
    """Returns the number of the epoch with the best validation.

    It has the lowest error; at a tie the lowest loss, then the first counts.

    >>> best_validated([
    ...     dict(epoch=1, val_accuracy=0.5, val_loss=2.0),
    ...     dict(epoch=2, val_accuracy=0.75, val_loss=3.0),
    ...     dict(epoch=3, val_accuracy=0.75, val_loss=1.0),
    ... ])
    3
    """
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    return int(best["epoch"])


def check_validation(recipe, dataset):
    """Raises ValueError if a recipe needs a validation part that is missing.

    Args:
        recipe: `Recipe`.
        dataset: Data set of any kind.
    """
    if recipe.needs_validation and dataset.held_out is None:
        raise ValueError(
            "Expected a validation part to choose an epoch by: --held-out 0.1 "
            "(held_out=), or a folder val. Received: none, with "
            f"early_stopping={recipe.early_stopping} and keep={recipe.keep!r}"
        )


def take_kept(model, recipe, rows, folder):
    """Loads the weights to be tested and kept into the model.

    Returns the number of their epoch.
    """
    if recipe.keep == "best":
        epoch, values = folder.load_best()
        for variable, value in zip(model.variables, values, strict=True):
            variable.assign(value)
        return epoch
    if recipe.ema:
        _take_averages(model)
    return len(rows)


def state_variables(model):
    """Returns weights, statistics, seeds and the optimizer's variables."""
    return [*model.variables, *model.optimizer.variables]


def make_recorder(model, deployed, config, feed, folder, on_epoch, history):
    """Makes the callback that tests and saves every epoch.

    It raises `Diverged` if the loss is not finite, and stops training when the
    recipe says so.

    Args:
        model: The compiled `keras.Model` that is trained.
        deployed: The same without augmentation.
        config: `RunConfig`.
        feed: `Feed`.
        folder: `RunFolder`.
        on_epoch: Function called with the row of every epoch, or None.
        history: Rows of the epochs that a killed run has finished.
    """
    import keras

    class Recorder(keras.callbacks.Callback):
        rows = list(history)
        step = 0
        recompute = _recompute(model, deployed, config.recipe)
        tests = _Tests(model, config, feed)

        def on_epoch_begin(self, epoch, logs=None):
            self.started = time.perf_counter()
            self.epoch, self.step = epoch, 0
            if config.backend == "torch":
                # Keras's dropout draws from PyTorch's global generator, which
                # is not a variable: a resumed epoch must draw the same.
                import torch

                torch.manual_seed(2**16 * config.seed + epoch)

        def on_train_batch_end(self, batch, logs=None):
            self.step = batch + 1
            if not math.isfinite(float(logs["loss"])):
                rate = _number(self.model.optimizer.learning_rate)
                raise Diverged(self.epoch + 1, self.step, rate)
            self.trained = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            seconds = self.trained - self.started
            rate = _number(self.model.optimizer.learning_rate)
            with averaged_weights(model):
                if self.recompute:
                    self.recompute(feed.sample(IMAGES))
                row = make_row(
                    epoch + 1,
                    rate,
                    (logs["loss"], logs["accuracy"]),
                    self.tests(),
                    seconds,
                    self.tests.seconds,
                    feed.size("train"),
                )
                self.rows.append(row)
                _keep(folder, model, config.recipe, self.rows)
            # The names that Keras's own loggers use.
            logs.update(
                val_loss=row["test_loss"], val_accuracy=row["test_accuracy"]
            )
            values = [to_numpy(v) for v in state_variables(model)]
            folder.save_state(values, self.rows, feed.dataset.fingerprint)
            self.model.stop_training = finished(self.rows, config.recipe)
            if on_epoch:
                on_epoch(row)

    return Recorder()


def _keep(folder, model, recipe, rows):
    if recipe.keep == "best" and best_validated(rows) == len(rows):
        values = [to_numpy(v) for v in model.variables]
        folder.save_best(len(rows), values)


def make_row(epoch, rate, train, tests, seconds, test_seconds, images):
    """A row of history.csv; `train` is loss and accuracy, `tests` a dict."""
    return dict(
        epoch=epoch,
        learning_rate=rate,
        train_loss=float(train[0]),
        train_accuracy=float(train[1]),
        **tests,
        seconds=seconds,
        test_seconds=test_seconds,
        images_per_second=images / seconds,
    )


def _recompute(model, deployed, recipe):
    """Returns the `Recompute` to call before each test, or None."""
    if recipe.batch_norm != "recompute":
        return None
    return Recompute(getattr(model, "unaugmented", lambda: deployed)())


class _Tests:
    """Loss and accuracy on the test and, if wanted, on the validation part.

    Attributes:
        seconds: Time of the last call.
    """

    def __init__(self, model, config, feed):
        self.model = model
        validates = "/" in config.network or config.recipe.needs_validation
        self.splits = {"test": "test"}
        if validates and feed.size("held_out"):
            self.splits["val"] = "held_out"
        self.feed = feed

    def __call__(self):
        row, started = {}, time.perf_counter()
        for name, split in self.splits.items():
            found = self.model.evaluate(
                self.feed.for_predict(split), verbose=0, return_dict=True
            )
            row[f"{name}_loss"] = float(found["loss"])
            row[f"{name}_accuracy"] = float(found["accuracy"])
        self.seconds = time.perf_counter() - started
        return row


def _take_averages(model):
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for variable in model.trainable_variables:
        # On JAX it shares the array of the average, and a test gives the
        # model's arrays away.
        variable.assign(to_numpy(variable))


@contextlib.contextmanager
def averaged_weights(model):
    """Gives the model the moving averages of its weights, if it has them."""
    optimizer = model.optimizer
    if not getattr(optimizer, "inner_optimizer", optimizer).use_ema:
        yield
        return
    kept = [to_numpy(v) for v in model.trainable_variables]
    _take_averages(model)
    try:
        yield
    finally:
        for variable, value in zip(
            model.trainable_variables, kept, strict=True
        ):
            variable.assign(value)


def _number(variable):
    return float(to_numpy(variable))
