"""Statistics of runs: spread over seeds, and what a difference supports.

Pure functions of one-dimensional arrays, one value a run. Pairs are by
position: `a[i]` and `b[i]` come from the same seed, and a difference is
`a - b`. Values are finite and below 1e100 in magnitude; what is not, arrays of
unequal length, and anything but numbers is a `ValueError`. Numbers count as
equal that only rounding in float64 tells apart, or less than 1e-100.

What cannot be computed, for too few runs or for runs all alike, is None in the
result, and `note` says why; `note` also says where a number can be computed
but not say much, and is "" otherwise. Nothing is ever NaN. All tests are
two-sided and all intervals have a confidence level of 95 %.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from numbers import Real

import numpy as np

from crl_keras.experiments._optional import require

LEVEL = 0.95
TAIL = (1.0 - LEVEL) / 2.0

LARGEST = 1e100
SMALLEST = 1e-100  # Squares of smaller spreads would underflow.

BOOTSTRAP_SEED = 20200309
BOOTSTRAP_RESAMPLES = 9999

LARGEST_EXACT_WILCOXON = 200
MOST_PAIRS = 1_000_000


@dataclass(frozen=True)
class Summary:
    """What `summarise` returns, in the unit of the values.

    Attributes:
        n: the number of values.
        mean: None for no values.
        std: standard deviation with `n - 1`, None below 2 values.
        variance: its square.
        ci_t: `(low, high)` by Student's t, or None.
        ci_bca: `(low, high)` by the BCa bootstrap, or None.
        note: what is None and why.
    """

    n: int
    mean: float | None
    std: float | None
    variance: float | None
    ci_t: tuple[float, float] | None
    ci_bca: tuple[float, float] | None
    note: str


@dataclass(frozen=True)
class PairedTTest:
    """What `paired_t_test` returns.

    Attributes:
        n: the number of pairs.
        mean_difference: in the unit of the values, None for no pairs.
        std_difference: standard deviation of the differences with `n - 1`.
        ci: `(low, high)` of the mean difference, or None.
        t: the statistic, or None.
        df: degrees of freedom, `n - 1`, or None.
        p: two-sided, or None.
        note: what is None and why.
    """

    n: int
    mean_difference: float | None
    std_difference: float | None
    ci: tuple[float, float] | None
    t: float | None
    df: int | None
    p: float | None
    note: str


@dataclass(frozen=True)
class Wilcoxon:
    """What `wilcoxon_signed_rank` returns.

    Attributes:
        n: the number of pairs.
        n_zero: those without a difference, which are left out.
        w_plus: the sum of the ranks of positive differences, or None.
        p: two-sided, or None.
        smallest_p: the smallest `p` that so many pairs can give, or None.
        exact: False for the normal approximation.
        note: what is None and why, or what the test cannot show.
    """

    n: int
    n_zero: int
    w_plus: float | None
    p: float | None
    smallest_p: float | None
    exact: bool
    note: str


@dataclass(frozen=True)
class PairedEffectSize:
    """What `paired_effect_size` returns, in standard deviations.

    Attributes:
        n: the number of pairs.
        d_z: mean of the differences over their standard deviation, or None.
        ci: `(low, high)` of it, or None.
        g: `d_z` without its bias (Hedges), or None.
        g_ci: `(low, high)` of it, or None.
        note: what is None and why.
    """

    n: int
    d_z: float | None
    ci: tuple[float, float] | None
    g: float | None
    g_ci: tuple[float, float] | None
    note: str


@dataclass(frozen=True)
class McNemar:
    """What `mcnemar` returns.

    Attributes:
        n: the number of samples.
        only_a: those only `a` has right.
        only_b: those only `b` has right.
        p: two-sided, or None.
        note: what is None and why, or what the test cannot show.
    """

    n: int
    only_a: int
    only_b: int
    p: float | None
    note: str


@dataclass(frozen=True)
class UnpairedTTest:
    """What `t_test_from_summary` and `welch_t_from_summary` return.

    Attributes:
        mean_difference: `mean_a - mean_b`, in their unit.
        ci: `(low, high)` of it, or None.
        t: the statistic, or None.
        df: degrees of freedom, or None.
        p: two-sided, or None.
        note: what is None and why.
    """

    mean_difference: float
    ci: tuple[float, float] | None
    t: float | None
    df: float | None
    p: float | None
    note: str


@dataclass(frozen=True)
class CorrelationNeeded:
    """What `correlation_needed` returns.

    Attributes:
        correlation: from -1 to 1, or None where none gives that `p`.
        std_difference: the standard deviation of the differences that gives
            it, in the unit of the means, or None.
        t: the statistic whose `p` it is, above 0, or None.
        df: degrees of freedom, `n - 1`, or None.
        note: what is None and why.
    """

    correlation: float | None
    std_difference: float | None
    t: float | None
    df: int | None
    note: str


def summarise(values):
    """Mean, spread, and two confidence intervals of the mean.

    `mean = (1/n) sum_i x_i`, `variance = sum_i (x_i - mean)^2 / (n - 1)`,
    `std = sqrt(variance)`, `ci_t = mean -+ t* std / sqrt(n)`, with `x_i` the
    `n` values and `t*` the 97.5 % quantile of Student's t at `n - 1` degrees
    of freedom. `ci_bca` is the bias-corrected and accelerated bootstrap of the
    mean, of 9999 resamples from the fixed seed `BOOTSTRAP_SEED`: the same
    values give the same interval. All are in the unit of the values, the
    variance in its square.

    `ci_t` needs 2 values that differ, `ci_bca` 3; with fewer they are None.
    Of few values `ci_bca` is too short: drawn from a normal distribution it
    holds the true mean 84 % of the time with 5 values, 91 % with 10, 94 % with
    40, where `ci_t` does 95 % with any number.

    Args:
        values: finite numbers, shape `[n]`.

    Returns:
        A `Summary`.

    Raises:
        ValueError: for values the module does not take.
        ImportError: without SciPy.

    Source: Student, Biometrika 6 (1908), 1-25; Efron, JASA 82 (1987), 171-185.

    >>> summary = summarise([1.0, 2.0, 3.0, 4.0, 5.0])
    >>> summary.mean, summary.variance
    (3.0, 2.5)
    >>> [round(limit, 4) for limit in summary.ci_t]
    [1.0368, 4.9632]
    """
    stats = require("scipy.stats")
    values = _checked_values("values", values)
    n = len(values)
    mean = _mean(values)
    std = _std(values, _rounding(values))
    note = _no_spread(n, std, "value", "an interval")
    if note:
        variance = None if std is None else 0.0
        return Summary(n, mean, std, variance, None, None, note)
    ci_t = _t_interval(stats, mean, std / math.sqrt(n), n - 1)
    ci_bca = None
    if len(np.unique(values)) < 3:
        note = (
            f"{n} values, 2 of them distinct: a BCa interval needs at least 3 "
            "distinct values"
        )
    else:
        ci_bca = _bca_interval(stats, values)
    variance = float(np.var(values, ddof=1))
    return Summary(n, mean, std, variance, ci_t, ci_bca, note)


def paired_t_test(a, b):
    """Student's t-test of the differences `a - b` of pairs.

    `t = mean(d) / (sd(d) / sqrt(n))` with `df = n - 1` and `d_i = a_i - b_i`,
    over `n` pairs, `sd` taken with `n - 1`; `p = P(|T_df| >= |t|)`; the
    interval is `mean(d) -+ t* sd(d) / sqrt(n)` with `t*` the 97.5 % quantile.
    Assumes differences that are normal and pairs that are independent.

    With fewer than 2 pairs, or differences that are all equal, `t` and `p` are
    None: also for identical runs, whose `t` is 0/0.

    Args:
        a: finite numbers, shape `[n]`.
        b: the same, paired with `a` by position.

    Returns:
        A `PairedTTest`.

    Raises:
        ValueError: for values the module does not take.
        ImportError: without SciPy.

    Source: Student, Biometrika 6 (1908), 1-25.

    >>> test = paired_t_test([3.0, 5.0, 4.0, 6.0], [1.0, 4.0, 4.0, 3.0])
    >>> test.mean_difference, round(test.t, 4), test.df, round(test.p, 4)
    (1.5, 2.3238, 3, 0.1027)
    """
    stats = require("scipy.stats")
    differences, rounding = _differences(a, b)
    n = len(differences)
    mean = _mean(differences)
    std = _std(differences, rounding)
    note = _no_spread(n, std, "pair", "a paired t-test")
    if note:
        return PairedTTest(n, mean, std, None, None, None, None, note)
    error = std / math.sqrt(n)
    t = mean / error
    ci = _t_interval(stats, mean, error, n - 1)
    return PairedTTest(
        n, mean, std, ci, t, n - 1, _two_sided(stats, t, n - 1), ""
    )


def wilcoxon_signed_rank(a, b):
    """Wilcoxon's signed-rank test of the differences `a - b` of pairs.

    `W+ = sum_{i: d_i > 0} r_i`, with `d_i = a_i - b_i` and `r_i` the rank of
    `|d_i|`, smallest first, equal ones sharing the mean of their ranks. Pairs
    without a difference are left out, as in Wilcoxon's paper; `m` remain. Under
    the hypothesis all `2^m` assignments of signs are equally likely, and `p`
    is the share of them whose `W+` is at least as far from its mean as this
    one: exact for the ties at hand. The smallest `p` of `m` pairs is `2 / 2^m`,
    so below 6 pairs no data reach 0.05: `p` is computed and `note` says so.
    Above 200 pairs it is the normal approximation, corrected for ties.

    Assumes differences that are symmetric about their median.

    Args:
        a: finite numbers, shape `[n]`.
        b: the same, paired with `a` by position.

    Returns:
        A `Wilcoxon`. `p` is None for no pairs, and 1 when no pair differs.

    Raises:
        ValueError: for values the module does not take.
        ImportError: without SciPy.

    Source: Wilcoxon, Biometrics Bulletin 1 (1945), 80-83; Pratt and Gibbons,
    Concepts of Nonparametric Theory (1981), section 3.7, for ties.

    >>> test = wilcoxon_signed_rank([5, 7, 6, 8, 9, 9], [4, 5, 3, 4, 4, 3])
    >>> test.w_plus, test.p, test.smallest_p
    (21.0, 0.03125, 0.03125)
    """
    stats = require("scipy.stats")
    differences, rounding = _differences(a, b)
    n = len(differences)
    if n == 0:
        note = "0 pairs: a signed-rank test needs at least 1 pair"
        return Wilcoxon(n, 0, None, None, None, True, note)
    differences = differences[np.abs(differences) > rounding]
    ranks = _ranks(np.abs(differences), rounding)
    m = len(ranks)
    w_plus = float(np.sum(ranks[differences > 0]))
    exact = m <= LARGEST_EXACT_WILCOXON
    if exact:
        p = _exact_signed_rank_p(ranks, w_plus)
    else:
        p = _normal_signed_rank_p(stats, ranks, w_plus)
    smallest = min(1.0, 2.0 ** (1 - m))
    note = _wilcoxon_note(n, n - m, smallest)
    return Wilcoxon(n, n - m, w_plus, p, smallest, exact, note)


def paired_effect_size(a, b):
    """Size of the difference `a - b` of pairs, in its standard deviations.

    `d_z = mean(d) / sd(d)` with `d_i = a_i - b_i` over `n` pairs, `sd` taken
    with `n - 1`. `g = J d_z` removes its bias, with `J = Gamma(df / 2) /
    (sqrt(df / 2) Gamma((df - 1) / 2))` and `df = n - 1`. The interval of `d_z`
    holds the `delta` for which `sqrt(n) d_z` lies between the 2.5 % and 97.5 %
    quantiles of the noncentral t with `df` and noncentrality `sqrt(n) delta`;
    that of `g` is `J` times it. Without a unit, any real number. It is the
    spread of the differences that counts here, not that of the runs: `d_z` is
    larger the better pairs agree, and not to be compared with Cohen's d.

    With fewer than 2 pairs, or differences that are all equal, all are None;
    `g` needs 3 pairs.

    Args:
        a: finite numbers, shape `[n]`.
        b: the same, paired with `a` by position.

    Returns:
        A `PairedEffectSize`.

    Raises:
        ValueError: for values the module does not take.
        ImportError: without SciPy.

    Source: Hedges, J. Educ. Stat. 6 (1981), 107-128, eq. 6e; Cumming and
    Finch, Educ. Psychol. Meas. 61 (2001), 532-574.

    >>> size = paired_effect_size([3.0, 5.0, 4.0, 6.0], [1.0, 4.0, 4.0, 3.0])
    >>> round(size.d_z, 4), round(size.g, 4)
    (1.1619, 0.8407)
    >>> [round(limit, 3) for limit in size.ci]
    [-0.201, 2.438]
    """
    stats = require("scipy.stats")
    differences, rounding = _differences(a, b)
    n = len(differences)
    std = _std(differences, rounding)
    note = _no_spread(n, std, "pair", "an effect size")
    if note:
        return PairedEffectSize(n, None, None, None, None, note)
    d_z = _mean(differences) / std
    limits = _noncentrality_interval(stats, d_z * math.sqrt(n), n - 1)
    ci = tuple(limit / math.sqrt(n) for limit in limits)
    if n == 2:
        note = "2 pairs: Hedges's correction needs at least 3 pairs"
        return PairedEffectSize(n, d_z, ci, None, None, note)
    unbias = _hedges_correction(n - 1)
    g_ci = tuple(unbias * limit for limit in ci)
    return PairedEffectSize(n, d_z, ci, unbias * d_z, g_ci, "")


def holm(p_values):
    """Holm's correction of the p-values of several tests.

    `q_(i) = max_{j <= i} min(1, (m - j + 1) p_(j))`, with `p_(1) <= ... <=
    p_(m)` the sorted p-values of `m` tests. Rejecting where `q <= alpha` keeps
    the chance of any false rejection below `alpha`, whatever the dependence.

    Args:
        p_values: numbers in `[0, 1]`, or None for a test that could not be
            made, which does not count.

    Returns:
        A list in the order given, of floats in `[0, 1]`, None where None was.

    Raises:
        ValueError: for anything else.

    Source: Holm, Scand. J. Statist. 6 (1979), 65-70.

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    corrected = list(p_values)
    for p in corrected:
        if p is not None:
            _checked_number("p_values", p, 0.0, 1.0)
    made = [i for i, p in enumerate(corrected) if p is not None]
    made.sort(key=lambda i: corrected[i])
    largest = 0.0
    for tests_before, i in enumerate(made):
        factor = len(made) - tests_before
        largest = max(largest, min(1.0, factor * float(corrected[i])))
        corrected[i] = largest
    return corrected


def seeds_for_power(effect_size, power=0.8, alpha=0.05):
    """Number of pairs with which a paired t-test finds an effect that size.

    The smallest `n >= 2` with `P(|T| >= t*) >= power`, with `T` noncentral t
    of `n - 1` degrees of freedom and noncentrality `sqrt(n) effect_size`, and
    `t*` the `1 - alpha / 2` quantile of the central one. No normal
    approximation is made. An effect size estimated from few seeds is itself
    uncertain, and so is this number: look at it for both limits of its
    interval too.

    Args:
        effect_size: mean difference over the standard deviation of the
            differences, `d_z`; the sign does not matter, and above 10000 it
            counts as 10000.
        power: chance to find it, above `alpha` and at most 0.9999.
        alpha: the level of the two-sided test, from 1e-10 to 0.5.

    Returns:
        An int from 2 to 1000000, or `math.inf` for more or never, as for an
        effect of 0.

    Raises:
        ValueError: for an argument out of its range.
        ImportError: without SciPy.

    Source: Cohen, Statistical Power Analysis, 2nd ed. (1988), section 2.3.

    >>> seeds_for_power(0.5), seeds_for_power(0.0)
    (34, inf)
    """
    stats = require("scipy.stats")
    effect_size = _checked_number("effect_size", effect_size, -LARGEST, LARGEST)
    alpha = _checked_number("alpha", alpha, 1e-10, 0.5)
    power = _checked_number("power", power, alpha, 0.9999)
    if power == alpha:
        raise ValueError(
            "`power` must be above `alpha`, which a test of any size has. "
            f"Received: power={power}, alpha={alpha}"
        )
    effect_size = min(abs(effect_size), 1e4)

    def enough(n):
        return _paired_power(stats, effect_size, n, alpha) >= power

    if not enough(MOST_PAIRS):
        return math.inf
    too_few, n = 1, 2
    while not enough(n):
        too_few, n = n, min(2 * n, MOST_PAIRS)
    while n - too_few > 1:
        middle = (too_few + n) // 2
        too_few, n = (too_few, middle) if enough(middle) else (middle, n)
    return n


def mcnemar(correct_a, correct_b):
    """McNemar's exact test of two classifiers on one test set.

    `p = min(1, 2 P(B <= min(n_a, n_b)))`, with `n_a` the samples only `a` has
    right, `n_b` those only `b` has right, and `B` binomial of `n_a + n_b` fair
    tosses. It says whether these two trained networks differ, not whether
    their losses do: that takes several seeds and `paired_t_test`.

    Args:
        correct_a: booleans, shape `[n]`: predicted right.
        correct_b: the same of the same samples in the same order.

    Returns:
        A `McNemar`. `p` is None for no samples, and 1 when no sample has
        exactly one right.

    Raises:
        ValueError: for anything but booleans, or arrays of unequal length.
        ImportError: without SciPy.

    Source: McNemar, Psychometrika 12 (1947), 153-157; exact as in Edwards,
    Psychometrika 13 (1948), 185-187.

    >>> a = [True] * 8 + [False] * 2
    >>> b = [True] * 2 + [False] * 6 + [True, False]
    >>> test = mcnemar(a, b)
    >>> test.only_a, test.only_b, test.p
    (6, 1, 0.125)
    """
    stats = require("scipy.stats")
    correct_a = _checked_flags("correct_a", correct_a)
    correct_b = _checked_flags("correct_b", correct_b)
    _check_same_length("correct_a", correct_a, "correct_b", correct_b)
    n = len(correct_a)
    if n == 0:
        note = "0 samples: McNemar's test needs at least 1"
        return McNemar(n, 0, 0, None, note)
    only_a = int(np.sum(correct_a & ~correct_b))
    only_b = int(np.sum(correct_b & ~correct_a))
    either = only_a + only_b
    p = min(1.0, 2.0 * float(stats.binom.cdf(min(only_a, only_b), either, 0.5)))
    note = ""
    if either < 6:
        smallest = min(1.0, 2.0 ** (1 - either))
        note = (
            f"{_count(either, 'sample')} with exactly one right: p cannot be "
            f"below {smallest:g}"
        )
    return McNemar(n, only_a, only_b, p, note)


def t_test_from_summary(mean_a, std_a, n_a, mean_b, std_b, n_b):
    """Student's t-test of two unpaired groups, from their printed summaries.

    `t = (mean_a - mean_b) / (s sqrt(1/n_a + 1/n_b))`, with `s^2 = ((n_a - 1)
    std_a^2 + (n_b - 1) std_b^2) / df` and `df = n_a + n_b - 2`;
    `p = P(|T_df| >= |t|)`. Assumes normal values of one common variance.

    Args:
        mean_a: mean of the first group, in any unit.
        std_a: its standard deviation with `n - 1`, in the same unit.
        n_a: its number of values.
        mean_b: mean of the second group.
        std_b: its standard deviation.
        n_b: its number of values.

    Returns:
        An `UnpairedTTest`; `t` and `p` are None for fewer than 2 values in a
        group, whose deviation may be None, and for two deviations of 0.

    Raises:
        ValueError: for a number that is not finite, or a negative deviation.
        ImportError: without SciPy.

    Source: Fisher, Metron 5 (1925), 90-104. The example is Table V of the
    CRL paper.

    >>> test = t_test_from_summary(76.79, 0.20, 10, 76.46, 0.28, 10)
    >>> round(test.t, 2), test.df, round(test.p, 4)
    (3.03, 18.0, 0.0072)
    """
    stats = require("scipy.stats")
    difference = _mean_difference(mean_a, mean_b)
    n_a, n_b = _checked_count("n_a", n_a), _checked_count("n_b", n_b)
    note = _few_values(n_a, n_b)
    if not note:
        std_a, std_b = (
            _checked_std("std_a", std_a),
            _checked_std("std_b", std_b),
        )
        note = _no_deviation(std_a, std_b)
    if note:
        return UnpairedTTest(difference, None, None, None, None, note)
    df = float(n_a + n_b - 2)
    variance = ((n_a - 1) * std_a**2 + (n_b - 1) * std_b**2) / df
    error = math.sqrt(variance * (1 / n_a + 1 / n_b))
    return _unpaired(stats, difference, error, df)


def welch_t_from_summary(mean_a, std_a, n_a, mean_b, std_b, n_b):
    """Welch's t-test of two unpaired groups, from their printed summaries.

    `t = (mean_a - mean_b) / sqrt(v_a + v_b)`, with `v = std^2 / n` of each
    group and `df = (v_a + v_b)^2 / (v_a^2 / (n_a - 1) + v_b^2 / (n_b - 1))`;
    `p = P(|T_df| >= |t|)`. Assumes normal values; variances may differ.

    Args:
        mean_a: mean of the first group, in any unit.
        std_a: its standard deviation with `n - 1`, in the same unit.
        n_a: its number of values.
        mean_b: mean of the second group.
        std_b: its standard deviation.
        n_b: its number of values.

    Returns:
        An `UnpairedTTest`; `t` and `p` are None for fewer than 2 values in a
        group, whose deviation may be None, and for two deviations of 0.

    Raises:
        ValueError: for a number that is not finite, or a negative deviation.
        ImportError: without SciPy.

    Source: Welch, Biometrika 34 (1947), 28-35. The example is Table V of the
    CRL paper.

    >>> test = welch_t_from_summary(76.79, 0.20, 10, 76.46, 0.28, 10)
    >>> round(test.t, 2), round(test.df, 2), round(test.p, 4)
    (3.03, 16.29, 0.0078)
    """
    stats = require("scipy.stats")
    difference = _mean_difference(mean_a, mean_b)
    n_a, n_b = _checked_count("n_a", n_a), _checked_count("n_b", n_b)
    note = _few_values(n_a, n_b)
    if not note:
        std_a, std_b = (
            _checked_std("std_a", std_a),
            _checked_std("std_b", std_b),
        )
        note = _no_deviation(std_a, std_b)
    if note:
        return UnpairedTTest(difference, None, None, None, None, note)
    variance_a = std_a**2 / n_a
    variance_b = std_b**2 / n_b
    variance = variance_a + variance_b
    # By shares, as the squares of variances could underflow.
    share_a, share_b = variance_a / variance, variance_b / variance
    df = 1.0 / (share_a**2 / (n_a - 1) + share_b**2 / (n_b - 1))
    return _unpaired(stats, difference, math.sqrt(variance), df)


def correlation_needed(mean_a, std_a, mean_b, std_b, n, p):
    """The correlation of pairs at which a paired t-test would give `p`.

    `r = (std_a^2 + std_b^2 - s^2) / (2 std_a std_b)`, with `s = |mean_a -
    mean_b| sqrt(n) / t*` the standard deviation of the differences that gives
    a two-sided `p`, and `t*` the `1 - p / 2` quantile of Student's t with
    `n - 1` degrees of freedom. It tells what a printed p-value says of pairs
    whose values were not printed. For a one-sided `p` pass `2 p`.

    Args:
        mean_a: mean of the first of each pair, in any unit.
        std_a: its standard deviation with `n - 1`, in the same unit.
        mean_b: mean of the second of each pair.
        std_b: its standard deviation.
        n: the number of pairs.
        p: the two-sided p-value, from 1e-30 to below 1.

    Returns:
        A `CorrelationNeeded`; its `correlation` is None where no correlation
        from -1 to 1 gives this `p`, or where there is none to speak of: fewer
        than 2 pairs, or a deviation of 0.

    Raises:
        ValueError: for an argument out of its range.
        ImportError: without SciPy.

    Source: the variance of a difference, `std_a^2 + std_b^2 - 2 r std_a
    std_b`. The example is Table V of the CRL paper, whose printed p is .00136.

    >>> needed = correlation_needed(76.79, 0.20, 76.46, 0.28, 10, 0.00136)
    >>> round(needed.correlation, 2)
    0.59
    """
    stats = require("scipy.stats")
    p = _checked_number("p", p, 1e-30, math.nextafter(1.0, 0.0))
    difference = _mean_difference(mean_a, mean_b)
    n = _checked_count("n", n)
    note = _no_spread(n, None, "pair", "a paired t-test")
    if not note:
        std_a, std_b = (
            _checked_std("std_a", std_a),
            _checked_std("std_b", std_b),
        )
        if 0.0 in (std_a, std_b):
            note = "a standard deviation of 0: such values have no correlation"
    if note:
        return CorrelationNeeded(None, None, None, None, note)
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
        return CorrelationNeeded(None, std, t, n - 1, note)
    return CorrelationNeeded(correlation, std, t, n - 1, "")


def _checked_values(name, values):
    values = np.asarray(values)
    if values.ndim != 1:
        raise ValueError(
            f"`{name}` must be one-dimensional, a value a run. "
            f"Received: shape {values.shape}"
        )
    if values.dtype.kind not in "iuf":
        raise ValueError(
            f"`{name}` must be numbers: leave out the runs that have none. "
            f"Received: {values.dtype}"
        )
    values = values.astype(np.float64)
    # Not `> LARGEST`: NaN compares as false.
    wrong = ~(np.abs(values) <= LARGEST)
    if wrong.any():
        raise ValueError(
            f"`{name}` must be finite and at most {LARGEST:g} in magnitude: "
            "leave out the runs that diverged, of pairs both. Received: "
            f"{values[wrong][0]} at index {np.argmax(wrong)}"
        )
    return values


def _checked_flags(name, flags):
    flags = np.asarray(flags)
    if flags.ndim != 1:
        raise ValueError(
            f"`{name}` must be one-dimensional, a boolean a sample. "
            f"Received: shape {flags.shape}"
        )
    if flags.dtype.kind != "b" and flags.size:
        raise ValueError(
            f"`{name}` must be booleans: pass `predictions == labels`. "
            f"Received: {flags.dtype}"
        )
    return flags.astype(bool)


def _check_same_length(name_a, a, name_b, b):
    if len(a) != len(b):
        raise ValueError(
            f"`{name_a}` and `{name_b}` must be paired, of one length: leave "
            "out what only one of them has. "
            f"Received: lengths {len(a)} and {len(b)}"
        )


def _checked_number(name, value, low, high):
    """Returns `value` as a float in `[low, high]`, or raises naming it."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise ValueError(
            f"`{name}` must be a number from {low:g} to {high:g}. "
            f"Received: {value!r}"
        )
    return float(value)


def _checked_count(name, n):
    """Returns `n` as an int, or raises naming it."""
    if not isinstance(n, Integral) or isinstance(n, bool) or n < 0:
        raise ValueError(
            f"`{name}` must be a count, an integer of 0 or more. "
            f"Received: {n!r}"
        )
    return int(n)


def _checked_std(name, std):
    std = _checked_number(name, std, 0.0, LARGEST)
    return std if std > SMALLEST else 0.0


def _few_values(n_a, n_b):
    """Why groups of these sizes allow for no t-test, or ""."""
    if min(n_a, n_b) >= 2:
        return ""
    return (
        f"groups of {n_a} and {n_b}: a t-test needs at least 2 values in each"
    )


def _no_deviation(std_a, std_b):
    if std_a or std_b:
        return ""
    return "both standard deviations are 0: t is undefined"


def _mean_difference(mean_a, mean_b):
    mean_a = _checked_number("mean_a", mean_a, -LARGEST, LARGEST)
    mean_b = _checked_number("mean_b", mean_b, -LARGEST, LARGEST)
    return mean_a - mean_b


def _differences(a, b):
    """`a - b`, and how far rounding alone can part two of its values."""
    a, b = _checked_values("a", a), _checked_values("b", b)
    _check_same_length("a", a, "b", b)
    return a - b, _rounding(np.concatenate([a, b]))


def _rounding(values):
    largest = np.max(np.abs(values), initial=0.0)
    return 8 * np.finfo(np.float64).eps * largest + SMALLEST


def _mean(values):
    return float(np.mean(values)) if len(values) else None


def _std(values, rounding):
    if len(values) < 2:
        return None
    if np.ptp(values) <= rounding:
        return 0.0
    return float(np.std(values, ddof=1))


def _count(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _no_spread(n, std, noun, what):
    """Why `n` values of deviation `std` do not allow for `what`, or ""."""
    if n < 2:
        return f"{_count(n, noun)}: {what} needs at least 2 {noun}s"
    if std == 0:
        alike = "values" if noun == "value" else "differences"
        return (
            f"all {n} {alike} are equal: {what} needs some that differ, their "
            "standard deviation is 0"
        )
    return ""


def _two_sided(stats, t, df):
    return float(2.0 * stats.t.sf(abs(t), df))


def _t_interval(stats, mean, error, df):
    half = float(stats.t.isf(TAIL, df)) * error
    return mean - half, mean + half


def _bca_interval(stats, values):
    # In units of the range: the jackknife of values that differ in their last
    # digits only would be all rounding.
    low, width = np.min(values), np.ptp(values)
    interval = stats.bootstrap(
        ((values - low) / width,),
        np.mean,
        n_resamples=BOOTSTRAP_RESAMPLES,
        batch=max(1, 10**6 // len(values)),  # 8 MB.
        confidence_level=LEVEL,
        method="BCa",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    ).confidence_interval
    return float(low + width * interval.low), float(low + width * interval.high)


def _ranks(magnitudes, rounding):
    """Ranks from 1, shared by those that only rounding tells apart."""
    order = np.argsort(magnitudes)
    is_new = np.diff(magnitudes[order], prepend=-np.inf) > rounding
    group = np.cumsum(is_new) - 1
    sizes = np.bincount(group)
    last = np.cumsum(sizes)
    ranks = np.empty(len(magnitudes))
    ranks[order] = (last - (sizes - 1) / 2)[group]
    return ranks


def _exact_signed_rank_p(ranks, w_plus):
    """Share of the sign assignments at least as far from the mean."""
    # Twice a shared rank is an integer, so that sums can be array indices.
    doubled = np.rint(2 * ranks).astype(int)
    total = int(doubled.sum())
    share = np.zeros(total + 1)
    share[0] = 1.0
    for rank in doubled:
        shifted = np.zeros_like(share)
        shifted[rank:] = share[: total + 1 - rank]
        share = (share + shifted) / 2
    sums = np.arange(total + 1)
    is_as_far = np.abs(2 * sums - total) >= abs(4 * w_plus - total)
    return min(1.0, float(share[is_as_far].sum()))


def _normal_signed_rank_p(stats, ranks, w_plus):
    # The sum of squared ranks carries the correction for ties.
    z = (w_plus - np.sum(ranks) / 2) / math.sqrt(np.sum(ranks**2) / 4)
    return float(2.0 * stats.norm.sf(abs(z)))


def _wilcoxon_note(n, n_zero, smallest):
    if n_zero == n:
        return f"none of {_count(n, 'pair')} differs: p is 1 by definition"
    notes = []
    if n_zero:
        notes.append(f"{_count(n_zero, 'pair')} without a difference left out")
    if smallest > 0.05:
        notes.append(
            f"{_count(n - n_zero, 'pair')}: p cannot be below {smallest:g}"
        )
    return "; ".join(notes)


def _hedges_correction(df):
    log_ratio = math.lgamma(df / 2) - math.lgamma((df - 1) / 2)
    return math.exp(log_ratio) / math.sqrt(df / 2)


def _noncentrality_interval(stats, t, df):
    """The noncentralities for which `t` is between the outer 2.5 %."""
    optimize = require("scipy.optimize")
    # Of larger t SciPy's noncentral t is NaN. There the limits grow with t.
    magnitude = min(abs(t), 1e4)
    scale = max(1.0, abs(t) / 1e4)

    def solve(share, low, high):
        def excess(noncentrality):
            return stats.nct.cdf(magnitude, df, noncentrality) - share

        return scale * optimize.brentq(excess, low, high, xtol=1e-10)

    # P(T <= t) is above 97.5 % at `below`: at -2 as P(T > t) <= P(Z > 2), and
    # at 0 where t is far out. It is below 2.5 % at `above`: sqrt(chi2 / df)
    # exceeds its 1 % tail with 1 %, and Z < -3 has 0.1 %. Wider brackets would
    # reach tails that are NaN in SciPy.
    below = 0.0 if stats.t.sf(magnitude, df) < TAIL / 2 else -2.0
    above = magnitude * math.sqrt(stats.chi2.isf(0.01, df) / df) + 3.0
    low = solve(1.0 - TAIL, below, magnitude)
    high = solve(TAIL, magnitude, above)
    return (low, high) if t >= 0 else (-high, -low)


def _paired_power(stats, effect_size, n, alpha):
    """Power of the two-sided paired t-test."""
    df = n - 1
    critical = stats.t.isf(alpha / 2, df)
    # The square of a noncentral t is a noncentral F: SciPy's is right in the
    # far tail, where its noncentral t gives NaN.
    return stats.ncf.sf(critical**2, 1, df, n * effect_size**2)


def _unpaired(stats, difference, error, df):
    t = difference / error
    ci = _t_interval(stats, difference, error, df)
    return UnpairedTTest(difference, ci, t, df, _two_sided(stats, t, df), "")
