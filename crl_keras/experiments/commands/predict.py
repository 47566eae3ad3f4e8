"""The command examples/predict.py: classifies images with a saved model."""

import contextlib
import csv
import sys

import numpy as np

from crl_keras.experiments.commands.arguments import new_parser
from crl_keras.experiments.words import counted


def predict_parser(description):
    """The arguments of examples/predict.py."""
    made = new_parser(description)
    made.add_argument(
        "model", metavar="MODEL", help="folder of runs, or a model.keras"
    )
    made.add_argument(
        "images", metavar="IMAGE", nargs="+", help="file, folder or pattern"
    )
    made.add_argument(
        "--top", type=int, default=5, help="number of classes to show (5)"
    )
    made.add_argument(
        "--csv",
        metavar="FILE",
        help="write a table with one row per image, instead of printing",
    )
    made.add_argument(
        "--tta",
        action="store_true",
        help="average the predictions for each image and its mirror image",
    )
    made.add_argument(
        "--posterior",
        action="store_true",
        help="for CRL: show the class posterior instead of the softmax",
    )
    add_choice(made)
    return made


def add_choice(made):
    """Adds the arguments that choose the model and the backend."""
    made.add_argument(
        "--loss", help="choose the model of this loss, if there are several"
    )
    made.add_argument("--seed", type=int, help="... the model of this seed")
    made.add_argument("--fold", type=int, help="... the model of this fold")
    made.add_argument(
        "--backend",
        choices=("tensorflow", "jax", "torch"),
        help="backend of Keras; the training may have used another",
    )


def run_predict(parser, name="predict", argv=None):
    """Parses the arguments and predicts; exits with 1 if an image failed."""
    arguments = parser.parse_args(argv)
    if arguments.top < 1:
        parser.error(f"--top must be at least 1. Received: {arguments.top}")
    try:
        failed = predict(arguments)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{name}: {error}")
    if failed:
        for reason in failed[:20]:
            print(f"{name}: {reason}", file=sys.stderr)
        if len(failed) > 20:
            print(f"{name}: and {len(failed) - 20} more", file=sys.stderr)
        sys.exit(1)


def predict(arguments):
    """Prints or writes the predictions; returns why images failed."""
    from crl_keras.experiments.runs.prediction import image_files
    from crl_keras.experiments.runs.prediction import load_classifier

    classifier = load_classifier(
        arguments.model, arguments.loss, arguments.seed, arguments.fold
    )
    if classifier.choice:
        print(f"Model: {classifier.choice}.", file=sys.stderr)
    if classifier.info.get("crop_to_box"):
        print(
            "This model was trained on images cropped to the box of their "
            "object. Give it such images.",
            file=sys.stderr,
        )
    files, missing = image_files(arguments.images)
    failed = [
        f"Expected images in {path}. Received: {reason}."
        for path, reason in missing.items()
    ]
    answers = classifier.predict(files, arguments.posterior, arguments.tta)
    count = 0
    with _output(arguments, classifier) as show:
        for path, found in answers:
            if isinstance(found, OSError):
                failed.append(str(found))
                continue
            count += 1
            show(path, found)
    if arguments.csv:
        print(f"Wrote {counted(count, 'image')} to {arguments.csv}")
    return failed


@contextlib.contextmanager
def _output(arguments, classifier):
    """Yields a function that shows the probabilities of a file."""
    from crl_keras.experiments.runs.records import top_cells
    from crl_keras.experiments.runs.records import top_columns

    names = classifier.classes
    most = min(arguments.top, len(names))

    def top(found):
        return np.argsort(-found, kind="stable")[:most]

    def printed(path, found):
        print(path)
        for k in top(found):
            print(f"  {found[k]:7.2%}  {names[k]}")

    if not arguments.csv:
        yield printed
        return
    with open(arguments.csv, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", *top_columns(most)])
        yield lambda path, found: writer.writerow(
            [path, *top_cells(names, found, top(found))]
        )
