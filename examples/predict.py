"""Classifies images with a model that a fine-tuning script saved.

    python examples/predict.py runs/cub-keras_cv-resnet50 bird.jpg other.jpg
    python examples/predict.py runs/cub-keras_cv-resnet50/0a1b2c3d4e5f \\
        bird.jpg --top 3
    python examples/predict.py runs/cub-keras_cv-resnet50 ~/photos \\
        "holidays/**/*.jpg" --csv birds.csv

MODEL is the folder of a run, its model.keras, or the folder of an experiment.
If it holds several models, the program takes the one with the lowest error on
the images held out from training, and says so. --loss, --seed and --fold choose
others. IMAGE is a file, a folder with its subfolders, or a pattern. Images are
cropped as in the test. If an image cannot be read, the program continues, names
it at the end, and exits with code 1. --posterior shows the class posterior
behind the softmax of a model trained with CRL (see docs/calibration.md).
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.predict import predict_parser
from crl_keras.experiments.commands.predict import run_predict

if __name__ == "__main__":
    run_predict(predict_parser(__doc__))
