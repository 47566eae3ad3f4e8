"""CSV files of images and their labels, and how unequal classes are."""

import numpy as np
import pytest
from disk_layouts import write
from image_folders import png

from crl_keras.experiments.data import sources
from crl_keras.experiments.data.balance import class_counts
from crl_keras.experiments.data.balance import said_of_balance
from crl_keras.experiments.data.label_lists import list_name
from crl_keras.experiments.data.label_lists import read_label_list
from crl_keras.experiments.data.label_lists import split_list_name

pytestmark = pytest.mark.once


@pytest.fixture
def images(tmp_path):
    names = [f"sub/{i}.png" for i in range(10)]
    return write(tmp_path / "images", {name: png(5) for name in names})


def table(tmp_path, *lines, name="pets.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding=encoding)
    return path


def pets(count=10):
    return [f"sub/{i}.png,{'cat' if i % 2 else 'dog'}" for i in range(count)]


def opened(path, images, **columns):
    return read_label_list(list_name(path, **columns), images)


@pytest.mark.parametrize(
    "header", ["file,label", "Image,Species", "PATH,class"]
)
def test_columns_are_found_by_their_usual_names(header, tmp_path, images):
    data = opened(table(tmp_path, header, *pets()), images)
    assert data.class_names == ("cat", "dog") and data.name == "csv:pets.csv"
    both = data.train.paths + data.test.paths
    assert sorted(both) == [str(images / f"sub/{i}.png") for i in range(10)]
    for split in (data.train, data.test):
        for path, label in zip(split.paths, split.labels, strict=True):
            assert label == 1 - int(path[-5]) % 2
    # A fifth of each class, as of a folder.
    assert np.bincount(data.test.labels).tolist() == [1, 1]


def test_columns_can_be_named(tmp_path, images):
    lines = [f"{line},{i // 5},x" for i, line in enumerate(pets())]
    path = table(tmp_path, "photo id,species,size,label", *lines)
    data = opened(path, images, file="photo id", label="size")
    assert data.class_names == ("0", "1")
    with pytest.raises(ValueError, match="one column of file, .*--file-column"):
        opened(path, images)
    with pytest.raises(ValueError, match="label.*species.*--label-column"):
        opened(path, images, file="photo id")
    with pytest.raises(ValueError, match="column 'none'.*--label-column"):
        opened(path, images, file="photo id", label="none")


def test_a_split_column_is_kept(tmp_path, images):
    parts = ["train", "Train", "TRAIN", "train"] + ["val"] * 2
    parts += ["test"] * 2 + ["valid", "testing"]
    lines = [f"{line},{p}" for line, p in zip(pets(), parts, strict=True)]
    data = opened(table(tmp_path, "file,label,split", *lines), images)
    sizes = (len(data.train), len(data.held_out), len(data.test))
    assert sizes == (4, 3, 3) and "held out" in data.notes[0]
    lines = [line for line in lines if "test" not in line]
    data = opened(table(tmp_path, "file,label,split", *lines), images)
    assert (len(data.train), len(data.test)) == (4, 3)
    assert "serves as the test" in data.notes[0]


def test_the_fingerprint_follows_the_list_and_not_its_order(tmp_path, images):
    first = opened(table(tmp_path, "file,label", *pets()), images)
    again = opened(table(tmp_path, "file,label", *pets()[::-1]), images)
    assert first.fingerprint == again.fingerprint
    other = [pets()[0].replace("dog", "cat"), *pets()[1:]]
    other = opened(table(tmp_path, "file,label", *other), images)
    assert other.fingerprint != first.fingerprint


@pytest.mark.parametrize("form", [";", "\t", "bom", "quoted", "dots"])
def test_files_as_spreadsheets_write_them(form, tmp_path, images):
    lines = ["file,label", *pets(), ""]
    encoding = "utf-8"
    if form == "bom":
        encoding = "utf-8-sig"
    elif form == "quoted":
        lines = [", ".join(f'"{c}"' for c in s.split(",")) for s in lines[:-1]]
        lines = [line.replace('", "', '","') for line in lines]
    elif form == "dots":
        lines = [line.replace("sub/", "./sub/../sub/") for line in lines]
    else:
        lines = [line.replace(",", form) for line in lines]
    data = opened(table(tmp_path, *lines, encoding=encoding), images)
    plain = opened(table(tmp_path, "file,label", *pets()), images)
    assert data.fingerprint == plain.fingerprint


def test_numbers_are_in_the_order_of_numbers(tmp_path, images):
    lines = [f"sub/{i}.png,{(2, 10)[i % 2]}" for i in range(10)]
    data = opened(table(tmp_path, "file,target", *lines), images)
    assert data.class_names == ("2", "10")


@pytest.mark.parametrize(
    "lines, message",
    [
        ([], "column names.*empty"),
        (["file,label"], "lines with images.*none"),
        (["file,label", "sub/0.png"], "2 columns.*line 2"),
        (["file,label", "sub/0.png,"], "2 columns.*line 2"),
        (["file,label", *pets(), "sub/3.png,dog"], "once.*one label.*3.png'"),
        (["file,label", *pets(), "sub/0.png,cow"], "once.*sub/0.png'"),
        (["file,label", *pets(9), "sub/9.png,cow"], "two images.*one of 'cow'"),
        (["file,label,split", *(p + ",dev" for p in pets())], "'dev'.*10 li"),
        (["file,label,split", *(p + "," for p in pets())], "val or test.*''"),
        (["file,label,split", *(p + ",train" for p in pets())], "'train' al"),
        (
            ["file,label,set", *(p + ",train" for p in pets(9)),
             "sub/9.png,cat,test"],
            "the test split.*none of 'dog'",
        ),
        (["file,label", *(f"sub/{i}.png,cat" for i in range(9))], "two class"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_list_is_said(lines, message, tmp_path, images):
    with pytest.raises(ValueError, match=message):
        opened(table(tmp_path, *lines) if lines else empty(tmp_path), images)


def empty(tmp_path):
    path = tmp_path / "pets.csv"
    path.write_bytes(b"")
    return path


def test_missing_files_are_named(tmp_path, images):
    path = table(tmp_path, "file,label", *pets(), "sub/77.png,cat")
    with pytest.raises(FileNotFoundError, match=r"pets.csv.*: 1, '.*77\.png'"):
        opened(path, images)
    with pytest.raises(FileNotFoundError, match="absent'.*--images"):
        opened(path, tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="CSV file.*'.*none.csv'"):
        opened(tmp_path / "none.csv", images)
    path.write_bytes(b"file,label\nsub/0.png,\xff\xfe\n")
    with pytest.raises(ValueError, match="UTF-8"):
        opened(path, images)


def test_its_own_folder_is_the_default(tmp_path, images):
    data = opened(table(images, "file,label", *pets()), None)
    assert str(images) in data.train.paths[0]


@pytest.mark.parametrize(
    "path, columns",
    [("a b/c.csv", {}), ("x?.csv", {"file": "a&b"}), ("c", {"label": "é ?"})],
)
def test_names_and_columns_can_be_told_apart(path, columns):
    assert split_list_name(list_name(path, **columns)) == (path, columns)


def test_it_is_opened_by_its_name(tmp_path, images):
    path = table(tmp_path, "file,label", *pets())
    data = sources.open_dataset(f"csv:{path}", images, reader="pillow")
    assert data.kind == "files"
    assert sources.resolve_reader(f"csv:{path}", True) in ("pillow", "tf.data")
    write(images, {"sub/3.png": b"junk"})
    with pytest.raises(OSError, match="1 image that.*3.png"):
        sources.open_dataset(f"csv:{path}", images, reader="pillow")


@pytest.mark.parametrize(
    "name, hint", [("photos", "folder:"), ("list.csv", "--labels")]
)
def test_a_path_alone_is_no_data_set(name, hint, tmp_path):
    path = tmp_path / name
    path.mkdir() if name == "photos" else path.touch()
    with pytest.raises(ValueError, match=f"write {hint}.*{path}"):
        sources.open_dataset(str(path))
    with pytest.raises(ValueError, match="'absent'$"):
        sources.open_dataset("absent")


# Balance


def test_unequal_classes_are_said(tmp_path, images):
    lines = [f"sub/{i}.png,{'rare' if i < 2 else 'usual'}" for i in range(10)]
    data = opened(table(tmp_path, "file,label", *lines), images)
    counts = class_counts(data)
    assert counts.tolist() == [1, 6] and class_counts(data, "test").sum() == 3
    said = said_of_balance(counts, data.class_names)
    assert "1 to 6, median 3.5" in said and "6 times" in said
    assert said.endswith("rare (1) and usual (6).")


def test_the_rarest_of_many_classes_are_named():
    said = said_of_balance(np.arange(10, 40), [f"c{k}" for k in range(30)])
    assert "c0 (10), c1 (11) and c2 (12)" in said and "c3" not in said


def test_equal_classes_are_no_news():
    assert said_of_balance([10, 15, 12], "abc") is None
    assert said_of_balance([10, 16, 12], "abc")
