"""Archives of data sets, unpacked beside themselves once, and safely."""

import os
import pathlib
import shutil
import tarfile

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.image_trees import ReadingProgress
from crl_keras.experiments.data.image_trees import check_end
from crl_keras.experiments.data.image_trees import expanded
from crl_keras.experiments.data.image_trees import some


def unpacked(archive, folder):
    """The folder of that name which an archive holds, unpacked beside it.

    A folder that is there already is taken as it is. Otherwise the archive is
    unpacked into a hidden folder, which is renamed when all is in it: a kill
    halfway leaves no folder that looks whole, and the next call starts anew.
    Two processes do not unpack the same archive at once.

    Args:
        archive: path of a .tar file, of any compression.
        folder: str, the name of a folder at the top of the archive.

    Returns the path of the folder.

    Raises:
        ValueError: for a file that is no whole archive, one without such a
            folder, or one with members that would lie outside of it.
        OSError: if nothing can be written beside the archive.
        ImportError: without filelock; names the pip command.
    """
    archive = pathlib.Path(archive)
    target = archive.parent / folder
    if target.is_dir():
        return target
    if archive.suffix.lower() == ".zip":
        raise ValueError(
            f"Expected a .tar or .tgz file. Received: {archive}. Unpack it by "
            "hand and give its folder."
        )
    filelock = require("filelock")
    try:
        with filelock.FileLock(archive.parent / f".{folder}.lock"):
            # Another process may have been at it.
            if not target.is_dir():
                _unpack(archive, target)
    except PermissionError as error:
        raise PermissionError(
            f"Expected to unpack {archive} beside itself. Received: {error}. "
            "Unpack it elsewhere and name that folder."
        ) from error
    return target


def _unpack(archive, target):
    # One name, not a new one each time: what a killed process left is removed.
    temporary = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        _extract(archive, temporary)
        inside = temporary / target.name
        if not inside.is_dir():
            found = sorted(os.listdir(temporary))
            raise ValueError(
                f"Expected a folder {target.name}/ in {archive}. Received: "
                f"{some(found) or 'nothing'}. Unpack it by hand."
            )
        os.replace(inside, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(archive, folder):
    if not hasattr(tarfile, "data_filter"):
        raise ImportError(
            f"This Python's tarfile cannot unpack {archive} safely: use "
            "Python 3.10.12, 3.11.4 or later, or unpack it by hand."
        )
    try:
        with open(archive, "rb") as raw, expanded(raw) as file:
            _extract_members(archive, raw, file, folder)
            # tarfile takes a file cut within a header for a whole one.
            check_end(raw, file)
    except MemoryError:
        raise
    # Of the members first: it is a TarError too.
    except tarfile.FilterError as error:
        raise ValueError(
            f"Expected all of {archive} to lie inside of it. Received: "
            f"{error}. This is not the published archive; nothing of it was "
            "kept."
        ) from error
    # Each kind of compression has errors of its own.
    except Exception as error:
        # A full disk and the like, as opposed to a wrong checksum.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"Expected a whole .tar or .tgz file. Received: {archive} "
            f"({error}). Fetch it again."
        ) from error


def _extract_members(archive, raw, file, folder):
    place = _Place(raw)
    with (
        tarfile.open(fileobj=file, mode="r|") as members,
        ReadingProgress(f"Unpacking {archive.name}", place) as progress,
    ):
        for member in members:
            members.extract(member, folder, filter="data")
            progress.update()


class _Place:
    """How far a file has been read."""

    def __init__(self, file):
        self.file = file
        self.total = os.fstat(file.fileno()).st_size

    @property
    def done(self):
        return self.file.tell()
