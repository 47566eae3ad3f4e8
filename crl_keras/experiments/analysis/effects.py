"""Separates what a loss changes by longer steps and by weighting samples.

Cross-entropy with the steps of the loss shows the steps alone. The loss with
the steps of cross-entropy shows the weighting alone: see
docs/what-crl-does.md. Imports no backend.
"""

import dataclasses
import re

import numpy as np

from crl_keras.experiments.measures import results
from crl_keras.experiments.measures import statistics
from crl_keras.experiments.runs.config import CONTROLS
from crl_keras.experiments.runs.config import control_named
from crl_keras.experiments.runs.config import own_parts
from crl_keras.experiments.words import LEVEL

PARTS = ("step", "weighting", "interaction", "total")


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of the change, over the seeds.

    Attributes:
        test: `results.PairedTTest` of the change in error; a negative change
            is in favour of the loss.
        p_holm: p of `test` after Holm's correction over the family, or None.
    """

    test: results.PairedTTest
    p_holm: float | None = None

    @property
    def shown(self):
        return self.p_holm is not None and self.p_holm < LEVEL


@dataclasses.dataclass(frozen=True)
class Effect:
    """The change in test error from cross-entropy to a loss, in parts.

    For each seed, from the errors of cross-entropy (ce), of the loss, of
    cross-entropy with the steps of the loss (steps), and of the loss with the
    steps of cross-entropy (weights):

        step        = steps - ce
        weighting   = weights - ce
        interaction = loss - steps - weights + ce
        total       = loss - ce = step + weighting + interaction

    Attributes:
        loss: canonical loss; `label` is its name in tables.
        rate: learning rate.
        n: number of seeds with all four errors.
        parts: dict from each name in PARTS to its `Part`.
    """

    loss: str
    label: str
    rate: float
    n: int
    parts: dict


def effects(family):
    """The `Effect`s of a `Family`, by rate; empty without the controls."""
    found = [e for group in family.groups for e in _effects(group)]
    tests = [part.test.p for e in found for part in e.parts.values()]
    corrected = iter(statistics.holm(tests))
    return tuple(
        dataclasses.replace(
            effect,
            parts={
                name: Part(part.test, next(corrected))
                for name, part in effect.parts.items()
            },
        )
        for effect in found
    )


def _effects(group):
    by_definition = {_definition(r.loss): r for r in group.losses}
    of_ce = by_definition.get("ce")
    for definition, result in by_definition.items():
        both = [
            by_definition.get(control_named(definition, c)) for c in CONTROLS
        ]
        if of_ce and all(both):
            yield _effect(group, result, of_ce, *both)


def _effect(group, result, *others):
    seeds = [s for s in result.errors if all(s in o.errors for o in others)]
    loss, ce, steps, weights = (
        np.array([x.errors[s] for s in seeds], np.float64)
        for x in (result, *others)
    )
    changes = {
        "step": steps - ce,
        "weighting": weights - ce,
        "interaction": loss - steps - weights + ce,
        "total": loss - ce,
    }
    # Rounding of sums may leave a tiny number: it is set to 0.
    parts = {
        name: Part(
            statistics.paired_t_test(
                np.where(np.abs(change) < 1e-12, 0.0, change),
                np.zeros(len(change)),
            )
        )
        for name, change in changes.items()
    }
    return Effect(result.loss, result.label, group.rate, len(seeds), parts)


def _definition(loss):
    """The spec of a loss, also if the user gave it a name."""
    own = own_parts(loss)
    if own is None:
        return loss
    if re.match(r"(Sparse)?CategoricalCrossentropy\b", own[0]):
        return "ce"
    return own[0].removeprefix("soft labels, ")
