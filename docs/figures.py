"""Draws the figures of the documentation and prints its tables of numbers.

    python docs/figures.py            writes docs/figures/weight.svg
    python docs/figures.py --table    prints the table of weights in loss.md

It works on any backend. It does not use the formula of the weight. It measures
the gradient of a loss, and divides it by the gradient with beta = 0.
"""

import argparse
import pathlib

import keras
import numpy as np

import crl_keras

FOLDER = pathlib.Path(__file__).parent / "figures"
# A power of 2 keeps all digits. It is large, so rounding of logits is small.
LEARNING_RATE = 2.0**20


def gradients(alpha, beta, p_c):
    """Returns the gradients in the correct logit, for probabilities `p_c`.

    They are measured by one step of gradient descent on the logits. There are
    two classes, because the weight does not depend on their number.
    """
    n = len(p_c)
    logits = np.stack([np.log(p_c), np.log1p(-p_c)], axis=1)
    model = keras.Sequential(
        [keras.Input((n,)), keras.layers.Dense(2, use_bias=False)]
    )
    model.set_weights([logits])
    loss = crl_keras.SparseCompetingRatioLoss(
        alpha, beta, from_logits=True, reduction="sum"
    )
    optimizer = keras.optimizers.SGD(LEARNING_RATE)
    model.compile(optimizer, loss, run_eagerly=True)  # For one step only.
    model.train_on_batch(np.eye(n, dtype="float32"), np.zeros(n, "int32"))
    (after,) = model.get_weights()
    return (logits - after)[:, 0] / LEARNING_RATE


def weights(alpha, beta, p_c):
    """Returns the weight of a sample relative to cross-entropy."""
    return gradients(alpha, beta, p_c) / gradients(alpha, 0.0, p_c)


def print_table():
    p_c = np.array([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999])
    settings = [
        (1.5, 0.25),
        (1.5, 1.0),
        (1.0, 1.0),
        (2.0, 1.0),
        (0.5, 1.0),
        (0.0, 1.0),
        (1.5, -1.0),
    ]
    names = [f"({alpha:g}, {beta:g})" for alpha, beta in settings]
    columns = [weights(alpha, beta, p_c) for alpha, beta in settings]
    print("| p_c | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for p, row in zip(p_c, np.transpose(columns), strict=True):
        cells = [f"{w:.2f}" if w < 10 else f"{w:.0f}" for w in row]
        print(f"| {p:g} | " + " | ".join(cells) + " |")


def draw_weight():
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "svg.fonttype": "none",  # Text stays text.
            "svg.hashsalt": "crl_keras",
            "font.family": "sans-serif",
            "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
            "font.size": 11,
        }
    )
    p_c = np.linspace(0.005, 0.995, 100)
    # alpha, beta, color, label, place and horizontal alignment of the label
    curves = [
        (0.0, 1.0, "#b5392f", "NLLR\nα = 0, β = 1", (0.58, 2.75), "right"),
        (1.5, 1.0, "#1f5fa8", "CRL, α = 1.5, β = 1", (1.02, 1.64), "left"),
        (1.5, 0.0, "#333333", "cross-entropy, β = 0", (1.02, 1.0), "left"),
        (1.5, -1.0, "#8a6d00", "α = 1.5, β = −1", (1.02, 0.36), "left"),
    ]
    figure, axes = plt.subplots(figsize=(6.8, 3.6))
    for alpha, beta, color, label, (x, y), alignment in curves:
        # Rounded, so that every backend draws the same file.
        w = np.round(weights(alpha, beta, p_c), 3)
        w[w > 4] = np.nan
        axes.plot(p_c, w, color=color, linewidth=2, solid_capstyle="round")
        axes.text(x, y, label, color=color, va="center", ha=alignment)
    axes.set(
        xlim=(0, 1),
        ylim=(0, 3.5),
        xticks=np.linspace(0, 1, 5),
        yticks=[0, 1, 2, 3],
        xlabel="probability of the correct class, p_c",
        ylabel="weight w",
        title="Gradient of a sample, relative to cross-entropy",
    )
    axes.title.set_fontsize(11)
    axes.grid(color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.subplots_adjust(left=0.08, right=0.73, bottom=0.15, top=0.91)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / "weight.svg"
    figure.savefig(
        path, facecolor="white", metadata={"Date": None, "Creator": None}
    )
    print(f"Wrote {path}")
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--table", action="store_true", help="print the table instead"
    )
    if parser.parse_args().table:
        print_table()
    else:
        draw_weight()
