"""One backend per process: KERAS_BACKEND, set by tests/run_backends.py."""

import functools
import gc
import importlib.metadata
import os
import pathlib
import runpy
import sys

import numpy as np
import pytest

# The numbers of the Competing Ratio Loss, against float64 and compiled:
# run_backends.py has XLA optimize these tests alone.
OPTIMIZED = {
    "test_compiled",
    "test_identities",
    "test_masked",
    "test_only_jax",
    "test_values",
}
TESTS = pathlib.Path(__file__).parent
EXAMPLES = TESTS.parent / "examples"
BACKEND = os.environ.get("KERAS_BACKEND")
if BACKEND not in ("tensorflow", "jax", "torch"):
    raise RuntimeError(
        "KERAS_BACKEND must be tensorflow, jax or torch, received "
        f"{BACKEND!r}: run `make test`, or python tests/run_backends.py"
    )
# Two devices on the CPU, for the tests of distributed training.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=2"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# Tests of what one backend alone has lie in test_*only_<backend>.py.
collect_ignore_glob = [
    f"*test_*only_{other}.py"
    for other in ("tensorflow", "jax", "torch")
    if other != BACKEND
]


def pytest_configure(config):
    for line in (
        "once: does not depend on the backend, run with the first",
        "optimized: XLA optimizes what it compiles",
    ):
        config.addinivalue_line("markers", line)


@pytest.hookimpl(tryfirst=True)  # Before -m chooses.
def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem in OPTIMIZED:
            item.add_marker("optimized")


def pytest_report_header():
    return f"keras {importlib.metadata.version('keras')} on {BACKEND}"


def pytest_collectstart():
    start_devices()


# Not when this file is imported: the process that starts those of pytest-xdist
# collects nothing, and would start them seconds later.
@functools.cache
def start_devices():
    """Two devices on the CPU of TensorFlow, before the first test module."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )


@pytest.fixture(autouse=True, scope="module")
def imported_for_good():
    """Each run ends with a collection of garbage, by Keras.

    It took 0.3 s, as it looked through all of TensorFlow and JAX.
    """
    import keras

    keras.utils.set_random_seed(0)  # This imports TensorFlow.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def seed():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """Runs a script of examples/ in this process, which has Keras already.

    Returns what the shell would have: exit code, output and errors.
    """

    def run(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(EXAMPLES)
        monkeypatch.setenv("COLUMNS", "100")
        # What a script of reports sets is not to outlive it.
        monkeypatch.setenv("CRL_KERAS_RECORDS_ONLY", "")
        monkeypatch.setattr(sys, "argv", [str(EXAMPLES / name), *arguments])
        code, message = 0, ""
        capsys.readouterr()
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            code, message = end.code, ""
            if isinstance(code, str):
                code, message = 1, code
        out, error = capsys.readouterr()
        return code or 0, out, error + message

    return run


@pytest.fixture
def no_draws(monkeypatch):
    """Weights of 0, made in no time, where a test is about sizes alone."""
    import keras

    def zeros(self, shape, dtype=None):
        return np.zeros(shape, dtype)

    for kind in ("RandomUniform", "VarianceScaling"):
        initializer = getattr(keras.initializers, kind)
        monkeypatch.setattr(initializer, "__call__", zeros)
