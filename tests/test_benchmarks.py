"""What the benchmarks measure."""

import json
import os
import pathlib
import shutil

import pytest
from disk_layouts import write
from disk_layouts import write_images
from fresh import run_python
from image_folders import png

from crl_keras.experiments.data.named import CIFAR10
from crl_keras.experiments.runs import backbones

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.once


def run_on_jax(code, cwd):
    path = [str(EXAMPLES), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(filter(None, path))
    return run_python(code, cwd, KERAS_BACKEND="jax", PYTHONPATH=path)


def test_without_tensorflow_the_rows_of_tf_data_are_left_out(tmp_path):
    write_images(tmp_path / "images", 8)
    code = (
        "import sys\n"
        "sys.modules['tensorflow'] = None\n"
        "import benchmark_training as b\n"
        "rows = b.measure_input('images', 0.01, sizes=(32,), batch_size=4)\n"
        "report = dict(backend='jax', images='some', input=rows)\n"
        "print(*b.input_lines([report]), sep='\\n')\n"
    )
    lines = run_on_jax(code, tmp_path).splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| jax ")]
    assert [row[1] for row in rows] == [
        "pillow, decode and resize alone",
        "pillow, random crop",
        "pillow, random_resized crop",
        "simplejpeg, random crop",
        "simplejpeg, random_resized crop",
    ]
    assert all(int(row[3]) > 0 for row in rows)
    assert lines[-1].startswith("For jax there are no rows of tf.data")


def test_what_photos_give(tmp_path, monkeypatch, script):
    files = {
        f"cifar10/{split}/{name}/{i}.png": png(20 * k + i, "RGB", (32, 32))
        for split, count in (("train", 3), ("test", 1))
        for k, name in enumerate(CIFAR10)
        for i in range(count)
    }
    write(tmp_path / "data", files)
    # KerasCV's ResNet with one narrow block a stage.
    monkeypatch.setitem(backbones.BLOCKS, "resnet18", ("basic", (1, 1, 1, 1)))
    monkeypatch.setattr(backbones, "WIDTHS", (64, 8, 8, 8))
    words = (
        "--data-dir data --images 20 30 --epochs 2 1 --seeds 1 --losses ce "
        "--modes recompute --image-size 32 --output out"
    ).split()
    (tmp_path / "out").mkdir()
    code, out, error = script("benchmark_photos.py", *words)
    assert code == 0, error
    page = (tmp_path / "out" / "photos.md").read_text()
    assert page.strip() in out
    rows = [line.split(" | ") for line in page.splitlines() if "| CE |" in line]
    backend = "PyTorch"  # Where what is marked `once` runs.
    assert [(*row[:3], *row[4:6]) for row in rows] == [
        ("| 20", "2", backend, "CE", "1 of 1"),
        ("| 30", "1", backend, "CE", "1 of 1"),
    ]
    for row in rows:  # The answer is the number of the table, written again.
        count, accuracy = row[0].strip("| "), float(row[7])
        line = f"- {count} images, {row[1]} epochs, {backend}: the test "
        line += f"accuracy is {accuracy:.0f} % (`recompute`), over all losses"
        assert line in page
    assert "--backend" not in page
    # A run of another backend is shown beside it.
    (made,) = tmp_path.glob("runs/photos/20-recompute/*/result.json")
    other = shutil.copytree(made.parent, made.parent.with_name("other"))
    config = json.loads((other / "config.json").read_text())
    config["backend"] = "jax"
    (other / "config.json").write_text(json.dumps(config))
    assert script("benchmark_photos.py", *words)[0] == 0
    page = (tmp_path / "out" / "photos.md").read_text()
    assert page.count("20 images, 2 epochs, JAX:") == 1
    assert page.count("| CE |") == 3 and "`--backend`" in page
    assert script("benchmark_photos.py", *words, "--epochs", "1", "1", "1")[0]


def test_memory_on_jax_is_at_least_that_of_the_gradient(tmp_path):
    """Sampling the memory of the process has missed all but a quarter."""
    code = (
        "import json\n"
        "import benchmark_loss as b\n"
        "found = {}\n"
        "for kind in ('dense', 'sparse'):\n"
        "    steps = b.make_steps(kind, 512, 512, 'jax', 'jit')\n"
        "    found[kind] = {\n"
        "        name: b.peak_of_step(step, 'jax', 'cpu') / (4 * 512 * 512)\n"
        "        for name, step in steps.items()\n"
        "    }\n"
        "print(json.dumps(found))\n"
    )
    found = json.loads(run_on_jax(code, tmp_path))
    for kind in ("dense", "sparse"):
        assert set(found[kind]) == {"keras", "crl", "nllr"}
        for name, peak in found[kind].items():
            # The gradient is 1, and no step needs more than a few copies.
            assert 1 <= peak < 6, (kind, name)
