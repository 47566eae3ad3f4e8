"""Loads data sets that fit in memory, by name, and any folder of images.

`load_dataset` needs TensorFlow only for SVHN without local files. The module
imports only NumPy until a function needs more.
"""

import pathlib
import re

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.folders import SPLIT_OF_FOLDER
from crl_keras.experiments.data.folders import _layout
from crl_keras.experiments.data.folders import splits_of_layout
from crl_keras.experiments.data.image_trees import ARCHIVE_SUFFIXES
from crl_keras.experiments.data.image_trees import read_tree
from crl_keras.experiments.data.image_trees import some
from crl_keras.experiments.data.splits import Dataset
from crl_keras.experiments.data.splits import Split
from crl_keras.experiments.data.streams import require_tfds

DIGITS = tuple("0123456789")
CIFAR10 = tuple(
    "airplane automobile bird cat deer dog frog horse ship truck".split()
)
CIFAR100 = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl
    boy bridge bus butterfly camel can castle caterpillar cattle chair
    chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp
    lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
    mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
    rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf
    woman worm
    """.split()
)
CLASS_NAMES = {
    "mnist": DIGITS,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "svhn": DIGITS,
}
BUILT_IN = ("digits", "digits32")  # From scikit-learn: they need no files.
NAMES = (*BUILT_IN, *CLASS_NAMES, "folder:PATH")


def load_dataset(
    name, data_dir=None, skip_unreadable=False, seed=0, cache=True, exif=True
):
    """Loads a data set into memory.

    Args:
        name: str. `"digits"` (1,797 grey 8x8 digits from scikit-learn, a
            fixed stratified 75/25 split), `"digits32"` (the same, four times
            as large and in three channels, to try networks for CIFAR),
            `"mnist"`, `"cifar10"`, `"cifar100"`, `"svhn"` (train and extra
            for training), or `"folder:PATH"`: a folder, or a .tar, .tar.gz or
            .zip file of one, read without unpacking, with one folder of images
            per class. The class folders may lie in `train` and `test` folders
            (also `training`, `testing`). A folder `validation` or `val` is the
            test, or `held_out` if there is a test folder too. Without such
            folders a stratified 20 % becomes the test. All images must have
            the same size and be all grey or all colour.
        data_dir: path of a local copy, or of a folder that contains one; None,
            the default, downloads the data. For `mnist`, `cifar10`,
            `cifar100`: images in class folders as above, with train and test
            folders. A folder of several copies has names like `cifar10.tar.gz`
            or `cifar10/`. For `svhn`: the folder of `train_32x32.mat`,
            `extra_32x32.mat`, `test_32x32.mat`, or TFDS's data folder.
        skip_unreadable: bool, whether to skip unreadable or truncated images,
            with one warning for all. False, the default, raises an error.
        seed: int in `[0, 2**32)`, seed for drawing the test part if there is
            no test folder; 0 by default.
        cache: bool, whether to keep the decoded images of an archive that was
            slow to read. They are kept in the folder of the environment
            variable CRL_CACHE_DIR, by default `~/.cache/crl_keras`; True by
            default.
        exif: bool. True, the default, turns photos upright by their EXIF
            orientation; False reads them as they are stored.

    Returns a `Dataset`. JPEG images do not have exactly the pixels of a
    published set: then the name of the data set ends in " (JPEG)".

    Raises:
        ValueError: if the name is unknown or the data are not as expected.
        FileNotFoundError: if a path does not exist.
        OSError: if the data could not be downloaded.
        ImportError: if a package is missing; the message has the pip command.

    >>> digits = load_dataset("digits")
    >>> digits.train.images.shape, digits.test.images.shape
    ((1347, 8, 8, 1), (450, 8, 8, 1))
    >>> digits.classes, digits.input_shape
    (10, (8, 8, 1))
    """
    kind, _, path = str(name).partition(":")
    if kind == "folder" and path:
        return _folder(path, skip_unreadable, seed, cache, exif)
    if name == "digits":
        return _digits()
    if name == "digits32":
        return _enlarged(_digits())
    if name == "svhn":
        return _svhn(data_dir)
    if name in CLASS_NAMES and data_dir is not None:
        return _local_copy(name, data_dir, skip_unreadable, cache, exif)
    if name in CLASS_NAMES:
        return _downloaded(name)
    raise ValueError(
        f"Expected one of {', '.join(NAMES)} to read into memory. Received: "
        f"{name!r}."
    )


def _digits():
    sets = require("sklearn.datasets")
    selection = require("sklearn.model_selection")
    digits = sets.load_digits()
    # 0..16 to 0..255.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    train, test = selection.train_test_split(
        np.arange(len(images)),
        test_size=0.25,
        stratify=digits.target,
        random_state=0,
    )
    whole = Split(images, digits.target)
    return Dataset("digits", whole.take(train), whole.take(test), DIGITS)


def _enlarged(digits):
    """Digits of 32 x 32 pixels in three equal channels."""
    larger = np.ones((1, 4, 4, 3), np.uint8)
    train, test = (
        Split(np.kron(split.images, larger), split.labels)
        for split in (digits.train, digits.test)
    )
    return Dataset("digits32", train, test, DIGITS)


def _downloaded(name):
    sets = require("keras.datasets")
    try:
        pairs = getattr(sets, name).load_data()
    # Keras raises a bare Exception if it cannot download the data.
    except Exception as error:
        raise OSError(
            f"keras.datasets could not load {name} ({error}). To use a "
            "local copy, pass --data-dir PATH (data_dir=PATH): a folder or a "
            ".tar.gz of class folders in train and test folders."
        ) from error
    splits = (_channels_last(x, y) for x, y in pairs)
    return Dataset(name, *splits, CLASS_NAMES[name])


def _channels_last(images, labels):
    if images.ndim == 3:
        images = images[..., None]
    # The layout of keras.datasets follows Keras's image_data_format.
    if images.shape[-1] not in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels.reshape(-1))


def _local_copy(name, data_dir, skip_unreadable, cache, exif):
    path = _find_copy(name, pathlib.Path(data_dir).expanduser())
    tree = read_tree(path, skip_unreadable, cache, exif)
    layout = _layout(tree, path)
    expected = CLASS_NAMES[name]
    if set(layout.class_names) != set(expected):
        raise ValueError(
            f"Expected the classes of {name}, {some(expected)}, in {path}. "
            f"Received: {some(layout.class_names)}. Use "
            f"--dataset folder:{path}, or another --data-dir."
        )
    if set(layout.rows) == {"all"}:
        raise ValueError(
            f"Expected train and test folders for {name} in {path}. Received: "
            "only class folders, which do not say the published split. Use "
            f"--dataset folder:{path} for a split drawn from the seed."
        )
    lossy = any(p.lower().endswith((".jpg", ".jpeg")) for p in tree.paths)
    title = f"{name} (JPEG)" if lossy else name
    return _as_dataset(title, tree, layout, seed=0)


def _find_copy(name, data_dir):
    """The file or folder of the named set in the user's path."""
    if data_dir.is_file():
        return data_dir
    if not data_dir.is_dir():
        raise FileNotFoundError(
            f"Expected a local copy of {name}, a folder or an archive. "
            f"Received: data_dir={str(data_dir)!r}, which does not exist."
        )
    inside = sorted(data_dir.iterdir())
    if any(p.name.lower() in SPLIT_OF_FOLDER for p in inside if p.is_dir()):
        return data_dir
    # cifar10, CIFAR-10 and cifar_10, but not cifar100.
    spelled = "cifar[-_]?" + name[5:] if name.startswith("cifar") else name
    named = re.compile(spelled + r"(?![0-9a-z])", re.IGNORECASE)
    found = [p for p in inside if named.match(p.name) and _may_hold_images(p)]
    if len(found) == 1:
        return found[0]
    raise FileNotFoundError(
        f"Expected one copy of {name} in {data_dir}: {name}/ or {name}.tar.gz "
        f"with train and test folders. Received: "
        f"{some([p.name for p in found or inside]) or 'an empty folder'}. "
        "Pass the file itself with --data-dir."
    )


def _may_hold_images(path):
    return path.is_dir() or path.name.lower().endswith(ARCHIVE_SUFFIXES)


def _svhn(data_dir):
    if data_dir is None:
        return _svhn_from_tfds(None)
    folder = pathlib.Path(data_dir).expanduser()
    if (folder / "svhn_cropped").is_dir():
        return _svhn_from_tfds(folder)
    parts = ("train", "extra", "test")
    files = {part: folder / f"{part}_32x32.mat" for part in parts}
    missing = [p.name for p in files.values() if not p.is_file()]
    if missing:
        raise FileNotFoundError(
            "Expected train_32x32.mat, extra_32x32.mat and test_32x32.mat, or "
            f"TFDS's svhn_cropped folder, in {folder}. Missing: "
            f"{some(missing)}. The files are the cropped digits (format 2) "
            "of ufldl.stanford.edu/housenumbers."
        )
    train = _joined(_mat(files["train"]), _mat(files["extra"]))
    return Dataset("svhn", train, Split(*_mat(files["test"])), DIGITS)


def _mat(path):
    """Images and labels of an SVHN file, which has X `[32, 32, 3, N]`, y."""
    matlab = require("scipy.io")
    try:
        contents = matlab.loadmat(path)
        images = contents["X"].transpose(3, 0, 1, 2)
        labels = contents["y"].reshape(-1)
    except Exception as error:
        raise ValueError(
            f"Expected MATLAB arrays X of shape (32, 32, 3, N) and y in "
            f"{path}. Received: {error}. Fetch the file again."
        ) from error
    # The file stores the digit 0 as class 10.
    return images, np.where(labels == 10, 0, labels)


def _joined(*parts):
    images, labels = zip(*parts, strict=True)
    return Split(np.concatenate(images), np.concatenate(labels))


def _svhn_from_tfds(data_dir):
    tfds = require_tfds()
    try:
        parts = {
            part: tfds.as_numpy(
                tfds.load(
                    "svhn_cropped",
                    split=part,
                    data_dir=data_dir,
                    batch_size=-1,
                    as_supervised=True,
                )
            )
            for part in ("train", "extra", "test")
        }
    except Exception as error:
        raise OSError(
            f"TensorFlow Datasets could not load svhn_cropped ({error}). "
            "To use the three .mat files, pass --data-dir FOLDER."
        ) from error
    train = _joined(parts["train"], parts["extra"])
    return Dataset("svhn", train, Split(*parts["test"]), DIGITS)


def _folder(path, skip_unreadable, seed, cache, exif):
    path = pathlib.Path(path).expanduser()
    tree = read_tree(path, skip_unreadable, cache, exif)
    name = path.resolve().name
    for suffix in ARCHIVE_SUFFIXES:
        name = name.removesuffix(suffix)
    return _as_dataset(f"folder:{name}", tree, _layout(tree, path), seed)


def _as_dataset(name, tree, layout, seed):
    splits, notes = splits_of_layout(layout, seed)
    splits = {
        split: Split(tree.images[rows], labels)
        for split, (rows, labels) in splits.items()
    }
    return Dataset(name, class_names=layout.class_names, notes=notes, **splits)
