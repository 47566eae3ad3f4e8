"""FileSplit, FileDataset, missing images, archives."""

import os
import pathlib
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
from disk_layouts import pack
from disk_layouts import write

from crl_keras.experiments.data import archives
from crl_keras.experiments.data import image_files
from crl_keras.experiments.data.archives import unpacked
from crl_keras.experiments.data.image_files import FileDataset
from crl_keras.experiments.data.image_files import FileSplit
from crl_keras.experiments.data.image_files import check_files

pytestmark = pytest.mark.once


def split(counts, root="/data/train", boxes=False, first=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    numbers = np.arange(first, first + len(labels))
    return FileSplit(
        [f"{root}/{k}/{i}.jpg" for i, k in zip(numbers, labels, strict=True)],
        labels,
        numbers[:, None] + np.arange(4) if boxes else None,
    )


def toy(counts=(6, 4), test=(2, 2), boxes=False, root="/data"):
    return FileDataset(
        "toy",
        split(counts, f"{root}/train", boxes),
        split(test, f"{root}/test", boxes),
        "ab",
    )


# FileSplit and FileDataset


def test_a_split_converts_and_takes():
    whole = FileSplit(
        [pathlib.Path("/a/0.jpg"), "/a/1.jpg", "/a/2.jpg"],
        np.array([2, 0, 1], np.uint8),
        [[0, 1, 2, 3]] * 3,
    )
    assert whole.paths == ("/a/0.jpg", "/a/1.jpg", "/a/2.jpg")
    assert whole.labels.dtype == np.int32 and whole.boxes.dtype == np.float32
    part = whole.take(np.array([2, 0]))
    assert len(part) == 2 and part.paths == ("/a/2.jpg", "/a/0.jpg")
    assert part.labels.tolist() == [1, 2] and part.boxes.shape == (2, 4)
    assert FileSplit(["/a/0.jpg"], [0]).take([0]).boxes is None


@pytest.mark.parametrize(
    "paths, labels, boxes, message",
    [
        (["/a"], [0, 1], None, "1 paths and 2 labels"),
        ([], np.zeros(0, int), None, "at least one"),
        (["/a", "b.jpg"], [0, 1], None, r"absolute paths.*'b\.jpg'"),
        (["/a"], [-1], None, "-1 at index 0"),
        (["/a"], [0.0], None, "integers.*float64"),
        (["/a"], [2**32], None, "4294967296 at index 0"),
        (["/a", "/b"], [0, 1], [[0, 0, 1, 1]], r"\(2, 4\).*\(1, 4\)"),
        (["/a"], [0], [[0, 0, 1]], r"\(1, 4\).*\(1, 3\)"),
        (["/a", "/b"], [0, 1], [[0] * 4, [0, 0, np.nan, 1]], "nan.*index 1"),
    ],
)
def test_a_split_refuses(paths, labels, boxes, message):
    with pytest.raises(ValueError, match=message):
        FileSplit(paths, labels, boxes)


def test_a_dataset_says_what_it_holds():
    data = toy()
    assert data.classes == 2 and data.class_names == ("a", "b")
    assert (len(data.train), len(data.test), data.held_out) == (10, 4, None)


@pytest.mark.parametrize(
    "parts, message",
    [
        ({"class_names": "a"}, "at least two classes"),
        ({"class_names": "aa"}, "different names"),
        ({"test": split((4, 0), "/data/test")}, "test split.*none of 'b'"),
        ({"train": split((4, 0))}, "train split.*none of 'b'"),
        ({"test": split((1, 1, 1), "/t")}, "labels from 0 to 1.*2 at index 2"),
        ({"held_out": split((9, 0), "/h")}, "held-out split.*none of 'b'"),
        ({"test": split((1, 9))}, r"5 that occur again.*0\.jpg' in train and "),
        ({"held_out": split((1, 9), "/data/test")}, "in test and held-out"),
        ({"test": split((1, 1), "/t", boxes=True)}, "boxes.*'train'"),
    ],
)
def test_a_dataset_refuses(parts, message):
    good = toy()
    arguments = {
        "train": good.train,
        "test": good.test,
        "class_names": "ab",
        **parts,
    }
    with pytest.raises(ValueError, match=message):
        FileDataset("toy", **arguments)


def test_an_image_twice_in_one_split_is_refused():
    twice = FileSplit(["/t/0.jpg", "/t/0.jpg"], [0, 1])
    with pytest.raises(ValueError, match="in train and train"):
        FileDataset("toy", twice, split((1, 1)), "ab")


def test_the_fingerprint_follows_the_lists_and_not_the_place():
    data = toy(boxes=True)
    assert len(data.fingerprint) == 16 and int(data.fingerprint, 16) >= 0
    moved = toy(boxes=True, root="/elsewhere/deeper")
    assert moved.fingerprint == data.fingerprint
    named = FileDataset("other", data.train, data.test, "ab")
    assert named.fingerprint == data.fingerprint
    boxes = data.test.boxes.copy()
    boxes[0, 3] += 1
    labels = data.test.labels.copy()
    labels[0] = 1
    paths = ("/data/test/0/other.jpg", *data.test.paths[1:])
    folder = ("/data/test/other/0.jpg", *data.test.paths[1:])
    test = data.test
    others = [
        toy(),
        data.with_held_out(0.3),
        FileDataset("toy", data.train, test, ("a", "c")),
        FileDataset("toy", test, data.train, "ab"),
        *(
            FileDataset("toy", data.train, changed, "ab")
            for changed in (
                FileSplit(test.paths, labels, test.boxes),
                FileSplit(test.paths, test.labels, boxes),
                FileSplit(paths, test.labels, test.boxes),
                FileSplit(folder, test.labels, test.boxes),
                test.take([1, 0, 2, 3]),
            )
        ),
    ]
    prints = {other.fingerprint for other in others}
    assert len(prints) == len(others) and data.fingerprint not in prints


def test_the_fingerprint_knows_where_a_split_ends():
    paths = [f"/data/{i}.jpg" for i in range(8)]
    whole = FileSplit(paths, np.arange(8) % 2)
    prints = {
        FileDataset(
            "toy",
            whole.take(np.arange(end)),
            whole.take(np.arange(end, 8)),
            "ab",
        ).fingerprint
        for end in (3, 4, 5)
    }
    assert len(prints) == 3


def test_hold_out_and_limit_keep_paths_labels_and_boxes_together():
    data = toy(counts=(60, 40), boxes=True)
    parts = data.with_held_out(0.1, seed=3)
    assert isinstance(parts, FileDataset) and parts.test is data.test
    assert np.bincount(parts.held_out.labels).tolist() == [6, 4]
    assert set(parts.train.paths) | set(parts.held_out.paths) == set(
        data.train.paths
    )
    assert data.with_held_out(0.1, seed=3).fingerprint == parts.fingerprint
    assert data.with_held_out(0.1, seed=4).fingerprint != parts.fingerprint
    small = parts.limited(train=10, test=2, seed=1)
    assert np.bincount(small.train.labels).tolist() == [6, 4]
    assert len(small.test) == 2 and small.held_out is parts.held_out
    for part in (parts.train, parts.held_out, small.train, small.test):
        for path, label, box in zip(
            part.paths, part.labels, part.boxes, strict=True
        ):
            _, folder, name = path.rsplit("/", 2)
            assert folder == str(label) and name == f"{int(box[0])}.jpg"


# Missing images


def test_missing_images_are_named_and_counted(tmp_path):
    write(tmp_path, {"a/1.jpg": "", "a/2.jpg": "", "b/1.jpg": ""})
    paths = [str(tmp_path / f"{k}/{i}.jpg") for k in "abc" for i in (1, 2)]
    check_files(paths[:3], "list.txt")
    with pytest.raises(
        FileNotFoundError, match=r"the 6 images that list.txt.*Missing: 3, '"
    ) as caught:
        check_files(paths, "list.txt")
    for path in paths[3:]:
        assert path in str(caught.value)
    assert paths[0] not in str(caught.value)


def test_each_folder_is_listed_once(tmp_path, monkeypatch):
    write(tmp_path, {f"{k}/{i}.jpg": "" for k in "ab" for i in range(50)})
    listed = []

    def listdir(folder, listdir=os.listdir):
        listed.append(folder)
        return listdir(folder)

    monkeypatch.setattr(image_files.os, "listdir", listdir)
    for name in ("stat", "lstat"):
        monkeypatch.delattr(image_files.os, name)
    check_files(
        [str(tmp_path / k / f"{i}.jpg") for i in range(50) for k in "ab"], "x"
    )
    assert sorted(listed) == [str(tmp_path / "a"), str(tmp_path / "b")]


# Archives

FILES = {"pets/a/1.jpg": "one", "pets/b/2.jpg": "two", "notes.txt": "more"}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_unpacked_beside_the_archive_and_only_once(tmp_path, mode):
    archive = pack(tmp_path / "pets.tgz", FILES, mode)
    folder = unpacked(archive, "pets")
    assert folder == tmp_path / "pets"
    assert (folder / "a/1.jpg").read_text() == "one"
    assert (folder / "b/2.jpg").read_text() == "two"
    visible = {p.name for p in tmp_path.iterdir() if p.name[0] != "."}
    assert visible == {"pets", "pets.tgz"}
    assert not (tmp_path / ".pets.unpacking").exists()
    (folder / "a/1.jpg").write_text("mine")
    archive.unlink()
    assert unpacked(archive, "pets") == folder
    assert (folder / "a/1.jpg").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["../evil.txt", "pets/../../evil.txt", "pets/a/../../../evil.txt"]
)
def test_nothing_lands_outside(tmp_path, name):
    archive = pack(tmp_path / "in/pets.tgz", FILES | {name: "evil"})
    with pytest.raises(ValueError, match="to stay in its folder.*evil"):
        unpacked(archive, "pets")
    assert not list(tmp_path.rglob("evil.txt"))
    assert not (tmp_path / "in/pets").exists()
    assert not (tmp_path / "in/.pets.unpacking").exists()


def test_an_absolute_name_lands_inside_or_nowhere(tmp_path):
    evil = tmp_path / "elsewhere/evil.txt"
    archive = pack(tmp_path / "in/pets.tgz", FILES | {str(evil): "evil"})
    unpacked(archive, "pets")
    assert not evil.exists() and not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_to_the_outside_are_refused(tmp_path, kind):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    archive = tmp_path / "in/pets.tgz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as members:
        member = tarfile.TarInfo("pets/link.jpg")
        member.type, member.linkname = kind, "../../../secret.txt"
        members.addfile(member)
    with pytest.raises(ValueError, match="to stay in its folder"):
        unpacked(archive, "pets")
    assert not (tmp_path / "in/pets").exists()


def test_a_killed_unpacking_leaves_nothing_that_looks_whole(tmp_path):
    archive = pack(tmp_path / "pets.tgz", FILES)
    code = """
import os, sys
from crl_keras.experiments.data import archives
extract = archives.tarfile.TarFile.extract
def killed(self, member, *args, **kwargs):
    extract(self, member, *args, **kwargs)
    if member.name == "pets/b/2.jpg":
        os._exit(9)
archives.tarfile.TarFile.extract = killed
archives.unpacked(sys.argv[1], "pets")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, archive],
        # No backend is needed.
        env=os.environ | {"CRL_KERAS_RECORDS_ONLY": "1"},
    )
    assert done.returncode == 9
    left = tmp_path / ".pets.unpacking"
    assert left.is_dir() and not (tmp_path / "pets").exists()
    write(left, {"pets/a/stale.jpg": "stale"})
    folder = unpacked(archive, "pets")
    assert sorted(p.name for p in folder.rglob("*.jpg")) == ["1.jpg", "2.jpg"]
    assert not left.exists()


def test_two_at_once_unpack_once(tmp_path, monkeypatch):
    archive = pack(tmp_path / "pets.tgz", FILES)
    extracted = []

    def slow(path, folder, extract=archives._extract):
        extracted.append(path)
        extract(path, folder)
        threading.Event().wait(0.2)

    monkeypatch.setattr(archives, "_extract", slow)
    threads = [
        threading.Thread(target=unpacked, args=(archive, "pets"))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert extracted == [archive]
    assert (tmp_path / "pets/a/1.jpg").read_text() == "one"


@pytest.mark.parametrize(
    "mode, share",
    # A .tar ends with zeros, which may be missing.
    [("w", 0), ("w", 0.5), ("w", 0.8)]
    + [("w:gz", share) for share in (0, 0.5, 0.9, 0.999)],
)
def test_a_part_of_an_archive_is_no_archive(tmp_path, mode, share):
    rng = np.random.default_rng(0)
    files = {f"pets/{i}.jpg": rng.bytes(2000) for i in range(20)}
    archive = pack(tmp_path / "pets.tgz", files, mode)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"a whole \.tar.*Fetch it again"):
        unpacked(archive, "pets")
    assert not (tmp_path / "pets").exists()


def test_an_archive_of_something_else(tmp_path):
    archive = pack(tmp_path / "pets.tgz", {"birds/1.jpg": "", "x/2.jpg": ""})
    with pytest.raises(ValueError, match="folder pets/.*'birds', 'x'"):
        unpacked(archive, "pets")
    assert not (tmp_path / ".pets.unpacking").exists()


@pytest.mark.parametrize(
    "step,error,words",
    [
        ((tarfile.TarFile, "extract"), OSError(28, "No space"), "No space"),
        ((pathlib.Path, "mkdir"), PermissionError(13, "No"), "it elsewhere"),
    ],
    ids=["a full disk", "a folder that cannot be written to"],
)
def test_the_disk_says_no(tmp_path, monkeypatch, step, error, words):
    archive = pack(tmp_path / "pets.tgz", FILES)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(*step, fail)
    with pytest.raises(type(error), match=words):
        unpacked(archive, "pets")
    assert not (tmp_path / ".pets.unpacking").exists()


def test_an_old_python_is_told(tmp_path, monkeypatch):
    archive = pack(tmp_path / "pets.tgz", FILES)
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(ImportError, match="3.11.4 or later"):
        unpacked(archive, "pets")
    assert not (tmp_path / "pets").exists()
