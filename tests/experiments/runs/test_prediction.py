"""Saved models that are asked: which one, about which files, and how."""

import csv
import json

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy
from PIL import Image
from scipy import special
from test_config import make_config

from crl_keras.experiments.runs.prediction import image_files
from crl_keras.experiments.runs.prediction import load_classifier
from crl_keras.experiments.runs.records import RunFolder

CLASSES = ["cat", "dog", "eel"]
once = pytest.mark.once


def small_model():
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="tanh")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def save(experiment, held_out=None, **values):
    """A run with a model; `held_out` of its ten held-out images are wrong."""
    folder = RunFolder(experiment, make_config(**values))
    folder.begin()
    model = small_model()
    model.save(folder.path / "model.keras")
    info = dict(
        classes=CLASSES,
        input_shape=[8, 8, 3],
        resize_ratio=1.0,
        keep_aspect=False,
        crop_to_box=False,
        dataset="digits",
        network="tiny",
        loss=folder.config.loss,
    )
    (folder.path / "model.json").write_text(json.dumps(info))
    logits = dict(test=np.zeros((4, 3)))
    if held_out is not None:
        logits["held_out"] = np.tile([0.0, 1.0, 0.0], (10, 1))
        logits["held_out_labels"] = np.array([0] * held_out + [1] * 10)[:10]
    folder.finish(dict(status="done"), [dict(epoch=1)], logits)
    return folder.path, model


@pytest.fixture
def photos(tmp_path):
    """Seven images in folders, one file that is none, one of other kind."""
    rng = np.random.default_rng(0)
    names = ["a.png", "b.PNG", "deep/c.png", "deep/er/d.jpg", "e.png"]
    names += ["deep/f.png", "deep/g.png"]
    pixels = {}
    for name in names:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels[name] = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels[name]).save(path, quality=100)
        pixels[name] = np.asarray(Image.open(path))
    (tmp_path / "photos/notes.txt").write_text("no image")
    (tmp_path / "photos/.hidden.png").write_text("no image")
    (tmp_path / "photos/deep/broken.jpg").write_bytes(b"no image")
    return pixels


def expected(model, pixels, mirror=False):
    p = special.softmax(to_numpy(model(pixels[None])), axis=1)[0]
    if not mirror:
        return p
    return (p + expected(model, pixels[:, ::-1])) / 2


def test_a_folder_is_asked_in_batches_of_one_size(tmp_path, photos):
    _, model = save(tmp_path / "runs")
    classifier = load_classifier(tmp_path / "runs")
    shapes = []
    ask = classifier.model.predict_on_batch

    def counted(images):
        shapes.append(images.shape)
        return ask(images)

    classifier.model.predict_on_batch = counted
    files, missing = image_files([tmp_path / "photos"])
    names = [str(path.relative_to(tmp_path / "photos")) for path in files]
    assert sorted(names) == sorted([*photos, "deep/broken.jpg"]) and not missing
    found = dict(
        zip(names, classifier.predict(files, batch_size=3), strict=True)
    )
    assert set(shapes) == {(3, 8, 8, 3)} and len(shapes) == 3
    for name, pixels in photos.items():
        np.testing.assert_allclose(
            found[name][1], expected(model, pixels), atol=1e-5
        )
    assert isinstance(found["deep/broken.jpg"][1], OSError)
    mirrored = dict(
        zip(names, classifier.predict(files, mirror=True), strict=True)
    )
    for name, pixels in photos.items():
        np.testing.assert_allclose(
            mirrored[name][1], expected(model, pixels, True), atol=1e-5
        )


def test_the_script_asks_and_names_what_failed(tmp_path, photos, script):
    _, model = save(tmp_path / "runs")
    code, out, error = script("predict.py", "runs", "photos/a.png")
    assert code == 0 and error == ""
    p = expected(model, photos["a.png"])
    lines = [f"  {p[k]:7.2%}  {CLASSES[k]}" for k in np.argsort(-p)]
    assert out.splitlines() == ["photos/a.png", *lines]

    wanted = ("none.png", "photos", "photos/*.png", "nothing/*")
    code, out, error = script(
        *("predict.py", "runs", *wanted, "--csv", "out.csv", "--tta")
    )
    assert code == 1 and out == "Wrote 7 images to out.csv\n"
    for name in ("none.png", "photos/deep/broken.jpg", "nothing/*"):
        assert name in error
    assert "Traceback" not in error and len(error.splitlines()) == 3
    with open("out.csv", newline="") as file:
        rows = {row.pop("file"): row for row in csv.DictReader(file)}
    assert sorted(rows) == sorted(f"photos/{name}" for name in photos)
    for name, pixels in photos.items():
        p, row = expected(model, pixels, True), rows[f"photos/{name}"]
        order = np.argsort(-p)
        assert [row[f"class_{k}"] for k in (1, 2, 3)] == [
            CLASSES[k] for k in order
        ]
        values = [float(row[f"probability_{k}"]) for k in (1, 2, 3)]
        np.testing.assert_allclose(values, p[order], rtol=1e-4)


@once
def test_the_best_validated_of_several_is_asked(tmp_path, script):
    save(tmp_path, 3, loss="ce", seed=0)
    best, _ = save(tmp_path, 1, loss="crl", seed=0)
    other, _ = save(tmp_path, 2, loss="crl", seed=1)
    without, _ = save(tmp_path, None, loss="ce", seed=1)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    choice = load_classifier(tmp_path).choice
    assert choice.startswith(f"{best} (CRL, seed 0): of 4 runs it has")
    assert "lowest error on its held-out images, 10.00%" in choice
    assert load_classifier(tmp_path, seed=1).choice.startswith(str(other))
    assert load_classifier(tmp_path, "CRL(beta=1)", 1).choice == ""
    # The only one that is asked for needs no reason.
    assert load_classifier(tmp_path, "ce", 1).choice == ""
    with pytest.raises(ValueError, match="seed=7 and fold=None.*Received: "):
        load_classifier(tmp_path, seed=7)
    _, _, error = script("predict.py", ".", "a.png")
    assert "Model: " in error and best.name in error
    _, _, error = script("predict.py", ".", "a.png", "--loss", "crl")
    assert best.name in error and "of 2 runs" in error
    code, _, error = script(
        *("predict.py", ".", "a.png", "--loss", "ce", "--seed", "0")
    )
    assert code == 0 and error == ""


@once
def test_without_held_out_images_no_model_is_the_best(tmp_path):
    save(tmp_path, None, loss="ce", seed=0)
    save(tmp_path, None, loss="ce", seed=1)
    with pytest.raises(ValueError, match="Received 2: .*seed 0.*--loss"):
        load_classifier(tmp_path)
    assert load_classifier(tmp_path, seed=1).choice == ""


@once
def test_a_model_that_was_moved_away_is_asked(tmp_path):
    path, _ = save(tmp_path / "runs")
    for name in ("config.json", "result.json", "logits.npz"):
        (path / name).unlink()
    assert load_classifier(path).classes == CLASSES


def test_a_model_sees_images_as_its_training_did(tmp_path):
    """Upright where it was trained so; as stored by older versions."""
    folder, _ = save(tmp_path / "runs")
    photo = tmp_path / "photo.png"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # Stored turned by a quarter.
    Image.fromarray(pixels).save(photo, exif=exif)
    path = folder / "model.json"
    info = json.loads(path.read_text())
    expected = {True: np.rot90(pixels, -1), False: pixels, None: pixels}
    for applied, seen in expected.items():
        if applied is not None:
            info["exif"] = applied
        else:
            info.pop("exif")
        path.write_text(json.dumps(info))
        found = load_classifier(folder).read(photo)
        np.testing.assert_array_equal(found, seen)
