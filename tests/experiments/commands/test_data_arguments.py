"""What the command line says of data, and takes as data."""

import io
import json

import numpy as np
import pytest
from disk_layouts import write
from PIL import Image

from crl_keras.experiments.runs.records import read_records

pytestmark = pytest.mark.once
TRAIN = (
    "compare_losses.py --network logistic --losses ce --seeds 1 --epochs 1 "
    "--image-size 8 --batch-size 4 --reader pillow --output out"
).split()


def photo(level, turn=1):
    """White on its left as it is stored; its EXIF orientation is `turn`."""
    pixels = np.full((12, 20, 3), level, np.uint8)
    pixels[:, :10] = 250
    exif = Image.Exif()
    if turn != 1:
        exif[0x0112] = turn
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    return file.getvalue()


def photos(folder, turn=1, sizes=(12, 4)):
    return write(
        folder,
        {
            f"{name}/{i}.jpg": photo(40 * k, turn)
            for k, (name, size) in enumerate(zip("ab", sizes, strict=True))
            for i in range(size)
        },
    )


def test_a_list_of_labels_is_trained_on_and_recorded(tmp_path, script):
    photos(tmp_path / "images")
    lines = [f"a/{i}.jpg,cat" for i in range(12)]
    lines += [f"b/{i}.jpg,dog" for i in range(4)]
    (tmp_path / "pets.csv").write_text("\n".join(["file,breed", *lines]))
    command = (*TRAIN, "--labels", "./pets.csv", "--images", "images")
    code, _, error = script(*command)
    assert code == 1 and "--label-column" in error
    command = (*command, "--label-column", "breed")
    code, out, error = script(*command)
    assert code == 0, error
    assert "csv:pets.csv: Training images a class: 2 to 9, median 5.5." in out
    (record,) = read_records(tmp_path / "out")
    assert record.config.dataset == "csv:pets.csv?label=breed"
    assert record.result["dataset"]["name"] == "csv:pets.csv"
    sizes = record.result["dataset"]
    assert (sizes["train"], sizes["held_out"], sizes["test"]) == (11, 2, 3)
    # The same command finds it done, and says nothing of the data again.
    code, out, _ = script(*command)
    assert code == 0 and "Training images" not in out
    _, out, _ = script(*command, "--list")
    assert "0 of 1 runs to do" in out


def test_turned_photos_are_other_data(tmp_path, script):
    folder = photos(tmp_path / "set", turn=8, sizes=(8, 8))
    code, out, error = script(*TRAIN, "--dataset", f"folder:{folder}")
    assert code == 0, error
    assert "folder:set: 16 images of 16 will be turned upright" in out
    assert "Training images" not in out  # They are balanced.
    (record,) = read_records(tmp_path / "out")
    thumbnail = record.data()["thumbnails"][0].astype(int)
    # Stored white on the left; turned to the left, that is the lower half.
    assert thumbnail[-2:].min() > 200 > 120 > thumbnail[:2].max()
    command = (*TRAIN, "--dataset", f"folder:{folder}", "--no-exif")
    code, _, error = script(*command, "--seeds", "2")
    assert code == 1 and "made from other data" in error
    code, out, error = script(*command, "--output", "stored")
    assert code == 0, error
    assert "upright" not in out
    (stored,) = read_records(tmp_path / "stored")
    assert stored.path.name == record.path.name  # As before there was EXIF.
    thumbnail = stored.data()["thumbnails"][0].astype(int)
    assert thumbnail[:, :2].min() > 200 > 120 > thumbnail[:, -2:].max()


def test_a_validation_folder_is_held_out_unasked(tmp_path, script):
    for split, size in (("train", 6), ("val", 3), ("test", 2)):
        photos(tmp_path / "set" / split, sizes=(size, size))
    command = (*TRAIN, "--dataset", f"folder:{tmp_path / 'set'}")
    code, out, error = script(*command)
    assert code == 0, error
    assert "The validation part is held out" in out
    (record,) = read_records(tmp_path / "out")
    sizes = record.result["dataset"]
    assert (sizes["train"], sizes["held_out"], sizes["test"]) == (12, 6, 4)
    config = json.loads((record.path / "config.json").read_text())
    assert config["held_out"] == 0.1
    code, _, error = script(*command, "--held-out", "0.3")
    assert code == 1 and "without a held-out part" in error


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("compare_losses.py", ["--dataset", "."], "write folder:."),
        ("compare_losses.py", ["--dataset", "minst"], "'minst'"),
        ("compare_losses.py", ["--images", "."], "--images needs --lab"),
        ("compare_losses.py", ["--file-column", "x"], "--file-column needs"),
        ("compare_losses.py", "--labels a.csv --data-dir .".split(), "--image"),
        ("compare_losses.py", "--labels a --dataset svhn".split(), "or --data"),
        ("compare_losses.py", ["--labels", "a.csv"], "'a.csv', which is no fi"),
        ("finetune.py", ["--weights", "none"], "Expected --dataset folder:PA"),
    ],
)
def test_what_is_wrong_with_the_data_asked_for(
    script, name, arguments, message
):
    size = ["--image-size", "8"] if "a.csv" in arguments else []
    code, _, error = script(name, *arguments, *size)
    assert code == 1 and message in error
