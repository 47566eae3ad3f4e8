"""Unpacks archives of data sets once, safely, next to the archive."""

import os
import pathlib
import shutil
import tarfile
import types

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.image_trees import ReadingProgress
from crl_keras.experiments.data.image_trees import check_end
from crl_keras.experiments.data.image_trees import expanded
from crl_keras.experiments.data.image_trees import some


def unpacked(archive, folder):
    """Unpacks a folder of an archive next to the archive.

    If the folder exists already, it is used as it is. Otherwise the archive is
    unpacked into a hidden folder, which is renamed at the end. If the process
    is killed before, no folder looks complete, and the next call starts again.
    Two processes never unpack the same archive at the same time.

    Args:
        archive: path of a .tar file, with any compression.
        folder: str, the name of a folder at the top of the archive.

    Returns the path of the folder.

    Raises:
        ValueError: if the file is no whole archive, has no such folder, or
            has members that would lie outside the archive.
        OSError: if the program cannot write next to the archive.
        ImportError: if filelock is missing; the message has the pip command.
    """
    archive = pathlib.Path(archive)
    target = archive.parent / folder
    if target.is_dir():
        return target
    if archive.suffix.lower() == ".zip":
        raise ValueError(
            f"Expected a .tar or .tgz file. Received: {archive}. Unpack it by "
            "hand and pass its folder."
        )
    filelock = require("filelock")
    try:
        with filelock.FileLock(archive.parent / f".{folder}.lock"):
            # Another process may have unpacked it meanwhile.
            if not target.is_dir():
                _unpack(archive, target)
    except PermissionError as error:
        raise PermissionError(
            f"Expected to unpack {archive} next to itself. Received: {error}. "
            "Unpack it elsewhere and pass that folder."
        ) from error
    return target


def _unpack(archive, target):
    # Always the same name: this removes what a killed process left.
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
            # tarfile accepts a file that is cut inside a header.
            check_end(raw, file)
    except MemoryError:
        raise
    # First the error about a member: it is a TarError too.
    except tarfile.FilterError as error:
        raise ValueError(
            f"Expected all files of {archive} to stay in its folder. Received: "
            f"{error}. This is not the published archive; no file was kept."
        ) from error
    # Each kind of compression raises its own errors.
    except Exception as error:
        # A system error, such as a full disk, not a wrong checksum.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"Expected a whole .tar or .tgz file. Received: {archive} "
            f"({error}). Fetch it again."
        ) from error


def _extract_members(archive, raw, file, folder):
    place = types.SimpleNamespace(total=os.fstat(raw.fileno()).st_size, done=0)
    with (
        tarfile.open(fileobj=file, mode="r|") as members,
        ReadingProgress(f"Unpacking {archive.name}", place) as progress,
    ):
        for member in members:
            members.extract(member, folder, filter="data")
            place.done = raw.tell()
            progress.update()
