"""Runs the tests once per backend, each in a process of its own.

    python tests/run_backends.py [--backends jax,torch] [pytest arguments]

Fails if a backend cannot be imported: nothing is skipped. Tests marked `once`
do not depend on the backend and run with the first.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

# Those marked `once` need nothing compiled: they are quickest on PyTorch.
BACKENDS = ("torch", "jax", "tensorflow")
TESTS = pathlib.Path(__file__).parent


def run(backend, pytest_arguments, cache):
    """Runs pytest, shows its output, and returns (exit code, counts)."""
    environment = dict(os.environ, KERAS_BACKEND=backend)
    # Many tests train the same small networks: JAX compiles each once.
    environment["JAX_COMPILATION_CACHE_DIR"] = cache
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    # A process for each core, and one thread in each. With a thread for each
    # core in each process, training on PyTorch took twice as long.
    environment["OMP_NUM_THREADS"] = "1"
    environment["TF_NUM_INTRAOP_THREADS"] = "1"
    environment["NPROC"] = "1"  # The threads of JAX.
    found = subprocess.run(
        [sys.executable, "-c", f"import keras, {backend}"],
        env=environment,
        cwd=TESTS,
    )
    if found.returncode:
        print(f"Backend {backend} cannot be imported.", flush=True)
        return 1, {"failed": 1}
    # From the folder of the tests: the source tree is then not on the path,
    # and the installed package is what is tested. Most of a test's time is
    # tracing and compiling in one thread, so one process per core.
    command = ["-m", "pytest", "-c", "../pyproject.toml"]
    command += ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
    process = subprocess.Popen(
        [sys.executable, *command, *pytest_arguments],
        env=environment,
        cwd=TESTS,
        stdout=subprocess.PIPE,
        text=True,
    )
    last = ""
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line if line.strip() else last
    counts = re.findall(r"(\d+) (passed|failed|skipped|error)", last)
    return process.wait(), {name: int(n) for n, name in counts}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default=",".join(BACKENDS))
    arguments, pytest_arguments = parser.parse_known_args()
    if not any((TESTS / name).exists() for name in pytest_arguments):
        pytest_arguments.append(".")
    total, lines = {}, []
    for i, backend in enumerate(arguments.backends.split(",")):
        start = time.monotonic()
        once = ["-m", "not once"] if i else []
        with tempfile.TemporaryDirectory() as cache:
            code, counts = run(backend, once + pytest_arguments, cache)
        if code and not counts.get("failed") and not counts.get("error"):
            counts["failed"] = 1
        seconds = time.monotonic() - start
        lines.append(f"{backend}: {counts}, exit {code}, {seconds:.0f} s")
        for name, n in counts.items():
            name = {"error": "failed"}.get(name, name)
            total[name] = total.get(name, 0) + n
    print("\n" + "\n".join(lines))
    passed, failed = total.get("passed", 0), total.get("failed", 0)
    print(
        f"{passed} passed, {failed} failed, {total.get('skipped', 0)} skipped"
    )
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
