"""CUB-200-2011 and Stanford Cars, read from where people have them.

`read_cub` and `read_cars` find the layouts in use, check that the images are
there, and return a `FileDataset` with the published splits and class ids. No
image is opened. Nothing but NumPy is imported before a function needs it.
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

# Training and test images of the full sets.
CUB_SIZES = (5994, 5794)
CARS_SIZES = (8144, 8041)

CUB_SOURCE = (
    "Caltech gives CUB_200_2011.tgz at data.caltech.edu/records/65de6-vp158"
)
CARS_SOURCE = (
    "The original page, ai.stanford.edu/~jkrause/cars/car_dataset.html, no "
    "longer serves the files. Kaggle has copies with their terms: "
    "rickyyyyyyy/torchvision-stanford-cars, and "
    "jessicali9530/stanford-cars-dataset, which lacks the test labels"
)
DEVKIT_PLACES = ("", "devkit", "car_devkit", "car_devkit/devkit")
TEST_LABELS = "cars_test_annos_withlabels.mat"


def read_cub(path):
    """CUB-200-2011: 200 species of birds, with a box around each bird.

    Args:
        path: the folder CUB_200_2011, one that holds it or CUB_200_2011.tgz,
            or that file, which is unpacked beside itself, once.

    Returns a `FileDataset` named "cub" with the official split: 5,994 images
    for training and 5,794 for the test. Class names are those of classes.txt
    without their numbers, such as "Black_footed_Albatross". Boxes are those of
    bounding_boxes.txt, as `x, y, x + width, y + height`, or None without it.

    Warns:
        IncompleteDataWarning: for other numbers of images.

    Raises:
        FileNotFoundError: for a folder or file that is not there; says what
            was looked for and where to get it.
        ValueError: for files that are not as expected.

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
        # Left, top, width, height there.
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
    """{id: values} of a file of lines `id value ...`."""
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
            # A name may have spaces where it is all there is.
            key, *values = line.strip().split(maxsplit=columns)
            if len(values) != columns or key in rows:
                raise ValueError
            rows[key] = tuple(kind(value) for value in values)
        except ValueError as error:
            raise ValueError(
                f"Expected an id that did not occur before and {columns} "
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
            f"Expected the ids of images.txt in {path}. Received others or "
            f"too few: {some(other)}. Unpack the archive again."
        )
    return np.array([rows[key] for key in images])


def _positions(ids, names, path):
    """Class ids as positions among those of classes.txt."""
    position = {int(name): k for k, name in enumerate(names)}
    unknown = sorted({int(i) for i in ids} - set(position))
    if unknown:
        raise ValueError(
            f"Expected class ids of classes.txt in {path}. Received: "
            f"{some(unknown)}."
        )
    return np.array([position[int(i)] for i in ids])


def read_cars(path):
    """Stanford Cars: 196 makes, models and years, with a box around each car.

    The class ids are those of the devkit's `class_names`, never the order of
    folders, which differs for 143 classes.

    Args:
        path: a folder with one of these, or that holds it in a folder
            `stanford_cars` (torchvision's), `car_data` or `car_data/car_data`:

            - `cars_train/` and `cars_test/`, perhaps each in a folder of its
              own name (a copy on Kaggle), or their .tgz archives, and, beside
              them or in `devkit`, `car_devkit` or `car_devkit/devkit`, the
              files cars_meta.mat, cars_train_annos.mat and
              cars_test_annos_withlabels.mat, or car_devkit.tgz;
            - `car_ims/` or car_ims.tgz, and cars_annos.mat;
            - `train/` and `test/` with a folder for each class.

            Or one of the archives. They are unpacked beside themselves, once.

    Returns a `FileDataset` named "cars" with the official split: 8,144 images
    for training and 8,041 for the test. Boxes are the numbers of the .mat
    files as they stand, or None for folders of classes. Of such folders the
    classes are those that there are, in the official order.

    Warns:
        IncompleteDataWarning: for other numbers of images.

    Raises:
        FileNotFoundError: for a folder or file that is not there; says what
            was looked for and where to get it.
        ValueError: for files that are not as expected, such as test
            annotations without labels.
        ImportError: without SciPy, but for folders of classes.

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
    """The folder of images, in a folder of its own name or unpacked now."""
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
            "cars_annos.mat is no substitute: its names are those of car_ims. "
            f"{CARS_SOURCE}."
        )
    return found


def _test_annotations(base):
    # Some have put the labelled file in the place of the other.
    found = _find(base, TEST_LABELS) or _find(base, "cars_test_annos.mat")
    if found and "class" in _annotations(found).dtype.names:
        return found
    received = f"{found}, which has boxes but no labels" if found else "none"
    raise FileNotFoundError(
        f"Expected the labels of the test images, {TEST_LABELS}, in {base} or "
        f"its folders {some(DEVKIT_PLACES[1:])}. Received {received}. Add the "
        "file: 185,758 bytes, sha256 790f75be... It lay beside the archives "
        "of the original data set and is in torchvision's layout of it."
    )


def _annotations(path):
    return _mat(path, "annotations")


def _class_names(path):
    return [str(name).strip() for name in _mat(path, "class_names")]


def _mat(path, variable):
    matlab = require("scipy.io")
    try:
        contents = matlab.loadmat(path, squeeze_me=True)
        # A single row loses its dimension.
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
        # From 1 there.
        rows["class"].astype(np.int64) - 1,
        np.stack([rows[c].astype(np.float32) for c in corners], axis=1),
    )
    check_files(split.paths, f"the annotations of {folder.name}")
    return split


def _cars_of_one_list(base):
    folder = _image_folder(base, "car_ims")
    if folder is None:
        return None
    annotations = _devkit_of_one_list(base)
    rows = _annotations(annotations)
    is_test = rows["test"].astype(bool)
    return FileDataset(
        "cars",
        _cars_split(rows[~is_test], folder),
        _cars_split(rows[is_test], folder),
        _class_names(annotations),
    )


def _devkit_of_one_list(base):
    found = _find(base, "cars_annos.mat")
    if found is None:
        raise FileNotFoundError(
            f"Expected cars_annos.mat, the list that goes with car_ims, in "
            f"{base} or its folders {some(DEVKIT_PLACES[1:])}. {CARS_SOURCE}."
        )
    return found


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
    """{class name: [path]} of the folders of classes in a folder."""
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
    """What all spellings of a name share.

    "Ram C/V Cargo Van" cannot name a folder: it is "C-V", "C_V" or "CV" there.
    """
    return re.sub(r"[^0-9a-z]", "", name.lower())
