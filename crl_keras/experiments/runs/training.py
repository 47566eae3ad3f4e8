"""One run: built, trained, resumed, tested and recorded."""

import dataclasses
import datetime
import importlib.metadata
import math
import platform
import time

import numpy as np

from crl_keras.experiments.data.sources import ORDINAL
from crl_keras.experiments.devices import device_name
from crl_keras.experiments.devices import device_scope
from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs.backbones import build_backbone
from crl_keras.experiments.runs.backbones import weights_fingerprint
from crl_keras.experiments.runs.config import make_head
from crl_keras.experiments.runs.config import make_loss
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.recipes import augmentation_layers
from crl_keras.experiments.runs.recipes import make_optimizer
from crl_keras.experiments.runs.recipes import scaling_layer
from crl_keras.experiments.runs.records import has_data
from crl_keras.experiments.runs.records import replacing
from crl_keras.experiments.runs.records import write_data
from crl_keras.experiments.runs.records import write_json


class Diverged(Exception):
    """The loss, or what the network says of the test, is not finite."""

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


@dataclasses.dataclass(frozen=True)
class Options:
    """What does not change the numbers of a run.

    Args:
        tensorboard: Write TensorBoard logs into the run's folder.
        csv: Write Keras's own epoch log, keras.csv, into the run's folder.
        save_model: Write the trained model into the run's folder, as
            model.keras, and what its images and classes are, as model.json.
        command: The command line, for the record.
    """

    tensorboard: bool = False
    csv: bool = False
    save_model: bool = False
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


def build_model(config, feed):
    """Builds augmentation, scaling and network in one model, from the seed.

    Args:
        config: `RunConfig`.
        feed: `Feed` of the data.

    Returns:
        `(model, deployed, parameters)`: the compiled model, from uint8 images
        to float32 logits; the same without augmentation, not compiled; the
        number of parameters of the network.
    """
    import keras

    from crl_keras.networks import build_network

    recipe, classes = config.recipe, feed.dataset.classes
    keras.utils.set_random_seed(config.seed)
    if "/" in config.network:
        network, scaling = build_backbone(
            config.network,
            feed.input_shape,
            classes,
            config.weights,
            recipe.freeze_backbone,
        )
    else:
        network = build_network(config.network, feed.input_shape, classes)
        scaling = None
    if recipe.scaling != "backbone" or scaling is None:
        scaling = _scaling(config, feed)
    network = with_head(
        network, make_head(config.loss, classes, config.recipe.accumulate)
    )
    inputs = keras.Input(feed.input_shape, dtype="uint8")
    x = inputs
    for layer in augmentation_layers(recipe, config.seed):
        x = layer(x)
    model = keras.Model(inputs, network(scaling(x)))
    model.compile(
        make_optimizer(recipe, feed.steps),
        make_loss(
            config.loss, classes, recipe.soft_labels, recipe.label_smoothing
        ),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    inputs = keras.Input(feed.input_shape, dtype="uint8")
    deployed = keras.Model(inputs, network(scaling(inputs)))
    return model, deployed, network.count_params()


def _scaling(config, feed):
    recipe = config.recipe
    if recipe.scaling == "backbone":
        raise ValueError(
            f"The recipe {recipe.name!r} scales images as a backbone wants "
            f"them. Received: network={config.network!r}, which is none; "
            "choose another recipe"
        )
    mean, std = None, None
    if recipe.scaling == "standardise" and recipe.mean is None:
        mean, std = feed.statistics()
    return scaling_layer(recipe, mean, std)


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
    feed = make_feed(dataset, config.recipe, config.seed, config.reader)
    model, deployed, parameters = build_model(config, feed)
    history = _restore(model, folder, dataset)
    recorder = _make_recorder(model, config, feed, folder, on_epoch, history)
    failure = None
    if len(history) < config.recipe.epochs:
        try:
            model.fit(
                **feed.for_fit(len(history)),
                epochs=config.recipe.epochs,
                initial_epoch=len(history),
                validation_data=feed.for_predict("test"),
                shuffle=False,  # The batches bring their own order.
                callbacks=[recorder, *_keras_callbacks(folder, options)],
                verbose=0,
            )
        except Diverged as error:
            failure = error.where
    logits = {} if failure else _logits(model, feed)
    if logits and not _finite(logits, recorder.rows[-1]):
        # The last step can do that, or a test in 16 bits.
        row, logits = recorder.rows[-1], {}
        failure = Diverged(
            int(row["epoch"]),
            feed.steps,
            row["learning_rate"],
            "outputs for the test are not finite after training",
        ).where
    result = _result(config, feed, parameters, recorder, failure, options)
    if logits:
        labels = feed.labels("test")
        last = scores.all_scores(logits["test"], labels)
        if config.dataset in ORDINAL:
            last["one_off_accuracy"] = scores.one_off_accuracy(
                logits["test"], labels
            )
        last["epoch"] = config.recipe.epochs
        last["test_loss"] = recorder.rows[-1]["test_loss"]
        result["last"] = last
        result["best"] = _best_epoch(recorder.rows, len(labels))
    if not has_data(folder.path.parent, dataset.fingerprint):
        write_data(
            folder.path.parent,
            dataset.fingerprint,
            feed.labels("test"),
            dataset.class_names,
            feed.thumbnails(),
        )
    if options.save_model and not failure:
        _save_model(deployed, config, feed, folder)
    folder.finish(result, recorder.rows, logits)
    return result


def _finite(logits, row):
    return math.isfinite(row["test_loss"]) and all(
        np.isfinite(values).all() for values in logits.values()
    )


def _save_model(deployed, config, feed, folder):
    with replacing(folder.path / "model.keras") as temporary:
        deployed.save(temporary)
    crop = feed.crop
    write_json(
        folder.path / "model.json",
        dict(
            classes=list(feed.dataset.class_names),
            input_shape=list(feed.input_shape),
            # Images that were not cropped are only brought to the size.
            resize_ratio=1.0 if crop is None else crop.resize_ratio,
            keep_aspect=False if crop is None else crop.keep_aspect,
            crop_to_box=config.crop_to_box,
            dataset=feed.dataset.name,
            network=config.network,
            loss=config.loss,
        ),
    )


def _restore(model, folder, dataset):
    """Puts the model where the run was killed; returns the epochs so far."""
    state = folder.load_state()
    if state is None:
        return []
    folder.check_data(dataset)
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


def _make_recorder(model, config, feed, folder, on_epoch, history):
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
                images_per_second=feed.size("train") / seconds,
            )
            self.rows.append(row)
            values = [_to_numpy(v) for v in _state_variables(model)]
            folder.save_state(values, self.rows, feed.dataset.fingerprint)
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


def _logits(model, feed):
    """Logits of the test set, and of what was held out."""
    logits = {"test": _predicted(model, feed.for_predict("test"))}
    if feed.size("held_out"):
        logits["held_out"] = _predicted(model, feed.for_predict("held_out"))
        logits["held_out_labels"] = feed.labels("held_out")
    return logits


def _predicted(model, batches):
    return np.asarray(model.predict(batches, verbose=0))


def _best_epoch(rows, samples):
    best = max(rows, key=lambda row: row["test_accuracy"])
    # Keras gives a float32: as a count it is exact, as the last error is.
    wrong = round((1 - best["test_accuracy"]) * samples)
    return dict(epoch=best["epoch"], test_error=wrong / samples)


def _result(config, feed, parameters, recorder, failure, options):
    rows, dataset = recorder.rows, feed.dataset
    seconds = sum(row["seconds"] for row in rows)
    images = len(rows) * feed.size("train")
    return dict(
        status="diverged" if failure else "done",
        dataset=dict(
            name=dataset.name,
            fingerprint=dataset.fingerprint,
            train=feed.size("train"),
            held_out=feed.size("held_out"),
            test=feed.size("test"),
            classes=dataset.classes,
        ),
        network=dict(name=config.network, parameters=parameters),
        weights=weights_fingerprint(config.weights),
        loss=config.loss,
        seed=config.seed,
        backend=config.backend,
        versions=versions(config),
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


def versions(config):
    """Versions of what makes the numbers of a run, by name."""
    found = {"python": platform.python_version()}
    backend = config.backend
    names = ["crl-keras", "keras", backend, f"{backend}-cpu", "numpy"]
    names += {"pillow": ["pillow"], "tf.data": ["tensorflow"]}.get(
        config.reader, []
    )
    names += [config.network.partition("/")[0]] * ("/" in config.network)
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
