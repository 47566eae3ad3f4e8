"""The numbers of docs/which-loss.md: from the paper and from our results."""

import csv
import pathlib

import pytest

from crl_keras.experiments.runs.config import loss_label

REPOSITORY = pathlib.Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGE = (DOCS / "which-loss.md").read_text()
TEXT = " ".join(PAGE.split())
# A loss of the page, in the paper's table, in ours.
NAMES = {
    "cross-entropy": ("CEL", "CE"),
    "CRL(1.5, 1)": ("CRL", "CRL"),
    "focal": ("FL", "FOCAL"),
    "dual cross-entropy": ("DualCE", "DUALCE"),
    "A-Softmax": ("A-Softmax", "ASOFTMAX"),
    "L-Softmax": ("L-Softmax", "LSOFTMAX(2, 1000, 0.0005, 35, 0)"),
    "tamed cross-entropy": ("TCE", "TAMED"),
    "NLLR": ("NLLR", "NLLR"),
}
pytestmark = pytest.mark.once


def cells(row):
    return [cell.strip(" *") for cell in row.strip("|").split("|")]


def rows_of_the_page():
    table = PAGE.partition("| Loss |")[2].partition("\n\n")[0]
    return [cells(row) for row in table.splitlines()[2:]]


def paper():
    path = REPOSITORY / "crl_keras/experiments/paper/results.csv"
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_paper():
    found = {
        (row["dataset"], row["loss"]): float(row["value"])
        for row in paper()
        if row["table"] == "VI"
    }
    assert {row[0] for row in rows_of_the_page()} == NAMES.keys()
    for name, ten, hundred, *_ in rows_of_the_page():
        assert float(ten) == found["CIFAR-10", NAMES[name][0]]
        assert float(hundred) == found["CIFAR-100", NAMES[name][0]]


def test_our_results():
    path = DOCS / "results" / "raw" / "errors.csv"
    found = {}
    for row in csv.DictReader(path.read_text().splitlines()):
        if row["experiment"] == "table6-resnet20":
            mean, std = float(row["error_mean"]), float(row["error_std"])
            key = loss_label(row["loss"]), row["learning_rate"]
            found[key] = f"{100 * mean:.2f} ± {100 * std:.2f}"
    for name, _, _, *shown in rows_of_the_page():
        label = NAMES[name][1]
        expected = [found.pop((label, x), "\u2014") for x in ("0.02", "0.05")]
        assert shown == expected
    assert not found


def test_the_gains_of_ten_runs():
    means = {
        (row["table"], row["loss"]): float(row["value"])
        for row in paper()
        if row["metric"].startswith("mean_test")
    }
    gain = means["V", "CRL"] - means["V", "CEL"]
    assert f"{gain:.2f} points on CIFAR-100" in TEXT
    gain = means["VIII", "CEL"] - means["VIII", "CRL"]
    assert f"{gain:.2f} points on CIFAR-10" in TEXT


def test_every_gain_of_the_paper_is_below_a_point():
    found = {}
    for row in paper():
        parameters = row["alpha"], row["beta"]
        ours = row["loss"] == "CEL" or parameters == ("1.5", "1")
        if ours and row["value"] and "p_value" not in row["metric"]:
            keys = ("table", "dataset", "network", "pretrained", "metric")
            case = tuple(row[key] for key in keys)
            if row["table"] == "II":  # Two trainings of one network.
                case += (row["note"].partition(";")[0],)
            found.setdefault(case, {})[row["loss"]] = float(row["value"])
    gains = [
        abs(losses["CRL"] - losses["CEL"])
        for losses in found.values()
        if {"CRL", "CEL"} <= losses.keys()
    ]
    assert len(gains) > 30 and max(gains) < 1
    assert "gains of less than 1 point" in TEXT
