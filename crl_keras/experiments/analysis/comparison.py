"""Compares the losses of an experiment from its records, as plain values.

Runs that differ only in loss, seed and fold form a group. Within a group,
losses are compared in pairs of the same seed and fold. Groups that differ only
in the learning rate form a family. Errors are fractions in `[0, 1]`.
Differences are `loss - baseline`: a negative one is in favour of the loss.
Imports no backend.
"""

import dataclasses
import functools
import json

import numpy as np

from crl_keras.experiments.analysis import rates
from crl_keras.experiments.analysis.evaluation import as_floats
from crl_keras.experiments.analysis.evaluation import calibration_rows
from crl_keras.experiments.analysis.evaluation import evaluate
from crl_keras.experiments.analysis.evaluation import last_error
from crl_keras.experiments.analysis.single import model_of
from crl_keras.experiments.analysis.verdicts import group_notes
from crl_keras.experiments.measures import results
from crl_keras.experiments.measures import statistics
from crl_keras.experiments.runs.config import LOSSES
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.config import canonical_loss
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.config import own_parts
from crl_keras.experiments.runs.config import parse_loss
from crl_keras.experiments.words import LEVEL

# The keys that every result.json must have for a report.
RESULT_KEYS = {
    "backend",
    "best",
    "command",
    "dataset",
    "date",
    "device",
    "devices",
    "epochs",
    "failure",
    "images_per_second",
    "last",
    "network",
    "precision",
    "status",
    "versions",
    "wall_seconds",
}


@dataclasses.dataclass(frozen=True)
class LossResult:
    """The runs of one loss in a group.

    Attributes:
        loss: canonical loss.
        label: name of the loss in tables.
        records: finished `Record`s, in order of the seed.
        diverged: `Record`s that diverged, in order of the seed.
        evaluations: dict from a seed to the `Evaluation` of a run with logits.
        last: `results.Summary` of the test errors of the last epoch.
        best: `results.Summary` of the lowest test errors of any epoch.
        calibration: tuple of `CalibrationRow`.
    """

    loss: str
    label: str
    records: tuple
    diverged: tuple
    evaluations: dict
    last: results.Summary
    best: results.Summary
    calibration: tuple

    @property
    def errors(self):
        """Last-epoch test error by seed, or by seed and fold."""
        return {r.config.pair: last_error(r) for r in self.records}

    @property
    def seeds(self):
        return tuple(self.errors)


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """Compares one loss with the baseline over the seeds of both.

    Attributes:
        loss: canonical loss; `label` is its name in tables.
        baseline: canonical baseline; `baseline_label` is its name.
        seeds: tuple of the paired seeds.
        differences: tuple, error of the loss minus the baseline's, by seed.
        test: `results.PairedTTest`.
        p_holm: p of `test` after Holm's correction over the group, or None.
        family_size: number of tests in the correction.
        wilcoxon: `results.Wilcoxon`.
        effect: `results.PairedEffectSize`.
        seeds_needed: number of seeds for 80 % power of one test at the
            observed effect; `math.inf` for more than a million, or None.
        seeds_needed_range: the numbers at both ends of the effect's interval.
        seeds_needed_holm: the number if p must stay below the level after the
            correction, whatever the other losses do.
        mcnemar: tuple of `results.McNemar`, by seed; `a` is the loss.
        unpaired: numbers of runs of the loss and of the baseline if `test` is
            Welch's test of unpaired runs, or None.
    """

    loss: str
    label: str
    baseline: str
    baseline_label: str
    seeds: tuple
    differences: tuple
    test: results.PairedTTest
    p_holm: float | None
    family_size: int
    wilcoxon: results.Wilcoxon
    effect: results.PairedEffectSize
    seeds_needed: float | None
    seeds_needed_range: tuple | None
    seeds_needed_holm: float | None
    mcnemar: tuple
    unpaired: tuple | None = None

    @property
    def shown(self):
        """Whether a difference is shown, after the correction."""
        return self.p_holm is not None and self.p_holm < LEVEL

    @property
    def better(self):
        return self.shown and self.test.mean_difference < 0

    @property
    def worse(self):
        return self.shown and self.test.mean_difference > 0

    @property
    def mcnemar_p(self):
        """Median over the seeds of McNemar's p, or None."""
        values = [test.p for test in self.mcnemar if test.p is not None]
        return float(np.median(values)) if values else None


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ only in loss, seed and fold.

    Attributes:
        title: the name of the group in the comparison.
        config: the `RunConfig` of one of the runs.
        baseline: canonical loss that the others are compared with.
        losses: tuple of `LossResult`, the baseline first.
        comparisons: tuple of `PairedComparison`, one for each other loss.
        notes: tuple of sentences on missing runs and doubtful numbers.
        own_rates: if every loss has its own learning rate, a dict from each
            loss to a dict from seed to rate; otherwise None.
    """

    title: str
    config: RunConfig
    baseline: str
    losses: tuple
    comparisons: tuple
    notes: tuple
    own_rates: dict | None = None

    @property
    def records(self):
        """All records, finished or not."""
        return tuple(r for x in self.losses for r in x.records + x.diverged)

    @property
    def diverged(self):
        return tuple(r for x in self.losses for r in x.diverged)

    @property
    def rate(self):
        return self.config.recipe.learning_rate

    @functools.cached_property
    def model(self):
        """The `single.Model` of a group with one loss, or None."""
        return model_of(self.losses)


@dataclasses.dataclass(frozen=True)
class Family:
    """Groups that differ only in the learning rate.

    Attributes:
        title: the name of the family in the comparison.
        groups: tuple of `Group`, by learning rate.
        losses: tuple of canonical losses, the baseline first.
        best_rates: dict from each loss to its learning rate of lowest mean
            test error, among the rates with the most finished runs.
        notes: tuple of sentences on the choice of the rate.
        own: `Group` of each loss at its best rate on held-out images, or None
            if there is one rate or no held-out image.
    """

    title: str
    groups: tuple
    losses: tuple
    best_rates: dict
    notes: tuple
    own: Group | None = None

    @property
    def config(self):
        return self.groups[0].config


def compare(records, baseline=None, on_run=None, rates_by_seed=False):
    """Groups the runs, pairs them by seed, and tests each loss.

    Args:
        records: `Record`s, as `read_records` returns them.
        baseline: loss that the others are compared with; None for "ce". A
            group without this loss uses its first loss, and notes this if
            `baseline` was given.
        on_run: function called with (done, total) after each run.
        rates_by_seed: choose the learning rate of a loss for each seed,
            instead of one for all seeds.

    Returns:
        A tuple of `Family`.

    Raises:
        ValueError: if there are no records or no run of the baseline, if two
            records are of the same run, if runs of a group used different
            data, or if a file does not have the expected content.
        ImportError: without SciPy.
    """
    if not records:
        raise ValueError("There is no finished run to compare")
    losses = dict.fromkeys(record.config.loss for record in records)
    baseline = named_loss(baseline or _usual_baseline(records), losses)
    check_baseline(baseline, losses)
    done = 0

    def count():
        nonlocal done
        done += 1
        if on_run:
            on_run(done, len(records))

    families = {}
    for record in records:
        groups = families.setdefault(_family_key(record.config), {})
        groups.setdefault(record.config.group, []).append(record)
    titles = _family_titles(families)
    return tuple(
        _make_family(title, groups.values(), baseline, count, rates_by_seed)
        for title, groups in zip(titles, families.values(), strict=True)
    )


def named_loss(baseline, losses):
    """Finds a loss by its name in tables, or by its spec."""
    by_label = {loss_label(loss): loss for loss in losses if own_parts(loss)}
    return by_label.get(baseline, baseline)


def _usual_baseline(records):
    """The `baseline` argument that `compare_losses` had, or None."""
    found = {r.result.get("baseline") for r in records}
    return found.pop() if len(found) == 1 else None


def check_baseline(baseline, losses):
    """Raises ValueError if the baseline is given and not among the losses."""
    if baseline is None:
        return
    losses = sorted({canonical_loss(loss) for loss in losses})
    if canonical_loss(baseline) not in losses:
        raise ValueError(
            f"Expected a baseline that has runs: {', '.join(losses)}."
            f" Received: {canonical_loss(baseline)}"
        )


def _family_key(config):
    values = json.loads(config.group)
    del values["recipe"]["learning_rate"]
    return json.dumps(values, sort_keys=True)


def _loss_order(baseline):
    def key(loss):
        if own_parts(loss):  # In the user's order.
            return loss != baseline, len(LOSSES)
        name, parameters = parse_loss(loss)
        return (
            loss != baseline,
            list(LOSSES).index(name),
            parameters != LOSSES[name],  # The default before its variants.
            tuple(parameters.values()),
        )

    return key


def _family_titles(families):
    """Data, network, and the settings that differ between such families."""
    configs = [json.loads(key) for key in families]
    for config in configs:
        recipe = config.pop("recipe")
        config.update({f"recipe {name}": v for name, v in recipe.items()})
    names = [(config["dataset"], config["network"]) for config in configs]
    titles = []
    for config, name in zip(configs, names, strict=True):
        alike = [c for c, n in zip(configs, names, strict=True) if n == name]
        differ = [
            f"{key.removeprefix('recipe ')} {value}"
            for key, value in config.items()
            if any(other.get(key) != value for other in alike)
        ]
        titles.append(", ".join(filter(None, [*name, *differ])))
    return titles


def _make_family(title, groups, baseline, count, rates_by_seed):
    groups = [_make_group(title, group, baseline, count) for group in groups]
    groups = tuple(sorted(groups, key=lambda group: group.rate))
    first = groups[0].baseline
    found = dict.fromkeys(x.loss for group in groups for x in group.losses)
    losses = tuple(sorted(found, key=_loss_order(first)))
    best = rates.best_on_test(groups, losses)
    family = Family(title, groups, losses, best, ())
    if len(groups) == 1:
        return family
    notes = rates.test_notes(groups, best)
    chosen = rates.choose(groups, losses, rates_by_seed)
    if chosen is None:
        notes = (rates.no_held_out_note(groups), *notes)
        return dataclasses.replace(family, notes=notes)
    own = _own_rate_group(family, first, chosen, rates_by_seed)
    return dataclasses.replace(family, notes=notes, own=own)


def _own_rate_group(family, baseline, chosen, by_seed):
    """Makes the `Group` of each loss at its chosen rates."""
    order = sorted(chosen, key=lambda loss: loss != baseline)
    losses = tuple(_at_rates(family, loss, chosen[loss]) for loss in order)
    comparisons = _compare_losses(losses)
    notes = rates.choice_notes(family.groups, chosen, by_seed)
    return Group(
        title=f"{family.title}, each loss at its own learning rate",
        config=family.config,
        baseline=order[0],
        losses=losses,
        comparisons=comparisons,
        notes=(*notes, *group_notes(losses, comparisons, None)),
        own_rates=chosen,
    )


def _at_rates(family, loss, chosen):
    """The `LossResult` of a loss from the chosen rate of each pair."""
    by_rate = rates.rates_of(family.groups, loss)
    if len(used := set(chosen.values())) == 1:
        return by_rate[used.pop()]
    records, evaluations = [], {}
    for pair, rate in chosen.items():
        found = by_rate[rate]
        records += [r for r in found.records if r.config.pair == pair]
        evaluations[pair] = found.evaluations[pair]
    return _loss_result(loss, tuple(records), (), evaluations)


def _make_group(title, records, baseline, count):
    _check_group(records)
    by_loss = {}
    for record in records:
        by_loss.setdefault(record.config.loss, []).append(record)
    asked_for = baseline and canonical_loss(baseline)
    baseline = asked_for or "ce"
    if baseline not in by_loss:
        baseline = min(by_loss, key=_loss_order(None))
    losses = tuple(
        _make_loss_result(loss, by_loss[loss], count)
        for loss in sorted(by_loss, key=_loss_order(baseline))
    )
    comparisons = _compare_losses(losses)
    rate = records[0].config.recipe.learning_rate
    if not is_given(records[0]) or records[0].result["with_rate"]:
        title = f"{title}, learning rate {rate:g}"
    return Group(
        title=title,
        config=records[0].config,
        baseline=baseline,
        losses=losses,
        comparisons=comparisons,
        notes=tuple(group_notes(losses, comparisons, asked_for)),
    )


def is_given(record):
    """Whether a result comes from `compare_results`, not from our runs."""
    return bool(record.result.get("given"))


def _check_group(records):
    seen, data_of = {}, {}
    for record in records:
        try:
            if missing := RESULT_KEYS - record.result.keys():
                raise KeyError(", ".join(sorted(missing)))
            fingerprint = record.result["dataset"]["fingerprint"]
            if record.result["status"] == "done":
                last_error(record), _best_error(record)
                if not record.history and not is_given(record):
                    raise ValueError(
                        f"{record.path / 'history.csv'} has no epoch: copy "
                        "all files of the run, or delete its folder"
                    )
            else:
                record.result["failure"]["epoch"]
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{record.path / 'result.json'} is not what this version "
                f"writes: {error!r}. Delete that folder, or make the report "
                "with the version that made the run"
            ) from error
        key = record.config.run_id
        if key in seen:
            raise ValueError(
                f"{record.path} and {seen[key].path} are the same run: delete "
                "the copy, or it counts twice"
            )
        seen[key] = record
        first, expected = data_of.setdefault(
            record.config.fold, (record, fingerprint)
        )
        if fingerprint != expected:
            raise ValueError(
                f"{record.path} and {first.path} have the same configuration "
                "but were made from different data: they cannot be compared"
            )


def _best_error(record):
    return float(record.result["best"]["test_error"])


def _make_loss_result(loss, records, count):
    records = sorted(records, key=lambda record: record.config.pair)
    done = tuple(r for r in records if r.result["status"] == "done")
    evaluations = {}
    for record in records:
        if record in done and (found := evaluate(record)):
            evaluations[record.config.pair] = found
        count()
    diverged = tuple(r for r in records if r not in done)
    return _loss_result(loss, done, diverged, evaluations)


def _loss_result(loss, done, diverged, evaluations):
    return LossResult(
        loss=loss,
        label=loss_label(loss),
        records=done,
        diverged=diverged,
        evaluations=evaluations,
        last=statistics.summarise(as_floats(map(last_error, done))),
        best=statistics.summarise(as_floats(map(_best_error, done))),
        calibration=calibration_rows(loss, evaluations.values()),
    )


def _compare_losses(losses):
    baseline, *others = losses
    found = [_compare_pair(result, baseline) for result in others]
    corrected = statistics.holm([c.test.p for c in found])
    tested = sum(p is not None for p in corrected)
    return tuple(
        dataclasses.replace(
            c,
            p_holm=p,
            family_size=tested,
            # The first and strictest step of Holm's correction.
            seeds_needed_holm=_seeds_needed(c.effect.d_z, max(tested, 1)),
        )
        for c, p in zip(found, corrected, strict=True)
    )


def is_unpaired(result, baseline):
    """Whether results from `compare_results` have no seeds in common."""
    records = [*result.records, *baseline.records]
    if not records or not all(map(is_given, records)):
        return False
    unpaired = any(r.result["unpaired"] for r in records)
    return unpaired or not set(result.errors) & set(baseline.errors)


def tested(of_loss, of_baseline, unpaired):
    """Tests the numbers of two losses, by seed; returns a `PairedTTest`.

    If the runs are unpaired, the result holds Welch's test of all runs.
    """
    if not unpaired:
        seeds = [seed for seed in of_loss if seed in of_baseline]
        return statistics.paired_t_test(
            as_floats(of_loss[s] for s in seeds),
            as_floats(of_baseline[s] for s in seeds),
        )
    both = [
        statistics.summarise(as_floats(values.values()))
        for values in (of_loss, of_baseline)
    ]
    n = sum(summary.n for summary in both)
    if not all(summary.n for summary in both):
        note = "one has no run"
        return results.PairedTTest(0, None, None, None, None, None, None, note)
    numbers = [x for s in both for x in (s.mean, s.std, s.n)]
    welch = statistics.welch_t_from_summary(*numbers)
    return results.PairedTTest(n=n, std_difference=None, **vars(welch))


def _compare_pair(result, baseline):
    unpaired = is_unpaired(result, baseline)
    seeds = tuple(
        s for s in result.seeds if s in baseline.errors and not unpaired
    )
    a = as_floats(result.errors[s] for s in seeds)
    b = as_floats(baseline.errors[s] for s in seeds)
    effect = statistics.paired_effect_size(a, b)
    return PairedComparison(
        loss=result.loss,
        label=result.label,
        baseline=baseline.loss,
        baseline_label=baseline.label,
        seeds=seeds,
        differences=tuple((a - b).tolist()),
        test=tested(result.errors, baseline.errors, unpaired),
        p_holm=None,
        family_size=0,
        wilcoxon=statistics.wilcoxon_signed_rank(a, b),
        effect=effect,
        seeds_needed=_seeds_needed(effect.d_z),
        seeds_needed_range=_seeds_needed_range(effect.ci),
        seeds_needed_holm=None,
        mcnemar=tuple(
            statistics.mcnemar(
                result.evaluations[s].correct, baseline.evaluations[s].correct
            )
            for s in seeds
            if s in result.evaluations and s in baseline.evaluations
        ),
        unpaired=(len(result.records), len(baseline.records))
        if unpaired
        else None,
    )


def _seeds_needed(d_z, tests=1):
    if d_z is None:
        return None
    return statistics.seeds_for_power(d_z, alpha=LEVEL / tests)


def _seeds_needed_range(ci):
    if ci is None:
        return None
    nearest = 0.0 if ci[0] < 0 < ci[1] else min(map(abs, ci))
    return _seeds_needed(max(map(abs, ci))), _seeds_needed(nearest)
