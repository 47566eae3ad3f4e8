"""Chooses the learning rate of each loss in a comparison.

Each loss gets the rate of its lowest error on held-out images, which are
neither trained nor tested on. Imports no backend.
"""

import numpy as np

from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.words import listed
from crl_keras.experiments.words import plural


def rates_of(groups, loss):
    """A dict from each learning rate to the `LossResult` of a loss."""
    return {
        group.rate: result
        for group in groups
        for result in group.losses
        if result.loss == loss
    }


def best_on_test(groups, losses):
    """The rate of each loss with its lowest mean test error: optimistic.

    Only the rates with the most finished runs of a loss count. At the other
    rates, runs diverged or are not done yet.
    """
    best = {}
    for loss in losses:
        by_rate = rates_of(groups, loss)
        most = max(result.last.n for result in by_rate.values())
        means = {
            rate: result.last.mean
            for rate, result in by_rate.items()
            if result.last.n == most > 0
        }
        if means:
            best[loss] = min(means, key=means.get)
    return best


def choose(groups, losses, by_seed=False):
    """Chooses the learning rate of each loss on held-out images.

    Args:
        groups: Tuple of `Group` that differ only in the learning rate.
        losses: Canonical losses.
        by_seed: Choose a rate for each seed. Otherwise choose one rate for
            all seeds of a loss, by the mean over the seeds; rates with fewer
            finished runs do not count.

    Returns:
        A dict from each loss to a dict from its pair (seed, or seed and
        fold) to the rate. None if a loss has no held-out images.
    """
    chosen = {}
    for loss in losses:
        errors = {
            rate: _held_out_errors(result)
            for rate, result in sorted(rates_of(groups, loss).items())
        }
        most = max(map(len, errors.values()))
        if most == 0:
            return None
        if by_seed:
            pairs = {pair for found in errors.values() for pair in found}
            chosen[loss] = {
                pair: min(
                    (rate for rate in errors if pair in errors[rate]),
                    key=lambda rate, pair=pair: errors[rate][pair],
                )
                for pair in sorted(pairs)
            }
        else:
            means = {
                rate: np.mean(list(found.values()))
                for rate, found in errors.items()
                if len(found) == most
            }
            rate = min(means, key=means.get)
            chosen[loss] = dict.fromkeys(errors[rate], rate)
    return chosen


def _held_out_errors(result):
    return {
        pair: found.held_out_error
        for pair, found in result.evaluations.items()
        if found.held_out_error is not None
    }


def rates_text(rates):
    """The text of a table for the rates of a loss."""
    different = sorted(set(rates.values()))
    if len(different) == 1:
        return f"{different[0]:g}"
    return f"{different[0]:g} to {different[-1]:g}"


def choice_notes(groups, chosen, by_seed):
    """Notes for the table of the losses at their own rates."""
    how = "of each seed" if by_seed else "over the seeds"
    samples = plural(groups[0].config.noun)
    first = (
        f"Each loss has the learning rate of its lowest error {how} on "
        f"held-out {samples}. The test {samples} have no part in the choice."
    )
    rates = {loss: {*chosen[loss].values()} for loss in chosen}
    return (first, *_doubts(groups, rates))


def test_notes(groups, best):
    """Notes for the table of the rates of lowest test error."""
    notes = [
        "The marked rate of a loss has its lowest mean error on the test set. "
        "That choice saw the test set, so its error is optimistic, the more "
        "so the more rates were tried.",
        "Holm's correction is over the losses of one learning rate, not over "
        "the rates. Among many tables, some p below 0.05 are chance.",
    ]
    for loss, rate in best.items():
        by_rate = rates_of(groups, loss)
        fewer = [
            f"{other:g}"
            for other, result in by_rate.items()
            if result.last.n < by_rate[rate].last.n
        ]
        if fewer:
            notes.append(
                f"{loss_label(loss)} has fewer finished runs at "
                f"{listed(fewer)}: those rates are not marked, whatever their "
                "error."
            )
    return (*notes, *_doubts(groups, {x: {rate} for x, rate in best.items()}))


def no_held_out_note(groups):
    """Explains why no rate was chosen."""
    samples = plural(groups[0].config.noun)
    return (
        f"No rate is chosen without the test set, because no {samples} were "
        "held out. Train with --held-out 0.1, or held_out=0.1 of "
        "compare_losses, to compare each loss at its own rate."
    )


def _doubts(groups, best):
    """Notes on losses with one rate, or with one of `best` at the edge."""
    tried = {loss: sorted(rates_of(groups, loss)) for loss in best}
    alone = [loss for loss, rates in tried.items() if len(rates) == 1]
    if alone:
        yield (
            f"{_labels(alone)}: trained at one rate only, which may suit "
            "another loss better. Compare only losses at that rate."
        )
    at_edge = [
        loss
        for loss, rates in tried.items()
        if len(rates) > 1 and {rates[0], rates[-1]} & best[loss]
    ]
    if at_edge:
        yield (
            f"For {_labels(at_edge)} the best rate is the smallest or largest "
            "that was tried. Try rates beyond it."
        )


def _labels(losses):
    return listed([loss_label(loss) for loss in losses])
