"""Whole runs: CIFAR-10, many runs at once, and training on image files.

Three parts of benchmark_gpu.py. They call the other examples, as a user would.
"""

import contextlib
import importlib.util
import io
import json
import os
import pathlib
import runpy
import statistics
import sys
import tempfile
import time

EXAMPLES = pathlib.Path(__file__).parent


def cifar(report, size, arguments):
    """Runs CIFAR-10, and prints the hours of every table of the paper."""
    with contextlib.ExitStack() as stack:
        folder = arguments.data_dir
        if folder is None and arguments.dry_run:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            with report.unless_missing("runs of CIFAR-10"):
                _make_cifar(pathlib.Path(folder), *size["images_of_class"])
        if folder is None:
            report.left_out("runs of CIFAR-10", "no --data-dir was given")
        else:
            for network in size["cifar"]:
                _cifar_runs(report, network, folder, size, arguments)
    rates = report.path.with_name(f"gpu-rates-{report.backend}.csv")
    # Measurements of an earlier, unfinished call count too.
    known = rates.read_text() if rates.exists() else ""
    for network in size["measured"]:
        if f"\n{network}," in known:
            continue
        words = ["measure", "--only", network, "--rates", str(rates)]
        _script(report, "reproduce.py", words)
    if rates.exists():
        words = ["cost", "--rates", str(rates)]
        if cost := _script(report, "reproduce.py", words):
            report.row("cost", text=cost)


def _cifar_runs(report, network, folder, size, arguments):
    output = report.records / network
    words = ["--dataset", "cifar10", "--data-dir", str(folder)]
    words += ["--network", network, "--losses", "ce", "crl", "--seeds", "1"]
    words += ["--recipe", "short", "--epochs", str(size["epochs"])]
    words += ["--held-out", "0", "--output", str(output)]
    _script(report, "compare_losses.py", words)
    for result in sorted(_results(output), key=lambda found: found["loss"]):
        last = result["last"] or {}
        report.row(
            "cifar",
            network=network,
            loss=result["loss"],
            images=result["dataset"]["name"]
            + (" (noise)" if arguments.data_dir is None else ""),
            precision=result["precision"],
            epochs=result["epochs"],
            error=last.get("error"),
            images_per_second=result["images_per_second"],
            seconds=result["wall_seconds"],
        )


def many(report, size, arguments):
    """Runs one by one, in processes that share the device, and together."""
    package = "crl_keras.experiments.runs.together"
    together = importlib.util.find_spec(package) is not None
    if not together:
        report.left_out("many runs as one program", f"there is no {package}")
    with tempfile.TemporaryDirectory() as made:
        made = pathlib.Path(made)
        images = made / "images"
        with report.unless_missing("many runs at once"):
            _make_cifar(images, *size["images_of_class"])
        if not images.exists():
            return
        n = size["workers"]
        ways = [("one by one", n, [])]
        ways += [("processes", n, ["--workers", str(n)])]
        if together:
            ways += [
                ("together", runs, ["--together", str(runs)])
                for runs in size["together"]
            ]
        for network in size["many"]:
            for how, runs, words in ways:
                output = made / f"{network}-{how}-{runs}"
                words = [*words, "--dataset", "cifar10", "--network", network]
                words += ["--losses", "crl", "--seeds", str(runs)]
                words += ["--recipe", "short", "--epochs", "2"]
                words += ["--held-out", "0", "--data-dir", str(images)]
                words += ["--output", str(output)]
                _script(report, "compare_losses.py", words)
                _many_row(report, network, how, runs, output)


def _many_row(report, network, how, runs, output):
    found = _results(output)
    if not found:
        return
    seconds = _span(output)
    report.row(
        "many",
        network=network,
        how=how,
        runs=len(found),
        asked_for=runs,
        seconds=seconds,
        seconds_of_run=seconds / len(found),
        finished=sum(result["status"] == "done" for result in found),
    )


def _span(output):
    """Returns the seconds from the first run's start to the last run's end."""
    begun = [p.stat().st_mtime for p in output.glob("*/config.json")]
    ended = [p.stat().st_mtime for p in output.glob("*/result.json")]
    return max(ended) - min(begun)


def files(report, size, arguments):
    """Measures the share of an epoch that the device waits for image files."""
    import benchmark_training
    import keras

    from crl_keras.experiments.devices import resolve_precision

    with contextlib.ExitStack() as stack:
        folder = arguments.images
        if folder is None:
            folder = pathlib.Path(
                stack.enter_context(tempfile.TemporaryDirectory())
            )
            with report.unless_missing("images of files"):
                import PIL  # noqa: F401

                count, copies = size["files"]
                make = benchmark_training.make_images
                make(folder / "train", count, copies)
                make(folder / "test", 4, 1)
        if not any(folder.iterdir()):
            return
        precision = resolve_precision("auto")
        keras.config.set_dtype_policy("float32")
        _read_in_turn(report, folder, precision, size)


def _read_in_turn(report, folder, precision, size):
    import benchmark_training
    from _gpu_speed import keras_model

    from crl_keras.experiments.data import sources
    from crl_keras.experiments.runs.feeds import make_feed
    from crl_keras.experiments.runs.recipes import get_recipe

    batch, pixels = size["read_batch"], size["pixels"]
    recipe = get_recipe("finetune", image_size=pixels, batch_size=batch)
    data = sources.open_dataset(f"folder:{folder}", resized=True)
    model = keras_model(
        size["read"], precision, "crl", (pixels, pixels, 3), data.classes
    )
    for reader in ("pillow", "simplejpeg", "tf.data"):
        with report.unless_missing(f"the reader {reader}"):
            feed = make_feed(data, recipe, 0, reader)
            alone = benchmark_training.images_per_second(
                benchmark_training.Trained(feed), 5 * size["seconds"]
            )
            resident = _epoch(model, _again(feed), feed)
            reading = _epoch(model, feed.for_fit(), feed)
            report.row(
                "files",
                reader=reader,
                network=size["read"],
                precision=precision,
                pixels=pixels,
                batch=batch,
                threads=os.cpu_count(),
                images=feed.size("train"),
                read_per_second=alone,
                trained_per_second=feed.size("train") / reading,
                without_reading=feed.size("train") / resident,
                waits=1 - resident / reading,
            )


def _again(feed):
    """Returns arguments of `fit` that repeat the first batch of a feed."""
    import keras

    batch = feed.training()[0]

    class Again(keras.utils.PyDataset):
        def __len__(self):
            return feed.steps

        def __getitem__(self, i):
            return batch

    return {"x": Again()}


def _epoch(model, given, feed, epochs=4):
    """Returns the median seconds of an epoch of `fit`, without the first."""
    import keras

    stamps = []

    class Stamp(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            stamps.append(time.perf_counter())

    model.fit(
        **given, epochs=epochs, shuffle=False, verbose=0, callbacks=[Stamp()]
    )
    return statistics.median(
        b - a for a, b in zip(stamps, stamps[1:], strict=False)
    )


def _script(report, name, words):
    """Runs another example in this process; returns what it prints.

    If it fails, or exits with a message, the report says so and continues.
    """
    words = [*words]
    if "cost" not in words:
        words += ["--backend", report.backend]
    printed, argv = io.StringIO(), sys.argv
    sys.argv = [str(EXAMPLES / name), *words]
    what = f"{name} {' '.join(words[:6])} ..."
    try:
        with report.unless_missing(what), contextlib.redirect_stdout(printed):
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            report.left_out(what, str(end.code))
    finally:
        sys.argv = argv
    return printed.getvalue()


def _results(output):
    """Returns the results of all runs in a folder of records."""
    paths = sorted(output.glob("*/result.json"))
    return [json.loads(path.read_text()) for path in paths]


def _make_cifar(folder, train, test):
    """Writes noise in the files and folders of CIFAR-10, to measure speed."""
    import numpy as np
    from PIL import Image

    from crl_keras.experiments.data.named import CLASS_NAMES

    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name in CLASS_NAMES["cifar10"]:
            of_class = folder / split / name
            of_class.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(of_class / f"{i}.png")
