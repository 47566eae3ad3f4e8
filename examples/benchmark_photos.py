"""Fine-tunes on a few hundred photos, with each mode of --batch-norm.

    python examples/benchmark_photos.py --data-dir ~/data \\
        --output docs/results

The program takes small sets out of CIFAR-10 (--data-dir has cifar10.tar.gz or a
folder cifar10 of JPEGs), enlarges the images, and writes them as folders of
photos. It fine-tunes KerasCV's ResNet-18 on them from random weights, as
examples/finetune.py does. It writes photos.md. The runs are in runs/photos, so
the same command continues after a stop. The page also shows the runs of other
backends in that folder.
"""

import argparse
import datetime
import pathlib
import shlex
import sys

import _backend  # noqa: F401  Before Keras is imported.
import numpy as np

MODES = ("moving", "momentum", "recompute")
TEST_IMAGES = 1000
TITLES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-dir", required=True, help="see above")
    parser.add_argument(
        "--images", type=int, nargs="+", default=[300, 3000], help="of training"
    )
    parser.add_argument("--losses", nargs="+", default=["ce", "crl"])
    parser.add_argument("--modes", nargs="+", default=list(MODES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--epochs",
        type=int,
        nargs="+",
        default=[60],
        help="one number, or one for each of --images",
    )
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--backbone", default="keras_cv/resnet18")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--runs", default="runs/photos", help="folder of runs")
    parser.add_argument("--output", help="folder for photos.md")
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    arguments = parser.parse_args()
    if len(arguments.epochs) == 1:
        arguments.epochs *= len(arguments.images)
    if len(arguments.epochs) != len(arguments.images):
        parser.error(
            f"expected one --epochs or {len(arguments.images)}, as many as "
            f"--images. Received: {len(arguments.epochs)}"
        )
    rows = [
        row
        for count, epochs in zip(
            arguments.images, arguments.epochs, strict=True
        )
        for row in measured(arguments, count, epochs)
    ]
    text = page(arguments, rows)
    print(text)
    if arguments.output:
        path = pathlib.Path(arguments.output) / "photos.md"
        path.write_text(text, encoding="utf-8")


def photo_folder(data_dir, count, side, path):
    """Writes the first images of each class as JPEGs of `side` pixels."""
    from PIL import Image

    from crl_keras.experiments.data.named import load_dataset

    if path.is_dir():
        return
    data = load_dataset("cifar10", data_dir).limited(count, TEST_IMAGES)
    temporary = path.with_name(f"{path.name}.part")
    for name, split in (("train", data.train), ("test", data.test)):
        for i, (pixels, label) in enumerate(
            zip(split.images, split.labels, strict=True)
        ):
            folder = temporary / name / data.class_names[label]
            folder.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(pixels).resize((side, side))
            image.save(folder / f"{i:05}.jpg", quality=92)
    temporary.rename(path)


def measured(arguments, count, epochs):
    """Trains on `count` images; yields a dict for each mode and loss."""
    from crl_keras.experiments.commands.arguments import finetune_parser
    from crl_keras.experiments.commands.plans import make_plan
    from crl_keras.experiments.commands.running import run_plan
    from crl_keras.experiments.runs.records import read_records

    base = pathlib.Path(arguments.runs)
    base.mkdir(parents=True, exist_ok=True)
    folder = base / f"photos-{count}"
    photo_folder(arguments.data_dir, count, 96, folder)
    library, _, backbone = arguments.backbone.partition("/")
    for mode in arguments.modes:
        words = f"--library {library} --backbone {backbone} --weights none"
        words += f" --batch-norm {mode} --epochs {epochs}"
        words += f" --image-size {arguments.image_size} --no-save-model"
        words += f" --seeds {arguments.seeds}"
        plan = make_plan(
            finetune_parser("", None).parse_args(
                [
                    *("--dataset", f"folder:{folder}"),
                    *("--losses", *arguments.losses),
                    *("--output", str(base / f"{count}-{mode}")),
                    *words.split(),
                ]
            )
        )
        run_plan(plan, arguments.workers)
        records = [
            record
            for record in read_records(plan.output)
            if record.config.recipe.epochs == epochs
        ]
        kinds = dict.fromkeys(
            (r.config.backend, r.config.loss) for r in records
        )
        for backend, loss in kinds:
            of_kind = [
                r
                for r in records
                if (r.config.backend, r.config.loss) == (backend, loss)
            ]
            yield dict(
                count=count,
                epochs=epochs,
                mode=mode,
                backend=backend,
                **summary(loss, of_kind),
            )


def summary(loss, records):
    from crl_keras.experiments.analysis.diagnosis import diagnose
    from crl_keras.experiments.runs.config import loss_label

    done = [r for r in records if r.result["status"] == "done"]
    return dict(
        loss=loss_label(loss),
        runs=f"{len(done)} of {len(records)}",
        train=[100 * r.history[-1]["train_accuracy"] for r in done],
        test=[100 * (1 - r.result["last"]["error"]) for r in done],
        nll=[r.result["last"]["nll"] for r in done],
        warned=sum("lagging" in diagnose(r) for r in done),
        seconds=[
            r.result.get("batch_norm", {}).get("seconds", 0.0)
            / r.result["wall_seconds"]
            for r in done
        ],
        device=done[0].result["device"] if done else "",
        versions=done[0].result["versions"] if done else {},
    )


def answers(arguments, rows):
    """Yields a sentence on each number of images, epochs and backend.

    It gives the test accuracy of each mode.
    """
    kinds = dict.fromkeys((r["count"], r["epochs"], r["backend"]) for r in rows)
    for count, epochs, backend in kinds:
        parts = []
        for mode in arguments.modes:
            wanted = (count, epochs, backend, mode)
            values = [
                value
                for row in rows
                if (row["count"], row["epochs"], row["backend"], row["mode"])
                == wanted
                for value in row["test"]
            ]
            parts.append(f"{np.mean(values or [np.nan]):.0f} % (`{mode}`)")
        yield (
            f"- {count:,} images, {epochs} epochs, {TITLES[backend]}: the test "
            f"accuracy is {', '.join(parts)}, over all losses and seeds."
        )


def page(arguments, rows):
    command = shlex.join(["python", "examples/benchmark_photos.py"])
    words = sys.argv[1:]
    hidden = {"--data-dir": "data", "--output": "docs/results"}
    for option, shown in hidden.items():
        if option in words:
            words[words.index(option) + 1] = shown
    versions = {k: v for row in rows for k, v in row["versions"].items()}
    versions = ", ".join(f"{k} {v}" for k, v in versions.items())
    others = []
    if len({row["backend"] for row in rows}) > 1:
        others = ["Add `--backend` to train on another backend.", ""]
    return "\n".join(
        [
            "# What do a few hundred photos give?",
            "",
            *answers(arguments, rows),
            "",
            f"{arguments.backbone} from random weights on photos of CIFAR-10, "
            f"enlarged, with the recipe `scratch` at "
            f"{arguments.image_size} pixels, {TEST_IMAGES:,} test images, ten "
            "classes: guessing is right in 10 %. `--batch-norm` chooses the "
            "statistics of the tests "
            "([the three ways](../fine-tuning.md"
            "#batch-normalisation-on-small-sets)).",
            "",
            *table(rows),
            "",
            "*Warned* counts the runs for which the program warned that the "
            "moving averages need more steps. *Share of time* is the time for "
            "computing the statistics again, as a share of training and "
            "testing. Numbers are mean and standard deviation over the seeds.",
            "",
            f"    {command} {shlex.join(words)}",
            "",
            *others,
            f"Made {datetime.date.today()} on {rows[0]['device']}; {versions}.",
            "",
        ]
    )


def table(rows):
    def both(values, digits=1):
        if not values:
            return "diverged"
        text = f"{np.mean(values):.{digits}f}"
        if len(values) > 1:
            text += f" ± {np.std(values, ddof=1):.{digits}f}"
        return text

    yield (
        "| Images | Epochs | Backend | `--batch-norm` | Loss | Runs "
        "| Training accuracy, % | Test accuracy, % | Test NLL | Warned "
        "| Share of time |"
    )
    yield "|--:|--:|---|---|---|---|--:|--:|--:|--:|--:|"
    for row in rows:
        yield (
            f"| {row['count']:,} | {row['epochs']} | {TITLES[row['backend']]} "
            f"| `{row['mode']}` | {row['loss']} | {row['runs']} "
            f"| {both(row['train'])} | {both(row['test'])} "
            f"| {both(row['nll'], 2)} | {row['warned']} "
            f"| {np.mean(row['seconds'] or [0]):.1%} |"
        )


if __name__ == "__main__":
    main()
