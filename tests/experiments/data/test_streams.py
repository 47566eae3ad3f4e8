"""Data sets of TensorFlow Datasets, made here and streamed."""

import functools
import re
import types

import numpy as np
import pytest
from disk_layouts import store_tfds

from crl_keras.experiments.data import named as datasets
from crl_keras.experiments.data import streams
from crl_keras.experiments.data.crops import Crop
from crl_keras.experiments.data.named import load_dataset

# tf.data streams them, whatever the backend is.
pytestmark = pytest.mark.once
CROP = Crop(8, resize_ratio=1)


def tiny_images(count, height, width, first=0):
    """The level of all pixels of a row numbers the image, but for a ramp."""
    images = np.zeros((count, height, width, 3), np.uint8)
    images[..., 0] = np.arange(first, first + count)[:, None, None]
    images[..., 1] = np.linspace(0, 250, width).astype(np.uint8)
    images[..., 2] = np.linspace(0, 250, height).astype(np.uint8)[:, None]
    return images


@pytest.fixture(scope="module")
def tfds_dir(tmp_path_factory):
    """A data folder of TFDS with sets that were made here."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    store = functools.partial(store_tfds, folder)
    splits = {"train": tiny_images(23, 20, 40), "test": tiny_images(7, 20, 40)}
    store("tiny", splits)
    del splits["test"]
    store("only_train", splits)
    store("validated", splits | {"validation": tiny_images(5, 20, 40)})
    store("extra", splits, other=tfds.features.ClassLabel(num_classes=3))
    svhn = {
        "train": tiny_images(3, 32, 32),
        "extra": tiny_images(4, 32, 32, 10),
        "test": tiny_images(2, 32, 32, 20),
    }
    store("svhn_like", svhn)
    return folder


def numbers(pipeline):
    return [int(i) for x, _ in pipeline for i in x.numpy()[:, 0, 0, 0]]


def open_set(folder, name="tiny", **arguments):
    return streams.open_tfds(f"tfds:{name}", data_dir=folder, **arguments)


def pipeline(folder, split="train", seed=None, crop=CROP, **arguments):
    return open_set(folder, **arguments).pipeline(split, 10, crop, seed)


def test_a_set_says_what_it_holds(tfds_dir):
    data = open_set(tfds_dir)
    assert data.name == "tfds:tiny" and data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.test)) == (23, 7)
    assert data.classes == 2 and data.image_shape == (None, None, 3)
    assert data.labels("test").tolist() == [0, 1, 0, 1, 0, 1, 0]
    for split, sizes in (("train", [10, 10, 3]), ("test", [7])):
        found = data.pipeline(split, 10, CROP)
        batches = [(x.numpy(), y.numpy()) for x, y in found]
        assert [len(x) for x, _ in batches] == sizes
        for x, y in batches:
            assert x.shape[1:] == (8, 8, 3)
            assert x.dtype == np.uint8 and y.dtype == np.int32
            assert (x[:, 0, 0, 0] % 2 == y).all()


def test_an_epoch_has_an_order_of_its_own(tfds_dir):
    import tensorflow as tf

    tf.random.set_seed(5)
    third = pipeline(tfds_dir, seed=3)
    images = [x.numpy() for x, _ in third]
    assert sorted(numbers(third)) == [*range(23)]
    assert numbers(third) != [*range(23)]
    for repeated in (third, pipeline(tfds_dir, seed=3)):
        for x, (y, _) in zip(images, repeated, strict=True):
            np.testing.assert_array_equal(x, y.numpy())
    assert numbers(pipeline(tfds_dir, seed=4)) != numbers(third)
    assert numbers(pipeline(tfds_dir, "test")) == [*range(7)]


def test_images_are_cropped_in_training_and_test(tfds_dir):
    crop = Crop(10, resize_ratio=1.4)
    (images, _), *_ = pipeline(tfds_dir, "test", crop=crop)
    # 20x40 becomes 14x28, of which 2:12 and 9:19 are cut out.
    expected = 250 / 28 * (np.arange(9, 19) + 0.5)
    assert np.abs(images.numpy()[0, 0, :, 1] - expected).max() < 10
    expected = 250 / 14 * (np.arange(2, 12) + 0.5)
    assert np.abs(images.numpy()[0, :, 0, 2] - expected).max() < 10
    train = [
        i for x, _ in pipeline(tfds_dir, seed=1, crop=crop) for i in x.numpy()
    ]
    left = {int(i[0, 0, 1]) for i in train}
    assert len(left) > 5 and len({int(i[0, 0, 2]) for i in train}) > 2
    assert max(left) <= 250 * 19 / 28 + 5
    (images, _), *_ = pipeline(tfds_dir, "test", crop=None)
    np.testing.assert_array_equal(images.numpy(), tiny_images(7, 20, 40))


def boxed_set(tfds_dir, feature, boxes):
    """Test images of 20 x 21 with boxes, y before x, of 0 to 1."""
    import tensorflow_datasets as tfds

    name = f"boxed_{len(boxes)}_{type(feature).__name__.lower()}"
    examples = [
        {"image": image, "label": 0, "bbox": box}
        for image, box in zip(tiny_images(2, 20, 21), boxes, strict=True)
    ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(20, 21, 3)),
                "label": tfds.features.ClassLabel(num_classes=2),
                "bbox": feature,
            }
        ),
        split_datasets=dict.fromkeys(
            ("train", "test"), list(enumerate(examples))
        ),
        data_dir=tfds_dir,
        disable_shuffling=True,
    )
    return open_set(tfds_dir, name)


def test_images_are_cut_to_their_boxes(tfds_dir):
    """One a sample, as in caltech_birds2011, or several or none, as of cars."""
    import tensorflow_datasets as tfds

    # In float32, 11 / 21 * 21 is more than 11.
    box = tfds.features.BBox(ymin=0.2, xmin=3 / 21, ymax=0.6, xmax=11 / 21)
    whole = tfds.features.BBox(ymin=0.0, xmin=0.0, ymax=1.0, xmax=1.0)
    crop = Crop(8, resize_ratio=1, keep_aspect=False)
    one = tfds.features.BBoxFeature()
    several = tfds.features.Sequence(tfds.features.BBoxFeature())
    for feature, boxes in ((one, [box, whole]), (several, [[box, whole], []])):
        data = boxed_set(tfds_dir, feature, boxes)
        assert data.cut_to_boxes(True).fingerprint != data.fingerprint
        ((images, _),) = data.cut_to_boxes(True).pipeline("test", 2, crop)
        cut, uncut = images.numpy().astype(float)
        # Rows 4 to 12 of 20, columns 3 to 11 of 21: pixel by pixel.
        ramps = tiny_images(1, 20, 21)[0, 4:12, 3:11]
        np.testing.assert_array_equal(cut, ramps)
        ((images, _),) = data.pipeline("test", 2, crop)
        np.testing.assert_array_equal(images[1], uncut)
    with pytest.raises(ValueError, match="tfds:tiny.*image.*--crop-to"):
        open_set(tfds_dir).cut_to_boxes(True)


def test_splits_and_parts_of_them(tfds_dir):
    validated = open_set(tfds_dir, "validated")
    assert numbers(validated.pipeline("test", 10, CROP)) == [*range(5)]
    with pytest.raises(ValueError, match="test or validation.*'train'.*90%"):
        open_set(tfds_dir, "only_train")
    data = open_set(
        tfds_dir,
        "only_train",
        train_split="train[:18]",
        test_split="train[18:]",
    )
    assert (len(data.train), len(data.test)) == (18, 5)
    assert numbers(data.pipeline("test", 10, CROP)) == [*range(18, 23)]
    for split in ("absent", "train[5:5]", "train[?]"):
        with pytest.raises(ValueError, match=r"\'?" + re.escape(split)):
            open_set(tfds_dir, test_split=split)
    held = data.with_held_out(0.1)
    assert numbers(held.pipeline("train", 20, CROP)) == [*range(16)]
    assert numbers(held.pipeline("held_out", 10, CROP)) == [16, 17]
    shares = open_set(
        tfds_dir,
        "only_train",
        train_split="train[:80%]",
        test_split="train[80%:]",
    )
    with pytest.raises(ValueError, match="whole split.*'train.:80%.'"):
        shares.with_held_out(0.1)


def test_a_part_is_held_out_or_left_out(tfds_dir):
    data = open_set(tfds_dir)
    held = data.with_held_out(0.1)
    assert numbers(held.pipeline("train", 10, CROP)) == [*range(21)]
    assert numbers(held.pipeline("held_out", 10, CROP)) == [21, 22]
    assert held.labels("held_out").tolist() == [1, 0]
    small = data.limited(train=5, test=3)
    assert numbers(small.pipeline("train", 10, CROP)) == [*range(5)]
    assert len(small.labels("test")) == 3
    both = small.with_held_out(0.4)
    assert numbers(both.pipeline("train", 10, CROP)) == [*range(3)]
    assert numbers(both.pipeline("held_out", 10, CROP)) == [3, 4]
    late = open_set(tfds_dir, train_split="train[4:20]").limited(train=6)
    assert numbers(late.pipeline("train", 10, CROP)) == [*range(4, 10)]
    assert data.limited(train=100).train == data.train
    assert data.with_held_out(0.0) is data
    found = {d.fingerprint for d in (data, held, small)}
    assert len(found) == 3
    assert open_set(tfds_dir).fingerprint == data.fingerprint


def test_imagenet_is_tested_on_its_validation_split():
    class Builder:
        name = "imagenet2012"

        class info:
            splits = {"train": 1, "validation": 1, "test": 1}

    assert streams._default_test(Builder) == "validation"


def test_what_cannot_be_streamed(tfds_dir):
    with pytest.raises(ValueError, match="data set of Tensor.*'absent_set'"):
        open_set(tfds_dir, "absent_set")
    with pytest.raises(ValueError, match="one class label.*'other'"):
        open_set(tfds_dir, "extra", test_split="train")
    for name in ("cars", "tfds:"):
        with pytest.raises(ValueError, match=f"tfds:NAME.*'{name}'"):
            streams.open_tfds(name)


def test_which_features_can_be_streamed():
    import tensorflow_datasets

    features = tensorflow_datasets.features
    image, label = features.Image(), features.ClassLabel(num_classes=2)

    def keys(image, label, supervised):
        info = types.SimpleNamespace(
            supervised_keys=supervised,
            features=features.FeaturesDict({"y": label, "x": image}),
        )
        builder = types.SimpleNamespace(name="odd", info=info)
        return streams.tfds_keys(tensorflow_datasets, builder)

    for supervised in (("x", "y"), None):
        assert keys(image, label, supervised) == ("x", "y")
        for odd in (
            (image, features.ClassLabel(num_classes=1)),
            (image, features.Scalar(np.int64)),
            (features.Image(shape=(4, 4, 4)), label),
            (features.Image(dtype=np.uint16), label),
        ):
            with pytest.raises(ValueError, match="one class label.*'y'"):
                keys(*odd, supervised)


def test_a_set_that_cannot_be_prepared(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class Builder:
        info = type("info", (), {"splits": {}})

        def download_and_prepare(self):
            raise AssertionError("Manual directory does not exist")

    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Builder())
    with pytest.raises(OSError, match="prepare imagenet2012 .Manual.*--data"):
        streams.open_tfds("imagenet2012")


def test_svhn_from_tfds(tfds_dir, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    asked = []

    def load(name, data_dir, split, batch_size, as_supervised):
        asked.append((name, data_dir, as_supervised))
        # The set made here does not say which features are supervised.
        found = tfds.builder("svhn_like", data_dir=tfds_dir).as_dataset(
            split=split, batch_size=batch_size
        )
        return found["image"], found["label"]

    (tmp_path / "svhn_cropped").mkdir()
    monkeypatch.setattr(tfds, "load", load)
    with pytest.raises(ValueError, match="'2'"):
        load_dataset("svhn", tmp_path)
    monkeypatch.setattr(datasets, "DIGITS", ("0", "1"))
    data = load_dataset("svhn", tmp_path)
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12, 13]
    assert data.test.images[:, 0, 0, 0].tolist() == [20, 21]
    assert set(asked) == {("svhn_cropped", tmp_path, True)}
    monkeypatch.setattr(tfds, "load", None)
    with pytest.raises(OSError, match="svhn_cropped.*three .mat files"):
        load_dataset("svhn")
