"""Finds signs that a run cannot be trusted, and says what to do.

Each sign is a sentence for the user. It is printed after training and shown in
the report. Imports no backend.
"""

import contextlib
import math

import numpy as np

from crl_keras.experiments.runs.config import OwnConfig
from crl_keras.experiments.runs.config import crl_parameters
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.config import parse_loss
from crl_keras.experiments.words import counted
from crl_keras.experiments.words import listed
from crl_keras.experiments.words import pair_text

GAP = 0.25  # Overfitting: training accuracy minus test accuracy above this.
FIRST_EPOCHS = 5
# If moving averages reach back further than this share of the training, they
# still contain their initial statistics.
LONGEST_REACH = 0.2
NAMES_SHOWN = 5
KEYS = {"train_loss", "train_accuracy", "test_loss"}


def loss_of_guessing(loss, classes):
    """The loss when all classes have equal probabilities, or None.

    Returns None if the loss depends on more than the probabilities.

    Args:
        loss: A loss that `parse_loss` accepts.
        classes: Number of classes.

    >>> round(loss_of_guessing("ce", 10), 4)
    2.3026
    >>> round(loss_of_guessing("crl(alpha=1.5,beta=1)", 10), 4)
    3.1781
    """
    name, parameters = parse_loss(loss)
    entropy = math.log(classes)
    if name == "ce":
        return entropy
    if name in ("crl", "nllr"):  # Eq. (11) of the CRL paper.
        alpha, beta = crl_parameters(loss).values()
        return entropy + beta * math.log(alpha + 1 - 1 / classes)
    if name == "focal":
        return (1 - 1 / classes) ** parameters["gamma"] * entropy
    return None


def diagnose(record, logits=None):
    """Says what is wrong with a finished run.

    Args:
        record: `Record`.
        logits: Logits of the test set `[N, C]`, or None.

    Returns:
        Dict from the kind of a sign to its sentence; empty if the run looks
        right. The kinds: "guessing", "rising", "lagging", "overfitted" and
        "unpredicted".
    """
    if record.result["status"] != "done" or not record.history:
        return {}
    if not KEYS <= record.history[-1].keys():  # From `compare_results`.
        return {}
    found = {
        "guessing": _guessing(record),
        "rising": _rising(record),
        "lagging": _lagging(record),
        "overfitted": _overfitted(record),
        "unpredicted": _unpredicted(record, logits),
    }
    return {kind: sentence for kind, sentence in found.items() if sentence}


def signs(records):
    """Says what is wrong with the runs, with one sentence per kind of sign.

    Args:
        records: `Record`s, with or without logits.

    Returns:
        List of str. If several runs have a sign, it describes the first run.
    """
    found = {}
    for record in records:
        logits = None
        with contextlib.suppress(OSError, ValueError):
            logits = record.logits()["test"]
        config = record.config
        name = f"{loss_label(config.loss)} seed {pair_text(config.pair)}"
        for kind, sentence in diagnose(record, logits).items():
            found.setdefault(kind, []).append(f"{name}: {sentence}")
    return [
        first + (f" The same holds for {counted(len(more), 'run')} more.")
        if more
        else first
        for first, *more in found.values()
    ]


def _guessing(record):
    classes = record.result["dataset"]["classes"]
    last = record.history[-1]
    chance = loss_of_guessing(record.config.loss, classes)
    smoothed = record.config.recipe.soft_labels
    if last["train_accuracy"] <= 1.2 / classes or (
        chance is not None and not smoothed and last["train_loss"] >= chance
    ):
        return (
            f"It has not learned: the last training loss is "
            f"{last['train_loss']:.3g}"
            + (f" (guessing gives {chance:.3g})" if chance is not None else "")
            + f", the training accuracy {last['train_accuracy']:.1%}. "
            + _advice(
                record,
                "Try another learning rate (--find-rate suggests one) or more "
                f"epochs{_or_imagenet(record)}.",
                "Try other `learning_rates` or more epochs.",
            )
        )
    if chance is not None and last["test_loss"] >= chance:
        return (
            f"The test loss, {last['test_loss']:.3g}, is not below the loss of "
            f"guessing, {chance:.3g}. Do not trust the probabilities, even if "
            "the accuracy is good. "
            + _advice(
                record,
                "Use more training images, --early-stopping 5 --keep best, or "
                "--label-smoothing 0.1.",
                "Use more training samples, fewer epochs, or label smoothing.",
            )
        )
    return None


def _rising(record):
    losses = [row["train_loss"] for row in record.history[:FIRST_EPOCHS]]
    if len(losses) < 2 or max(losses[1:]) <= 1.05 * losses[0]:
        return None
    warm = record.config.recipe.warmup_epochs
    return (
        f"The training loss rose in the first epochs, from {losses[0]:.3g} to "
        f"{max(losses[1:]):.3g}: the learning rate is too high. "
        + _advice(
            record,
            "Use a lower one (--learning-rates; --find-rate suggests one)"
            + ("." if warm else " or --warmup-epochs 3."),
            "Use lower `learning_rates`, or crl_keras.optimizers.WarmUp in "
            "your `optimizer`.",
        )
    )


def _lagging(record):
    """The sign that moving averages still hold their initial statistics."""
    found = record.result.get("batch_norm")
    if not found or found["mode"] != "moving":
        return None
    reach = 1 / max(1e-6, 1 - found["momentum"])
    if reach <= LONGEST_REACH * found["steps"]:
        return None
    return (
        f"The moving averages of batch normalisation look back {reach:.0f} "
        f"steps, but training had only {found['steps']}. So they still contain "
        "a part of their start values, and the test used statistics that do "
        "not fit the trained network. "
        + _advice(
            record,
            "Use --batch-norm recompute.",
            "Lower the `momentum` of the layers, or train longer.",
        )
    )


def _overfitted(record):
    row, test = record.history[-1], 1 - record.result["last"]["error"]
    if row["train_accuracy"] - test < GAP:
        return None
    more = _or_imagenet(record)
    if record.config.weights != "none":
        more = ", or --freeze-backbone"
    return (
        f"Training accuracy is {row['train_accuracy']:.1%} and test accuracy "
        f"{test:.1%}: the network has memorised its training "
        + _advice(
            record,
            f"images. Use more images, --randaugment 2 or --mixup 0.2{more}.",
            "samples. Use more samples, fewer epochs, or a smaller model.",
        )
    )


def _unpredicted(record, logits):
    if logits is None:
        return None
    names = record.data()["class_names"]
    predicted = np.bincount(np.argmax(logits, axis=1), minlength=len(names))
    never = [str(names[k]) for k in np.flatnonzero(predicted == 0)]
    if not never:
        return None
    shown = never[:NAMES_SHOWN]
    if more := len(never) - len(shown):
        shown.append(f"{more} more")
    return (
        f"{len(never)} of {len(names)} classes are never predicted: "
        f"{listed(shown)}. Look at their "
        + _advice(
            record,
            "images. Use more images, --class-weights balanced, or more "
            "epochs.",
            "samples. Use more samples, `class_weight`, or more epochs.",
        )
    )


def _or_imagenet(record):
    """The advice for a backbone that began with random weights."""
    config = record.config
    if "/" in config.network and config.weights == "none":
        return ", or weights from ImageNet (--weights imagenet)"
    return ""


def _advice(record, of_command, of_call):
    """Chooses the advice for the command line or for `compare_losses`."""
    return of_call if isinstance(record.config, OwnConfig) else of_command
