"""Small folders and archives of images, one folder a class."""

import io
import zipfile

from disk_layouts import pack
from disk_layouts import write
from PIL import Image

from crl_keras.experiments.data.named import load_dataset


def png(value, mode="L", size=(4, 3), format="PNG"):
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, format)
    return file.getvalue()


def flat_tree(classes="ab", count=5):
    """{path: bytes}; the grey level tells class and number."""
    return {
        f"{name}/{i}.png": png(20 * k + i)
        for k, name in enumerate(classes)
        for i in range(count)
    }


def split_tree(train="train", test="test", classes="ab"):
    return {
        f"{split}/{path}": png(100 * s + 20 * classes.index(path[0]) + i)
        for s, split in enumerate((train, test))
        for i, path in enumerate(flat_tree(classes, 3 - s))
    }


def pack_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def read(path, **arguments):
    return load_dataset(f"folder:{path}", **arguments)


def levels(split):
    return split.images[:, 0, 0, 0].tolist()


def packed(kind, tmp_path, files):
    if kind == "folder":
        return write(tmp_path / "set", files)
    if kind == "zip":
        return pack_zip(tmp_path / "set.zip", files)
    return pack(tmp_path / f"set.{kind}", files, "w:" + kind[4:])
