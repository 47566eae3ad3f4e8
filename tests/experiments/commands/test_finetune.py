"""Fine-tuning, from the files of the data sets to the saved model."""

import csv
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import disk_layouts
import keras
import numpy as np
import pytest
from fresh import python
from PIL import Image

from crl_keras.experiments.analysis import tables
from crl_keras.experiments.analysis.comparison import compare
from crl_keras.experiments.analysis.verdicts import verdict
from crl_keras.experiments.data import image_checks
from crl_keras.experiments.data import sources
from crl_keras.experiments.data.image_files import IncompleteDataWarning
from crl_keras.experiments.runs import backbones
from crl_keras.experiments.runs import sweep
from crl_keras.experiments.runs import training
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.prediction import load_classifier
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.sweep import Plan
from crl_keras.experiments.runs.sweep import make_configs
from crl_keras.networks import NETWORKS

BACKEND = keras.backend.backend()
EXAMPLES = pathlib.Path(__file__).parents[3] / "examples"
once = pytest.mark.once
# Tiny trees are no full data sets, and this is said.
pytestmark = pytest.mark.filterwarnings(
    f"ignore::{IncompleteDataWarning.__module__}.IncompleteDataWarning"
)


def tiny(input_shape, classes):
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.AveragePooling2D(4),
            keras.layers.Flatten(),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(classes, name="logits"),
        ]
    )


@pytest.fixture
def tiny_network(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", tiny)


def cub(folder):
    files, _ = disk_layouts.cub_files(4, 2)
    return disk_layouts.write(folder / "CUB_200_2011", files)


def make_plan(output, data_dir, losses=("crl",), save=False, **values):
    """Runs on tiny trees."""
    changes = dict(image_size=16, batch_size=6, epochs=2, scaling="unit")
    recipe = get_recipe("finetune", **{**changes, **values.pop("recipe", {})})
    folds = values.pop("folds", [None])
    common = dict(network="tiny", backend=BACKEND, reader="pillow") | values
    configs = [
        config
        for fold in folds
        for config in make_configs(losses, [0], [recipe], fold=fold, **common)
    ]
    options = training.Options(save_model=save)
    return Plan(tuple(configs), str(output), str(data_dir), options=options)


def run(plan):
    sweep.run_sweep(plan, cache=sweep.check_plan(plan))
    return read_records(plan.output)


def start(script, *arguments, cwd):
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / script), *arguments],
        cwd=cwd,
        env=dict(os.environ, COLUMNS="100"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    out, error = process.communicate()
    assert process.returncode == 0, error[-3000:]
    return out


def numbers(folder):
    (record,) = read_records(folder)
    timed = ("seconds", "test_seconds", "images_per_second")
    rows = [
        {k: v for k, v in row.items() if k not in timed}
        for row in record.history
    ]
    return rows, record.logits()["test"]


@once  # test_runs.py kills runs on every backend.
def test_the_command_killed_and_given_again(tmp_path, script):
    """KerasCV's ResNet-18 on birds, in half precision; then it is asked."""
    command = (
        "--backbone resnet18 --weights none --image-size 32 --epochs 3 "
        "--batch-size 6 --accumulate 2 --held-out 0 --head-epochs 1 "
        f"--precision mixed_float16 --data-dir {cub(tmp_path)}"
    ).split()
    whole = script("finetune_cub.py", *command, "--output", "a")[1]
    assert "[1/1] cub, keras_cv/resnet18, CRL seed 0" in whole
    killed = start("finetune_cub.py", *command, "--output", "b", cwd=tmp_path)
    while killed.poll() is None and not [*tmp_path.glob("b/*/state.npz")]:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not [*tmp_path.glob("b/*/result.json")]
    again = start("finetune_cub.py", *command, "--output", "b", cwd=tmp_path)
    assert "[1/1] cub, keras_cv/resnet18, CRL seed 0" in finished(again)
    rows, logits = numbers(tmp_path / "a")
    assert numbers(tmp_path / "b")[0] == rows and len(rows) == 3
    np.testing.assert_array_equal(numbers(tmp_path / "b")[1], logits)
    assert np.isfinite(logits).all() and logits.dtype == np.float32
    assert (tmp_path / "b" / "report" / "report.html").exists()

    image = next(tmp_path.glob("CUB_200_2011/images/001*/*_0001_*.jpg"))
    out = script("predict.py", "b", str(image))[1]
    found = re.findall(r"([\d.]+)%  (\w+)", out)
    assert {name for _, name in found} == {*disk_layouts.BIRDS}
    assert sum(float(p) for p, _ in found) == pytest.approx(100, abs=0.05)
    # The first test image, whose logits the run has stored.
    p = np.exp(logits[0] - logits[0].max())
    assert float(found[0][0]) == pytest.approx(100 * max(p / p.sum()), abs=0.1)


@once  # What pairs folds sees records alone.
def test_adience_is_paired_by_fold(tmp_path, tiny_network):
    files = disk_layouts.adience_files()
    folder = disk_layouts.write(tmp_path / "adience", files)
    plan = make_plan(
        tmp_path / "runs",
        folder,
        ["ce", "crl"],
        dataset="adience",
        folds=range(5),
    )
    records = run(plan)
    assert len(records) == 10
    ((group,),) = [family.groups for family in compare(records)]
    (comparison,) = group.comparisons
    assert comparison.seeds == tuple((0, fold) for fold in range(5))
    by_fold = {
        (r.config.loss, r.config.fold): r.result["last"] for r in records
    }
    crl = "crl(alpha=1.5,beta=1)"
    expected = [
        by_fold[crl, k]["error"] - by_fold["ce", k]["error"] for k in range(5)
    ]
    np.testing.assert_allclose(comparison.differences, expected)
    assert any("not independent" in note for note in group.notes)
    assert "5 pairs of seed and fold" in verdict(comparison)
    for made in (tables.error_table, tables.further_table):
        text = tables.to_markdown(made(group))
        assert "Pairs for 80% power" in text and "eeds for 80" not in text
    text = tables.to_markdown(tables.error_table(group))
    assert "over the seeds and folds" in text
    assert "paired by seed and fold (5 pairs)" in text
    table = tables.fold_table(group)
    for row, loss in zip(table.rows, ("ce", crl), strict=True):
        for cell, name in ((3, "accuracy"), (4, "one_off_accuracy")):
            values = [by_fold[loss, k][name] for k in range(5)]
            mean, std = row[cell].values
            assert mean == pytest.approx(np.mean(values))
            assert std == pytest.approx(np.std(values, ddof=1))
    assert "Accuracy over the folds" in (tables.to_markdown(table))


@once
def test_a_fold_is_a_test_of_its_own(tmp_path, monkeypatch):
    folder = disk_layouts.write(
        tmp_path / "adience", disk_layouts.adience_files()
    )
    decoded, decode = [], image_checks._checked

    def count(paths, reader):
        decoded.extend(paths)
        return decode(paths, reader)

    monkeypatch.setattr(image_checks, "_checked", count)
    found = [sources.open_dataset("adience", folder, fold) for fold in range(5)]
    # The folds share their images, each of which is checked once.
    assert len(decoded) == len(set(decoded)) == 80
    tested = [set(data.test.paths) for data in found]
    assert not set.intersection(*tested)
    assert len({data.fingerprint for data in found}) == 5
    for wrong in (None, 5):
        with pytest.raises(ValueError, match="fold of adience from 0 to 4"):
            sources.open_dataset("adience", folder, wrong)
    with pytest.raises(ValueError, match="no fold for cub"):
        sources.open_dataset("cub", folder, 0)
    with pytest.raises(ValueError, match="--data-dir"):
        sources.open_dataset("adience", None, 0)


def test_a_set_of_tfds_trains_and_goes_on(tmp_path, tiny_network):
    """Held out, cropped, stopped after an epoch, resumed."""
    rng = np.random.default_rng(0)
    splits = {
        split: rng.integers(0, 256, (n, 20, 24, 3), np.uint8)
        for split, n in {"train": 21, "test": 8}.items()
    }
    disk_layouts.store_tfds(tmp_path / "tfds", "streamed", splits)
    common = dict(dataset="tfds:streamed", held_out=0.2)

    def plan(name):
        made = make_plan(tmp_path / name, tmp_path / "tfds", **common)
        configs = [
            RunConfig.from_dict({**c.to_dict(), "reader": "tf.data"})
            for c in made.configs
        ]
        return Plan(tuple(configs), made.output, made.data_dir)

    (whole,) = run(plan("whole"))
    assert whole.result["dataset"]["train"] == 17
    assert whole.result["dataset"]["held_out"] == 4

    class Stop(Exception):
        pass

    def stop(row):
        raise Stop

    broken = plan("broken")
    with pytest.raises(Stop):
        sweep.run_sweep(broken, on_epoch=stop)
    run(broken)
    for a, b in zip(
        numbers(tmp_path / "whole")[0],
        numbers(tmp_path / "broken")[0],
        strict=True,
    ):
        assert a == b
    assert whole.data()["thumbnails"].shape == (8, 16, 16, 3)


@once
def test_a_folder_of_images_of_many_sizes(tmp_path, tiny_network):
    for k, name in enumerate(("cat", "dog")):
        for i in range(6):
            path = tmp_path / "pets" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            color = (40 * i, 200 * k, 0)
            Image.new("RGB", (20 + i, 30), color).save(path)
    name = f"folder:{tmp_path / 'pets'}"
    plan = make_plan(tmp_path / "runs", None, dataset=name)
    plan = Plan(plan.configs, plan.output)
    (record,) = run(plan)
    sizes = record.result["dataset"]
    assert (sizes["train"], sizes["test"]) == (10, 2)
    assert sizes["name"] == "folder:pets"

    broken = tmp_path / "pets" / "cat" / "0.png"
    broken.write_bytes(broken.read_bytes()[:45])
    with pytest.raises(OSError, match=r"cat.0.png.*--skip-unreadable"):
        sources.open_dataset(name, resized=True)
    with pytest.warns(UserWarning, match="1 unreadable images skipped.*0.png"):
        data = sources.open_dataset(name, resized=True, skip_unreadable=True)
    assert len(data.train) + len(data.test) == 11
    broken.unlink()
    broken.symlink_to(tmp_path / "gone")
    with pytest.raises(OSError, match=r"cat.0.png.*--skip-unreadable"):
        sources.open_dataset(name, resized=True)
    with pytest.raises(FileNotFoundError, match="unpacked folder"):
        sources.open_dataset("folder:nowhere", resized=True)


@once
def test_which_reader_reads_what(monkeypatch):
    resolve = sources.resolve_reader
    assert resolve("cub", True) == resolve("folder:x", True) == "tf.data"
    assert resolve("folder:x", False) == resolve("cifar10", False) == "memory"
    assert resolve("cub", True, "pillow") == "pillow"
    assert resolve("cub", True, "simplejpeg") == "simplejpeg"
    with pytest.raises(ValueError, match="digits, one of: memory.*'pillow'"):
        resolve("digits", False, "pillow")
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    assert resolve("cub", True) == "pillow"
    assert resolve("imagenet2012", True) == "tf.data"


def test_a_saved_model_is_asked_by_its_own_names(tmp_path, tiny_network):
    folder = cub(tmp_path)
    plan = make_plan(tmp_path / "runs", folder, save=True, dataset="cub")
    (record,) = run(plan)
    classifier = load_classifier(tmp_path / "runs")
    data = sources.open_dataset("cub", folder)
    names = ["/".join(path.split(os.sep)[-2:]) for path in data.test.paths]
    assert list(record.data()["names"]) == names and "001." in names[0]
    with open(record.path / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == names
    for path, logits in zip(
        data.test.paths, record.logits()["test"], strict=True
    ):
        found = dict(classifier(path))
        p = np.exp(logits) / np.exp(logits).sum()
        for k, name in enumerate(data.class_names):
            assert found[name] == pytest.approx(float(p[k]), abs=1e-4)
    best, *_ = classifier(path, posterior=True)
    assert best[0] == classifier(path)[0][0] and best[1] != found[best[0]]
    assert load_classifier(record.path).info == classifier.info
    with pytest.raises(OSError, match="images.txt.*cannot be read"):
        classifier(folder / "images.txt")
    with pytest.raises(FileNotFoundError, match="--save-model"):
        load_classifier(tmp_path)
    more = make_plan(tmp_path / "runs", folder, ["ce"], True, dataset="cub")
    run(more)
    with pytest.raises(ValueError, match="Received 2.*one run") as error:
        load_classifier(tmp_path / "runs")
    assert f"{record.path} (CRL, seed 0)" in str(error.value)
    assert "(CE, seed 0)" in str(error.value)


def test_images_in_memory_are_asked_about_by_their_files(tmp_path):
    """Grey ones of one size, which the test does not crop."""
    rng = np.random.default_rng(0)
    for i in range(24):
        image = rng.integers(0, 200, (12, 12), np.uint8)
        image[:, :6] += np.uint8(55 * (i % 2))
        path = tmp_path / "pets" / "cat dog".split()[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (config,) = make_configs(
        ["crl"],
        [0],
        [get_recipe("short", epochs=2, batch_size=6)],
        dataset=f"folder:{tmp_path / 'pets'}",
        network="mlp",
        backend=BACKEND,
    )
    options = training.Options(save_model=True)
    plan = Plan((config,), str(tmp_path / "runs"), options=options)
    (record,) = run(plan)
    data = sweep.prepare_dataset(plan, record.config)
    classifier = load_classifier(plan.output)
    files = {
        np.asarray(Image.open(path)).tobytes(): path
        for path in (tmp_path / "pets").rglob("*.png")
    }
    logits = record.logits()["test"]
    assert list(record.data()["names"]) == [str(i) for i in range(len(logits))]
    for pixels, x in zip(data.test.images, logits, strict=True):
        found = dict(classifier(files[pixels.tobytes()]))
        p = np.exp(x) / np.exp(x).sum()
        for name, value in zip(data.class_names, p, strict=True):
            assert found[name] == pytest.approx(float(value), abs=1e-5)


def trained(config, feed, epochs=1):
    model, _, _ = training.build_model(config, feed)
    before = model.get_weights()
    history = model.fit(
        feed.training(), epochs=epochs, shuffle=False, verbose=0
    )
    return model, before, history.history["loss"]


def feed_and_config(tmp_path, **changes):
    plan = make_plan(tmp_path / "runs", cub(tmp_path), dataset="cub", **changes)
    (config,) = plan.configs
    data = sweep.prepare_dataset(plan, config)
    return make_feed(data, config.recipe, 0, "pillow"), config


def test_parts_of_a_batch_are_the_batch(tmp_path, monkeypatch):
    """Without batch normalisation, which sees the parts."""

    def plain(input_shape, classes):
        return keras.Sequential(
            [
                keras.Input(input_shape),
                keras.layers.Flatten(),
                keras.layers.Dense(classes, name="logits"),
            ]
        )

    monkeypatch.setitem(NETWORKS, "tiny", plain)
    weights = []
    for accumulate in (1, 2):
        recipe = dict(
            accumulate=accumulate,
            augmentation="none",
            batch_size=4,
            epochs=2,
            milestones=(0.5,),
        )
        feed, config = feed_and_config(
            tmp_path / str(accumulate), recipe=recipe, train_limit=12
        )
        model, before, _ = trained(config, feed, epochs=2)
        weights.append(model.get_weights())
    assert np.abs(weights[0][0] - before[0]).max() > 1e-3
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


def test_the_loss_scale_moves_and_the_loss_stays_finite(tmp_path, tiny_network):
    recipe = dict(
        learning_rate=0.05, head_rate=1.0, augmentation="none", milestones=()
    )
    feed, config = feed_and_config(
        tmp_path, precision="mixed_float16", recipe=recipe
    )
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, _, _ = training.build_model(config, feed)
        model.optimizer.dynamic_scale.assign(2.0**40)
        history = model.fit(
            feed.training(), epochs=20, shuffle=False, verbose=0
        ).history
    finally:
        keras.config.set_dtype_policy(policy)
    scale = float(keras.ops.convert_to_numpy(model.optimizer.dynamic_scale))
    assert 1 <= scale < 2.0**35
    assert np.isfinite(history["loss"]).all()
    assert history["loss"][-1] < history["loss"][0]


def backbone_config(tmp_path, **recipe):
    return feed_and_config(
        tmp_path,
        network="keras/mobilenet_v2",
        recipe={**dict(image_size=32, head_rate=1.0), **recipe},
    )


def changed(model, before):
    after = dict(
        zip([v.path for v in model.weights], model.get_weights(), strict=True)
    )
    before = dict(zip(after, before, strict=True))
    return {k for k in after if not np.array_equal(after[k], before[k])}


def test_frozen_and_first_the_head_alone(tmp_path, small_backbone, monkeypatch):
    monkeypatch.setattr(
        keras.applications,
        "MobileNetV2",
        lambda **arguments: keras.models.clone_model(small_backbone),
    )
    model, before, _ = trained(
        *reversed(
            backbone_config(
                tmp_path / "frozen", image_size=16, freeze_backbone=True
            )
        )
    )
    moved = {path for path in changed(model, before) if "seed" not in path}
    assert {path.split("/")[-2] for path in moved} == {"logits"}
    model, before, _ = trained(
        *reversed(
            backbone_config(tmp_path / "first", image_size=16, head_epochs=1)
        )
    )
    moved = {
        path
        for path in changed(model, before)
        if not re.search("moving|seed", path)
    }
    assert {path.split("/")[-2] for path in moved} == {"logits"}


def test_a_checkpoint_of_one_s_own(tmp_path):
    feed, config = backbone_config(tmp_path)
    model, _, _ = training.build_model(config, feed)
    (network,) = [x for x in model.layers if x.name == "mobilenet_v2"]
    (backbone,) = [x for x in network.layers if x.name.startswith("mobilenet")]
    path = tmp_path / "mine.weights.h5"
    backbone.set_weights([w + 0.5 for w in backbone.get_weights()])
    backbone.save_weights(path)
    values = {**config.to_dict(), "weights": str(path), "seed": 1}
    other, _, _ = training.build_model(RunConfig.from_dict(values), feed)
    (network,) = [x for x in other.layers if x.name == "mobilenet_v2"]
    (loaded,) = [x for x in network.layers if x.name.startswith("mobilenet")]
    for a, b in zip(backbone.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def small_backbone(monkeypatch):
    """keras.applications has a small network of this name."""
    small = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3)]
    )
    monkeypatch.setattr(
        keras.applications, "MobileNetV2", lambda **arguments: small
    )
    return small


@once
def test_a_file_that_holds_other_weights(tmp_path, small_backbone):
    """It is said before training, and never compared with the first one's."""
    path = tmp_path / "mine.weights.h5"
    small_backbone.save_weights(path)
    common = dict(
        dataset="cub", network="keras/mobilenet_v2", weights=str(path)
    )
    folder = cub(tmp_path)
    run(make_plan(tmp_path / "runs", folder, ["ce"], **common))
    plan = make_plan(tmp_path / "runs", folder, ["ce", "crl"], **common)
    small_backbone.set_weights([w + 1 for w in small_backbone.get_weights()])
    small_backbone.save_weights(path)
    with pytest.raises(ValueError, match="trained from other weights with"):
        run(plan)

    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    for wrong in ("junk", "another network"):
        path.write_bytes(b"no weights at all")
        if wrong != "junk":
            other.save_weights(path)
        plan = make_plan(tmp_path / wrong, folder, ["ce"], **common)
        with pytest.raises(ValueError, match="mine.*without its head") as found:
            run(plan)
        assert len(str(found.value)) < 600
        assert not [*(tmp_path / wrong).glob("*/config.json")]


@once
def test_the_library_of_a_saved_model_is_named(
    tmp_path, tiny_network, monkeypatch
):
    plan = make_plan(tmp_path / "runs", cub(tmp_path), dataset="cub", save=True)
    run(plan)
    (path,) = tmp_path.glob("runs/*/model.json")
    path.write_text(path.read_text().replace('"tiny"', '"keras_cv/resnet18"'))
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r'"crl-keras\[keras-cv\]"'):
        load_classifier(plan.output)


@once
def test_both_folders_of_adience(script):
    command = ("finetune_adience.py", "--weights", "none", "--data-dir", "x")
    for faces, dataset in (("aligned", "adience"), ("faces", "adience_faces")):
        _, out, _ = script(*command, "--faces", faces, "--list")
        assert f"to do  {dataset} fold 4  " in out


@once
@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("finetune_cub.py", ["--backbone", "vgg"], "such as keras_hub/vgg_11"),
        ("finetune_cub.py", ["--weights", "nowhere.h5"], "does not exist"),
        (
            "finetune_cub.py",
            ["--backbone", "resnet34", "--library", "keras_cv"],
            "Take it from keras_hub",
        ),
        ("finetune_cub.py", ["--weights", "none"], "--data-dir"),
        ("finetune_adience.py", ["--fold", "7"], "a number from 0 to 4"),
        (
            "compare_losses.py",
            "--dataset digits --network mlp --crop-to-box".split(),
            "Expected bounding boxes in digits",
        ),
        ("predict.py", ["nowhere", "a.jpg"], "--save-model"),
        ("predict.py", ["nowhere", "a.jpg", "--top", "0"], "at least 1"),
        ("compare_losses.py", ["--weights", "none"], "for a backbone"),
        ("compare_losses.py", ["--seeds", "0"], "--seeds must be at least 1"),
        ("compare_losses.py", ["--freeze-backbone"], "needs a backbone"),
        ("compare_losses.py", ["--crop", "random"], "needs --image-size"),
        ("compare_losses.py", ["--baseline", "mse"], "mse"),
    ],
)
def test_what_the_user_can_mend(script, name, arguments, message):
    code, _, error = script(name, *arguments)
    assert code != 0 and message in error


@once
def test_the_runs_are_listed_and_not_made(tmp_path, script):
    _, out, _ = script(
        *("finetune_adience.py", "--weights", "none", "--data-dir", "x"),
        *("--losses", "ce", "crl", "--seeds", "2", "--list"),
    )
    assert len(re.findall("to do", out)) == 20 + 1
    assert "fold 4" in out and "20 of 20 runs to do" in out
    assert not [*tmp_path.glob("runs/*/*")]


@once
def test_a_loss_in_two_spellings_is_one(script):
    losses = ("crl", "crl(beta=1)", "crl(alpha=1.5,beta=1.0)")
    command = ("compare_losses.py", "--list", "--seeds", "2", "--losses")
    _, out, _ = script(*command, *losses)
    assert "2 of 2 runs to do" in out


@once
def test_a_model_that_was_not_kept_is_said(tmp_path, script):
    command = (
        "compare_losses.py --dataset digits --network logistic --losses ce "
        "--seeds 1 --epochs 1 --output out"
    ).split()
    script(*command)
    assert (
        "1 of the finished runs have no model"
        in script(*command, "--save-model")[1]
    )
    (result,) = tmp_path.glob("out/*/result.json")
    result.unlink()
    script(*command, "--save-model")
    assert "have no model" not in script(*command, "--save-model")[1]
    assert (result.parent / "model.keras").exists()


@once
@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Max retries exceeded with url"),
        # What KerasHub says of timm's weights where a package is missing.
        ImportError("requires the `huggingface_hub` package"),
        ValueError("Unknown preset"),
    ],
)
def test_weights_that_cannot_be_fetched(tmp_path, monkeypatch, error):
    """What a library raises becomes advice, before anything is trained."""

    def offline(name, input_shape, imagenet):
        raise error

    monkeypatch.setattr(backbones, "_keras_cv", offline)
    plan = make_plan(
        tmp_path / "runs",
        cub(tmp_path),
        dataset="cub",
        network="keras_cv/resnet50",
        weights="imagenet",
    )
    with pytest.raises(OSError, match="could not be fetched.*--weights none"):
        run(plan)
    assert not [*tmp_path.glob("runs/*/config.json")]


@once
@pytest.mark.parametrize(
    "name, backbone, library",
    [
        ("finetune_cub.py", "resnet50", "keras_cv"),
        ("finetune_cars.py", "mobilenet_v2", "keras"),
        ("finetune_adience.py", "resnet34", "keras_hub"),
        ("finetune_adience.py", "resnet152_v2", "keras"),
    ],
)
def test_a_backbone_comes_from_where_its_weights_are(
    script, name, backbone, library
):
    command = (name, "--backbone", backbone, "--data-dir", "x", "--list")
    _, out, _ = script(*command)
    assert f"  {library}/{backbone}  " in out


@once
@pytest.mark.parametrize(
    "backend, library, backbone",
    [("jax", "keras_hub", "resnet18"), ("torch", "keras", "mobilenet_v2")],
)
def test_no_tensorflow_is_needed(tmp_path, backend, library, backbone):
    """From image files to a model that is asked, with TensorFlow blocked."""
    disk_layouts.write_images(tmp_path / "pets", 8)
    code = (
        "import os, runpy, sys\n"
        "class Hidden:\n"
        "    def __init__(self, finder):\n"
        "        self.finder = finder\n"
        "    def __getattr__(self, name):\n"
        "        return getattr(self.finder, name)\n"
        "    def find_spec(self, name, *where):\n"
        "        if name.split('.')[0] != 'tensorflow':\n"
        "            return self.finder.find_spec(name, *where)\n"
        "sys.meta_path[:] = map(Hidden, sys.meta_path)\n"
        "sys.argv = sys.argv[1:]\n"
        "sys.path.insert(0, os.path.dirname(sys.argv[0]))\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    for words in (
        ["finetune.py", "--library", library, "--backbone", backbone]
        + "--dataset folder:pets --weights none --image-size 32 --epochs 1 "
        "--batch-size 4 --held-out 0 --freeze-backbone --output runs".split(),
        ["predict.py", "runs", "pets/0/0.jpg"],
    ):
        command = ("-c", code, EXAMPLES / words[0], *words[1:])
        done = python(*command, cwd=tmp_path, KERAS_BACKEND=backend)
    assert "%  " in done.stdout
