"""Trees of class folders, in folders and archives."""

import tarfile
import zipfile

import numpy as np
import pytest
from disk_layouts import write
from image_folders import flat_tree
from image_folders import levels
from image_folders import pack_zip
from image_folders import packed
from image_folders import png
from image_folders import read
from image_folders import split_tree

from crl_keras.experiments.data import sources

pytestmark = pytest.mark.once

KINDS = ["folder", "tar", "tar.gz", "tar.bz2", "tar.xz", "zip"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wrapped", ["", "one/two/"])
def test_every_container_gives_the_same_data(kind, wrapped, tmp_path):
    # Archived out of order, among things that are no images.
    files = dict(reversed(split_tree().items()))
    files |= {
        ".DS_Store": b"x",
        "train/a/.hidden.png": b"x",
        "train/.git/x.png": b"x",
        "__MACOSX/train/a/0.png": b"x",
        "train/a/notes.txt": b"x",
        "readme.md": b"x",
    }
    files = {wrapped + path: data for path, data in files.items()}
    data = read(packed(kind, tmp_path, files))
    assert data.name == "folder:set"
    assert data.class_names == ("a", "b")
    assert data.train.images.shape == (6, 3, 4, 1)
    assert levels(data.train) == [0, 1, 2, 23, 24, 25]
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert levels(data.test) == [100, 101, 122, 123]
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert data.held_out is None


@pytest.mark.parametrize("train", ["train", "Training"])
@pytest.mark.parametrize(
    "test", ["test", "testing", "val", "valid", "VALIDATION"]
)
def test_split_folders(train, test, tmp_path):
    data = read(write(tmp_path, split_tree(train, test)))
    assert (len(data.train), len(data.test)) == (6, 4)
    assert data.held_out is None


def test_validation_beside_a_test_is_held_out(tmp_path):
    write(tmp_path, split_tree())
    write(tmp_path / "val", {"a/1.png": png(7), "b/1.png": png(8)})
    data = read(tmp_path)
    assert levels(data.held_out) == [7, 8]
    assert levels(data.test) == [100, 101, 122, 123]


def test_without_split_folders_the_seed_draws_a_fifth(tmp_path):
    write(tmp_path, flat_tree("ab", 10))
    data = read(tmp_path)
    assert np.bincount(data.train.labels).tolist() == [8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    both = levels(data.train) + levels(data.test)
    assert sorted(both) == [*range(10), *range(20, 30)]
    assert read(tmp_path).fingerprint == data.fingerprint
    assert read(tmp_path, seed=1).fingerprint != data.fingerprint
    assert len(read(write(tmp_path, {"c/0.png": png(1), "c/1.png": png(2)}))
               .test) == 5  # fmt: skip
    write(tmp_path, {"d/0.png": png(1)})
    # Without a held-out part, too, the test needs one of each class.
    message = "at least two images.*'d'.*remove the class.$"
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    files = {f"{c}/{i}.png": png(i) for c in ("car", "train") for i in range(3)}
    files["train/more/9.png"] = png(9)
    assert read(write(tmp_path, files)).class_names == ("car", "train")


@pytest.mark.parametrize("suffix, format", [("gif", "GIF"), ("jfif", "JPEG")])
def test_images_of_rarer_names_are_not_left_out(suffix, format, tmp_path):
    files = {f"{k % 2}/{k}.png": png((k, 0, 0), "RGB") for k in range(9)}
    files["0/last." + suffix] = png((9, 0, 0), "RGB", format=format)
    write(tmp_path / "tree", files)
    for resized in (False, True):
        name = f"folder:{tmp_path / 'tree'}"
        data = sources.open_dataset(name, resized=resized)
        assert len(data.train) + len(data.test) == len(files)


def test_images_in_folders_below_their_class(tmp_path):
    write(tmp_path, flat_tree())
    write(tmp_path, {"a/more/deep/9.png": png(9)})
    data = read(tmp_path)
    assert data.classes == 2
    assert sum(np.bincount(data.train.labels)) + len(data.test) == 11


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "extra, removed, message",
    [
        ({"train/c/1.png": png(1)}, "", "same class folders.*in test for 'c'"),
        ({"loose.png": png(1)}, "", "folder of its class.*'loose.png'"),
        ({"extra/a/1.png": png(1)}, "", "'extra', 'test', 'train'"),
        ({"testing/a/1.png": png(1)}, "", "'test', 'testing', 'train'"),
        ({"docs/a.md": b""}, "test", "train and a test folder.*: 'train'"),
        ({}, "b", "at least two classes.*'a'"),
        ({"train/a/9.png": png(1, "L", (4, 4))}, "", "4x3 grey.*4x4 grey"),
        ({"train/a/9.png": png((1, 2, 3), "RGB")}, "", "grey.*4x3 colour"),
        ({"train/a/9.png": b"junk"}, "", "'train/a/9.png'.*Unidentified.*--sk"),
    ],
)
def test_bad_trees(kind, extra, removed, message, tmp_path):
    files = split_tree() | extra
    if removed:
        files = {p: f for p, f in files.items() if removed not in p.split("/")}
    with pytest.raises(ValueError, match=message) as caught:
        read(packed(kind, tmp_path, files))
    if "classes" not in message:
        assert "set" in str(caught.value)


def with_empty_folder(kind, tmp_path, empty):
    """A tree, packed, in which a folder has no image."""
    files = {p: f for p, f in split_tree().items() if empty not in p}
    folder = write(tmp_path / "set", files)
    (folder / empty).mkdir(exist_ok=True)
    if kind == "tar.gz":
        with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
            archive.add(folder, "set")
        return tmp_path / "set.tar.gz"
    if kind == "zip":
        path = pack_zip(tmp_path / "set.zip", files)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(empty + "/", b"")
        return path
    return folder


@pytest.mark.parametrize("kind", ["folder", "tar.gz", "zip"])
def test_a_class_without_images_in_one_split_is_an_error(kind, tmp_path):
    path = with_empty_folder(kind, tmp_path, "test/b")
    with pytest.raises(ValueError, match="test split.*'b'"):
        read(path)


@pytest.mark.parametrize("kind", ["folder", "tar.gz", "zip"])
@pytest.mark.parametrize("resized", [False, True])
def test_a_class_without_any_image_is_left_out(kind, resized, tmp_path):
    path = with_empty_folder(kind, tmp_path, "train/c")
    if kind != "folder" and resized:
        return  # Archives are read into memory alone.
    with pytest.warns(UserWarning, match="1 class folder .*left out: 'c'"):
        data = sources.open_dataset(
            f"folder:{path}", resized=resized, reader="pillow"
        )
    assert data.class_names == ("a", "b")
    # In both splits, and of class folders alone.
    folder = write(tmp_path / "flat", flat_tree())
    (folder / "c").mkdir()
    with pytest.warns(UserWarning, match="left out: 'c'"):
        assert read(folder).class_names == ("a", "b")


@pytest.mark.parametrize("resized", [False, True])
def test_what_serves_as_the_test_is_said(resized, tmp_path):
    def notes(name, *splits):
        write(
            tmp_path / name,
            {
                f"{split}/{c}/{i}.png": png(i)
                for split in splits
                for c in "ab"
                for i in range(2)
            },
        )
        path = tmp_path / name
        data = sources.open_dataset(f"folder:{path}", resized=resized)
        return " ".join(data.notes), data

    said, data = notes("two", "train", "val")
    assert "validation part serves as the test" in said
    assert len(data.test) == 4 and data.held_out is None
    said, data = notes("three", "train", "validation", "test")
    assert "validation part is held out" in said and len(data.held_out) == 4
    assert notes("plain", "train", "test")[0] == ""


@pytest.mark.parametrize("resized", [False, True])
def test_a_folder_without_images_is_an_error(resized, tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="images .*none that can be read"):
        sources.open_dataset(f"folder:{tmp_path}", resized=resized)


def test_an_empty_test_folder_is_no_reason_to_split_anew(tmp_path):
    write(tmp_path, {f"train/{p}": f for p, f in flat_tree().items()})
    assert len(read(tmp_path).test) == 2
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match="train and a test folder"):
        read(tmp_path)


def test_several_sets_are_not_taken_for_classes(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name, split_tree())
    with pytest.raises(ValueError, match="one data set.*'one/t"):
        read(tmp_path)


def test_paths_that_are_no_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.*does not exist"):
        read(tmp_path / "absent")
    (tmp_path / "file.txt").write_bytes(b"some text that is no archive")
    with pytest.raises(ValueError, match="a whole .tar.*file.txt"):
        read(tmp_path / "file.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"\.jpg.*received none|none that can"):
        read(tmp_path / "empty")
