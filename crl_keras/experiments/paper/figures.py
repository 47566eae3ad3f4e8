"""Draws Figs. 1 to 5 of the paper again.

Figs. 1 and 2 come from the formulas, Fig. 3 from the histories of runs, and
Figs. 4 and 5 from logits and test images. Imports no backend.
"""

import functools
import pathlib

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.analysis.figures import FAINT
from crl_keras.experiments.analysis.figures import GRID
from crl_keras.experiments.analysis.figures import INK
from crl_keras.experiments.analysis.figures import STYLES
from crl_keras.experiments.analysis.figures import Figure
from crl_keras.experiments.analysis.figures import draw_band
from crl_keras.experiments.analysis.figures import drawing
from crl_keras.experiments.analysis.figures import smoothed
from crl_keras.experiments.analysis.figures import smoothing_window
from crl_keras.experiments.analysis.figures import test_errors
from crl_keras.experiments.measures import scores
from crl_keras.experiments.paper.report import by_protocol
from crl_keras.experiments.paper.report import by_setting
from crl_keras.experiments.paper.report import chosen_settings
from crl_keras.experiments.paper.report import compared
from crl_keras.experiments.paper.tables import FIGURES
from crl_keras.experiments.paper.tables import figure_entries
from crl_keras.experiments.paper.tables import has_ce_and_crl
from crl_keras.experiments.paper.tables import why_nothing
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.config import parse_loss
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.words import listed

# Fig. 2: the values in its caption and legend.
ALPHA, P_J = 1.5, 0.5
BETAS = (0.25, 0.5, 0.75, 1.0)
# Fig. 1: softmax before the steps; class 2 is correct.
BEFORE = (0.12, 0.05, 0.75, 0.08)
CORRECT = 1
STEPS, RATE = 3, 0.5
PIE_COLORS = ("#8fb8de", "#009e73", "#e6a15c", "#c9a0c0")
# Figs. 4 and 5: maximum number of images of each kind.
MOST_IMAGES = 8


_canvas = functools.partial(drawing, dpi=150)


def write_figures(names, protocol, folder, show=True):
    """Writes NAME.svg, NAME.png and NAME.md (caption) into FOLDER/paper.

    Args:
        names: Keys of `paper.FIGURES`.
        protocol: `Protocol` of the runs to show.
        folder: Folder of the records.
        show: Print captions and paths.

    Returns:
        Tuple of the paths written.

    Raises:
        ValueError: If the runs of a figure are missing.
    """
    output = pathlib.Path(folder) / "paper"
    output.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        drawn = draw(name, protocol, folder)
        for suffix, content in (
            (".svg", drawn.svg.encode()),
            (".png", drawn.png),
            (".md", f"**{drawn.title}.** {drawn.caption}\n".encode()),
        ):
            path = output / (name + suffix)
            path.write_bytes(content)
            written.append(path)
        if show:
            print(f"{drawn.title}. {drawn.caption}\n")
            print(f"Written: {output / name}.svg, .png, .md\n")
    return tuple(written)


def draw(name, protocol=None, folder=None):
    """Makes the `Figure` of "fig1" to "fig5"; Figs. 1 and 2 need no runs.

    Raises ValueError if the runs of a figure are missing.
    """
    if name == "fig1":
        return pies()
    if name == "fig2":
        return gradients()
    found, diverged = _runs(name, protocol, folder)
    scale = protocol.about
    if diverged:
        scale += f" Left out, as all runs diverged: {listed(diverged)}."
    if name == "fig3":
        return curves(found, scale)
    return (faces if name == "fig4" else heat_maps)(found, scale)


def true_gradient(p_c, p_j, alpha, beta):
    """Derivative of the loss by the logit of a wrong class `j`.

    `(1 + beta p_c / (alpha + 1 - p_c)) p_j`, of Eq. (11). Arrays broadcast.

    >>> true_gradient(0.5, 0.25, alpha=1.5, beta=1.0)
    0.3125
    """
    return (1 + beta * p_c / (alpha + 1 - p_c)) * p_j


def printed_gradient(p_c, p_j, alpha, beta):
    """The derivative in the paper's Eq. (14), with a minus instead of a plus.

    >>> printed_gradient(0.5, 0.25, alpha=1.5, beta=1.0)
    0.1875
    """
    return (1 - beta * p_c / (alpha + 1 - p_c)) * p_j


def softmax_after(p, correct, steps, rate, alpha=0.0, beta=0.0):
    """Softmax of one image after steps of gradient descent on its logits.

    Args:
        p: Probabilities before the steps, `[classes]`, above 0.
        correct: Index of the correct class.
        steps: Number of steps.
        rate: Length of a step.
        alpha, beta: Parameters of the loss; both 0 for cross-entropy.
    """
    logits = np.log(np.asarray(p, np.float64))
    for _ in range(steps):
        p = scores.softmax(logits[None])[0]
        weight = 1.0
        if beta:
            weight += beta * p[correct] / (alpha + 1 - p[correct])
        gradient = weight * p
        gradient[correct] -= weight
        logits -= rate * gradient
    return scores.softmax(logits[None])[0]


def pies():
    """Fig. 1: pies of the softmax before and after true gradient steps."""
    pairs = (
        ("before", np.array(BEFORE)),
        (
            f"CEL, {STEPS} steps",
            softmax_after(BEFORE, CORRECT, STEPS, RATE),
        ),
        (
            f"CRL, {STEPS} steps",
            softmax_after(BEFORE, CORRECT, STEPS, RATE, ALPHA, 1.0),
        ),
    )
    title = "Fig. 1 of the paper: softmax of one image, before and after"
    with _canvas(6.6, 2.7, title, columns=3) as canvas:
        for axes, (name, p) in zip(canvas.grid[0], pairs, strict=True):
            _pie(axes, name, p)
    rising = [
        f"{k + 1}"
        for k, (_, after) in enumerate(zip(BEFORE, pairs[2][1], strict=True))
        if k != CORRECT and after > BEFORE[k]
    ]
    caption = (
        f"Class {CORRECT + 1}, pulled out, is the correct class. {STEPS} steps "
        f"of {RATE} along the negative gradient of the logits; CRL has alpha "
        f"{ALPHA}, beta 1. In the paper's drawing, cross-entropy may raise a "
        "wrong class and CRL lowers them all. In fact, the two gradients have "
        "the same direction and CRL's is longer. Here classes "
        f"{listed(rising)} rise under both, while the large class 3 falls."
    )
    return Figure(title, canvas.svg, caption, canvas.png)


def gradients():
    """Fig. 2: the gradient over p_c, as printed and as it really is."""
    title = "Fig. 2 of the paper: gradient in the logit of a wrong class"
    p_c = np.linspace(0, 1, 401)
    kinds = (
        ("as printed, Eq. (14)", printed_gradient),
        ("as it is", true_gradient),
    )
    with _canvas(7.6, 3.5, title, columns=2) as canvas:
        for axes, (name, formula) in zip(canvas.grid[0], kinds, strict=True):
            _gradient_panel(axes, name, formula, p_c)
        canvas.grid[0][0].set_ylabel("gradient")
        canvas.grid[0][1].legend(loc="upper left", handlelength=3.2)
    caption = (
        f"alpha = {ALPHA}, p_j = {P_J} as in the paper. But p_c + p_j cannot "
        "exceed 1, so the shaded part above p_c = 0.5 is impossible. Eq. (14) "
        "and (15) have the wrong sign: CRL raises the gradient of a confident "
        "sample, more for a larger beta, and NLLR's gradient is never "
        "negative. Values of beta that the text does not give are our choice. "
        "The curve of NLLR leaves the frame."
    )
    return Figure(title, canvas.svg, caption, canvas.png)


def curves(found, scale):
    """Fig. 3: smoothed test error over the epochs, one panel per data set.

    Args:
        found: Dict from each data set to a dict from loss to records.
        scale: Sentences of the caption on the runs.
    """
    title = "Fig. 3 of the paper: test error over the epochs"
    losses = list(dict.fromkeys(x for of in found.values() for x in of))
    with _canvas(7.6, 3.3, title, columns=len(found)) as canvas:
        for axes, (dataset, by_loss) in zip(
            canvas.grid[0], found.items(), strict=True
        ):
            for loss, records in by_loss.items():
                window = _curve(axes, loss, losses.index(loss), records)
            axes.set_title(dataset, size=10)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="y", color=GRID, lw=0.6)
        canvas.grid[0][0].set_ylabel("test error [%]")
        canvas.grid[0][-1].legend(loc="upper right", handlelength=3.2)
    smoothing = (
        f"A moving mean over {window} epochs" if window > 1 else "Not smoothed"
    )
    runs = sorted({len(r) for of in found.values() for r in of.values()})
    caption = (
        f"{smoothing}; mean over the runs ({listed([str(n) for n in runs])} a "
        "curve), band from the lowest to the highest run. The paper does not "
        'say how it smooths its single runs. Its claim "faster from epoch 100 '
        f'to 150" rests on them alone. {scale}'
    )
    return Figure(title, canvas.svg, caption, canvas.png)


def faces(found, scale):
    """Fig. 4: test images with the predictions of each loss."""
    title = "Fig. 4 of the paper: test images and predictions"
    data, names, predicted, _, chosen = _examples(found)
    rows = [(label, chosen[label]) for label in chosen]
    width = max(5.5, 1.0 + 0.95 * MOST_IMAGES)
    with _canvas(
        width, 2.2 * len(rows), title, rows=len(rows), columns=MOST_IMAGES
    ) as canvas:
        for i, (label, indices) in enumerate(rows):
            canvas.grid[i][0].set_title(label, size=9, loc="left", pad=10)
            for k, axes in enumerate(canvas.grid[i]):
                axes.axis("off")
                if k < len(indices):
                    _face(axes, f"{'ABC'[i]}{k + 1}", indices[k], data,
                          names, predicted)  # fmt: skip
    crosses = (
        "Under each image: its class and the prediction of each loss, with a "
        "cross if it is wrong. "
    )
    return Figure(
        title,
        canvas.svg,
        crosses + _examples_caption(found, scale),
        canvas.png,
    )


def heat_maps(found, scale):
    """Fig. 5: softmax outputs of the images of Fig. 4, one map per loss."""
    title = "Fig. 5 of the paper: softmax outputs"
    data, names, _, outputs, chosen = _examples(found)
    rows = [(label, indices) for label, indices in chosen.items()]
    losses = list(outputs)
    with _canvas(
        2.6 * len(losses) + 1, 2.5 * len(rows), title, len(rows), len(losses)
    ) as canvas:
        for i, (label, indices) in enumerate(rows):
            for k, loss in enumerate(losses):
                axes = canvas.grid[i][k]
                image = _heat_map(
                    axes,
                    outputs[loss][indices],
                    data["labels"][indices],
                    names,
                )
                axes.set_yticks(
                    range(len(indices)),
                    [f"{'ABC'[i]}{n + 1}" for n in range(len(indices))],
                )
                if i == 0:
                    axes.set_title(_label(loss), size=10)
            canvas.grid[i][0].set_ylabel(label.replace(", ", ",\n"), size=8)
        canvas.figure.colorbar(image, ax=canvas.grid, shrink=0.6)
    caption = (
        "A row is an image of Fig. 4. A column is a class (eight; the paper's "
        "caption says ten). A white frame marks the correct class. "
        f"{_examples_caption(found, scale)}"
    )
    return Figure(title, canvas.svg, caption, canvas.png)


def _pie(axes, name, p):
    explode = [0.12 if k == CORRECT else 0 for k in range(len(p))]
    axes.pie(
        p,
        explode=explode,
        labels=[f"{k + 1}: {value:.0%}" for k, value in enumerate(p)],
        colors=PIE_COLORS,
        radius=0.85,
        startangle=90,
        counterclock=False,
        wedgeprops=dict(edgecolor="white"),
        textprops=dict(size=8.5),
    )
    axes.set_title(name, size=10)


def _gradient_panel(axes, name, formula, p_c):
    lines = [("CEL", 0.0, 0.0)]
    lines += [(f"CRL, beta {beta:g}", ALPHA, beta) for beta in BETAS]
    lines += [("NLLR", 0.0, 1.0)]
    for (label, alpha, beta), (color, dash, _) in zip(
        lines, STYLES, strict=False
    ):
        with np.errstate(divide="ignore", invalid="ignore"):
            values = (
                formula(p_c, P_J, alpha, beta)
                if beta
                else np.full_like(p_c, P_J)
            )
        axes.plot(p_c, values, color=color, ls=dash, lw=1.6, label=label)
    axes.axvspan(1 - P_J, 1, color=GRID, alpha=0.45, lw=0)
    axes.axhline(0, color=FAINT, lw=0.7)
    axes.set_xlim(0, 1)
    axes.set_ylim(-1, 2)
    axes.set_title(name, size=10)
    axes.set_xlabel("p_c, softmax of the correct class")


def _curve(axes, loss, number, records):
    """Draws the runs of one loss; returns the window of the moving mean."""
    errors = test_errors(records)
    window = smoothing_window(errors.shape[1])
    smooth = 100 * smoothed(errors, window)
    draw_band(axes, smooth, STYLES[number % len(STYLES)], _label(loss))
    return window


def _label(loss):
    """The name of a loss in the figures, as in the paper."""
    name = parse_loss(loss)[0]
    return {"ce": "CEL", "nllr": "NLLR", "crl": "CRL"}.get(
        name, loss_label(loss)
    )


def _runs(name, protocol, folder):
    """Finds the records of a figure, and the losses whose runs all diverged.

    The records are in a dict by the paper's data set and by loss.
    """
    if why := why_nothing(name, protocol):
        raise ValueError(f"{name} ({FIGURES[name]}) cannot be drawn: {why}")
    folder = pathlib.Path(folder)
    records = read_records(folder) if folder.is_dir() else []
    by_key = by_protocol(records, protocol)
    entries = figure_entries(name, protocol)
    settings = chosen_settings(entries, by_key)
    found, absent, diverged = {}, [], []
    for entry in entries:
        config = entry.configs[0]
        runs = by_setting(by_key, entry.configs)
        of_loss = runs.get(settings[compared(entry)], [])
        done = [r for r in of_loss if r.result["status"] == "done"]
        if done:
            found.setdefault(entry.names[0], {})[config.loss] = done
        else:
            label = f"{config.dataset} {loss_label(config.loss)}"
            (diverged if of_loss else absent).append(label)
    if absent:
        raise ValueError(
            f"{name} ({FIGURES[name]}) needs runs that {folder} does not have "
            f"at the scale {protocol.scale}: {', '.join(absent)}. Train them "
            "with the same command without --report"
        )
    losses = {loss for by_loss in found.values() for loss in by_loss}
    if len(losses) < 2 or (name != "fig3" and not has_ce_and_crl(losses)):
        raise ValueError(
            f"{name} ({FIGURES[name]}) compares losses, and all runs of "
            f"{listed(diverged)} diverged: nothing is left to compare"
        )
    return found, diverged


def _examples(found):
    """Chooses images on which losses agree and disagree, by a rule.

    Uses one seed and fold and the images in the records, if possible one of
    each class. Returns data, class names, predictions and softmax by loss, and
    {description: indices}.
    """
    ((_, by_loss),) = found.items()
    shared = set.intersection(
        *({r.config.pair for r in records} for records in by_loss.values())
    )
    if not shared:
        raise ValueError(
            "The losses have no seed and fold in common: finish the runs "
            "first, with the same command without --report"
        )
    pair = min(shared)
    chosen = {
        loss: next(r for r in records if r.config.pair == pair)
        for loss, records in by_loss.items()
    }
    data = next(iter(chosen.values())).data()
    kept = len(data["thumbnails"])
    outputs = {
        loss: scores.softmax(record.logits()["test"][:kept])
        for loss, record in chosen.items()
    }
    predicted = {loss: p.argmax(axis=1) for loss, p in outputs.items()}
    labels = data["labels"][:kept]
    right = {loss: k == labels for loss, k in predicted.items()}
    last = list(right)[-1]
    others = [right[loss] for loss in right if loss != last]
    ce = right["ce"]
    groups = {
        "CRL and CEL right": right[last] & ce,
        "CRL right, the others wrong": right[last] & ~np.any(others, axis=0),
        "CRL wrong, CEL right": ~right[last] & ce,
    }
    names = [str(name) for name in data["class_names"]]
    picked = {
        label: _one_of_each_class(np.flatnonzero(mask), labels)
        for label, mask in groups.items()
    }
    return (
        data,
        names,
        predicted,
        outputs,
        {label: indices for label, indices in picked.items() if len(indices)},
    )


def _one_of_each_class(indices, labels):
    """Takes one image of each class in turn, up to MOST_IMAGES; by class."""
    turn, seen = [], {}
    for i in indices:
        turn.append(seen.get(labels[i], 0))
        seen[labels[i]] = turn[-1] + 1
    order = np.lexsort((indices, labels[indices], turn))[:MOST_IMAGES]
    taken = indices[order]
    return taken[np.lexsort((taken, labels[taken]))]


def _face(axes, name, index, data, names, predicted):
    image = data["thumbnails"][index]
    axes.imshow(
        image if image.shape[-1] == 3 else image[..., 0],
        cmap=None if image.shape[-1] == 3 else "gray",
        interpolation="nearest" if max(image.shape) <= 64 else None,
    )
    truth = int(data["labels"][index])
    lines = [f"{name}: {names[truth]}"]
    lines += [
        f"{_label(loss)} {names[k[index]]}"
        + ("" if k[index] == truth else " \N{MULTIPLICATION SIGN}")
        for loss, k in predicted.items()
    ]
    axes.text(
        0.5,
        -0.06,
        "\n".join(lines),
        transform=axes.transAxes,
        ha="center",
        va="top",
        size=7.5,
        color=INK,
    )


def _heat_map(axes, p, labels, names):
    patches = require("matplotlib.patches", "experiments")
    image = axes.imshow(p, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for row, label in enumerate(labels):
        axes.add_patch(
            patches.Rectangle(
                (label - 0.46, row - 0.46),
                0.92,
                0.92,
                fill=False,
                ec="white",
                lw=1.1,
            )
        )
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", labelrotation=90, labelsize=7.5, length=0)
    axes.tick_params(axis="y", labelsize=7.5, length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return image


def _examples_caption(found, scale):
    ((_, by_loss),) = found.items()
    return (
        "The images were chosen by a rule: from one seed and fold, the first "
        "test images of each class in each row. The paper has no row for "
        "images that CRL gets wrong. Losses: "
        f"{listed([_label(loss) for loss in by_loss])}. "
        f"{scale}"
    )
