"""Opens any data set by its name: in memory, in files, or from TFDS."""

import importlib.util
import pathlib
from dataclasses import replace

from crl_keras.experiments.data.adience import read_adience
from crl_keras.experiments.data.fine_grained import read_cars
from crl_keras.experiments.data.fine_grained import read_cub
from crl_keras.experiments.data.folders import splits_of_tree
from crl_keras.experiments.data.image_files import FileDataset
from crl_keras.experiments.data.image_files import FileSplit
from crl_keras.experiments.data.image_trees import list_images
from crl_keras.experiments.data.label_lists import read_label_list
from crl_keras.experiments.data.named import NAMES
from crl_keras.experiments.data.named import load_dataset
from crl_keras.experiments.data.streams import open_tfds

FILE_SETS = ("cub", "cars", "adience", "adience_faces")
FOLDS = {"adience": 5, "adience_faces": 5}
# Their classes have an order, so the size of a wrong prediction matters.
ORDINAL = ("adience", "adience_faces")
# Their names in TFDS, if TFDS has prepared them in the given folder.
TFDS_NAMES = {
    "cub": ("caltech_birds2011",),
    "cars": ("stanford_cars", "cars196"),
    "adience": ("adience/fold_{fold}",),
}
READERS = ("auto", "memory", "pillow", "simplejpeg", "tf.data")


def resolve_reader(name, resized, reader="auto"):
    """The reader of a data set's images: a name of READERS except "auto".

    Images in memory are decoded already; images of TFDS need TensorFlow.
    TensorFlow reads image files if it is installed, otherwise Pillow reads
    them. simplejpeg is faster, but the user has to ask for it.

    Args:
        name: str, name of the data set.
        resized: bool, whether images are resized to one size.
        reader: the reader that the user asks for.

    Raises:
        ValueError: if the reader cannot read that data set.

    >>> resolve_reader("digits", False), resolve_reader("tfds:cifar10", False)
    ('memory', 'tf.data')
    """
    kind = str(name).partition(":")[0]
    if name == "imagenet2012" or kind == "tfds":
        possible = ("tf.data",)
    elif name in FILE_SETS or kind == "csv" or (kind == "folder" and resized):
        possible = ("tf.data", "pillow", "simplejpeg")
        if importlib.util.find_spec("tensorflow") is None:
            possible = ("pillow", "simplejpeg", "tf.data")
    else:
        possible = ("memory",)
    if reader not in ("auto", *possible):
        raise ValueError(
            f"Expected a reader for {name}, one of: {', '.join(possible)}. "
            f"Received: {reader!r}."
        )
    return possible[0] if reader == "auto" else reader


def open_dataset(
    name,
    data_dir=None,
    fold=None,
    resized=False,
    skip_unreadable=False,
    reader="pillow",
    exif=True,
):
    """Opens a data set of any kind.

    Args:
        name: str. A name of `load_dataset`, which reads it into memory;
            `"cub"`, `"cars"`, `"adience"` (aligned faces) or
            `"adience_faces"`, whose images stay in their files;
            `"csv:FILE"`, a list of image files and their labels, see
            `label_lists`; `"imagenet2012"` or `"tfds:NAME"`, which TensorFlow
            streams.
        data_dir: path of a local copy; "cub", "cars" and "adience" need it.
            For "csv:FILE" it is the folder of the images, and None means the
            folder of the file. A folder of several copies has "svhn", "cub",
            "cars" or "adience" in a folder of this name. The path may also be
            the data folder of TFDS, if TFDS has prepared one of the last three.
        fold: int, the test fold, for "adience"; otherwise None.
        resized: bool, whether images are resized to one size when they are
            read: then the images of `"folder:PATH"` stay in their files too.
        skip_unreadable: bool, whether to leave out unreadable images, with one
            warning for all. False, the default, raises an error.
        reader: str, the reader of images that stay in their files:
            `"tf.data"` reads fewer formats than `"pillow"`, the default.
        exif: bool. True, the default, turns photos upright by their EXIF
            orientation; False reads them as they are stored. Images of TFDS
            are always read as they are stored.

    Returns a `Dataset`, a `FileDataset` or a `TfdsSet`.

    Raises:
        ValueError: if the name is unknown, the fold does not exist, or the
            data are not as expected.
        FileNotFoundError: if a path does not exist.
        OSError: if the data could not be downloaded.
        ImportError: if a package is missing; the message has the pip command.

    >>> open_dataset("digits").classes
    10
    """
    kind, _, path = str(name).partition(":")
    _check_fold(name, fold)
    if prepared := _prepared_by_tfds(name, data_dir, fold):
        return replace(open_tfds(f"tfds:{prepared}", data_dir), name=name)
    data_dir = _own_folder(name, data_dir)
    if name == "imagenet2012" or kind == "tfds":
        return open_tfds(name, data_dir)
    if name in FILE_SETS:
        if data_dir is None:
            raise ValueError(
                f"Expected the folder of {name}, which the program does not "
                "download. Received none: pass it with --data-dir (data_dir=)."
            )
        found = _read_files(name, data_dir, fold)
    elif kind == "csv":
        found = read_label_list(name, data_dir)
    elif kind == "folder" and resized:
        found = _folder_of_files(path)
    else:
        check_name(name)
        return load_dataset(name, data_dir, skip_unreadable, exif=exif)
    return found.checked(skip_unreadable, reader, exif)


def check_name(name):
    """Raises ValueError if `name` cannot name a data set."""
    kind, colon, rest = str(name).partition(":")
    if name in (*NAMES, *FILE_SETS, "imagenet2012"):
        return
    if kind in ("folder", "csv", "tfds") and rest:
        return
    hint = ""
    if not colon and pathlib.Path(name).expanduser().exists():
        hint = f". For the images of that path write folder:{name}"
        if str(name).lower().endswith((".csv", ".tsv")):
            hint = f". For a list of images write --labels {name} (csv:{name})"
    names = [n for n in NAMES if ":" not in n]
    names += [*FILE_SETS, "imagenet2012", "tfds:NAME", "csv:FILE"]
    raise ValueError(
        f"Expected a data set of {', '.join(names)} or folder:PATH. "
        f"Received: {name!r}{hint}"
    )


def _prepared_by_tfds(name, data_dir, fold):
    """TFDS's name of the set, or None if TFDS has not prepared it here."""
    for pattern in TFDS_NAMES.get(name, ()) if data_dir else ():
        tfds_name = pattern.format(fold=fold)
        root = pathlib.Path(data_dir).expanduser()
        if any((root / tfds_name).glob("*/dataset_info.json")):
            return tfds_name
        others = pattern.format(fold="*") + "/*/dataset_info.json"
        if fold is not None and any(root.glob(others)):
            raise FileNotFoundError(
                f"Expected {tfds_name} in {root}. TensorFlow Datasets has "
                "prepared another fold there. Prepare this fold too, or choose "
                "an existing one with --fold"
            )
    return None


def _own_folder(name, data_dir):
    """The folder of one set in a folder of several, or else `data_dir`."""
    if data_dir is None or name not in (*FILE_SETS, "svhn"):
        return data_dir
    name = name.removesuffix("_faces")
    own = pathlib.Path(data_dir).expanduser() / name
    return own if own.is_dir() else data_dir


def _check_fold(name, fold):
    folds = FOLDS.get(name)
    if folds is None and fold is not None:
        raise ValueError(
            f"Expected no fold for {name}, which has one test set. "
            f"Received: fold={fold}."
        )
    if folds is not None and fold not in range(folds):
        raise ValueError(
            f"Expected a fold of {name} from 0 to {folds - 1}. "
            f"Received: fold={fold}."
        )


def _read_files(name, data_dir, fold):
    if name == "cub":
        return read_cub(data_dir)
    if name == "cars":
        return read_cars(data_dir)
    faces = "faces" if name == "adience_faces" else "aligned"
    return read_adience(data_dir, fold, faces)


def _folder_of_files(path):
    """Class folders with images of any size, which stay in their files."""
    folder = pathlib.Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            "Expected a folder of class folders. Received: "
            f"{str(folder)!r}, which is no folder: to resize images, the "
            "program needs an unpacked folder."
        )
    tree = list_images(folder)
    splits, names, notes = splits_of_tree(tree, folder)
    made = {
        split: FileSplit(
            tuple(str(folder / tree.paths[i]) for i in rows), labels
        )
        for split, (rows, labels) in splits.items()
    }
    title = f"folder:{folder.name}"
    return FileDataset(title, class_names=names, notes=notes, **made)
