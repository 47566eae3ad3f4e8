"""Names what is in images, with a model that a fine-tuning script saved.

    python examples/predict.py runs/cub-keras_cv-resnet50 bird.jpg other.jpg
    python examples/predict.py runs/cub-keras_cv-resnet50/0a1b2c3d4e5f \\
        bird.jpg --top 3

MODEL is the folder of a run, its model.keras, or the folder of an experiment
with one saved model. Images are cropped as in the test. --posterior shows the
class posterior behind the softmax of a model trained with CRL (see
docs/calibration.md).
"""

import argparse
import sys

import _backend  # noqa: F401  Before Keras is imported.


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="see above")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.add_argument("--top", type=int, default=5, help="classes shown (5)")
    parser.add_argument(
        "--posterior",
        action="store_true",
        help="the class posterior instead of the softmax of CRL",
    )
    arguments = parser.parse_args()
    if arguments.top < 1:
        parser.error(f"--top must be at least 1. Received: {arguments.top}")

    from crl_keras.experiments.runs.prediction import load_classifier

    try:
        classifier = load_classifier(arguments.model)
        if classifier.info.get("crop_to_box"):
            print(
                "This model was trained on images cut to the box of their "
                "object: give it such images.",
                file=sys.stderr,
            )
        for path in arguments.images:
            print(path)
            found = classifier(path, posterior=arguments.posterior)
            for name, probability in found[: arguments.top]:
                print(f"  {probability:7.2%}  {name}")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"predict: {error}")


if __name__ == "__main__":
    main()
