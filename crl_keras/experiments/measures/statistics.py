"""Statistics of runs: spread over seeds, and tests of differences.

Pure functions of one-dimensional arrays, one value per run. Pairs are by
position: `a[i]` and `b[i]` come from the same seed, and a difference is
`a - b`. Values must be finite numbers below 1e100 in magnitude, and paired
arrays must have equal lengths. Otherwise every function raises `ValueError`.
Numbers count as equal if they differ only by rounding in float64, or by less
than 1e-100.

The numbers come from SciPy and statsmodels; without them functions raise
`ImportError`. If a number cannot be computed, because there are too few runs or
all runs are equal, it is None in the result, and `note` says why. `note` also
says if a number can be computed but shows little; otherwise it is "". No number
is ever NaN. All tests are two-sided and all intervals have a confidence level
of 95 %.
"""

import bisect
import math
import warnings

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.measures import _checks
from crl_keras.experiments.measures import _distributions
from crl_keras.experiments.measures import results

LARGEST_EXACT_WILCOXON = 200
MOST_PAIRS = 1_000_000


def summarise(values):
    """Mean, spread, and two confidence intervals of the mean.

    `mean = (1/n) sum_i x_i`, `variance = sum_i (x_i - mean)^2 / (n - 1)`,
    `std = sqrt(variance)`, `ci_t = mean -+ t* std / sqrt(n)`, with `x_i` the
    `n` values and `t*` the 97.5 % quantile of Student's t at `n - 1` degrees
    of freedom. `ci_bca` is the bias-corrected and accelerated bootstrap of the
    mean, with 9999 resamples from the fixed seed `BOOTSTRAP_SEED`: the same
    values give the same interval. All are in the unit of the values, the
    variance in its square.

    `ci_t` needs 2 values that differ, `ci_bca` 3; with fewer they are None.
    For few values `ci_bca` is too short: for a normal distribution it contains
    the true mean 84 % of the time with 5 values, 91 % with 10, 94 % with 40.
    `ci_t` contains it 95 % of the time with any number of values.

    Args:
        values: finite numbers, shape `[n]`.

    Returns:
        A `results.Summary`.

    Source: Student, Biometrika 6 (1908), 1-25; Efron, JASA 82 (1987), 171-185.

    >>> summary = summarise([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> summary.mean, summary.variance
    (3.0, 2.5)
    >>> [round(limit, 4) for limit in summary.ci_t]
    [1.0368, 4.9632]
    """
    stats = require("scipy.stats")
    values = _checks.checked_values("values", values)
    n = len(values)
    mean, std = _mean_and_std(values, _checks.rounding_of(values))
    note = results.no_spread(n, std, "value", "an interval")
    if note:
        variance = None if std is None else 0.0
        return results.Summary(n, mean, std, variance, None, None, note)
    ci_t = _distributions.t_interval(stats, mean, std / math.sqrt(n), n - 1)
    ci_bca, note = None, results.two_distinct_note(values)
    if not note:
        ci_bca = _distributions.bca_interval(stats, values)
    variance = float(np.var(values, ddof=1))
    return results.Summary(n, mean, std, variance, ci_t, ci_bca, note)


def paired_t_test(a, b):
    """Student's t-test of the differences `a - b` of pairs.

    `t = mean(d) / (sd(d) / sqrt(n))` with `df = n - 1` and `d_i = a_i - b_i`,
    over `n` pairs, `sd` taken with `n - 1`; `p = P(|T_df| >= |t|)`; the
    interval is `mean(d) -+ t* sd(d) / sqrt(n)` with `t*` the 97.5 % quantile.
    It assumes normal differences and independent pairs.

    With fewer than 2 pairs, or if all differences are equal, `t` and `p` are
    None. This includes identical runs, whose `t` is 0/0.

    Args:
        a, b: finite numbers, shape `[n]`, paired by position.

    Returns:
        A `results.PairedTTest`.

    Source: Student, Biometrika 6 (1908), 1-25.

    >>> test = paired_t_test([3.0, 5.0, 4.0, 6.0], [1.0, 4.0, 4.0, 3.0])
    >>> test.mean_difference, round(test.t, 4), test.df, round(test.p, 4)
    (1.5, 2.3238, 3, 0.1027)
    """
    stats = require("scipy.stats")
    a, b, rounding = _checks.checked_pairs(a, b)
    n = len(a)
    mean, std = _mean_and_std(a - b, rounding)
    note = results.no_spread(n, std, "pair", "a paired t-test")
    if note:
        return results.PairedTTest(n, mean, std, None, None, None, None, note)
    with warnings.catch_warnings():
        # For almost equal differences; `no_spread` finds the equal ones.
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        test = stats.ttest_rel(a, b)
    ci = tuple(map(float, test.confidence_interval(_distributions.LEVEL)))
    t, p = float(test.statistic), float(test.pvalue)
    return results.PairedTTest(n, mean, std, ci, t, n - 1, p, "")


def wilcoxon_signed_rank(a, b):
    """Wilcoxon's signed-rank test of the differences `a - b` of pairs.

    `W+ = sum_{i: d_i > 0} r_i`, with `d_i = a_i - b_i` and `r_i` the rank of
    `|d_i|`, smallest first; equal ones share the mean of their ranks. Pairs
    without a difference are left out, as in Wilcoxon's paper; `m` pairs remain.
    Under the null hypothesis all `2^m` assignments of signs are equally likely.
    `p` is the share of them whose `W+` is at least as far from its mean as the
    observed one; it is exact, also with ties. The smallest `p` of `m` pairs is
    `2 / 2^m`, so with fewer than 6 pairs no data reach 0.05: `p` is computed
    and `note` says so. Above 200 pairs `p` is the normal approximation,
    corrected for ties.

    It assumes differences that are symmetric about their median.

    Args:
        a, b: finite numbers, shape `[n]`, paired by position.

    Returns:
        A `results.Wilcoxon`. `p` is None for no pairs, and 1 when no pair
        differs.

    Source: Wilcoxon, Biometrics Bulletin 1 (1945), 80-83; Pratt and Gibbons,
    Concepts of Nonparametric Theory (1981), section 3.7, for ties.

    >>> test = wilcoxon_signed_rank([5, 7, 6, 8, 9, 9], [4, 5, 3, 4, 4, 3])
    >>> test.w_plus, test.p, test.smallest_p
    (21.0, 0.03125, 0.03125)
    """
    stats = require("scipy.stats")
    a, b, rounding = _checks.checked_pairs(a, b)
    n = len(a)
    if n == 0:
        note = "0 pairs: a signed-rank test needs at least 1 pair"
        return results.Wilcoxon(n, 0, None, None, None, True, note)
    differences = (a - b)[np.abs(a - b) > rounding]
    ranks = _distributions.ranks(stats, np.abs(differences), rounding)
    w_plus = float(np.sum(ranks[differences > 0]))
    m, exact = len(ranks), len(ranks) <= LARGEST_EXACT_WILCOXON
    if exact:
        p = _distributions.exact_signed_rank_p(ranks, w_plus)
    else:
        signed = np.copysign(ranks, differences)
        p = float(stats.wilcoxon(signed, method="asymptotic").pvalue)
    smallest = min(1.0, 2.0 ** (1 - m))
    note = results.wilcoxon_note(n, n - m, smallest)
    return results.Wilcoxon(n, n - m, w_plus, p, smallest, exact, note)


def paired_effect_size(a, b):
    """Effect size: the mean of `a - b` over its standard deviation.

    `d_z = mean(d) / sd(d)` with `d_i = a_i - b_i` over `n` pairs, `sd` taken
    with `n - 1`. `g = J d_z` removes its bias, with `J = Gamma(df / 2) /
    (sqrt(df / 2) Gamma((df - 1) / 2))` and `df = n - 1`. The interval of `d_z`
    holds the `delta` for which `sqrt(n) d_z` lies between the 2.5 % and 97.5 %
    quantiles of the noncentral t with `df` and noncentrality `sqrt(n) delta`;
    the interval of `g` is `J` times it. Both have no unit and can be any real
    number. `d_z` uses the spread of the differences, not of the runs: it grows
    if the pairs agree better. Do not compare it with Cohen's d.

    With fewer than 2 pairs, or if all differences are equal, all are None;
    `g` needs 3 pairs.

    Args:
        a, b: finite numbers, shape `[n]`, paired by position.

    Returns:
        A `results.PairedEffectSize`.

    Source: Hedges, J. Educ. Stat. 6 (1981), 107-128, eq. 6e; Cumming and
    Finch, Educ. Psychol. Meas. 61 (2001), 532-574.

    >>> size = paired_effect_size([3.0, 5.0, 4.0, 6.0], [1.0, 4.0, 4.0, 3.0])
    >>> round(size.d_z, 4), round(size.g, 4)
    (1.1619, 0.8407)
    >>> [round(limit, 3) for limit in size.ci]
    [-0.201, 2.438]
    """
    stats = require("scipy.stats")
    a, b, rounding = _checks.checked_pairs(a, b)
    n = len(a)
    mean, std = _mean_and_std(a - b, rounding)
    note = results.no_spread(n, std, "pair", "an effect size")
    if note:
        return results.PairedEffectSize(n, None, None, None, None, note)
    d_z = mean / std
    root = math.sqrt(n)
    limits = _distributions.noncentrality_interval(stats, d_z * root, n - 1)
    ci = tuple(limit / root for limit in limits)
    if n == 2:
        note = "2 pairs: Hedges's correction needs at least 3 pairs"
        return results.PairedEffectSize(n, d_z, ci, None, None, note)
    # poch(x, 1/2) = Gamma(x + 1/2) / Gamma(x), without forming either.
    ratio = require("scipy.special").poch((n - 2) / 2, 0.5)
    unbias = float(ratio) / math.sqrt((n - 1) / 2)
    g_ci = tuple(unbias * limit for limit in ci)
    return results.PairedEffectSize(n, d_z, ci, unbias * d_z, g_ci, "")


def holm(p_values):
    """Holm's correction of the p-values of several tests.

    `q_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))`, with `p_(1) <= ... <=
    p_(m)` the sorted p-values of `m` tests. If you reject tests with `q <=
    alpha`, the chance of any false rejection is below `alpha`, even if the
    tests depend on each other.

    Args:
        p_values: numbers in `[0, 1]`, or None for a test that could not be
            made; it does not count.

    Returns:
        A list in the same order, of floats in `[0, 1]`, with None for None.

    Raises:
        ValueError: for any other value.

    Source: Holm, Scand. J. Statist. 6 (1979), 65-70.

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    corrected = list(p_values)
    made = [i for i, p in enumerate(corrected) if p is not None]
    p = [_checks.checked_number("p_values", corrected[i], 0, 1) for i in made]
    if len(p) > 1:  # One test needs no correction, and so no library.
        multitest = require("statsmodels.stats.multitest")
        p = multitest.multipletests(p, method="holm")[1].tolist()
    for i, q in zip(made, p, strict=True):
        corrected[i] = q
    return corrected


def seeds_for_power(effect_size, power=0.8, alpha=0.05):
    """Number of pairs that a paired t-test needs to find an effect.

    The smallest `n >= 2` with `P(|T| >= t*) >= power`, with `T` noncentral t
    of `n - 1` degrees of freedom and noncentrality `sqrt(n) effect_size`, and
    `t*` the `1 - alpha / 2` quantile of the central one. It uses no normal
    approximation. An effect size estimated from few seeds is uncertain, and so
    is this number: compute it also for both limits of the effect's interval.

    Args:
        effect_size: mean difference over the standard deviation of the
            differences, `d_z`; the sign does not matter, and above 10000 it
            counts as 10000.
        power: chance to find the effect, above `alpha` and at most 0.9999.
        alpha: the level of the two-sided test, from 1e-10 to 0.5.

    Returns:
        An int from 2 to 1000000, or `math.inf` if more pairs are needed or no
        number is enough, as for an effect of 0.

    Raises:
        ValueError: if an argument is out of its range.

    Source: Cohen, Statistical Power Analysis, 2nd ed. (1988), section 2.3.

    >>> seeds_for_power(0.5), seeds_for_power(0.0)
    (34, inf)
    """
    stats = require("scipy.stats")
    number, largest = _checks.checked_number, _checks.LARGEST
    effect_size = abs(number("effect_size", effect_size, -largest, largest))
    effect_size = min(effect_size, 1e4)
    alpha = number("alpha", alpha, 1e-10, 0.5)
    power = number("power", power, alpha, 0.9999)
    if power == alpha:
        raise ValueError(
            "`power` must be above `alpha`: every test has that power. "
            f"Received: power={power}, alpha={alpha}"
        )

    def enough(n):
        p = _distributions.paired_power(stats, effect_size, n, alpha)
        return p >= power

    sizes = range(2, MOST_PAIRS + 1)
    place = bisect.bisect_left(sizes, True, key=enough)
    return sizes[place] if place < len(sizes) else math.inf


def mcnemar(correct_a, correct_b):
    """McNemar's exact test of two classifiers on one test set.

    `p = min(1, 2 P(B <= min(n_a, n_b)))`, with `n_a` the samples only `a` has
    right, `n_b` those only `b` has right, and `B` binomial of `n_a + n_b` fair
    tosses. It tests whether these two trained networks differ, not whether
    their losses differ: for that, use several seeds and `paired_t_test`.

    Args:
        correct_a: booleans, shape `[n]`: the samples that `a` predicted right.
        correct_b: the same for `b`, with the same samples in the same order.

    Returns:
        A `results.McNemar`. `p` is None without samples, and 1 if no sample
        has exactly one right.

    Raises:
        ValueError: for anything but booleans, or arrays of unequal length.

    Source: McNemar, Psychometrika 12 (1947), 153-157; exact as in Edwards,
    Psychometrika 13 (1948), 185-187.

    >>> a = [True] * 8 + [False] * 2
    >>> b = [True] * 2 + [False] * 6 + [True, False]
    >>> test = mcnemar(a, b)
    >>> test.only_a, test.only_b, test.p
    (6, 1, 0.125)
    """
    require("scipy.stats")  # statsmodels needs it: report it first.
    tables = require("statsmodels.stats.contingency_tables")
    correct_a = _checks.checked_flags("correct_a", correct_a)
    correct_b = _checks.checked_flags("correct_b", correct_b)
    _checks.check_same_length("correct_a", correct_a, "correct_b", correct_b)
    n = len(correct_a)
    if n == 0:
        note = "0 samples: McNemar's test needs at least 1"
        return results.McNemar(n, 0, 0, None, note)
    only_a = int(np.sum(correct_a & ~correct_b))
    only_b = int(np.sum(correct_b & ~correct_a))
    test = tables.mcnemar([[0, only_a], [only_b, 0]], exact=True)
    note = results.mcnemar_note(only_a + only_b)
    return results.McNemar(n, only_a, only_b, float(test.pvalue), note)


def t_test_from_summary(mean_a, std_a, n_a, mean_b, std_b, n_b):
    """Student's t-test of two unpaired groups, from their printed summaries.

    `t = (mean_a - mean_b) / (s sqrt(1/n_a + 1/n_b))`, with `s^2 = ((n_a - 1)
    std_a^2 + (n_b - 1) std_b^2) / df` and `df = n_a + n_b - 2`;
    `p = P(|T_df| >= |t|)`. It assumes normal values with one common variance.

    Args:
        mean_a: mean of the first group, in any unit.
        std_a: its standard deviation with `n - 1`, in the same unit.
        n_a: its number of values.
        mean_b, std_b, n_b: the same for the second group.

    Returns:
        A `results.UnpairedTTest`; `t` and `p` are None if a group has fewer
        than 2 values (its deviation may be None) or both deviations are 0.

    Raises:
        ValueError: if a number is not finite, or a deviation is negative.

    Source: Fisher, Metron 5 (1925), 90-104. The example is Table V of the
    CRL paper.

    >>> test = t_test_from_summary(76.79, 0.20, 10, 76.46, 0.28, 10)
    >>> round(test.t, 2), test.df, round(test.p, 4)
    (3.03, 18.0, 0.0072)
    """

    def pooled(std_a, n_a, std_b, n_b):
        df = float(n_a + n_b - 2)
        variance = ((n_a - 1) * std_a**2 + (n_b - 1) * std_b**2) / df
        return math.sqrt(variance * (1 / n_a + 1 / n_b)), df

    return _unpaired(pooled, mean_a, std_a, n_a, mean_b, std_b, n_b)


def welch_t_from_summary(mean_a, std_a, n_a, mean_b, std_b, n_b):
    """Welch's t-test of two unpaired groups, from their printed summaries.

    `t = (mean_a - mean_b) / sqrt(v_a + v_b)`, with `v = std^2 / n` of each
    group and `df = (v_a + v_b)^2 / (v_a^2 / (n_a - 1) + v_b^2 / (n_b - 1))`;
    `p = P(|T_df| >= |t|)`. It assumes normal values; variances may differ.

    The arguments, the result, the None values and the errors are as in
    `t_test_from_summary`.

    Source: Welch, Biometrika 34 (1947), 28-35. The example is Table V of the
    CRL paper.

    >>> test = welch_t_from_summary(76.79, 0.20, 10, 76.46, 0.28, 10)
    >>> round(test.t, 2), round(test.df, 2), round(test.p, 4)
    (3.03, 16.29, 0.0078)
    """

    def separate(std_a, n_a, std_b, n_b):
        variance_a, variance_b = std_a**2 / n_a, std_b**2 / n_b
        variance = variance_a + variance_b
        # With shares, because the squares of variances could underflow.
        share_a, share_b = variance_a / variance, variance_b / variance
        df = 1.0 / (share_a**2 / (n_a - 1) + share_b**2 / (n_b - 1))
        return math.sqrt(variance), df

    return _unpaired(separate, mean_a, std_a, n_a, mean_b, std_b, n_b)


def correlation_needed(mean_a, std_a, mean_b, std_b, n, p):
    """The correlation of pairs at which a paired t-test would give `p`.

    `r = (std_a^2 + std_b^2 - s^2) / (2 std_a std_b)`, with `s = |mean_a -
    mean_b| sqrt(n) / t*` the standard deviation of the differences that gives
    a two-sided `p`, and `t*` the `1 - p / 2` quantile of Student's t with
    `n - 1` degrees of freedom. It shows what a printed p-value says about pairs
    whose values were not printed. For a one-sided `p` pass `2 p`.

    Args:
        mean_a: mean of the first of each pair, in any unit.
        std_a: its standard deviation with `n - 1`, in the same unit.
        mean_b, std_b: the same for the second of each pair.
        n: the number of pairs.
        p: the two-sided p-value, from 1e-30 to below 1.

    Returns:
        A `results.CorrelationNeeded`; its `correlation` is None if no
        correlation from -1 to 1 gives this `p`, or if it is not defined: with
        fewer than 2 pairs, or a deviation of 0.

    Raises:
        ValueError: if an argument is out of its range.

    Source: the variance of a difference, `std_a^2 + std_b^2 - 2 r std_a
    std_b`. The example is Table V of the CRL paper, whose printed p is .00136.

    >>> needed = correlation_needed(76.79, 0.20, 76.46, 0.28, 10, 0.00136)
    >>> round(needed.correlation, 2)
    0.59
    """
    stats = require("scipy.stats")
    p = _checks.checked_number("p", p, 1e-30, math.nextafter(1.0, 0.0))
    difference = _checks.checked_difference(mean_a, mean_b)
    n = _checks.checked_integer("n", n, 0)
    note = results.no_spread(n, None, "pair", "a paired t-test")
    if not note:
        std_a, std_b = _checks.checked_stds(std_a, std_b)
        if 0.0 in (std_a, std_b):
            note = "a standard deviation of 0: such values have no correlation"
    if note:
        return results.CorrelationNeeded(None, None, None, None, note)
    t = float(stats.t.isf(p / 2, n - 1))
    std = abs(difference) * math.sqrt(n) / t
    # Not `std**2`: it would raise OverflowError where `*` gives inf.
    correlation = (std_a**2 + std_b**2 - std * std) / (2 * std_a * std_b)
    if difference == 0:
        note = "equal means: a paired t-test gives p = 1 at any correlation"
    elif correlation > 1:
        note = f"no correlation makes p as small as {p:g}"
    elif correlation < -1:
        note = f"every correlation makes p smaller than {p:g}"
    if note:
        correlation = None
    return results.CorrelationNeeded(correlation, std, t, n - 1, note)


def _unpaired(error_and_df, mean_a, std_a, n_a, mean_b, std_b, n_b):
    """An unpaired t-test, or why there is none."""
    stats = require("scipy.stats")
    difference = _checks.checked_difference(mean_a, mean_b)
    n_a = _checks.checked_integer("n_a", n_a, 0)
    n_b = _checks.checked_integer("n_b", n_b, 0)
    note = ""
    if min(n_a, n_b) < 2:
        note = (
            f"groups of {n_a} and {n_b}: a t-test needs at least 2 values in "
            "each"
        )
    else:
        std_a, std_b = _checks.checked_stds(std_a, std_b)
        if std_a == std_b == 0.0:
            note = "both standard deviations are 0: t is undefined"
    if note:
        return results.UnpairedTTest(difference, None, None, None, None, note)
    error, df = error_and_df(std_a, n_a, std_b, n_b)
    t = difference / error
    p = float(2.0 * stats.t.sf(abs(t), df))
    ci = _distributions.t_interval(stats, difference, error, df)
    return results.UnpairedTTest(difference, ci, t, df, p, "")


def _mean_and_std(values, rounding):
    if len(values) < 2:
        return (float(values[0]) if len(values) else None), None
    alike = np.ptp(values) <= rounding
    std = 0.0 if alike else float(np.std(values, ddof=1))
    return float(np.mean(values)), std
