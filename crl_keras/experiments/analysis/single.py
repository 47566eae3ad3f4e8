"""Describes a model from the runs of a single loss.

Imports no backend.
"""

import dataclasses

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs.chosen import best_validated
from crl_keras.experiments.runs.records import Record
from crl_keras.experiments.words import counted
from crl_keras.experiments.words import pair_text
from crl_keras.experiments.words import plural
from crl_keras.experiments.words import points


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """How well the model recognises one class.

    Attributes:
        name: name of the class.
        n: number of test images of the class.
        predicted: number of test images predicted as the class.
        precision: right share of `predicted`, or None if that is 0.
        recall: right share of `n`, or None if that is 0.
        recall_interval: 95 % interval of the recall, `(low, high)`, or None.
        f1: harmonic mean of precision and recall, or None without images.
        confused: the most frequent wrong prediction and its number of images,
            `(name, count)`, or None.
    """

    name: str
    n: int
    predicted: int
    precision: float | None
    recall: float | None
    recall_interval: tuple | None
    f1: float | None
    confused: tuple | None


@dataclasses.dataclass(frozen=True)
class Model:
    """The run shown in a report on a single loss.

    Attributes:
        label: name of the loss in tables.
        record: `Record` of the run with the best validation of the loss.
        why: the reason for this run; "" if it is the only one.
        right: number of right predictions among `samples` test images.
        interval: 95 % interval of the accuracy, `(low, high)`.
        classes: tuple of `ClassScores`, the lowest F1 first.
    """

    label: str
    record: Record
    why: str
    right: int
    samples: int
    interval: tuple
    classes: tuple

    @property
    def accuracy(self):
        return self.right / self.samples

    @property
    def name(self):
        return f"{self.label}, seed {pair_text(self.record.config.pair)}"


@dataclasses.dataclass(frozen=True)
class Shown:
    """A test image that shows something about the model.

    Attributes:
        index: position in the test set, from 0.
        name: file name, or the position.
        truth, predicted: class names.
        confidence: probability of the predicted class.
        of_truth: probability of the true class.
        pixels: uint8 `[h, w, C]`.
        heat: float `[a, b]` in `[0, 1]`, Grad-CAM of the predicted class, or
            None.
    """

    index: int
    name: str
    truth: str
    predicted: str
    confidence: float
    of_truth: float
    pixels: np.ndarray
    heat: np.ndarray | None


def model_of(losses):
    """Makes the `Model` of one `LossResult`; None if several, or no logits."""
    if len(losses) != 1 or not losses[0].evaluations:
        return None
    (result,) = losses
    records = [r for r in result.records if r.config.pair in result.evaluations]
    chosen = best_validated(records)
    evaluation = result.evaluations[chosen.run.config.pair]
    right, samples = int(evaluation.correct.sum()), len(evaluation.correct)
    names = [str(name) for name in chosen.run.data()["class_names"]]
    return Model(
        label=result.label,
        record=chosen.run,
        why=chosen.why,
        right=right,
        samples=samples,
        interval=interval(right, samples),
        classes=class_scores(evaluation.confusion, names),
    )


def interval(right, samples):
    """Wilson's score interval of a share at 95 %, `(low, high)`.

    Source: Wilson, JASA 22 (1927), 209-212; `scipy.stats.binomtest`.

    >>> [round(x, 3) for x in interval(8, 10)]
    [0.49, 0.943]
    """
    stats = require("scipy.stats", "experiments")
    found = stats.binomtest(int(right), int(samples)).proportion_ci(
        method="wilson"
    )
    return float(found.low), float(found.high)


def class_scores(confusion, names):
    """A tuple of `ClassScores`, the lowest F1 first.

    Args:
        confusion: int `[classes, classes]`, rows are true classes.
        names: names of the classes.
    """
    metrics = require("sklearn.metrics", "experiments")
    true, predicted = np.indices(confusion.shape)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        true.ravel(),
        predicted.ravel(),
        labels=np.arange(len(names)),
        sample_weight=confusion.ravel(),
        zero_division=np.nan,
    )
    found = []
    for k, name in enumerate(names):
        n, right = int(confusion[k].sum()), int(confusion[k, k])
        others = np.where(np.arange(len(names)) == k, 0, confusion[k])
        most = int(np.argmax(others))
        found.append(
            ClassScores(
                name=name,
                n=n,
                predicted=int(confusion[:, k].sum()),
                precision=_number(precision[k]),
                recall=_number(recall[k]),
                recall_interval=interval(right, n) if n else None,
                f1=_number(f1[k]),
                confused=(names[most], int(others[most]))
                if others[most]
                else None,
            )
        )
    # Classes without images have no F1 and come last.
    return tuple(sorted(found, key=lambda c: 2.0 if c.f1 is None else c.f1))


def _number(value):
    return None if np.isnan(value) else float(value)


def sentences(group):
    """The sentences that introduce the model of a `Group`."""
    model, noun = group.model, group.config.noun
    low, high = map(points, model.interval)
    said = [
        f"{model.name}: {points(model.accuracy)}% of the "
        f"{model.samples:,} test {plural(noun)} are right (95% interval "
        f"{low}% to {high}%)."
    ]
    if model.why:
        said.append(f"This run is shown because {model.why}.")
    last = group.losses[0].last
    if last.std is not None:
        said.append(
            f"Over all {last.n} runs: {points(1 - last.mean)} "
            f"\N{PLUS-MINUS SIGN} {points(last.std)}% right, mean and standard "
            "deviation."
        )
    weakest = model.classes[0]
    if weakest.f1 is not None and weakest.f1 < 1:
        text = (
            f"Weakest class: {weakest.name}, F1 {points(weakest.f1)}%, "
            f"{round((weakest.recall or 0) * weakest.n)} of "
            f"{counted(weakest.n, noun)} right"
        )
        if weakest.confused:
            text += f", most often confused with {weakest.confused[0]}"
        said.append(f"{text}.")
    never = [c.name for c in model.classes if c.n and not c.predicted]
    if never:
        more = f" and {len(never) - 5} more" if len(never) > 5 else ""
        said.append(f"Never predicted: {', '.join(never[:5])}{more}.")
    return said


def telling_images(model, count=6):
    """Finds the most confident mistakes and the least confident hits.

    Looks at all test images if the run kept heat maps, otherwise at those
    with a thumbnail in the records.

    Returns:
        `(mistakes, hits)`, lists of `Shown`.
    """
    record = model.record
    data, logits = record.data(), record.logits()["test"]
    cams = record.pictures("gradcam")
    indices = [] if cams is None else cams["indices"].tolist()
    places = {index: i for i, index in enumerate(indices)}
    found = scores.telling(logits, data["labels"], count)
    if not {*np.concatenate(found).tolist()} <= places.keys():
        # No heat maps, or those of another version.
        cams, kept = None, len(data["thumbnails"])
        found = scores.telling(logits, data["labels"], count, kept)

    def shown(index):
        p = scores.softmax(logits[index][None])[0]
        if cams is None:
            pixels, heat = data["thumbnails"][index], None
        else:
            place = places[int(index)]
            pixels, heat = cams["images"][place], cams["maps"][place]
        names, label = data["class_names"], data["labels"][index]
        return Shown(
            index=int(index),
            name=str(data["names"][index]),
            truth=str(names[label]),
            predicted=str(names[p.argmax()]),
            confidence=float(p.max()),
            of_truth=float(p[label]),
            pixels=pixels,
            heat=heat,
        )

    return tuple([shown(index) for index in part] for part in found)
