"""Draws the figures of a comparison as SVG, without display or backend.

Every figure is as wide as a phone screen and scales up. A loss keeps its
colour, dash and marker in a whole report. Dash and marker distinguish losses
in grey print. The same records give the same bytes.
"""

import contextlib
import dataclasses
import html
import io
import re
import types
import warnings
from typing import NamedTuple

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.analysis.effects import effects
from crl_keras.experiments.analysis.pictures import SMALL
from crl_keras.experiments.analysis.pictures import png_data_uri
from crl_keras.experiments.analysis.tables import Cell
from crl_keras.experiments.analysis.tables import Column
from crl_keras.experiments.analysis.tables import Table
from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.words import listed
from crl_keras.experiments.words import plural
from crl_keras.experiments.words import points

WIDTH = 4.4  # Inches: 420 CSS pixels.
MOST_CLASSES = 20  # In a confusion matrix.
MOST_PAIRS = 15  # In a table of confused classes.
EXAMPLES_EACH_WAY = 3
CLASSES_SHOWN = 3
INK, FAINT, GRID = "#1a1a1a", "#6b6b6b", "#dddddd"
PAPER = dict(facecolor="white", edgecolor="none", pad=0.6, alpha=0.85)

# The colours are Okabe and Ito's, which colour-blind people can distinguish.
# The first is for the baseline. Dashes and markers work in grey print.
STYLES = (
    (INK, "-", "o"),
    ("#0072b2", (0, (6, 1.5)), "s"),
    ("#d55e00", (0, (2, 1.2)), "^"),
    ("#009e73", (0, (6, 1.5, 1.5, 1.5)), "D"),
    ("#a84f8c", (0, (4, 1, 1, 1, 1, 1)), "v"),
    ("#8a6d00", (0, (1, 1)), "P"),
    ("#2a8fc7", (0, (9, 2)), "X"),
)
SETTINGS = {
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "DejaVu Sans",  # Comes with Matplotlib.
    "font.size": 9,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "svg.fonttype": "none",  # Keeps text searchable and easy to copy.
    "text.color": INK,
    "text.parse_math": False,  # A class name may have a dollar sign.
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8.5,
}


class Style(NamedTuple):
    """How a loss is drawn.

    Attributes:
        color: "#rrggbb".
        dash: Matplotlib line style.
        marker: Matplotlib marker.
    """

    color: str
    dash: object
    marker: str


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        title: a short title.
        svg: an <svg> element; `title` is its name for screen readers.
        caption: explains the lines, bands and points.
        png: bytes of a PNG, for a figure of the paper.
    """

    title: str
    svg: str
    caption: str
    png: bytes | None = None


@dataclasses.dataclass(frozen=True)
class Bars:
    """The prediction of one loss for an `Example`.

    Attributes:
        loss: canonical loss; `label` is its name in tables.
        predicted: name of the predicted class.
        right: whether the prediction is right.
        probabilities: tuple of softmax outputs for the example's `classes`.
    """

    loss: str
    label: str
    predicted: str
    right: bool
    probabilities: tuple


@dataclasses.dataclass(frozen=True)
class Example:
    """A test image on which the losses of one seed disagree.

    Attributes:
        index: position in the test set, from 0.
        image: a PNG as a data URI.
        small: whether the page shows it pixel by pixel.
        truth: name of the true class.
        classes: tuple of the class names shown.
        bars: tuple of `Bars`, the baseline first.
    """

    index: int
    image: str
    small: bool
    truth: str
    classes: tuple
    bars: tuple


def loss_styles(families):
    """A dict from each loss of a comparison to its `Style`."""
    losses = dict.fromkeys(loss for f in families for loss in f.losses)
    return {
        loss: Style(*STYLES[i % len(STYLES)]) for i, loss in enumerate(losses)
    }


def error_curves(group, styles):
    """Draws the smoothed test error over the epochs, or None without runs."""
    curves = {
        result.loss: test_errors(result.records)
        for result in group.losses
        if result.records and result.records[0].history
    }
    if not curves:
        return None
    epochs = max(errors.shape[1] for errors in curves.values())
    window = smoothing_window(epochs)
    title = "Test error over the epochs"
    with drawing(WIDTH, 3.1, title) as drawn:
        axes, ends = drawn.axes, []
        for loss, errors in curves.items():
            last = draw_band(axes, 100 * smoothed(errors, window), styles[loss])
            ends.append((last, loss_label(loss), styles[loss].color))
        axes.set_xlabel("epoch")
        axes.set_ylabel("test error [%]")
        axes.set_xlim(1, max(2, epochs))
        _set_error_scale(axes, curves.values())
        _label_ends(axes, ends)
    smoothing = (
        f"a centred moving mean over {window} epochs, shorter at both ends"
        if window > 1
        else "not smoothed"
    )
    caption = (
        "Line: mean over the seeds. Band: from the lowest to the highest "
        f"seed. Each seed is {smoothing}."
    )
    return Figure(title, drawn.svg, caption)


def learning_curves(result, what):
    """Draws the training, test and other curves of one loss, or None.

    Args:
        result: `LossResult`.
        what: "error" or "loss"; the error is 1 - accuracy, in percent.
    """
    column = "accuracy" if what == "error" else "loss"
    curves = {}
    for part in _parts(result.records, column):
        values = _column(result.records, f"{part}_{column}")
        if what == "error":
            values = 100 * (1 - values)
        if np.isfinite(values).all():  # In all epochs of all runs.
            curves[part] = values
    if not curves:
        return None
    title = f"{what.capitalize()} over the epochs"
    with drawing(WIDTH, 3.1, title) as drawn:
        axes, ends = drawn.axes, []
        for (part, values), style in zip(curves.items(), STYLES, strict=False):
            last = draw_band(axes, values, style)
            ends.append((last, part.replace("_", " "), style[0]))
        axes.set_xlabel("epoch")
        axes.set_ylabel("error [%]" if what == "error" else "loss")
        axes.set_xlim(1, max(2, max(v.shape[1] for v in curves.values())))
        _set_error_scale(axes, curves.values())
        _label_ends(axes, ends)
    caption = "Of training, with augmentation and while it goes on, and of test"
    if len(result.records) > 1:
        caption += "; mean over the runs, from the lowest to the highest"
    return Figure(title, drawn.svg, f"{caption}.")


def draw_band(axes, values, style, label=None):
    """Draws the mean and the range of runs, `[runs, epochs]`.

    Returns the last mean.
    """
    color, dash, marker = style
    x, mean = np.arange(1, values.shape[1] + 1), values.mean(axis=0)
    low, high = values.min(axis=0), values.max(axis=0)
    axes.fill_between(x, low, high, color=color, alpha=0.16, lw=0)
    marker = marker if len(x) == 1 else None
    axes.plot(x, mean, color=color, ls=dash, lw=1.7, marker=marker, label=label)
    return mean[-1]


def _parts(records, column):
    """The parts with this column in `history.csv`: test first, train last."""
    names = [name for r in records for row in r.history for name in row]
    parts = dict.fromkeys(
        name.removesuffix(f"_{column}")
        for name in names
        if name.endswith(f"_{column}")
    )
    first = [part for part in ("test", "train") if part in parts]
    return first[:1] + [p for p in parts if p not in first] + first[1:]


def _column(records, name):
    """A column of the histories, `[runs, epochs]`, NaN if it is missing."""
    rows = [[row.get(name, np.nan) for row in r.history] for r in records]
    shortest = min(map(len, rows))
    return np.array([row[:shortest] for row in rows], np.float64)


def seed_strip(group, styles):
    """Draws the last error of every run, joined by seed, or None."""
    results = [result for result in group.losses if result.records]
    if not results:
        return None
    far = far_losses({r.loss: r.errors.values() for r in results})
    apart = {
        r.label: f"{points(r.last.mean)}%" for r in results if r.loss in far
    }
    results = [r for r in results if r.loss not in far]
    title = "Every run, joined by seed"
    with drawing(WIDTH, 3.1, title) as drawn:
        axes = drawn.axes
        for seed in sorted({s for r in results for s in r.seeds}):
            found = [
                (x, 100 * r.errors[seed])
                for x, r in enumerate(results)
                if seed in r.errors
            ]
            axes.plot(*zip(*found, strict=True), color="#b5b5b5", lw=0.8)
        for x, result in enumerate(results):
            _draw_runs(axes, x, result, styles[result.loss])
        axes.set_xlim(-0.3, len(results) - 0.25)
        axes.margins(y=0.1)
        axes.set_xticks(range(len(results)), [_two_lines(r) for r in results])
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("test error, last epoch [%]")
        axes.grid(axis="y", color=GRID, lw=0.6)
    same = ": same initial weights, same batches"
    if any(r.result.get("given") for r in group.records):
        same = ""  # Their training is unknown.
    caption = (
        f"A point is a run, a grey line joins the runs of one seed{same}. Bar "
        "and number: mean over the seeds."
    )
    return Figure(title, drawn.svg, caption + _not_drawn(apart))


def differences(group, styles):
    """Draws each loss minus the baseline by seed, or None without pairs."""
    compared = [c for c in group.comparisons if c.differences or c.unpaired]
    if not compared:
        return None
    values = {
        c.loss: c.differences or [c.test.mean_difference] for c in compared
    }
    far = far_losses({"": [0.0], **values})
    apart = {
        c.label: f"{points(c.test.mean_difference, sign=True)} points"
        for c in compared
        if c.loss in far
    }
    compared = [c for c in compared if c.loss not in far]
    baseline = loss_label(group.baseline)
    title = f"Difference to {baseline}"
    with drawing(WIDTH, 1.1 + 0.55 * len(compared), title) as drawn:
        axes = drawn.axes
        axes.axvline(0, color=INK, lw=1)
        for y, c in enumerate(compared):
            _draw_difference(axes, y, c, styles[c.loss])
        axes.set_ylim(len(compared) - 0.5, -0.5)
        axes.margins(x=0.08)
        axes.set_yticks(range(len(compared)), [_two_lines(c) for c in compared])
        label_differences(
            axes,
            f"error minus {baseline}'s [percentage points]\n"
            f"left of 0: fewer errors than {baseline}",
        )
    caption = (
        "Large point: mean over the seeds. Bar: its 95% confidence interval "
        "(Student's t, not corrected for several losses); where it crosses 0 "
        "no difference is shown. Small points: the seeds."
    )
    return Figure(title, drawn.svg, caption + _not_drawn(apart))


def label_differences(axes, label):
    """Draws a grid and a label below, for a list of differences."""
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(label)


def reliability(group, method, styles):
    """Draws the reliability of one calibration method, or None."""
    rows = []
    for result in group.losses:
        by_method = {row.method: row for row in result.calibration}
        # Cross-entropy has no CRL posterior. Its softmax is drawn instead.
        plain = by_method.get("as trained")
        fallback = plain if method == "CRL posterior" else None
        rows.append(by_method.get(method, fallback))
    rows = [row for row in rows if row is not None]
    if all(row.method != method for row in rows):
        return None
    every = [r for x in group.losses for r in x.calibration]
    lowest = min(
        min(r.curve.confidence.min(), r.curve.accuracy.min()) for r in every
    )
    start = np.floor(10 * min(lowest, 0.9)) / 10
    title = f"Reliability, {method}"
    with drawing(WIDTH, 3.9, title) as drawn:
        axes = drawn.axes
        axes.plot([start, 1], [start, 1], color=FAINT, lw=0.9)
        for row in rows:
            style = styles[row.loss]
            axes.plot(
                row.curve.confidence,
                row.curve.accuracy,
                color=style.color,
                ls=style.dash,
                marker=style.marker,
                ms=4.5,
                lw=1.3,
                mec="white",
                mew=0.5,
                label=_reliability_label(row, method),
                clip_on=False,
            )
        axes.set_xlim(start, 1)
        axes.set_ylim(start, 1)
        axes.set_aspect("equal")
        axes.grid(color=GRID, lw=0.6)
        axes.set_xlabel("confidence")
        axes.set_ylabel("accuracy")
        axes.legend(loc="best", handlelength=3)
    caption = (
        "Test samples in 15 bins of equally many, by confidence; each point "
        "is the mean over the seeds of one bin. On the grey line confidence "
        "and accuracy agree; above it the network is less sure than it is "
        "right, below it surer."
    )
    return Figure(title, drawn.svg, caption)


def confusion_matrices(group, class_names):
    """Draws a confusion matrix for each loss, for up to 20 classes."""
    if len(class_names) > MOST_CLASSES:
        return []
    shares = {
        result.label: 100 * _row_shares(_total_confusion(result))
        for result in group.losses
        if result.evaluations
    }
    wrong = ~np.eye(len(class_names), dtype=bool)
    # All losses of the group share one scale.
    largest = max([s[wrong].max() for s in shares.values()] + [0.1])
    return [
        _confusion_matrix(
            label, values, wrong, largest, class_names, group.config.noun
        )
        for label, values in shares.items()
    ]


def confused_pairs(group, class_names):
    """A `Table` of the most frequent confusions of classes, or None."""
    results = [result for result in group.losses if result.evaluations]
    if not results:
        return None
    counts = [_total_confusion(r) / len(r.evaluations) for r in results]
    total = np.sum(counts, axis=0)
    np.fill_diagonal(total, 0)
    order = np.argsort(-total, axis=None, kind="stable")[:MOST_PAIRS]
    rows = []
    for true, predicted in zip(
        *np.unravel_index(order, total.shape), strict=True
    ):
        if total[true, predicted] == 0:
            break
        names = str(class_names[true]), str(class_names[predicted])
        values = [float(count[true, predicted]) for count in counts]
        rows.append(
            tuple(Cell(name, (name,)) for name in names)
            + tuple(Cell(f"{value:.1f}", (value,)) for value in values)
        )
    columns = (
        Column("True class", ("true",), numeric=False),
        Column("Predicted as", ("predicted",), numeric=False),
        *(Column(r.label, (r.loss,)) for r in results),
    )
    samples = plural(group.config.noun)
    notes = (
        f"Test {samples} per run, mean over the seeds; most confused first.",
    )
    title = f"Most confused classes: {group.title}"
    return Table(title, columns, tuple(rows), notes)


def rate_figure(family, styles):
    """Draws the error by learning rate, or None for fewer than two rates."""
    if len(family.groups) < 2 or not family.best_rates:
        return None
    found = {loss: _by_rate(family, loss) for loss in family.best_rates}
    far = far_losses({loss: mean for loss, (_, mean, _) in found.items()})
    apart = {
        loss_label(loss): f"{points(min(found[loss][1]))}% at best"
        for loss in far
    }
    found = {loss: x for loss, x in found.items() if loss not in far}
    title = "Error by learning rate"
    with drawing(WIDTH, 3.1, title) as drawn:
        axes, ends = drawn.axes, []
        for i, (loss, (rates, mean, std)) in enumerate(found.items()):
            style = styles[loss]
            axes.errorbar(
                # Side by side, or their bars would hide one another.
                rates * 1.04 ** (i - (len(found) - 1) / 2),
                100 * mean,
                100 * std,
                color=style.color,
                ls=style.dash,
                marker=style.marker,
                ms=5,
                lw=1.5,
                elinewidth=1,
                capsize=2.5,
                mec="white",
                mew=0.5,
            )
            ends.append((100 * mean[-1], loss_label(loss), style.color))
        rates = [group.rate for group in family.groups]
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set_xlabel("learning rate")
        axes.set_ylabel("test error, last epoch [%]")
        _set_error_scale(axes, [mean for _, mean, _ in found.values()])
        _label_ends(axes, ends)
    caption = (
        "Mean over the seeds, with its standard deviation. A loss that acts "
        "as a larger step only shows as a curve shifted sideways."
    )
    return Figure(title, drawn.svg, caption + _not_drawn(apart))


def effect_figures(family):
    """Draws what each loss changes by steps and by weighting; a tuple.

    Each loss with both controls gets one figure, over the learning rate.
    """
    by_loss = {}
    for effect in effects(family):
        by_loss.setdefault(effect.loss, []).append(effect)
    return tuple(_effect_figure(found) for found in by_loss.values())


def _effect_figure(found):
    title = f"Steps or weighting: {found[0].label}"
    names = {"step": "steps", "weighting": "weighting", "total": "together"}
    parts = dict(zip(names, (STYLES[2], STYLES[1], STYLES[0]), strict=True))
    with drawing(WIDTH, 3.1, title) as drawn:
        axes, ends = drawn.axes, []
        axes.axhline(0, color=FAINT, lw=0.8)
        for i, (part, (color, dash, marker)) in enumerate(parts.items()):
            tests = [effect.parts[part].test for effect in found]
            mean = np.array([100 * t.mean_difference for t in tests])
            reach = [
                100 * (t.ci[1] - t.ci[0]) / 2 if t.ci else 0.0 for t in tests
            ]
            axes.errorbar(
                # Side by side, or their bars would hide one another.
                [effect.rate * 1.05 ** (i - 1) for effect in found],
                mean,
                reach,
                color=color,
                ls=dash,
                marker=marker,
                ms=5,
                lw=1.5,
                elinewidth=1,
                capsize=2.5,
            )
            ends.append((mean[-1], names[part], color))
        rates = [effect.rate for effect in found]
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set_xlabel("learning rate")
        axes.set_ylabel("change in test error\n[points], below 0: better")
        axes.grid(axis="y", color=GRID, lw=0.6)
        _label_ends(axes, ends)
    caption = (
        f"Change in test error from cross-entropy to {found[0].label} "
        "(together), and what longer steps alone and the weighting of samples "
        "alone do. Bars: 95% confidence intervals over the seeds."
    )
    return Figure(title, drawn.svg, caption)


def disagreements(group):
    """Finds test images on which the losses of one seed (and fold) disagree.

    Takes the first three images of the test set that the baseline has right
    and another loss wrong, and the first three that the baseline has wrong
    and another loss right. Only images in the records count.

    Returns:
        `(seed, examples)`; `examples` is empty without disagreement. None if
        no seed has logits of the baseline and another loss, or if the records
        have no images.
    """
    seed, results = _most_shared_seed(group)
    if seed is None:
        return None
    records = [
        next(r for r in result.records if r.config.pair == seed)
        for result in results
    ]
    data = records[0].data()
    kept = len(data["thumbnails"])
    if not kept:
        return None
    correct = np.array([r.evaluations[seed].correct[:kept] for r in results])
    baseline, others = correct[0], correct[1:]
    lost = np.flatnonzero(baseline & ~others.all(axis=0))
    won = np.flatnonzero(~baseline & others.any(axis=0))
    chosen = [*lost[:EXAMPLES_EACH_WAY], *won[:EXAMPLES_EACH_WAY]]
    # Loads the logits of one run at a time: many classes make them large.
    probabilities = [
        scores.softmax(record.logits()["test"][chosen]) if chosen else None
        for record in records
    ]
    examples = [
        _example(index, data, results, [p[i] for p in probabilities])
        for i, index in enumerate(chosen)
    ]
    return seed, examples


def far_losses(values, factor=6):
    """Finds losses so far from the baseline that they would hide the others.

    Args:
        values: dict from losses to their numbers, the baseline first.
        factor: a loss is far if it makes the axis more than this times wider.

    Returns:
        A set of keys of `values`, without the baseline and the nearest loss.
    """
    ends = [(min(found), max(found)) for found in values.values()]
    low, high = ends[0]
    distance = [max(low - a, b - high) for a, b in ends]
    order = np.argsort(distance, kind="stable")
    order = [0, *(int(i) for i in order if i != 0)]
    spans = [
        max(ends[i][1] for i in order[:k]) - min(ends[i][0] for i in order[:k])
        for k in range(1, len(order) + 1)
    ]
    keys = list(values)
    for k in range(2, len(order)):
        if spans[k] > factor * spans[k - 1] > 0:
            return {keys[i] for i in order[k:]}
    return set()


def smoothing_window(epochs):
    """Epochs in the moving mean: an odd number, about 1/15 of the run."""
    return (epochs // 15) | 1 if epochs >= 30 else 1


def smoothed(values, window):
    """Centred moving mean along the last axis, shorter at both ends."""
    values = np.asarray(values, np.float64)
    half = window // 2
    return np.stack(
        [
            values[..., max(0, i - half) : i + half + 1].mean(axis=-1)
            for i in range(values.shape[-1])
        ],
        axis=-1,
    )


class Svg(str):
    """The text of an <svg> element; `figure` is its Matplotlib figure."""


@contextlib.contextmanager
def drawing(width, height, title, rows=1, columns=1, dpi=None):
    """A context with `grid`, `[rows, columns]`, of axes to draw on.

    `axes` is the first of them. At its end it sets `svg`, and `png` if there
    is a `dpi`.
    """
    matplotlib = require("matplotlib", "experiments")
    new_figure = require("matplotlib.figure", "experiments").Figure
    # With a salt, ids depend on the content and not on chance.
    settings = {**SETTINGS, "svg.hashsalt": title}
    with matplotlib.rc_context(settings):
        figure = new_figure((width, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        drawn = types.SimpleNamespace(
            figure=figure, grid=grid, axes=grid[0][0], png=None
        )
        yield drawn
        # The SVG keeps text, so the browser has the missing glyphs.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            drawn.svg = Svg(svg_of(figure, title))
        drawn.svg.figure = figure
        if dpi:
            buffer = io.BytesIO()
            metadata = {"Software": None}
            figure.savefig(buffer, format="png", dpi=dpi, metadata=metadata)
            drawn.png = buffer.getvalue()


def svg_of(figure, title):
    """Makes the <svg> element of a Matplotlib figure, always the same."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # The metadata has a date, which would change the bytes.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # The page sets the size. `viewBox` keeps the shape.
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", svg)
    name = html.escape(title, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)


def with_ids(svg, prefix):
    """The <svg> element with a prefix before its ids."""
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)


def test_errors(records):
    """Test errors `[runs, epochs]` of the epochs that all runs have."""
    return 1 - _column(records, "test_accuracy")


def _draw_runs(axes, x, result, style):
    """Draws the runs of a loss at `x` and their mean beside them."""
    errors = 100 * np.array(list(result.errors.values()))
    axes.plot(
        np.full(len(errors), x),
        errors,
        style.marker,
        color=style.color,
        ms=5,
        mec="white",
        mew=0.6,
    )
    mean = errors.mean()
    axes.plot([x + 0.12, x + 0.3], [mean] * 2, color=style.color, lw=2)
    axes.text(x + 0.33, mean, f"{mean:.2f}", va="center", size=8.5, bbox=PAPER)


def _draw_difference(axes, y, c, style):
    """Draws mean, interval and seeds of a `PairedComparison` at `y`."""
    values = 100 * np.array(c.differences)
    axes.plot(
        values,
        np.full(len(values), y + 0.2),
        style.marker,
        color=style.color,
        ms=4,
        alpha=0.55,
        mec="none",
    )
    if c.test.ci:
        low, high = 100 * np.array(c.test.ci)
        axes.plot([low, high], [y, y], color=style.color, lw=2.2)
    mean = 100 * c.test.mean_difference
    axes.plot(mean, y, style.marker, color=style.color, ms=8, mec="white")
    axes.annotate(
        points(c.test.mean_difference, sign=True),
        (mean, y),
        (0, 7),
        textcoords="offset points",
        ha="center",
        size=8.5,
        bbox=PAPER,
    )


def _by_rate(family, loss):
    """Learning rates, mean errors and standard deviations of a loss."""
    found = [
        (group.rate, result.last.mean, result.last.std or 0.0)
        for group in family.groups
        for result in group.losses
        if result.loss == loss and result.last.n
    ]
    return tuple(np.array(column) for column in zip(*found, strict=True))


def _not_drawn(apart):
    """The sentence of a caption on the losses left out by `far_losses`."""
    if not apart:
        return ""
    names = listed([f"{label} at {where}" for label, where in apart.items()])
    return f" Not drawn, as the rest could not be told apart: {names}."


def _set_error_scale(axes, errors):
    """Uses a logarithmic axis if errors fall far, to show the end."""
    ticker = require("matplotlib.ticker", "experiments")
    low = min(e.min() for e in errors)
    high = max(e.max() for e in errors)
    axes.grid(axis="y", color=GRID, lw=0.6)
    if low > 0 and high / low > 5:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_locator(ticker.NullLocator())


def _label_ends(axes, ends):
    """Labels lines at their right ends and moves labels apart."""
    axes.autoscale_view()
    height = axes.figure.get_size_inches()[1] * 72 * 0.8
    gap = 10.5 / height
    to_share = axes.transData + axes.transAxes.inverted()
    x = axes.get_xlim()[1]
    at = [to_share.transform((x, y))[1] for y, *_ in ends]
    for y, place, (_, label, color) in zip(
        at, spread(at, gap), ends, strict=True
    ):
        axes.annotate(
            label,
            (1, y),
            (1.05, place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=color,
            va="center",
            size=9,
            weight="bold",
            arrowprops=dict(arrowstyle="-", color=color, lw=0.7, shrinkB=0),
        )


def spread(places, gap):
    """Moves places at least `gap` apart and keeps order and centre."""
    optimize = require("scipy.optimize", "experiments")
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    wished = np.take(places, order) - steps
    moved = np.empty(len(places))
    moved[order] = optimize.isotonic_regression(wished).x + steps
    return moved.tolist()


def _two_lines(named):
    return named.label.replace("(", "\n(").replace(" with ", "\nwith ")


def _total_confusion(result):
    return np.sum([e.confusion for e in result.evaluations.values()], axis=0)


def _reliability_label(row, method):
    name = loss_label(row.loss)
    if row.method != method:
        name += f" {row.method}"
    return f"{name}, ECE {points(row.ece.mean)}%"


def _row_shares(counts):
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _confusion_matrix(label, values, wrong, largest, class_names, noun):
    names = [_short(str(name)) for name in class_names]
    n = len(names)
    title = f"Confusion matrix, {label}"
    with drawing(WIDTH, 4.1, title) as drawn:
        axes = drawn.axes
        axes.pcolormesh(
            np.where(wrong, values, np.nan),
            cmap="Blues",
            vmin=0,
            vmax=largest,
            edgecolors="white",
            linewidth=0.6,
        )
        size = 7.5 if n <= 10 else 6
        for true, predicted in np.argwhere(values >= 0.05):
            value = values[true, predicted]
            # Small cells have space for two digits only.
            digits = 1 if n <= 12 and value < 99.95 else 0
            text = f"{value:.{digits}f}"
            dark = wrong[true, predicted] and value > 0.6 * largest
            axes.text(
                predicted + 0.5,
                true + 0.5,
                text,
                ha="center",
                va="center",
                size=size,
                color="white" if dark else INK,
                weight="normal" if wrong[true, predicted] else "bold",
            )
        axes.set_xticks(np.arange(n) + 0.5, names)
        axes.set_yticks(np.arange(n) + 0.5, names)
        if max(map(len, names)) > 2:
            axes.tick_params(axis="x", labelrotation=90)
        axes.tick_params(length=0, labelsize=8 if n <= 12 else 7)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
    caption = (
        f"Percent of the {plural(noun)} of each true class (row), all seeds "
        "together. Shaded: wrong, on one scale for all losses. Bold: right. "
        "Below 0.05 left blank."
    )
    return Figure(title, drawn.svg, caption)


def _short(name, most=14):
    """Cuts out the middle of a long name; names differ at their ends."""
    if len(name) <= most:
        return name
    half = most // 2
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[1 - half :]}"


def _most_shared_seed(group):
    """The first seed with the most losses, and those losses."""
    baseline = group.losses[0]
    best, found = None, []
    for seed in sorted(baseline.evaluations):
        shared = [r for r in group.losses if seed in r.evaluations]
        if len(shared) > max(1, len(found)):
            best, found = seed, shared
    return best, found


def _example(index, data, results, probabilities):
    names = [str(name) for name in data["class_names"]]
    image = data["thumbnails"][index]
    truth = int(data["labels"][index])
    predicted = [int(np.argmax(p)) for p in probabilities]
    likely = np.argsort(-np.mean(probabilities, axis=0), kind="stable")
    shown = list(dict.fromkeys([truth, *predicted]))
    shown += [int(k) for k in likely if k not in shown]
    shown = sorted(shown[: max(CLASSES_SHOWN, len({truth, *predicted}))])
    return Example(
        index=int(index),
        image=png_data_uri(image),
        small=max(image.shape[:2]) <= SMALL,
        truth=names[truth],
        classes=tuple(names[k] for k in shown),
        bars=tuple(
            Bars(
                loss=result.loss,
                label=result.label,
                predicted=names[k],
                right=k == truth,
                probabilities=tuple(float(p[j]) for j in shown),
            )
            for result, k, p in zip(
                results, predicted, probabilities, strict=True
            )
        ),
    )
