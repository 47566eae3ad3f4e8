"""Draws the figures of the pages of results from their tables of numbers.

    python docs/result_figures.py

reads the CSV files of docs/results/raw and writes an SVG file beside each page.
It needs no backend.
"""

import csv
import os
import pathlib

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

# The figures need only the tables.
os.environ.setdefault("CRL_KERAS_RECORDS_ONLY", "1")

from crl_keras.experiments.analysis.figures import FAINT  # noqa: E402
from crl_keras.experiments.analysis.figures import GRID  # noqa: E402
from crl_keras.experiments.analysis.figures import INK  # noqa: E402
from crl_keras.experiments.analysis.figures import SETTINGS  # noqa: E402
from crl_keras.experiments.analysis.figures import STYLES  # noqa: E402
from crl_keras.experiments.analysis.figures import label_differences  # noqa: E402
from crl_keras.experiments.analysis.figures import svg_of  # noqa: E402
from crl_keras.experiments.runs.config import crl_parameters  # noqa: E402
from crl_keras.experiments.runs.config import loss_label  # noqa: E402
from crl_keras.experiments.runs.config import parse_loss  # noqa: E402

FOLDER = pathlib.Path(__file__).parent / "results"
CRL = "crl(alpha=1.5,beta=1)"
BLUE, ORANGE, GREEN = (STYLES[i][0] for i in (1, 2, 3))
ALPHAS = (0.0, 1.0, 1.5, 2.0)
BETAS = (0.25, 0.5, 0.75, 1.0, 1.25)
MOST_POINTS = 8  # The limit of the heat map's colours.
LOSSES = {
    "focal": "focal loss",
    "dualce": "dual cross-entropy",
    "tamed": "tamed cross-entropy",
    "lsoftmax": "L-Softmax",
    "asoftmax": "A-Softmax",
}
EXPERIMENTS = {
    "mnist-logistic": "MNIST, softmax regression",
    "mnist-mlp": "MNIST, perceptron",
    "cifar10-zhu2018": "CIFAR-10, four convolutions",
    "table6-resnet20": "CIFAR-10, ResNet-20",
    "table1-resnet20": "CIFAR-10, ResNet-20, two seeds",
}
PAPER_ROWS = {
    "ResNet34": "Table I: CIFAR-10, ResNet-34",
    "4conv+2fc CNN of ref [18]": "Table II: CIFAR-10, four convolutions",
    "Logistic Regression": "Table IV: MNIST, softmax regression",
    "Multilayer Perceptron": "Table IV: MNIST, perceptron",
}


def read(name):
    """Returns the rows of a table of numbers, as dicts of text."""
    text = (FOLDER / "raw" / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def draw_heat_map(axes):
    """Draws error by alpha and beta; beta = 0 is cross-entropy."""
    rows = [r for r in read("errors") if r["experiment"] == "table1-resnet20"]
    (baseline,) = (r for r in rows if r["loss"] == "ce")
    rows.remove(baseline)
    places = [_place(row["loss"]) for row in rows]
    differences = [[0.0] * len(BETAS) for _ in ALPHAS]
    for (y, x), row in zip(places, rows, strict=True):
        differences[y][x] = 100 * float(row["difference_mean"])
        strong = differences[y][x] > 0.6 * MOST_POINTS
        _write_error(axes, x, y, row, "white" if strong else INK)
    mesh = axes.pcolormesh(
        range(len(BETAS)),
        range(len(ALPHAS)),
        differences,
        cmap="RdBu_r",  # White is the error of cross-entropy.
        vmin=-MOST_POINTS,
        vmax=MOST_POINTS,
        edgecolors="white",
        linewidth=1.5,
    )
    middle = (len(ALPHAS) - 1) / 2
    frame = dict(fill=False, ec=FAINT, lw=0.8)
    axes.add_patch(Rectangle((-1.7, -0.5), 1, len(ALPHAS), **frame))
    _write_error(axes, -1.2, middle, baseline, INK)
    axes.text(-1.2, middle + 0.7, "cross-\nentropy", ha="center", va="center")
    y, x = _place(CRL)
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, ec=INK, lw=1.6)
    )
    axes.set_xlim(-1.8, len(BETAS) - 0.45)
    axes.set_xticks((-1.2, *range(len(BETAS))), [f"{b:g}" for b in (0, *BETAS)])
    axes.set_yticks(range(len(ALPHAS)), [f"{alpha:g}" for alpha in ALPHAS])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("beta")
    axes.set_ylabel("alpha")
    bar = axes.figure.colorbar(mesh, ax=axes, extend="max", pad=0.02)
    bar.set_label("points above cross-entropy")
    bar.outline.set_visible(False)


def _place(loss):
    """Returns row and column of a setting in the heat map."""
    parameters = crl_parameters(loss)
    return ALPHAS.index(parameters["alpha"]), BETAS.index(parameters["beta"])


def _write_error(axes, x, y, row, color):
    mean, std = (100 * float(row[f"error_{name}"]) for name in ("mean", "std"))
    text = f"{mean:.2f}\n± {std:.2f}"
    axes.text(x, y, text, ha="center", va="center", color=color)


def draw_cifar10(axes):
    """Draws each loss's difference to cross-entropy, for two networks."""
    found = read("errors")
    _forest(
        axes,
        [r for r in found if r["experiment"] == "table6-resnet20"]
        + [r for r in found if r["experiment"] == "cifar10-zhu2018"],
        limits=(-9, 13.5),
    )


def draw_mnist(axes):
    """Draws the same for two networks at three learning rates."""
    found = read("errors")
    _forest(
        axes,
        [r for r in found if r["experiment"].startswith("mnist")],
        limits=(-0.22, 0.38),
    )


def _forest(axes, rows, limits):
    """Draws mean and interval of each loss; as text if beyond the limits."""
    labels, y, shown = [], 0, None
    for row in rows:
        group = row["experiment"], row["learning_rate"]
        if row["loss"] == "ce":
            continue
        if group != shown:
            y += 0.6 if shown else 0
            title = f"{EXPERIMENTS[group[0]]}, rate {group[1]}"
            labels.append((y, title, "bold"))
            shown, y = group, y + 1
        labels.append((y, _name(row["loss"]), "normal"))
        if not row["difference_mean"]:
            text = f"{row['n_diverged']} of {row['n_diverged']} runs diverged"
            axes.text(limits[1], y, text, ha="right", va="center", color=FAINT)
        else:
            _draw_difference(axes, y, row, limits)
        y += 1
    axes.axvline(0, color=INK, lw=1)
    axes.set_xlim(*limits)
    axes.set_ylim(y - 0.4, -0.7)
    axes.set_yticks([at for at, *_ in labels], [text for _, text, _ in labels])
    for label, (_, _, weight) in zip(
        axes.get_yticklabels(), labels, strict=True
    ):
        label.set_fontweight(weight)
    _label_differences(axes, "error")


def _label_differences(axes, error):
    label_differences(
        axes,
        f"{error} minus that of cross-entropy [points]\n"
        "left of 0: fewer errors than cross-entropy",
    )


def _draw_difference(axes, y, row, limits):
    mean, low, high = (
        100 * float(row[f"difference_{name}"])
        for name in ("mean", "low", "high")
    )
    if mean > limits[1]:
        text = f"{mean:+.2f} \N{RIGHTWARDS ARROW}"
        axes.text(limits[1], y, text, ha="right", va="center", color=FAINT)
        return
    color = BLUE if row["loss"] == CRL else INK
    # Tables write smaller values as "<0.001".
    different = float(row["p_holm"].lstrip("<")) < 0.05
    axes.errorbar(
        mean,
        y,
        xerr=[[mean - low], [high - mean]],
        fmt="s" if row["loss"] == CRL else "o",
        color=color,
        mfc=color if different else "white",
        ms=5.5,
        lw=1.4,
        capsize=2.5,
    )


def _name(loss):
    name, parameters = parse_loss(loss)
    if name == "crl":
        return "CRL({alpha:g}, {beta:g})".format(**parameters)
    return LOSSES.get(name, loss_label(loss))


def draw_probabilities(axes):
    """Draws calibration errors of cross-entropy and CRL, corrected or not."""
    kinds = (
        ("ce", "as trained", "cross-entropy", INK, "o", "full"),
        ("ce", "temperature", "cross-entropy, temperature", INK, "o", "none"),
        (CRL, "as trained", "CRL", BLUE, "s", "full"),
        (CRL, "CRL posterior", "CRL, formula", ORANGE, "^", "full"),
        (CRL, "temperature", "CRL, temperature", BLUE, "s", "none"),
    )
    rows = read("calibration")
    cases = list(
        dict.fromkeys((r["experiment"], r["learning_rate"]) for r in rows)
    )
    found = {
        (r["experiment"], r["learning_rate"], r["loss"], r["method"]): 100
        * float(r["ece_mean"])
        for r in rows
    }
    for i, (loss, method, label, color, marker, fill) in enumerate(kinds):
        axes.plot(
            [found[(*case, loss, method)] for case in cases],
            # One below the other, so that no mark hides another.
            [y + 0.15 * (i - 2) for y in range(len(cases))],
            marker,
            label=label,
            color=color,
            fillstyle=fill,
            ms=5,
        )
    for y in range(1, len(cases)):
        axes.axhline(y - 0.5, color=GRID, lw=0.6)
    axes.set_yticks(
        range(len(cases)),
        [f"{EXPERIMENTS[name]}, rate {rate}" for name, rate in cases],
    )
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_xlim(0, None)
    axes.grid(axis="x", color=GRID, lw=0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("expected calibration error [%]")
    axes.figure.legend(loc="outside lower center", ncols=2)


def draw_paper(axes):
    """Draws CRL minus cross-entropy, in the paper and in our runs."""
    ours = [r for r in read("paper-differences") if r["loss"] == "CRL"]
    for y, row in enumerate(ours):
        mean, low, high = (
            float(row[name]) for name in ("points", "points_low", "points_high")
        )
        axes.errorbar(
            mean,
            y + 0.14,
            xerr=[[mean - low], [high - mean]],
            fmt="s",
            color=BLUE,
            ms=5.5,
            lw=1.4,
            capsize=2.5,
            label="our runs, 95% interval" if y == 0 else None,
        )
        axes.plot(
            _gain_of_the_paper(row["network"]),
            y - 0.14,
            "D",
            color=ORANGE,
            ms=5.5,
            label="the paper, one run each" if y == 0 else None,
        )
    axes.axvline(0, color=INK, lw=1)
    axes.set_yticks(range(len(ours)), [PAPER_ROWS[r["network"]] for r in ours])
    axes.set_ylim(len(ours) - 0.5, -0.5)
    _label_differences(axes, "CRL's error")
    axes.figure.legend(loc="outside lower center", ncols=2)


def _gain_of_the_paper(network):
    """Returns the paper's CRL minus cross-entropy, for rows that we ran."""
    rows = [
        row
        for row in read("paper-tables")
        if row["network"] == network
        and row["mean"]
        and row["number"] in ("error [%]", "accuracy [%]")
    ]
    values = {row["loss"][:3]: float(row["paper"]) for row in rows}
    sign = -1 if rows[0]["number"] == "accuracy [%]" else 1
    return sign * (values["CRL"] - values["CEL"])


# File name: title for screen readers, size in inches, drawing function.
FIGURES = {
    "alpha-and-beta": (
        "Test error by alpha and beta: ResNet-20 on CIFAR-10",
        (5.4, 3.3),
        draw_heat_map,
    ),
    "other-losses-cifar10": (
        "Difference to cross-entropy on CIFAR-10, by loss",
        (5.4, 4.2),
        draw_cifar10,
    ),
    "other-losses-mnist": (
        "Difference to cross-entropy on MNIST, by loss and learning rate",
        (5.4, 5.6),
        draw_mnist,
    ),
    "probabilities": (
        "Calibration error of cross-entropy and CRL",
        (5.4, 5.2),
        draw_probabilities,
    ),
    "paper-tables": (
        "CRL minus cross-entropy, in the paper and in our runs",
        (5.4, 2.9),
        draw_paper,
    ),
}


def drawn(name):
    """Returns the Matplotlib figure of a name."""
    _, size, draw = FIGURES[name]
    figure = Figure(size, layout="constrained")
    draw(figure.add_subplot())
    return figure


def svgs():
    """Returns the SVG text of each path, as a dict."""
    found = {}
    for name, (title, *_) in FIGURES.items():
        settings = {**SETTINGS, "svg.hashsalt": title}
        with matplotlib.rc_context(settings):
            found[FOLDER / f"{name}.svg"] = svg_of(drawn(name), title) + "\n"
    return found


if __name__ == "__main__":
    for path, svg in svgs().items():
        path.write_text(svg, encoding="utf-8")
