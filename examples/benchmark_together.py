"""Measures how much faster many runs train as one program, on JAX.

    python examples/benchmark_together.py --data-dir mnist.tar.gz \\
        --output docs/results
    python examples/benchmark_together.py --device gpu --output docs/results

It makes two tables:
- whole comparisons, with compilation, tests and records: `--together off` and
  the other settings, in one process, each from empty caches. If a comparison
  has many runs, only the first ones train one by one, and the table gives the
  time per run;
- training steps only: images/s over all runs at 1, 4, 16 and 64 runs, and of
  one run with Keras's own step.

Without --data-dir, Keras downloads MNIST.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import sys
import tempfile
import time

import _backend  # noqa: F401  Before Keras is imported.


@dataclasses.dataclass(frozen=True)
class Case:
    """A comparison, and how many of its runs train one by one."""

    dataset: str
    network: str
    seeds: int
    losses: tuple
    alone: int
    together: tuple
    recipe: str
    epochs: int | None = None
    rates: tuple = (None,)

    @property
    def runs(self):
        return self.seeds * len(self.losses) * len(self.rates)

    @property
    def name(self):
        return f"{self.dataset}-{self.network}-{self.runs}"

    def plan(self, output, together, data_dir, first=None):
        from crl_keras.experiments.runs import sweep
        from crl_keras.experiments.runs.recipes import get_recipe
        from crl_keras.experiments.runs.training import Options

        recipes = [
            get_recipe(self.recipe, epochs=self.epochs, learning_rate=rate)
            for rate in self.rates
        ]
        configs = sweep.make_configs(
            self.losses,
            range(self.seeds),
            recipes,
            dataset=self.dataset,
            network=self.network,
            held_out=0.1,
        )
        return sweep.Plan(
            configs[:first],
            output,
            data_dir if self.dataset == "mnist" else None,
            options=Options(together=together),
        )


THREE = ("ce", "nllr", "crl")
CASES = (
    Case("digits", "mlp", 5, THREE, 15, (15, "auto"), "digits"),
    Case("digits", "mlp", 50, THREE, 15, (150, "auto"), "digits"),
    Case(
        "mnist",
        "logistic",
        10,
        (*THREE, "crl(beta=-1)"),
        4,
        ("auto",),
        "mnist",
        rates=(0.01, 0.03, 0.1),
    ),
    Case("mnist", "mlp", 5, THREE, 3, ("auto",), "mnist", epochs=2),
    Case("digits32", "resnet20", 2, THREE, 6, ("auto",), "short", epochs=4),
)


def measure_case(case, data_dir):
    """Measures seconds per run; returns a row for each way to train."""
    found = {}
    for way in ("off", *case.together):
        with tempfile.TemporaryDirectory() as output:
            first = case.alone if way == "off" else None
            plan = case.plan(output, way, data_dir, first)
            seconds, choice = measure_plan(plan)
        found[way] = seconds / len(plan.configs), choice["runs"]
    alone = found["off"][0]
    return [
        dict(
            dataset=case.dataset,
            network=case.network,
            runs=case.runs,
            alone=min(case.runs, case.alone),
            epochs=plan.configs[0].recipe.epochs,
            asked=way,
            at_a_time=found[way][1],
            seconds_alone=alone,
            seconds_together=found[way][0],
            times_as_fast=alone / found[way][0],
        )
        for way in case.together
    ]


def measure_plan(plan):
    """Returns seconds of a plan, from empty caches, and its `together`."""
    import jax

    from crl_keras.experiments.runs import sweep
    from crl_keras.experiments.runs.records import read_records

    cache = {}
    sweep.prepare_dataset(plan, plan.configs[0], cache)
    jax.clear_caches()
    start = time.perf_counter()
    sweep.run_sweep(plan, cache=cache, say=print)
    seconds = time.perf_counter() - start
    records = {r.config.run_id: r for r in read_records(plan.output)}
    first = records[plan.configs[0].run_id].result
    return seconds, first["together"]


def measure_speeds(network, counts):
    """Measures images/s over all runs of a network, for each count of runs."""
    import keras

    from crl_keras.experiments.data.named import load_dataset
    from crl_keras.experiments.devices import resolve_precision
    from crl_keras.experiments.runs import sweep
    from crl_keras.experiments.runs import together
    from crl_keras.experiments.runs.feeds import make_feed
    from crl_keras.experiments.runs.recipes import get_recipe
    from crl_keras.experiments.runs.training import session

    dataset, recipe = load_dataset("digits32"), get_recipe("short")
    configs = sweep.make_configs(
        ["crl"],
        range(max(counts)),
        [recipe],
        dataset="digits32",
        network=network,
        precision=resolve_precision("auto"),
        backend=keras.backend.backend(),
    )
    rows = []
    with session(configs[0]):
        feed = make_feed(dataset, recipe)
        compilation, step = together.time_alone(configs[0], feed)
        for runs in counts:
            choice = together.Choice("auto", runs, "")
            start = time.perf_counter()
            speed, most = together.time_together(
                choice, configs[:runs], dataset
            )
            rows.append(
                dict(
                    network=network,
                    precision=configs[0].precision,
                    runs=min(runs, most),
                    images_per_second=speed,
                    alone=feed.step_size / step,
                    seconds=time.perf_counter() - start,
                )
            )
            print(rows[-1], flush=True)
    return rows


def page(report):
    """Returns the report as a page of the documentation."""
    used = [f"{n} {v}" for n, v in sorted(report["versions"].items())]
    lines = [
        f"# Benchmark: runs that train as one program, {report['device']}",
        "",
        f"`{report['command']}` on {report['date']}, on {report['machine']} "
        f"({report['device']}), with {', '.join(used)}.",
    ]
    if report["cases"]:
        lines += [
            "",
            "## Whole comparisons",
            "",
            "The time includes compilation, training, tests, records and, for "
            "`auto`, the trial, but not loading the data. *Measured one by "
            "one* is the number of runs that trained one by one, in the same "
            "process.",
            "",
            "| Data | Network | Runs | Epochs | Measured one by one "
            "| `--together` | At a time | One by one, s a run "
            "| Together, s a run | Times as fast |",
            "|---|---|--:|--:|--:|---|--:|--:|--:|--:|",
        ]
    lines += [
        f"| {r['dataset']} | {r['network']} | {r['runs']} | {r['epochs']} "
        f"| {r['alone']} | {r['asked']} | {r['at_a_time']} "
        f"| {r['seconds_alone']:.2f} | {r['seconds_together']:.2f} "
        f"| {r['times_as_fast']:.2f} |"
        for r in report["cases"]
    ]
    lines += [
        "",
        "## Training steps",
        "",
        "Images of 32 x 32 pixels, batches of 128, the loss CRL; compilation "
        "is not counted in images/s. Keras's own step trains one run.",
        "",
        "| Network | Precision | Runs | images/s of all | Keras's own step "
        "| Ratio | Compilation and trial, s |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r['network']} | {r['precision']} | {r['runs']} "
        f"| {r['images_per_second']:,.0f} | {r['alone']:,.0f} "
        f"| {r['images_per_second'] / r['alone']:.2f} "
        f"| {r['seconds']:.1f} |"
        for r in report["speeds"]
    ]
    return "\n".join(lines) + "\n"


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--data-dir", help="archive or folder of MNIST")
    parser.add_argument(
        "--only",
        nargs="*",
        metavar="NAME",
        help="comparisons: " + ", ".join(case.name for case in CASES),
    )
    parser.add_argument("--epochs", type=int, help="of every comparison")
    parser.add_argument("--seeds", type=int, help="of every comparison")
    parser.add_argument(
        "--networks", nargs="*", default=["mlp", "zhu2018", "resnet20"]
    )
    parser.add_argument(
        "--runs", nargs="+", type=int, help="(1 4 16 64; 1 4 on a CPU)"
    )
    parser.add_argument(
        "--output", type=pathlib.Path, help="folder for the page"
    )
    return parser.parse_args()


def main():
    os.environ["KERAS_BACKEND"] = "jax"
    arguments = parse_arguments()
    import jax

    from crl_keras.experiments.devices import device_name
    from crl_keras.experiments.runs.config import RunConfig
    from crl_keras.experiments.runs.recipes import get_recipe
    from crl_keras.experiments.runs.results import versions

    on_gpu = arguments.device == "gpu"
    if on_gpu != (jax.default_backend() == "gpu"):
        sys.exit(
            f"benchmark_together: JAX uses {jax.default_backend()}, but "
            f"--device is {arguments.device}"
        )
    counts = arguments.runs or ([1, 4, 16, 64] if on_gpu else [1, 4])
    speeds = [
        row
        for network in arguments.networks
        for row in measure_speeds(network, counts)
    ]
    cases = []
    for case in () if on_gpu else CASES:
        if arguments.only is None or case.name in arguments.only:
            for field in ("epochs", "seeds"):
                if value := getattr(arguments, field):
                    case = dataclasses.replace(case, **{field: value})
            rows = measure_case(case, arguments.data_dir)
            print(*rows, sep="\n", flush=True)
            cases += rows
    command = ["python", "examples/benchmark_together.py"]
    for argument in sys.argv[1:]:  # Without the folders of this machine.
        name = pathlib.PurePath(argument).name
        command.append(name if os.path.isabs(argument) else argument)
    report = dict(
        command=" ".join(command),
        date=datetime.date.today().isoformat(),
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        device=device_name(),
        versions=versions(RunConfig("", "", "ce", get_recipe("short"), 0)),
        cases=cases,
        speeds=speeds,
    )
    text = page(report)
    print(text)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        path = arguments.output / f"benchmark-together-{arguments.device}.md"
        path.write_text(text)
        figures = json.dumps(report, indent=1) + "\n"
        path.with_suffix(".json").write_text(figures)


if __name__ == "__main__":
    main()
