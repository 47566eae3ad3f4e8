"""Reads the image files of a folder or an archive into one array.

Archives are streamed, never unpacked to disk. Decoded archives are cached.
"""

import collections
import concurrent.futures
import contextlib
import hashlib
import importlib
import io
import itertools
import os
import pathlib
import re
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.formats import image_opener
from crl_keras.experiments.data.formats import image_suffixes
from crl_keras.experiments.data.formats import is_unread
from crl_keras.experiments.data.formats import said_of_unread
from crl_keras.experiments.data.orientation import orientation_of
from crl_keras.experiments.data.orientation import upright

ARCHIVE_SUFFIXES = tuple(".tar.gz .tgz .tar.bz2 .tar.xz .tar .zip".split())

# If decoding takes longer than this, reading a cache is faster.
CACHE_AFTER_SECONDS = 2.0
CACHE_FORMAT = "1"
BAR_AFTER_SECONDS = 1.0

# Images per task of the thread pool: enough to hide the overhead of a task, few
# enough to limit the memory of waiting images.
CHUNK = 64
NAMED = 10  # A message names at most so many unreadable images.


def some(items, most=5):
    """The first items as text, and how many more there are."""
    text = ", ".join(repr(item) for item in items[:most])
    more = len(items) - most
    return f"{text} and {more} more" if more > 0 else text


class Tree(NamedTuple):
    """All images of a tree, their paths, and its folders."""

    images: np.ndarray
    paths: list
    folders: list


def read_tree(path, skip_unreadable=False, cache=True, exif=True):
    source = _source(path)
    # Only the size and time of a file show whether it changed.
    store = _Cache(path, exif) if cache and path.is_file() else None
    tree = store.read() if store else None
    if tree is not None:
        return tree
    start = time.monotonic()
    tree, complete = _decoded_tree(source, path, skip_unreadable, exif)
    slow = time.monotonic() - start > CACHE_AFTER_SECONDS
    # The cache of a tree with gaps would hide them in a later strict run.
    if store and slow and complete:
        store.write(tree)
    return tree


def list_images(folder):
    """The image files of a folder, as a `Tree` without the images.

    Raises ValueError if there are none.
    """
    source = _FolderSource(folder)
    paths = sorted(name for name, file in source.entries if file is not None)
    folders = sorted(name for name, file in source.entries if file is None)
    _report(folder, [], [], source.unread)
    _check_any(folder, paths)
    return Tree(None, paths, folders)


def _decoded_tree(source, path, skip_unreadable, exif):
    images, folders, broken = {}, set(), {}
    first = None
    with ReadingProgress(f"Reading {path.name}", source) as progress:
        for name, result in _decode_all(source, exif):
            progress.update()
            if result is None:
                folders.add(name)
            elif isinstance(result, _Unreadable):
                broken[name] = result
            elif broken and not skip_unreadable:
                images.clear()  # One error at the end names all broken images.
            else:
                first = first or (name, result)
                _check_alike(path, name, result, *first)
                images[name] = result
    if broken and not skip_unreadable:
        raise ValueError(said_of_unreadable(path, broken))
    _report(path, broken, source.ignored, source.unread)
    _check_any(path, images)
    # A folder and an archive of it give the same order.
    paths = sorted(images)
    stacked = np.stack([images.pop(name) for name in paths])
    complete = not broken and not source.unread
    return Tree(stacked, paths, sorted(folders)), complete


def _check_any(path, images):
    if not images:
        raise ValueError(
            f"Expected images ({' '.join(image_suffixes())}) in {path}, one "
            "folder per class. Received none that can be read."
        )


def _report(path, skipped, ignored, unread):
    if skipped:
        warnings.warn(
            f"{path}: {len(skipped)} unreadable images skipped: "
            f"{some(list(skipped), NAMED)}{_where_all(path, skipped)}.",
            stacklevel=2,
        )
    if ignored:
        warnings.warn(
            f"{path}: {len(ignored)} members ignored, because they are links "
            f"or lie outside the archive: {some(ignored)}.",
            stacklevel=2,
        )
    if unread:
        warnings.warn(
            f"{path}: {len(unread)} images left out, because their format is "
            f"not read: {said_of_unread(unread)}. They are "
            f"{some(unread, NAMED)}.",
            stacklevel=2,
        )


class _Unreadable(Exception):
    """Why one image could not be read."""


def said_of_unreadable(where, broken):
    """The error message for images that cannot be read.

    Args:
        where: Path or name of the data, for the message.
        broken: Dict from the name of each image to the reason. If there are
            many, the message names the first, and a file lists all.
    """
    shown = [f"{n!r} ({why})" for n, why in list(broken.items())[:NAMED]]
    more = len(broken) - len(shown)
    text = ", ".join(shown) + (f" and {more:,} more" if more else "")
    counted = "1 image" if len(broken) == 1 else f"{len(broken):,} images"
    return (
        f"Expected images in {where} that can be read. Received {counted} "
        f"that cannot be read: {text}{_where_all(where, broken)}. Repair or "
        "remove them, or leave such images out with --skip-unreadable "
        "(skip_unreadable=True)."
    )


def _where_all(where, broken):
    """Lists all images in a file, if they are too many for a message."""
    if len(broken) <= NAMED:
        return ""
    name = hashlib.sha256(str(where).encode()).hexdigest()[:16]
    file = _cache_dir() / f"unreadable-{name}.txt"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = (f"{path}\t{why}\n" for path, why in broken.items())
        file.write_text("".join(lines), encoding="utf-8")
    except OSError:
        return ""
    return f"; all are listed in {file}"


def _check_alike(path, name, image, first_name, first):
    if image.shape == first.shape:
        return

    def described(image):
        height, width, channels = image.shape
        return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"

    raise ValueError(
        f"Expected all images of {path} to have the size and mode of the "
        f"first, {first_name!r}: {described(first)}. Received: {name!r}, "
        f"{described(image)}. Resize or convert the images, or give "
        "--dataset folder:PATH with --image-size, which resizes and crops them."
    )


def _decode_all(entries, exif=True):
    """Yields (path, result): image, `_Unreadable`, or None for a folder."""
    # Pillow releases the GIL while it decodes.
    workers = min(8, os.cpu_count() or 1)
    entries = iter(entries)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = collections.deque()
        # Until a chunk is empty.
        for chunk in iter(lambda: [*itertools.islice(entries, CHUNK)], []):
            pending.append(pool.submit(_decode_chunk, chunk, exif))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _decode_chunk(chunk, exif):
    pillow = image_opener()
    return [(name, _decode(pillow, data, exif)) for name, data in chunk]


def _decode(pillow, data, exif=True):
    if data is None or isinstance(data, _Unreadable):
        return data
    try:
        if isinstance(data, str):
            data = _file_bytes(data)
        with pillow.open(io.BytesIO(data)) as image:
            turned = orientation_of(image) if exif else 1
            return upright(_pixels(image), turned)
    except MemoryError:
        raise
    # Pillow can raise almost any error for a damaged file.
    except Exception as error:
        return _Unreadable(f"{type(error).__name__}: {error}")


def _file_bytes(path):
    # Opening a pipe would wait forever.
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError("not a regular file")
    with open(path, "rb") as file:
        return file.read()


def _pixels(image):
    """uint8 `[H, W, 1]` or `[H, W, 3]`."""
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "PA", "RGBA"):
        if image.getchannel("A").getextrema()[0] < 255:
            raise ValueError("it has transparent pixels; flatten it")
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode in ("CMYK", "P", "YCbCr"):
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    if image.mode not in ("L", "RGB"):
        raise ValueError(f"mode {image.mode}; convert it to 8 bits per channel")
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _source(path):
    if path.is_dir():
        return _FolderSource(path)
    if not path.exists():
        raise FileNotFoundError(
            "Expected a folder, a .tar, .tar.gz or .zip file. Received: "
            f"{str(path)!r}, which does not exist."
        )
    with open(path, "rb") as file:
        start = file.read(4)
    if start in (b"PK\x03\x04", b"PK\x05\x06"):
        return _ZipSource(path)
    return _TarSource(path)


# A source is iterated over once. It yields (path in the tree, content). The
# content is None for a folder, the bytes of an image, an `_Unreadable`, or, if
# the source is a folder, the path of a file, which the decoding thread reads.
# `done` of `total` is the progress. `ignored` collects the members that are not
# read for safety, `unread` the images in formats that are not read.


class _FolderSource:
    def __init__(self, path):
        self.path, self.ignored, self.unread = path, [], []
        self.entries = list(self._walk())
        self.total, self.done = len(self.entries), 0

    def _walk(self):
        for folder, inside, files in os.walk(
            self.path, followlinks=True, onerror=_raise
        ):
            inside[:] = sorted(d for d in inside if self._enters(folder, d))
            relative = pathlib.Path(folder).relative_to(self.path)
            if relative.parts:
                yield relative.as_posix(), None
            for name in sorted(files):
                path = (relative / name).as_posix()
                if _is_image(path):
                    yield path, os.path.join(folder, name)
                elif _is_unread(path):
                    self.unread.append(path)

    def _enters(self, folder, name):
        # A link to a parent folder would never end.
        here = os.path.realpath(folder)
        target = os.path.realpath(os.path.join(folder, name))
        above = target == here or here.startswith(target + os.sep)
        return not above and not _is_hidden(name)

    def __iter__(self):
        for entry in self.entries:
            self.done += 1
            yield entry


class _ArchiveSource:
    def __init__(self, path):
        self.path, self.ignored, self.unread = path, [], []
        self.total, self.done = 0, 0

    def _entry(self, archive, member, path, is_folder, is_file):
        """The entry of a member, if it has one."""
        name = _inside(path)
        if name is not None and is_folder:
            yield name, None
        elif not _is_image(path):
            if _is_unread(path):
                self.unread.append(path)
            yield from _folder_of(name)
        elif name is None or not is_file:
            self.ignored.append(path)
        else:
            yield name, self._bytes(archive, member)


class _TarSource(_ArchiveSource):
    def __init__(self, path):
        super().__init__(path)
        self.total = path.stat().st_size

    def __iter__(self):
        with open(self.path, "rb") as raw, expanded(raw) as file:
            yield from self._entries(raw, file)

    def _entries(self, raw, file):
        try:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                for member in archive:
                    self.done = raw.tell()
                    kind = member.isdir(), member.isreg()
                    yield from self._entry(archive, member, member.name, *kind)
            # tarfile accepts a file that is cut inside a header. Reading to
            # the end checks its checksum.
            check_end(raw, file)
        except MemoryError:
            raise
        # Each kind of compression raises its own errors.
        except Exception as error:
            raise ValueError(
                "Expected a folder, a whole .tar, .tar.gz or .zip file. "
                f"Received: {self.path} ({error}). Fetch or pack it again."
            ) from error

    def _bytes(self, archive, member):
        return archive.extractfile(member).read()


class _ZipSource(_ArchiveSource):
    def __iter__(self):
        try:
            archive = zipfile.ZipFile(self.path)
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"Expected a whole .zip file. Received: {self.path} "
                f"({error}). Fetch or pack it again."
            ) from error
        with archive:
            members = archive.infolist()
            self.total = len(members)
            for member in members:
                self.done += 1
                # The upper half holds the file's Unix mode, 0xA for a link.
                kind = member.is_dir(), member.external_attr >> 28 != 0xA
                yield from self._entry(archive, member, member.filename, *kind)

    def _bytes(self, archive, member):
        try:
            return archive.read(member)
        # A wrong checksum, a password, or an unknown kind of compression.
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            RuntimeError,
            NotImplementedError,
        ) as error:
            return _Unreadable(str(error))


def _folder_of(name):
    """The entry of a file's folder: not every archive lists its folders."""
    folder = (name or "").rpartition("/")[0]
    return [(folder, None)] if folder else []


def expanded(raw):
    """The file, decompressed if its first bytes show a compression."""
    start = raw.read(6)
    raw.seek(0)
    for magic, module in (
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bz2"),
        (b"\xfd7zXZ\x00", "lzma"),
    ):
        if start.startswith(magic):
            return importlib.import_module(module).open(raw)
    return contextlib.nullcontext(raw)


def check_end(raw, file):
    while file.read(1 << 20):
        pass
    if file is raw:
        raw.seek(-min(512, raw.seek(0, os.SEEK_END)), os.SEEK_END)
        if raw.read().strip(b"\0"):
            raise EOFError("it has no end mark: is it cut?")


def _raise(error):
    raise error


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def _is_image(path):
    return path.lower().endswith(image_suffixes()) and not _lies_hidden(path)


def _is_unread(path):
    return is_unread(path) and not _lies_hidden(path)


def _lies_hidden(path):
    parts = path.replace("\\", "/").split("/")
    return any(_is_hidden(p) for p in parts if p not in (".", ".."))


def _inside(name):
    """The path of an archive's member, None if it is outside or hidden."""
    name = name.replace("\\", "/")
    if name.startswith("/") or re.match("[A-Za-z]:/", name):
        return None
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or any(_is_hidden(part) for part in parts):
        return None
    return "/".join(parts)


class ReadingProgress:
    """A progress bar on a terminal, shown after a moment of reading."""

    def __init__(self, title, source):
        self.title, self.source = title, source
        self.start, self.bar = time.monotonic(), None
        self.wanted = sys.stderr.isatty()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.bar:
            self.bar.stop()

    def update(self):
        if not self.wanted:
            return
        if self.bar:
            self.bar.update(
                self.task, completed=self.source.done, total=self.source.total
            )
        elif time.monotonic() - self.start > BAR_AFTER_SECONDS:
            self._show()

    def _show(self):
        console = require("rich.console").Console(stderr=True)
        self.bar = require("rich.progress").Progress(console=console)
        self.task = self.bar.add_task(self.title, total=self.source.total)
        self.bar.start()


class _Cache:
    """The decoded images of one archive, in the user's cache folder."""

    def __init__(self, path, exif):
        path = path.resolve()
        state = path.stat()
        name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        self.file = _cache_dir() / f"images-{name}.npz"
        # One file per archive: a changed archive replaces its old images. The
        # key also says whether the images were turned upright.
        form = f"{CACHE_FORMAT} upright" if exif else CACHE_FORMAT
        self.key = f"{form} {state.st_size} {state.st_mtime_ns} {path}"

    def read(self):
        """The tree, or None if none is cached for the current archive."""
        try:
            # NumPy would leave a damaged file open.
            with (
                open(self.file, "rb") as file,
                np.load(file, allow_pickle=False) as stored,
            ):
                if str(stored["key"]) != self.key:
                    return None
                tree = Tree(
                    stored["images"],
                    stored["paths"].tolist(),
                    stored["folders"].tolist(),
                )
        except (FileNotFoundError, NotADirectoryError):
            return None
        # NumPy can raise almost any error for a damaged file.
        except Exception as error:
            warnings.warn(
                f"The cache {self.file} cannot be read ({error}); the images "
                "are decoded again.",
                stacklevel=2,
            )
            return None
        alike = len(tree.images) == len(tree.paths)
        return tree if alike and tree.images.dtype == np.uint8 else None

    def write(self, tree):
        temporary = None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                dir=self.file.parent, suffix=".tmp", delete=False
            ) as file:
                temporary = file.name
                np.savez(
                    file,
                    key=np.array(self.key),
                    images=tree.images,
                    paths=np.array(tree.paths, str),
                    folders=np.array(tree.folders, str),
                )
            os.replace(temporary, self.file)
        except OSError as error:
            if temporary:
                with contextlib.suppress(OSError):
                    os.remove(temporary)
            warnings.warn(
                f"The decoded images cannot be kept in {self.file.parent} "
                f"({error}); the next run decodes them again. Set "
                "CRL_CACHE_DIR to another folder.",
                stacklevel=2,
            )


def _cache_dir():
    named = os.environ.get("CRL_CACHE_DIR")
    if named:
        return pathlib.Path(named).expanduser()
    return pathlib.Path.home() / ".cache" / "crl_keras"
