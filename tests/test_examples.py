"""The examples as a user runs them: as commands, from their folder."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from crl_keras.experiments.runs.records import read_records

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
SMALL = (
    "--dataset digits --network mlp --losses ce crl --epochs 2 "
    "--train-limit 200 --test-limit 100 --held-out 0.2"
).split()


def run(name, *arguments, cwd):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=cwd,
        env=dict(os.environ, COLUMNS="100"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def logits(folder):
    return {
        (r.config.loss, r.config.seed): r.logits()["test"]
        for r in read_records(folder)
    }


def test_quickstart(tmp_path):
    out = run("quickstart.py", cwd=tmp_path).stdout
    assert "cross-entropy  accuracy 9" in out
    assert "CRL            accuracy 9" in out
    path = tmp_path / "runs" / "quickstart" / "crl.keras"
    assert str(path) in out and path.exists()


def test_compare_losses_and_again(tmp_path):
    command = [*SMALL, "--seeds", "2", "--output", "out"]
    first = run("compare_losses.py", *command, cwd=tmp_path).stdout
    assert "[4/4]" in first and "CRL" in first
    report = tmp_path / "out" / "report"
    for name in ("report.html", "table.md", "table.csv", "table.tex"):
        assert (report / name).stat().st_size > 100
    before = logits(tmp_path / "out")
    assert len(before) == 4
    stamps = {
        p: p.stat().st_mtime_ns for p in tmp_path.glob("out/*/result.json")
    }
    again = run("compare_losses.py", *command, cwd=tmp_path).stdout
    assert "4 of 4 runs are done already" in again
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}

    html = (report / "report.html").read_bytes()
    run("make_report.py", "out", cwd=tmp_path)
    assert (report / "report.html").read_bytes() == html


@pytest.mark.once
def test_ray_makes_the_same_records(tmp_path):
    """On a cluster of one machine, started by the command."""
    run(
        "compare_losses.py",
        *SMALL,
        "--seeds",
        "1",
        "--output",
        "alone",
        cwd=tmp_path,
    )
    run(
        "compare_losses.py",
        *SMALL,
        "--seeds",
        "1",
        "--output",
        "ray",
        "--ray",
        "local",
        cwd=tmp_path,
    )
    alone, found = logits(tmp_path / "alone"), logits(tmp_path / "ray")
    assert set(found) == set(alone) and len(alone) == 2
    for key, value in found.items():
        # Tasks have one thread each, which may round otherwise.
        np.testing.assert_allclose(value, alone[key], rtol=1e-3, atol=1e-3)


@pytest.mark.once
def test_where_the_time_of_training_goes(tmp_path):
    for i in range(40):
        # More classes than a batch has images.
        path = tmp_path / "images" / f"{i % 6}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 45), (6 * i, 0, 0)).save(path)
    command = (
        "--images images --network keras/mobilenet_v2 --image-size 32 "
        "--batch-size 4 --seconds 0.05 --steps 2 --pairs 10 --output out "
        "--backend jax"
    ).split()
    run("benchmark_training.py", *command, cwd=tmp_path)
    (figures,) = (tmp_path / "out").glob("*.json")
    report = json.loads(figures.read_text())
    low, high = report["step"]["interval"]
    assert 0 < low <= report["step"]["crl_over_ce"] <= high
    assert report["step"]["steps"] >= 10
    assert [row["reader"] for row in report["rest"]] == ["memory", "tf.data"]
    assert all(row["share_outside"] < 1 for row in report["rest"])
    assert all(row["images_per_second"] > 0 for row in report["input"])
    page = (tmp_path / "out" / "benchmark-training.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| jax ")]
    assert len(rows) == 12 + 1 + 2


@pytest.mark.once
def test_the_backend_of_a_script(tmp_path):
    """What is asked for, else what there is."""
    other = "torch" if keras.backend.backend() == "jax" else "jax"
    asked = [*SMALL, "--seeds", "1", "--epochs", "1", "--backend", other]
    run("compare_losses.py", *asked, "--losses", "ce", cwd=tmp_path)
    (record,) = read_records(tmp_path / "runs" / "digits-mlp")
    assert record.config.backend == other

    spec = importlib.util.spec_from_file_location(
        "_backend", EXAMPLES / "_backend.py"
    )
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_BACKEND", keras.backend.backend())
        spec.loader.exec_module(module)
    home = {"KERAS_HOME": str(tmp_path)}

    def chosen(argv=(), installed=("jax", "torch"), **environment):
        return module.choose(
            argv, {**home, **environment}, installed.__contains__
        )

    assert chosen(["--backend", "torch"], KERAS_BACKEND="jax") == "torch"
    assert chosen(["--backend=torch", "--list"]) == "torch"
    assert chosen(KERAS_BACKEND="tensorflow") == "tensorflow"
    assert chosen() == "jax"  # Keras would take TensorFlow.
    assert chosen(installed=("tensorflow", "jax")) == "tensorflow"
    assert chosen(installed=()) == "tensorflow"  # Keras says what is missing.
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    assert chosen() == "torch"
    assert chosen(installed=("jax",)) == "jax"


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--losses", "hinge"], "must be one of ce, nllr, crl"),
        (["--network", "vgg99"], "--network must be one of logistic, mlp,"),
        (["--workers", "0"], "--workers must be at least 1. Received: 0"),
        (["--first-seed", "4294967295"], "`seed` must be from 0 to 2**32 - 1"),
        (["--data-dir", "data"], "digits comes with scikit-learn"),
        (["--baseline", "focal"], "baseline of which there are runs: ce, crl"),
        (["--list", "--baseline", "mse"], "must be one of ce, nllr, crl"),
        (["--recipe", "none"], "Unknown recipe"),
        (["--dataset", "folder:nowhere"], "nowhere"),
        (["--dataset", "CUB"], "svhn, cub, cars, adience, adience_faces, imag"),
        (["--backend", "theano"], "invalid choice: 'theano'"),
        (["--learning-rates", "-1"], "`learning_rate` must be > 0"),
    ],
)
def test_bad_input_is_said_before_training(
    tmp_path, script, arguments, message
):
    code, _, error = script("compare_losses.py", *arguments)
    assert code != 0 and message in error
    assert not list(tmp_path.glob("runs/*/*/result.json"))


@pytest.mark.once
def test_a_baseline_may_be_in_the_records_already(tmp_path, script):
    one = [*SMALL, "--epochs", "1", "--seeds", "1", "--losses"]
    assert script("compare_losses.py", *one, "focal")[0] == 0
    code, out, _ = script(
        "compare_losses.py", *one, "ce", "--baseline", "focal"
    )
    assert code == 0 and "CE is" in " ".join(out.split())


@pytest.mark.once
def test_a_command_that_is_stopped_says_how_to_go_on(monkeypatch, script):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("crl_keras.experiments.runs.sweep.run_sweep", stop)
    code, _, error = script("compare_losses.py", *SMALL, "--seeds", "1")
    assert code == 130
    assert "compare_losses: stopped. The same command goes on" in error


@pytest.mark.once
def test_a_report_on_nothing_says_so(script):
    code, _, error = script("make_report.py", "nowhere")
    assert code != 0 and "no folder of runs" in error
