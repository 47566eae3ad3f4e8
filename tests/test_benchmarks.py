"""What the benchmarks measure, in processes of their own, on JAX."""

import json
import os
import pathlib

import pytest
from disk_layouts import write_images
from fresh import run_python

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
    assert lines[-1].startswith("Of jax there are no rows of tf.data")


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
