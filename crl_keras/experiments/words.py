"""Formats numbers and words for reports: percent, p-values, plurals."""

import math

LEVEL = 0.05  # A p-value below it counts as a difference.


def points(value, sign=False):
    """Formats a fraction as percent, with two decimals and a true minus."""
    text = f"{100 * value:+.2f}" if sign else f"{100 * value:.2f}"
    if float(text) == 0:
        text = "0.00"
    return text.replace("-", "\N{MINUS SIGN}")


def p_text(p):
    """Formats a p-value for a report."""
    if p is None:
        return "\N{EM DASH}"
    if p < 0.001:
        return "<0.001"
    if p >= 0.1:
        return f"{p:.2f}"
    # "0.050" would hide on which side of 0.05 the value is.
    return f"{p:.3f}" if f"{p:.3f}" != "0.050" else f"{p:.4g}"


def seeds_text(n):
    """Formats a number of seeds for a report."""
    if n is None:
        return "\N{EM DASH}"
    return "\N{INFINITY}" if math.isinf(n) else f"{n:,}"


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


def first_line(error):
    """Returns the first line of an exception, cut to 200 characters."""
    return str(error).strip().partition("\n")[0][:200]
