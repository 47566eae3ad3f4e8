"""Sets by name that fit in memory, and what they need installed."""

import os
import pathlib
import sys

import keras
import numpy as np
import pytest
import scipy.io
from disk_layouts import pack
from disk_layouts import write
from fresh import run_python
from image_folders import flat_tree
from image_folders import levels
from image_folders import pack_zip
from image_folders import png
from image_folders import split_tree

from crl_keras.experiments import _optional
from crl_keras.experiments.data import named as datasets
from crl_keras.experiments.data import splits
from crl_keras.experiments.data import streams
from crl_keras.experiments.data.named import load_dataset

pytestmark = pytest.mark.once

REAL_DATA = os.environ.get("CRL_TEST_DATA")
needs_real_data = pytest.mark.skipif(
    not REAL_DATA, reason="CRL_TEST_DATA names no folder of real data"
)


# Imports


def test_importing_needs_no_backend_and_no_optional_package():
    package = pathlib.Path(datasets.__file__).parents[2]
    # The package's own __init__ imports Keras: it is left out.
    code = f"""
import sys, types
for n in (0, 1, 2):
    name = ".".join(["crl_keras", "experiments", "data"][: n + 1])
    module = types.ModuleType(name)
    module.__path__ = [{str(package.parent)!r} + "/" + name.replace(".", "/")]
    sys.modules[name] = module
import crl_keras.experiments.data.named
print(*{{name.split(".")[0] for name in sys.modules}})
"""
    loaded = set(run_python(code).split())
    assert "numpy" in loaded
    assert not loaded & {
        *("keras", "tensorflow", "jax", "torch", "tensorflow_datasets"),
        *("PIL", "scipy", "sklearn", "rich"),
    }


def test_require_names_the_pip_command(monkeypatch):
    assert _optional.require("scipy.io") is scipy.io
    monkeypatch.setitem(sys.modules, "absent", None)
    with pytest.raises(
        ImportError, match=r'absent is.*pip install "crl-keras\[figures\]"'
    ) as caught:
        _optional.require("absent.part", "figures")
    assert caught.value.name == "absent"


@pytest.mark.parametrize(
    "module, name", [("sklearn.datasets", "digits"), ("PIL.Image", "folder")]
)
def test_a_missing_package_is_named(module, name, monkeypatch, tmp_path):
    path = write(tmp_path, flat_tree())
    monkeypatch.setitem(sys.modules, module, None)
    name = f"folder:{path}" if name == "folder" else name
    with pytest.raises(ImportError, match=r'"crl-keras\[experiments\]"'):
        load_dataset(name)


@pytest.mark.parametrize(
    "missing", ["tensorflow", "importlib_resources", "tensorflow_datasets"]
)
def test_what_tfds_needs_is_named(missing, monkeypatch):
    for name in ("tensorflow", "importlib_resources", "tensorflow_datasets"):
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    monkeypatch.setitem(sys.modules, missing, None)
    for load in (
        lambda: load_dataset("svhn"),
        lambda: streams.open_tfds("imagenet2012"),
    ):
        with pytest.raises(
            ImportError, match=rf'{missing} is needed.*"crl-keras\[tfds\]"'
        ):
            load()


# Named sets


def test_digits():
    data = load_dataset("digits")
    assert data.name == "digits" and data.class_names == datasets.DIGITS
    assert (len(data.train), len(data.test)) == (1347, 450)
    assert data.input_shape == (8, 8, 1)
    assert data.train.images.max() == 255
    counts = np.bincount(data.train.labels) / np.bincount(data.test.labels)
    assert np.abs(counts - 3).max() < 0.15
    assert load_dataset("digits").fingerprint == data.fingerprint


@pytest.mark.parametrize(
    "name, message",
    [
        ("minst", "digits, digits32, mnist, .*folder:PATH.*'minst'"),
        ("folder:", "'folder:'"),
        ("imagenet2012", "into memory.*'imagenet2012'"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        load_dataset(name)


def test_named_classes():
    for names, count in ((datasets.CIFAR10, 10), (datasets.CIFAR100, 100)):
        assert len(set(names)) == count
        # The order of the folders is the official one.
        assert list(names) == sorted(names)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2)])
def test_keras_datasets(monkeypatch, axes):
    images = np.arange(20 * 2 * 5 * 3, dtype=np.uint8).reshape(20, 2, 5, 3)
    labels = np.arange(20, dtype=np.uint8)[:, None] % 10

    def load_data():
        pair = images.transpose(axes), labels
        return pair, pair

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", load_data)
    data = load_dataset("cifar10")
    np.testing.assert_array_equal(data.test.images, images)
    assert data.class_names[3] == "cat" and data.name == "cifar10"

    def load_grey():
        pair = images[..., 0], labels[:, 0]
        return pair, pair

    monkeypatch.setattr(keras.datasets.mnist, "load_data", load_grey)
    assert load_dataset("mnist").input_shape == (2, 5, 1)


def test_a_failed_download_names_the_way_on(monkeypatch):
    def load_data():
        raise Exception("URL fetch failure")

    monkeypatch.setattr(keras.datasets.cifar100, "load_data", load_data)
    with pytest.raises(OSError, match="cifar100 .URL fetch.*--data-dir PATH"):
        load_dataset("cifar100")


def cifar_files(suffix="png", classes=datasets.CIFAR10):
    formats = {"png": "PNG", "jpg": "JPEG"}
    return {
        f"{split}/{name}/0.{suffix}": png(
            (k, 2, 3), "RGB", format=formats[suffix]
        )
        for split in ("train", "test")
        for k, name in enumerate(classes)
    }


@pytest.mark.parametrize("where", ["tree", "parent", "archive", "file"])
def test_local_copies(tmp_path, where):
    files = cifar_files()
    # Another set's copy beside it has a name that begins alike.
    write(tmp_path / "cifar100", cifar_files(classes=datasets.CIFAR100))
    if where == "tree":
        data_dir = write(tmp_path / "mine", files)
    elif where == "parent":
        write(tmp_path / "CIFAR-10", files)
        data_dir = tmp_path
    else:
        path = pack(tmp_path / "cifar10-png.tar.gz", files)
        data_dir = tmp_path if where == "archive" else path
    data = load_dataset("cifar10", data_dir=data_dir)
    assert data.name == "cifar10" and data.class_names == datasets.CIFAR10
    assert levels(data.train) == list(range(10))
    assert load_dataset("cifar100", data_dir=tmp_path).classes == 100


def test_a_copy_in_jpeg_says_so(tmp_path):
    write(tmp_path, cifar_files("jpg"))
    assert load_dataset("cifar10", tmp_path).name == "cifar10 (JPEG)"


def test_wrong_local_copies(tmp_path):
    with pytest.raises(FileNotFoundError, match="mnist.*does not exist"):
        load_dataset("mnist", tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="mnist.tar.gz.*an empty fold"):
        load_dataset("mnist", tmp_path)
    write(tmp_path / "mnist", split_tree())
    with pytest.raises(ValueError, match="classes of mnist, '0'.*'a', 'b'"):
        load_dataset("mnist", tmp_path)
    pack(tmp_path / "mnist.tgz", split_tree())
    with pytest.raises(FileNotFoundError, match="one copy.*'mnist.*mnist.tgz"):
        load_dataset("mnist", tmp_path)
    write(tmp_path / "other", flat_tree("0123456789", 2))
    pack_zip(tmp_path / "flat.zip", flat_tree("0123456789", 2))
    with pytest.raises(ValueError, match="train and test folders for mnist"):
        load_dataset("mnist", tmp_path / "flat.zip")


def svhn_file(path, count, first):
    images = np.zeros((32, 32, 3, count), np.uint8)
    images += np.arange(first, first + count, dtype=np.uint8)
    images[1, 2, 0] = 200
    labels = 1 + np.arange(count, dtype=np.uint8)[:, None] % 10
    scipy.io.savemat(path, {"X": images, "y": labels})


def test_svhn_from_matlab_files(tmp_path):
    svhn_file(tmp_path / "train_32x32.mat", 11, 0)
    svhn_file(tmp_path / "test_32x32.mat", 10, 50)
    with pytest.raises(FileNotFoundError, match="Missing: 'extra_32x32.mat'"):
        load_dataset("svhn", tmp_path)
    svhn_file(tmp_path / "extra_32x32.mat", 12, 100)
    data = load_dataset("svhn", tmp_path)
    assert data.input_shape == (32, 32, 3)
    assert levels(data.train) == [*range(11), *range(100, 112)]
    assert levels(data.test) == [*range(50, 60)]
    # The tenth is the digit 0, and the rows and columns are in order.
    assert data.test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert (data.test.images[:, 1, 2, 0] == 200).all()
    (tmp_path / "test_32x32.mat").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="test_32x32.mat.*Fetch the file"):
        load_dataset("svhn", tmp_path)


# Real data


@needs_real_data
@pytest.mark.parametrize(
    "name, sizes, shape, mean",
    [
        ("mnist", (60_000, 10_000), (28, 28, 1), [0.1307]),
        ("cifar10", (50_000, 10_000), (32, 32, 3), [0.4914, 0.4822, 0.4465]),
    ],
)
def test_real_data(name, sizes, shape, mean, decodings):
    data = load_dataset(name, REAL_DATA)
    assert data.name == f"{name} (JPEG)"
    assert (len(data.train), len(data.test)) == sizes
    assert data.input_shape == shape
    assert data.class_names == datasets.CLASS_NAMES[name]
    if name == "cifar10":
        assert set(np.bincount(data.train.labels)) == {5000}
    else:
        assert np.bincount(data.test.labels)[:3].tolist() == [980, 1135, 1032]
    # The published means of the sets, which JPEG moves a little.
    found, _ = splits.channel_statistics(data.train)
    np.testing.assert_allclose(found, mean, atol=5e-3)
    assert load_dataset(name, REAL_DATA).fingerprint == data.fingerprint
    assert len(decodings) in (1, 2)
