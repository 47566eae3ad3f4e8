"""Trees of class folders, with or without train and test folders."""

import warnings
from typing import NamedTuple

import numpy as np

from crl_keras.experiments.data.image_trees import some
from crl_keras.experiments.data.splits import check_labels
from crl_keras.experiments.data.splits import stratified_parts
from crl_keras.experiments.words import counted

# Without train and test folders, this share of the images becomes the test.
TEST_FRACTION = 0.2
SPLIT_OF_FOLDER = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
VALIDATION_IS_HELD_OUT = (
    "The validation part is held out of training; no other is drawn."
)
VALIDATION_IS_TEST = (
    "There is no test part: the validation part serves as the test."
)


class _Layout(NamedTuple):
    """The rows of a tree's images, as {split: {class name: [row]}}."""

    rows: dict
    class_names: list


def splits_of_tree(tree, path, seed=0):
    """The splits of a tree of class folders.

    Args:
        tree: `Tree`; its images may be None.
        path: path of the tree, for messages.
        seed: int, seed for drawing the test part if there is no test folder.

    Returns `(splits, class_names, notes)`: a dict from "train", "test" and
    maybe "held_out" to `(rows, labels)`, positions in `tree.paths` and int64
    labels; a tuple of str; and sentences for the user. A class without any
    image is left out, with a warning.

    Raises:
        ValueError: if the tree has another layout, or a class has images in
            one split but not in another.
    """
    layout = _layout(tree, path)
    splits, notes = splits_of_layout(layout, seed)
    return splits, tuple(layout.class_names), notes


def splits_of_layout(layout, seed):
    """`(splits, notes)` of a `_Layout`, as in `splits_of_tree`."""
    names = layout.class_names
    splits = {
        split: _labelled(rows, names, split)
        for split, rows in layout.rows.items()
    }
    return parts_of(splits, names, seed)


def parts_of(splits, names, seed):
    """Makes train, test and maybe held-out parts from the given splits.

    Args:
        splits: Dict to `(rows, labels)` from "all", or from the existing ones
            of "train", "test" and "validation".
        names: Class names.
        seed: Seed for drawing the test part of "all".

    Returns `(splits, notes)`: "train", "test" and maybe "held_out", and
    sentences for the user.
    """
    if "all" in splits:
        rows, labels = splits["all"]
        parts = stratified_parts(labels, TEST_FRACTION, names, seed)
        train, test = ((rows[part], labels[part]) for part in parts)
        return {"train": train, "test": test}, ()
    validation = splits.pop("validation", None)
    if "test" not in splits:
        return {**splits, "test": validation}, (VALIDATION_IS_TEST,)
    if validation is None:
        return splits, ()
    return {**splits, "held_out": validation}, (VALIDATION_IS_HELD_OUT,)


def _labelled(rows, class_names, where):
    counts = [len(rows[name]) for name in class_names]
    labels = np.repeat(np.arange(len(class_names)), counts)
    # Checked here too, not only in Dataset: a split may have no images.
    check_labels(labels, class_names, where)
    order = np.concatenate([rows[name] for name in class_names])
    return order.astype(int), labels


def _layout(tree, path):
    images = [p.split("/") for p in tree.paths]
    folders = [p.split("/") for p in tree.folders]
    depth = _wrapping_folders(images, folders)
    images = [parts[depth:] for parts in images]
    folders = [parts[depth:] for parts in folders if len(parts) > depth]
    loose = [tree.paths[i] for i, p in enumerate(images) if len(p) < 2]
    if loose:
        raise ValueError(
            f"Expected every image of {path} in the folder of its class. "
            f"Received: {some(loose)}. Move or remove them."
        )
    found = _found_splits(images, path)
    level = 1 if found else 0
    rows = {split: {} for split in set(found.values()) or ["all"]}
    for i, parts in enumerate([*images, *folders]):
        split = found.get(parts[0]) if found else "all"
        if split is None or len(parts) <= level:
            continue
        of_class = rows[split].setdefault(parts[level], [])
        if i < len(images):
            of_class.append(i)
    _leave_out_empty(rows, path)
    return _Layout(rows, _common_classes(rows, path))


def _leave_out_empty(rows, path):
    """Drops the classes without an image in any split, with a warning."""
    names = set().union(*rows.values())
    empty = sorted(
        name
        for name in names
        if not any(classes.get(name) for classes in rows.values())
    )
    for classes in rows.values():
        for name in empty:
            classes.pop(name, None)
    if empty:
        warnings.warn(
            f"{path}: {counted(len(empty), 'class folder')} without any image "
            f"left out: {some(empty)}.",
            stacklevel=2,
        )


def _wrapping_folders(images, folders):
    """How many outer folders contain only one folder with all the rest."""
    depth = 0
    while all(len(parts) > depth + 2 for parts in images):
        names = {p[depth] for p in [*images, *folders] if len(p) > depth}
        if len(names) > 1:
            break
        depth += 1
    return depth


def _found_splits(images, path):
    """{folder: split}, empty if the folders are the class folders."""
    nested = {parts[0] for parts in images if len(parts) > 2}
    flat = {parts[0] for parts in images if len(parts) == 2}
    # "train" may be a class (CIFAR-100 has it): then it has images directly.
    found = {
        name: SPLIT_OF_FOLDER[name.lower()]
        for name in sorted(nested - flat)
        if name.lower() in SPLIT_OF_FOLDER
    }
    if not found:
        _check_one_set(images, path)
        return found
    splits = list(found.values())
    others = sorted((nested | flat) - set(found))
    if (
        others
        or len(set(splits)) < len(splits)
        or "train" not in splits
        or len(splits) < 2
    ):
        raise ValueError(
            f"Expected a train and a test folder in {path}, perhaps also a "
            "validation folder. Received folders of images: "
            f"{some(sorted(nested | flat))}. Rename or remove folders."
        )
    return found


def _check_one_set(images, path):
    for parts in images:
        if len(parts) > 3 and parts[1].lower() in SPLIT_OF_FOLDER:
            raise ValueError(
                f"Expected one data set in {path}. Received train or test "
                f"folders inside its folders: {'/'.join(parts[:2])!r}. Choose "
                "one of these data sets."
            )


def _common_classes(rows, path):
    """Sorted class names; an error if the splits have different classes."""
    names = sorted(set().union(*rows.values()))
    for split, classes in rows.items():
        missing = [name for name in names if name not in classes]
        if missing:
            raise ValueError(
                f"Expected the same class folders in every split of {path}. "
                f"Received no folder in {split} for {some(missing)}. Add or "
                "remove the class."
            )
    return names
