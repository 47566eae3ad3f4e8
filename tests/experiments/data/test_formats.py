"""Images of kinds that are not read everywhere: HEIC, AVIF, raw photos."""

import io
import sys
import types

import numpy as np
import pytest
from disk_layouts import write
from image_folders import flat_tree
from image_folders import packed
from image_folders import png
from image_folders import read
from PIL import Image
from PIL import ImageOps

from crl_keras.experiments.data import formats
from crl_keras.experiments.data import image_trees
from crl_keras.experiments.data import sources
from crl_keras.experiments.data.crops import Crop

pytestmark = pytest.mark.once


@pytest.fixture
def plain_pillow(monkeypatch):
    """A Pillow that reads neither HEIC nor AVIF."""
    monkeypatch.setattr(
        image_trees, "image_suffixes", lambda: formats.IMAGE_SUFFIXES
    )
    monkeypatch.setattr(
        formats, "image_suffixes", lambda: formats.IMAGE_SUFFIXES
    )


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_what_is_not_read_is_counted_and_named(kind, tmp_path, plain_pillow):
    files = flat_tree() | {
        "a/1.HEIC": b"x",
        "a/2.heic": b"x",
        "b/3.avif": b"x",
        "b/4.CR2": b"x",
        "b/.5.heic": b"x",
        "b/notes.txt": b"x",
    }
    path = packed(kind, tmp_path, files)
    with pytest.warns(UserWarning) as caught:
        data = read(path)
    (message,) = (str(w.message) for w in caught)
    assert "4 images left out" in message and "2 .heic, 1 .avif" in message
    assert "'a/1.HEIC'" in message and ".5.heic" not in message
    assert "pip install pillow-heif" in message
    assert "pip install -U pillow" in message and "converted" in message
    assert len(data.train) + len(data.test) == 10
    if kind == "folder":
        with pytest.warns(UserWarning, match="4 images left out.*2 .heic"):
            sources.open_dataset(f"folder:{path}", resized=True)


def test_an_archive_with_gaps_is_not_kept(
    tmp_path, plain_pillow, cache_dir, monkeypatch
):
    monkeypatch.setattr(image_trees, "CACHE_AFTER_SECONDS", -1)
    path = packed("tar", tmp_path, flat_tree() | {"a/1.heic": b"x"})
    for _ in range(2):  # It would not be said the second time.
        with pytest.warns(UserWarning, match="1 images left out"):
            read(path)
    assert not cache_dir.exists()


def test_a_remedy_is_named_for_what_is_there_alone():
    assert "pillow-heif" not in formats.said_of_unread(["a.nef"])
    assert "converted" not in formats.said_of_unread(["a.heic"])


def test_an_opener_of_heic_is_registered(monkeypatch):
    calls = []
    heif = types.SimpleNamespace(register_heif_opener=lambda: calls.append(1))
    monkeypatch.setitem(sys.modules, "pillow_heif", heif)
    formats._register_heif.cache_clear()
    assert formats.image_opener() is Image
    formats.image_opener()
    assert calls == [1]
    formats._register_heif.cache_clear()


def encoded(kind, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    file = io.BytesIO()
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:10] = 250
    Image.fromarray(pixels).save(file, kind, exif=exif, quality=95)
    return file.getvalue()


@pytest.mark.parametrize("kind, suffix", [("AVIF", "avif"), ("HEIF", "heic")])
def test_what_pillow_reads_is_read_upright(kind, suffix, tmp_path):
    formats._register_heif.cache_clear()
    formats.image_suffixes.cache_clear()
    formats.image_opener()
    data = encoded(kind, 6)
    files = {f"{c}/{i}.{suffix}": data for c in "ab" for i in range(2)}
    folder = write(tmp_path / "set", files)
    found = sources.open_dataset(f"folder:{folder}", resized=True)
    assert len(found.train) + len(found.test) == 4
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    # Its upper half was white: of AVIF, turned clockwise, that is the right
    # one; pillow-heif drops the tag when it writes.
    assert kind == "HEIF" or expected[:, -3:].min() > 220
    turn = found.train.orientations
    turn = 1 if turn is None else turn[0]
    image = Crop(8, resize_ratio=1).read(found.train.paths[0], None, None, turn)
    shape = read(folder).input_shape
    assert shape == expected.shape
    corners = np.ix_([0, -1], [0, -1])
    np.testing.assert_allclose(image[corners], expected[corners], atol=20)
    with pytest.raises(OSError, match=r"TensorFlow does.*--reader pillow"):
        sources.open_dataset(f"folder:{folder}", resized=True, reader="tf.data")


def test_many_unreadable_images_are_named_at_once(tmp_path, cache_dir):
    files = {f"{c}/{i}.png": png(i) for c in "ab" for i in range(20)}
    files |= {f"b/{i}.png": b"junk" for i in range(13)}
    folder = write(tmp_path / "set", files)
    for resized, error in ((False, ValueError), (True, OSError)):
        with pytest.raises(error, match="13 images that cannot be") as caught:
            sources.open_dataset(f"folder:{folder}", resized=resized)
        message = str(caught.value)
        assert message.count("Unidentified") == 10 and "and 3 more" in message
        assert "--skip-unreadable" in message
        (listing,) = cache_dir.glob("unreadable-*.txt")
        assert str(listing) in message
        lines = listing.read_text().splitlines()
        assert len(lines) == 13 and all("b/" in line for line in lines)
        listing.unlink()


def test_few_unreadable_images_need_no_list(tmp_path, cache_dir):
    folder = write(tmp_path, flat_tree() | {"a/0.png": b"", "b/1.png": b"junk"})
    for resized, error in ((False, ValueError), (True, OSError)):
        with pytest.raises(error, match=r"2 images.*a/0\.png.*b/1\.png"):
            sources.open_dataset(f"folder:{folder}", resized=resized)
    assert not cache_dir.exists()
