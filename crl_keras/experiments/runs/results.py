"""Makes result.json without its scores, and saves the test set."""

import datetime
import functools
import importlib.metadata
import platform

from crl_keras.experiments.devices import device_name
from crl_keras.experiments.runs.backbone_names import LIBRARIES
from crl_keras.experiments.runs.backbone_names import weights_fingerprint
from crl_keras.experiments.runs.records import has_data
from crl_keras.experiments.runs.records import write_data
from crl_keras.experiments.runs.records import write_predictions

READ_BY = {
    "pillow": ("pillow",),
    "simplejpeg": ("simplejpeg", "opencv-python-headless", "pillow"),
    "tf.data": ("tensorflow",),
}


def best_epoch(rows, samples):
    best = max(rows, key=lambda row: row["test_accuracy"])
    # Keras gives a float32. As a count it is exact, like the last error.
    wrong = round((1 - best["test_accuracy"]) * samples)
    return dict(epoch=best["epoch"], test_error=wrong / samples)


def keep_test(folder, feed, logits):
    """Writes the test set, and a run's predictions for it.

    Args:
        folder: `RunFolder`.
        feed: `Feed`.
        logits: dict with the logits of `"test"`; empty for a run that
            diverged.
    """
    experiment, dataset = folder.path.parent, feed.dataset
    names, labels = feed.names("test"), feed.labels("test")
    if not has_data(experiment, dataset.fingerprint):
        write_data(
            experiment,
            dataset.fingerprint,
            labels,
            dataset.class_names,
            feed.thumbnails(),
            names,
        )
    if logits:
        path = folder.path / "predictions.csv"
        write_predictions(
            path, names, labels, dataset.class_names, logits["test"]
        )


def make_result(
    config, feed, parameters, rows, failure, options, together=None
):
    dataset = feed.dataset
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
        together=together or dict(runs=1),
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
    """Versions of the packages that a run's numbers depend on, by name."""
    found = {"python": platform.python_version()}
    backend = config.backend
    names = ["crl-keras", "keras", backend, f"{backend}-cpu", "numpy"]
    library = config.network.rpartition("/")[0]
    names += [library] * (library in LIBRARIES)
    names += READ_BY.get(config.reader, ())
    installed = {name: _version(name) for name in names}
    return found | {name: v for name, v in installed.items() if v}


@functools.cache
def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
