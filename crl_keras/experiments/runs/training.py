"""Builds, trains, resumes, tests and records one run."""

import contextlib
import dataclasses
import math
import signal
import threading

import numpy as np

from crl_keras.experiments.data.sources import ORDINAL
from crl_keras.experiments.devices import device_scope
from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs import batch_norm
from crl_keras.experiments.runs import epochs
from crl_keras.experiments.runs.epochs import Diverged
from crl_keras.experiments.runs.epochs import make_recorder
from crl_keras.experiments.runs.epochs import state_variables
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.gradcam import write_gradcam
from crl_keras.experiments.runs.method_pictures import write_method_pictures
from crl_keras.experiments.runs.models import build_model
from crl_keras.experiments.runs.results import best_epoch
from crl_keras.experiments.runs.results import keep_test
from crl_keras.experiments.runs.results import make_result
from crl_keras.experiments.runs.saved import save_model


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a run. Only `exif` can change its numbers.

    Args:
        tensorboard: Write TensorBoard logs into the run's folder.
        csv: Write Keras's own epoch log, keras.csv, into the run's folder.
        save_model: Write the trained model (model.keras) into the run's
            folder, a description of its images and classes (model.json), and
            pictures for the report: heat maps (gradcam.npz), and what a method
            looked at (method.npz).
        command: The command line, for the record.
        exif: Turn photos upright, as their EXIF orientation says.
        together: How many runs are trained as one program: "auto", "off" or a
            number. Only on JAX.
    """

    tensorboard: bool = False
    csv: bool = False
    save_model: bool = False
    command: tuple = ()
    exif: bool = True
    together: str | int = "off"


def run_one(
    config, dataset, folder, options=None, on_epoch=None, together=None
):
    """Trains, resumes or finishes one run; returns its result.

    If it is killed, the next call goes on from the last whole epoch and ends
    with the same numbers.

    Args:
        config: `RunConfig`; its backend must be the active one.
        dataset: `Dataset` that `prepare_dataset` makes from the config.
        folder: `RunFolder` of the config, locked by the caller.
        options: `Options`.
        on_epoch: Function called with the row of every finished epoch.
        together: Dict for the record: why the run is trained by itself.

    Returns:
        The dict that result.json holds. A run whose loss becomes NaN or
        infinite has status "diverged", and its `failure` says where.
    """
    options = options or Options()
    with session(config):
        folder.begin()
        return _run(config, dataset, folder, options, on_epoch, together)


@contextlib.contextmanager
def session(config, collect=True):
    """Sets the precision and devices of a run that is built and trained.

    At its end it collects Python's garbage if `collect`, which takes a third
    of a second if TensorFlow is imported.
    """
    import keras

    check_backend(config)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        with device_scope(config.devices):
            yield
    finally:
        keras.config.set_dtype_policy(policy)
        # Otherwise a sweep keeps the graphs and weights of all its runs.
        keras.backend.clear_session(free_memory=collect)


@contextlib.contextmanager
def interruptible():
    """Yields a callback for `fit`, with which one Ctrl-C stops the training.

    After each step Keras turns its numbers into Python's, within a bare
    `except` that also catches KeyboardInterrupt. On JAX the program waits
    there for the device, so most of what a user presses would be lost.
    """
    import keras

    pressed = []

    def press(number, frame):
        pressed.append(number)
        signal.default_int_handler(number, frame)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if pressed:
                raise KeyboardInterrupt

    # Only the main thread can set a handler, and a user's own stays.
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = default and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, press)
    try:
        yield Stop()
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:  # In the last test, after the last step.
        raise KeyboardInterrupt


def check_backend(config):
    import keras

    if config.backend != keras.backend.backend():
        raise ValueError(
            f"This run is for {config.backend}, but Keras is on "
            f"{keras.backend.backend()}: set KERAS_BACKEND={config.backend}"
        )


def _run(config, dataset, folder, options, on_epoch, together):
    recipe = config.recipe
    feed = make_feed(dataset, recipe, config.seed, config.reader)
    model, deployed, parameters = build_model(config, feed, not folder.begun)
    history = _restore(model, folder, dataset)
    recorder = make_recorder(
        model, deployed, config, feed, folder, on_epoch, history
    )
    failure = None
    if not epochs.finished(history, recipe):
        try:
            with interruptible() as stop:
                model.fit(
                    **feed.for_fit(len(history)),
                    epochs=recipe.epochs,
                    initial_epoch=len(history),
                    shuffle=False,  # The batches bring their own order.
                    callbacks=[
                        stop,
                        recorder,
                        *_keras_callbacks(folder, options),
                        *feed.callbacks(),
                    ],
                    verbose=0,
                )
        except Diverged as error:
            failure = error.where
    kept = None
    if not failure:
        kept = epochs.take_kept(model, recipe, recorder.rows, folder)
    logits = {} if failure else _logits(model, feed)
    costs = recorder.recompute.costs() if recorder.recompute else {}
    outcome = Outcome(recorder.rows, logits, failure, kept, costs)
    built = Built(model, deployed, parameters)
    return finish_run(config, feed, folder, options, outcome, built, together)


@dataclasses.dataclass
class Outcome:
    """The outcome of a training.

    Args:
        rows: Rows of the epochs, as `make_row` makes them.
        logits: Dict of arrays for logits.npz; empty if it diverged.
        failure: None, or `Diverged.where`.
        kept: Number of the epoch whose weights were tested last.
        recomputing: Dict with the cost of batch normalisation's statistics.
    """

    rows: list
    logits: dict
    failure: dict | None = None
    kept: int | None = None
    recomputing: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Built:
    """A trained model, the same without augmentation, and its parameters."""

    model: object
    deployed: object
    parameters: int


def finish_run(config, feed, folder, options, outcome, built, together=None):
    """Writes the records of a trained run; returns what result.json holds."""
    rows, logits, failure = outcome.rows, outcome.logits, outcome.failure
    if logits and not _finite(logits, rows[-1]):
        # The last step can cause this, or a test in 16 bits.
        row, logits = rows[-1], {}
        failure = Diverged(
            int(row["epoch"]),
            feed.steps,
            row["learning_rate"],
            "outputs for the test are not finite after training",
        ).where
    result = make_result(
        config, feed, built.parameters, rows, failure, options, together
    )
    mode, steps = config.recipe.batch_norm, feed.steps * config.recipe.epochs
    if normalised := batch_norm.describe(built.deployed, mode, steps):
        result["batch_norm"] = normalised | outcome.recomputing
    if logits:
        labels = feed.labels("test")
        last = scores.all_scores(logits["test"], labels)
        if config.dataset in ORDINAL:
            last["one_off_accuracy"] = scores.one_off_accuracy(
                logits["test"], labels
            )
        last["epoch"] = outcome.kept
        last["test_loss"] = rows[outcome.kept - 1]["test_loss"]
        result["last"] = last
        result["best"] = best_epoch(rows, len(labels))
    keep_test(folder, feed, logits)
    if options.save_model and not failure:
        model, deployed = built.model, built.deployed
        save_model(folder, config, feed, model, deployed, options.exif)
        write_gradcam(folder, feed, deployed, logits["test"])
        write_method_pictures(folder, feed, model, config.network)
    folder.finish(result, rows, logits)
    return result


def _finite(logits, row):
    return math.isfinite(row["test_loss"]) and all(
        np.isfinite(values).all() for values in logits.values()
    )


def _restore(model, folder, dataset):
    """Restores the model of a killed run; returns the epochs so far."""
    values, history = stored(model, folder, dataset)
    if values is not None:
        variables = state_variables(model)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    return history


def stored(model, folder, dataset):
    """Returns a run's last values of `state_variables`, and its rows.

    If the run has no state yet, they are None and [].
    """
    state = folder.load_state()
    if state is None:
        return None, []
    folder.check_data(dataset)
    values, history = state
    variables = state_variables(model)
    if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
        raise ValueError(
            f"{folder.path / 'state.npz'} does not fit the network: it was "
            "written by another version. Delete that folder to start again"
        )
    return values, history


def _keras_callbacks(folder, options):
    import keras

    callbacks = []
    if options.tensorboard:
        callbacks.append(
            keras.callbacks.TensorBoard(folder.path / "tensorboard")
        )
    if options.csv:
        callbacks.append(
            keras.callbacks.CSVLogger(folder.path / "keras.csv", append=True)
        )
    return callbacks


def _logits(model, feed):
    """Returns the logits of the test set, and of the held-out images."""
    logits = {"test": _predicted(model, feed.for_predict("test"))}
    if feed.size("held_out"):
        logits["held_out"] = _predicted(model, feed.for_predict("held_out"))
        logits["held_out_labels"] = feed.labels("held_out")
    return logits


def _predicted(model, batches):
    # The output may have 16 bits, and NumPy's files have no bfloat16.
    return np.asarray(model.predict(batches, verbose=0)).astype(np.float32)
