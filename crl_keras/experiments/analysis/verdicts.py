"""Writes sentences on what a comparison supports."""

import json
import math

from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.words import LEVEL
from crl_keras.experiments.words import counted
from crl_keras.experiments.words import listed
from crl_keras.experiments.words import p_text
from crl_keras.experiments.words import pair_text
from crl_keras.experiments.words import plural
from crl_keras.experiments.words import points
from crl_keras.experiments.words import seeds_text

# Keys of a result that may differ within a group; a note then says so.
PROVENANCE = ("versions", "device")


def verdict(comparison):
    """Says in a sentence or two what a `PairedComparison` supports."""
    c, test = comparison, comparison.test
    who = f"{c.label} and {c.baseline_label}"
    if test.n == 0:
        return f"{who} are not compared: no seed has a finished run of both."
    if test.n == 1:
        return (
            f"With 1 seed, the test error of {_lower_or_higher(c)}. One pair "
            "of runs cannot separate the effect of the loss from that of the "
            "seed, so nothing is shown."
        )
    if test.p is None:
        ranks = ""
        if c.wilcoxon.p is not None:
            ranks = f" (Wilcoxon's test: p = {p_text(c.wilcoxon.p)})"
        return (
            f"In each of {test.n} {plural(pair_noun([c]))}, the test error of "
            f"{_lower_or_higher(c)}. The differences have no spread, so there "
            f"is no t-test{ranks}."
        )
    low, high = (points(limit, sign=True) for limit in test.ci)
    p = f"p = {p_text(test.p)}".replace("= <", "< ")
    corrected = ""
    if c.family_size > 1:
        corrected = f", {p_text(c.p_holm)} after Holm's correction"
    over = f"{test.n} {plural(pair_noun([c]))}"
    if c.unpaired:
        own, other = c.unpaired
        over = (
            f"{counted(own, 'run')} of {c.label} and {other} of "
            f"{c.baseline_label}, not in pairs (Welch's test)"
        )
    start = (
        f"With {over}, the mean test error of "
        f"{_lower_or_higher(c)} "
        f"(95% CI {low} to {high}, {p}{corrected}): "
    )
    return start + _conclusion(c)


def short_verdict(group):
    """Sums up all losses of a `Group` in a line without numbers."""
    baseline = loss_label(group.baseline)
    tested = [c for c in group.comparisons if c.test.p is not None]
    parts = []
    for text, chosen in (
        (f"better than {baseline}", [c for c in group.comparisons if c.better]),
        (f"worse than {baseline}", [c for c in group.comparisons if c.worse]),
        (
            f"no difference to {baseline} shown",
            [c for c in tested if not c.shown],
        ),
        (
            "not tested",
            [c for c in group.comparisons if c not in tested and c.test.n],
        ),
        ("not compared", [c for c in group.comparisons if not c.test.n]),
    ):
        if chosen:
            parts.append(f"{text}: {listed([c.label for c in chosen])}")
    return f"{'; '.join(parts) or 'nothing is compared'}."


def pair_noun(comparisons):
    """The singular noun for the pairs of the comparisons."""
    pairs = [pair for c in comparisons for pair in c.seeds]
    folds = any(isinstance(pair, tuple) for pair in pairs)
    return "pair of seed and fold" if folds else "seed"


def _lower_or_higher(c):
    difference = c.test.mean_difference
    if abs(difference) < 1e-12:  # A rounding error of sums.
        return f"{c.label} equals {c.baseline_label}'s"
    size = points(abs(difference))
    if size == "0.00":
        size = "less than 0.01"
    direction = "lower" if difference < 0 else "higher"
    return f"{c.label} is {size} points {direction} than {c.baseline_label}'s"


def _conclusion(c):
    if c.shown:
        return (
            f"{c.label} does {'better' if c.better else 'worse'} than "
            f"{c.baseline_label} here, on this data, network and recipe."
        )
    text = "no difference shown."
    if c.test.p < LEVEL:
        text = (
            "no difference shown, because p is below 0.05 only before the "
            f"correction for {c.family_size} comparisons."
        )
    # An effect from 3 pairs or fewer is too uncertain to plan with. No number
    # of seeds can show an effect of 0.
    if c.test.n > 3 and c.test.n < c.seeds_needed_holm < math.inf:
        count = seeds_text(c.seeds_needed)
        low, high = map(seeds_text, c.seeds_needed_range)
        text += (
            f" If the true difference is the one that was seen, about {count} "
            f"{plural(pair_noun([c]))} "
            f"would show it with 80% power ({low} to {high} over the interval "
            "of the effect)"
        )
        if c.family_size > 1:
            text += (
                " if this were the only comparison, and about "
                f"{seeds_text(c.seeds_needed_holm)} as one of {c.family_size}"
            )
        text += "."
    return text


def group_notes(losses, comparisons, asked_for):
    if asked_for not in (None, losses[0].loss):
        yield (
            f"The baseline {loss_label(asked_for)} has no run here. The losses "
            f"are compared with {losses[0].label}."
        )
    for result in losses:
        if result.diverged:
            yield _diverged_note(result)
    for c in comparisons:
        yield from _pair_notes(c, losses)
    most = max([c.test.n for c in comparisons], default=6)
    noun = pair_noun(comparisons)
    if most == 1:
        yield (
            f"With 1 {noun} there is no standard deviation, no interval and no "
            f"test. Use 6 {plural(noun)} or more."
        )
    elif 1 < most < 6:
        yield (
            f"With {counted(most, noun)} Wilcoxon's test cannot reach 0.05, "
            f"and intervals are wide. Use 6 {plural(noun)} or more."
        )
    if any(r.config.fold is not None for x in losses for r in x.records):
        yield (
            "Pairs are by seed and fold. The training sets of two folds "
            "overlap, so their runs are not independent, and p is smaller "
            "than it should be (Nadeau and Bengio, Machine Learning 52, 2003)."
        )
    yield from _logits_notes(losses)
    yield from _provenance_notes(losses)
    yield from _notes_of_runs(losses)


def _diverged_note(result):
    seeds = [r.config.pair for r in result.diverged]
    left = (
        "it has no other run."
        if not result.records
        else "its numbers come from the other runs only, so they look better "
        "than they are."
    )
    return f"{result.label} diverged with {_seeds_listed(seeds)}: {left}"


def _pair_notes(c, losses):
    if c.unpaired:
        yield (
            f"The runs of {c.label} and {c.baseline_label} have no seeds in "
            "common. They are compared with Welch's test, which finds small "
            "differences less often than a test of pairs."
        )
        return
    baseline = losses[0]
    result = next(x for x in losses if x.loss == c.loss)
    for one, other in ((result, baseline), (baseline, result)):
        missing = [s for s in one.seeds if s not in other.errors]
        if missing:
            yield (
                f"{other.label} has no finished run with "
                f"{_seeds_listed(missing)}. The comparison of {c.label} with "
                f"{c.baseline_label} leaves this out."
            )
    p, p_ranks = c.test.p, c.wilcoxon.p
    reachable = c.wilcoxon.smallest_p is not None
    reachable = reachable and c.wilcoxon.smallest_p < LEVEL
    if p is not None and reachable and (p < LEVEL) != (p_ranks < LEVEL):
        yield (
            f"For {c.label} the t-test (p = {p_text(p)}) and Wilcoxon's test, "
            f"which does not assume normal values (p = {p_text(p_ranks)}), "
            "disagree at 0.05. Be careful with both."
        )


def _notes_of_runs(losses):
    """The notes in the records, each once."""
    return [
        *dict.fromkeys(
            note
            for result in losses
            for record in result.records
            for note in record.result.get("notes", ())
        )
    ]


def _logits_notes(losses):
    without = sum(len(x.records) - len(x.evaluations) for x in losses)
    given = any(r.result.get("given") for x in losses for r in x.records)
    if without and not given:
        yield (
            f"{counted(without, 'run')} came without logits or data. They "
            "count in the errors, but not in calibration, McNemar's test, "
            "confusions and examples."
        )


def _provenance_notes(losses):
    records = [r for x in losses for r in x.records + x.diverged]
    for name in PROVENANCE:
        values = {json.dumps(r.result[name], sort_keys=True) for r in records}
        if len(values) > 1:
            yield (
                f"The runs differ in their {name}. This may cause a part of "
                "the differences."
            )


def _seeds_listed(seeds):
    noun = "seed" if len(seeds) == 1 else "seeds"
    return f"{noun} {listed([pair_text(seed) for seed in sorted(seeds)])}"
