"""Runs the tests once per backend, each in a process of its own.

    python tests/run_backends.py [--backends jax,torch] [--quick]
        [pytest arguments]

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

import pytest

TESTS = pathlib.Path(__file__).parent
# A process for each core, and one thread in each. With a thread for each core
# in each process, training on PyTorch took twice as long.
THREADS = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "NPROC": "1",  # The threads of JAX.
}
# Most of a test's time on JAX is compiling. Where it is not about the numbers
# of the loss, XLA may compile slower programs in a third of the time.
QUICK = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false",
}
# The runs of each backend: the mark of its tests, and their environment. On
# PyTorch it is for the scripts that tests start on JAX. Tests marked `once`
# need nothing compiled: they are quickest on PyTorch.
RUNS = {
    "torch": [("", QUICK)],
    "jax": [("optimized", {}), ("not optimized", QUICK)],
    "tensorflow": [("", {})],
}


def run(backend, marks, settings, pytest_arguments):
    """Runs pytest, shows its output, and returns (exit code, counts)."""
    environment = dict(os.environ, KERAS_BACKEND=backend, **THREADS, **settings)
    # From the folder of the tests: the source tree is then not on the path,
    # and the installed package is what is tested. Most of a test's time is
    # tracing and compiling in one thread, so one process per core.
    command = ["-m", "pytest", "-c", "../pyproject.toml"]
    command += ["--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"]
    if marks:
        command += ["-m", " and ".join(marks)]
    with tempfile.TemporaryDirectory() as cache:
        # Many tests train the same networks: JAX compiles each once. Smaller
        # programs take less time to compile than to write.
        environment["JAX_COMPILATION_CACHE_DIR"] = cache
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
        environment["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"
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
        code = process.wait()
    counts = re.findall(r"(\d+) (passed|failed|skipped|error)", last)
    return code, {name: int(n) for n, name in counts}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default=",".join(RUNS))
    parser.add_argument(
        "--quick", action="store_true", help="on JAX, optimize no test"
    )
    arguments, pytest_arguments = parser.parse_known_args()
    if not any((TESTS / name).exists() for name in pytest_arguments):
        pytest_arguments.append(".")
    backends = arguments.backends.split(",")
    if not {*backends} <= {*RUNS}:
        parser.error(f"--backends takes {', '.join(RUNS)}")
    total, lines = {"passed": 0, "failed": 0, "skipped": 0}, []
    for backend in backends:
        once = ["not once"] if backend != backends[0] else []
        none = 0
        runs = RUNS[backend]
        if arguments.quick and backend == "jax":
            runs = [("", QUICK)]
        for mark, settings in runs:
            start = time.monotonic()
            marks = [*once, mark] if mark else once
            code, counts = run(backend, marks, settings, pytest_arguments)
            if code == pytest.ExitCode.NO_TESTS_COLLECTED:
                none += 1
                # An error only if no run of the backend has any.
                code = code if none == len(runs) else 0
            if code and not counts.get("failed") and not counts.get("error"):
                counts["failed"] = 1
            seconds = time.monotonic() - start
            name = f"{backend} ({mark})" if mark else backend
            lines.append(f"{name}: {counts}, exit {code}, {seconds:.0f} s")
            for outcome, n in counts.items():
                total[{"error": "failed"}.get(outcome, outcome)] += n
    print("\n" + "\n".join(lines))
    print(", ".join(f"{n} {outcome}" for outcome, n in total.items()))
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
