"""The command examples/export.py: writes a model for another runtime."""

import shutil
import sys

from crl_keras.experiments.commands.arguments import new_parser
from crl_keras.experiments.commands.predict import add_choice


def export_parser(description):
    """The arguments of examples/export.py."""
    made = new_parser(description)
    made.add_argument(
        "model", metavar="MODEL", help="folder of runs, or a model.keras"
    )
    made.add_argument(
        "--format",
        nargs="+",
        required=True,
        choices=("savedmodel", "onnx", "tflite", "torchscript"),
        help="one or more formats",
    )
    made.add_argument("--output", help="folder of the files (RUN/exported)")
    add_choice(made)
    return made


def run_export(parser, name="export", argv=None):
    """Parses the arguments and exports the model."""
    arguments = parser.parse_args(argv)
    try:
        export(arguments)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"{name}: {error}")


def export(arguments):
    """Writes the formats, and model.json with the inputs that they need."""
    from crl_keras.experiments.runs.export import export_model
    from crl_keras.experiments.runs.prediction import load_classifier

    classifier = load_classifier(
        arguments.model, arguments.loss, arguments.seed, arguments.fold
    )
    if classifier.choice:
        print(f"Model: {classifier.choice}.", file=sys.stderr)
    folder = arguments.output or classifier.folder / "exported"
    for name in arguments.format:
        made = export_model(classifier.model, name, folder)
        checked = f"not checked: {made.unchecked}"
        if not made.unchecked:
            checked = (
                "checked, its logits differ from the model's by at most "
                f"{made.difference:.1g}"
            )
        print(f"{made.path} ({checked})")
    shutil.copy(classifier.folder / "model.json", folder)
