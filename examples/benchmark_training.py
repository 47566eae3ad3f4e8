"""Where the time of training goes: reading images, the step, and the rest.

    python examples/benchmark_training.py --output docs/results
    python examples/benchmark_training.py --backend torch \\
        --network keras_cv/resnet50 --image-size 224 --batch-size 64

Three things, each a ratio within one run:
- input: images/s of both readers at 224 and 448 pixels, beside what
  TensorFlow does when it decodes and resizes alone (the ceiling);
- step: a training step with CRL beside one with cross-entropy, in turn;
- rest: the share of an epoch of resnet20 on images in memory that is not spent
  in its training steps (batches, callbacks, the state that is saved).

The images are made here, 500 x 375 pixels, unless --images names a folder. On
a GPU, `auto` precision is 16-bit. Give --backend to choose; one a run.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time


def make_images(folder, count=256, copies=12):
    """JPEGs that take as long to decode as photographs of their size.

    Enough of them for an epoch that takes longer than its start.
    """
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
        image = np.asarray(Image.fromarray(coarse).resize((500, 375)), int)
        image = image + rng.normal(0, 8, image.shape)
        pixels = image.clip(0, 255).astype("uint8")
        for copy in range(copies):
            path = folder / f"{i % 2}" / f"{i}-{copy}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, quality=90)
    return folder


def images_per_second(batches, seconds):
    """Of batches that are given out again and again, the first left out."""
    iterator = iter(batches)
    next(iterator)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for batch in iterator:
            count += len(batch)
            if time.perf_counter() - start > seconds:
                break
        else:
            iterator = iter(batches)
    return count / (time.perf_counter() - start)


class Trained:
    """What `fit` reads of a feed, in its order."""

    def __init__(self, feed):
        self.batches = feed.training()

    def __iter__(self):
        for i in range(len(self.batches)):
            yield self.batches[i][0]
        self.batches.on_epoch_end()


class Ceiling:
    """Nothing but decoding and resizing, by TensorFlow."""

    def __init__(self, paths, size, batch_size):
        import tensorflow as tf

        def read(path):
            image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
            return tf.image.resize(image, (size, size))

        pipeline = tf.data.Dataset.from_tensor_slices(paths)
        pipeline = pipeline.map(read, num_parallel_calls=tf.data.AUTOTUNE)
        self.pipeline = pipeline.batch(batch_size).prefetch(2)

    def __iter__(self):
        return self.pipeline.as_numpy_iterator()


def measure_input(folder, seconds, sizes=(224, 448), batch_size=32):
    from crl_keras.experiments import sources
    from crl_keras.experiments.feeds import make_feed
    from crl_keras.experiments.recipes import get_recipe

    data = sources.open_dataset(f"folder:{folder}", resized=True)
    rows = []
    for size in sizes:
        makers = {
            "tf.data, decode and resize alone": Ceiling(
                list(data.train.paths), size, batch_size
            ),
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
                for reader in ("tf.data", "pillow")
                for crop in ("random", "random_resized")
            },
        }
        # In turn, three times: a drift of the machine meets all alike.
        found = {name: [] for name in makers}
        for _ in range(3):
            for name, batches in makers.items():
                found[name].append(images_per_second(batches, seconds))
        ceiling = next(iter(found.values()))
        for name, rates in found.items():
            ratios = [a / b for a, b in zip(rates, ceiling, strict=True)]
            rows.append(
                dict(
                    what=name,
                    size=size,
                    images_per_second=statistics.median(rates),
                    of_ceiling=statistics.median(ratios),
                )
            )
    return rows


def measure_step(network, size, batch_size, precision, seconds):
    """Seconds of a training step by loss, in turn."""
    import keras
    import numpy as np

    from crl_keras.experiments import datasets
    from crl_keras.experiments import training
    from crl_keras.experiments.config import RunConfig
    from crl_keras.experiments.devices import resolve_precision
    from crl_keras.experiments.feeds import make_feed
    from crl_keras.experiments.recipes import get_recipe

    precision = resolve_precision(precision)
    keras.config.set_dtype_policy(precision)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch_size, size, size, 3), np.uint8)
    labels = np.arange(batch_size, dtype=np.int32) % 200
    labels = labels % min(200, batch_size)
    split = datasets.Split(images, labels)
    names = tuple(map(str, range(int(labels.max()) + 1)))
    data = datasets.Dataset("made", split, split, names)
    recipe = get_recipe(
        "short", batch_size=batch_size, scaling="unit", epochs=1
    )
    steps = {}
    for loss in ("ce", "crl"):
        config = RunConfig("made", network, loss, recipe, 0)
        model, _, _ = training.build_model(config, make_feed(data, recipe))
        steps[loss] = lambda m=model: m.train_on_batch(images, labels)
        for _ in range(3):
            steps[loss]()
    taken = {loss: [] for loss in steps}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(taken["ce"]) < 10:
        order = list(steps) if len(taken["ce"]) % 2 else list(steps)[::-1]
        for loss in order:
            begin = time.perf_counter()
            steps[loss]()
            taken[loss].append(time.perf_counter() - begin)
    keras.config.set_dtype_policy("float32")
    ratio = [b / a for a, b in zip(taken["ce"], taken["crl"], strict=True)]
    return dict(
        network=network,
        size=size,
        batch_size=batch_size,
        precision=precision,
        steps=len(ratio),
        ce_images_per_second=batch_size / statistics.median(taken["ce"]),
        crl_over_ce=statistics.median(ratio),
    )


def measure_rest(images=5120, epochs=3):
    """The share of an epoch outside of the step, for resnet20 in memory."""
    import keras
    import numpy as np

    from crl_keras.experiments import datasets
    from crl_keras.experiments import training
    from crl_keras.experiments.config import RunConfig
    from crl_keras.experiments.feeds import make_feed
    from crl_keras.experiments.recipes import get_recipe
    from crl_keras.experiments.records import RunFolder

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images, 32, 32, 3), np.uint8)
    train = datasets.Split(pixels, np.arange(images) % 10)
    test = datasets.Split(pixels[:100], np.arange(100) % 10)
    data = datasets.Dataset("made", train, test, tuple("0123456789"))
    recipe = get_recipe("paper", epochs=epochs, batch_size=128)
    config = RunConfig(
        "made", "resnet20", "crl", recipe, 0, backend=keras.backend.backend()
    )
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(folder, config)
        stamps = []
        training.run_one(
            config, data, run, on_epoch=lambda row: stamps.append(_now(row))
        )
    feed = make_feed(data, recipe)
    model, _, _ = training.build_model(config, feed)
    x, y = feed.training()[0]
    x, y = keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)
    for _ in range(3):
        model.train_on_batch(x, y)
    start = time.perf_counter()
    for _ in range(feed.steps):
        model.train_on_batch(x, y)
    step = time.perf_counter() - start
    # Whole epochs after the first, which compiles: from the end of one to the
    # end of the next, without the test.
    whole = [
        b[0] - a[0] - b[1] for a, b in zip(stamps, stamps[1:], strict=False)
    ]
    epoch = statistics.median(whole)
    return dict(
        images=images,
        seconds_of_epoch=epoch,
        seconds_of_steps=step,
        share_outside=1 - step / epoch,
    )


def _now(row):
    return time.perf_counter(), row["test_seconds"]


def page(report):
    """The report as a page of the documentation."""
    used = ", ".join(f"{n} {v}" for n, v in sorted(report["versions"].items()))
    lines = [
        "# Benchmark: where the time of training goes",
        "",
        f"Made by `{report['command']}` on {report['date']}, on "
        f"{report['machine']} ({report['device']}), with {used}.",
        "",
        "## Reading images",
        "",
        f"JPEGs, {report['images']}; batches of 32. The ceiling decodes whole "
        "images and resizes them without antialiasing or crop.",
        "",
        "| Reader | Pixels | images/s | of the ceiling |",
        "|---|--:|--:|--:|",
    ]
    lines += [
        f"| {r['what']} | {r['size']} | {r['images_per_second']:.0f} "
        f"| {r['of_ceiling']:.2f} |"
        for r in report["input"]
    ]
    step, rest = report["step"], report["rest"]
    lines += [
        "",
        "## The training step",
        "",
        f"{step['network']}, {step['size']} pixels, batches of "
        f"{step['batch_size']}, {step['precision']}: "
        f"{step['ce_images_per_second']:.1f} images/s with cross-entropy; a "
        f"step with CRL takes {step['crl_over_ce']:.3f} times as long (median "
        f"of {step['steps']} pairs).",
        "",
        "## All else",
        "",
        f"resnet20 on {rest['images']:,} images of 32 x 32 in memory, "
        "augmented, batches of 128: an epoch takes "
        f"{rest['seconds_of_epoch']:.1f} s, its steps alone "
        f"{rest['seconds_of_steps']:.1f} s. The share outside of them "
        "(batches, callbacks, saved state) is "
        f"{100 * rest['share_outside']:.1f} %.",
    ]
    return "\n".join(lines) + "\n"


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    parser.add_argument("--images", type=pathlib.Path)
    parser.add_argument("--network", default="keras/mobilenet_v2")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        help="folder for benchmark-training.json and benchmark-training.md",
    )
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    if arguments.backend:
        os.environ["KERAS_BACKEND"] = arguments.backend
    import keras

    from crl_keras.experiments.config import RunConfig
    from crl_keras.experiments.devices import device_name
    from crl_keras.experiments.recipes import get_recipe
    from crl_keras.experiments.training import versions

    backend = keras.backend.backend()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.images or make_images(pathlib.Path(made))
        found = measure_input(folder, arguments.seconds)
    config = RunConfig(
        "made",
        arguments.network,
        "crl",
        get_recipe("short"),
        0,
        backend=backend,
        reader="tf.data",
    )
    name = pathlib.Path(sys.argv[0]).name
    report = dict(
        command=" ".join(["python", f"examples/{name}", *sys.argv[1:]]),
        date=datetime.date.today().isoformat(),
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        device=device_name(),
        versions=versions(config),
        images="made here, 500 x 375 pixels"
        if arguments.images is None
        else "of a folder",
        input=found,
        step=measure_step(
            arguments.network,
            arguments.image_size,
            arguments.batch_size,
            arguments.precision,
            6 * arguments.seconds,
        ),
        rest=measure_rest(),
    )
    print(page(report))
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        path = arguments.output / "benchmark-training.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
        path.with_suffix(".md").write_text(page(report))


if __name__ == "__main__":
    main()
