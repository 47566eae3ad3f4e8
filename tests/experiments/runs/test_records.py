"""Records: whole or not there, whatever happens in between."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy import special
from test_config import make_config

from crl_keras.experiments.runs import records
from crl_keras.experiments.runs.records import RunFolder
from crl_keras.experiments.runs.records import check_output
from crl_keras.experiments.runs.records import read_records

pytestmark = pytest.mark.once
HISTORY = [
    dict(epoch=1, train_loss=2.5, test_accuracy=0.25),
    dict(epoch=2, train_loss=1.5, test_accuracy=0.5),
]


def finish(folder, **changes):
    folder.begin()
    result = dict(status="done", dataset=dict(fingerprint="f"), **changes)
    logits = dict(test=np.arange(6.0).reshape(2, 3))
    folder.finish(result, HISTORY, logits)
    return result


def test_what_is_written_is_read(tmp_path):
    folder = RunFolder(tmp_path, make_config())
    assert not folder.done
    result = finish(folder)
    records.write_data(
        tmp_path, "f", np.array([0, 2]), ["a", "b"], np.zeros((2, 4, 4, 1))
    )
    (record,) = read_records(tmp_path)
    assert folder.done
    assert record.config == make_config()
    assert record.result == result
    assert record.history == HISTORY
    np.testing.assert_array_equal(
        record.logits()["test"], np.arange(6.0).reshape(2, 3)
    )
    assert list(record.data()["class_names"]) == ["a", "b"]
    # Written by an older version: positions stand for the names of files.
    assert list(record.data()["names"]) == ["0", "1"]
    assert record.pictures("gradcam") is None


def test_unfinished_runs_are_not_read(tmp_path):
    folder = RunFolder(tmp_path, make_config())
    folder.begin()
    folder.save_state([np.zeros(3)], HISTORY, "abc")
    assert read_records(tmp_path) == []


def test_state_is_given_back_and_goes_when_done(tmp_path):
    folder = RunFolder(tmp_path, make_config())
    assert folder.path.parent == tmp_path
    folder.begin()
    assert folder.load_state() is None
    variables = [np.arange(3, dtype="float32"), np.array(7), np.zeros((2, 0))]
    variables += [np.full(2, i) for i in range(12)]  # Order past ten.
    folder.save_state(variables, HISTORY, "abc")
    values, history = folder.load_state()
    assert history == HISTORY
    assert len(values) == len(variables)
    for actual, expected in zip(values, variables, strict=True):
        np.testing.assert_array_equal(actual, expected)
    finish(folder)
    assert folder.load_state() is None


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.json"
    records.write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        records.write_json(path, {"a": float("nan")})
    with pytest.raises(RuntimeError):
        with records.replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path):
    folder = RunFolder(tmp_path, make_config())
    folder.begin()
    (folder.path / ".state.npz.abc.npz").write_bytes(b"half")
    folder.begin()
    assert sorted(p.name for p in folder.path.iterdir()) == ["config.json"]


def test_a_run_is_in_one_hand_at_a_time(tmp_path):
    folder = RunFolder(tmp_path, make_config())
    code = (
        "import sys, time\n"
        "from crl_keras.experiments.runs.records import RunFolder\n"
        "from test_config import make_config\n"
        "with RunFolder(sys.argv[1], make_config()).locked() as free:\n"
        "    print(free, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=os.path.dirname(__file__),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().strip() == "True"
        with folder.locked() as free:
            assert not free
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    with folder.locked() as free:  # The lock of a killed process is void.
        assert free


def test_a_configuration_changed_by_hand_is_an_error(tmp_path):
    folder = RunFolder(tmp_path, make_config())
    folder.begin()
    path = folder.path / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "held_out": 0.5}))
    with pytest.raises(ValueError, match="is not the configuration"):
        folder.begin()


def test_errors_of_reading_name_the_place(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of runs at.*none"):
        read_records(tmp_path / "none")
    folder = RunFolder(tmp_path, make_config())
    finish(folder)
    (folder.path / "result.json").write_text("{")
    with pytest.raises(ValueError, match=f"read the run {folder.path}"):
        read_records(tmp_path)


def test_a_folder_that_cannot_be_written_is_said_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be written to.*--output"):
        check_output(tmp_path / "file", 1)
    with pytest.raises(OSError, match="need about .* MiB in .* are free"):
        check_output(tmp_path, 1e12)
    check_output(tmp_path / "new" / "folder", 1)
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_predictions_are_a_table(tmp_path):
    """Read back and computed again, row by row."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 7)).astype("float32")
    labels = np.array([0, 6, 2, 2])
    classes = [f"class, {k}" for k in range(7)]
    names = ["cat/a.jpg", "dog/\u00e9.jpg", "x/1.png", "x/2.png"]
    path = tmp_path / "predictions.csv"
    records.write_predictions(path, names, labels, classes, logits)
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == names
    p = special.softmax(logits.astype(np.float64), axis=1)
    for row, x, label in zip(rows, p, labels, strict=True):
        assert row["label"] == classes[label]
        assert row["predicted"] == row["class_1"] == classes[x.argmax()]
        assert float(row["loss"]) == pytest.approx(-np.log(x[label]), rel=1e-5)
        for k, value in enumerate(sorted(x)[::-1][:5], 1):
            found = float(row[f"probability_{k}"])
            assert found == pytest.approx(value, rel=1e-5)
            assert x[classes.index(row[f"class_{k}"])] == value
    assert "class_6" not in rows[0]
