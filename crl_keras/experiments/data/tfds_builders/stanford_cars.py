"""Stanford Cars for TensorFlow Datasets, from files on disk."""

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.cars196_classes import CARS196
from crl_keras.experiments.data.fine_grained import CARS_SOURCE
from crl_keras.experiments.data.fine_grained import read_cars
from crl_keras.experiments.data.tfds_builders._files import FileBuilder
from crl_keras.experiments.data.tfds_builders._files import features
from crl_keras.experiments.data.tfds_builders._files import tfds


class StanfordCars(FileBuilder):
    """Stanford Cars, from any layout that `read_cars` knows.

    If the layout has boxes, `bbox` holds the box of the image, relative to its
    height and width and cut to the image. It is empty for class folders.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put the folders or archives of Stanford Cars there: cars_train, "
        "cars_test and the .mat files, or train and test with a folder for "
        f"each class. {CARS_SOURCE}."
    )

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="196 makes, models and years of cars.",
            features=features(
                CARS196,
                bbox=tfds.features.Sequence(tfds.features.BBoxFeature()),
            ),
            supervised_keys=("image", "label"),
            homepage="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        )

    def _read(self, folder):
        return read_cars(folder)

    def _more(self, split, i):
        boxes = [] if split.boxes is None else [split.boxes[i]]
        return {"bbox": [_relative(box, split.paths[i]) for box in boxes]}


def _relative(box, path):
    with require("PIL.Image").open(path) as image:
        width, height = image.size
    x0, x1 = (min(max(float(x) / width, 0.0), 1.0) for x in box[::2])
    y0, y1 = (min(max(float(y) / height, 0.0), 1.0) for y in box[1::2])
    return tfds.features.BBox(ymin=y0, xmin=x0, ymax=y1, xmax=x1)
