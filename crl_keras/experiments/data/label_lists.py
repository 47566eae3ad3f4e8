"""Reads lists of images and labels: a CSV file for a folder of images."""

import collections
import csv
import io
import os
import pathlib
import re
import urllib.parse

import numpy as np

from crl_keras.experiments.data.folders import SPLIT_OF_FOLDER
from crl_keras.experiments.data.folders import parts_of
from crl_keras.experiments.data.image_files import FileDataset
from crl_keras.experiments.data.image_files import FileSplit
from crl_keras.experiments.data.image_files import check_files
from crl_keras.experiments.data.image_trees import some
from crl_keras.experiments.data.splits import check_labels
from crl_keras.experiments.words import counted

# The usual names of the columns, compared in lower case.
COLUMNS = {
    "file": (
        *("file", "filename", "file_name", "filepath", "file_path"),
        *("image", "image_path", "path", "photo"),
    ),
    "label": ("label", "labels", "class", "class_name", "species", "target"),
    "split": ("split", "subset", "set", "partition"),
}
DELIMITERS = ",;\t"


def list_name(path, file=None, label=None):
    """The data set name of a list, "csv:PATH".

    If the caller gives columns, they are part of the name: another column
    makes another data set.

    >>> list_name("pets.csv"), list_name("pets.csv", label="breed")
    ('csv:pets.csv', 'csv:pets.csv?label=breed')
    """
    named = {"file": file, "label": label}
    named = {key: value for key, value in named.items() if value}
    query = f"?{urllib.parse.urlencode(named)}" if named else ""
    return f"csv:{path}{query}"


def split_list_name(name):
    """`(path, columns)` of a name that `list_name` made."""
    path, query = re.fullmatch(
        r"csv:(.*?)(?:\?((?:file|label)=.*))?", name, re.DOTALL
    ).groups()
    return path, dict(urllib.parse.parse_qsl(query or ""))


def read_label_list(name, images=None, seed=0):
    """Reads a list of images: a line of column names, then a line per image.

    Args:
        name: str, "csv:PATH" as `list_name` makes it. A column of file names
            or labels that it does not name is found by its usual names,
            COLUMNS. A column "split" may contain train, val or test. Columns
            are separated by commas, semicolons or tabs.
        images: path of the folder that file names are relative to; None, the
            default, is the folder of the list.
        seed: int, seed for drawing the test part, a stratified 20 %, if the
            list has no split column.

    Returns a `FileDataset`. Class names are the labels, sorted as numbers if
    all are whole numbers, otherwise alphabetically.

    Raises:
        FileNotFoundError: if the list or images are missing.
        ValueError: if the list is not as expected; the message says what to do.
    """
    path, columns = split_list_name(name)
    path = pathlib.Path(path).expanduser()
    # Sorted, because the order of the lines must not matter.
    rows = sorted(_rows(path, columns))
    folder = pathlib.Path(images).expanduser() if images else path.parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Expected the folder of the images that {path} lists. Received: "
            f"{str(folder)!r}, which is no folder. Pass it with --images "
            "(data_dir=)."
        )
    root = folder.resolve()
    files = [os.path.normpath(root / file) for file, _, _ in rows]
    _check_once(files, path)
    check_files(files, str(path))
    names = _class_names({label for _, label, _ in rows})
    position = {label: k for k, label in enumerate(names)}
    labels = np.array([position[label] for _, label, _ in rows])
    splits = collections.defaultdict(list)
    for i, (_, _, split) in enumerate(rows):
        splits[split].append(i)
    _check_splits(splits, path)
    splits = {s: (np.array(r), labels[r]) for s, r in splits.items()}
    for split, (_, of_split) in splits.items():
        check_labels(of_split, names, split)
    parts, notes = parts_of(splits, names, seed)
    made = {
        part: FileSplit([files[i] for i in chosen], of_part)
        for part, (chosen, of_part) in parts.items()
    }
    title = f"csv:{path.name}"
    return FileDataset(title, class_names=names, notes=notes, **made)


def _rows(path, named):
    """`(file, label, split)` of each line; "all" if there is no split."""
    header, lines = _lines(path)
    file, label = (
        _column(header, kind, named.get(kind), path)
        for kind in ("file", "label")
    )
    splits = [i for i, h in enumerate(header) if h.lower() in COLUMNS["split"]]
    split = splits[0] if splits and splits[0] not in (file, label) else None
    rows, unknown = [], collections.Counter()
    for number, line in lines:
        if len(line) != len(header) or not (line[file] and line[label]):
            raise ValueError(
                f"Expected {counted(len(header), 'column')} with a file name "
                f"and a label in each line of {path}. Received: {line} in line "
                f"{number}."
            )
        of_split = "all"
        if split is not None:
            of_split = SPLIT_OF_FOLDER.get(line[split].lower())
            unknown[line[split]] += of_split is None
        rows.append((line[file], line[label], of_split))
    if unknown := +unknown:
        raise ValueError(
            f"Expected train, val or test in the column {header[split]!r} of "
            f"{path}. Received: {some(sorted(unknown))}, in "
            f"{counted(sum(unknown.values()), 'line')}."
        )
    if not rows:
        raise ValueError(f"Expected lines with images in {path}. Received none")
    return rows


def _lines(path):
    """The column names, and `(number, cells)` of the lines below them."""
    if not path.is_file():
        raise FileNotFoundError(
            "Expected a CSV file of image files and labels. Received: "
            f"{str(path)!r}, which is no file."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Expected a CSV file in UTF-8. Received: {path} ({error}). Save "
            "it as UTF-8."
        ) from error
    first = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    lines = [
        (reader.line_num, [cell.strip() for cell in line])
        for line in reader
        if line
    ]
    if not lines:
        raise ValueError(
            f"Expected a line of column names in {path}. Received an empty file"
        )
    return lines[0][1], lines[1:]


def _column(header, kind, named, path):
    """The position of the column of file names or labels."""
    if named:
        found = [i for i, name in enumerate(header) if name == named]
        expected = f"one column {named!r}"
    else:
        usual = COLUMNS[kind]
        found = [i for i, h in enumerate(header) if h.lower() in usual]
        expected = f"one column of {', '.join(usual)}"
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"Expected {expected} in {path}. Received: {', '.join(header)}. Name "
        f"the column with --{kind}-column."
    )


def _check_once(files, path):
    counts = collections.Counter(files)
    twice = [file for file, count in counts.items() if count > 1]
    if twice:
        raise ValueError(
            f"Expected every image once in {path}: an image has one label. "
            f"Received more than once: {some(twice)}. Remove the extra lines."
        )


def _check_splits(splits, path):
    if set(splits) != {"all"} and ("train" not in splits or len(splits) < 2):
        raise ValueError(
            f"Expected train images and test or val images in {path}. "
            f"Received: {some(sorted(splits))} alone. Add the others, or "
            "remove the split column: then a test part is drawn."
        )


def _class_names(labels):
    numbers = all(re.fullmatch(r"-?\d+", label) for label in labels)
    if not numbers:
        return sorted(labels)
    # "01" and "1" are two names; this key always orders them the same way.
    return sorted(labels, key=lambda label: (int(label), label))
