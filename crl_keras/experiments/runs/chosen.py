"""Chooses the best validated of several runs, to show or to use it.

The choice uses the images held out from training, never the test set: the
error on the test set would then be too low. Imports no backend.
"""

import dataclasses
from typing import Any

import numpy as np

from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.words import plural
from crl_keras.experiments.words import points


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The run that was chosen.

    Attributes:
        run: the run, a `Record` or a `SavedRun`; it has a `path`.
        error: its error on held-out images, in `[0, 1]`, or None.
        among: number of runs that it was chosen from.
    """

    run: Any
    error: float | None
    among: int

    @property
    def why(self):
        """The reason, "it has ..."; "" for a single run."""
        if self.among == 1:
            return ""
        samples = plural(self.run.config.noun)
        if self.error is None:
            return (
                f"it is the first of {self.among} runs, and none of them held "
                f"{samples} out to choose by"
            )
        return (
            f"of {self.among} runs it has the lowest error on its held-out "
            f"{samples}, {points(self.error)}%"
        )


def best_validated(runs):
    """Chooses the run with the lowest error on its held-out images.

    At a tie it takes the first. If no run held images out, it takes the first.
    """
    errors = {i: held_out_error(run) for i, run in enumerate(runs)}
    known = {i: error for i, error in errors.items() if error is not None}
    first = min(known, key=known.get) if known else 0
    return Chosen(runs[first], known.get(first), len(runs))


def held_out_error(run):
    """Returns a run's error on its held-out images, or None without any."""
    if kept := getattr(run, "arrays", None):  # Its folder may be gone.
        return _held_out_error(kept[0])
    try:
        path = run.path / "logits.npz"
        with open(path, "rb") as file, np.load(file) as arrays:
            return _held_out_error(arrays)
    except FileNotFoundError:
        return None


def _held_out_error(arrays):
    if "held_out" not in arrays or not len(arrays["held_out"]):
        return None
    return scores.error(arrays["held_out"], arrays["held_out_labels"])


def run_name(config):
    """The loss, seed and fold of a run, "CRL, seed 0, fold 1"."""
    text = f"{loss_label(config.loss)}, seed {config.seed}"
    return text if config.fold is None else f"{text}, fold {config.fold}"
