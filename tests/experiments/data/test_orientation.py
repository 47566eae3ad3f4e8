"""EXIF orientations 1 to 8, against Pillow's own exif_transpose."""

import io
import pathlib

import numpy as np
import pytest
from disk_layouts import write
from PIL import Image
from PIL import ImageOps

from crl_keras.experiments.data import image_trees
from crl_keras.experiments.data import orientation as orientations
from crl_keras.experiments.data import sources
from crl_keras.experiments.data.crops import Crop
from crl_keras.experiments.data.image_files import FileSplit
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.recipes import get_recipe

pytestmark = pytest.mark.once
EIGHT = range(1, 9)


def photo(turn=None, kind="JPEG", size=(45, 31), seed=0):
    """A file's bytes: no two corners alike, and smooth, so that JPEG is good.

    `turn` is its EXIF orientation, None for a file without the tag.
    """
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(0, 255, width)
    pixels[..., 1] = np.linspace(0, 200, height)[:, None]
    pixels[..., 2] = 20 * seed
    exif = Image.Exif()
    if turn is not None:
        exif[0x0112] = turn
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif)
    return file.getvalue()


def shown(data):
    """What Pillow's exif_transpose makes of a file."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def as_png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def with_tags(folder, turns, kinds=("a", "b"), suffix="jpg"):
    """Class folders with a photo for each orientation in turns."""
    return write(
        folder,
        {
            f"{name}/{i}.{suffix}": photo(turn, seed=k)
            for k, name in enumerate(kinds)
            for i, turn in enumerate(turns)
        },
    )


# Pixels, boxes and windows


@pytest.mark.parametrize("turn", EIGHT)
def test_pixels_are_turned_as_pillow_turns_them(turn):
    data = photo(turn, "PNG")
    stored = np.asarray(Image.open(io.BytesIO(data)))
    expected = shown(data)
    np.testing.assert_array_equal(orientations.upright(stored, turn), expected)
    tensor = orientations.upright_tensor(stored, np.int8(turn))
    np.testing.assert_array_equal(tensor.numpy(), expected)
    assert orientations.upright_size(31, 45, turn) == expected.shape[:2]
    with Image.open(io.BytesIO(data)) as image:
        assert orientations.orientation_of(image) == turn


@pytest.mark.parametrize("turn", EIGHT)
def test_boxes_and_windows_follow_the_pixels(turn):
    stored = np.arange(31 * 45).reshape(31, 45)
    turned = orientations.upright(stored, turn)
    x0, y0, x1, y1 = orientations.upright_box((3, 5, 20, 11), 31, 45, turn)
    np.testing.assert_array_equal(
        turned[y0:y1, x0:x1], orientations.upright(stored[5:11, 3:20], turn)
    )
    top, left, rows, columns = orientations.stored_window(
        (y0, x0, y1 - y0, x1 - x0), 31, 45, turn
    )
    assert (top, left, rows, columns) == (5, 3, 6, 17)


@pytest.mark.parametrize("turn", EIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("box", [None, (4.0, 2.0, 40.0, 29.0)])
def test_all_readers_see_what_is_shown(turn, kind, box, tmp_path):
    data = photo(turn, kind)
    path = write(tmp_path, {"image": data}) / "image"
    stored = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    if box is not None:
        stored = stored[2:29, 4:40]
    # The reference: the box of the stored pixels, turned, in a file of its own.
    upright = as_png(orientations.upright(stored, turn))
    if box is None and kind == "PNG":
        np.testing.assert_array_equal(shown(data), shown(upright))
    crop = Crop(8, "random", 1.3)
    # Pillow decodes a JPEG at half its size; a wrong turn is off by 100.
    close = 9 if kind == "JPEG" else 2
    for draws in (None, np.float32([0.9, 0.2, 0, 0])):
        expected = crop.read(upright, None, draws).astype(int)
        for applied in (turn, None):
            found = crop.read(path, box, draws, applied)
            assert np.abs(found - expected).max() <= close
            # It averages over areas, where Pillow interpolates.
            found = crop.read_jpeg(path, box, draws, applied)
            assert np.abs(found - expected).max() <= close + 5
        reference = write(tmp_path, {"upright": upright}) / "upright"
        expected = crop.tensorflow_file(str(reference), draws).numpy()
        found = crop.tensorflow_file(str(path), draws, box, np.int8(turn))
        assert np.abs(found.numpy() - expected.astype(int)).max() <= close


@pytest.mark.parametrize("turn", [3, 6])
def test_without_exif_pixels_are_read_as_stored(turn, tmp_path):
    tagged, plain = photo(turn), photo()
    crop = Crop(8)
    np.testing.assert_array_equal(
        crop.read(tagged, orientation=1), crop.read(plain)
    )
    assert (crop.read(tagged) != crop.read(plain)).any()
    write(tmp_path, {"tagged": tagged, "plain": plain})
    np.testing.assert_array_equal(
        *(
            crop.tensorflow_file(str(tmp_path / name)).numpy()
            for name in ("tagged", "plain")
        )
    )


def test_a_large_photo_decoded_small_is_turned_too():
    data = photo(6, size=(900, 640))
    found = Crop(32).read(data).astype(int)
    assert np.abs(found - Crop(32).read(as_png(shown(data)))).max() < 4


@pytest.mark.parametrize("tag", [0, 9, 700])
def test_a_tag_that_means_nothing_is_none(tag):
    with Image.open(io.BytesIO(photo(tag))) as image:
        assert orientations.orientation_of(image) == 1


def test_damaged_exif_does_not_spoil_the_pixels():
    file = io.BytesIO()
    image = Image.new("RGB", (8, 8), (200, 0, 0))
    image.save(file, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    with Image.open(io.BytesIO(file.getvalue())) as image:
        assert orientations.orientation_of(image) == 1


def test_tiff_is_turned_once(tmp_path):
    data = photo(6, "TIFF")
    expected = shown(data)
    assert expected.shape == (45, 31, 3)
    found = image_trees._decode(Image, data)
    np.testing.assert_array_equal(found, expected)
    crop = Crop(8, resize_ratio=1)
    found = crop.read(data).astype(int)
    assert np.abs(found - crop.read(as_png(expected))).max() <= 2


# Data sets


@pytest.mark.parametrize("turns", [[5, 3], [1, 1, 9]])
def test_what_is_no_orientation_is_refused(turns):
    with pytest.raises(ValueError, match="from 1 to 8 for each of 3"):
        FileSplit(["/a", "/b", "/c"], [0, 0, 1], None, turns)


def test_orientations_stay_with_their_images():
    split = FileSplit(["/a", "/b", "/c"], [0, 0, 1], None, [1, 6, 8])
    assert split.take(np.array([2, 0])).orientations.tolist() == [8, 1]
    assert split.orientations.dtype == np.int8
    assert split.take(np.array([0])).orientations is None


@pytest.mark.parametrize("reader", ["pillow", "simplejpeg", "tf.data"])
def test_the_fingerprint_tells_turned_images_apart(reader, tmp_path):
    def opened(turns, **options):
        name = "-".join(map(str, turns))
        folder = with_tags(tmp_path / name / "set", turns)
        return sources.open_dataset(
            f"folder:{folder}", resized=True, reader=reader, **options
        )

    tagged = opened([1, 6, 8])
    turns = dict(
        (pathlib.PurePath(path).name, turn)
        for split in (tagged.train, tagged.test)
        if split.orientations is not None
        for path, turn in zip(split.paths, split.orientations, strict=True)
    )
    expected = {"0.jpg": 1, "1.jpg": 6, "2.jpg": 8}
    assert turns.items() <= expected.items() and max(turns.values()) > 1
    stored = opened([1, 6, 8], exif=False)
    assert stored.train.orientations is None and not stored.notes
    upright = opened([None] * 3)
    # Without tags, and without --no-exif, all is as it ever was.
    assert upright.fingerprint == stored.fingerprint == "9774d75503e09564"
    assert opened([1] * 3).fingerprint == upright.fingerprint
    assert opened([None] * 3, exif=False).fingerprint == upright.fingerprint
    assert tagged.fingerprint != upright.fingerprint
    assert opened([1, 6, 7]).fingerprint != tagged.fingerprint
    assert not upright.notes
    assert "4 images of 6 will be turned" in tagged.notes[0]
    assert "--no-exif" in tagged.notes[0]


def test_images_in_memory_are_turned_too(tmp_path):
    def opened(turns, **options):
        folder = write(
            tmp_path / "-".join(map(str, turns)),
            {
                f"{name}/{i}.png": photo(turn, "PNG", (24, 24), k)
                for k, name in enumerate("ab")
                for i, turn in enumerate(turns)
            },
        )
        return sources.open_dataset(f"folder:{folder}", **options)

    turned = opened([6, 6])
    expected = shown(photo(6, "PNG", (24, 24)))
    np.testing.assert_array_equal(turned.train.images[0], expected)
    stored = opened([6, 6], exif=False)
    assert stored.fingerprint == opened([None, None]).fingerprint
    assert turned.fingerprint != stored.fingerprint


def test_an_archive_is_kept_turned_or_not(tmp_path, decodings, monkeypatch):
    from disk_layouts import pack

    monkeypatch.setattr(image_trees, "CACHE_AFTER_SECONDS", -1)
    files = {f"{c}/{i}.jpg": photo(6) for c in "ab" for i in range(2)}
    path = pack(tmp_path / "set.tar", files, "w")
    shapes = [
        image_trees.read_tree(pathlib.Path(path), exif=exif).images.shape
        for exif in (True, True, False, True)
    ]
    assert shapes == [(4, 45, 31, 3)] * 2 + [(4, 31, 45, 3), (4, 45, 31, 3)]
    assert len(decodings) == 3


@pytest.mark.parametrize("reader", ["pillow", "simplejpeg", "tf.data"])
def test_training_and_thumbnails_see_what_is_shown(reader, tmp_path):
    turns = [1, 3, 6, 8, 5]
    tagged = with_tags(tmp_path / "tagged" / "set", turns)
    files = {
        f"{name}/{i}.jpg": as_png(shown(photo(turn, seed=k)))
        for k, name in enumerate("ab")
        for i, turn in enumerate(turns)
    }
    # TensorFlow and Pillow look at a file's bytes, not at its ending.
    upright = write(tmp_path / "upright" / "set", files)
    recipe = get_recipe("finetune", image_size=8, batch_size=3, epochs=1)

    def feed(folder):
        name = f"folder:{folder}"
        data = sources.open_dataset(name, resized=True, reader=reader)
        return make_feed(data.with_held_out(0.25), recipe, 0, reader)

    found, expected = feed(tagged), feed(upright)
    for k in range(2):
        images, labels = found.training()[k]
        others, expected_labels = expected.training()[k]
        np.testing.assert_array_equal(labels, expected_labels)
        assert np.abs(images.astype(int) - others).max() <= 12
    difference = found.thumbnails().astype(int) - expected.thumbnails()
    assert np.abs(difference).max() <= 12
