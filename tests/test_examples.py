"""The examples as a user runs them: as commands, from their folder."""

import importlib.util
import json
import pathlib

import keras
import numpy as np
import pytest
from disk_layouts import write_images
from fresh import python

from crl_keras.experiments.runs.records import read_records

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
SMALL = (
    "--dataset digits --network mlp --losses ce crl --epochs 2 "
    "--train-limit 200 --test-limit 100 --held-out 0.2"
).split()


def run(name, *arguments, cwd):
    # The scripts themselves keep TensorFlow quiet.
    loud = {"TF_CPP_MIN_LOG_LEVEL": None}
    return python(EXAMPLES / name, *arguments, cwd=cwd, **loud)


def measured(name, *arguments, cwd):
    """The figures of a benchmark, which writes them to `out`."""
    run(name, *arguments, cwd=cwd)
    (figures,) = (cwd / "out").glob("*.json")
    return json.loads(figures.read_text())


def logits(folder):
    return {
        (r.config.loss, r.config.seed): r.logits()["test"]
        for r in read_records(folder)
    }


def test_quickstart(tmp_path):
    done = run("quickstart.py", cwd=tmp_path)
    out = done.stdout
    # On some processors TensorFlow writes lines here at every log level.
    assert done.stderr == ""
    assert out.startswith("\nTraining with cross-entropy")
    assert "cross-entropy  accuracy 9" in out
    assert "CRL            accuracy 9" in out
    path = tmp_path / "runs" / "quickstart" / "crl.keras"
    assert str(path) in out and path.exists()


@pytest.mark.once
@pytest.mark.parametrize("fails", [False, True])
def test_a_library_starts_quietly_unless_it_fails(fails):
    code = (
        "import os, crl_keras_command\n"
        "with crl_keras_command.quiet_start():\n"
        "    os.write(2, b'from C++')\n"
        f"    assert not {fails}, 'cannot start'\n"
        "os.write(2, b'afterwards')"
    )
    if fails:
        with pytest.raises(AssertionError, match="(?s)from C.*cannot start"):
            python("-c", code)
    else:
        assert python("-c", code).stderr == "afterwards"


@pytest.mark.once
def test_tensorflow_starts_quietly_whoever_imports_it(tmp_path):
    (tmp_path / "tensorflow.py").write_text("import os; os.write(2, b'oneDNN')")
    code = (
        "import sys, crl_keras_command as command\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "sys.meta_path.insert(0, command.QuietTensorFlow())\n"
        "import tensorflow\n"
        "assert tensorflow.__file__.endswith('tensorflow.py')"
    )
    assert python("-c", code).stderr == ""
    closed = (
        "import os, sys, crl_keras_command as command\n"
        "os.close(2); sys.stderr = None\n"
        "with command.quiet_start(): pass"
    )
    python("-c", closed)


# Runs each script in one process and says what it printed and imported.
HELP = """
import contextlib, io, runpy, sys
examples, *names = sys.argv[1:]
sys.path.insert(0, examples)
for name in names:
    sys.argv = [f"{examples}/{name}", "--help"]
    sys.modules.pop("_backend", None)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            assert not end.code, name
    assert out.getvalue().startswith("usage: " + name), name
print(*sys.modules)
"""


@pytest.mark.once
def test_help_loads_no_backend():
    names = [path.name for path in EXAMPLES.glob("[a-z]*.py")]
    assert len(names) > 10
    done = python("-c", HELP, EXAMPLES, *names)
    assert done.stderr == ""
    heavy = {"keras", "tensorflow", "jax", "torch", "scipy", "matplotlib"}
    assert not heavy & set(done.stdout.split())


@pytest.mark.once
def test_the_quick_start_without_scikit_learn():
    code = (
        "import runpy, sys; sys.modules['sklearn'] = None; "
        "path = sys.argv.pop(); sys.argv = [path]; "
        "sys.path.insert(0, path.rpartition('/')[0]); "
        "runpy.run_path(path, run_name='__main__')"
    )
    done = python("-c", code, EXAMPLES / "quickstart.py", exit_code=1)
    assert "pip install scikit-learn" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.once  # The quickstart trains on every backend.
def test_compare_losses_and_again(tmp_path, script):
    command = [*SMALL, "--seeds", "1", "--output", "out"]
    first = script("compare_losses.py", *command)[1]
    assert "[2/2]" in first and "CRL" in first
    report = tmp_path / "out" / "report"
    for name in ("report.html", "table.md", "table.csv", "table.tex"):
        assert (report / name).stat().st_size > 100
    before = logits(tmp_path / "out")
    assert len(before) == 2
    stamps = {
        p: p.stat().st_mtime_ns for p in tmp_path.glob("out/*/result.json")
    }
    again = script("compare_losses.py", *command)[1]
    assert "2 of 2 runs are done already" in again
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}

    html = (report / "report.html").read_bytes()
    assert script("make_report.py", "out")[0] == 0
    assert (report / "report.html").read_bytes() == html


@pytest.mark.once
def test_ray_makes_the_same_records(tmp_path, script):
    """On a cluster of one machine, started by the command."""
    command = ("compare_losses.py", *SMALL, "--seeds", "1", "--output")
    script(*command, "alone")
    run(*command, "ray", "--ray", "local", cwd=tmp_path)
    alone, found = logits(tmp_path / "alone"), logits(tmp_path / "ray")
    assert set(found) == set(alone) and len(alone) == 2
    for key, value in found.items():
        # Tasks have one thread each, which may round otherwise.
        np.testing.assert_allclose(value, alone[key], rtol=1e-3, atol=1e-3)


@pytest.mark.once
def test_where_the_time_of_training_goes(tmp_path):
    # More classes than a batch has images.
    write_images(tmp_path / "images", 40, classes=6)
    command = (
        "--images images --network mlp --in-memory mlp --image-size 32 "
        "--batch-size 4 --seconds 0.05 --steps 2 --pairs 10 --output out "
        "--backend jax"
    ).split()
    report = measured("benchmark_training.py", *command, cwd=tmp_path)
    low, high = report["step"]["interval"]
    assert 0 < low <= report["step"]["crl_over_ce"] <= high
    assert report["step"]["steps"] >= 10
    assert [row["reader"] for row in report["rest"]] == ["memory", "tf.data"]
    assert all(row["share_outside"] < 1 for row in report["rest"])
    assert all(row["images_per_second"] > 0 for row in report["input"])
    page = (tmp_path / "out" / "benchmark-training.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| jax ")]
    assert len(rows) == 16 + 1 + 2


@pytest.mark.once
def test_how_much_faster_runs_are_together(tmp_path):
    command = (
        "--only digits-mlp-15 --seeds 1 --epochs 1 --networks mlp --runs 1 3 "
        "--output out"
    ).split()
    report = measured("benchmark_together.py", *command, cwd=tmp_path)
    assert [row["runs"] for row in report["speeds"]] == [1, 3]
    assert all(row["images_per_second"] > 0 for row in report["speeds"])
    for row in report["cases"]:
        assert row["runs"] == row["alone"] == 3
        assert row["at_a_time"] == 3 or row["asked"] == "auto"
        ratio = row["seconds_alone"] / row["seconds_together"]
        assert row["times_as_fast"] == pytest.approx(ratio)
    page = (tmp_path / "out" / "benchmark-together-cpu.md").read_text()
    assert page.count("| digits | mlp | 3 | 1 |") == 2


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

    def missing(backend, *installed):
        return module.missing(backend, installed.__contains__)

    assert missing("jax", "jax", "torch") is None
    assert "jax or torch with --backend" in missing(
        "tensorflow", "jax", "torch"
    )
    assert 'pip install ".[jax]"' in missing("tensorflow")


@pytest.mark.once
@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--losses", "hinge"], "must be one of ce, nllr, crl"),
        (["--network", "vgg99"], "--network must be one of logistic, mlp,"),
        (["--workers", "0"], "--workers must be at least 1. Received: 0"),
        (["--first-seed", "4294967295"], "`seed` must be from 0 to 2**32 - 1"),
        (["--data-dir", "data"], "digits comes with scikit-learn"),
        (["--baseline", "focal"], "baseline that has runs: ce, crl"),
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
    assert code == 0 and "test error of CE" in " ".join(out.split())


@pytest.mark.once
def test_a_command_that_is_stopped_says_how_to_go_on(monkeypatch, script):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("crl_keras.experiments.runs.sweep.run_sweep", stop)
    code, _, error = script("compare_losses.py", *SMALL, "--seeds", "1")
    assert code == 130
    assert "compare_losses: stopped. Give the same command again" in error


@pytest.mark.once
def test_a_report_on_nothing_says_so(script):
    code, _, error = script("make_report.py", "nowhere")
    assert code != 0 and "no folder of runs" in error
