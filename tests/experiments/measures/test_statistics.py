import dataclasses
import itertools
import math
import sys

import numpy as np
import pytest
from scipy import integrate
from scipy import special
from scipy import stats

from crl_keras.experiments.measures import statistics

pytestmark = pytest.mark.once

# Hours of sleep gained with two drugs (Student 1908). R's documentation of
# `t.test` prints the numbers below for it.
DRUG_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
DRUG_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]

# The 97.5 % quantile of Student's t by degrees of freedom, from the tables.
T_TABLE = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    9: 2.262,
}

# Table V of the paper: mean and deviation of 10 runs each.
TABLE_V = {"mean_a": 76.79, "std_a": 0.20, "mean_b": 76.46, "std_b": 0.28}


def student_tail(t, df):
    """P(|T| > t) by integrating the density."""
    log_constant = (
        math.lgamma((df + 1) / 2)
        - math.lgamma(df / 2)
        - 0.5 * math.log(df * math.pi)
    )

    def density(x):
        return math.exp(log_constant) * (1 + x * x / df) ** (-(df + 1) / 2)

    return 1 - 2 * integrate.quad(density, 0, abs(t), epsabs=1e-12)[0]


def noncentral_cdf(t, df, noncentrality):
    """P(T <= t) by integrating over the deviation, chi with `df`."""
    log_constant = (1 - df / 2) * math.log(2) - math.lgamma(df / 2)

    def integrand(w):
        density = math.exp(log_constant + (df - 1) * math.log(w) - w * w / 2)
        return density * special.ndtr(t * w / math.sqrt(df) - noncentrality)

    middle = math.sqrt(df)
    low, high = max(1e-12, middle - 9), middle + 9
    return integrate.quad(
        integrand, low, high, points=[middle], limit=400, epsabs=1e-12
    )[0]


def is_plain(result):
    """No NaN, no infinity and no NumPy scalar in any field."""
    for value in dataclasses.asdict(result).values():
        for x in value if isinstance(value, tuple) else (value,):
            if x is None:
                continue
            if type(x) not in (int, float, bool, str):
                return False
            if isinstance(x, float) and not math.isfinite(x):
                return False
    return True


# --- summarise


def test_summary_by_hand():
    summary = statistics.summarise([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0])
    assert (summary.n, summary.mean) == (8, 5.0)
    # Squared distances: 9, 1, 1, 1, 0, 0, 4, 16.
    assert summary.variance == pytest.approx(32 / 7)
    assert summary.std == pytest.approx(math.sqrt(32 / 7))
    half = T_TABLE[7] * math.sqrt(32 / 7 / 8)
    assert summary.ci_t == pytest.approx((5 - half, 5 + half), rel=1e-3)
    assert summary.note == ""
    assert is_plain(summary)


def exact_bca(values):
    """BCa limits of the mean from all `n^n` resamples, not some of them."""
    n = len(values)
    means = np.sort(
        np.array(list(itertools.product(values, repeat=n))).mean(axis=1)
    )
    below = np.mean(means < values.mean() - 1e-12)
    equal = np.mean(np.abs(means - values.mean()) <= 1e-12)
    bias = special.ndtri(below + equal / 2)
    without = np.array([np.delete(values, i).mean() for i in range(n)])
    away = without.mean() - without
    skew = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    limits = []
    for z in (-1.959963985, 1.959963985):
        shifted = bias + (bias + z) / (1 - skew * (bias + z))
        limits.append(np.quantile(means, special.ndtr(shifted)))
    return np.array(limits), np.quantile(means, [0.025, 0.975])


def test_bca_interval_matches_all_resamples():
    values = np.array([0.0, 0.3, 0.7, 1.1, 2.0, 9.0])
    expected, percentile = exact_bca(values)
    got = statistics.summarise(values).ci_bca
    np.testing.assert_allclose(got, expected, atol=0.06)
    assert np.all(np.abs(expected - percentile) > 0.15)


def test_bca_interval_moves_with_shift_and_scale():
    values = np.array([0.0, 0.3, 0.7, 1.1, 2.0, 9.0])
    low, high = statistics.summarise(values).ci_bca
    moved = statistics.summarise(100 - 10 * values).ci_bca
    # Mirrored limits come from other resamples of the same seed.
    assert moved == pytest.approx((100 - 10 * high, 100 - 10 * low), abs=0.6)
    exact = statistics.summarise(values * 2**-40).ci_bca
    assert exact == pytest.approx((low * 2**-40, high * 2**-40), abs=0)


def test_bca_interval_is_the_same_each_time():
    state = np.random.get_state()[1].tolist()
    assert statistics.summarise(DRUG_2) == statistics.summarise(DRUG_2)
    assert np.random.get_state()[1].tolist() == state


def test_bca_interval_of_values_that_differ_in_their_last_digits():
    values = 0.9 + np.spacing(0.9) * np.array([0, 20, 40, 50])
    low, high = statistics.summarise(values).ci_bca
    assert values[0] <= low < high <= values[-1]


@pytest.mark.parametrize(
    "values, expected, note",
    [
        ([], (None, None, None), "0 values: an interval needs at least 2"),
        ([3.0], (3.0, None, None), "1 value: an interval needs at least 2"),
        ([0.1, 0.1, 0.1], (0.1, 0.0, 0.0), "all 3 values are equal"),
        ([0.3, 0.1 + 0.2], (0.3, 0.0, 0.0), "all 2 values are equal"),
        ([0.0, 1e-101], (5e-102, 0.0, 0.0), "all 2 values are equal"),
    ],
)
def test_summary_of_values_without_spread(values, expected, note):
    summary = statistics.summarise(values)
    assert (summary.mean, summary.std, summary.variance) == (
        pytest.approx(expected)
    )
    assert summary.ci_t is None and summary.ci_bca is None
    assert note in summary.note


def test_summary_of_two_distinct_values_has_no_bca_interval():
    summary = statistics.summarise([1, 1, 2, 2, 2])
    assert summary.ci_bca is None
    assert "5 values, 2 of them distinct" in summary.note
    half = T_TABLE[4] * math.sqrt(0.3 / 5)
    assert summary.ci_t == pytest.approx((1.6 - half, 1.6 + half), rel=1e-3)


# --- paired t-test


def test_paired_t_test_of_students_sleep_data():
    test = statistics.paired_t_test(DRUG_2, DRUG_1)
    assert test.mean_difference == pytest.approx(1.58)
    assert test.t == pytest.approx(4.0621, abs=5e-5)
    assert test.df == 9
    assert test.p == pytest.approx(0.002833, abs=5e-7)
    assert test.ci == pytest.approx((0.7001142, 2.4598858), abs=5e-8)
    assert test.std_difference == pytest.approx(1.229995, abs=5e-7)
    assert test.note == ""
    assert is_plain(test)


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_paired_t_test_matches_scipys(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(2, n))
    expected = stats.ttest_rel(a, b)
    test = statistics.paired_t_test(a, b)
    assert test.t == pytest.approx(expected.statistic, rel=1e-12)
    assert test.p == pytest.approx(expected.pvalue, rel=1e-10)
    low, high = expected.confidence_interval(0.95)
    assert test.ci == pytest.approx((low, high), rel=1e-10)


def test_paired_t_test_swapped_changes_sign_only():
    one = statistics.paired_t_test(DRUG_2, DRUG_1)
    two = statistics.paired_t_test(DRUG_1, DRUG_2)
    assert (two.t, two.p) == (-one.t, one.p)
    assert two.ci == pytest.approx((-one.ci[1], -one.ci[0]))


@pytest.mark.parametrize(
    "a, b, mean, note",
    [
        ([], [], None, "0 pairs: a paired t-test needs at least 2 pairs"),
        ([3.0], [1.0], 2.0, "1 pair: a paired t-test needs at least 2 pairs"),
        (DRUG_1, DRUG_1, 0.0, "all 10 differences are equal"),
        # Differences of 0.1 up to rounding.
        ([0.3, 0.4, 0.8], [0.2, 0.3, 0.7], 0.1, "all 3 differences are equal"),
    ],
)
def test_paired_t_test_without_spread(a, b, mean, note):
    test = statistics.paired_t_test(a, b)
    assert note in test.note
    assert test.mean_difference == pytest.approx(mean)
    assert (test.t, test.p, test.ci, test.df) == (None,) * 4
    size = statistics.paired_effect_size(a, b)
    assert note.replace("a paired t-test", "an effect size") in size.note
    assert (size.d_z, size.ci, size.g, size.g_ci) == (None,) * 4


# --- Wilcoxon's signed-rank test


def enumerated_p(differences):
    """Share of all sign assignments as far out, ranks by counting."""
    d = [x for x in differences if x != 0]
    ranks = [
        sum(abs(y) < abs(x) for y in d)
        + (sum(abs(y) == abs(x) for y in d) + 1) / 2
        for x in d
    ]
    centre = sum(ranks) / 2
    seen = abs(sum(r for r, x in zip(ranks, d, strict=True) if x > 0) - centre)
    as_far = 0
    for signs in itertools.product((0, 1), repeat=len(d)):
        plus = sum(r for r, s in zip(ranks, signs, strict=True) if s)
        as_far += abs(plus - centre) >= seen
    return as_far / 2 ** len(d)


@pytest.mark.parametrize("seed", range(12))
def test_wilcoxon_matches_enumeration(seed):
    # Small integers: ties and zeros in most of the cases.
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    a, b = rng.integers(0, 6, size=(2, n)) + rng.integers(0, 2, size=(2, n))
    test = statistics.wilcoxon_signed_rank(a, b)
    assert test.p == pytest.approx(enumerated_p(a - b), rel=1e-12)
    assert test.n_zero == np.sum(a == b)
    assert test.exact
    assert is_plain(test)


@pytest.mark.parametrize("n", [5, 20, 50, 200])
def test_wilcoxon_matches_scipys_exact_one_without_ties(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(2, n))
    a += 0.4
    expected = stats.wilcoxon(a, b, method="exact")
    test = statistics.wilcoxon_signed_rank(a, b)
    assert test.p == pytest.approx(expected.pvalue, rel=1e-10)
    assert min(test.w_plus, n * (n + 1) / 2 - test.w_plus) == expected.statistic


def test_wilcoxon_by_hand():
    # Differences 1, -2, 2, 4, 0: ranks 1, 2.5, 2.5, 4.
    test = statistics.wilcoxon_signed_rank([2, 1, 4, 6, 3], [1, 3, 2, 2, 3])
    assert (test.n, test.n_zero, test.w_plus) == (5, 1, 7.5)
    # At 7.5 or more: all, all but 1, all but either 2.5. Twice that of 16.
    assert test.p == 8 / 16
    assert test.smallest_p == 2 / 16
    assert "1 pair without a difference left out" in test.note
    assert "4 pairs: p cannot be below 0.125" in test.note


def test_wilcoxon_table():
    # Ten pairs: W = 8 is the largest with p <= .05 in the tables, 9 is above.
    a = np.arange(1.0, 11.0)
    for minus, in_table in (({8}, True), ({9}, False)):
        signs = np.array([-1.0 if x in minus else 1.0 for x in a])
        p = statistics.wilcoxon_signed_rank(signs * a, 0 * a).p
        assert (p <= 0.05) == in_table
    assert p == pytest.approx(0.064453, abs=5e-7)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 10])
def test_wilcoxon_smallest_p(n):
    test = statistics.wilcoxon_signed_rank(np.arange(1, n + 1), np.zeros(n))
    assert test.p == test.smallest_p == min(1, 2 / 2**n)
    assert ("p cannot be below" in test.note) == (n < 6)


def test_wilcoxon_ties_do_not_hang_on_rounding():
    # .01 six times, once negative: 0.95 - 0.94 and 0.91 - 0.90 differ.
    a = [0.95, 0.91, 0.83, 0.77, 0.62, 0.10]
    b = [0.94, 0.90, 0.82, 0.76, 0.61, 0.11]
    assert len({abs(x - y) for x, y in zip(a, b, strict=True)}) > 1
    test = statistics.wilcoxon_signed_rank(a, b)
    assert test.w_plus == 5 * 3.5
    assert test.p == enumerated_p([1, 1, 1, 1, 1, -1])
    assert statistics.wilcoxon_signed_rank([0.3], [0.1 + 0.2]).n_zero == 1


def test_wilcoxon_of_identical_pairs():
    test = statistics.wilcoxon_signed_rank(DRUG_1, DRUG_1)
    assert (test.n, test.n_zero, test.w_plus, test.p) == (10, 10, 0.0, 1.0)
    assert "none of 10 pairs differs" in test.note


def test_wilcoxon_of_no_pairs():
    test = statistics.wilcoxon_signed_rank([], [])
    assert (test.p, test.w_plus, test.smallest_p) == (None,) * 3
    assert "0 pairs" in test.note


def test_wilcoxon_of_many_pairs():
    rng = np.random.default_rng(1)
    a = np.round(rng.normal(0.25, 1, size=201), 1)
    a[a == 0] = 0.1
    exact = statistics.wilcoxon_signed_rank(a[:200], np.zeros(200))
    normal = statistics.wilcoxon_signed_rank(a, np.zeros(201))
    assert (exact.exact, normal.exact) == (True, False)
    for test, n in ((exact, 200), (normal, 201)):
        expected = stats.wilcoxon(a[:n], method="asymptotic").pvalue
        assert 1e-4 < expected < 0.05
        rel = 0.05 if test.exact else 1e-10
        assert test.p == pytest.approx(expected, rel=rel)


# --- effect size


@pytest.mark.parametrize("n", [3, 4, 5, 10, 50])
@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.4, 8.0])
def test_effect_size_interval_has_its_tails(n, shift):
    a = np.random.default_rng(n).normal(size=n) + shift
    size = statistics.paired_effect_size(a, np.zeros(n))
    assert size.d_z == pytest.approx(np.mean(a) / np.std(a, ddof=1))
    t = size.d_z * math.sqrt(n)
    tails = [noncentral_cdf(t, n - 1, x * math.sqrt(n)) for x in size.ci]
    assert tails == pytest.approx([0.975, 0.025], abs=1e-8)
    assert is_plain(size)


# Hedges (1981), table 1: the correction by degrees of freedom.
@pytest.mark.parametrize(
    "df, correction",
    [(2, 0.5642), (3, 0.7236), (4, 0.7979), (10, 0.9228), (50, 0.9849)],
)
def test_effect_size_is_corrected_as_in_hedges_table(df, correction):
    a = np.random.default_rng(df).normal(1, 1, size=df + 1)
    size = statistics.paired_effect_size(a, np.zeros(df + 1))
    assert size.g / size.d_z == pytest.approx(correction, abs=1e-4)
    expected = tuple(size.g / size.d_z * limit for limit in size.ci)
    assert size.g_ci == pytest.approx(expected)


def test_corrected_effect_size_has_no_bias():
    rng = np.random.default_rng(0)
    sizes = [
        statistics.paired_effect_size(x, np.zeros(5))
        for x in rng.normal(1.0, 1.0, size=(2000, 5))
    ]
    g = [size.g for size in sizes]
    error = np.std(g) / math.sqrt(len(g))
    assert abs(np.mean(g) - 1) < 3 * error
    assert np.mean([size.d_z for size in sizes]) - 1 > 6 * error
    covers = np.mean([size.ci[0] <= 1 <= size.ci[1] for size in sizes])
    assert covers == pytest.approx(0.95, abs=0.015)


def test_effect_size_of_2_pairs_has_no_g():
    size = statistics.paired_effect_size([1.0, 2.0], [0.0, 0.0])
    assert size.d_z == pytest.approx(1.5 / math.sqrt(0.5))
    assert size.ci[0] < size.d_z < size.ci[1]
    assert (size.g, size.g_ci) == (None, None)
    assert "needs at least 3 pairs" in size.note


@pytest.mark.parametrize("sign", [1, -1])
def test_effect_size_of_almost_equal_differences(sign):
    # sqrt(n) d_z is 1e7. Then d_z times the deviation's own quantiles hold.
    a = sign * (1 + 1e-7 * np.array([-1.0, 0.0, 1.0]) * math.sqrt(3))
    size = statistics.paired_effect_size(a, np.zeros(3))
    assert abs(size.d_z) * math.sqrt(3) == pytest.approx(1e7, rel=1e-6)
    # chi2 of 2 degrees of freedom: -2 log of the tail.
    quantiles = [math.sqrt(-math.log(1 - q)) for q in (0.025, 0.975)]
    expected = sorted(size.d_z * q for q in quantiles)
    assert size.ci == pytest.approx(expected, rel=1e-5)


# --- Holm's correction


def test_holm_as_rs_p_adjust():
    p = [0.01, 0.02, 0.03, 0.04]
    assert statistics.holm(p) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    p = [0.5, 0.001, 0.3]
    assert statistics.holm(p) == pytest.approx([0.6, 0.003, 0.6])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_as_the_step_down_procedure(seed):
    p = np.random.default_rng(seed).uniform(size=7) ** 3
    corrected = statistics.holm(p)
    for alpha in np.linspace(0.001, 0.999, 60):
        rejected = set()
        for step, i in enumerate(np.argsort(p)):
            if p[i] > alpha / (7 - step):
                break
            rejected.add(i)
        assert rejected == {i for i in range(7) if corrected[i] <= alpha}


def test_holm_does_not_count_tests_not_made():
    got = statistics.holm([None, 0.02, None, 0.03])
    assert got == [None, 0.04, None, 0.04]
    assert statistics.holm([None]) == [None]


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, "0.1", True])
def test_holm_refuses_what_is_no_p_value(p):
    with pytest.raises(ValueError, match="from 0 to 1"):
        statistics.holm([0.5, p])


# --- seeds for power


# G*Power 3.1, paired t-test, two-sided.
@pytest.mark.parametrize(
    "effect_size, power, n",
    [
        (0.2, 0.8, 199),
        (0.5, 0.8, 34),
        (0.8, 0.8, 15),
        (0.5, 0.9, 44),
        (0.5, 0.95, 54),
    ],
)
def test_seeds_for_power_as_g_power(effect_size, power, n):
    assert statistics.seeds_for_power(effect_size, power) == n
    assert statistics.seeds_for_power(-effect_size, power) == n


@pytest.mark.parametrize("effect_size, n", [(1.5, 6), (1.3, 7), (2.0, 5)])
def test_seeds_for_power_match_simulated_tests(effect_size, n):
    assert statistics.seeds_for_power(effect_size) == n
    rng = np.random.default_rng(n)

    def simulated_power(n):
        d = rng.normal(effect_size, 1.0, size=(100_000, n))
        t = d.mean(axis=1) / (d.std(axis=1, ddof=1) / math.sqrt(n))
        return np.mean(np.abs(t) > T_TABLE[n - 1])

    # Standard error .0013.
    assert simulated_power(n) > 0.805
    assert simulated_power(n - 1) < 0.795


@pytest.mark.parametrize("alpha", [0.01, 0.2])
def test_seeds_for_power_at_another_level(alpha):
    n = statistics.seeds_for_power(0.7, 0.9, alpha)

    def power(n):
        t = stats.t.ppf(1 - alpha / 2, n - 1)
        noncentrality = 0.7 * math.sqrt(n)
        return (
            1
            - noncentral_cdf(t, n - 1, noncentrality)
            + noncentral_cdf(-t, n - 1, noncentrality)
        )

    assert power(n - 1) < 0.9 <= power(n)


def test_seeds_for_power_counts_both_tails():
    # A power just above alpha: much of it is in the wrong tail.
    n = statistics.seeds_for_power(0.1, 0.06)
    powers = []
    for pairs in (n - 1, n):
        t = stats.t.ppf(0.975, pairs - 1)
        noncentrality = 0.1 * math.sqrt(pairs)
        upper = 1 - noncentral_cdf(t, pairs - 1, noncentrality)
        lower = noncentral_cdf(-t, pairs - 1, noncentrality)
        assert lower > 0.01
        powers.append(upper + lower)
    assert powers[0] < 0.06 <= powers[1]


def test_seeds_for_power_at_its_ends():
    assert statistics.seeds_for_power(0.0) == math.inf
    # (z.975 + z.80)^2 = 7.8489 = n d^2 for many pairs.
    at_limit = math.sqrt(7.8489e-6)
    assert statistics.seeds_for_power(at_limit * 0.999) == math.inf
    n = statistics.seeds_for_power(at_limit * 1.001)
    assert n == pytest.approx(1e6 / 1.001**2, rel=1e-4)
    assert statistics.seeds_for_power(1e99) == 2
    assert statistics.seeds_for_power(-1e99) == 2


@pytest.mark.parametrize(
    "arguments, name",
    [
        ({"effect_size": math.nan}, "effect_size"),
        ({"effect_size": None}, "effect_size"),
        ({"effect_size": math.inf}, "effect_size"),
        ({"effect_size": 1.0, "power": 1.0}, "power"),
        ({"effect_size": 1.0, "power": 0.01}, "power"),
        ({"effect_size": 1.0, "power": 0.05}, "power"),
        ({"effect_size": 1.0, "alpha": 0.0}, "alpha"),
        ({"effect_size": 1.0, "alpha": 0.6}, "alpha"),
    ],
)
def test_seeds_for_power_checks_its_arguments(arguments, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        statistics.seeds_for_power(**arguments)


# --- McNemar's test


@pytest.mark.parametrize("only_a, only_b", [(6, 1), (0, 9), (10, 4), (3, 3)])
def test_mcnemar_matches_the_sum_of_binomials(only_a, only_b):
    a = [True] * only_a + [False] * only_b + [True, True, False]
    b = [False] * only_a + [True] * only_b + [True, True, False]
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    test = statistics.mcnemar(a, b)
    assert test.p == pytest.approx(min(1, 2 * tail), rel=1e-12)
    assert (test.n, test.only_a, test.only_b) == (n + 3, only_a, only_b)
    assert test.note == ""
    assert is_plain(test)


def test_mcnemar_of_too_few():
    test = statistics.mcnemar([], [])
    assert test.p is None and "0 samples" in test.note
    test = statistics.mcnemar([True, False], [True, False])
    assert (test.p, test.only_a, test.only_b) == (1.0, 0, 0)
    assert "0 samples with exactly one right" in test.note
    test = statistics.mcnemar([True] * 5, [False] * 5)
    assert test.p == 0.0625
    assert "cannot be below 0.0625" in test.note


@pytest.mark.parametrize("flags", [[1, 0], [0.5, 1.0], ["a", "b"]])
def test_mcnemar_refuses_anything_but_booleans(flags):
    with pytest.raises(ValueError, match="predictions == labels"):
        statistics.mcnemar([True, False], flags)


def test_mcnemar_checks_shapes():
    with pytest.raises(ValueError, match="lengths 2 and 1"):
        statistics.mcnemar([True, False], [True])
    with pytest.raises(ValueError, match=r"`correct_a`.*shape \(1, 1\)"):
        statistics.mcnemar([[True]], [True])


# --- from printed summaries


def test_table_v_unpaired():
    test = statistics.t_test_from_summary(**TABLE_V, n_a=10, n_b=10)
    # By hand: .33 / sqrt((.04 + .0784) / 10).
    assert test.t == pytest.approx(0.33 / math.sqrt(0.01184), rel=1e-12)
    assert round(test.t, 2) == 3.03
    assert test.p == pytest.approx(student_tail(test.t, 18), abs=1e-9)
    assert round(test.p, 4) == 0.0072
    assert test.p > 0.005
    assert test.df == 18
    # The 97.5 % quantile at 18 degrees of freedom is 2.101.
    half = 2.101 * math.sqrt(0.01184)
    assert test.ci == pytest.approx((0.33 - half, 0.33 + half), abs=1e-4)
    assert is_plain(test)


def test_table_v_welch():
    test = statistics.welch_t_from_summary(**TABLE_V, n_a=10, n_b=10)
    assert test.t == pytest.approx(0.33 / math.sqrt(0.01184), rel=1e-12)
    expected = 9 * (0.04 + 0.0784) ** 2 / (0.04**2 + 0.0784**2)
    assert test.df == pytest.approx(expected)
    assert test.p == pytest.approx(student_tail(test.t, test.df), abs=1e-9)


@pytest.mark.parametrize("p, correlation", [(0.00136, 0.59), (0.00272, 0.48)])
def test_table_v_needs_correlated_pairs(p, correlation):
    needed = statistics.correlation_needed(**TABLE_V, n=10, p=p)
    assert round(needed.correlation, 2) == correlation
    assert is_plain(needed)


@pytest.mark.parametrize(
    "name", ["t_test_from_summary", "welch_t_from_summary"]
)
def test_summary_tests_match_scipys_on_values(name):
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 1, size=7), rng.normal(0, 3, size=12)
    expected = stats.ttest_ind(a, b, equal_var=name == "t_test_from_summary")
    test = getattr(statistics, name)(
        a.mean(), a.std(ddof=1), np.int64(7), b.mean(), b.std(ddof=1), 12
    )
    assert test.t == pytest.approx(expected.statistic, rel=1e-12)
    assert test.p == pytest.approx(expected.pvalue, rel=1e-10)
    assert test.df == pytest.approx(expected.df, rel=1e-12)
    interval = expected.confidence_interval(0.95)
    assert test.ci == pytest.approx((interval.low, interval.high), rel=1e-10)
    assert is_plain(test)


def test_needed_correlation_gives_that_p():
    # Values with exactly the needed mean, deviations and correlation.
    rng = np.random.default_rng(8)
    n = 12
    basis, _ = np.linalg.qr(
        np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    )
    for p in (0.005, 0.05, 0.4):
        needed = statistics.correlation_needed(5.0, 1.2, 4.5, 0.8, n, p)
        r = needed.correlation
        u, v = math.sqrt(n - 1) * basis[:, 1:].T
        a = 5.0 + 1.2 * u
        b = 4.5 + 0.8 * (r * u + math.sqrt(1 - r * r) * v)
        assert stats.ttest_rel(a, b).pvalue == pytest.approx(p, rel=1e-9)
        assert needed.std_difference == pytest.approx(np.std(a - b, ddof=1))
        assert needed.df == n - 1


@pytest.mark.parametrize(
    "arguments, note",
    [
        ((5.0, 1.2, 4.5, 0.8, 12, 1e-9), "no correlation makes p as small"),
        ((5.0, 1.2, 4.5, 0.8, 12, 0.5), "every correlation makes p smaller"),
        ((5.0, 1.0, 5.0, 1.0, 12, 0.05), "equal means"),
        ((5.0, 0.0, 4.5, 0.8, 12, 0.05), "no correlation"),
        ((5.0, None, 4.5, None, 1, 0.05), "1 pair: a paired t-test needs"),
    ],
)
def test_needed_correlation_that_does_not_exist(arguments, note):
    needed = statistics.correlation_needed(*arguments)
    assert needed.correlation is None
    assert note in needed.note
    assert is_plain(needed)


@pytest.mark.parametrize(
    "name", ["t_test_from_summary", "welch_t_from_summary"]
)
@pytest.mark.parametrize(
    "arguments, note",
    [
        ((5.0, 1.0, 10, 4.0, None, 1), "groups of 10 and 1: a t-test needs"),
        ((5.0, None, 0, 4.0, 1.0, 3), "groups of 0 and 3: a t-test needs"),
        ((5.0, 0.0, 10, 4.0, 0.0, 10), "both standard deviations are 0"),
        ((5.0, 1e-200, 10, 4.0, 0.0, 10), "both standard deviations are 0"),
    ],
)
def test_summary_tests_of_too_little(name, arguments, note):
    test = getattr(statistics, name)(*arguments)
    assert test.mean_difference == 1.0
    assert (test.t, test.p, test.df, test.ci) == (None,) * 4
    assert note in test.note


@pytest.mark.parametrize(
    "change, name",
    [
        ({"mean_a": math.nan}, "mean_a"),
        ({"mean_b": math.inf}, "mean_b"),
        ({"std_a": -1.0}, "std_a"),
        ({"std_b": None}, "std_b"),
        ({"n": 2.5}, "n"),
        ({"n": -1}, "n"),
        ({"p": 0.0}, "p"),
        ({"p": 1.0}, "p"),
    ],
)
def test_summaries_are_checked(change, name):
    arguments = {**TABLE_V, "n": 10, "p": 0.05, **change}
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        statistics.correlation_needed(**arguments)
    arguments.pop("p")
    n = arguments.pop("n")
    if name != "p":
        for test in (
            statistics.t_test_from_summary,
            statistics.welch_t_from_summary,
        ):
            with pytest.raises(ValueError, match=f"`{name}(_a)?` must be"):
                test(**arguments, n_a=n, n_b=10)


# --- what they share


PAIRED = [
    statistics.paired_t_test,
    statistics.wilcoxon_signed_rank,
    statistics.paired_effect_size,
]


@pytest.mark.parametrize("function", PAIRED)
@pytest.mark.parametrize(
    "a, b, message",
    [
        ([1.0, 2.0], [1.0], "`a` and `b`.*lengths 2 and 1"),
        ([1.0, math.nan], [1.0, 2.0], "`a` must be finite.*nan at index 1"),
        ([1.0, 2.0], [-math.inf, 2.0], "`b` must be finite.*-inf at index 0"),
        ([1.0, 2e100], [1.0, 2.0], "at most 1e"),
        ([1.0, None], [1.0, 2.0], "leave out the runs.*object"),
        ([True, False], [1.0, 2.0], "must be numbers.*bool"),
        ([[1.0, 2.0]], [1.0, 2.0], r"one-dimensional.*shape \(1, 2\)"),
        (1.0, 2.0, r"one-dimensional.*shape \(\)"),
    ],
)
def test_bad_pairs_are_named(function, a, b, message):
    with pytest.raises(ValueError, match=message):
        function(a, b)


@pytest.mark.parametrize("values", [[1.0, math.nan], [[1.0]], ["a"], [1j]])
def test_bad_values_are_named(values):
    with pytest.raises(ValueError, match="`values` must be"):
        statistics.summarise(values)


@pytest.mark.parametrize("scale", [1e-170, 1e-90, 1e-8, 1.0, 1e8, 1e99])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 6])
def test_no_nan_and_no_warning_at_any_scale(scale, n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(2, n)) * scale
    near = a + np.spacing(np.abs(a).max(initial=0)) * rng.integers(0, 30, n)
    for other in (b, a, a + scale, near):
        for function in PAIRED:
            assert is_plain(function(a, other))
        assert is_plain(statistics.summarise(a - other))


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.summarise([1.0]),
        lambda: statistics.paired_t_test([1.0], [2.0]),
        lambda: statistics.wilcoxon_signed_rank([1.0], [2.0]),
        lambda: statistics.paired_effect_size([1.0], [2.0]),
        lambda: statistics.seeds_for_power(1.0),
        lambda: statistics.mcnemar([True], [True]),
        lambda: statistics.t_test_from_summary(**TABLE_V, n_a=9, n_b=9),
        lambda: statistics.welch_t_from_summary(**TABLE_V, n_a=9, n_b=9),
        lambda: statistics.correlation_needed(**TABLE_V, n=9, p=0.1),
    ],
)
def test_without_scipy_the_extra_is_named(monkeypatch, call):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ImportError, match=r'install "crl-keras\[experiments\]'):
        call()


def test_holm_needs_no_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert statistics.holm([0.5]) == [0.5]
