"""The builders for TFDS give what the readers of folders give."""

import collections
import pathlib

import numpy as np
import pytest
from disk_layouts import CARS
from disk_layouts import CARS_TEST
from disk_layouts import CARS_TRAIN
from disk_layouts import adience_files
from disk_layouts import cars_layouts
from disk_layouts import write
from fresh import python
from PIL import Image

from crl_keras.experiments.data.adience import read_adience
from crl_keras.experiments.data.cars196_classes import CARS196
from crl_keras.experiments.data.fine_grained import read_cars
from crl_keras.experiments.data.image_files import IncompleteDataWarning
from crl_keras.experiments.data.sources import open_dataset

pytestmark = [
    pytest.mark.once,
    pytest.mark.filterwarnings(
        f"ignore::{IncompleteDataWarning.__module__}.IncompleteDataWarning"
    ),
]


@pytest.fixture(scope="module")
def tfds():
    import tensorflow_datasets as tfds

    import crl_keras.experiments.data.tfds_builders  # noqa: F401

    return tfds


def loaded(tfds, name, folder, data_dir, file_format):
    """{split: {file name: example}} of a set built from a folder."""
    config = tfds.download.DownloadConfig(manual_dir=folder)
    prepared = {"download_config": config, "file_format": file_format}
    if file_format == "array_record":
        builder = tfds.builder(name, data_dir=data_dir)
        builder.download_and_prepare(**prepared)
        sources = builder.as_data_source()
    else:
        sources = tfds.load(
            name, data_dir=data_dir, download_and_prepare_kwargs=prepared
        )
        sources = {k: tfds.as_numpy(source) for k, source in sources.items()}
    splits = {}
    for split, source in sources.items():
        examples = list(source)
        names = [as_text(e["image/filename"]) for e in examples]
        splits[split] = dict(zip(names, examples, strict=True))
        assert len(splits[split]) == len(examples) > 0
    return splits


def as_text(value):
    return value.decode() if isinstance(value, bytes) else value


def check_equal(splits, data, class_names):
    assert set(splits) == {"train", "test"}
    for split, examples in splits.items():
        expected = getattr(data, split)
        assert len(examples) == len(expected)
        for path, label in zip(expected.paths, expected.labels, strict=True):
            name = "/".join(pathlib.Path(path).parts[-2:])
            example = examples[name]
            assert class_names[example["label"]] == data.class_names[label]
            with Image.open(path) as image:
                pixels = np.asarray(image)
            # Decoders of JPEG may differ by a level or two.
            np.testing.assert_allclose(
                example["image"].astype(int), pixels.astype(int), atol=3
            )


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_adience(tfds, tmp_path, file_format):
    folder = write(tmp_path / "raw", adience_files())
    for fold in (0, 3):
        splits = loaded(
            tfds, f"adience/fold_{fold}", folder, tmp_path / "tfds", file_format
        )
        data = read_adience(folder, fold)
        check_equal(splits, data, data.class_names)
        labels = [example["label"] for example in splits["test"].values()]
        assert collections.Counter(labels) == dict.fromkeys(range(8), 2)
    if file_format == "array_record":  # Which tf.data does not stream.
        with pytest.raises(ValueError, match="array_record, in .*tfrecord"):
            open_dataset("adience", tmp_path / "tfds", 3)


@pytest.mark.parametrize(
    "layout, file_format",
    [
        ("original", "tfrecord"),
        ("kaggle, labels beside", "array_record"),
        ("car_ims", "array_record"),
        ("class folders", "tfrecord"),
        ("class folders", "array_record"),
    ],
)
def test_stanford_cars(tfds, tmp_path, layout, file_format):
    folder = write(tmp_path / "raw", cars_layouts()[layout])
    splits = loaded(
        tfds, "stanford_cars", folder, tmp_path / "tfds", file_format
    )
    # Three classes of the 196, under their official numbers.
    check_equal(splits, read_cars(folder), CARS196)
    labels = {example["label"] for example in splits["train"].values()}
    assert labels == {CARS196.index(name) for name in CARS}
    for examples, rows in (
        (splits["train"], CARS_TRAIN),
        (splits["test"], CARS_TEST),
    ):
        if "class" in layout:
            assert all(len(e["bbox"]) == 0 for e in examples.values())
            continue
        # Of 16 x 16 pixels; y before x, as TFDS has boxes.
        boxes = [
            (y0 / 16, x0 / 16, y1 / 16, min(x1 / 16, 1))
            for x0, y0, x1, y1 in (row.box for row in rows)
        ]
        names = sorted(examples)
        np.testing.assert_allclose(
            [examples[name]["bbox"][0] for name in names], boxes, rtol=1e-6
        )


def test_the_bytes_of_the_files_are_kept(tfds, tmp_path):
    folder = write(tmp_path / "raw", adience_files())
    builder = tfds.builder("adience/fold_1", data_dir=tmp_path / "tfds")
    config = tfds.download.DownloadConfig(manual_dir=folder)
    builder.download_and_prepare(
        download_config=config, file_format="array_record"
    )
    raw = builder.as_data_source(
        split="test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    expected = {pathlib.Path(p).read_bytes() for p in folder.rglob("*.jpg")}
    assert {example["image"] for example in raw} <= expected


def test_supervised_and_named(tfds, tmp_path):
    builder = tfds.builder("adience/fold_4", data_dir=tmp_path)
    assert builder.info.supervised_keys == ("image", "label")
    assert builder.info.features["label"].names == list(
        read_names(tmp_path / "raw")
    )
    assert set(builder.builder_configs) == {f"fold_{k}" for k in range(5)}
    cars = tfds.builder("stanford_cars", data_dir=tmp_path)
    assert cars.info.supervised_keys == ("image", "label")
    assert cars.info.features["label"].num_classes == 196


def read_names(folder):
    return read_adience(write(folder, adience_files()), 0).class_names


@pytest.mark.parametrize("name", ["adience/fold_0", "stanford_cars"])
def test_a_folder_without_the_files(tfds, tmp_path, name):
    config = tfds.download.DownloadConfig(manual_dir=tmp_path)
    builder = tfds.builder(name, data_dir=tmp_path / "tfds")
    with pytest.raises(FileNotFoundError, match="Expected .* Received "):
        builder.download_and_prepare(download_config=config)


def run_python(code, *arguments, exit_code=0):
    return python(
        *("-W", "ignore", "-c", code, *arguments),
        exit_code=exit_code,
        CRL_KERAS_RECORDS_ONLY="1",  # No backend is needed.
    )


def test_array_record_needs_no_tensorflow(tmp_path):
    folder = write(tmp_path / "raw", adience_files())
    # Not to be found, as where it is not installed: a None in sys.modules
    # TFDS takes for a TensorFlow that is loaded.
    code = """
import sys
from importlib.machinery import PathFinder

class WithoutTensorFlow(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] != "tensorflow":
            return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow
import tensorflow_datasets as tfds
import crl_keras.experiments.data.tfds_builders
builder = tfds.builder("adience/fold_0", data_dir=sys.argv[2])
builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(manual_dir=sys.argv[1]),
    file_format="array_record",
)
print(sum(int(e["label"]) for e in builder.as_data_source(split="test")))
"""
    done = run_python(code, folder, tmp_path / "tfds")
    assert done.stdout.split()[-1] == str(2 * sum(range(8)))


@pytest.mark.parametrize(
    "missing", ["tensorflow_datasets", "importlib_resources"]
)
def test_without_tfds_the_pip_command_is_named(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
import crl_keras.experiments.data.tfds_builders
"""
    done = run_python(code, exit_code=1)
    assert f"ImportError: {missing} is needed here" in done.stderr
    assert 'pip install "crl-keras[tfds]"' in done.stderr


def test_the_readers_import_numpy_alone():
    code = """
import sys
import crl_keras.experiments.data.adience
import crl_keras.experiments.data.fine_grained
print(*{name.split(".")[0] for name in sys.modules})
"""
    loaded = set(run_python(code).stdout.split())
    assert "numpy" in loaded
    assert not loaded & {
        *("keras", "tensorflow", "jax", "torch", "tensorflow_datasets"),
        *("PIL", "scipy", "filelock", "rich"),
    }
