"""KerasCV's ResNet from the files of every layout to a saved classifier."""

import io

import disk_layouts
import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds

import crl_keras.experiments.data.tfds_builders  # noqa: F401
from crl_keras.experiments.data.image_files import IncompleteDataWarning
from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs import backbones
from crl_keras.experiments.runs import sweep
from crl_keras.experiments.runs import training
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.prediction import load_classifier
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.sweep import Plan
from crl_keras.experiments.runs.sweep import make_configs

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{IncompleteDataWarning.__module__}.IncompleteDataWarning"
)
FOLDERS = {
    "cub": ("cub", "pillow", disk_layouts.cub_files(3, 1)[0]),
    "cub with boxes": ("cub", "tf.data", disk_layouts.cub_files(3, 1)[0]),
    "adience aligned": ("adience", "tf.data", disk_layouts.adience_files()),
    "adience faces": (
        "adience_faces",
        "pillow",
        disk_layouts.adience_files(faces="faces"),
    ),
    **{
        f"cars, {name}": ("cars", "pillow", files)
        for name, files in disk_layouts.cars_layouts().items()
    },
}


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def small_resnet(monkeypatch):
    """KerasCV's ResNet with one narrow block a stage: the layouts are tested
    here, ResNet-18 itself in test_finetune.py."""
    monkeypatch.setitem(backbones.BLOCKS, "resnet18", ("basic", (1, 1, 1, 1)))
    monkeypatch.setitem(
        backbones.BLOCKS, "resnet50", ("bottleneck", (1, 1, 1, 1))
    )
    # Of the second version KerasCV builds stages of two blocks at least.
    monkeypatch.setitem(backbones.BLOCKS, "resnet34", ("basic", (2, 2, 2, 2)))
    monkeypatch.setattr(backbones, "WIDTHS", (64, 8, 8, 8))


def check_from_files_to_predictions(
    tmp_path, dataset, folder, fold, reader, backbone="resnet18", **values
):
    """Trains an epoch, is stopped, goes on, is saved, loaded and asked."""
    recipe = get_recipe(
        "finetune", image_size=32, batch_size=6, epochs=2, scaling="unit"
    )
    configs = make_configs(
        ["crl"],
        [0],
        [recipe],
        dataset=dataset,
        fold=fold,
        network=f"keras_cv/{backbone}",
        backend=keras.backend.backend(),
        reader=reader,
        train_limit=12,
        **values,
    )
    plan = Plan(
        tuple(configs),
        str(tmp_path / "runs"),
        str(folder),
        options=training.Options(save_model=True),
    )

    def kill(row):
        raise Killed

    with pytest.raises(Killed):
        sweep.run_sweep(plan, cache=sweep.check_plan(plan), on_epoch=kill)
    assert not [*tmp_path.glob("runs/*/result.json")]
    seen = []
    sweep.run_sweep(plan, on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [2]

    (record,) = read_records(plan.output)
    assert [row["epoch"] for row in record.history] == [1, 2]
    logits = record.logits()["test"]
    data = sweep.prepare_dataset(plan, record.config)
    feed = make_feed(data, recipe, reader=reader)
    labels = feed.labels("test")
    assert logits.shape == (len(labels), data.classes)
    accuracy = (logits.argmax(-1) == labels).mean()
    assert record.result["last"]["error"] == pytest.approx(1 - accuracy)

    classifier = load_classifier(plan.output)
    assert classifier.info["crop_to_box"] == configs[0].crop_to_box
    images = np.concatenate([batch for batch, _ in feed.ordered("test")])
    again = classifier.model.predict(images, verbose=0)
    np.testing.assert_allclose(again, logits, atol=1e-4)
    if folder.name == "tfds":
        return  # Its images are no files.
    ((best, p), *others) = classifier(data.test.paths[0])
    assert {best, *dict(others)} == {*data.class_names}
    if reader == "pillow":  # TensorFlow interpolates otherwise.
        assert best == data.class_names[logits[0].argmax()]
        assert p == pytest.approx(scores.softmax(logits[:1]).max(), abs=1e-4)


@pytest.mark.once  # test_finetune.py trains on every backend.
@pytest.mark.parametrize("layout", FOLDERS)
def test_a_folder(tmp_path, layout, script):
    dataset, reader, files = FOLDERS[layout]
    folder = disk_layouts.write(tmp_path / "data", files)
    fold = 2 if dataset.startswith("adience") else None
    check_from_files_to_predictions(
        tmp_path,
        dataset,
        folder,
        fold,
        reader,
        # Every kind of block, each in one layout.
        {"cub": "resnet50", "cub with boxes": "resnet34_v2"}.get(
            layout, "resnet18"
        ),
        crop_to_box="boxes" in layout,
    )
    if dataset != "cub":
        return
    image = next(map(str, folder.glob("images/*/*.jpg")))
    _, out, error = script("predict.py", str(tmp_path / "runs"), image)
    assert {*disk_layouts.BIRDS} == {*out.split()[2::2]}
    assert ("Give it such images" in error) == ("boxes" in layout)


def prepared_birds(tmp_path):
    """What TFDS has on disk once it has prepared its caltech_birds2011."""
    files, rows = disk_layouts.cub_files(3, 1)
    info = tfds.builder("caltech_birds2011", data_dir=tmp_path / "empty").info
    examples = {"train": [], "test": []}
    for path, label, for_training, *_ in rows:
        examples["train" if for_training else "test"].append(
            {
                "image": io.BytesIO(files[f"images/{path}"]),
                "image/filename": path,
                "bbox": tfds.features.BBox(0.1, 0.1, 0.9, 0.9),
                "label": label,
                "label_name": disk_layouts.BIRDS[label],
                "segmentation_mask": np.zeros((16, 16, 1), np.uint8),
            }
        )
    tfds.dataset_builders.store_as_tfds_dataset(
        "caltech_birds2011",
        version=str(info.version),
        features=info.features,
        split_datasets={k: [*enumerate(v)] for k, v in examples.items()},
        data_dir=tmp_path / "tfds",
    )
    return tmp_path / "tfds"


def prepared(name, files):
    """A set that our own builder has prepared from a folder."""

    def prepare(tmp_path):
        folder = disk_layouts.write(tmp_path / "data", files)
        tfds.builder(name, data_dir=tmp_path / "tfds").download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=folder)
        )
        return tmp_path / "tfds"

    return prepare


@pytest.mark.once  # test_finetune.py trains on a set of TFDS on every backend.
@pytest.mark.parametrize(
    "dataset, prepare, fold",
    [
        ("cub", prepared_birds, None),
        (
            "cars",
            prepared("stanford_cars", disk_layouts.cars_layouts()["car_ims"]),
            None,
        ),
        (
            "adience",
            prepared("adience/fold_2", disk_layouts.adience_files()),
            2,
        ),
    ],
)
def test_what_tfds_has_prepared(tmp_path, dataset, prepare, fold):
    check_from_files_to_predictions(
        tmp_path,
        dataset,
        prepare(tmp_path),
        fold,
        "tf.data",
        crop_to_box=dataset != "adience",
        held_out=0.0 if dataset == "adience" else 0.1,
    )


@pytest.mark.once
def test_what_tfds_has_prepared_is_read_by_tensorflow(tmp_path):
    prepare = prepared("adience/fold_0", disk_layouts.adience_files())
    data_dir = str(prepare(tmp_path))
    common = dict(dataset="adience", fold=0, network="mlp")
    recipe = get_recipe("finetune", image_size=8)
    for changes, message in (
        ({"reader": "pillow"}, "tf.data must read it"),
        ({"reader": "tf.data", "held_out": 0.2}, "held_out=0 for Adience"),
        ({"reader": "tf.data", "crop_to_box": True}, "bounding boxes in adie"),
    ):
        (config,) = make_configs(["ce"], [0], [recipe], **common, **changes)
        plan = Plan((config,), str(tmp_path / "runs"), data_dir)
        with pytest.raises(ValueError, match=message):
            sweep.prepare_dataset(plan, config)
    common.update(fold=1, reader="tf.data")
    (config,) = make_configs(["ce"], [0], [recipe], **common)
    plan = Plan((config,), str(tmp_path / "runs"), data_dir)
    with pytest.raises(FileNotFoundError, match="Expected adience/fold_1 in"):
        sweep.prepare_dataset(plan, config)
