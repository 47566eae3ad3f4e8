"""The commands of docs/fine-tuning.md, each run on tiny photos."""

import pathlib
import re
import shlex

import disk_layouts
import keras
import pytest

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "fine-tuning.md"
# A model of one's own, as there are no weights; and little of everything.
SMALL = "--backbone tiny.keras --epochs 1 --image-size 32 --batch-size 8"
# What the page calls the runs of these backbones.
NAMES = {
    "finetune.py": "runs/photos-keras-mobilenet_v2",
    "finetune_cub.py": "runs/cub-keras_cv-resnet50",
}


def commands():
    """The words of every command of the page, in its order."""
    text = re.sub(r"\\\n\s+", "", PAGE.read_text())
    found = re.findall(r"^    python examples/(.+)$", text, re.MULTILINE)
    return [shlex.split(line) for line in found]


def write_backbone(path):
    layers = [
        keras.Input((32, 32, 3)),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(4, 3, strides=4, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2),
    ]
    keras.Sequential(layers).save(path)


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*(is not the full|the 17,393 faces)")
def test_every_command_does_what_the_page_says(tmp_path, monkeypatch, script):
    monkeypatch.setenv("HOME", str(tmp_path))
    files = {
        f"photos/{name}/{i}.jpg": disk_layouts.jpeg(60 * k, 5 * i)
        for k, name in enumerate(("elder", "hazel", "rowan"))
        for i in range(12)
    }
    files["bird.jpg"] = disk_layouts.jpeg(90)
    files["new-photos/a.jpg"] = disk_layouts.jpeg(120)
    files["holidays/2026/b.jpg"] = disk_layouts.jpeg(30)
    files |= disk_layouts.under(
        "data/CUB_200_2011", disk_layouts.cub_files(8, 1)[0]
    )
    files |= disk_layouts.under("data/adience", disk_layouts.adience_files())
    cars = disk_layouts.cars_layouts()["flat devkit"]
    files |= disk_layouts.under("data/stanford_cars", cars)
    disk_layouts.write(tmp_path, files)
    write_backbone(tmp_path / "tiny.keras")
    outputs = []
    for name, *words in commands():
        words = [w.replace("~", str(tmp_path)) for w in words]
        if name.startswith("finetune") and "--list-backbones" not in words:
            folder = NAMES.get(name, f"runs/{name}")
            words += [*SMALL.split(), "--output", folder]
            # Eight people are too few to hold out some of each age.
            words += ["--held-out", "0"] * ("adience" in name)
        if name == "export.py":  # Of the formats, what PyTorch writes alone.
            words = [*words[: words.index("--format")], "--format=torchscript"]
        code, out, error = script(name, *words)
        assert code == 0, (name, words, error)
        outputs.append((name, out))
    for folder in NAMES.values():
        assert [*(tmp_path / folder).rglob("report.html")]
    assert "elder" in (tmp_path / "found.csv").read_text()
    assert (tmp_path / "birds.csv").read_text().count(".jpg") > 2
    printed = [out for name, out in outputs if name == "predict.py"]
    assert any(bird in printed[1] for bird in disk_layouts.BIRDS)
    assert "mobilenet_v2" in outputs[-1][1]
    assert len(outputs) == 10
