"""Adience: faces in eight age groups, in five folds that share no people.

This rule, called exact8, says which rows of the fold files count. It is the
rule of the benchmark's authors, Levi and Hassner, without their mistakes:

1. rows that are identical in all columns count once;
2. the age "(25, 23)" is a mistake and counts as "(25, 32)";
3. a row counts if its age is exactly one of the eight groups; single ages and
   odd ranges, on which people disagree, do not count;
4. gender does not matter;
5. one fold is the test set, the other four are the training set.

There are two versions of the fold files: of 2015 with 19,487 rows, and of today
with 19,370 rows. With this rule both give the same 17,393 faces:

    fold  0-2  4-6 8-13 15-20 25-32 38-43 48-53 60-100   test  train
    0     960  494  213   152  1646   554   219    139   4377  13016
    1      84  480  599   525   634   468   146    156   3092  14301
    2     810  358  475   270   774   276   120    202   3285  14108
    3     151  238  497   468   894   493   104    118   2963  14430
    4     483  570  340   227  1056   502   241    257   3676  13717
    all  2488 2140 2124  1642  5004  2293   830    872  17393

The module imports only NumPy until a function needs more.
"""

import os
import pathlib
import warnings
from dataclasses import replace
from numbers import Integral
from typing import NamedTuple

import numpy as np

from crl_keras.experiments.data.archives import unpacked
from crl_keras.experiments.data.image_files import FileDataset
from crl_keras.experiments.data.image_files import FileSplit
from crl_keras.experiments.data.image_files import IncompleteDataWarning
from crl_keras.experiments.data.image_files import check_files
from crl_keras.experiments.data.image_files import what_is_in
from crl_keras.experiments.data.image_trees import some

AGE_GROUPS = (
    "0-2",
    "4-6",
    "8-13",
    "15-20",
    "25-32",
    "38-43",
    "48-53",
    "60-100",
)
# Ages as the files write them; they write the group 8-13 as "(8, 12)".
RAW_AGES = {
    "(0, 2)": 0,
    "(4, 6)": 1,
    "(8, 12)": 2,
    "(15, 20)": 3,
    "(25, 32)": 4,
    "(25, 23)": 4,
    "(38, 43)": 5,
    "(48, 53)": 6,
    "(60, 100)": 7,
}
FOLDS = 5
# Draws of people to hold out, before the program gives up.
DRAWS = 100
COUNTS = (
    (960, 494, 213, 152, 1646, 554, 219, 139),
    (84, 480, 599, 525, 634, 468, 146, 156),
    (810, 358, 475, 270, 774, 276, 120, 202),
    (151, 238, 497, 468, 894, 493, 104, 118),
    (483, 570, 340, 227, 1056, 502, 241, 257),
)
# Totals that other rules and readers give, and their causes.
CAUSES = {
    17496: "the repeated rows of the old fold files were kept",
    17424: (
        "the repeated rows of the old fold files were kept and rows of age "
        "'(25, 23)' dropped, as in the lists of Levi and Hassner"
    ),
    17702: "single ages within a group were counted too",
    17523: "odd ranges such as '(27, 32)' were counted too",
    18622: "every age was mapped to a group",
    16228: "faces without a gender were dropped",
    16258: (
        "faces without a gender were dropped, and the repeated rows of the old "
        "fold files kept"
    ),
}
PREFIXES = {
    "aligned": "landmark_aligned_face",
    "faces": "coarse_tilt_aligned_face",
}
SOURCE = (
    "Adience is available to people who register at "
    "talhassner.github.io/home/projects/Adience/Adience-data.html"
)


class _Row(NamedTuple):
    user_id: str
    original_image: str
    face_id: str
    age: str


class AdienceDataset(FileDataset):
    """Faces that can be split by person."""

    def with_held_out(self, fraction, seed=0):
        """Moves some people of the training split to `held_out`.

        All images of a `user_id` stay together. Drawing single images would
        put the same people in both parts, and a temperature fitted on faces
        that the model knows says little about other faces.

        Args:
            fraction: float in `[0, 1)`, the approximate share of the images;
                0 returns the data set itself.
            seed: int in `[0, 2**32)`, seed for drawing people; 0 by default.

        Raises:
            ValueError: if the fraction is out of range, the data set already
                has a held-out part, or no draw leaves every age group in both
                parts.
        """
        self.check_fraction(fraction)
        if fraction == 0:
            return self
        train = self.train
        folders = [pathlib.PurePath(path).parent.name for path in train.paths]
        _, person, images = np.unique(
            folders, return_inverse=True, return_counts=True
        )
        # NumPy never changes RandomState's stream: a seed draws the same people
        # in any version of NumPy.
        random = np.random.RandomState(seed)
        for _ in range(DRAWS):
            order = random.permutation(len(images))
            sizes = np.cumsum(images[order])
            nearest = np.argmin(np.abs(sizes - fraction * len(train)))
            held = np.isin(person, order[: nearest + 1])
            groups = [
                len(np.unique(train.labels[part])) for part in (held, ~held)
            ]
            if min(groups) == self.classes:
                return replace(
                    self,
                    train=train.take(np.flatnonzero(~held)),
                    held_out=train.take(np.flatnonzero(held)),
                )
        raise ValueError(
            f"Expected people of every age group in both parts at fraction "
            f"{fraction}. Received none in {DRAWS} draws from {len(images)} "
            "people. Choose a fraction closer to 0.5, or 0 (--held-out 0)."
        )


def read_adience(path, fold, faces="aligned"):
    """Reads one of the five splits of Adience.

    Args:
        path: the folder with fold_0_data.txt to fold_4_data.txt, directly or
            in `folds`, and with the folder of faces or its archive,
            aligned.tar.gz or faces.tar.gz; or the path of that archive. The
            archive is unpacked once, next to itself.
        fold: int in `[0, 5)`, the test fold; the others are for training.
        faces: str, `"aligned"`, the default, for the upright faces in
            `aligned`, or `"faces"` for those in `faces`.

    Returns an `AdienceDataset` with a name such as "adience/fold_0", the
    classes `AGE_GROUPS` and no boxes. The rule of this module selects the rows.

    Warns:
        IncompleteDataWarning: if the counts differ from `expected_counts`; the
            warning names the likely cause.

    Raises:
        FileNotFoundError: if a folder or file is missing; the message says
            what is expected and where to get it.
        ValueError: if the fold or the kind of faces is unknown, a file is not
            as expected, or a person, face or photo is in two folds.

    Source: Eidinger, Enbar and Hassner, IEEE TIFS 9 (2014), 2170-2179; Levi
    and Hassner, CVPR Workshops (2015), 34-42.
    """
    _check_fold(fold)
    if faces not in PREFIXES:
        raise ValueError(
            f"Expected faces as one of {some(list(PREFIXES))}. Received: "
            f"faces={faces!r}."
        )
    root = _root(pathlib.Path(path).expanduser().absolute())
    folds = [_fold_rows(root, k) for k in range(FOLDS)]
    _check_exclusive(folds)
    images = _image_folder(root, faces)
    splits = [_split(rows, images, PREFIXES[faces]) for rows in folds]
    counts = np.stack([_counts(split) for split in splits])
    explanation = explain_counts(counts)
    if explanation:
        warnings.warn(
            f"{root}: {explanation}", IncompleteDataWarning, stacklevel=2
        )
    others = [split for k, split in enumerate(splits) if k != fold]
    train = FileSplit(
        [path for split in others for path in split.paths],
        np.concatenate([split.labels for split in others]),
    )
    check_files(train.paths + splits[fold].paths, "the fold files' rows")
    return AdienceDataset(
        f"adience/fold_{fold}", train, splits[fold], AGE_GROUPS
    )


def clean_age(raw):
    """The class of an age string of the fold files, or None.

    Args:
        raw: str, such as `"(25, 32)"`, `"35"` or `"None"`; spaces around it
            do not matter.

    Returns an int in `[0, 8)`, a position in `AGE_GROUPS`, or None for an age
    that does not count: a single age, an odd range, or none.

    >>> [clean_age(raw) for raw in ("(0, 2)", "(8, 12)", "(25, 23)", "35")]
    [0, 2, 4, None]
    """
    return RAW_AGES.get(raw.strip())


def expected_counts():
    """Number of faces per fold and age group, by the rule of this module.

    Returns a new int array `[5, 8]`.

    >>> int(expected_counts().sum()), expected_counts()[0, :3].tolist()
    (17393, [960, 494, 213])
    """
    return np.array(COUNTS)


def explain_counts(counts):
    """Says what differs from `expected_counts`, and the likely cause.

    Args:
        counts: int `[5, 8]`, the number of faces per fold and age group that
            this module or another reader found.

    Returns a str, or None if nothing differs.

    Raises:
        ValueError: if the shape is wrong.

    >>> explain_counts(expected_counts())
    >>> kept = expected_counts()
    >>> kept[0, 4] += 103  # As if rows of fold 0 were kept twice.
    >>> explain_counts(kept).split(": ")[-1]
    'the repeated rows of the old fold files were kept.'
    """
    counts = np.asarray(counts)
    expected = expected_counts()
    if counts.shape != expected.shape:
        raise ValueError(
            f"Expected counts of shape {expected.shape}. Received: shape "
            f"{counts.shape}."
        )
    wrong = [
        f"{counts[k, c]} instead of {expected[k, c]} of {AGE_GROUPS[c]} in "
        f"fold {k}"
        for k, c in np.argwhere(counts != expected)
    ]
    if not wrong:
        return None
    total = int(counts.sum())
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return (
        f"Expected the {expected.sum():,} faces of Adience. Received "
        f"{total:,}: {', '.join(wrong[:3])}{more}. Likely cause: "
        f"{_cause(counts, expected, total)}."
    )


def _cause(counts, expected, total):
    if total in CAUSES:
        return CAUSES[total]
    lacking = expected - counts
    only_slip = np.zeros_like(lacking)
    only_slip[0, 4] = lacking[0, 4]
    # 72 rows of fold 0 have that age, including repeated rows.
    if 0 < lacking[0, 4] <= 72 and (lacking == only_slip).all():
        return "rows of age '(25, 23)' were dropped"
    if (lacking >= 0).all():
        return "the fold files or images are only a part of the data set"
    return "other fold files than the published ones, or another rule"


def _check_fold(fold):
    if (
        isinstance(fold, bool)
        or not isinstance(fold, Integral)
        or not 0 <= fold < FOLDS
    ):
        raise ValueError(
            f"Expected fold as an integer from 0 to {FOLDS - 1}. Received: "
            f"fold={fold!r}."
        )


def _root(path):
    if path.is_file():
        path = path.parent
    for folder in (path, path / "adience", path / "Adience"):
        if _fold_file(folder, 0) is not None:
            return folder
    raise FileNotFoundError(
        f"Expected fold_0_data.txt to fold_4_data.txt in {path} or its folder "
        f"'folds'. {what_is_in(path)} {SOURCE}."
    )


def _fold_file(root, fold):
    for place in (root, root / "folds"):
        path = place / f"fold_{fold}_data.txt"
        if path.is_file():
            return path
    return None


def _fold_rows(root, fold):
    """The distinct rows of a fold, in the order of the file."""
    path = _fold_file(root, fold)
    if path is None:
        raise FileNotFoundError(
            f"Expected fold_{fold}_data.txt in {root} or its folder 'folds': "
            f"each of the five is needed, for test or training. {SOURCE}."
        )
    head, *lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
    columns = head.split("\t")
    missing = [name for name in _Row._fields if name not in columns]
    if missing:
        raise ValueError(
            f"Expected columns separated by tabs in {path}. Received none "
            f"named {some(missing)} in {head!r}."
        )
    places = [columns.index(name) for name in _Row._fields]
    rows = []
    # A dict, unlike a set, keeps the order.
    for line in dict.fromkeys(filter(str.strip, lines)):
        values = line.split("\t")
        if len(values) < max(places) + 1:
            raise ValueError(
                f"Expected {len(columns)} columns in each row of {path}. "
                f"Received: {line!r}."
            )
        rows.append(_Row(*(values[place] for place in places)))
    return rows


def _check_exclusive(folds):
    for name in ("user_id", "face_id", "original_image"):
        first = {}
        for fold, rows in enumerate(folds):
            for value in {getattr(row, name) for row in rows}:
                if first.setdefault(value, fold) != fold:
                    raise ValueError(
                        "Expected no person, face or photo in two folds: the "
                        "test must not show people from training. Received "
                        f"{name} {value} in folds {first[value]} and {fold}. "
                        "Use the published fold files."
                    )


def _image_folder(root, faces):
    for folder in (root / faces / faces, root / faces):
        if folder.is_dir():
            return folder
    for suffix in (".tar.gz", ".tgz", ".tar"):
        archive = root / f"{faces}{suffix}"
        if archive.is_file():
            return unpacked(archive, faces)
    raise FileNotFoundError(
        f"Expected the folder {faces} or {faces}.tar.gz in {root}. Or choose "
        f"other faces with --faces (faces=): {some(list(PREFIXES))}. "
        f"{what_is_in(root)} {SOURCE}."
    )


def _split(rows, images, prefix):
    kept = [(row, clean_age(row.age)) for row in rows]
    kept = [(row, label) for row, label in kept if label is not None]
    folder = str(images)  # os.path is five times as fast as pathlib.
    return FileSplit(
        [
            os.path.join(
                folder,
                row.user_id,
                f"{prefix}.{row.face_id}.{row.original_image}",
            )
            for row, _ in kept
        ],
        np.array([label for _, label in kept], np.int32),
    )


def _counts(split):
    return np.bincount(split.labels, minlength=len(AGE_GROUPS))
