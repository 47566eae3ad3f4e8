"""One run: built, trained, resumed, tested and recorded."""

import dataclasses
import datetime
import importlib.metadata
import math
import platform
import time

import numpy as np

from crl_keras.experiments import scores
from crl_keras.experiments.config import make_head
from crl_keras.experiments.config import make_loss
from crl_keras.experiments.datasets import channel_statistics
from crl_keras.experiments.devices import device_name
from crl_keras.experiments.devices import device_scope
from crl_keras.experiments.recipes import augmentation_layers
from crl_keras.experiments.recipes import make_optimizer
from crl_keras.experiments.recipes import scaling_layer
from crl_keras.experiments.records import write_data

TEST_BATCH = 1000
THUMBNAILS = 2000


class Diverged(Exception):
    """The training loss is not finite any more."""

    def __init__(self, epoch, step, learning_rate):
        super().__init__(
            f"loss is not finite in epoch {epoch}, step {step}, "
            f"learning rate {learning_rate:g}"
        )
        self.where = dict(
            epoch=epoch,
            step=step,
            learning_rate=learning_rate,
            message=str(self),
        )


@dataclasses.dataclass(frozen=True)
class Options:
    """What does not change the numbers of a run.

    Args:
        tensorboard: Write TensorBoard logs into the run's folder.
        csv: Write Keras's own epoch log, keras.csv, into the run's folder.
        command: The command line, for the record.
    """

    tensorboard: bool = False
    csv: bool = False
    command: tuple = ()


def run_one(config, dataset, folder, options=None, on_epoch=None):
    """Trains, resumes or finishes one run; returns its result.

    Killed at any moment, the next call goes on from the last whole epoch and
    ends with the same numbers.

    Args:
        config: `RunConfig`; its backend must be the active one.
        dataset: `Dataset` as `prepare_dataset` makes it of the config.
        folder: `RunFolder` of the config, locked by the caller.
        options: `Options`.
        on_epoch: Function called with the row of every finished epoch.

    Returns:
        The dict that result.json holds. A run whose loss becomes NaN or
        infinite has status "diverged", and says where.
    """
    import keras

    options = options or Options()
    check_backend(config)
    folder.begin()
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        with device_scope(config.devices):
            return _run(config, dataset, folder, options, on_epoch)
    finally:
        keras.config.set_dtype_policy(policy)
        # Otherwise a sweep keeps the graphs and weights of all its runs.
        keras.backend.clear_session()


def check_backend(config):
    import keras

    if config.backend != keras.backend.backend():
        raise ValueError(
            f"This run is one of {config.backend}, and Keras is on "
            f"{keras.backend.backend()}: set KERAS_BACKEND={config.backend}"
        )


def build_model(config, dataset):
    """Augmentation, scaling and network in one compiled model, from the seed.

    Input is uint8 images; output is float32 logits.
    """
    import keras

    from crl_keras.networks import build_network

    recipe = config.recipe
    keras.utils.set_random_seed(config.seed)
    mean, std = None, None
    if recipe.scaling == "standardise" and recipe.mean is None:
        mean, std = channel_statistics(dataset.train)
    inputs = keras.Input(dataset.input_shape, dtype="uint8")
    x = inputs
    for layer in augmentation_layers(recipe, config.seed):
        x = layer(x)
    x = scaling_layer(recipe, mean, std)(x)
    network = build_network(
        config.network, dataset.input_shape, dataset.classes
    )
    network = with_head(network, make_head(config.loss, dataset.classes))
    model = keras.Model(inputs, network(x))
    steps = math.ceil(len(dataset.train.labels) / recipe.batch_size)
    model.compile(
        make_optimizer(recipe, steps),
        make_loss(config.loss, dataset.classes),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    return model, network.count_params()


def with_head(network, head):
    """The network with another last layer, which starts from the same kernel.

    All other layers are the same objects, so for one seed every loss starts
    from the same weights; a bias is left out. `head` None changes nothing.
    """
    import keras

    if head is None:
        return network
    last = network.layers[-1]
    if not isinstance(last, keras.layers.Dense):
        raise ValueError(
            "The last layer of the network must be keras.layers.Dense, to be "
            f"replaced by {type(head).__name__}. Received: {last}"
        )
    changed = keras.Model(
        network.inputs[0], head(last.input), name=network.name
    )
    head.kernel.assign(last.kernel)
    return changed


def _run(config, dataset, folder, options, on_epoch):
    model, parameters = build_model(config, dataset)
    history = _restore(model, folder)
    recorder = _make_recorder(model, config, dataset, folder, on_epoch, history)
    batches = _make_batches(
        dataset.train, config.recipe.batch_size, config.seed, len(history)
    )
    failure = None
    if len(history) < config.recipe.epochs:
        try:
            model.fit(
                batches,
                epochs=config.recipe.epochs,
                initial_epoch=len(history),
                validation_data=_in_order(dataset.test),
                shuffle=False,  # The batches bring their own order.
                callbacks=[recorder, *_keras_callbacks(folder, options)],
                verbose=0,
            )
        except Diverged as error:
            failure = error.where
    logits = {} if failure else _logits(model, dataset)
    result = _result(config, dataset, parameters, recorder, failure, options)
    if logits:
        last = scores.all_scores(logits["test"], dataset.test.labels)
        last["epoch"] = config.recipe.epochs
        last["test_loss"] = recorder.rows[-1]["test_loss"]
        result["last"] = last
        result["best"] = _best_epoch(recorder.rows)
    write_data(
        folder.path.parent,
        dataset.fingerprint,
        dataset.test.labels,
        dataset.class_names,
        dataset.test.images[:THUMBNAILS],
    )
    folder.finish(result, recorder.rows, logits)
    return result


def _restore(model, folder):
    """Puts the model where the run was killed; returns the epochs so far."""
    state = folder.load_state()
    if state is None:
        return []
    values, history = state
    variables = _state_variables(model)
    if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
        raise ValueError(
            f"{folder.path / 'state.npz'} does not fit the network: it was "
            "written by another version. Delete that folder to start again"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return history


def _state_variables(model):
    """Weights, statistics, seeds, and those of the optimizer."""
    return [*model.variables, *model.optimizer.variables]


def _make_batches(split, batch_size, seed, epoch):
    """Batches in an order that depends on seed and epoch alone."""
    import keras

    class Batches(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()
            self.epoch = epoch
            self._order()

        def _order(self):
            rng = np.random.default_rng([seed, self.epoch])
            self.order = rng.permutation(len(split.labels))

        def __len__(self):
            return math.ceil(len(split.labels) / batch_size)

        def __getitem__(self, i):
            chosen = self.order[i * batch_size : (i + 1) * batch_size]
            return split.images[chosen], split.labels[chosen]

        def on_epoch_end(self):
            self.epoch += 1
            self._order()

    return Batches()


def _in_order(split):
    import keras

    class InOrder(keras.utils.PyDataset):
        def __len__(self):
            return math.ceil(len(split.labels) / TEST_BATCH)

        def __getitem__(self, i):
            part = slice(i * TEST_BATCH, (i + 1) * TEST_BATCH)
            return split.images[part], split.labels[part]

    return InOrder()


def _make_recorder(model, config, dataset, folder, on_epoch, history):
    import keras

    class Recorder(keras.callbacks.Callback):
        """Writes every epoch, stops at a loss that is not finite."""

        rows = list(history)
        step = 0

        def on_epoch_begin(self, epoch, logs=None):
            self.started = time.perf_counter()
            self.epoch, self.step = epoch, 0
            if config.backend == "torch":
                # There, Keras's dropout draws from PyTorch's global generator,
                # which is no variable: a resumed epoch has to draw the same.
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
            row = dict(
                epoch=epoch + 1,
                learning_rate=_number(self.model.optimizer.learning_rate),
                train_loss=float(logs["loss"]),
                train_accuracy=float(logs["accuracy"]),
                test_loss=float(logs["val_loss"]),
                test_accuracy=float(logs["val_accuracy"]),
                seconds=seconds,
                test_seconds=time.perf_counter() - self.trained,
                images_per_second=len(dataset.train.labels) / seconds,
            )
            self.rows.append(row)
            values = [_to_numpy(v) for v in _state_variables(model)]
            folder.save_state(values, self.rows)
            if on_epoch:
                on_epoch(row)

    return Recorder()


def _to_numpy(variable):
    """Of one device, where a variable is mirrored on several."""
    import keras

    tensor = keras.ops.convert_to_tensor(variable)
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _number(variable):
    return float(_to_numpy(variable))


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


def _logits(model, dataset):
    """Logits of the test set, and of what was held out."""
    logits = {
        "test": np.asarray(model.predict(_in_order(dataset.test), verbose=0))
    }
    if dataset.held_out is not None:
        logits["held_out"] = np.asarray(
            model.predict(_in_order(dataset.held_out), verbose=0)
        )
        logits["held_out_labels"] = dataset.held_out.labels
    return logits


def _best_epoch(rows):
    best = max(rows, key=lambda row: row["test_accuracy"])
    return dict(epoch=best["epoch"], test_error=1 - best["test_accuracy"])


def _result(config, dataset, parameters, recorder, failure, options):
    rows = recorder.rows
    held_out = dataset.held_out
    seconds = sum(row["seconds"] for row in rows)
    images = len(rows) * len(dataset.train.labels)
    return dict(
        status="diverged" if failure else "done",
        dataset=dict(
            name=dataset.name,
            fingerprint=dataset.fingerprint,
            train=len(dataset.train.labels),
            held_out=0 if held_out is None else len(held_out.labels),
            test=len(dataset.test.labels),
            classes=dataset.classes,
        ),
        network=dict(name=config.network, parameters=parameters),
        loss=config.loss,
        seed=config.seed,
        backend=config.backend,
        versions=versions(config.backend),
        device=device_name(),
        devices=config.devices,
        precision=config.precision,
        epochs=len(rows),
        wall_seconds=seconds + sum(row["test_seconds"] for row in rows),
        images_per_second=images / seconds if rows else None,
        last=None,
        best=None,
        failure=failure,
        command=list(options.command),
        date=datetime.datetime.now().isoformat(timespec="seconds"),
    )


def versions(backend):
    """Versions of what makes the numbers, by name."""
    found = {"python": platform.python_version()}
    for name in ("crl-keras", "keras", backend, f"{backend}-cpu", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
