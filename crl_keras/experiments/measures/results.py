"""What `statistics` returns, and the notes that say why a number is None."""

from dataclasses import dataclass


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


def no_spread(n, std, noun, what):
    """Why `n` values of deviation `std` do not allow for `what`, or ""."""
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
    """What was left out and what so few pairs cannot show, or ""."""
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
    """Why these values allow for no BCa interval, or ""."""
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
