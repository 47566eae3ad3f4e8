"""Reads and writes runs on disk; a kill at any moment breaks no file.

An experiment is a folder:

    RUNS/
      data/<fingerprint>.npz     test set: labels, names of images and
                                 classes, thumbnails
      together.json              what `--together auto` has measured and chosen
      <run id>/config.json       written first
      <run id>/history.csv       one row per epoch
      <run id>/state.npz         state to resume from; deleted when done
      <run id>/best.npz          weights of the best epoch; deleted when done
      <run id>/logits.npz        `test` (N, C) and, if any, `held_out` and
                                 `held_out_labels`
      <run id>/predictions.csv   the prediction for each test image
      <run id>/model.keras       with --save-model: the model; model.json
                                 describes its inputs, gradcam.npz has heat maps
      <run id>/result.json       written last: its existence means "done"

Every file is written under a temporary name and then renamed. Imports no
backend.
"""

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
import shutil
import tempfile
import uuid

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs.config import RunConfig

MEGABYTE = 2**20
TOP_CLASSES = 5  # Classes per image in predictions.csv.


@contextlib.contextmanager
def replacing(path):
    """Yields a temporary path; renames it to `path` if the block succeeds."""
    name = f".{path.name}.{uuid.uuid4().hex}{path.suffix}"
    temporary = path.with_name(name)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path, value):
    with replacing(path) as temporary:
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
        temporary.write_text(text + "\n")


def write_arrays(path, **arrays):
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def _read_arrays(path):
    # Opened here, as NumPy would not close a file that is incomplete.
    with open(path, "rb") as file, np.load(file) as arrays:
        return dict(arrays)


@dataclasses.dataclass(frozen=True)
class Record:
    """A finished run, as read from its folder.

    Args:
        config: Its configuration.
        result: The dict of result.json.
        history: List of dicts, one per epoch, of numbers.
        path: Its folder.
    """

    config: RunConfig
    result: dict
    history: list
    path: pathlib.Path

    def logits(self):
        """Dict of arrays: `test`, maybe `held_out` and `held_out_labels`."""
        return _read_arrays(self.path / "logits.npz")

    def data(self):
        """Dict of arrays on the test set.

        `labels` (N,), `class_names` (C,), `names` (N,): the last two parts of
        each image file's path, or its position; `thumbnails` (M, h, w, c):
        the first M <= N images, uint8.
        """
        fingerprint = self.result["dataset"]["fingerprint"]
        found = _read_arrays(_data_path(self.path.parent, fingerprint))
        # Older versions did not write them.
        found.setdefault("names", np.arange(len(found["labels"])).astype(str))
        return found

    def pictures(self, kind):
        """Dict of arrays of "gradcam" or "method", or None.

        `write_gradcam` or `write_method_pictures` wrote them.
        """
        try:
            return _read_arrays(self.path / f"{kind}.npz")
        except FileNotFoundError:
            return None


@dataclasses.dataclass(frozen=True)
class KeptRecord(Record):
    """A `Record` in memory, which does not read its folder.

    Args:
        arrays: The dicts that `logits` and `data` return, or None.
    """

    arrays: tuple | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def of(cls, record):
        """Reads a record into memory."""
        done = record.result["status"] == "done"
        return cls(
            record.config,
            record.result,
            record.history,
            record.path,
            (record.logits(), record.data()) if done else None,
        )

    def logits(self):
        return self._kept()[0]

    def data(self):
        return self._kept()[1]

    def pictures(self, kind):
        return None

    def _kept(self):
        if self.arrays is None:
            raise FileNotFoundError("These results came without logits")
        return self.arrays


def read_records(folder):
    """Reads all finished runs of an experiment, sorted by configuration.

    Raises FileNotFoundError if there is no such folder, ValueError if a run in
    it cannot be read.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder of runs at {folder}: give the folder that was "
            "the --output of examples/compare_losses.py"
        )
    records = []
    for path in sorted(folder.glob("*/result.json")):
        try:
            config = json.loads((path.parent / "config.json").read_text())
            record = Record(
                RunConfig.from_dict(config),
                json.loads(path.read_text()),
                read_history(path.parent),
                path.parent,
            )
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise ValueError(
                f"This version cannot read the run {path.parent}: {error}. "
                "Copy the whole folder again, or delete it"
            ) from error
        records.append(record)
    records.sort(key=lambda r: (r.config.group, r.config.loss, r.config.seed))
    return records


def read_history(path):
    """Rows of history.csv as dicts of numbers, NaN where a cell is empty."""
    with open(path / "history.csv", newline="") as file:
        return [
            {name: float(cell or "nan") for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]


class RunFolder:
    """The folder of one run while it is trained."""

    def __init__(self, experiment, config):
        self.config = config
        self.path = pathlib.Path(experiment) / config.run_id

    @property
    def done(self):
        return (self.path / "result.json").exists()

    @property
    def begun(self):
        """Whether there is a state to resume from."""
        return (self.path / "state.npz").exists()

    @contextlib.contextmanager
    def locked(self):
        """Yields True, or False if another process works on the run.

        The operating system frees the lock of a killed process.
        """
        filelock = require("filelock", "experiments")
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def begin(self):
        """Writes config.json, after checking an existing one."""
        self.path.mkdir(parents=True, exist_ok=True)
        values = self.config.to_dict()
        path = self.path / "config.json"
        if path.exists() and not self._is_of(json.loads(path.read_text())):
            raise ValueError(
                f"{path} is not the configuration its folder is named after: "
                "it was changed by hand or by another version. Use another "
                "--output, or delete that folder"
            )
        write_json(path, values)
        for leftover in self.path.glob(".*.*"):  # Of a killed process.
            leftover.unlink(missing_ok=True)

    def _is_of(self, values):
        try:
            return RunConfig.from_dict(values).run_id == self.config.run_id
        except (ValueError, TypeError, KeyError):
            return False

    def save_state(self, variables, history, fingerprint):
        """Saves all that a resumed run needs, in one file."""
        write_arrays(
            self.path / "state.npz",
            history=np.array(json.dumps(history)),
            fingerprint=np.array(fingerprint),
            **_numbered(variables),
        )
        self._write_history(history)

    def save_best(self, epoch, variables):
        """Saves the weights of the best epoch so far."""
        write_arrays(
            self.path / "best.npz",
            epoch=np.array(epoch),
            **_numbered(variables),
        )

    def load_best(self):
        """Returns `(epoch, variables)` of the best epoch."""
        arrays = _read_arrays(self.path / "best.npz")
        return int(arrays["epoch"]), _in_order(arrays)

    def load_state(self):
        """Returns `(variables, history)`, or None if there is no state."""
        path = self.path / "state.npz"
        if not path.exists():
            return None
        with np.load(path) as arrays:
            history = json.loads(str(arrays["history"]))
            return _in_order(dict(arrays)), history

    def check_data(self, dataset):
        """Raises ValueError if a run began on other data."""
        path = self.path / "state.npz"
        if not path.exists():
            return
        with np.load(path) as arrays:
            # Older versions did not write it.
            found = str(arrays.get("fingerprint", "not known"))
        if found != dataset.fingerprint:
            raise ValueError(
                f"The run in {self.path} began on other data with the name "
                f"{dataset.name} (fingerprint {found}, now "
                f"{dataset.fingerprint}): use another --output, or delete that "
                "folder"
            )

    def finish(self, result, history, logits):
        self._write_history(history)
        if logits:
            write_arrays(self.path / "logits.npz", **logits)
        write_json(self.path / "result.json", result)
        for name in ("state.npz", "best.npz"):
            (self.path / name).unlink(missing_ok=True)

    def _write_history(self, history):
        buffer = io.StringIO()
        names = list(dict.fromkeys(name for row in history for name in row))
        writer = csv.DictWriter(buffer, names or ["epoch"])
        writer.writeheader()
        writer.writerows(history)
        with replacing(self.path / "history.csv") as temporary:
            temporary.write_text(buffer.getvalue())


def _numbered(variables):
    return {f"variable_{i}": value for i, value in enumerate(variables)}


def _in_order(arrays):
    count = sum(name.startswith("variable_") for name in arrays)
    return [arrays[f"variable_{i}"] for i in range(count)]


def has_data(experiment, fingerprint):
    """Whether `write_data` has saved this test set."""
    return _data_path(experiment, fingerprint).exists()


def write_data(
    experiment, fingerprint, labels, class_names, thumbnails, names=None
):
    """Saves the test set's data for the report, once per experiment.

    `names` are the names of the images; None means their positions.
    """
    path = _data_path(experiment, fingerprint)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            labels=labels,
            class_names=np.array(class_names),
            thumbnails=thumbnails,
            **({} if names is None else {"names": np.array(names)}),
        )


def write_predictions(path, names, labels, class_names, logits):
    """Writes the prediction for each test image as a table, predictions.csv.

    Its columns are `file`, `label`, `predicted`; `class_1`, `probability_1`
    and so on, the most likely first; and `loss`, the cross-entropy of the true
    class in nats, `-log p_y`. A spreadsheet can sort by `loss`.

    Args:
        path: where to write.
        names: N names of images.
        labels: integers, shape `[N]`.
        class_names: C names of classes.
        logits: numbers, shape `[N, C]`.
    """
    p = scores.softmax(logits)
    losses = scores.cross_entropies(logits, labels)
    top = np.argsort(-p, axis=1, kind="stable")[:, :TOP_CLASSES]
    heads = top_columns(top.shape[1])
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "label", "predicted", *heads, "loss"])
        for i, name in enumerate(names):
            cells = top_cells(class_names, p[i], top[i])
            head = [name, class_names[labels[i]], cells[0]]
            writer.writerow([*head, *cells, f"{losses[i]:.6g}"])


def top_columns(count):
    """Column names of predictions, ["class_1", "probability_1", ...]."""
    return [
        f"{name}_{k}"
        for k in range(1, count + 1)
        for name in ("class", "probability")
    ]


def top_cells(class_names, probabilities, top):
    """The cells of `top_columns`: names and probabilities of classes `top`."""
    return [
        cell
        for k in top
        for cell in (class_names[k], f"{probabilities[k]:.6g}")
    ]


def _data_path(experiment, fingerprint):
    return pathlib.Path(experiment) / "data" / f"{fingerprint}.npz"


def check_output(experiment, megabytes):
    """Raises OSError if `experiment` cannot hold so many megabytes.

    It is called before training: a run that cannot be written would be lost.
    """
    experiment = pathlib.Path(experiment)
    try:
        experiment.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=experiment):
            pass
    except OSError as error:
        raise OSError(
            f"Runs cannot be written to {experiment}: {error}. Give another "
            "folder as --output"
        ) from error
    free = shutil.disk_usage(experiment).free / MEGABYTE
    if free < megabytes:
        raise OSError(
            f"The runs need about {megabytes:.0f} MiB in {experiment}, where "
            f"{free:.0f} MiB are free. Free some, or give another --output"
        )
