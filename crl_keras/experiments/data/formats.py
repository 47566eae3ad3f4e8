"""Which image files are read, and which are not, by their file extensions.

HEIC needs the package pillow-heif, AVIF needs a Pillow that supports it. Images
that are not read are always reported, with the text of `said_of_unread`.
"""

import collections
import functools
import os

from crl_keras.experiments._optional import require
from crl_keras.experiments.words import listed

# Pillow reads these on every machine.
IMAGE_SUFFIXES = tuple(
    ".bmp .gif .jfif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split()
)
HEIF_SUFFIXES = (".heic", ".heif")
AVIF_SUFFIXES = (".avif",)
# Photos and drawings that the user has to convert.
OTHER_SUFFIXES = tuple(
    """
    .3fr .arw .cr2 .cr3 .dng .eps .exr .hdr .icns .ico .j2k .jp2 .jpe .jpf
    .jpx .jxl .jxr .nef .nrw .orf .pcx .pef .psd .raf .raw .rw2 .sr2 .srw .svg
    .tga .xcf
    """.split()
)
REMEDIES = {
    HEIF_SUFFIXES: "pillow-heif reads HEIC: pip install pillow-heif",
    AVIF_SUFFIXES: "Pillow 11.3 or later reads AVIF: pip install -U pillow",
    OTHER_SUFFIXES: "other kinds have to be converted, to JPEG or PNG",
}


def image_opener():
    """Pillow's `Image` module, which reads HEIC if pillow-heif is installed.

    Raises ImportError if Pillow is missing; the message has the pip command.
    """
    pillow = require("PIL.Image")
    _register_heif()
    return pillow


@functools.cache
def _register_heif():
    try:
        import pillow_heif
    except ImportError:
        return
    require("PIL.Image").preinit()  # JPEG must come before HEIF, see below.
    pillow_heif.register_heif_opener()


@functools.cache
def image_suffixes():
    """The extensions of the files that are read here, a tuple of str."""
    pillow = image_opener()
    # Register the usual formats first. Pillow tries formats in this order: with
    # JPEG after forty others, opening a JPEG takes 50 % longer.
    pillow.preinit()
    known = pillow.registered_extensions()
    optional = (*HEIF_SUFFIXES, *AVIF_SUFFIXES)
    return IMAGE_SUFFIXES + tuple(s for s in optional if s in known)


def is_unread(path):
    """Whether a file has the extension of an image that is not read here."""
    suffixes = (*HEIF_SUFFIXES, *AVIF_SUFFIXES, *OTHER_SUFFIXES)
    name = path.lower()
    return name.endswith(suffixes) and not name.endswith(image_suffixes())


def said_of_unread(paths):
    """Text about images that are not read: how many, and what to do.

    >>> said_of_unread(["a/1.CR2", "b/2.cr2", "b/3.psd"])
    '2 .cr2 and 1 .psd; other kinds have to be converted, to JPEG or PNG'
    """
    counts = collections.Counter(
        os.path.splitext(path.lower())[1] for path in paths
    )
    found = listed([f"{n:,} {suffix}" for suffix, n in counts.most_common()])
    remedies = [
        remedy
        for suffixes, remedy in REMEDIES.items()
        if any(suffix in suffixes for suffix in counts)
    ]
    return "; ".join([found, *remedies])
