"""The results of `statistics`, and notes that say why a number is None."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """The result of `summarise`, in the unit of the values.

    Attributes:
        n: the number of values.
        mean: None if there are no values.
        std: standard deviation with `n - 1`, None for fewer than 2 values.
        variance: its square.
        ci_t: `(low, high)` by Student's t, or None.
        ci_bca: `(low, high)` by the BCa bootstrap, or None.
        note: which values are None, and why.
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
    """The result of `paired_t_test`.

    Attributes:
        n: the number of pairs.
        mean_difference: in the unit of the values, None if there are no pairs.
        std_difference: standard deviation of the differences with `n - 1`.
        ci: `(low, high)` of the mean difference, or None.
        t: the statistic, or None.
        df: degrees of freedom, `n - 1`, or None.
        p: two-sided, or None.
        note: which values are None, and why.
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
    """The result of `wilcoxon_signed_rank`.

    Attributes:
        n: the number of pairs.
        n_zero: the pairs without a difference, which are left out.
        w_plus: the sum of the ranks of positive differences, or None.
        p: two-sided, or None.
        smallest_p: the smallest `p` possible with this many pairs, or None.
        exact: False for the normal approximation.
        note: which values are None, and why, or what the test cannot show.
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
    """The result of `paired_effect_size`, in standard deviations.

    Attributes:
        n: the number of pairs.
        d_z: mean of the differences over their standard deviation, or None.
        ci: `(low, high)` of `d_z`, or None.
        g: `d_z` without its bias (Hedges), or None.
        g_ci: `(low, high)` of `g`, or None.
        note: which values are None, and why.
    """

    n: int
    d_z: float | None
    ci: tuple[float, float] | None
    g: float | None
    g_ci: tuple[float, float] | None
    note: str


@dataclass(frozen=True)
class McNemar:
    """The result of `mcnemar`.

    Attributes:
        n: the number of samples.
        only_a: the samples that only `a` has right.
        only_b: the samples that only `b` has right.
        p: two-sided, or None.
        note: which values are None, and why, or what the test cannot show.
    """

    n: int
    only_a: int
    only_b: int
    p: float | None
    note: str


@dataclass(frozen=True)
class UnpairedTTest:
    """The result of `t_test_from_summary` and `welch_t_from_summary`.

    Attributes:
        mean_difference: `mean_a - mean_b`, in their unit.
        ci: `(low, high)` of the mean difference, or None.
        t: the statistic, or None.
        df: degrees of freedom, or None.
        p: two-sided, or None.
        note: which values are None, and why.
    """

    mean_difference: float
    ci: tuple[float, float] | None
    t: float | None
    df: float | None
    p: float | None
    note: str


@dataclass(frozen=True)
class CorrelationNeeded:
    """The result of `correlation_needed`.

    Attributes:
        correlation: from -1 to 1, or None if no correlation gives that `p`.
        std_difference: the standard deviation of the differences that gives
            that `p`, in the unit of the means, or None.
        t: the statistic that has that `p`, above 0, or None.
        df: degrees of freedom, `n - 1`, or None.
        note: which values are None, and why.
    """

    correlation: float | None
    std_difference: float | None
    t: float | None
    df: int | None
    note: str


def no_spread(n, std, noun, what):
    """Why `n` values with deviation `std` are not enough for `what`, or ""."""
    if n < 2:
        return f"{counted(n, noun)}: {what} needs at least 2 {noun}s"
    if std == 0:
        alike = "values" if noun == "value" else "differences"
        return (
            f"all {n} {alike} are equal: {what} needs some that differ, their "
            "standard deviation is 0"
        )
    return ""


def wilcoxon_note(n, n_zero, smallest):
    """Which pairs are left out, and what so few cannot show, or ""."""
    if n_zero == n:
        return f"none of {counted(n, 'pair')} differs: p is 1 by definition"
    notes = []
    if n_zero:
        notes.append(f"{counted(n_zero, 'pair')} without a difference left out")
    if smallest > 0.05:
        notes.append(
            f"{counted(n - n_zero, 'pair')}: p cannot be below {smallest:g}"
        )
    return "; ".join(notes)


def two_distinct_note(values):
    """Why these values have no BCa interval, or ""."""
    if len(set(values)) > 2:
        return ""
    return (
        f"{len(values)} values, 2 of them distinct: a BCa interval needs at "
        "least 3 distinct values"
    )


def mcnemar_note(either):
    """What so few samples with exactly one right cannot show, or ""."""
    if either >= 6:
        return ""
    return (
        f"{counted(either, 'sample')} with exactly one right: p cannot be "
        f"below {min(1.0, 2.0 ** (1 - either)):g}"
    )


def counted(n, noun):
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
