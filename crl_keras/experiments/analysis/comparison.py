"""What the records of an experiment say about its losses, as plain values.

Runs that differ in loss, seed and fold alone form a group, within which losses
are compared by pairs of the same seed and fold; groups that differ in the
learning rate alone form a family. Errors are fractions in `[0, 1]`, differences
are `loss - baseline`, so that a negative one is in favour of the loss. Imports
no backend.
"""

import dataclasses
import json
import math
import zipfile

import numpy as np

from crl_keras.experiments.measures import scores
from crl_keras.experiments.measures import statistics
from crl_keras.experiments.runs.config import LOSSES
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.config import canonical_loss
from crl_keras.experiments.runs.config import crl_parameters
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.config import parse_loss

LEVEL = 0.05  # Of a test: p below it is called a difference.
METHODS = ("as trained", "CRL posterior", "temperature")
# What two runs of a group may differ in, and a reader should know of.
PROVENANCE = ("versions", "device")
# What reports take for granted of every result.json.
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
class Calibration:
    """How well the probabilities of one run fit its test set.

    Attributes:
        nll: negative log-likelihood, nats.
        brier: Brier score, in `[0, 2]`.
        ece: expected calibration error, in `[0, 1]`.
        curve: `scores.ReliabilityCurve`.
        temperature: what the logits were divided by, or None.
    """

    nll: float
    brier: float
    ece: float
    curve: scores.ReliabilityCurve
    temperature: float | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one run's stored logits say.

    Attributes:
        correct: bool `[samples]`, predicted right.
        confusion: int64 `[classes, classes]`, rows are true classes.
        calibrations: dict from a method, one of METHODS, to `Calibration`.
    """

    correct: np.ndarray
    confusion: np.ndarray
    calibrations: dict


@dataclasses.dataclass(frozen=True)
class CalibrationRow:
    """Calibration of one loss after one method, over its seeds.

    Attributes:
        loss: canonical loss.
        method: one of METHODS.
        n: number of runs.
        nll: `statistics.Summary`, and so are `brier` and `ece`.
        temperature: mean of the temperatures, or None.
        curve: mean of the runs' curves, bin by bin.
    """

    loss: str
    method: str
    n: int
    nll: statistics.Summary
    brier: statistics.Summary
    ece: statistics.Summary
    temperature: float | None
    curve: scores.ReliabilityCurve


@dataclasses.dataclass(frozen=True)
class LossResult:
    """The runs of one loss in a group.

    Attributes:
        loss: canonical loss.
        label: how tables call it.
        records: finished `Record`s, by seed.
        diverged: `Record`s that diverged, by seed.
        evaluations: dict from a seed to `Evaluation`, of runs with logits.
        last: `statistics.Summary` of the last-epoch test errors.
        best: the same of the best epoch's, chosen on the test set.
        calibration: tuple of `CalibrationRow`.
    """

    loss: str
    label: str
    records: tuple
    diverged: tuple
    evaluations: dict
    last: statistics.Summary
    best: statistics.Summary
    calibration: tuple

    @property
    def errors(self):
        """Last-epoch test error by seed, or by seed and fold."""
        return {r.config.pair: _last_error(r) for r in self.records}

    @property
    def seeds(self):
        return tuple(self.errors)


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """One loss against the baseline, over the seeds that both have.

    Attributes:
        loss: canonical loss, with its `label`.
        baseline: the baseline's canonical loss, with its `baseline_label`.
        seeds: tuple of the seeds paired.
        differences: tuple, error of the loss minus the baseline's, by seed.
        test: `statistics.PairedTTest`.
        p_holm: its p after Holm's correction over the group, or None.
        family_size: number of tests that correction is over.
        wilcoxon: `statistics.Wilcoxon`.
        effect: `statistics.PairedEffectSize`.
        seeds_needed: for 80 % power of one test at the effect seen,
            `math.inf` for more than a million, or None.
        seeds_needed_range: the same at both ends of the effect's interval.
        seeds_needed_holm: the same where the p must hold after the correction,
            whatever the other losses do.
        mcnemar: tuple of `statistics.McNemar`, by seed; `a` is the loss.
    """

    loss: str
    label: str
    baseline: str
    baseline_label: str
    seeds: tuple
    differences: tuple
    test: statistics.PairedTTest
    p_holm: float | None
    family_size: int
    wilcoxon: statistics.Wilcoxon
    effect: statistics.PairedEffectSize
    seeds_needed: float | None
    seeds_needed_range: tuple | None
    seeds_needed_holm: float | None
    mcnemar: tuple

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
    """Runs that differ in loss and seed alone.

    Attributes:
        title: what names it among the groups of a comparison.
        config: the `RunConfig` of one of them.
        baseline: canonical loss that the others are compared with.
        losses: tuple of `LossResult`, the baseline first.
        comparisons: tuple of `PairedComparison`, of all others.
        notes: tuple of sentences on what is missing or needs care.
    """

    title: str
    config: RunConfig
    baseline: str
    losses: tuple
    comparisons: tuple
    notes: tuple

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


@dataclasses.dataclass(frozen=True)
class Family:
    """Groups that differ in the learning rate alone.

    Attributes:
        title: what names it among the families of a comparison.
        groups: tuple of `Group`, by learning rate.
        losses: tuple of canonical losses, the baseline first.
        best_rates: dict from a loss to its learning rate of lowest mean error,
            among those with the most finished runs of it.
        notes: tuple of sentences on the choice of the rate.
    """

    title: str
    groups: tuple
    losses: tuple
    best_rates: dict
    notes: tuple

    @property
    def config(self):
        return self.groups[0].config


def compare(records, baseline=None, on_run=None):
    """Groups the runs, pairs them by seed, and tests each loss.

    Args:
        records: `Record`s, as `read_records` returns them.
        baseline: loss the others are compared with, None for "ce". In a group
            without it, the first loss is; its notes say so if it was asked
            for.
        on_run: function called with (done, total) as runs are evaluated.

    Returns:
        A tuple of `Family`.

    Raises:
        ValueError: for no records, a baseline of which there is no run, two
            records of the same run, runs of one group that were made from
            different data, or a file that is not what the runner writes.
        ImportError: without SciPy.
    """
    if not records:
        raise ValueError("There is no finished run to compare")
    check_baseline(baseline, (record.config.loss for record in records))
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
        _make_family(title, groups.values(), baseline, count)
        for title, groups in zip(titles, families.values(), strict=True)
    )


def check_baseline(baseline, losses):
    """Raises ValueError for one that is asked for and not among the losses."""
    if baseline is None:
        return
    losses = sorted({canonical_loss(loss) for loss in losses})
    if canonical_loss(baseline) not in losses:
        raise ValueError(
            f"Expected a baseline of which there are runs: {', '.join(losses)}."
            f" Received: {canonical_loss(baseline)}"
        )


def crl_posterior(logits, alpha, beta):
    """Logarithm of the class posterior that a CRL-trained network implies.

    `eta_k = h(p_k) / sum_j h(p_j)`, `h(p) = p (A - p) / (A + (beta - 1) p)`,
    `A = alpha + 1`, with `p` the softmax of the logits: the inverse of what
    minimises the expected loss. It is what `crl_keras.calibration` computes on
    a backend. All is in log space: at `alpha = 0` it is `1 - p` that counts,
    which rounds to 0 for a confident network.

    Args:
        logits: numbers, shape `[samples, classes]`.
        alpha: number >= 0, of the loss the network was trained with.
        beta: number >= -alpha; at 0 this is the logarithm of the softmax.

    Returns:
        `log eta`, float64 `[samples, classes]`; these are logits too.

    Raises:
        ValueError: for `alpha` or `beta` out of its range.

    >>> p = np.array([[0.75, 0.25]])
    >>> np.exp(crl_posterior(np.log(p), alpha=1.0, beta=1.0)).round(4).tolist()
    [[0.6818, 0.3182]]
    """
    if not (alpha >= 0 and alpha + beta >= 0):
        raise ValueError(
            "`alpha` must be >= 0 and `beta` >= -alpha. "
            f"Received: alpha={alpha}, beta={beta}"
        )
    log_p, log_q = _log_p_and_rest(np.asarray(logits, np.float64))
    if beta == 0:
        return log_p
    with np.errstate(divide="ignore"):  # log(0) = -inf is what is meant.
        log_alpha, log_both = np.log(alpha), np.log(alpha + beta)
    # A - p = alpha + q and A + (beta-1) p = (alpha+beta) p + A q, for q = 1-p:
    # sums of what is never negative, so that nothing cancels.
    log_h = log_p + np.logaddexp(log_alpha, log_q)
    log_h -= np.logaddexp(log_both + log_p, np.log(alpha + 1.0) + log_q)
    return log_h - np.logaddexp.reduce(log_h, axis=1, keepdims=True)


def evaluate(record):
    """Scores the stored logits of a finished run, or returns None.

    None is for logits or data that were not copied along. Raises ValueError
    if they are there and do not fit each other or the result.
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
        zipfile.BadZipFile,  # Half copied.
    ) as error:
        raise ValueError(
            f"The logits in {record.path} cannot be scored: {error}. Delete "
            "that folder and run the comparison again"
        ) from error


def verdict(comparison):
    """A sentence or two on what a `PairedComparison` supports, no more."""
    c, test = comparison, comparison.test
    who = f"{c.label} and {c.baseline_label}"
    if test.n == 0:
        return f"No seed has a finished run of both {who}: not compared."
    if test.n == 1:
        return (
            f"With 1 seed, the test error of {_lower_or_higher(c)}. One pair "
            "of runs cannot tell a difference between losses from one between "
            "seeds: nothing is shown."
        )
    if test.p is None:
        ranks = ""
        if c.wilcoxon.p is not None:
            ranks = f" (Wilcoxon's test: p = {p_text(c.wilcoxon.p)})"
        return (
            f"In each of {test.n} {plural(pair_noun([c]))}, the test error of "
            f"{_lower_or_higher(c)}: differences without any spread allow for "
            f"no t-test{ranks}."
        )
    low, high = (points(limit, sign=True) for limit in test.ci)
    p = f"p = {p_text(test.p)}".replace("= <", "< ")
    corrected = ""
    if c.family_size > 1:
        corrected = f", {p_text(c.p_holm)} after Holm's correction"
    start = (
        f"With {test.n} {plural(pair_noun([c]))}, the mean test error of "
        f"{_lower_or_higher(c)} "
        f"(95% CI {low} to {high}, {p}{corrected}): "
    )
    return start + _conclusion(c)


def short_verdict(group):
    """A line on all losses of a `Group`, without numbers."""
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


def points(value, sign=False):
    """A fraction in percent or percentage points, two digits, true minus."""
    text = f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"
    if float(text) == 0:
        text = "0.00"
    return text.replace("-", "\N{MINUS SIGN}")


def p_text(p):
    """A p-value as people print it."""
    if p is None:
        return "\N{EM DASH}"
    if p < 0.001:
        return "<0.001"
    if p >= 0.1:
        return f"{p:.2f}"
    # 0.050 would not say on which side of 0.05 it is.
    return f"{p:.3f}" if f"{p:.3f}" != "0.050" else f"{p:.4g}"


def pair_noun(comparisons):
    """What the pairs of comparisons are counted in, one of them."""
    pairs = [pair for c in comparisons for pair in c.seeds]
    folds = any(isinstance(pair, tuple) for pair in pairs)
    return "pair of seed and fold" if folds else "seed"


def _lower_or_higher(c):
    difference = c.test.mean_difference
    if abs(difference) < 1e-12:  # Of sums of floats.
        return f"{c.label} equals {c.baseline_label}'s"
    size = points(abs(difference))
    if size == "0.00":
        size = "less than 0.01"
    direction = "lower" if difference < 0 else "higher"
    return f"{c.label} is {size} points {direction} than {c.baseline_label}'s"


def _conclusion(c):
    if c.better:
        return (
            f"{c.label} does better than {c.baseline_label} here, on this "
            "data, network and recipe."
        )
    if c.worse:
        return (
            f"{c.label} does worse than {c.baseline_label} here, on this "
            "data, network and recipe."
        )
    text = "no difference shown."
    if c.test.p < LEVEL:
        text = (
            "no difference shown, as p is below 0.05 before the correction "
            f"for {c.family_size} comparisons only."
        )
    # From 3 pairs or fewer the effect is too uncertain to plan with, and of
    # none there is nothing to show.
    if c.test.n > 3 and c.test.n < c.seeds_needed_holm < math.inf:
        count = seeds_text(c.seeds_needed)
        low, high = map(seeds_text, c.seeds_needed_range)
        text += (
            f" If the true difference is the one seen, about {count} "
            f"{plural(pair_noun([c]))} "
            f"would show it with 80% power ({low} to {high} over the interval "
            "of the effect)"
        )
        if c.family_size > 1:
            text += (
                f" where it is the only comparison, and about "
                f"{seeds_text(c.seeds_needed_holm)} among {c.family_size}"
            )
        text += "."
    return text


def seeds_text(n):
    """A number of seeds as people print it."""
    if n is None:
        return "\N{EM DASH}"
    return "\N{INFINITY}" if math.isinf(n) else f"{n:,}"


def _log_p_and_rest(logits):
    """Logarithms of the softmax `p` and of `1 - p`, none from the other."""
    top = np.argmax(logits, axis=1)[:, None]
    others = logits - np.take_along_axis(logits, top, axis=1)
    np.put_along_axis(others, top, -np.inf, axis=1)
    # Relative to the top logit: p_top = 1 / (1 + exp(log_odds)).
    log_odds = np.logaddexp.reduce(others, axis=1, keepdims=True)
    log_sum = np.logaddexp(0.0, log_odds)
    log_p = others - log_sum
    np.put_along_axis(log_p, top, -log_sum, axis=1)
    # Of the top class only can 1 - p be small.
    log_q = np.log1p(-np.minimum(np.exp(log_p), 0.5))
    np.put_along_axis(log_q, top, log_odds - log_sum, axis=1)
    return log_p, log_q


def _family_key(config):
    values = json.loads(config.group)
    del values["recipe"]["learning_rate"]
    return json.dumps(values, sort_keys=True)


def _loss_order(baseline):
    def key(loss):
        name, parameters = parse_loss(loss)
        return (
            loss != baseline,
            list(LOSSES).index(name),
            parameters != LOSSES[name],  # The default before its variants.
            tuple(parameters.values()),
        )

    return key


def _family_titles(families):
    """Data and network, and what else tells families of the same apart."""
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
        titles.append(", ".join([*name, *differ]))
    return titles


def _make_family(title, groups, baseline, count):
    groups = [_make_group(title, group, baseline, count) for group in groups]
    groups = sorted(groups, key=lambda group: group.rate)
    first = groups[0].baseline
    found = {result.loss for group in groups for result in group.losses}
    losses = tuple(sorted(found, key=_loss_order(first)))
    best = {}
    for loss in losses:
        by_rate = _by_rate(groups, loss)
        # Where there are fewer, others diverged or are not done yet.
        most = max(result.last.n for result in by_rate.values())
        means = {
            rate: result.last.mean
            for rate, result in by_rate.items()
            if result.last.n == most > 0
        }
        if means:
            best[loss] = min(means, key=means.get)
    notes = _rate_notes(groups, best) if len(groups) > 1 else ()
    return Family(title, tuple(groups), losses, best, notes)


def _by_rate(groups, loss):
    return {
        group.rate: result
        for group in groups
        for result in group.losses
        if result.loss == loss
    }


def _rate_notes(groups, best):
    notes = [
        "The best rate of a loss is the one of its lowest mean error on the "
        "test set: chosen after the fact, so that error is optimistic, the "
        "more so the more rates were tried.",
        "Holm's correction is over the losses of one learning rate, not over "
        "the rates: among many tables some p below 0.05 are chance.",
    ]
    tried = {loss: sorted(_by_rate(groups, loss)) for loss in best}
    for loss, rate in best.items():
        by_rate = _by_rate(groups, loss)
        fewer = [
            f"{other:g}"
            for other, result in by_rate.items()
            if result.last.n < by_rate[rate].last.n
        ]
        if fewer:
            notes.append(
                f"{loss_label(loss)} has fewer finished runs at "
                f"{listed(fewer)}: not taken for its best rate, whatever the "
                "error of those."
            )
    alone = [loss_label(loss) for loss in best if len(tried[loss]) == 1]
    if alone:
        notes.append(
            f"{listed(alone)}: tried at one rate, which may suit another loss "
            "better. Compare them within that rate alone."
        )
    at_edge = [
        loss_label(loss)
        for loss, rate in best.items()
        if len(tried[loss]) > 1 and rate in (tried[loss][0], tried[loss][-1])
    ]
    if at_edge:
        notes.append(
            f"For {listed(at_edge)} the best rate is the smallest or largest "
            "tried: rates beyond it may be better still."
        )
    return tuple(notes)


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
    return Group(
        title=f"{title}, learning rate {rate:g}",
        config=records[0].config,
        baseline=baseline,
        losses=losses,
        comparisons=comparisons,
        notes=_group_notes(losses, comparisons, asked_for),
    )


def _check_group(records):
    seen, data_of = {}, {}
    for record in records:
        try:
            if missing := RESULT_KEYS - record.result.keys():
                raise KeyError(", ".join(sorted(missing)))
            fingerprint = record.result["dataset"]["fingerprint"]
            if record.result["status"] == "done":
                _last_error(record), _best_error(record)
                if not record.history:
                    raise ValueError(
                        f"{record.path / 'history.csv'} has no epoch: copy the "
                        "run whole, or delete its folder"
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
                f"{record.path} and {first.path} have one configuration "
                "and were made from different data: they are no pair"
            )


def _last_error(record):
    return float(record.result["last"]["error"])


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
    return LossResult(
        loss=loss,
        label=loss_label(loss),
        records=done,
        diverged=tuple(r for r in records if r not in done),
        evaluations=evaluations,
        last=statistics.summarise(_floats(map(_last_error, done))),
        best=statistics.summarise(_floats(map(_best_error, done))),
        calibration=_calibration_rows(loss, evaluations.values()),
    )


def _floats(values):
    return np.array(list(values), dtype=np.float64)


def _evaluate(record, logits, labels):
    test = logits["test"]
    if scores.error(test, labels) != _last_error(record):
        raise ValueError("its error is not the one in result.json")
    methods = {"as trained": (test, None)}
    is_crl = parse_loss(record.config.loss)[0] in ("crl", "nllr")
    # Of soft labels the optimum is another, and the map not its inverse.
    if is_crl and not record.config.recipe.soft_labels:
        parameters = crl_parameters(record.config.loss)
        methods["CRL posterior"] = (crl_posterior(test, **parameters), None)
    if len(logits.get("held_out", ())):
        temperature = scores.fit_temperature(
            logits["held_out"], logits["held_out_labels"]
        )
        # At a bound, where all held-out images are right, it would make the
        # network sure of whatever it has wrong on the test set.
        if not scores.is_bound(temperature):
            scaled = np.asarray(test, np.float64) / temperature
            methods["temperature"] = (scaled, temperature)
    return Evaluation(
        correct=np.argmax(test, axis=1) == labels,
        confusion=scores.confusion_matrix(test, labels),
        calibrations={
            method: _calibration(found, labels, temperature)
            for method, (found, temperature) in methods.items()
        },
    )


def _calibration(logits, labels, temperature):
    found = scores.all_scores(logits, labels)
    return Calibration(
        nll=found["nll"],
        brier=found["brier"],
        ece=found["ece"],
        curve=scores.reliability_curve(logits, labels),
        temperature=temperature,
    )


def _calibration_rows(loss, evaluations):
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
                nll=statistics.summarise(_floats(c.nll for c in found)),
                brier=statistics.summarise(_floats(c.brier for c in found)),
                ece=statistics.summarise(_floats(c.ece for c in found)),
                temperature=None
                if None in temperatures
                else float(np.mean(temperatures)),
                curve=_mean_curve([c.curve for c in found]),
            )
        )
    return tuple(rows)


def _mean_curve(curves):
    # Of one test set, all runs have bins of the same numbers of samples; folds
    # differ a little.
    counts = np.mean([c.count for c in curves], axis=0)
    return scores.ReliabilityCurve(
        confidence=np.mean([c.confidence for c in curves], axis=0),
        accuracy=np.mean([c.accuracy for c in curves], axis=0),
        count=np.rint(counts).astype(np.int64),
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
            # Holm's first step; the later ones are milder.
            seeds_needed_holm=_seeds_needed(c.effect.d_z, max(tested, 1)),
        )
        for c, p in zip(found, corrected, strict=True)
    )


def _compare_pair(result, baseline):
    seeds = tuple(s for s in result.seeds if s in baseline.errors)
    a = _floats(result.errors[s] for s in seeds)
    b = _floats(baseline.errors[s] for s in seeds)
    effect = statistics.paired_effect_size(a, b)
    return PairedComparison(
        loss=result.loss,
        label=result.label,
        baseline=baseline.loss,
        baseline_label=baseline.label,
        seeds=seeds,
        differences=tuple((a - b).tolist()),
        test=statistics.paired_t_test(a, b),
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


def _group_notes(losses, comparisons, asked_for):
    notes = []
    if asked_for not in (None, losses[0].loss):
        notes.append(
            f"There is no run of {loss_label(asked_for)} here, the baseline "
            f"asked for: compared with {losses[0].label}."
        )
    for result in losses:
        if result.diverged:
            notes.append(_diverged_note(result))
    for c in comparisons:
        notes.extend(_pair_notes(c, losses))
    most = max([c.test.n for c in comparisons], default=6)
    noun = pair_noun(comparisons)
    if most == 1:
        notes.append(
            f"With 1 {noun} there is no standard deviation, no interval and no "
            f"test. Use 6 {plural(noun)} or more."
        )
    elif 1 < most < 6:
        notes.append(
            f"With {counted(most, noun)} Wilcoxon's test cannot reach 0.05, "
            f"and intervals are wide. Use 6 {plural(noun)} or more."
        )
    if any(r.config.fold is not None for x in losses for r in x.records):
        notes.append(
            "Pairs are by seed and fold. The training sets of two folds "
            "overlap, so their runs are not independent, and p is smaller "
            "than it should be (Nadeau and Bengio, Machine Learning 52, 2003)."
        )
    if len(losses) == 1:
        notes.append(f"{losses[0].label} is the only loss: nothing to compare.")
    return tuple(notes + _logits_notes(losses) + _provenance_notes(losses))


def _diverged_note(result):
    seeds = [r.config.pair for r in result.diverged]
    left = (
        "no run of it is left."
        if not result.records
        else "its numbers are of the runs that did not diverge, which "
        "flatters it."
    )
    return f"{result.label} diverged with {_seeds_listed(seeds)}: {left}"


def _pair_notes(c, losses):
    baseline = losses[0]
    result = next(x for x in losses if x.loss == c.loss)
    for one, other in ((result, baseline), (baseline, result)):
        missing = [s for s in one.seeds if s not in other.errors]
        if missing:
            yield (
                f"{other.label} has no finished run with "
                f"{_seeds_listed(missing)}: left out of the comparison of "
                f"{c.label} with {c.baseline_label}."
            )
    p, p_ranks = c.test.p, c.wilcoxon.p
    reachable = c.wilcoxon.smallest_p is not None
    reachable = reachable and c.wilcoxon.smallest_p < LEVEL
    if p is not None and reachable and (p < LEVEL) != (p_ranks < LEVEL):
        yield (
            f"For {c.label} the t-test (p = {p_text(p)}) and Wilcoxon's test, "
            f"which assumes no normal values (p = {p_text(p_ranks)}), "
            "disagree at 0.05: be careful with either."
        )


def _logits_notes(losses):
    without = sum(len(x.records) - len(x.evaluations) for x in losses)
    if without:
        return [
            f"{counted(without, 'run')} came without logits or data: they "
            "count in the errors, not in calibration, McNemar's test, "
            "confusions and examples."
        ]
    return []


def _provenance_notes(losses):
    records = [r for x in losses for r in x.records + x.diverged]
    notes = []
    for name in PROVENANCE:
        values = {json.dumps(r.result[name], sort_keys=True) for r in records}
        if len(values) > 1:
            notes.append(
                f"The runs differ in their {name}: pairs may differ for that "
                "reason too."
            )
    return notes


def _seeds_listed(seeds):
    noun = "seed" if len(seeds) == 1 else "seeds"
    return f"{noun} {listed([pair_text(seed) for seed in sorted(seeds)])}"


def pair_text(pair):
    """ "0" for seed 0, "0 (fold 1)" with folds."""
    return str(pair) if isinstance(pair, int) else "{} (fold {})".format(*pair)


def counted(n, noun):
    """ "1 run", "2 runs", "2 pairs of seed and fold"."""
    return f"{n:,} {noun if n == 1 else plural(noun)}"


def plural(noun):
    """ "runs", "pairs of seed and fold"."""
    first, *rest = noun.split(" ", 1)
    return " ".join([f"{first}s", *rest])


def listed(words):
    """ "a", "a and b", "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
