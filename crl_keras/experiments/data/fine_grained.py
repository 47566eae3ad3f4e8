"""Reads CUB-200-2011 and Stanford Cars from all common folder layouts.

`read_cub` and `read_cars` find the layout, check that the images exist, and
return a `FileDataset` with the published splits and class ids. They open no
image. The module imports only NumPy until a function needs more.
"""

import pathlib
import re

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.archives import unpacked
from crl_keras.experiments.data.cars196_classes import CARS196
from crl_keras.experiments.data.formats import IMAGE_SUFFIXES
from crl_keras.experiments.data.image_files import FileDataset
from crl_keras.experiments.data.image_files import FileSplit
from crl_keras.experiments.data.image_files import check_files
from crl_keras.experiments.data.image_files import warn_unless_full
from crl_keras.experiments.data.image_files import what_is_in
from crl_keras.experiments.data.image_trees import some

# Number of training and test images in the full sets.
CUB_SIZES = (5994, 5794)
CARS_SIZES = (8144, 8041)

CUB_SOURCE = (
    "CUB_200_2011.tgz is available at data.caltech.edu/records/65de6-vp158"
)
CARS_SOURCE = (
    "The original page, ai.stanford.edu/~jkrause/cars/car_dataset.html, no "
    "longer serves the files. Kaggle has copies with their own terms: "
    "rickyyyyyyy/torchvision-stanford-cars, and "
    "jessicali9530/stanford-cars-dataset, which lacks the test labels"
)
DEVKIT_PLACES = ("", "devkit", "car_devkit", "car_devkit/devkit")
TEST_LABELS = "cars_test_annos_withlabels.mat"


def read_cub(path):
    """Reads CUB-200-2011: 200 species of birds, with a box around each bird.

    Args:
        path: the folder CUB_200_2011, the archive CUB_200_2011.tgz, or a
            folder with one of them. The archive is unpacked once, next to
            itself.

    Returns a `FileDataset` named "cub" with the official split: 5,994 images
    for training and 5,794 for the test. Class names come from classes.txt,
    without the numbers, such as "Black_footed_Albatross". Boxes come from
    bounding_boxes.txt, as `x, y, x + width, y + height`; without that file they
    are None.

    Warns:
        IncompleteDataWarning: if the number of images differs.

    Raises:
        FileNotFoundError: if a folder or file is missing; the message says
            what is expected and where to get it.
        ValueError: if a file is not as expected.

    Source: Wah et al., The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001
    (2011).
    """
    root = _cub_root(pathlib.Path(path).expanduser().absolute())
    images = _rows(root / "images.txt", str)
    is_train = _rows(root / "train_test_split.txt", int)
    classes = _rows(root / "image_class_labels.txt", int)
    names = _rows(root / "classes.txt", str)
    boxes = None
    if (root / "bounding_boxes.txt").is_file():
        boxes = _rows(root / "bounding_boxes.txt", float, 4)
        boxes = _in_order_of(images, boxes, root / "bounding_boxes.txt")
        # The file has left, top, width, height.
        boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    is_train = _in_order_of(images, is_train, root / "train_test_split.txt")
    _check_flags(is_train, root / "train_test_split.txt")
    ids = _in_order_of(images, classes, root / "image_class_labels.txt")
    whole = FileSplit(
        [str(root / "images" / name) for (name,) in images.values()],
        _positions(ids[:, 0], list(names), root / "image_class_labels.txt"),
        boxes,
    )
    check_files(whole.paths, str(root / "images.txt"))
    dataset = FileDataset(
        "cub",
        whole.take(np.flatnonzero(is_train[:, 0] == 1)),
        whole.take(np.flatnonzero(is_train[:, 0] == 0)),
        [re.sub(r"^\d+\.", "", name) for (name,) in names.values()],
    )
    warn_unless_full(dataset, *CUB_SIZES, root)
    return dataset


def _cub_root(path):
    name = "CUB_200_2011"
    if path.is_file():
        return unpacked(path, name)
    for folder in (path, path / name, path / name / name):
        if (folder / "images.txt").is_file():
            return folder
        for archive in (f"{name}.tgz", f"{name}.tar.gz", f"{name}.tar"):
            if (folder / archive).is_file():
                return unpacked(folder / archive, name)
    raise FileNotFoundError(
        f"Expected the folder {name} with images.txt, or {name}.tgz, in "
        f"{path}. {what_is_in(path)} {CUB_SOURCE}."
    )


def _rows(path, kind, columns=1):
    """Reads a file of lines `id value ...` as {id: values}."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"Expected {path.name} in {path.parent}. It is not there: unpack "
            f"the archive again. {CUB_SOURCE}."
        ) from error
    rows = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            # A name may have spaces, if it is the only value.
            key, *values = line.strip().split(maxsplit=columns)
            if len(values) != columns or key in rows:
                raise ValueError
            rows[key] = tuple(kind(value) for value in values)
        except ValueError as error:
            raise ValueError(
                f"Expected an id that is not repeated and {columns} "
                f"value(s) in line {number} of {path}. Received: {line!r}."
            ) from error
    return rows


def _check_flags(values, path):
    other = np.setdiff1d(values, [0, 1])
    if len(other):
        raise ValueError(
            f"Expected 0 or 1 for each image in {path}. Received: "
            f"{some(other.tolist())}."
        )


def _in_order_of(images, rows, path):
    if rows.keys() != images.keys():
        other = sorted(rows.keys() ^ images.keys())
        raise ValueError(
            f"Expected the ids of images.txt in {path}. Received other ids or "
            f"too few: {some(other)}. Unpack the archive again."
        )
    return np.array([rows[key] for key in images])


def _positions(ids, names, path):
    """Class ids as positions in classes.txt."""
    position = {int(name): k for k, name in enumerate(names)}
    unknown = sorted({int(i) for i in ids} - set(position))
    if unknown:
        raise ValueError(
            f"Expected class ids from classes.txt in {path}. Received: "
            f"{some(unknown)}."
        )
    return np.array([position[int(i)] for i in ids])


def read_cars(path):
    """Reads Stanford Cars: 196 makes, models and years, with a box per car.

    The class ids follow the devkit's `class_names`, not the order of folders,
    which differs for 143 classes.

    Args:
        path: a folder with one of these layouts, directly or in its folder
            `stanford_cars` (torchvision's), `car_data` or `car_data/car_data`:

            - `cars_train/` and `cars_test/`, or their .tgz archives, with the
              files cars_meta.mat, cars_train_annos.mat and
              cars_test_annos_withlabels.mat, or car_devkit.tgz. The files may
              be beside the images or in `devkit`, `car_devkit` or
              `car_devkit/devkit`. Each image folder may lie in a folder of the
              same name (a copy on Kaggle);
            - `car_ims/` or car_ims.tgz, and cars_annos.mat;
            - `train/` and `test/` with a folder for each class.

            Or one of the archives. Archives are unpacked once, next to
            themselves.

    Returns a `FileDataset` named "cars" with the official split: 8,144 images
    for training and 8,041 for the test. Boxes are the unchanged numbers of the
    .mat files. With class folders, boxes are None, and the classes are the
    existing folders in the official order.

    Warns:
        IncompleteDataWarning: if the number of images differs.

    Raises:
        FileNotFoundError: if a folder or file is missing, or only the test
            annotations without labels exist; the message says what is expected
            and where to get it.
        ValueError: if a file is not as expected.
        ImportError: if SciPy is missing; class folders do not need it.

    Source: Krause et al., 3D Object Representations for Fine-Grained
    Categorization, 3dRR (2013).
    """
    path = pathlib.Path(path).expanduser().absolute()
    if path.is_file():
        path = path.parent
    inside = ("", "stanford_cars", "car_data", "car_data/car_data")
    bases = [path / name for name in inside]
    for base in bases:
        for read in (_cars_of_devkit, _cars_of_one_list, _cars_of_folders):
            dataset = read(base)
            if dataset is not None:
                warn_unless_full(dataset, *CARS_SIZES, base)
                return dataset
    raise FileNotFoundError(
        "Expected Stanford Cars: cars_train/ and cars_test/, or car_ims/ and "
        "cars_annos.mat, or train/ and test/ with a folder for each class, in "
        f"{path} or its folders {some(inside[1:])}. {what_is_in(path)} "
        f"{CARS_SOURCE}."
    )


def _cars_of_devkit(base):
    train, test = (_image_folder(base, f"cars_{s}") for s in ("train", "test"))
    if train is None and test is None:
        return None
    if train is None or test is None:
        raise FileNotFoundError(
            f"Expected both cars_train and cars_test in {base}. Received "
            f"{(train or test).name} alone. {CARS_SOURCE}."
        )
    names = _class_names(_devkit(base, "cars_meta.mat"))
    train_rows = _annotations(_devkit(base, "cars_train_annos.mat"))
    test_rows = _annotations(_test_annotations(base))
    return FileDataset(
        "cars",
        _cars_split(train_rows, train),
        _cars_split(test_rows, test),
        names,
    )


def _image_folder(base, name):
    """The image folder, perhaps in a folder of its name, or unpacked now."""
    for folder in (base / name / name, base / name):
        if folder.is_dir():
            return folder
    return _unpacked_if_there(base, name)


def _unpacked_if_there(base, name, folder=None):
    for suffix in (".tgz", ".tar.gz", ".tar"):
        archive = base / f"{name}{suffix}"
        if archive.is_file():
            return unpacked(archive, folder or name)
    return None


def _find(base, name):
    for place in DEVKIT_PLACES:
        if (base / place / name).is_file():
            return base / place / name
    return None


def _devkit(base, name):
    found = _find(base, name)
    if found is None and _unpacked_if_there(base, "car_devkit", "devkit"):
        found = _find(base, name)
    if found is None:
        raise FileNotFoundError(
            f"Expected {name} in {base} or its folders "
            f"{some(DEVKIT_PLACES[1:])}, or car_devkit.tgz, which holds it. "
            "cars_annos.mat is no substitute: it names the files of car_ims. "
            f"{CARS_SOURCE}."
        )
    return found


def _test_annotations(base):
    # Some copies have the labelled file under the name of the other.
    found = _find(base, TEST_LABELS) or _find(base, "cars_test_annos.mat")
    if found and "class" in _annotations(found).dtype.names:
        return found
    received = f"{found}, which has boxes but no labels" if found else "none"
    raise FileNotFoundError(
        f"Expected the labels of the test images, {TEST_LABELS}, in {base} or "
        f"its folders {some(DEVKIT_PLACES[1:])}. Received {received}. Add the "
        "file: 185,758 bytes, sha256 790f75be... The original page had it "
        "beside the archives, and torchvision's layout contains it."
    )


def _annotations(path):
    return _mat(path, "annotations")


def _class_names(path):
    return [str(name).strip() for name in _mat(path, "class_names")]


def _mat(path, variable):
    matlab = require("scipy.io")
    try:
        contents = matlab.loadmat(path, squeeze_me=True)
        # `squeeze_me` drops the dimension of a single row.
        return np.atleast_1d(contents[variable])
    except Exception as error:
        raise ValueError(
            f"Expected a MATLAB file with {variable} at {path}. Received: "
            f"{type(error).__name__}: {error}. Fetch the file again."
        ) from error


def _cars_split(rows, folder):
    corners = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    key = "fname" if "fname" in rows.dtype.names else "relative_im_path"
    names = [pathlib.PurePosixPath(str(name)).name for name in rows[key]]
    split = FileSplit(
        [str(folder / name) for name in names],
        # The file counts from 1.
        rows["class"].astype(np.int64) - 1,
        np.stack([rows[c].astype(np.float32) for c in corners], axis=1),
    )
    check_files(split.paths, f"the annotations of {folder.name}")
    return split


def _cars_of_one_list(base):
    folder = _image_folder(base, "car_ims")
    if folder is None:
        return None
    annotations = _find(base, "cars_annos.mat")
    if annotations is None:
        raise FileNotFoundError(
            f"Expected cars_annos.mat, the list that goes with car_ims, in "
            f"{base} or its folders {some(DEVKIT_PLACES[1:])}. {CARS_SOURCE}."
        )
    rows = _annotations(annotations)
    is_test = rows["test"].astype(bool)
    return FileDataset(
        "cars",
        _cars_split(rows[~is_test], folder),
        _cars_split(rows[is_test], folder),
        _class_names(annotations),
    )


def _cars_of_folders(base):
    folders = [base / "train", base / "test"]
    if not all(folder.is_dir() for folder in folders):
        return None
    meta = _find(base, "cars_meta.mat")
    names = CARS196 if meta is None else _class_names(meta)
    images = [_images_of_classes(folder, names) for folder in folders]
    there = [name for name in names if any(name in part for part in images)]
    splits = [
        FileSplit(
            [path for name in there for path in part.get(name, ())],
            np.repeat(
                np.arange(len(there)), [len(part.get(n, ())) for n in there]
            ),
        )
        for part in images
    ]
    return FileDataset("cars", *splits, there)


def _images_of_classes(folder, names):
    """{class name: [path]} of the class folders in a folder."""
    official = {_spelling(name): name for name in names}
    found, unknown = {}, []
    for of_class in sorted(p for p in folder.iterdir() if p.is_dir()):
        name = official.get(_spelling(of_class.name))
        if name is None:
            unknown.append(of_class.name)
            continue
        found.setdefault(name, []).extend(
            str(path)
            for path in sorted(of_class.iterdir())
            if path.suffix.lower() in IMAGE_SUFFIXES
            # macOS leaves "._" files beside images.
            and not path.name.startswith(".")
        )
    if unknown:
        raise ValueError(
            f"Expected folders named like the {len(names)} classes of Stanford "
            f"Cars in {folder}. Received: {some(unknown)}. Rename or remove "
            "them."
        )
    return found


def _spelling(name):
    """The part of a class name that all its spellings share.

    A folder name cannot contain "C/V" as in "Ram C/V Cargo Van": folders have
    "C-V", "C_V" or "CV".
    """
    return re.sub(r"[^0-9a-z]", "", name.lower())
