"""Images of a folder or an archive, as they lie there; the cache."""

import io
import os
import pathlib
import re
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from disk_layouts import pack
from disk_layouts import write
from image_folders import flat_tree
from image_folders import levels
from image_folders import pack_zip
from image_folders import packed
from image_folders import png
from image_folders import read
from image_folders import split_tree
from PIL import Image

from crl_keras.experiments import _optional
from crl_keras.experiments.data import image_trees

pytestmark = pytest.mark.once


# Unreadable images


def damaged_tree():
    whole = png(50, "L", (64, 64), "JPEG")
    files = {f"{c}/{i}.jpg": whole for c in "ab" for i in range(5)}
    return files | {"a/2.jpg": whole[: len(whole) // 2], "b/1.jpg": b""}


@pytest.mark.parametrize("kind", ["folder", "tar.gz", "zip"])
def test_unreadable_images_stop_or_are_skipped(kind, tmp_path):
    path = packed(kind, tmp_path, damaged_tree())
    with pytest.raises(ValueError, match=r"'a/2.jpg'.*(?i:trunc).*--skip-unr"):
        read(path)
    with pytest.warns(UserWarning, match="2 unread.*'a/2.jpg', 'b/1.jpg'") as w:
        data = read(path, skip_unreadable=True)
    assert len(w) == 1
    assert len(data.train) + len(data.test) == 8


def test_a_class_of_unreadable_images_is_named(tmp_path):
    path = write(tmp_path, split_tree() | {"test/c/1.png": b"x"})
    write(tmp_path, {"train/c/1.png": png(1)})
    with pytest.warns(UserWarning, match="1 unreadable"):
        with pytest.raises(ValueError, match="the test split.*none of 'c'"):
            read(path, skip_unreadable=True)


def test_links_that_lead_nowhere_and_pipes_are_unreadable(tmp_path):
    write(tmp_path, flat_tree())
    (tmp_path / "a" / "link.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    with pytest.raises(ValueError, match="'a/link.png'.*FileNotFound"):
        read(tmp_path)
    with pytest.warns(UserWarning, match="2 unread.*link.png.*pipe.png"):
        read(tmp_path, skip_unreadable=True)


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "store", flat_tree())
    (tmp_path / "set").mkdir()
    for name in "ab":
        (tmp_path / "set" / name).symlink_to(tmp_path / "store" / name)
    (tmp_path / "store" / "a" / "up").symlink_to(tmp_path / "store")
    data = read(tmp_path / "set")
    assert len(data.train) + len(data.test) == 10


def test_a_folder_that_cannot_be_listed_is_no_empty_folder(
    tmp_path, monkeypatch
):
    def walk(path, followlinks, onerror):
        onerror(PermissionError("no entry"))

    write(tmp_path, flat_tree())
    monkeypatch.setattr(image_trees.os, "walk", walk)
    with pytest.raises(PermissionError, match="no entry"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_an_archive_cut_short_is_an_error(kind, tmp_path):
    files = flat_tree()
    path = packed(kind, tmp_path, files)
    whole = path.read_bytes()
    # In the tar: within a header, where tarfile sees the end of the archive.
    cuts = [1024 * 7 + 100, 1024 * 7] if kind == "tar" else []
    for cut in [
        *cuts,
        len(whole) // 2,
        *([] if kind == "tar" else [len(whole) - 4]),
    ]:
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="whole.*set.*Fetch or pack"):
            read(path, skip_unreadable=True)


def test_a_damaged_member_of_a_zip_is_an_unreadable_image(tmp_path):
    path = pack_zip(tmp_path / "set.zip", flat_tree())
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("a/3.png")
    data[member.header_offset + 30 + 7 + 20] ^= 0xFF
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="1 unreadable.*'a/3.png'"):
        read(path, skip_unreadable=True)


def test_members_outside_and_links_are_ignored(tmp_path):
    outside = write(tmp_path, {"secret.png": png(99)}) / "secret.png"
    path = pack(
        tmp_path / "set.tar",
        {
            str(outside): png(98),
            "../c/1.png": png(97),
            "a/../../c/2.png": png(96),
            "C:/c/3.png": png(95),
        }
        | flat_tree(),
        "w:",
    )
    with tarfile.open(path, "a") as archive:
        for kind, target in (
            (tarfile.SYMTYPE, str(outside)),
            (tarfile.LNKTYPE, "a/1.png"),
        ):
            member = tarfile.TarInfo("a/link.png")
            member.type, member.linkname = kind, target
            archive.addfile(member)
        pipe = tarfile.TarInfo("a/pipe.png")
        pipe.type = tarfile.FIFOTYPE
        archive.addfile(pipe)
    before = sorted(tmp_path.rglob("*"))
    with pytest.warns(UserWarning, match="7 members ignored.*secret.png"):
        data = read(path)
    assert data.class_names == ("a", "b")
    both = levels(data.train) + levels(data.test)
    assert sorted(both) == [*range(5), *range(20, 25)]
    assert sorted(tmp_path.rglob("*")) == before

    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = 0o120777 << 16
    path = pack_zip(tmp_path / "set.zip", {link: b"/x.png"} | flat_tree())
    with pytest.warns(UserWarning, match="1 members ignored.*'a/link.png'"):
        assert read(path).fingerprint == data.fingerprint


def test_the_last_of_equal_members_counts(tmp_path):
    path = pack(tmp_path / "set.tar", split_tree(), "w:")
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("train/a/0.png")
        member.size = len(png(77))
        archive.addfile(member, io.BytesIO(png(77)))
    assert levels(read(path).train)[0] == 77


@pytest.mark.parametrize(
    "mode, color, expected",
    [
        ("1", 1, (255,)),
        ("L", 7, (7,)),
        ("LA", (7, 255), (7,)),
        ("P", 0, (0, 0, 0)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 255), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 254), "transparent"),
        ("LA", (7, 0), "transparent"),
        ("I;16", 1000, "mode I;16.*8 bits"),
        ("F", 0.5, "mode F"),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
    ],
)
def test_modes(mode, color, expected):
    format = {"CMYK": "TIFF", "F": "TIFF"}.get(mode, "PNG")
    data = png(color, mode, (2, 3), format)
    decoded = image_trees._decode(_optional.require("PIL.Image"), data)
    if isinstance(expected, str):
        assert re.search(expected, str(decoded))
    else:
        assert decoded.shape == (3, 2, len(expected))
        assert decoded.dtype == np.uint8
        assert (decoded == expected).all()


def test_one_transparent_pixel_is_enough():
    image = Image.new("RGBA", (2, 3), (1, 2, 3, 255))
    image.putpixel((1, 2), (1, 2, 3, 0))
    file = io.BytesIO()
    image.save(file, "PNG")
    pillow = _optional.require("PIL.Image")
    decoded = image_trees._decode(pillow, file.getvalue())
    assert "transparent" in str(decoded)


def test_decoding_keeps_the_order_and_reads_little_ahead(monkeypatch):
    monkeypatch.setattr(image_trees, "CHUNK", 2)
    monkeypatch.setattr(image_trees.os, "cpu_count", lambda: 3)
    taken = []

    def entries():
        for i in range(99):
            taken.append(i)
            yield str(i), png(i)

    decoded = image_trees._decode_all(entries())
    found = [next(decoded)]
    # Two chunks wait for each thread, and one is at hand.
    assert len(taken) == 2 * (2 * 3 + 1)
    found += decoded
    assert [name for name, _ in found] == [str(i) for i in range(99)]
    assert [int(image[0, 0, 0]) for _, image in found] == [*range(99)]


# Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", ["folder", "tar.gz", "zip"])
def test_a_bar_on_a_terminal_alone(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(image_trees, "BAR_AFTER_SECONDS", -1)
    monkeypatch.setenv("TERM", "xterm")
    path = packed(kind, tmp_path, split_tree())
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        read(path)
        assert (f"Reading {path.name}" in stream.getvalue()) == shown
        assert ("100%" in stream.getvalue()) == shown
    monkeypatch.setattr(image_trees, "BAR_AFTER_SECONDS", 60)
    monkeypatch.setattr(sys, "stderr", Terminal())
    read(path)
    assert not sys.stderr.getvalue()


# The cache


@pytest.fixture
def always_cache(monkeypatch):
    monkeypatch.setattr(image_trees, "CACHE_AFTER_SECONDS", -1)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_an_archive_is_decoded_once(
    kind, tmp_path, cache_dir, decodings, always_cache
):
    path = packed(kind, tmp_path, split_tree())
    data = read(path)
    assert read(path).fingerprint == data.fingerprint and len(decodings) == 1
    assert read(path, cache=False).fingerprint == data.fingerprint
    assert len(decodings) == 2
    (file,) = cache_dir.iterdir()
    # A changed archive is read anew, and its cache replaced.
    packed(kind, tmp_path, split_tree(classes="abc"))
    assert read(path).classes == 3 and read(path).classes == 3
    assert len(decodings) == 3 and list(cache_dir.iterdir()) == [file]


def test_an_archive_of_another_time_or_size_is_read_anew(
    tmp_path, decodings, always_cache
):
    path = pack(tmp_path / "set.tar", split_tree(), "w:")
    read(path)
    os.utime(path, ns=(1, 1))
    read(path)
    assert len(decodings) == 2
    # One copied over it may keep its time.
    pack(path, split_tree(classes="abcdefgh"), "w:")
    os.utime(path, ns=(1, 1))
    assert read(path).classes == 8


def test_quick_reading_and_folders_leave_no_cache(
    tmp_path, cache_dir, monkeypatch
):
    path = pack(tmp_path / "set.tar", split_tree(), "w:")
    read(path)
    monkeypatch.setattr(image_trees, "CACHE_AFTER_SECONDS", -1)
    read(write(tmp_path / "tree", split_tree()))
    assert not cache_dir.exists()


def test_a_tree_with_gaps_is_not_cached(tmp_path, cache_dir, always_cache):
    path = pack(tmp_path / "set.tar.gz", damaged_tree())
    with pytest.warns(UserWarning, match="2 unreadable"):
        read(path, skip_unreadable=True)
    assert not cache_dir.exists()
    with pytest.raises(ValueError, match="'a/2.jpg'"):
        read(path)


@pytest.mark.parametrize("damage", ["cut", "junk", "flipped", "empty"])
def test_a_corrupt_cache_is_rebuilt(damage, tmp_path, cache_dir, always_cache):
    path = pack(tmp_path / "set.tar.gz", split_tree())
    data = read(path)
    (file,) = cache_dir.iterdir()
    whole = file.read_bytes()
    middle = whole.index(b"\x93NUMPY", whole.index(b"images.npy")) + 150
    file.write_bytes(
        {
            "cut": whole[:-200],
            "junk": b"junk",
            "empty": b"",
            "flipped": whole[:middle] + b"\xaa" + whole[middle + 1 :],
        }[damage]
    )
    with pytest.warns(UserWarning, match="cannot be read.*decoded again"):
        assert read(path).fingerprint == data.fingerprint
    assert file.read_bytes() == whole
    assert read(path).fingerprint == data.fingerprint


def test_a_cache_that_cannot_be_written_is_noted(
    tmp_path, cache_dir, monkeypatch, always_cache
):
    path = pack(tmp_path / "set.tar.gz", split_tree())
    cache_dir.parent.mkdir(exist_ok=True)
    cache_dir.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot be kept.*CRL_CACHE_DIR"):
        assert len(read(path).train) == 6
    cache_dir.unlink()

    def savez(file, **arrays):
        file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(image_trees.np, "savez", savez)
    with pytest.warns(UserWarning, match="No space left"):
        read(path)
    assert list(cache_dir.iterdir()) == []


def test_the_cache_has_a_place_by_default(monkeypatch):
    monkeypatch.delenv("CRL_CACHE_DIR")
    home = pathlib.Path.home()
    assert image_trees._cache_dir() == home / ".cache" / "crl_keras"
