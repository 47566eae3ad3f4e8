"""Tiny copies of CUB-200-2011, Stanford Cars and Adience as they lie on disk.

Written from the descriptions of the published files, not from our readers.
"""

import functools
import io
import pathlib
import tarfile

import numpy as np
import scipy.io
from PIL import Image

# Not in alphabetical order, as the official ids are not; one has a slash.
CARS = (
    "Acura RL Sedan 2012",
    "Acura Integra Type R 2001",
    "Ram C/V Cargo Van Minivan 2012",
)
BIRDS = ("Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross")
AGES = (
    *("(0, 2)", "(4, 6)", "(8, 12)", "(15, 20)"),
    *("(25, 32)", "(38, 43)", "(48, 53)", "(60, 100)"),
)
ADIENCE_COLUMNS = (
    "user_id original_image face_id age gender x y dx dy tilt_ang "
    "fiducial_yaw_angle fiducial_score"
).split()


@functools.cache
def jpeg(red, green=0, size=(16, 16)):
    file = io.BytesIO()
    Image.new("RGB", size, (red, green, 0)).save(file, "JPEG", quality=95)
    return file.getvalue()


def write(folder, files):
    """Writes {relative path: bytes or str} and returns the folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def write_images(folder, count, classes=2):
    """JPEGs of 60 x 45 pixels, each in the folder of its class."""
    names = [f"{i % classes}/{i}.jpg" for i in range(count)]
    files = {name: jpeg(6 * i, size=(60, 45)) for i, name in enumerate(names)}
    return write(folder, files)


def store_tfds(folder, name, splits, **features):
    """Writes {split: images} of two classes as a data set of TFDS."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                **features,
            }
        ),
        split_datasets={
            split: tf.data.Dataset.from_tensor_slices(
                {
                    "image": images,
                    "label": np.arange(len(images)) % 2,
                    **{key: np.zeros(len(images)) for key in features},
                }
            )
            for split, images in splits.items()
        },
        data_dir=folder,
        disable_shuffling=True,
    )


def pack(path, files, mode="w:gz"):
    """Writes {name: bytes or str} as an archive and returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def under(prefix, files):
    return {f"{prefix}/{name}": data for name, data in files.items()}


def cub_files(train=2, test=1):
    """{path: contents} of CUB_200_2011, and the rows that it tells of.

    A row is (path, label, whether it is for training, x, y, width, height).
    """
    rows = []
    for label, name in enumerate(BIRDS):
        folder = f"{label + 1:03d}.{name}"
        for i in range(train + test):
            path = f"{folder}/{name}_{i:04d}_{7 * i}.jpg"
            # The test image stands between those for training.
            box = (60.0 + label, 27.0 + i, 100.5, 50.0)
            rows.append((path, label, i != 1, *box))
    files = under("images", {row[0]: jpeg(20 * row[1]) for row in rows})
    numbered = list(enumerate(rows, 1))
    files["images.txt"] = lines(f"{i} {row[0]}" for i, row in numbered)
    # Joined by their ids: the order of the lines is not to matter.
    files["image_class_labels.txt"] = lines(
        f"{i} {row[1] + 1}" for i, row in reversed(numbered)
    )
    files["train_test_split.txt"] = lines(
        f"{i} {int(row[2])}" for i, row in numbered[1:] + numbered[:1]
    )
    files["bounding_boxes.txt"] = lines(
        f"{i} {row[3]} {row[4]} {row[5]} {row[6]}" for i, row in numbered
    )
    files["classes.txt"] = lines(
        f"{k} {k:03d}.{name}" for k, name in enumerate(BIRDS, 1)
    )
    return files, rows


def lines(rows):
    return "".join(f"{row}\n" for row in rows)


class CarRow:
    """A car: its class from 1, its box, its number."""

    def __init__(self, number, label):
        self.fname = f"{number:05d}.jpg"
        self.label = label
        # The second reaches beyond its image.
        self.box = (1 + number % 5, 2, 20 if number == 2 else 12, 15)
        self.image = jpeg(10 * number, 50 * label)


def car_rows(per_class):
    """Rows whose classes alternate, so that files are not sorted by class."""
    return [CarRow(i + 1, i % 3) for i in range(3 * per_class)]


CARS_TRAIN, CARS_TEST = car_rows(3), car_rows(2)


def mat(**variables):
    file = io.BytesIO()
    scipy.io.savemat(file, variables)
    return file.getvalue()


def struct(rows, fields):
    """A 1 x N MATLAB struct whose values are 1x1 arrays and strings."""
    array = np.empty((1, len(rows)), [(name, object) for name in fields])
    for i, row in enumerate(rows):
        for name, value in zip(fields, row, strict=True):
            array[name][0, i] = (
                value if isinstance(value, str) else np.array([[value]])
            )
    return array


BOX_FIELDS = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def annotations(rows, labelled=True):
    if not labelled:
        rows = [(*map(np.uint16, row.box), row.fname) for row in rows]
        return mat(annotations=struct(rows, (*BOX_FIELDS, "fname")))
    rows = [
        (*map(np.uint16, row.box), np.uint8(row.label + 1), row.fname)
        for row in rows
    ]
    return mat(annotations=struct(rows, (*BOX_FIELDS, "class", "fname")))


def cell(names):
    """A 1 x N MATLAB cell array of strings."""
    array = np.empty((1, len(names)), object)
    array[0, :] = names
    return array


def cars_devkit():
    return {
        "cars_meta.mat": mat(class_names=cell(CARS)),
        "cars_train_annos.mat": annotations(CARS_TRAIN),
        "cars_test_annos.mat": annotations(CARS_TEST, labelled=False),
    }


TEST_LABELS = {"cars_test_annos_withlabels.mat": annotations(CARS_TEST)}


def cars_images(train="cars_train", test="cars_test"):
    return {
        f"{folder}/{row.fname}": row.image
        for folder, rows in ((train, CARS_TRAIN), (test, CARS_TEST))
        for row in rows
    }


def cars_one_list():
    """`car_ims` and cars_annos.mat: one list, one folder, six digits."""
    rows, files = [], {}
    for is_test, part in ((0, CARS_TRAIN), (1, CARS_TEST)):
        for row in part:
            path = f"car_ims/{len(rows) + 1:06d}.jpg"
            files[path] = row.image
            box = map(np.uint16, row.box)
            label = np.uint8(row.label + 1)
            rows.append((path, *box, label, np.uint8(is_test)))
    fields = ("relative_im_path", *BOX_FIELDS, "class", "test")
    files["cars_annos.mat"] = mat(
        annotations=struct(rows, fields), class_names=cell(CARS)
    )
    return files


def cars_class_folders(slash="-"):
    return {
        f"{split}/{CARS[row.label].replace('/', slash)}/{row.fname}": row.image
        for split, rows in (("train", CARS_TRAIN), ("test", CARS_TEST))
        for row in rows
    }


def cars_layouts():
    """{name: {path: contents}} of the copies that people have."""
    devkit = cars_devkit()
    boxed = cars_images() | under("devkit", devkit) | TEST_LABELS
    kaggle = cars_images("cars_train/cars_train", "cars_test/cars_test")
    kaggle |= under("car_devkit/devkit", devkit)
    csv = {"anno_train.csv": "", "anno_test.csv": "", "names.csv": ""}
    return {
        "original": boxed,
        "torchvision": under("stanford_cars", boxed),
        "kaggle, labels beside": kaggle | TEST_LABELS,
        "kaggle, labels in the devkit": kaggle
        | under("car_devkit/devkit", TEST_LABELS),
        "flat devkit": cars_images() | devkit | TEST_LABELS,
        "car_ims": cars_one_list(),
        "class folders": cars_class_folders(),
        "class folders with lists": under(
            "car_data/car_data", cars_class_folders("_")
        )
        | csv,
    }


def adience_row(user, photo, face, age, gender="f"):
    """A line of a fold file."""
    numbers = ("0", "0", "816", "816", "115", "0", "59")
    return "\t".join((user, photo, str(face), age, gender, *numbers))


def fold_file(rows):
    return lines(["\t".join(ADIENCE_COLUMNS), *rows])


def adience_files(folds="", faces="aligned"):
    """Two faces of each group in each fold, one of them a single age more."""
    prefix = {
        "aligned": "landmark_aligned_face",
        "faces": "coarse_tilt_aligned_face",
    }[faces]
    files = {}
    for fold in range(5):
        rows = []
        for k, age in enumerate((*AGES, "35")):
            user = f"{100 + fold}@N0{k % 2}"
            for i in range(2):
                face, photo = 100 * fold + k, f"{fold}{k}{i}_o.jpg"
                rows.append(adience_row(user, photo, face, age))
                path = f"{faces}/{user}/{prefix}.{face}.{photo}"
                files[path] = jpeg(10 * k + i, 50 * fold)
        files[f"{folds}fold_{fold}_data.txt"] = fold_file(rows)
    return files


def names_of(split, parts=2):
    """The last parts of the paths of a `FileSplit`."""
    return ["/".join(pathlib.Path(p).parts[-parts:]) for p in split.paths]
