"""Measures where training spends its time: images, the step, the rest.

    python examples/benchmark_training.py --backend jax --output docs/results
    python examples/benchmark_training.py --backend torch \\
        --network keras_cv/resnet50 --image-size 224 --batch-size 64

It measures three things, each as a ratio within one run:
- input: images/s of all readers at 224 and 448 pixels, compared with TensorFlow
  when it only decodes and resizes (the ceiling), and with Pillow;
- step: training steps with CRL and with cross-entropy, in turn;
- rest: the share of an epoch outside of its training steps, when the device
  waits for images, callbacks and saving: resnet20 on images in memory, and the
  network on image files.

Without TensorFlow the rows of tf.data are left out, on every backend.

The program makes images of 500 x 375 pixels, unless --images names a folder. On
a GPU, `auto` precision is 16-bit. A call measures one backend. --output writes
its figures to benchmark-training-BACKEND.json, and a page with the figures of
all backends in the folder.
"""

import argparse
import concurrent.futures
import dataclasses
import datetime
import importlib.util
import io
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time

import _backend  # noqa: F401  Before Keras is imported.


def make_images(folder, count=256, copies=12):
    """Writes JPEGs that take as long to decode as photos of their size.

    There are enough of them that an epoch takes longer than its start.
    """
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((500, 375)), int)
        image = image + rng.normal(0, 8, image.shape)
        pixels = image.clip(0, 255).astype("uint8")
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=90)
        for copy in range(copies):
            path = folder / f"{i % 2}" / f"{i}-{copy}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.getvalue())
    return folder


def images_per_second(batches, seconds):
    """Returns the speed of reading batches repeatedly, without the first."""
    iterator = iter(batches)
    next(iterator)
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
        for batch in iterator:
            count += len(batch)
            if time.perf_counter() - start > seconds:
                break
        else:
            iterator = iter(batches)
    return count / (time.perf_counter() - start)


class Trained:
    """The batches that `fit` reads of a feed, in its order."""

    def __init__(self, feed):
        self.batches = feed.training()

    def __iter__(self):
        for i in range(len(self.batches)):
            yield self.batches[i][0]
        self.batches.on_epoch_end()


class Ceiling:
    """Decodes and resizes images with TensorFlow, and does nothing else."""

    def __init__(self, paths, size, batch_size):
        import tensorflow as tf

        def read(path):
            image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
            return tf.image.resize(image, (size, size))

        pipeline = tf.data.Dataset.from_tensor_slices(paths)
        pipeline = pipeline.map(read, num_parallel_calls=os.cpu_count())
        # As in the readers. A pipeline that tunes itself waits, which would
        # make the ceiling too low.
        options = tf.data.Options()
        options.autotune.enabled = False
        pipeline = pipeline.batch(batch_size).prefetch(2)
        self.pipeline = pipeline.with_options(options)

    def __iter__(self):
        return self.pipeline.as_numpy_iterator()


class PillowAlone:
    """Decodes and resizes images with Pillow in threads, nothing else."""

    def __init__(self, paths, size, batch_size):
        self.batches = [
            paths[i : i + batch_size] for i in range(0, len(paths), batch_size)
        ]
        self.size = size

    def read(self, path):
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            square = (self.size, self.size)
            resized = image.resize(square, Image.Resampling.BILINEAR)
            return np.asarray(resized)

    def __iter__(self):
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for batch in self.batches:
                yield [*pool.map(self.read, batch)]


def readers():
    """Those that there are: tf.data needs TensorFlow, on any backend."""
    if importlib.util.find_spec("tensorflow") is None:
        return ("pillow", "simplejpeg")
    return ("tf.data", "pillow", "simplejpeg")


def measure_input(folder, seconds, sizes=(224, 448), batch_size=32):
    from crl_keras.experiments.data import sources
    from crl_keras.experiments.runs.feeds import make_feed
    from crl_keras.experiments.runs.recipes import get_recipe

    data = sources.open_dataset(f"folder:{folder}", resized=True)
    rows = []
    for size in sizes:
        makers = {
            **{
                f"{reader}, decode and resize alone": ALONE[reader](
                    list(data.train.paths), size, batch_size
                )
                for reader in readers()
                if reader in ALONE
            },
            **{
                f"{reader}, {crop} crop": Trained(
                    make_feed(
                        data,
                        get_recipe(
                            "finetune",
                            image_size=size,
                            batch_size=batch_size,
                            crop=crop,
                        ),
                        0,
                        reader,
                    )
                )
                for reader in readers()
                for crop in ("random", "random_resized")
            },
        }
        # In turn, three times, so a change of speed affects all alike.
        found = {name: [] for name in makers}
        for _ in range(3):
            for name, batches in makers.items():
                found[name].append(images_per_second(batches, seconds))
        ceiling = found.get("tf.data, decode and resize alone")
        for name, rates in found.items():
            ratios = ceiling and [
                a / b for a, b in zip(rates, ceiling, strict=True)
            ]
            rows.append(
                dict(
                    what=name,
                    size=size,
                    images_per_second=statistics.median(rates),
                    per_core=statistics.median(rates) / os.cpu_count(),
                    of_ceiling=ratios and statistics.median(ratios),
                )
            )
    return rows


ALONE = {"tf.data": Ceiling, "pillow": PillowAlone}


def measure_step(network, size, batch_size, precision, seconds, pairs):
    """Times training steps with each loss in turn, at least `pairs` pairs."""
    import keras
    import numpy as np
    from scipy import stats

    from crl_keras.experiments.data import splits
    from crl_keras.experiments.devices import resolve_precision
    from crl_keras.experiments.runs import models
    from crl_keras.experiments.runs.config import RunConfig
    from crl_keras.experiments.runs.feeds import make_feed
    from crl_keras.experiments.runs.recipes import get_recipe

    precision = resolve_precision(precision)
    keras.config.set_dtype_policy(precision)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    labels = np.arange(batch_size, dtype=np.int32) % 200
    labels = labels % min(200, batch_size)
    split = splits.Split(images, labels)
    names = tuple(map(str, range(int(labels.max()) + 1)))
    data = splits.Dataset("made", split, split, names)
    recipe = get_recipe(
        "short", batch_size=batch_size, scaling="unit", epochs=1
    )
    steps = {}
    for loss in ("ce", "crl"):
        config = RunConfig("made", network, loss, recipe, 0)
        model, _, _ = models.build_model(config, make_feed(data, recipe))
        steps[loss] = lambda m=model: m.train_on_batch(images, labels)
        for _ in range(3):
            steps[loss]()
    taken = {loss: [] for loss in steps}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(taken["ce"]) < pairs:
        order = list(steps) if len(taken["ce"]) % 2 else list(steps)[::-1]
        for loss in order:
            begin = time.perf_counter()
            steps[loss]()
            taken[loss].append(time.perf_counter() - begin)
    keras.config.set_dtype_policy("float32")
    ratio = [b / a for a, b in zip(taken["ce"], taken["crl"], strict=True)]
    interval = stats.bootstrap(
        (ratio,), np.median, method="percentile", rng=0
    ).confidence_interval
    return dict(
        network=network,
        size=size,
        batch_size=batch_size,
        precision=precision,
        steps=len(ratio),
        ce_images_per_second=batch_size / statistics.median(taken["ce"]),
        crl_over_ce=statistics.median(ratio),
        interval=[interval.low, interval.high],
    )


def measure_rest(
    folder, in_memory, network, size, batch_size, precision, steps
):
    """Measures the share of an epoch outside of steps: memory, and files."""
    import numpy as np

    from crl_keras.experiments.data import sources
    from crl_keras.experiments.data import splits
    from crl_keras.experiments.runs.recipes import get_recipe

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (128 * steps, 32, 32, 3), np.uint8)
    train = splits.Split(pixels, np.arange(len(pixels)) % 10)
    test = splits.Split(pixels[:100], np.arange(100) % 10)
    memory = splits.Dataset("made", train, test, tuple("0123456789"))
    files = sources.open_dataset(f"folder:{folder}", resized=True)
    classes = files.classes  # Each class needs an image.
    files = files.limited(
        max(steps * batch_size, classes), max(batch_size, classes)
    )
    sized = dict(image_size=size, batch_size=batch_size, scaling="unit")
    return [
        _outside(in_memory, memory, get_recipe("paper"), "memory", precision),
        _outside(
            network,
            files,
            get_recipe("finetune", **sized),
            sources.resolve_reader(f"folder:{folder}", True),
            precision,
        ),
    ]


def _outside(network, data, recipe, reader, precision, epochs=4):
    """Measures the share of an epoch that its steps do not take."""
    import keras

    from crl_keras.experiments.devices import resolve_precision
    from crl_keras.experiments.runs import training
    from crl_keras.experiments.runs.config import RunConfig
    from crl_keras.experiments.runs.feeds import make_feed
    from crl_keras.experiments.runs.records import RunFolder

    config = RunConfig(
        "made",
        network,
        "crl",
        dataclasses.replace(recipe, epochs=epochs),
        0,
        backend=keras.backend.backend(),
        precision=resolve_precision(precision),
        reader=reader,
    )
    stamps = []

    def stamp(row):
        stamps.append((time.perf_counter(), row["test_seconds"]))

    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(folder, config)
        training.run_one(config, data, run, on_epoch=stamp)
    feed = make_feed(data, config.recipe, 0, reader)
    step = _seconds_of_steps(config, feed)
    # The first epoch compiles, so it is left out. The others are timed from
    # the end of one to the end of the next, without the test.
    whole = [
        b[0] - a[0] - b[1] for a, b in zip(stamps, stamps[1:], strict=False)
    ]
    epoch = statistics.median(whole)
    return dict(
        network=network,
        reader=reader,
        size=feed.input_shape[0],
        precision=config.precision,
        images=feed.size("train"),
        seconds_of_epoch=epoch,
        seconds_of_steps=step,
        share_outside=1 - step / epoch,
    )


def _seconds_of_steps(config, feed):
    """Times the steps of an epoch, all on one batch on the device."""
    import keras

    from crl_keras.experiments.runs import models

    keras.config.set_dtype_policy(config.precision)
    model, _, _ = models.build_model(config, feed)
    x, y = feed.training()[0]
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    for _ in range(3):
        model.train_on_batch(x, y)
    start = time.perf_counter()
    for _ in range(feed.steps):
        model.train_on_batch(x, y)
    seconds = time.perf_counter() - start
    keras.config.set_dtype_policy("float32")
    return seconds


LEFT_OUT = (
    "For {} there are no rows of tf.data and no ceiling, because TensorFlow "
    "was not installed. To add them: `pip install tensorflow`."
)


def page(reports):
    """Returns the reports of several backends as a page of documentation."""
    lines = ["# Benchmark: where the time of training goes", ""]
    for report in reports:
        used = [f"{n} {v}" for n, v in sorted(report["versions"].items())]
        lines += [
            f"- {report['backend']}: `{report['command']}` on "
            f"{report['date']}, on {report['machine']} ({report['device']}), "
            f"with {', '.join(used)}.",
        ]
    lines += [*input_lines(reports), *step_lines(reports), *rest_lines(reports)]
    return "\n".join(lines) + "\n"


def input_lines(reports):
    images = sorted({report["images"] for report in reports})
    lines = [
        "",
        "## Reading images",
        "",
        f"JPEGs, {', '.join(images)}; batches of 32. The ceiling is the speed "
        "of TensorFlow when it only decodes whole images and resizes them, "
        "without antialiasing or crop. A reader may be faster, because it "
        "resizes less. Compare the Pillow reader with Pillow alone, because "
        "Pillow always antialiases.",
        "",
        "| Backend | Reader | Pixels | images/s | images/s per core "
        "| of the ceiling |",
        "|---|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {report['backend']} | {r['what']} | {r['size']} "
        f"| {r['images_per_second']:.0f} | {r['per_core']:.0f} "
        f"| {'' if r['of_ceiling'] is None else format(r['of_ceiling'], '.2f')}"
        " |"
        for report in reports
        for r in report["input"]
    ]
    without = [
        report["backend"]
        for report in reports
        if all(r["of_ceiling"] is None for r in report["input"])
    ]
    if without:
        lines += ["", LEFT_OUT.format(", ".join(without))]
    return lines


def step_lines(reports):
    lines = [
        "",
        "## The training step",
        "",
        "Steps with CRL and with cross-entropy take turns. The table has the "
        "median of the ratios of their times, with a bootstrap interval of "
        "95 %.",
        "",
        "| Backend | Network | Pixels | Batch | Precision | images/s, CE "
        "| CRL / CE | Pairs |",
        "|---|---|--:|--:|---|--:|--:|--:|",
    ]
    for report in reports:
        r = report["step"]
        low, high = r["interval"]
        lines.append(
            f"| {report['backend']} | {r['network']} | {r['size']} "
            f"| {r['batch_size']} | {r['precision']} "
            f"| {r['ce_images_per_second']:.1f} "
            f"| {r['crl_over_ce']:.3f} [{low:.3f}, {high:.3f}] "
            f"| {r['steps']} |"
        )
    return lines


def rest_lines(reports):
    lines = [
        "",
        "## All else",
        "",
        "An epoch of `fit`, and its steps alone on one batch on the device. "
        "Outside of the steps the device waits for images, callbacks and "
        "saving. The two are measured one after the other, so the share is "
        "not exact: it can even be below 0.",
        "",
        "| Backend | Network | Images from | Pixels | Precision | Images "
        "| Epoch, s | Its steps, s | Outside |",
        "|---|---|---|--:|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {report['backend']} | {r['network']} | {r['reader']} "
        f"| {r['size']} | {r['precision']} | {r['images']:,} "
        f"| {r['seconds_of_epoch']:.1f} | {r['seconds_of_steps']:.1f} "
        f"| {100 * r['share_outside']:.1f} % |"
        for report in reports
        for r in report["rest"]
    ]
    return lines


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    parser.add_argument("--images", type=pathlib.Path)
    parser.add_argument("--network", default="keras/mobilenet_v2")
    parser.add_argument(
        "--in-memory",
        metavar="NETWORK",
        default="resnet20",
        help="network to train on images in memory (resnet20)",
    )
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "--pairs", type=int, default=60, help="least pairs of timed steps (60)"
    )
    parser.add_argument(
        "--steps", type=int, default=40, help="steps of an epoch, for rest (40)"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder for benchmark-training.md and its figures",
    )
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    import keras

    from crl_keras.experiments.devices import device_name
    from crl_keras.experiments.runs.config import RunConfig
    from crl_keras.experiments.runs.recipes import get_recipe
    from crl_keras.experiments.runs.results import versions

    backend = keras.backend.backend()
    config = RunConfig(
        "made",
        arguments.network,
        "crl",
        get_recipe("short"),
        0,
        backend=backend,
        reader=readers()[0],
    )
    name = pathlib.Path(sys.argv[0]).name
    trained = (
        arguments.network,
        arguments.image_size,
        arguments.batch_size,
        arguments.precision,
    )
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.images or make_images(pathlib.Path(made))
        report = dict(
            backend=backend,
            command=" ".join(["python", f"examples/{name}", *sys.argv[1:]]),
            date=datetime.date.today().isoformat(),
            machine=f"{platform.machine()}, {os.cpu_count()} cores",
            device=device_name(),
            versions=versions(config),
            images="made here, 500 x 375 pixels"
            if arguments.images is None
            else "of a folder",
            input=measure_input(folder, arguments.seconds),
            step=measure_step(
                *trained, 12 * arguments.seconds, arguments.pairs
            ),
            rest=measure_rest(
                folder, arguments.in_memory, *trained, arguments.steps
            ),
        )
    print(page([report]))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        stem = "benchmark-training"
        path = arguments.output / f"{stem}-{backend}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
        kept = sorted(arguments.output.glob(f"{stem}-*.json"))
        reports = [json.loads(path.read_text()) for path in kept]
        (arguments.output / f"{stem}.md").write_text(page(reports))


if __name__ == "__main__":
    main()
