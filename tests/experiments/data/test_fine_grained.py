"""read_cub and read_cars on tiny copies in each layout that people have."""

import pathlib
import shutil

import disk_layouts
import numpy as np
import pytest
from disk_layouts import BIRDS
from disk_layouts import CARS
from disk_layouts import CARS_TEST
from disk_layouts import CARS_TRAIN
from disk_layouts import cars_class_folders
from disk_layouts import cars_devkit
from disk_layouts import cars_images
from disk_layouts import cars_layouts
from disk_layouts import cub_files
from disk_layouts import names_of
from disk_layouts import pack
from disk_layouts import under
from disk_layouts import write
from PIL import Image

from crl_keras.experiments.data import fine_grained
from crl_keras.experiments.data.cars196_classes import CARS196
from crl_keras.experiments.data.fine_grained import read_cars
from crl_keras.experiments.data.fine_grained import read_cub
from crl_keras.experiments.data.image_files import IncompleteDataWarning

pytestmark = pytest.mark.once
LAYOUTS = cars_layouts()


def tiny(read, path):
    """Reads a set that is not the full one, as it must be said."""
    with pytest.warns(IncompleteDataWarning, match="is not the full"):
        return read(path)


def reds(split):
    """The grey level of each image, which tells what it is."""
    levels = []
    for path in split.paths:
        with Image.open(path) as image:
            levels.append(image.getpixel((0, 0))[0])
    return levels


# CUB-200-2011


def check_cub(data, rows):
    assert data.name == "cub" and data.class_names == BIRDS
    for split, wanted in ((data.train, True), (data.test, False)):
        expected = [row for row in rows if row[2] == wanted]
        assert names_of(split) == [row[0] for row in expected]
        assert split.labels.tolist() == [row[1] for row in expected]
        assert split.boxes.tolist() == [
            [x, y, x + w, y + h] for *_, x, y, w, h in expected
        ]
        assert np.allclose(reds(split), 20 * split.labels, atol=2)


@pytest.mark.parametrize("inside", ["", "CUB_200_2011/", "CUB_200_2011/" * 2])
def test_cub_in_each_place(tmp_path, inside):
    files, rows = cub_files()
    write(tmp_path, {inside + name: data for name, data in files.items()})
    check_cub(tiny(read_cub, tmp_path), rows)
    # A path as given on a command line.
    check_cub(tiny(read_cub, f"{tmp_path}/"), rows)


@pytest.mark.parametrize("name", ["CUB_200_2011.tgz", "CUB_200_2011.tar.gz"])
def test_cub_as_an_archive(tmp_path, name):
    files, rows = cub_files()
    files = {f"CUB_200_2011/{key}": data for key, data in files.items()}
    archive = pack(tmp_path / name, files | {"attributes.txt": "1 x"})
    first = tiny(read_cub, tmp_path)
    check_cub(first, rows)
    check_cub(tiny(read_cub, archive), rows)
    archive.unlink()
    again = tiny(read_cub, tmp_path)
    check_cub(again, rows)
    assert again.fingerprint == first.fingerprint


def test_a_zip_is_to_be_unpacked_by_hand(tmp_path):
    path = tmp_path / "CUB_200_2011.zip"
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match="CUB_200_2011.zip. Unpack it by"):
        read_cub(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_cub_lists_that_an_editor_has_touched(tmp_path):
    files, rows = cub_files()
    lists = {k: v for k, v in files.items() if k.endswith(".txt")}
    # A mark of the byte order, other ends of lines, empty lines.
    touched = {
        k: "\ufeff" + v.replace("\n", " \r\n") + "\r\n \r\n"
        for k, v in lists.items()
    }
    check_cub(tiny(read_cub, write(tmp_path, files | touched)), rows)


def test_cub_without_boxes(tmp_path):
    write(tmp_path, cub_files()[0])
    (tmp_path / "bounding_boxes.txt").unlink()
    data = tiny(read_cub, tmp_path)
    assert data.train.boxes is None and data.test.boxes is None


def test_cub_in_full_does_not_warn(tmp_path, monkeypatch):
    assert fine_grained.CUB_SIZES == (5994, 5794)
    write(tmp_path, cub_files()[0])
    monkeypatch.setattr(fine_grained, "CUB_SIZES", (6, 3))
    assert len(read_cub(tmp_path).train) == 6
    monkeypatch.setattr(fine_grained, "CUB_SIZES", (6, 4))
    with pytest.warns(IncompleteDataWarning, match="6 training and 3 test.*4"):
        read_cub(tmp_path)


def test_relative_paths_become_absolute(tmp_path, monkeypatch):
    write(tmp_path / "birds", cub_files()[0])
    monkeypatch.chdir(tmp_path)
    data = tiny(read_cub, "birds")
    assert data.train.paths[0].startswith(str(tmp_path))


def test_cub_without_an_image(tmp_path):
    files, rows = cub_files()
    write(tmp_path, files)
    for row in rows[:2]:
        (tmp_path / "images" / row[0]).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"9 images that .*images\.txt.*Missing: 2, '"
    ):
        read_cub(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "train_test_split.txt",
        "image_class_labels.txt",
        "classes.txt",
    ],
)
def test_cub_without_a_list(tmp_path, name):
    write(tmp_path, cub_files()[0])
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"Expected {name} in"):
        read_cub(tmp_path)


@pytest.mark.parametrize(
    "name, change, message",
    [
        ("image_class_labels.txt", ("3 1\n", ""), "too few: '3'"),
        ("image_class_labels.txt", ("3 1\n", "3 4\n"), "class ids .*: 4"),
        ("image_class_labels.txt", ("3 1\n", "3\n"), "line 7 of .*'3'"),
        ("train_test_split.txt", ("3 1\n", "3 1\n3 1\n"), "line 3 .*'3 1'"),
        ("train_test_split.txt", ("3 1\n", "3 yes\n"), "line 2 .*'3 yes'"),
        ("train_test_split.txt", ("3 1\n", "3 2\n"), "0 or 1.*2"),
        ("bounding_boxes.txt", ("60.0 27.0", "60.0"), "4 value.*line 1 "),
    ],
)
def test_cub_with_a_damaged_list(tmp_path, name, change, message):
    files, _ = cub_files()
    assert change[0] in files[name]
    write(tmp_path, files | {name: files[name].replace(*change, 1)})
    with pytest.raises(ValueError, match=message):
        read_cub(tmp_path)


@pytest.mark.parametrize("read", [read_cub, read_cars])
def test_where_nothing_is(tmp_path, read):
    source = {read_cub: r"data\.caltech\.edu", read_cars: "Kaggle"}[read]
    with pytest.raises(FileNotFoundError, match=f"not exist.*{source}"):
        read(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=f"empty folder.*{source}"):
        read(tmp_path)
    write(tmp_path, {"readme.txt": ""})
    with pytest.raises(FileNotFoundError, match=r"'readme\.txt'"):
        read(tmp_path)


# Stanford Cars


def check_cars(data, boxes=True):
    assert data.name == "cars" and data.class_names == CARS
    for split, rows in ((data.train, CARS_TRAIN), (data.test, CARS_TEST)):
        levels = np.array(reds(split))
        order = np.argsort(levels)
        numbers = 1 + np.arange(len(rows))
        assert np.allclose(levels[order], 10 * numbers, atol=3)
        assert split.labels[order].tolist() == [row.label for row in rows]
        assert (split.boxes is not None) == boxes
        if boxes:
            assert split.boxes.tolist() == [list(row.box) for row in rows]
            names = [row.fname for row in rows]
            if "car_ims" not in split.paths[0]:
                assert names_of(split, 1) == names


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cars_in_each_layout(tmp_path, layout):
    write(tmp_path, LAYOUTS[layout])
    data = tiny(read_cars, tmp_path)
    check_cars(data, boxes="class folders" not in layout)


def test_the_same_cars_have_the_same_fingerprint(tmp_path):
    prints = set()
    for layout in ("original", "torchvision", "kaggle, labels beside"):
        folder = write(tmp_path / layout, LAYOUTS[layout])
        prints.add(tiny(read_cars, folder).fingerprint)
    assert len(prints) == 1


def test_cars_as_archives(tmp_path):
    images = cars_images()
    for split in ("cars_train", "cars_test"):
        files = {k: v for k, v in images.items() if k.startswith(split)}
        pack(tmp_path / f"{split}.tgz", files)
    pack(tmp_path / "car_devkit.tgz", under("devkit", cars_devkit()))
    write(tmp_path, disk_layouts.TEST_LABELS)
    data = tiny(read_cars, tmp_path / "cars_train.tgz")
    check_cars(data)
    for archive in tmp_path.glob("*.tgz"):
        archive.unlink()
    assert tiny(read_cars, tmp_path).fingerprint == data.fingerprint


def test_one_list_as_an_archive(tmp_path):
    files = disk_layouts.cars_one_list()
    write(tmp_path, {"cars_annos.mat": files.pop("cars_annos.mat")})
    pack(tmp_path / "car_ims.tgz", files)
    check_cars(tiny(read_cars, tmp_path))


@pytest.mark.parametrize("slash", ["-", "_", " ", ""])
def test_folders_of_classes_are_not_counted_off(tmp_path, slash):
    files = cars_class_folders(slash)
    noise = {"train/.DS_Store": "", f"test/{CARS[0]}/._00001.jpg": "x"}
    write(tmp_path, files | noise)
    data = tiny(read_cars, tmp_path)
    check_cars(data, boxes=False)
    # In the order of their names the first two would change places.
    assert sorted(CARS) != list(CARS)


def test_folders_of_classes_with_another_devkit(tmp_path):
    names = ("Zebra", "Apple", "Mango")
    files = {
        path.replace(path.split("/")[1], names[label]): row.image
        for split, rows in (("train", CARS_TRAIN), ("test", CARS_TEST))
        for row in rows
        for label in [row.label]
        for path in [f"{split}/x/{row.fname}"]
    }
    meta = disk_layouts.mat(class_names=disk_layouts.cell(names))
    write(tmp_path, files | {"devkit/cars_meta.mat": meta})
    assert tiny(read_cars, tmp_path).class_names == names


def test_cars_in_full_do_not_warn(tmp_path, monkeypatch):
    assert fine_grained.CARS_SIZES == (8144, 8041)
    write(tmp_path, LAYOUTS["original"])
    monkeypatch.setattr(fine_grained, "CARS_SIZES", (9, 6))
    assert read_cars(tmp_path).with_held_out(0.4).classes == 3


def test_the_shipped_names_are_the_official_ones():
    # Of the devkit, as TFDS has them.
    from tensorflow_datasets.image_classification import cars196

    assert CARS196 == tuple(cars196._NAMES)
    assert CARS196[0] == "AM General Hummer SUV 2000"
    assert CARS196[195] == "smart fortwo Convertible 2012"
    moved = sum(a != b for a, b in zip(CARS196, sorted(CARS196), strict=True))
    assert moved == 143
    spellings = {fine_grained._spelling(name) for name in CARS196}
    assert len(spellings) == 196


def test_all_196_classes_from_folders(tmp_path):
    names = [name.replace("/", "-") for name in sorted(CARS196)]
    write(
        tmp_path,
        {
            f"{split}/{name}/{i:06d}.jpg": ""
            for split in ("train", "test")
            for i, name in enumerate(names)
        },
    )
    data = tiny(read_cars, tmp_path)
    assert data.class_names == CARS196
    for split in (data.train, data.test):
        assert split.labels.tolist() == list(range(196))
        folders = [pathlib.Path(path).parent.name for path in split.paths]
        assert [f.replace("C-V", "C/V") for f in folders] == list(CARS196)


def test_test_annotations_without_labels(tmp_path):
    files = LAYOUTS["kaggle, labels beside"].copy()
    labels = files.pop("cars_test_annos_withlabels.mat")
    write(tmp_path, files)
    message = "cars_test_annos_withlabels.*cars_test_annos.mat, which has boxes"
    with pytest.raises(FileNotFoundError, match=message):
        read_cars(tmp_path)
    unlabelled = tmp_path / "car_devkit/devkit/cars_test_annos.mat"
    boxes = unlabelled.read_bytes()
    # Some put the one with labels in its place.
    unlabelled.write_bytes(labels)
    check_cars(tiny(read_cars, tmp_path))
    unlabelled.unlink()
    with pytest.raises(FileNotFoundError, match="Received none.*185,758 bytes"):
        read_cars(tmp_path)
    write(tmp_path, {"cars_test_annos_withlabels.mat": boxes})
    with pytest.raises(FileNotFoundError, match="which has boxes but no lab"):
        read_cars(tmp_path)


def test_what_is_missing_is_named(tmp_path):
    write(tmp_path, LAYOUTS["original"])
    (tmp_path / "cars_test/00002.jpg").unlink()
    message = r"6 images that .*cars_test lists.*Missing: 1, .*00002\.jpg"
    with pytest.raises(FileNotFoundError, match=message):
        read_cars(tmp_path)
    shutil.rmtree(tmp_path / "cars_test")
    with pytest.raises(FileNotFoundError, match="cars_train alone"):
        read_cars(tmp_path)
    (tmp_path / "cars_test").mkdir()
    (tmp_path / "devkit/cars_meta.mat").unlink()
    # Six digits: no list of these folders.
    write(tmp_path, {"cars_annos.mat": ""})
    message = r"cars_meta\.mat in .*cars_annos.mat is no substitute"
    with pytest.raises(FileNotFoundError, match=message):
        read_cars(tmp_path)


def test_car_ims_without_its_list(tmp_path):
    write(tmp_path, {"car_ims/000001.jpg": ""})
    with pytest.raises(FileNotFoundError, match="Expected cars_annos.mat, the"):
        read_cars(tmp_path)


def test_a_damaged_mat_file(tmp_path):
    files = LAYOUTS["original"]
    meta = "devkit/cars_meta.mat"
    write(tmp_path, files | {meta: files[meta][:100]})
    with pytest.raises(ValueError, match="MATLAB file with class_names at .*m"):
        read_cars(tmp_path)
    write(tmp_path, {meta: disk_layouts.mat(other=np.zeros(2))})
    with pytest.raises(ValueError, match="Received: KeyError: 'class_names'"):
        read_cars(tmp_path)


def test_a_class_id_out_of_range(tmp_path):
    meta = disk_layouts.mat(class_names=disk_layouts.cell(CARS[:2]))
    write(tmp_path, LAYOUTS["original"] | {"devkit/cars_meta.mat": meta})
    with pytest.raises(ValueError, match="labels from 0 to 1.*Received: 2 at"):
        read_cars(tmp_path)


def test_folders_that_are_no_cars(tmp_path):
    write(tmp_path, cars_class_folders() | {"train/Zebra/1.jpg": ""})
    with pytest.raises(ValueError, match="196 classes.*Received: 'Zebra'"):
        read_cars(tmp_path)


def test_a_class_without_test_images(tmp_path):
    files = {
        path: data
        for path, data in cars_class_folders().items()
        if not path.startswith("test/Ram")
    }
    write(tmp_path, files)
    with pytest.raises(ValueError, match="test split.*none of 'Ram C/V Cargo"):
        read_cars(tmp_path)
