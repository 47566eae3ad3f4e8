"""Computes errors, confusions and calibration from stored logits."""

import dataclasses
import zipfile

import numpy as np

from crl_keras.experiments.measures import calibration
from crl_keras.experiments.measures import results
from crl_keras.experiments.measures import scores
from crl_keras.experiments.measures import statistics
from crl_keras.experiments.measures.posterior import crl_posterior
from crl_keras.experiments.runs.config import crl_parameters
from crl_keras.experiments.runs.config import parse_loss

METHODS = ("as trained", "CRL posterior", "temperature")


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How well the probabilities of one run fit its test set.

    Attributes:
        nll: negative log-likelihood, nats.
        brier: Brier score, in `[0, 2]`.
        ece: expected calibration error, in `[0, 1]`.
        curve: `calibration.ReliabilityCurve`.
        temperature: the divisor of the logits, or None.
    """

    nll: float
    brier: float
    ece: float
    curve: calibration.ReliabilityCurve
    temperature: float | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The scores of one run, computed from its stored logits.

    Attributes:
        correct: bool `[samples]`, whether the prediction is right.
        confusion: int64 `[classes, classes]`, rows are true classes.
        calibrations: dict from a method (in METHODS) to `Calibration`.
        held_out_error: error on the held-out images, in `[0, 1]`, or None.
    """

    correct: np.ndarray
    confusion: np.ndarray
    calibrations: dict
    held_out_error: float | None = None


@dataclasses.dataclass(frozen=True)
class CalibrationRow:
    """Calibration of one loss with one method, over its seeds.

    Attributes:
        loss: canonical loss.
        method: one of METHODS.
        n: number of runs.
        nll, brier, ece: `results.Summary`.
        temperature: mean of the temperatures, or None.
        curve: mean of the curves of the runs, bin by bin.
    """

    loss: str
    method: str
    n: int
    nll: results.Summary
    brier: results.Summary
    ece: results.Summary
    temperature: float | None
    curve: calibration.ReliabilityCurve


def evaluate(record):
    """Scores the stored logits of a finished run, or returns None.

    Returns None if the logits or data are missing, as when they were not
    copied. Raises ValueError if they do not fit each other or the result.
    """
    try:
        logits, labels = record.logits(), record.data()["labels"]
        return _evaluate(record, logits, labels)
    except FileNotFoundError:
        return None
    except (
        ValueError,
        KeyError,
        OSError,
        EOFError,
        zipfile.BadZipFile,  # An incomplete copy.
    ) as error:
        raise ValueError(
            f"The logits in {record.path} cannot be scored: {error}. Delete "
            "that folder and run the comparison again"
        ) from error


def last_error(record):
    return float(record.result["last"]["error"])


def as_floats(values):
    return np.array(list(values), dtype=np.float64)


def _evaluate(record, logits, labels):
    test = logits["test"]
    if scores.error(test, labels) != last_error(record):
        raise ValueError("their error is not the one in result.json")
    methods = {"as trained": (test, None)}
    is_crl = parse_loss(record.config.loss)[0] in ("crl", "nllr")
    # With soft labels the optimum differs: the posterior's formula is wrong.
    if is_crl and not record.config.recipe.soft_labels:
        parameters = crl_parameters(record.config.loss)
        methods["CRL posterior"] = (crl_posterior(test, **parameters), None)
    held_out_error = None
    if len(logits.get("held_out", ())):
        held_out_error = scores.error(
            logits["held_out"], logits["held_out_labels"]
        )
        temperature = calibration.fit_temperature(
            logits["held_out"], logits["held_out_labels"]
        )
        # If all held-out images are right, the temperature is at its bound. It
        # would make the network sure of its mistakes on the test set.
        if not calibration.is_bound(temperature):
            scaled = np.asarray(test, np.float64) / temperature
            methods["temperature"] = (scaled, temperature)
    return Evaluation(
        correct=np.argmax(test, axis=1) == labels,
        confusion=scores.confusion_matrix(test, labels),
        calibrations={
            method: _calibration(found, labels, temperature)
            for method, (found, temperature) in methods.items()
        },
        held_out_error=held_out_error,
    )


def _calibration(logits, labels, temperature):
    found = scores.all_scores(logits, labels)
    return Calibration(
        nll=found["nll"],
        brier=found["brier"],
        ece=found["ece"],
        curve=calibration.reliability_curve(logits, labels),
        temperature=temperature,
    )


def calibration_rows(loss, evaluations):
    rows = []
    for method in METHODS:
        found = [
            e.calibrations[method]
            for e in evaluations
            if method in e.calibrations
        ]
        if not found:
            continue
        temperatures = [c.temperature for c in found]
        rows.append(
            CalibrationRow(
                loss=loss,
                method=method,
                n=len(found),
                nll=statistics.summarise(as_floats(c.nll for c in found)),
                brier=statistics.summarise(as_floats(c.brier for c in found)),
                ece=statistics.summarise(as_floats(c.ece for c in found)),
                temperature=None
                if None in temperatures
                else float(np.mean(temperatures)),
                curve=_mean_curve([c.curve for c in found]),
            )
        )
    return tuple(rows)


def _mean_curve(curves):
    # Runs on one test set have bins of the same sizes. The sizes of folds
    # differ a little.
    counts = np.mean([c.count for c in curves], axis=0)
    return calibration.ReliabilityCurve(
        confidence=np.mean([c.confidence for c in curves], axis=0),
        accuracy=np.mean([c.accuracy for c in curves], axis=0),
        count=np.rint(counts).astype(np.int64),
    )
