"""read_adience on made-up files with the rows that the published ones have."""

import collections
import pathlib

import numpy as np
import pytest
from disk_layouts import AGES
from disk_layouts import adience_files
from disk_layouts import adience_row
from disk_layouts import fold_file
from disk_layouts import names_of
from disk_layouts import pack
from disk_layouts import write

from crl_keras.experiments.data import adience
from crl_keras.experiments.data.adience import AdienceDataset
from crl_keras.experiments.data.adience import clean_age
from crl_keras.experiments.data.adience import expected_counts
from crl_keras.experiments.data.adience import explain_counts
from crl_keras.experiments.data.adience import read_adience
from crl_keras.experiments.data.image_files import FileSplit
from crl_keras.experiments.data.image_files import IncompleteDataWarning

pytestmark = pytest.mark.once
NAMES = ("0-2", "4-6", "8-13", "15-20", "25-32", "38-43", "48-53", "60-100")

# Rows of each age in the five fold files of 2015, counted in the published
# files; the total in today's, which have no repeated row; the class.
ROWS = {
    "(0, 2)": ((960, 84, 840, 151, 484), 2488, 0),
    "(4, 6)": ((495, 483, 373, 238, 574), 2140, 1),
    "(8, 12)": ((213, 601, 475, 499, 344), 2124, 2),
    "(15, 20)": ((155, 525, 274, 473, 228), 1642, 3),
    "(25, 32)": ((1580, 635, 777, 898, 1060), 5004, 4),
    "(25, 23)": ((72, 0, 0, 0, 0), 0, 4),
    "(38, 43)": ((555, 469, 277, 494, 505), 2293, 5),
    "(48, 53)": ((219, 146, 120, 104, 241), 830, 6),
    "(60, 100)": ((139, 158, 203, 118, 257), 872, 7),
    "None": ((52, 37, 555, 47, 62), 748, None),
    "35": ((24, 116, 13, 105, 36), 293, None),
    "13": ((3, 165, 1, 0, 0), 168, None),
    "22": ((1, 137, 2, 9, 0), 149, None),
    "34": ((0, 0, 0, 105, 0), 105, None),
    "23": ((0, 42, 14, 40, 0), 96, None),
    "45": ((1, 75, 3, 3, 6), 88, None),
    "(27, 32)": ((0, 1, 0, 76, 0), 77, None),
    "55": ((6, 49, 5, 5, 12), 76, None),
    "36": ((5, 0, 0, 52, 0), 56, None),
    "(38, 42)": ((0, 21, 0, 29, 0), 46, None),
    "57": ((0, 0, 2, 5, 17), 24, None),
    "3": ((13, 0, 2, 3, 0), 18, None),
    "29": ((0, 0, 12, 0, 0), 11, None),
    "(38, 48)": ((1, 0, 0, 0, 5), 6, None),
    "58": ((2, 0, 0, 3, 0), 5, None),
    "2": ((0, 0, 3, 0, 0), 3, None),
    "32": ((0, 0, 0, 0, 3), 3, None),
    "56": ((0, 0, 2, 0, 0), 2, None),
    "(8, 23)": ((0, 1, 0, 0, 0), 1, None),
    "42": ((0, 0, 0, 1, 0), 1, None),
    "46": ((0, 0, 0, 1, 0), 1, None),
}
# Faces of each fold and class in today's files, counted with another program.
TABLE = np.array(
    [
        [960, 494, 213, 152, 1646, 554, 219, 139],
        [84, 480, 599, 525, 634, 468, 146, 156],
        [810, 358, 475, 270, 774, 276, 120, 202],
        [151, 238, 497, 468, 894, 493, 104, 118],
        [483, 570, 340, 227, 1056, 502, 241, 257],
    ]
)
TEST_SIZES = [4377, 3092, 3285, 2963, 3676]
TRAIN_SIZES = [13016, 14301, 14108, 14430, 13717]
FOLD_ROWS = [4496, 3745, 3953, 3459, 3834]


def repeats():
    """{(fold, age): rows of the old files that are there twice}."""
    left = {}
    for age, (rows, today, label) in ROWS.items():
        if age == "(25, 23)":
            continue
        over = sum(rows) - today
        for fold in range(5):
            if label is None:
                left[fold, age] = min(over, rows[fold] // 2)
                over -= left[fold, age]
            else:
                there = rows[fold] + (72 if (fold, label) == (0, 4) else 0)
                left[fold, age] = there - int(TABLE[fold, label])
    return left


def published(version):
    """{path: contents} of the five fold files, with made-up people."""
    twice = repeats()
    files = {}
    for fold in range(5):
        lines = []
        for age, (rows, _, _) in ROWS.items():
            again = twice.get((fold, age), 0)
            written = age
            if version == "today":
                written = "(25, 32)" if age == "(25, 23)" else age
            for i in range(rows[fold] - again):
                photo = f"{fold}_{age}_{i}_o.jpg"
                face = 10_000 * fold + i % 500
                user = f"{1000 * fold + i % 34}@N01"
                # A third has no gender, as babies often.
                gender = "fmu"[i % 3]
                row = adience_row(user, photo, face, written, gender)
                lines += [row] * (2 if version == "old" and i < again else 1)
        files[f"fold_{fold}_data.txt"] = fold_file(lines)
    return files


def counted(files, keep=lambda age: ROWS[age][2]):
    """What a reader counts that looks at no more than the ages."""
    counts = np.zeros((5, 8), int)
    for fold in range(5):
        for line in files[f"fold_{fold}_data.txt"].splitlines()[1:]:
            label = keep(line.split("\t")[3])
            if label is not None:
                counts[fold, label] += 1
    return counts


def tiny(*args, **kwargs):
    with pytest.warns(IncompleteDataWarning, match="a part of the data set"):
        return read_adience(*args, **kwargs)


# The rule


@pytest.mark.parametrize("raw", ROWS)
def test_each_age_that_the_files_have(raw):
    assert clean_age(raw) == ROWS[raw][2]
    assert clean_age(f" {raw} ") == ROWS[raw][2]


@pytest.mark.parametrize("raw", ["", "(0,2)", "(8, 13)", "0-2", "(25 23)"])
def test_an_age_that_they_do_not_have_is_none_of_the_groups(raw):
    assert clean_age(raw) is None


def test_these_are_the_rows_of_the_published_files():
    old, today = published("old"), published("today")
    sizes = [len(text.splitlines()) - 1 for text in old.values()]
    assert sizes == FOLD_ROWS and sum(sizes) == 19_487
    sizes = [len(text.splitlines()) - 1 for text in today.values()]
    assert sum(sizes) == 19_370
    ages = collections.Counter(
        line.split("\t")[3]
        for text in today.values()
        for line in text.splitlines()[1:]
    )
    assert ages == {age: n for age, (_, n, _) in ROWS.items() if n}


@pytest.mark.parametrize("version", ["old", "today"])
def test_both_versions_give_the_table(tmp_path, monkeypatch, version):
    write(tmp_path, published(version) | {"aligned/readme.txt": ""})
    # Missing images have tests of their own.
    monkeypatch.setattr(adience, "check_files", lambda *args: None)
    for fold in range(5):
        # A count that differs would warn, and a warning is an error here.
        data = read_adience(tmp_path, fold)
        assert data.name == f"adience/fold_{fold}"
        assert data.class_names == NAMES
        counts = np.bincount(data.test.labels, minlength=8)
        assert counts.tolist() == TABLE[fold].tolist()
        counts = np.bincount(data.train.labels, minlength=8)
        assert counts.tolist() == np.delete(TABLE, fold, 0).sum(0).tolist()
        assert len(data.test) == TEST_SIZES[fold]
        assert len(data.train) == TRAIN_SIZES[fold]
        assert len(data.test) + len(data.train) == 17_393


def test_the_table_is_given():
    assert expected_counts().tolist() == TABLE.tolist()
    assert expected_counts().sum() == 17_393
    expected_counts()[0, 0] = 0
    assert expected_counts()[0, 0] == 960
    docs = pathlib.Path(__file__).parents[3] / "docs" / "data.md"
    for text in (adience.__doc__, docs.read_text()):
        rows = [line.replace("|", " ").split() for line in text.splitlines()]
        rows = [row for row in rows if len(row) == 11 and row[0].isdigit()]
        assert [list(map(int, row)) for row in rows] == [
            [k, *TABLE[k].tolist(), TEST_SIZES[k], TRAIN_SIZES[k]]
            for k in range(5)
        ]


# What differs, and why


def test_other_rules_are_recognised():
    assert explain_counts(TABLE) is None
    old, today = published("old"), published("today")
    naive = counted(old)
    assert naive.sum(axis=1).tolist() == [4388, 3101, 3339, 2975, 3693]
    text = explain_counts(naive)
    assert "17,393 faces" in text and "Received 17,496" in text
    assert "the repeated rows of the old fold files were kept." in text

    def exact(age):
        return None if age == "(25, 23)" else ROWS[age][2]

    assert counted(old, exact).sum(axis=1)[0] == 4316
    text = explain_counts(counted(old, exact))
    assert "17,424" in text and "'(25, 23)' dropped, as in the lists" in text

    odd = {"(27, 32)": 4, "(38, 42)": 5, "(38, 48)": 5, "(8, 23)": 2}
    text = explain_counts(
        counted(today, lambda age: odd.get(age, ROWS[age][2]))
    )
    assert "17,523" in text and "odd ranges" in text

    inside = {"2": 0, "13": 2, "29": 4, "32": 4, "42": 5}
    inside |= {"(27, 32)": 4, "(38, 42)": 5}
    counts = counted(today, lambda age: inside.get(age, ROWS[age][2]))
    assert counts.sum() == 17_702
    assert "single ages within a group" in explain_counts(counts)


def test_differences_are_told():
    dropped = TABLE.copy()
    dropped[0, 4] -= 66
    text = explain_counts(dropped)
    assert "1580 instead of 1646 of 25-32 in fold 0: " not in text
    assert "1580 instead of 1646 of 25-32 in fold 0." in text
    assert "rows of age '(25, 23)' were dropped" in text
    part = TABLE.copy()
    part[:, 0] -= 1
    text = explain_counts(part)
    assert "959 instead of 960 of 0-2 in fold 0" in text
    assert "and 2 more" in text and "a part of the data set" in text
    part[1, 1] += 1
    assert "other fold files than the published" in explain_counts(part)
    with pytest.raises(ValueError, match=r"shape \(5, 8\).*\(8,\)"):
        explain_counts(TABLE[0])


# Reading


@pytest.mark.parametrize("folds", ["", "folds/"])
@pytest.mark.parametrize("inside", ["", "adience/"])
@pytest.mark.parametrize("faces", ["aligned", "faces"])
def test_each_place(tmp_path, folds, inside, faces):
    files = adience_files(folds, faces)
    write(tmp_path, {inside + name: data for name, data in files.items()})
    data = tiny(tmp_path, 2, faces)
    prefix = {
        "aligned": "landmark_aligned_face",
        "faces": "coarse_tilt_aligned_face",
    }[faces]
    assert names_of(data.test, 3)[:3] == [
        f"{faces}/102@N00/{prefix}.200.200_o.jpg",
        f"{faces}/102@N00/{prefix}.200.201_o.jpg",
        f"{faces}/102@N01/{prefix}.201.210_o.jpg",
    ]
    assert data.test.labels.tolist() == np.repeat(range(8), 2).tolist()
    assert len(data.train) == 64 and data.test.boxes is None
    users = {name.split("/")[0] for name in names_of(data.train)}
    assert users == {f"{100 + k}@N0{i}" for k in (0, 1, 3, 4) for i in (0, 1)}


@pytest.mark.parametrize("faces", ["aligned", "faces"])
def test_an_archive(tmp_path, faces):
    files = adience_files(faces=faces)
    images = {k: v for k, v in files.items() if k.startswith(faces)}
    write(tmp_path, {k: v for k, v in files.items() if k not in images})
    archive = pack(tmp_path / f"{faces}.tar.gz", images)
    data = tiny(archive, 0, faces)
    archive.unlink()
    assert tiny(tmp_path, 0, faces).fingerprint == data.fingerprint


def test_folds_differ_in_their_fingerprints(tmp_path):
    write(tmp_path, adience_files())
    assert len({tiny(tmp_path, k).fingerprint for k in range(5)}) == 5


def test_rows_that_repeat_count_once(tmp_path):
    files = adience_files()
    name = "fold_1_data.txt"
    head, *rows = files[name].splitlines()
    write(tmp_path, files)
    once = tiny(tmp_path, 1)
    text = "\r\n".join([head, *rows, rows[3], *rows[5:7], "", rows[0]])
    write(tmp_path, {name: "\ufeff" + text})
    again = tiny(tmp_path, 1)
    assert again.test.paths == once.test.paths
    assert again.fingerprint == once.fingerprint
    # The same image as another age is no repetition but a contradiction.
    other = rows[0].replace(AGES[0], AGES[1])
    assert other != rows[0]
    write(tmp_path, {name: files[name] + other})
    with (
        pytest.warns(IncompleteDataWarning),
        pytest.raises(ValueError, match="1 that occur again"),
    ):
        read_adience(tmp_path, 1)


@pytest.mark.parametrize("column", ["user_id", "face_id", "original_image"])
def test_folds_without_common_people(tmp_path, column):
    files = adience_files()
    row = ["new@N00", "new_o.jpg", "9999", "(0, 2)"]
    place = ["user_id", "original_image", "face_id"].index(column)
    row[place] = ["103@N01", "310_o.jpg", "301"][place]
    files["fold_1_data.txt"] += adience_row(*row) + "\n"
    write(tmp_path, files)
    with pytest.raises(ValueError, match=f"{column} {row[place]} in folds 1 a"):
        read_adience(tmp_path, 0)


def test_missing_images_are_named(tmp_path):
    files = adience_files()
    absent = [k for k in files if k.startswith("aligned") and ".102." in k]
    write(tmp_path, {k: v for k, v in files.items() if k not in absent})
    message = r"80 images .*fold files.*Missing: 2, '.*face\.102\."
    for fold in (0, 1):
        with (
            pytest.warns(IncompleteDataWarning),
            pytest.raises(FileNotFoundError, match=message),
        ):
            read_adience(tmp_path, fold)


@pytest.mark.parametrize(
    "remove, message",
    [
        ("fold_3_data.txt", r"Expected fold_3_data\.txt in .*each of the five"),
        ("aligned", r"the folder aligned or aligned\.tar\.gz in .*'fold_0"),
        ("fold", r"fold_0_data\.txt to .* Received 'aligned'.*talhassner"),
    ],
)
def test_what_is_missing_is_named(tmp_path, remove, message):
    files = adience_files()
    write(
        tmp_path, {k: v for k, v in files.items() if not k.startswith(remove)}
    )
    with pytest.raises(FileNotFoundError, match=message):
        read_adience(tmp_path, 0)


def test_where_nothing_is(tmp_path):
    with pytest.raises(FileNotFoundError, match="not exist.*who register"):
        read_adience(tmp_path / "absent", 0)
    with pytest.raises(FileNotFoundError, match="an empty folder"):
        read_adience(tmp_path, 0)


def people(count, groups=8, each=5):
    """Training faces of people who each have some age groups."""
    rows = [
        (f"/data/aligned/{p}@N00/face.{p}.{k}_{i}.jpg", k)
        for p in range(count)
        for k in {p % 8, (p + 3) % 8, *range(groups - 2)}
        for i in range(each + p % 3)
    ]
    paths, labels = zip(*rows, strict=True)
    test = [f"/data/aligned/test@N00/{k}.jpg" for k in range(8)]
    return AdienceDataset(
        "adience/fold_0",
        FileSplit(paths, np.array(labels)),
        FileSplit(test, np.arange(8)),
        NAMES,
    )


def users(split):
    return {pathlib.Path(path).parent.name for path in split.paths}


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_people_are_held_out_as_a_whole(fraction):
    data = people(40, groups=4)
    parts = data.with_held_out(fraction, seed=3)
    assert parts.name == data.name and parts.test is data.test
    assert not users(parts.train) & users(parts.held_out)
    both = sorted(parts.train.paths + parts.held_out.paths)
    assert both == sorted(data.train.paths)
    share = len(parts.held_out) / len(data.train)
    assert share == pytest.approx(fraction, abs=0.02)
    for split in (parts.train, parts.held_out):
        assert set(split.labels) == set(range(8))
        for path, label in zip(split.paths, split.labels, strict=True):
            assert f".{label}_" in path
    assert data.with_held_out(fraction, 3).fingerprint == parts.fingerprint
    assert data.with_held_out(fraction, 4).fingerprint != parts.fingerprint


def test_people_cannot_always_be_held_out():
    data = people(8, groups=2)
    assert data.with_held_out(0) is data
    for fraction in (0.1, 0.999):
        with pytest.raises(ValueError, match="none in 100 draws from 8 people"):
            data.with_held_out(fraction)
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        data.with_held_out(1.0)
    parts = people(40).with_held_out(0.2)
    with pytest.raises(ValueError, match="without a held-out part"):
        parts.with_held_out(0.2)


@pytest.mark.parametrize("fold", [-1, 5, True, 1.0, "0", None])
def test_an_unknown_fold(tmp_path, fold):
    with pytest.raises(ValueError, match="from 0 to 4. Received: fold="):
        read_adience(tmp_path, fold)


def test_unknown_faces(tmp_path):
    with pytest.raises(ValueError, match="'aligned', 'faces'.*'crops'"):
        read_adience(tmp_path, 0, "crops")


@pytest.mark.parametrize(
    "change, message",
    [
        (("user_id\t", "user\t"), "none named 'user_id'"),
        (("\t", ","), "separated by tabs.*'user_id'"),
        (("9\n102", "9\n102@N00\tphoto.jpg\n102"), r"12 col.*'102@N00\\tph"),
    ],
)
def test_a_damaged_fold_file(tmp_path, change, message):
    files = adience_files()
    name = "fold_2_data.txt"
    assert change[0] in files[name]
    write(tmp_path, files | {name: files[name].replace(*change)})
    with pytest.raises(ValueError, match=message):
        read_adience(tmp_path, 0)
