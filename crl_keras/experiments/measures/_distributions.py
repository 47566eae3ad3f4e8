"""Intervals, p-values and power from SciPy's distributions and bootstrap."""

import math

import numpy as np

from crl_keras.experiments._optional import require

LEVEL = 0.95
TAIL = (1.0 - LEVEL) / 2.0
BOOTSTRAP_SEED = 20200309
BOOTSTRAP_RESAMPLES = 9999


def t_interval(stats, mean, error, df):
    half = float(stats.t.isf(TAIL, df)) * error
    return mean - half, mean + half


def bca_interval(stats, values):
    # In units of the range: if values differ only in their last digits, the
    # jackknife would see only rounding errors.
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
    return tuple(float(low + width * limit) for limit in interval)


def ranks(stats, magnitudes, rounding):
    """Ranks from 1; values that differ only by rounding share a rank."""
    ordered = np.sort(magnitudes)
    firsts = ordered[np.diff(ordered, prepend=-np.inf) > rounding]
    return stats.rankdata(np.searchsorted(firsts, magnitudes, side="right"))


def exact_signed_rank_p(ranks, w_plus):
    """Share of the sign assignments that are at least as far from the mean.

    SciPy's exact p-value is valid only without ties, and its permutation test
    draws random signs from 14 pairs on.
    """
    # Twice a shared rank is an integer, so that sums can be array indices.
    doubled = np.rint(2 * ranks).astype(int)
    share = np.ones(1)
    for rank in doubled:
        share = (np.pad(share, (0, rank)) + np.pad(share, (rank, 0))) / 2
    total = len(share) - 1
    distance = np.abs(2 * np.arange(total + 1) - total)
    return min(1.0, float(share[distance >= abs(4 * w_plus - total)].sum()))


def noncentrality_interval(stats, t, df):
    """The noncentralities for which `t` is between the outer 2.5 % tails.

    `scipy.special.nctdtrinc` is this inverse, but only 4 digits are correct.
    """
    optimize = require("scipy.optimize")
    # For larger t SciPy's noncentral t is NaN. There the limits grow with t.
    magnitude = min(abs(t), 1e4)
    scale = max(1.0, abs(t) / 1e4)

    def solve(share, low, high):
        def excess(noncentrality):
            return stats.nct.cdf(magnitude, df, noncentrality) - share

        return scale * optimize.brentq(excess, low, high, xtol=1e-10)

    # At `below`, P(T <= t) is above 97.5 %: at -2 because P(T > t) <= P(Z > 2),
    # and at 0 if t is far out. At `above` it is below 2.5 %: sqrt(chi2 / df)
    # exceeds its 1 % tail with 1 %, and Z < -3 has 0.1 %. Wider brackets would
    # reach tails that are NaN in SciPy.
    below = 0.0 if stats.t.sf(magnitude, df) < TAIL / 2 else -2.0
    above = magnitude * math.sqrt(stats.chi2.isf(0.01, df) / df) + 3.0
    low = solve(1.0 - TAIL, below, magnitude)
    high = solve(TAIL, magnitude, above)
    return (low, high) if t >= 0 else (-high, -low)


def paired_power(stats, effect_size, n, alpha):
    """Power of the two-sided paired t-test.

    statsmodels's `TTestPower` is NaN if SciPy's noncentral t is NaN, in the far
    tail: for a power of 0.8, that is from effects of about 6 on.
    """
    # The square of a noncentral t is a noncentral F: SciPy computes it right.
    square = stats.t.isf(alpha / 2, n - 1) ** 2
    return stats.ncf.sf(square, 1, n - 1, n * effect_size**2)
