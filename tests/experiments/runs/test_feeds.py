"""What training reads: of one seed the same, from memory and from files."""

import io
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from crl_keras.experiments.data.image_files import FileDataset
from crl_keras.experiments.data.image_files import FileSplit
from crl_keras.experiments.data.named import load_dataset
from crl_keras.experiments.runs import feeds
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.recipes import get_recipe

once = pytest.mark.once
CLASSES = ("a", "b", "c")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images whose red says which they are, green ramps over the columns."""
    folder = tmp_path_factory.mktemp("files")

    def split(name, count):
        paths = []
        for i in range(count):
            image = np.zeros((20 + i, 30, 3), np.uint8)
            image[..., 0] = 10 * i
            image[..., 1] = np.arange(30) * 8
            paths.append(str(folder / f"{name}{i}.png"))
            Image.fromarray(image).save(paths[-1])
        boxes = np.tile(np.float32([0, 0, 15, 20]), (count, 1))
        return FileSplit(tuple(paths), np.arange(count) % 3, boxes)

    return FileDataset("made", split("train", 13), split("test", 7), CLASSES)


def recipe(**changes):
    small = dict(image_size=8, batch_size=5, scaling="unit")
    return get_recipe("finetune", **{**small, **changes})


def epochs(batches, count=1):
    """What `fit` would see: a list of (images, labels) for each epoch."""
    found = []
    for _ in range(count):
        found.append([batches[i] for i in range(len(batches))])
        batches.on_epoch_end()
    return found


def assert_same(a, b):
    for (x, y), (u, v) in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, u)
        np.testing.assert_array_equal(y, v)


def reds(batches):
    return [int(i[0, 0, 0]) // 10 for x, _ in batches for i in x]


@pytest.mark.parametrize(
    "reader", ["memory", "pillow", "simplejpeg", "tf.data"]
)
def test_an_epoch_depends_on_seed_and_number_alone(files, reader):
    data, small = files, recipe()
    if reader == "memory":
        data, small = load_dataset("digits"), get_recipe("digits")
    feed = make_feed(data, small, seed=1, reader=reader)
    first, second = epochs(feed.training(), 2)
    assert [len(x) for x, _ in first[:-1]] == [feed.step_size] * (
        feed.steps - 1
    )
    assert sum(len(x) for x, _ in first) == feed.size("train")
    # From the middle, as a run that is resumed; asked for twice, as Keras
    # asks for the first batches on TensorFlow.
    resumed = make_feed(data, small, seed=1, reader=reader).training(1)
    resumed[0], resumed[1]
    assert_same(epochs(resumed)[0], second)
    other = make_feed(data, small, seed=2, reader=reader).training()
    labels = [np.concatenate([y for _, y in e]) for e in (first, second)]
    assert not np.array_equal(*labels)
    assert not np.array_equal(
        np.concatenate([y for _, y in epochs(other)[0]]), labels[0]
    )


@once
@pytest.mark.parametrize("other", ["pillow", "simplejpeg"])
def test_all_readers_give_the_same_images(files, other):
    for crop in ("random", "random_resized"):
        small = recipe(crop=crop)
        pillow, tensorflow = (
            make_feed(files, small, seed=3, reader=reader)
            for reader in (other, "tf.data")
        )
        for split in ("train", "test"):
            for a, b in zip(
                [*pillow.ordered(split)],
                [*tensorflow.ordered(split)],
                strict=True,
            ):
                np.testing.assert_array_equal(a[1], b[1])
                assert np.abs(a[0].astype(int) - b[0]).max() < 12
        (a,), (b,) = epochs(pillow.training()), epochs(tensorflow.training())
        assert reds(a) == reds(b) and sorted(reds(a)) == [*range(13)]
        for (x, y), (u, v) in zip(a, b, strict=True):
            np.testing.assert_array_equal(y, v)
            assert np.abs(x.astype(int) - u).mean() < 4
    with_box = files
    without = files.cut_to_boxes(False)
    assert without.fingerprint != with_box.fingerprint
    for reader in (other, "tf.data"):
        (images, _), *_ = make_feed(with_box, recipe(), 0, reader).ordered(
            "test"
        )
        (whole, _), *_ = make_feed(without, recipe(), 0, reader).ordered("test")
        # Of the left half, the middle is a quarter of the way.
        assert images[..., 1].mean() == pytest.approx(8 * 7, abs=6)
        assert whole[..., 1].mean() == pytest.approx(8 * 14.5, abs=6)


@once
@pytest.mark.parametrize("reader", ["pillow", "simplejpeg", "tf.data"])
def test_the_test_set_is_in_order_and_whole(files, reader, monkeypatch):
    monkeypatch.setattr(feeds, "TEST_BATCH", 3)
    feed = make_feed(files, recipe(), 0, reader)
    batches = [*feed.ordered("test")]
    assert [len(x) for x, _ in batches] == [3, 3, 1]
    assert reds(batches) == [*range(7)]
    assert feed.labels("test").tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert feed.size("held_out") == 0


@once
@pytest.mark.parametrize("reader", ["pillow", "simplejpeg", "tf.data"])
def test_a_file_that_breaks_later_is_named(files, reader, tmp_path):
    path = tmp_path / "half.jpg"
    file = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(file, "JPEG")
    path.write_bytes(file.getvalue()[:200])
    broken = FileSplit((*files.test.paths[:6], str(path)), files.test.labels)
    data = FileDataset(
        "broken", files.cut_to_boxes(False).train, broken, CLASSES
    )
    feed = make_feed(data, recipe(), 0, reader)
    with pytest.raises(OSError, match=r"half.jpg.*--skip-unreadable"):
        [*feed.ordered("test")]


@once
@pytest.mark.parametrize("missing", ["simplejpeg", "cv2"])
def test_a_reader_that_is_missing_is_said(files, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"crl-keras\[simplejpeg\]"):
        make_feed(files, recipe(), 0, "simplejpeg")


def test_labels_are_soft_where_the_recipe_mixes(files):
    for changes in (
        dict(mixup=0.5),
        dict(cutmix=1.0),
        dict(mixup=0.5, cutmix=1.0),
        dict(label_smoothing=0.1),
    ):
        feed = make_feed(files, recipe(**changes), seed=4)
        (found,) = epochs(feed.training())
        assert_same(found, epochs(feed.training())[0])
        images, labels = (
            np.concatenate(part) for part in zip(*found, strict=True)
        )
        assert images.dtype == np.uint8 and labels.shape == (13, 3)
        np.testing.assert_allclose(labels.sum(axis=1), 1, atol=1e-6)
        # Smoothing is the loss's; mixed labels lie between two classes.
        mixed = ((labels > 1e-3) & (labels < 1 - 1e-3)).any()
        assert mixed == ("label_smoothing" not in changes)
        (tested,) = {y.shape[1] for _, y in feed.ordered("test")}
        assert tested == 3


@once
def test_mixed_images_are_mixed_as_their_labels(files):
    """The share of the pixels is that of the label, to a row of pixels."""
    images = np.zeros((6, 32, 32, 3), np.uint8)
    images[:3] = 200
    labels = np.eye(2, dtype=np.float32)[[0, 0, 0, 1, 1, 1]]
    for changes in (dict(mixup=1.0), dict(cutmix=1.0)):
        x, y = feeds._mixed(recipe(**changes), images, labels, [0, 0, 0])
        np.testing.assert_allclose(
            x.mean(axis=(1, 2, 3)) / 200, y[:, 0], atol=0.07
        )
        assert 0 < y[:, 0].mean() < 1


@once
def test_statistics_and_thumbnails(files, monkeypatch):
    feed = make_feed(files.cut_to_boxes(False), recipe(resize_ratio=1.0))
    mean, std = feed.statistics()
    assert mean[0] == pytest.approx(np.mean(10 * np.arange(13)) / 255, abs=1e-3)
    assert std[2] == 0
    small = feed.thumbnails()
    assert small.shape == (7, 8, 8, 3) and small.dtype == np.uint8
    digits = make_feed(load_dataset("digits"), get_recipe("digits"))
    assert digits.thumbnails().shape == (450, 8, 8, 1)
    monkeypatch.setattr(feeds, "THUMBNAIL_SIZE", 4)
    monkeypatch.setattr(feeds, "THUMBNAIL_BYTES", 3 * 4 * 4 * 3)
    small = feed.thumbnails()
    assert small.shape == (3, 4, 4, 3)
    assert small[:, 0, 0, 0].tolist() == [0, 10, 20]


@once
def test_sizes_that_do_not_fit_the_data(files):
    with pytest.raises(ValueError, match="many sizes.*--image-size"):
        make_feed(files, get_recipe("short"))
    with pytest.raises(ValueError, match="in memory.*image_size=8"):
        make_feed(load_dataset("digits"), recipe())


@once
def test_a_batch_in_parts(files):
    feed = make_feed(files, recipe(batch_size=6, accumulate=3))
    # 13 images are two whole batches of three parts: a third one's first part
    # would be averaged with parts of the next epoch.
    assert feed.step_size == 2 and feed.steps == 6
    assert [len(x) for x, _ in epochs(feed.training())[0]] == 6 * [2]
    assert feed.batch_sizes() == [2, 7]
    with pytest.raises(ValueError, match="one whole batch.*batch_size=16"):
        make_feed(files, recipe(batch_size=16, accumulate=2))


def one_layer(feed):
    model = keras.Sequential(
        [
            keras.Input(feed.input_shape, dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(feed.dataset.classes),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss)
    return model


def test_fit_reads_every_kind(files):
    """Every batch once and in order: the weights are those of a plain loop."""
    for reader in ("pillow", "tf.data"):
        feed = make_feed(files, recipe(), seed=5, reader=reader)

        def trained(first, feed=feed):
            keras.utils.set_random_seed(0)
            model = one_layer(feed)
            if first is None:
                model.fit(
                    **feed.for_fit(2),
                    validation_data=feed.for_predict("test"),
                    epochs=3,
                    shuffle=False,
                    verbose=0,
                )
            else:
                for batch in sum(epochs(feed.training(first), 3), []):
                    model.train_on_batch(*batch)
            return model.get_weights()

        # Keras ends an epoch before the first.
        for a, b in zip(trained(None), trained(3), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_what_keras_reads_of_a_split_is_the_split(files):
    for reader in ("pillow", "tf.data"):
        feed = make_feed(files, recipe(), reader=reader)
        model = one_layer(feed)
        # Again and again, as `fit` does.
        batches = feed.for_predict("test")
        images, labels = map(
            np.concatenate, zip(*feed.ordered("test"), strict=True)
        )
        for _ in range(2):
            np.testing.assert_allclose(
                model.predict(batches, verbose=0),
                model.predict(images, verbose=0),
                rtol=1e-4,
                atol=1e-6,
            )
        np.testing.assert_allclose(
            model.evaluate(batches, verbose=0),
            model.evaluate(images, labels, verbose=0),
            rtol=1e-4,
        )


def test_no_pipeline_tunes_itself(files, monkeypatch):
    """Or an epoch may be followed by a wait of up to its own length."""
    import tensorflow as tf

    tuned, iterator = [], tf.data.Dataset.as_numpy_iterator

    def look(self):
        tuned.append(self.options().autotune.enabled)
        return iterator(self)

    monkeypatch.setattr(tf.data.Dataset, "as_numpy_iterator", look)
    feed = make_feed(files, recipe(), reader="tf.data")
    epochs(feed.training())
    assert tuned == [False]
    if keras.backend.backend() == "tensorflow":
        for pipeline in (feed.for_fit()["x"], feed.for_predict("test")):
            assert pipeline.options().autotune.enabled is False


def test_fit_reads_no_batch_for_nothing():
    """But for a few ahead, and what Keras builds the model with."""
    digits = get_recipe("digits", batch_size=5)
    feed = make_feed(load_dataset("digits"), digits, seed=5)
    model = one_layer(feed)
    read, take = [], feed._take
    feed._take = lambda *arguments: read.append(1) or take(*arguments)
    model.fit(**feed.for_fit(), epochs=3, shuffle=False, verbose=0)
    assert feed.steps > 100
    assert 0 <= len(read) - 3 * feed.steps <= 10


@once
def test_what_tensorflow_alone_cannot_decode_is_skipped_by_its_reader(
    files, tmp_path
):
    """An animation, and a PNG that lacks its end."""
    path = tmp_path / "moving.webp"
    frames = [Image.new("RGB", (30, 20), (k, 0, 0)) for k in (0, 200)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    cut = tmp_path / "cut.png"
    frames[1].save(cut)
    cut.write_bytes(cut.read_bytes()[:-12])
    paths = (*files.test.paths, str(path), str(cut))
    split = FileSplit(paths, np.arange(9) % 3)
    data = FileDataset("made", files.cut_to_boxes(False).train, split, CLASSES)
    assert data.checked(reader="pillow") is data
    with pytest.raises(OSError, match="moving.webp"):
        data.checked(reader="tf.data")
    with pytest.warns(UserWarning, match="2 unreadable images skipped"):
        kept = data.checked(skip_unreadable=True, reader="tf.data")
    for images, _ in make_feed(kept, recipe(), 0, "tf.data").ordered("test"):
        assert len(images)


@once
@pytest.mark.parametrize(
    "name, mode, reads",
    [
        ("a.tiff", "RGB", False),
        ("a.bmp", "P", False),
        ("a.bmp", "RGB", True),
        ("a.png", "P", True),
        ("a.webp", "RGB", True),
        ("a.gif", "P", True),
        ("a.jfif", "RGB", True),
    ],
)
def test_what_tensorflow_does_not_read_is_said_before_training(
    files, tmp_path, name, mode, reads
):
    path = tmp_path / name
    Image.new("RGB", (30, 20), (200, 40, 90)).convert(mode).save(path)
    split = FileSplit((*files.test.paths, str(path)), np.arange(8) % 3)
    data = FileDataset("made", files.cut_to_boxes(False).train, split, CLASSES)
    assert data.checked(reader="pillow") is data
    if not reads:
        with pytest.raises(OSError, match=f"{name}.*--reader pillow"):
            data.checked(reader="tf.data")
        return
    assert data.checked(reader="tf.data") is data
    for reader in ("pillow", "tf.data"):
        *_, (images, _) = make_feed(data, recipe(), 0, reader).ordered("test")
        found = images[-1].astype(int) - (200, 40, 90)
        assert np.abs(found).max() < 8, reader
