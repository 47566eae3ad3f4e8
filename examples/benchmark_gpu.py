"""Measures what only a GPU can show, in parts that you can stop at any time.

    python examples/benchmark_gpu.py --data-dir data --output docs/results
    python examples/benchmark_gpu.py --dry-run

Each part runs in its own process, on JAX and on PyTorch if they are installed,
with a time limit. TensorFlow is not needed:
- losses: value and gradient of CRL and of the cross-entropies of Keras and
  PyTorch: time, memory, and share of the bandwidth that a copy reaches;
- step: a training step of ResNet-50 with cross-entropy and CRL, in three
  precisions, compared with torchvision's;
- cifar: real runs of CIFAR-10 from --data-dir, and hours of every table;
- many: runs one by one, in processes that share the GPU, and as one program;
- files: the share of time that the GPU waits for image files.

The program writes each number at once, to gpu-PART-BACKEND.json, and after each
part the page gpu.md. The same command continues with the parts that are not
finished. If a package is missing, its part is left out, and the page says so.
--dry-run runs everything at toy size, also on a CPU: its figures mean nothing.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback

# Seconds that a part may take; the most informative parts first.
LIMITS = {"losses": 90, "step": 240, "cifar": 240, "many": 150, "files": 120}
BACKENDS = ("jax", "torch")
PACKAGES = ("keras", "keras-hub", "numpy", "pillow", "simplejpeg")
PACKAGES += ("jax", "jaxlib", "torch", "torchvision", "tensorflow")
REAL = dict(
    losses=(10, 100, 1000, 10_000, 50_000),
    samples=256,
    copied=2**28,
    seconds=1.0,
    steps=(
        ("keras/resnet50", "mixed_bfloat16"),
        ("torchvision/resnet50", "mixed_bfloat16"),
        ("keras/resnet50", "float32"),
        ("torchvision/resnet50", "float32"),
        ("keras/resnet50", "mixed_float16"),
        ("torchvision/resnet50", "mixed_float16"),
        ("keras_hub/resnet50", "mixed_bfloat16"),
    ),
    pixels=224,
    classes=1000,
    batch=256,
    pairs=10,
    cifar=("resnet20", "resnet34"),
    epochs=10,
    images_of_class=(500, 100),
    measured=("mlp", "zhu2018", "resnet20", "resnet34", "resnet50", "resnet101")
    + ("vgg16", "vgg19", "densenet40", "mobilenetv2", "resnet164"),
    many=("mlp", "zhu2018", "resnet20"),
    together=(1, 4, 16, 64),
    workers=4,
    read="keras/resnet50",
    read_batch=128,
    files=(256, 12),
)
# Everything, so small that a CPU finishes in seconds.
DRY = dict(
    losses=(10,),
    samples=8,
    copied=2**16,
    seconds=0.01,
    steps=(
        ("mlp", "float32"),
        ("mlp", "mixed_float16"),
        ("torchvision/resnet18", "mixed_bfloat16"),
        ("torchvision/resnet18", "mixed_float16"),
    ),
    pixels=32,
    classes=10,
    batch=4,
    pairs=2,
    cifar=("mlp",),
    epochs=1,
    images_of_class=(8, 2),
    measured=("logistic",),
    many=("logistic",),
    together=(1, 2),
    workers=2,
    read="mlp",
    read_batch=4,
    files=(4, 2),
)


# Tables of the page: title, text, and columns as (key, head, format), or only
# the key if the head is the same word.
TABLES = {
    "losses": (
        "Losses",
        "Value and gradient of a whole loss object, in microseconds: the "
        "median over rounds in which the losses take turns. *Of the copy* "
        "compares the bandwidth with that of a plain copy of a large array "
        "in the same process. It counts only the bytes that CRL must move: "
        "logits read once, gradients written once. Above 100 % the arrays lie "
        "in the cache. Memory is what a step adds at its peak, in arrays of "
        "the size of the logits, if it can be measured.",
        (
            "backend",
            ("case", "Labels, logits", ""),
            ("dtype", "Of", ""),
            ("crl_us", "CRL, µs", ".1f"),
            ("keras_us", "Keras CE, µs", ".1f"),
            ("torch_us", "torch CE, µs", ".1f"),
            ("nllr_us", "NLLR, µs", ".1f"),
            ("keras_ratio", "CRL / Keras CE", ".2f"),
            ("share", "Of the copy", ".0%"),
            ("bandwidth", "Copy, GB/s", ",.0f"),
            ("crl_peak", "Memory: CRL", ".2f"),
            ("keras_peak", "Keras CE", ".2f"),
            ("torch_peak", "torch CE", ".2f"),
        ),
    ),
    "step": (
        "A training step",
        "Images a second with cross-entropy (CE) and with CRL, which take "
        "turns, on images that are on the device; the ratio of their times "
        "with its quartiles. Plain PyTorch trains torchvision's network, with "
        "channels last and autocast. In float32 both backends may "
        "compute convolutions in TF32, their default. In mixed_float16 the "
        "scale of the loss grows every few steps. On JAX the memory is the "
        "peak since the process began.",
        (
            *"backend network pixels batch precision".split(),
            ("ce_images_per_second", "images/s, CE", ",.1f"),
            ("crl_images_per_second", "images/s, CRL", ",.1f"),
            ("crl_over_ce", "CRL / CE", ".3f"),
            "quartiles",
            ("loss_finite", "Loss finite", ""),
            ("loss_scale", "Scale of the loss", ""),
            ("peak_gib", "Memory, GiB", ".2f"),
            ("seconds_before", "Compiling, s", ".1f"),
        ),
    ),
    "profile": (
        "Where a step spends its time",
        "The kernels that take most of a step with cross-entropy.",
        (
            *"backend network precision".split(),
            ("what", "Kernel", ""),
            ("milliseconds", "ms", ".2f"),
            ("share", "Share", ".0%"),
        ),
    ),
    "cifar": (
        "CIFAR-10",
        "One run of each loss with the recipe `short`, by "
        "`examples/compare_losses.py`. One seed cannot compare losses.",
        (
            *"backend images network loss precision epochs".split(),
            ("error", "Test error", ".2%"),
            ("images_per_second", "images/s", ",.0f"),
            ("seconds", "Seconds", ".1f"),
        ),
    ),
    "many": (
        "Many runs at once",
        "Two epochs of CRL on noise. The time runs from the start of the "
        "first run to the end of the last, with compilation.",
        (
            *"backend network how runs".split(),
            ("asked_for", "Asked for", ""),
            ("finished", "Not diverged", ""),
            ("seconds", "Seconds", ".1f"),
            ("seconds_of_run", "Seconds a run", ".2f"),
        ),
    ),
    "files": (
        "Training on image files",
        "JPEGs of 500 x 375 pixels that the benchmark made, or those of "
        "`--images`. *Waits* compares an epoch of `fit` with one that repeats "
        "a single batch: it is the share of the time that this one saves.",
        (
            *"backend reader threads network pixels batch precision".split(),
            ("read_per_second", "images/s, reader alone", ",.0f"),
            ("trained_per_second", "images/s, training", ",.0f"),
            ("without_reading", "images/s, no reading", ",.0f"),
            ("waits", "Waits", ".0%"),
        ),
    ),
}


class Report:
    """The figures of one part; each is written to disk at once."""

    def __init__(self, path, part, arguments):
        import keras

        self.path, self.backend = path, keras.backend.backend()
        self.records = _records(path, arguments.dry_run)
        self.known = len(_read(path).get("rows", ()))
        self.figures = dict(
            part=part,
            backend=self.backend,
            dry_run=arguments.dry_run,
            complete=False,
            date=datetime.date.today().isoformat(),
            machine=f"{platform.machine()}, {os.cpu_count()} cores",
            device=_device(arguments.dry_run),
            versions=_versions(),
            rows=[],
            left_out=[],
        )
        self.write()

    def row(self, table, **values):
        """Adds a row to a table, and writes the file."""
        self.figures["rows"].append(dict(table=table, **values))
        print(f"  {table}: {values}", flush=True)
        self.write()

    def left_out(self, what, why):
        """Notes what is not measured, and why."""
        text = " ".join(f"{what}: {why}".split())
        self.figures["left_out"].append(text)
        print(f"  left out, {text}", flush=True)
        self.write()

    @contextlib.contextmanager
    def unless_missing(self, what):
        """If the block fails, notes why, and lets the rest continue."""
        try:
            yield
        # Out of memory has a different class on each backend.
        except Exception as error:
            why = str(error).strip().partition("\n")[0][:300]
            self.left_out(what, f"{type(error).__name__}: {why}")
            if not isinstance(error, ImportError):
                traceback.print_exc()

    def write(self, complete=False):
        """Writes all figures, unless an earlier call has more."""
        self.figures["complete"] = complete
        if complete or len(self.figures["rows"]) >= self.known:
            temporary = self.path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.figures, indent=1) + "\n")
            temporary.replace(self.path)


def _read(path):
    return json.loads(path.read_text()) if path.exists() else {}


def _device(dry_run):
    from crl_keras.experiments.devices import device_name
    from crl_keras.experiments.devices import gpu_capability

    if gpu_capability() is None and not dry_run:
        raise SystemExit(
            "Expected a GPU that the backend sees. Received none: install the "
            'backend for it, such as pip install "jax[cuda13]" or PyTorch\'s '
            "default wheel, or try the script with --dry-run"
        )
    return device_name()


def _versions():
    import crl_keras

    found = {"crl-keras": crl_keras.__version__}
    found["python"] = platform.python_version()
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def measure(part, arguments):
    """Measures one part in this process."""
    import _gpu_runs
    import _gpu_speed

    from crl_keras.experiments.devices import share_gpu

    if part == "many":
        # Before the backend starts: it would take the memory of the workers.
        share_gpu(os.environ)
    backend = os.environ["KERAS_BACKEND"]
    report = Report(_path(arguments.output, part, backend), part, arguments)
    makers = {
        "losses": _gpu_speed.losses,
        "step": _gpu_speed.step,
        "cifar": _gpu_runs.cifar,
        "many": _gpu_runs.many,
        "files": _gpu_runs.files,
    }
    makers[part](report, DRY if arguments.dry_run else REAL, arguments)
    report.write(complete=True)


def _records(path, dry_run):
    """Returns the folder of a part's runs and profiles."""
    name = "gpu-dry-run" if dry_run else "gpu"
    return pathlib.Path("runs") / name / "records" / path.stem


def _forget(path, dry_run):
    """Removes the figures and the runs of a part."""
    path.unlink(missing_ok=True)
    name = path.name.replace("cifar", "rates")
    path.with_name(name).with_suffix(".csv").unlink(missing_ok=True)
    shutil.rmtree(_records(path, dry_run), ignore_errors=True)


def _path(output, part, backend):
    return output / f"gpu-{part}-{backend}.json"


def run_part(part, backend, limit, dry_run):
    """Runs a part in its own process; returns how it ended."""
    environment = dict(os.environ, KERAS_BACKEND=backend, COLUMNS="100")
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if importlib.util.find_spec("crl_keras") is None:  # Use the source tree.
        root = str(pathlib.Path(__file__).resolve().parents[1])
        paths = [root, environment.get("PYTHONPATH")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    if dry_run:  # Several threads would wait for each other.
        environment.setdefault("OMP_NUM_THREADS", "1")
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, __file__, *sys.argv[1:], "--part", part],
        env=environment,
        start_new_session=True,
    )
    try:
        code = process.wait(limit)
        how = "finished" if code == 0 else f"failed with exit code {code}"
    except subprocess.TimeoutExpired:
        how = f"was stopped at its limit of {limit:.0f} s"
    finally:
        # Ends the processes that it started too, such as workers.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(f"{part} on {backend} {how} after {time.monotonic() - start:.0f} s")
    return how


def page(reports, ended):
    """Returns the figures of all parts as a page in Markdown."""
    dry = any(report["dry_run"] for report in reports)
    lines = ["# Benchmark: on a GPU", ""]
    if dry:
        lines += ["A dry run at toy size: these figures mean nothing.", ""]
    lines += ["Made by `python examples/benchmark_gpu.py`:", ""]
    made = {}
    for r in reports:
        used = ", ".join(f"{n} {v}" for n, v in sorted(r["versions"].items()))
        where = f"{r['date']}, on {r['device']} ({r['machine']}), with {used}"
        made.setdefault(where, []).append(f"{r['part']} on {r['backend']}")
    lines += [
        f"- {', '.join(parts)}: {where}." for where, parts in made.items()
    ]
    for r in reports:
        name = f"{r['part']} on {r['backend']}"
        if not r["complete"]:
            lines += ["", f"Not finished, figures are missing: {name}, which "]
            lines[-1] += ended.get(name, "continues with the same command.")
    for table, (title, text, columns) in TABLES.items():
        rows = [
            dict(row, backend=report["backend"])
            for report in reports
            for row in report["rows"]
            if row["table"] == table
        ]
        if rows:
            lines += ["", f"## {title}", "", text, "", *_table(rows, columns)]
    costs = {r["backend"]: r for r in reports if r["part"] == "cifar"}
    for backend, report in costs.items():
        for row in report["rows"]:
            if row["table"] == "cost":
                lines += ["", f"## Hours of every table, {backend}", ""]
                lines += [row["text"].strip()]
    left_out = [
        f"- {r['part']} on {r['backend']}: {text}"
        for r in reports
        for text in r["left_out"]
    ]
    if left_out:
        lines += ["", "## Left out", "", *left_out]
    return "\n".join(lines) + "\n"


def _table(rows, columns):
    """Returns the lines of a Markdown table, without empty columns."""
    columns = [
        (c, c.capitalize(), "") if isinstance(c, str) else c for c in columns
    ]
    columns = [c for c in columns if any(r.get(c[0]) is not None for r in rows)]
    align = ["--:" if form else "---" for _, _, form in columns]
    lines = [[head for _, head, _ in columns], align]
    for row in rows:
        values = [(row.get(key), form) for key, _, form in columns]
        lines.append(["" if v is None else format(v, f) for v, f in values])
    return ["| " + " | ".join(line) + " |" for line in lines]


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--parts", nargs="+", choices=LIMITS, default=list(LIMITS)
    )
    parser.add_argument(
        "--backends", nargs="+", choices=BACKENDS, help="(all installed)"
    )
    parser.add_argument(
        "--data-dir", help="folder with cifar10 or cifar10.tar.gz, for cifar"
    )
    parser.add_argument(
        "--images", type=pathlib.Path, help="folder of image files, for files"
    )
    parser.add_argument(
        "--minutes", type=float, default=60, help="for all parts (60)"
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="multiplies the time limit of each part: "
        + ", ".join(f"{part} {limit} s" for part, limit in LIMITS.items()),
    )
    parser.add_argument(
        "--again", action="store_true", help="measure finished parts again"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="write what the device does in a step, for step",
    )
    parser.add_argument("--dry-run", action="store_true", help="at toy size")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder of the figures (runs/gpu; runs/gpu-dry-run)",
    )
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.output is None:
        name = "gpu-dry-run" if arguments.dry_run else "gpu"
        arguments.output = pathlib.Path("runs") / name
    return arguments


def main():
    arguments = parse_arguments()
    if arguments.part:
        return measure(arguments.part, arguments)
    installed = [b for b in BACKENDS if importlib.util.find_spec(b)]
    backends = arguments.backends or installed
    if not backends:
        sys.exit("benchmark_gpu: Expected jax or torch. Neither is installed")
    output, ended = arguments.output, {}
    output.mkdir(parents=True, exist_ok=True)
    _write_page(output, ended)
    # If this process is terminated, end the running part too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    end = time.monotonic() + 60 * arguments.minutes
    for part in LIMITS:
        for backend in backends:
            if part not in arguments.parts:
                continue
            name, path = f"{part} on {backend}", _path(output, part, backend)
            done = _read(path)
            if done.get("dry_run", arguments.dry_run) != arguments.dry_run:
                sys.exit(
                    f"benchmark_gpu: Expected figures of one kind in {output}. "
                    "Received those of a dry run and others: choose another "
                    "--output"
                )
            if done.get("complete") and not arguments.again:
                print(f"{name} is finished already")
                continue
            if arguments.again:
                _forget(path, arguments.dry_run)
            left = end - time.monotonic()
            if left < 20:
                print(f"{name} waits for the next call: --minutes is used up")
                continue
            limit = min(arguments.limit * LIMITS[part], left)
            ended[name] = run_part(part, backend, limit, arguments.dry_run)
            _write_page(output, ended)
    _write_page(output, ended)
    print(f"Written to {output / 'gpu.md'}")
    return int(any(how != "finished" for how in ended.values()))


def _write_page(output, ended):
    order = [_path(output, p, b) for p in LIMITS for b in BACKENDS]
    reports = [_read(path) for path in order if path.exists()]
    if reports:
        (output / "gpu.md").write_text(page(reports, ended))


if __name__ == "__main__":
    sys.exit(main())
