"""The part of an image that is seen, by each of the readers."""

import io

import numpy as np
import pytest
from PIL import Image

from crl_keras.experiments.data.crops import Crop
from crl_keras.experiments.data.crops import decoded

pytestmark = pytest.mark.once


def ramp(height, width):
    """Red says the column, green the row, in 255ths of the image."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.rint(255 * (np.arange(width) + 0.5) / width)
    image[..., 1] = np.rint(255 * (np.arange(height) + 0.5) / height)[:, None]
    return image


def encoded(image, kind="JPEG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, quality=95)
    return file.getvalue()


def test_the_middle_of_the_resized_image():
    # 300 x 400 becomes 256 x 341.3, the middle 224 of it are 262.5 wide.
    crop = Crop(224)
    assert crop.window(300, 400) == (19.0, 69.0, 262.0, 262.0)
    squashed = Crop(448, resize_ratio=512 / 448, keep_aspect=False)
    assert squashed.window(512, 1024) == (32.0, 64.0, 448.0, 896.0)
    assert Crop(8, resize_ratio=1).window(6, 8) == (0.0, 1.0, 6.0, 6.0)


@pytest.mark.parametrize("kind", ["random", "random_resized"])
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_windows_lie_inside_and_everywhere(kind, keep_aspect):
    crop = Crop(10, kind, 1.25, keep_aspect)
    rng = np.random.default_rng(0)
    found = np.array(
        [crop.window(30, 47, draws) for draws in rng.random((4000, 4))]
    )
    top, left, rows, columns = found.T
    assert (found == np.rint(found)).all()
    assert top.min() == 0 and left.min() == 0
    assert (top + rows).max() == 30 and (left + columns).max() == 47
    assert rows.min() >= 1 and columns.min() >= 1
    if kind == "random":
        sizes = (24, 24) if keep_aspect else (24, 38)
        assert {*zip(rows, columns, strict=True)} == {sizes}
        # Every place alike: 7 rows to start at.
        counts = np.bincount(top.astype(int))
        assert len(counts) == 7 and counts.min() > 0.8 * 4000 / 7
    else:
        area = rows * columns / (30 * 47)
        assert area.min() < 0.1 and area.max() > 0.9
        # Uniform on [0.08, 1], but for what sticks out and is cut.
        assert 0.45 < area.mean() < 0.56
        skew = columns / rows
        whole = (rows < 30) & (columns < 47)
        assert skew[whole].min() > 0.7 and skew[whole].max() < 1.45


def test_a_draw_of_one_half_is_the_middle():
    for kind in ("random", "centre"):
        crop = Crop(10, kind)
        assert crop.window(33, 50, [0.5] * 4) == crop.window(33, 50)


def test_both_libraries_see_the_same_window():
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for kind in ("random", "random_resized"):
        crop = Crop(10, kind)
        for draws in rng.random((50, 4), np.float32):
            found = crop.window(
                tf.constant(120.0), tf.constant(99.0), tf.constant(draws), tf
            )
            expected = crop.window(120, 99, draws)
            # One may round 10.5 the other way.
            np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("box", [None, (30.4, 10.2, 170.5, 119.9)])
def test_pixels_are_those_of_the_window(tmp_path, kind, box):
    path = tmp_path / "image"
    path.write_bytes(encoded(ramp(120, 200), kind))
    crop = Crop(32, "random", 1.25)
    draws = np.float32([0.1, 0.9, 0, 0])
    x0, y0, x1, y1 = box and (30, 10, 171, 120) or (0, 0, 200, 120)
    top, left, rows, columns = crop.window(y1 - y0, x1 - x0, draws)
    centres = (np.arange(32) + 0.5) / 32
    red = 255 * (x0 + left + columns * centres) / 200
    green = 255 * (y0 + top + rows * centres) / 120
    found = {
        "pillow": crop.read(path, box, draws),
        "bytes": crop.read(path.read_bytes(), box, draws),
        "simplejpeg": crop.read_jpeg(path, box, draws),
        "tensorflow": crop.tensorflow_file(str(path), draws, box).numpy(),
    }
    for name, image in found.items():
        assert image.shape == (32, 32, 3) and image.dtype == np.uint8, name
        error = image[..., 0] - red, image[..., 1] - green[:, None]
        assert np.abs(error).max() < 6, name


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(ramp(900, 1300)))
    crop = Crop(32)
    small = crop.read(path).astype(float)
    whole = crop.read(encoded(ramp(900, 1300), "PNG"))
    assert np.abs(small - whole).max() < 4
    assert np.abs(crop.read_jpeg(path) - whole.astype(float)).max() < 4


@pytest.mark.parametrize("box", [None, (33.0, 21.0, 180.0, 117.0)])
def test_a_jpeg_decoded_in_part_has_the_pixels_of_the_whole(tmp_path, box):
    rng = np.random.default_rng(0)
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(rng.integers(0, 256, (150, 210, 3), np.uint8)))
    whole = decoded(path.read_bytes())
    for kind in ("random", "random_resized", "centre"):
        crop = Crop(32, kind)
        # The centre takes no notice of draws.
        count = 1 if kind == "centre" else 20
        for draws in rng.random((count, 4), np.float32):
            part = crop.tensorflow_file(str(path), draws, box).numpy()
            expected = crop.tensorflow(whole, draws, box).numpy()
            # The colour of the outer columns is blended with what is beside.
            np.testing.assert_array_equal(part[:, 1:-1], expected[:, 1:-1])
            assert np.abs(part.astype(int) - expected).max() < 48


def photograph(height, width):
    """Smooth, with a little noise, so that ways to interpolate matter less."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (9, 12, 3), np.uint8)
    large = Image.fromarray(coarse).resize((width, height))
    image = np.asarray(large, float) + rng.normal(0, 8, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [56, 224])
@pytest.mark.parametrize("box", [None, (33.0, 21.0, 180.0, 117.0)])
def test_simplejpeg_has_the_pixels_of_tensorflow(tmp_path, size, box):
    """And of Pillow, but for what those two differ in."""
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(photograph(150, 210)))
    rng = np.random.default_rng(0)
    for kind in ("random", "random_resized", "centre"):
        # Decoded whole, as TensorFlow does, so that they are to be equal.
        crop = Crop(size, kind, resize_ratio=1.1)
        for draws in rng.random((10, 4), np.float32):
            window = crop.window(96 if box else 150, 147 if box else 210, draws)
            if min(window[2:]) >= 2 * size:
                continue
            found = crop.read_jpeg(path, box, draws).astype(int)
            expected = crop.tensorflow_file(str(path), draws, box).numpy()
            # One may round the other way. Outer columns: see above.
            inner = slice(size // 28, -size // 28)
            assert np.abs(found - expected)[:, inner].max() <= 1
            pillow = crop.read(path, box, draws)
            assert np.abs(found - pillow).mean() < 4


def test_what_simplejpeg_does_not_know_is_left_to_pillow(tmp_path):
    files = {
        "png": encoded(ramp(20, 30), "PNG"),
        "gif": encoded(ramp(20, 30), "GIF"),
        "grey": encoded(ramp(20, 30)[..., 0], "PNG"),
    }
    file = io.BytesIO()
    Image.fromarray(ramp(20, 30)).convert("CMYK").save(file, "JPEG")
    files["cmyk"] = file.getvalue()
    for name, data in files.items():
        path = tmp_path / name
        path.write_bytes(data)
        np.testing.assert_array_equal(
            Crop(8).read_jpeg(path), Crop(8).read(path), name
        )
    path.write_bytes(files["png"][:60])
    with pytest.raises(OSError):
        Crop(8).read_jpeg(path)


def test_a_box_outside_of_its_image_leaves_a_pixel():
    crop = Crop(4)
    data = encoded(ramp(16, 16), "PNG")
    found = crop.read(data, (60, 27, 160, 80))
    # Pillow blends with the neighbours of what it enlarges.
    assert np.abs(found - ramp(16, 16)[-1, -1].astype(int)).max() < 12


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_grey_images_become_colour(tmp_path, kind):
    path = tmp_path / "grey"
    path.write_bytes(encoded(ramp(20, 20)[..., 0], kind))
    for image in (
        Crop(8).read(path),
        Crop(8).read_jpeg(path),
        Crop(8).tensorflow_file(str(path)).numpy(),
    ):
        assert image.shape == (8, 8, 3)
        assert (image == image[..., :1]).all() and image.std() > 10


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(image_size=0), "image_size as an integer"),
        (dict(image_size=1.5), "image_size=1.5"),
        (dict(resize_ratio=0.5), "resize_ratio=0.5"),
        (dict(kind="left"), "random_resized, centre.*'left'"),
    ],
)
def test_what_is_no_crop(wrong, message):
    with pytest.raises(ValueError, match=message):
        Crop(**{"image_size": 8, **wrong})


def test_16_bit_grey_keeps_its_upper_bits(tmp_path):
    ramp = np.linspace(0, 65535, 16 * 16).astype(np.uint16).reshape(16, 16)
    path = tmp_path / "grey.png"
    Image.fromarray(ramp).save(path)
    found = Crop(16, "centre", resize_ratio=1).read(path)
    np.testing.assert_array_equal(found[..., 0], ramp >> 8)
