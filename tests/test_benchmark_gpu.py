"""examples/benchmark_gpu.py without a GPU: at toy size, and stopped."""

import json
import os
import pathlib
import sys
import time
import types

import keras
import pytest
from fresh import python

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
BACKEND = keras.backend.backend()
once = pytest.mark.once


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("KERAS_BACKEND", BACKEND)
    import benchmark_gpu

    return benchmark_gpu


@pytest.fixture
def report(module, tmp_path):
    def make():
        path = tmp_path / "gpu-losses-torch.json"
        arguments = types.SimpleNamespace(dry_run=True)
        return module.Report(path, "losses", arguments)

    return make


@pytest.fixture
def measured(module, monkeypatch, tmp_path):
    """Measures a part at toy size in this process; returns its tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "argv", ["benchmark_gpu.py", "--dry-run"])

    def measure(part):
        arguments = module.parse_arguments()
        arguments.output = tmp_path
        module.measure(part, arguments)
        path = tmp_path / f"gpu-{part}-{BACKEND}.json"
        found = json.loads(path.read_text())
        assert found["complete"] and found["dry_run"]
        tables = {}
        for row in found["rows"]:
            tables.setdefault(row["table"], []).append(row)
        assert "these figures mean nothing" in module.page([found], {})
        return tables

    return measure


# A small network in the place of the peer's, which is not installed.
TORCHVISION = """
import types
from torch import nn

def resnet18(num_classes):
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), pooled, nn.Linear(8, num_classes)
    )

models = types.SimpleNamespace(resnet18=resnet18)
"""


def check_losses(measured):
    found = measured("losses")["losses"]
    assert {(r["case"], r["dtype"]) for r in found} == {
        (f"{kind} 8x10", dtype)
        for kind in ("sparse", "dense")
        for dtype in ("float32", "bfloat16")
    }
    for row in found:
        assert row["share"] > 0 and row["bandwidth"] > 0
        ratio = row["crl_us"] / row["keras_us"]
        assert row["keras_ratio"] == pytest.approx(ratio)
        assert ("torch_us" in row) == (BACKEND == "torch")
        if BACKEND == "jax":  # The gradient alone is 1.
            assert row["crl_peak"] >= 1


def check_step(measured, tmp_path, monkeypatch):
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "torchvision.py").write_text(TORCHVISION)
    monkeypatch.syspath_prepend(packages)
    found = measured("step")["step"]
    assert len(found) == (4 if BACKEND == "torch" else 2)
    for row in found:
        assert row["loss_finite"] and row["crl_over_ce"] > 0
        half = row["precision"] == "mixed_float16"
        assert half == (row["loss_scale"] is not None)
        if half:
            first, last = map(float, row["loss_scale"].split(" to "))
            assert last > first


def check_cifar(measured):
    found = measured("cifar")
    losses = [row["loss"] for row in found["cifar"]]
    assert losses == ["ce", "crl(alpha=1.5,beta=1)"]
    for row in found["cifar"]:
        assert 0 <= row["error"] <= 1 and "noise" in row["images"]
    (cost,) = found["cost"]
    assert "| all | each run once |" in cost["text"]


def check_many(measured):
    found = measured("many")["many"]
    assert {"one by one", "processes"} <= {row["how"] for row in found}
    for row in found:
        assert row["finished"] == row["runs"] == row["asked_for"]
        seconds = row["runs"] * row["seconds_of_run"]
        assert row["seconds"] == pytest.approx(seconds)


def check_files(measured):
    found = measured("files")["files"]
    readers = ["pillow", "simplejpeg", "tf.data"]
    assert [row["reader"] for row in found] == readers
    for row in found:
        without, trained = row["without_reading"], row["trained_per_second"]
        assert row["waits"] == pytest.approx(1 - trained / without)
        assert row["threads"] == os.cpu_count()


if BACKEND != "tensorflow":  # Which the script does without.

    def test_losses_and_a_step(measured, tmp_path, monkeypatch):
        check_losses(measured)
        check_step(measured, tmp_path, monkeypatch)

    @once
    def test_whole_runs(measured):
        check_cifar(measured)
        check_many(measured)
        check_files(measured)


@once
def test_a_dry_run_and_the_same_again(tmp_path):
    command = (
        "--dry-run --output out --limit 20 --parts losses --backends jax torch"
    ).split()
    stamps = {}
    for _ in range(2):
        script = EXAMPLES / "benchmark_gpu.py"
        done = python(script, *command, cwd=tmp_path)
        before = stamps
        stamps = {p: p.stat().st_mtime_ns for p in tmp_path.glob("out/*.json")}
    assert stamps == before and len(stamps) == 2
    assert done.stdout.count("is finished already") == 2
    page = (tmp_path / "out" / "gpu.md").read_text()
    for backend in ("jax", "torch"):
        lines = page.splitlines()
        assert sum(line.startswith(f"| {backend} |") for line in lines) == 4


@once
def test_figures_are_kept_when_a_part_fails_or_is_stopped(report):
    first = report()
    first.row("losses", crl_us=1.0)
    with first.unless_missing("torchvision"):
        raise ImportError("No module named 'torchvision'")
    first.row("losses", crl_us=2.0)
    found = json.loads(first.path.read_text())
    assert [row["crl_us"] for row in found["rows"]] == [1, 2]
    assert not found["complete"]
    assert found["left_out"] == [
        "torchvision: ImportError: No module named 'torchvision'"
    ]
    # The next try is stopped sooner.
    second = report()
    second.row("losses", crl_us=3.0)
    assert json.loads(first.path.read_text()) == found
    second.row("losses", crl_us=4.0)
    found = json.loads(first.path.read_text())
    assert [row["crl_us"] for row in found["rows"]] == [3, 4]


def pid_of(path):
    for _ in range(200):
        if path.exists() and path.read_text():
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError(path)


@once
def test_a_part_costs_only_itself(module, monkeypatch, tmp_path):
    """It crashes, or hits its limit: what it has started ends with it."""
    script, started = tmp_path / "part.py", tmp_path / "pid"
    monkeypatch.setattr(module, "__file__", str(script))
    monkeypatch.setattr(sys, "argv", ["benchmark_gpu.py"])
    script.write_text("import sys; sys.exit(3)")
    assert module.run_part("step", "jax", 60, True) == "failed with exit code 3"
    script.write_text(
        "import os, subprocess, sys, time\n"
        "assert os.environ['KERAS_BACKEND'] == 'jax'\n"
        "assert sys.argv[1:] == ['--part', 'step']\n"
        "child = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(600)'])\n"
        f"open({str(started)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)\n"
    )
    how = module.run_part("step", "jax", 6, True)
    assert how == "was stopped at its limit of 6 s"
    pid = pid_of(started)
    for _ in range(200):
        try:
            state = pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            break
        if state == "Z":  # Dead, and not yet buried.
            break
        time.sleep(0.05)
    else:
        raise AssertionError("what the part had started goes on")


@once
def test_a_page_says_what_is_missing(module, report):
    made = report()
    made.row("losses", case="sparse 8x10", dtype="float32", crl_us=12.34)
    made.left_out("NLLR", "of no interest")
    found = json.loads(made.path.read_text())
    page = module.page([found], {"losses on torch": "was stopped at its limit"})
    assert "losses on torch, which was stopped at its limit" in page
    assert "- losses on torch: NLLR: of no interest" in page
    assert "| sparse 8x10 | float32 | 12.3 |" in page
    assert "Keras CE" not in page.partition("| Backend")[2]  # Of no row.


@once
def test_without_a_gpu_nothing_is_measured(module):
    with pytest.raises(SystemExit, match="Expected a GPU.*--dry-run"):
        module._device(dry_run=False)
    assert module._device(dry_run=True).startswith("CPU")
