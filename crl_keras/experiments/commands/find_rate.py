"""`--find-rate`: tests a range of learning rates for each loss."""

import csv
import pathlib

from crl_keras.experiments._optional import require
from crl_keras.experiments.runs.config import loss_label


def find_rates(plan):
    """Prints a learning rate for each loss of a plan and saves the curves.

    Writes find-rate.csv and find-rate.png into the folder of the plan. No run
    is trained.
    """
    from crl_keras.experiments.runs.rate_finder import find_rate
    from crl_keras.experiments.runs.sweep import prepare_dataset

    curves, cache = {}, {}
    for config in _one_of_each_loss(plan):
        data = prepare_dataset(plan, config, cache)
        label = loss_label(config.loss)
        curves[label] = curve = find_rate(config, data)
        if curve.suggestion is None:
            print(
                f"{label}: the loss did not fall at any rate from "
                f"{curve.rates[0]:.0e} to {curve.rates[-1]:.0e}"
            )
        else:
            print(f"{label}: --learning-rates {curve.suggestion:.1e}")
    folder = pathlib.Path(plan.output)
    folder.mkdir(parents=True, exist_ok=True)
    _write(curves, folder / "find-rate.csv")
    _draw(curves, folder / "find-rate.png")
    print(f"The curves are in {folder / 'find-rate.png'}")
    print(
        "At this rate the loss falls fastest in the first steps. Start with "
        "it, and try rates around it, such as a third and three times it. "
        "Compare each loss at its own best rate"
    )


def _one_of_each_loss(plan):
    found = {}
    for config in plan.configs:
        found.setdefault(config.loss, config)
    return found.values()


def _write(curves, path):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("loss", "learning_rate", "smoothed_training_loss"))
        for label, curve in curves.items():
            for rate, loss in zip(curve.rates, curve.losses, strict=True):
                writer.writerow((label, f"{rate:.6g}", f"{loss:.6g}"))


def _draw(curves, path):
    figure = require("matplotlib.figure", "experiments").Figure(
        figsize=(6, 4), layout="constrained"
    )
    axes = figure.subplots()
    for label, curve in curves.items():
        (line,) = axes.plot(curve.rates, curve.losses, label=label)
        if curve.suggestion is not None:
            axes.axvline(curve.suggestion, color=line.get_color(), ls=":")
    axes.set(
        xscale="log",
        xlabel="learning rate",
        ylabel="training loss, smoothed",
        title="Range test; dotted: suggested",
    )
    axes.legend()
    figure.savefig(path, dpi=150)
