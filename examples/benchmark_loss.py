"""Measures time and peak memory of CRL and of Keras's cross-entropies.

    python examples/benchmark_loss.py --output docs/results

Each backend runs in its own process. The losses take turns to compute value and
gradient, round after round, so a change of the machine's speed affects all of
them alike. A ratio is the median over the rounds of (time of the loss) / (time
of Keras's cross-entropy) within one round; below 1 is faster than Keras. Memory
is the peak that one step adds, in units of one array of the size of the logits
(the gradient itself is 1). On JAX the compiled program reports it; on the other
backends it is measured on the process.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

CASES = (
    ("dense", 256, 10),
    ("dense", 256, 1000),
    ("dense", 4096, 1000),
    ("sparse", 256, 10),
    ("sparse", 256, 1000),
    ("sparse", 4096, 1000),
    ("sparse", 256, 50000),
)
MODES = {
    "tensorflow": ("graph", "xla"),
    "jax": ("jit",),
    "torch": ("eager",),
}
# For smaller logits (in bytes), the noise of malloc hides an allocation.
SMALLEST_MEASURED = 2**20


def make_losses(kind, backend):
    """Returns the losses to compare by name; Keras's own comes first."""
    import keras

    import crl_keras

    if kind == "dense":
        own = keras.losses.CategoricalCrossentropy
        crl = crl_keras.CompetingRatioLoss
    else:
        own = keras.losses.SparseCategoricalCrossentropy
        crl = crl_keras.SparseCompetingRatioLoss
    losses = {
        "keras": own(from_logits=True),
        "crl": crl(from_logits=True),
        "nllr": crl(alpha=0, from_logits=True),
    }
    if backend == "torch":
        import torch

        def native(y_true, y_pred):
            return torch.nn.functional.cross_entropy(y_pred, y_true)

        losses["torch"] = native
    return losses


def make_step(loss, y_true, logits, backend, mode):
    """Returns a function that computes value and gradient, and waits."""
    if backend == "tensorflow":
        import tensorflow as tf

        @tf.function(jit_compile=mode == "xla")
        def value_and_gradient(y_true, logits):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                value = loss(y_true, logits)
            return value, tape.gradient(value, logits)

        def step():
            value, gradient = value_and_gradient(y_true, logits)
            tf.test.experimental.sync_devices()
            return value, gradient

    elif backend == "jax":
        import jax

        value_and_gradient = jax.jit(
            jax.value_and_grad(lambda logits, y_true: loss(y_true, logits))
        )

        def step():
            return jax.block_until_ready(value_and_gradient(logits, y_true))

        step.compiled = value_and_gradient.lower(logits, y_true).compile

    else:
        import torch

        logits.requires_grad_()

        def step():
            value = loss(y_true, logits)
            (gradient,) = torch.autograd.grad(value, logits)
            if logits.is_cuda:
                torch.cuda.synchronize()
            return value, gradient

    return step


def make_steps(kind, samples, classes, backend, mode):
    import numpy as np
    from keras import ops

    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (samples, classes)).astype("float32")
    labels = rng.integers(0, classes, samples)
    if kind == "dense":
        y_true = np.eye(classes, dtype="float32")[labels]
    else:
        y_true = labels.astype("int32" if backend == "jax" else "int64")
    y_true, logits = (
        ops.convert_to_tensor(y_true),
        ops.convert_to_tensor(logits),
    )
    return {
        name: make_step(loss, y_true, logits, backend, mode)
        for name, loss in make_losses(kind, backend).items()
    }


def time_case(steps, seconds):
    """Returns the seconds of every step in every round."""
    for step in steps.values():
        for _ in range(3):
            step()
    start = time.perf_counter()
    for step in steps.values():
        step()
    once = (time.perf_counter() - start) / len(steps)
    inner = max(1, round(2e-3 / once))  # Long enough for the clock.
    rounds = max(15, round(seconds / (once * inner * len(steps))))
    times = {name: [] for name in steps}
    names = list(steps)
    for i in range(rounds):
        # Another loss comes first each time, as the first has a colder cache.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            for _ in range(inner):
                steps[name]()
            times[name].append((time.perf_counter() - start) / inner)
    return times


def peak_of_step(step, backend, device):
    """Returns the bytes that one step adds to the memory, at its peak."""
    if backend == "jax":
        # A step may reuse freed memory, so sampling the process's memory
        # would miss its arrays.
        found = step.compiled().memory_analysis()
        return found.temp_size_in_bytes + found.output_size_in_bytes
    step()
    if device == "gpu" and backend == "torch":
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    if device == "gpu":
        return None  # TensorFlow reserves the GPU's memory in advance.
    status = pathlib.Path("/proc/self/status")
    clear_refs = pathlib.Path("/proc/self/clear_refs")
    if not clear_refs.exists():
        return None

    def kilobytes(field):
        for line in status.read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])

    peaks = []
    for _ in range(5):
        clear_refs.write_text("5")  # Resets the peak to the memory in use.
        before = kilobytes("VmRSS")
        step()
        peaks.append(kilobytes("VmHWM") - before)
    return 1024 * statistics.median(peaks)


def measure(backend, device, what, seconds):
    """Returns the rows of one backend; runs in its own process."""
    rows = []
    for mode in MODES[backend]:
        for kind, samples, classes in CASES:
            steps = make_steps(kind, samples, classes, backend, mode)
            size = 4 * samples * classes
            row = dict(
                backend=backend,
                mode=mode,
                kind=kind,
                samples=samples,
                classes=classes,
            )
            if what == "time":
                times = time_case(steps, seconds)
                own = times["keras"]
                row["keras_microseconds"] = 1e6 * statistics.median(own)
                row["time_ratio"] = {
                    name: statistics.median(
                        a / b for a, b in zip(taken, own, strict=True)
                    )
                    for name, taken in times.items()
                }
            elif size >= SMALLEST_MEASURED:
                peaks = {
                    name: peak_of_step(step, backend, device)
                    for name, step in steps.items()
                }
                row["peak_in_logits"] = {
                    name: None if peak is None else peak / size
                    for name, peak in peaks.items()
                }
            rows.append(row)
            print(
                f"  {what} {backend} {mode} {kind} {samples}x{classes}",
                file=sys.stderr,
                flush=True,
            )
    return rows


def versions():
    import keras
    import numpy as np

    backend = keras.backend.backend()
    return {
        "keras": keras.__version__,
        backend: __import__(backend).__version__,
        "numpy": np.__version__,
    }


def run_child(backend, what, arguments):
    environment = dict(os.environ, KERAS_BACKEND=backend)
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if arguments.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
        environment["JAX_PLATFORMS"] = "cpu"
    if what == "time" and arguments.device == "cpu":
        # glibc returns arrays of this size to the system and fetches zeroed
        # pages for the next step. This takes longer than the loss, and
        # depends on the order in which arrays are freed: on PyTorch a loss
        # was 1.0 to 1.4 times as slow as the same loss.
        environment["MALLOC_MMAP_THRESHOLD_"] = str(2**32)
        environment["MALLOC_TRIM_THRESHOLD_"] = str(2**34)
    if what == "memory":
        # Here glibc must return freed arrays, so that the process holds only
        # the memory in use.
        environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
        environment["TF_ENABLE_ONEDNN_OPTS"] = "0"  # Or TensorFlow pools it.
    command = [sys.executable, __file__, "--child", backend, what]
    command += ["--device", arguments.device]
    command += ["--seconds", str(arguments.seconds)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def table(rows):
    lines = [
        "| backend | case | Keras CE, µs | CRL | NLLR | torch's CE "
        "| memory: Keras | CRL | NLLR |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]

    def cell(values, name):
        value = (values or {}).get(name)
        return "" if value is None else f"{value:.2f}"

    for row in rows:
        ratio, peak = row["time_ratio"], row.get("peak_in_logits")
        cells = [
            f"{row['backend']} {row['mode']}",
            f"{row['kind']} {row['samples']}x{row['classes']}",
            f"{row['keras_microseconds']:.0f}",
            cell(ratio, "crl"),
            cell(ratio, "nllr"),
            cell(ratio, "torch"),
            cell(peak, "keras"),
            cell(peak, "crl"),
            cell(peak, "nllr"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(report):
    """Returns the report as a page of the documentation."""
    used = ", ".join(f"{n} {v}" for n, v in sorted(report["versions"].items()))
    worst = max(row["time_ratio"]["crl"] for row in report["rows"])
    best = min(row["time_ratio"]["crl"] for row in report["rows"])
    return f"""# Benchmark: CRL beside the cross-entropies of Keras

Made by `python examples/benchmark_loss.py --output docs/results` on
{report["date"]}, on {report["machine"]} ({report["device"]}), with {used}.

The benchmark computes value and gradient of a whole loss object, as `fit` calls
it. Times are ratios to Keras's own cross-entropy of the same labels: medians
over rounds in which the losses take turns. Below 1 is faster than Keras. CRL
(alpha 1.5, beta 1) is between {best:.2f} and {worst:.2f}. NLLR (alpha 0) costs
more, because it is computed exactly, from the margin, and no backend has a
kernel for that. "torch's CE" is `torch.nn.functional.cross_entropy`, called
directly. Memory is what one step adds at its peak, in arrays of the size of the
logits, if these are 1 MiB or more; the gradient itself is 1. On JAX the
compiled program reports it: its results and its temporary arrays.

{table(report["rows"])}

Times on a CPU are taken with an allocator that keeps freed memory
(`MALLOC_TRIM_THRESHOLD_`). Without it, eager PyTorch spends most of a step at
4096x1000 in page faults, and the ratio of a loss to itself varies from 1.0 to
1.4.
"""


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--backends", nargs="+", choices=MODES, default=list(MODES)
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="per case and mode"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder for benchmark-loss.json and benchmark-loss.md",
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.child:
        backend, what = arguments.child
        rows = measure(backend, arguments.device, what, arguments.seconds)
        print(json.dumps({"rows": rows, "versions": versions()}))
        return
    rows, used = [], {}
    for backend in arguments.backends:
        timed = run_child(backend, "time", arguments)
        weighed = run_child(backend, "memory", arguments)
        for row, weight in zip(timed["rows"], weighed["rows"], strict=True):
            rows.append({**row, **weight})
        used |= timed["versions"]
    print(table(rows))
    report = dict(
        date=datetime.date.today().isoformat(),
        device=arguments.device,
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        versions=used,
        rows=rows,
    )
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        path = arguments.output / "benchmark-loss.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
        path.with_suffix(".md").write_text(page(report))
        print(f"\nWritten to {path.with_suffix('.md')}")


if __name__ == "__main__":
    main()
