"""The report of a single loss: a report on the model."""

import base64
import io

import numpy as np
import pytest
from made_runs import only_group
from made_runs import write_run
from PIL import Image
from scipy import special
from scipy import stats
from sklearn import metrics
from test_report import Page
from test_report import assert_self_contained
from test_report import read
from test_report import rows_of_csv

from crl_keras.experiments.analysis import pictures
from crl_keras.experiments.analysis import single
from crl_keras.experiments.analysis import tables
from crl_keras.experiments.analysis.report import write_report
from crl_keras.experiments.runs.chosen import best_validated
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.records import write_arrays

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    """Seed 1 has fewer held-out images wrong and more test images."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder, "ce", 0, 10)
    write_run(folder, "ce", 1, 22)
    (_, record) = read_records(folder)
    logits = record.logits()
    logits["held_out"] = np.eye(10)[logits["held_out_labels"]]
    write_arrays(record.path / "logits.npz", **logits)
    return folder


@pytest.fixture(scope="module")
def report(two_runs, tmp_path_factory):
    return write_report(two_runs, tmp_path_factory.mktemp("out"), show=False)


def shown(folder):
    """Labels, predictions and probabilities of the run that is shown."""
    record = read_records(folder)[1]
    logits = record.logits()["test"].astype(np.float64)
    p = special.softmax(logits, axis=1)
    return record.data()["labels"], p.argmax(axis=1), p


def test_the_run_is_chosen_on_held_out_images(two_runs):
    """And not by the test, where the other one is better."""
    records = read_records(two_runs)
    chosen = best_validated(records)
    assert chosen.run is records[1] and chosen.error == 0
    assert records[1].result["last"]["error"] == 0.22
    assert only_group(two_runs).model.record.config.seed == 1


def test_accuracy_has_its_interval(two_runs, report):
    low, high = stats.binomtest(78, 100).proportion_ci(method="wilson")
    table = tables.accuracy_table(only_group(two_runs))
    cell = table.rows[1][3]
    assert cell.values == (0.78, low, high)
    assert cell.text == f"78.00 [{100 * low:.2f}, {100 * high:.2f}]"
    assert [row[0].strong for row in table.rows] == [False, True]
    text = " ".join(" ".join(Page(read(report, "report.html")).text).split())
    for words in (
        "How good the model is",
        f"CE, seed 1: 78.00% of the 100 test images are right (95% interval "
        f"{100 * low:.2f}% to {100 * high:.2f}%)",
        "of 2 runs it has the lowest error on its held-out images, 0.00%",
        "Over all 2 runs: 84.00",
    ):
        assert words in text, words
    assert words in read(report, "table.md").replace("\\", "")


def test_every_class_has_its_scores(two_runs, report):
    labels, predicted, _ = shown(two_runs)
    expected = metrics.classification_report(
        labels, predicted, output_dict=True, zero_division=np.nan
    )
    rows = rows_of_csv(read(report, "classes.csv"))
    assert len(rows) == 10
    for row in rows:
        found = expected[row["class"].removeprefix("class ")]
        for name, key in (
            ("precision", "precision"),
            ("recall", "recall"),
            ("f1", "f1-score"),
        ):
            assert float(row[name]) == pytest.approx(found[key]), name
        k = int(row["class"].removeprefix("class "))
        assert int(row["n"]) == (labels == k).sum() == found["support"]
        others = predicted[(labels == k) & (predicted != k)]
        if len(others):
            most = np.bincount(others).max()
            assert int(row["confused"]) == most
            wrong = int(row["confused_with"].removeprefix("class "))
            assert (others == wrong).sum() == most
    values = [float(row["f1"]) for row in rows]
    assert values == sorted(values)


def test_a_class_that_is_never_predicted_has_no_precision():
    confusion = np.array([[3, 0, 1], [2, 0, 0], [0, 0, 0]])
    found = {c.name: c for c in single.class_scores(confusion, list("abc"))}
    assert found["b"].precision is None and found["b"].recall == 0
    assert found["b"].f1 == 0 and found["b"].confused == ("a", 2)
    assert found["c"].recall is None and found["c"].precision == 0
    assert found["a"].precision == 0.6 and found["a"].recall == 0.75


def test_the_images_that_tell_the_most(two_runs, report):
    labels, predicted, p = shown(two_runs)
    model = only_group(two_runs).model
    mistakes, hits = single.telling_images(model, 4)
    wrong = predicted != labels
    confidence = p.max(axis=1)
    assert [x.index for x in mistakes] == sorted(
        np.flatnonzero(wrong), key=lambda i: -confidence[i]
    )[:4]
    assert [x.index for x in hits] == sorted(
        np.flatnonzero(~wrong), key=lambda i: confidence[i]
    )[:4]
    for x in mistakes + hits:
        assert x.truth == f"class {labels[x.index]}" and x.heat is None
        assert x.confidence == pytest.approx(confidence[x.index])
        assert x.of_truth == pytest.approx(p[x.index, labels[x.index]])
        # Of records without names: the position in the test set.
        assert x.name == str(x.index)
    page = assert_self_contained(read(report, "report.html"))
    images = [a for tag, a in page.tags if tag == "img"]
    assert len(images) == 12
    assert {a["alt"] for a in images} >= {x.name for x in mistakes + hits}


def test_heat_maps_are_shown_beside_the_images(two_runs, tmp_path):
    record = read_records(two_runs)[1]
    mistakes, hits = single.telling_images(only_group(two_runs).model)
    indices = [x.index for x in mistakes + hits]
    data = record.data()
    write_arrays(
        record.path / "gradcam.npz",
        indices=np.array(indices),
        images=data["thumbnails"][indices],
        maps=np.random.default_rng(0).random((12, 3, 3)).astype("float16"),
    )
    try:
        text = read(write_report(two_runs, tmp_path, show=False), "report.html")
    finally:
        (record.path / "gradcam.npz").unlink()
    page = assert_self_contained(text)
    names = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert len(names) == 24 and "Grad-CAM" in text
    assert names[0] == str(indices[0])
    assert names[1] == f"Grad-CAM of {mistakes[0].predicted}"


def decoded(uri):
    data = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_heat_map_lies_where_it_is_high():
    image = np.full((120, 160, 3), 128, np.uint8)
    heat = np.zeros((3, 4))
    heat[0, 3] = 1.0
    found = decoded(pictures.overlay_data_uri(image, heat)).astype(int)
    assert found.shape == image.shape
    changed = np.abs(found - 128).max(axis=-1)
    assert changed[:20, 140:].mean() > 60 and changed[60:, :80].max() < 8
    # A small image is made large enough to see a map on it.
    small = decoded(pictures.overlay_data_uri(image[:8, :8], heat))
    assert small.shape == (96, 96, 3)


def test_a_large_picture_is_compressed():
    image = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    assert pictures.data_uri(image).startswith("data:image/jpeg")
    assert len(pictures.data_uri(image)) < len(pictures.png_data_uri(image))
    np.testing.assert_array_equal(
        decoded(pictures.data_uri(image[:64, :64])), image[:64, :64]
    )
