"""The EXIF orientation of a photo: how to turn its pixels upright.

A camera held upright often stores its pixels sideways and says so in a tag, a
number from 1 to 8. At most three steps turn the stored image upright, in this
order: a flip from left to right, a flip from top to bottom, a transposition.
"""

import numpy as np

TAG = 0x0112
# Pillow keeps the data that may contain the tag under these keys.
KEYS = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
# For orientation 1 to 8 (0 is no orientation): 1 if the step is needed.
LEFT_TO_RIGHT = (0, 0, 1, 1, 0, 0, 0, 1, 1)
TOP_TO_BOTTOM = (0, 0, 0, 1, 1, 0, 1, 1, 0)
TRANSPOSED = (0, 0, 0, 0, 0, 1, 1, 1, 1)


def orientation_of(image):
    """The orientation of an image that Pillow has opened, 1 to 8.

    Returns 1 if there is no orientation or it cannot be read.
    """
    if image.format in ("TIFF", "PNG"):
        # Pillow turns a TIFF itself, and drops the tag. The tag of a PNG may
        # come after its pixels.
        image.load()
    if image.format != "TIFF" and not KEYS & image.info.keys():
        return 1  # As most images; reading EXIF takes time.
    try:
        found = image.getexif().get(TAG, 1)
    # Pillow can raise almost any error for damaged EXIF; the pixels are fine.
    except Exception:
        return 1
    return found if found in range(1, 9) else 1


def as_orientations(orientations, count):
    """int8 `[N]`, or None if every image is stored upright.

    Raises:
        ValueError: if their number is wrong, or one is not from 1 to 8.
    """
    if orientations is None:
        return None
    orientations = np.asarray(orientations)
    inside = (orientations >= 1) & (orientations <= 8)
    if orientations.shape != (count,) or not inside.all():
        raise ValueError(
            f"Expected an EXIF orientation from 1 to 8 for each of {count} "
            f"images. Received: {orientations.tolist()}."
        )
    return None if (orientations == 1).all() else orientations.astype(np.int8)


def upright(image, orientation):
    """Turns stored pixels upright, an array `[H, W, ...]`.

    >>> upright(np.array([[1, 2, 3], [4, 5, 6]]), 6).tolist()
    [[4, 1], [5, 2], [6, 3]]
    """
    if LEFT_TO_RIGHT[orientation]:
        image = image[:, ::-1]
    if TOP_TO_BOTTOM[orientation]:
        image = image[::-1]
    return image.swapaxes(0, 1) if TRANSPOSED[orientation] else image


def upright_tensor(image, orientation):
    """`upright` for a TensorFlow tensor `[H, W, C]`."""
    import tensorflow as tf

    steps = (
        (LEFT_TO_RIGHT, lambda image: image[:, ::-1]),
        (TOP_TO_BOTTOM, lambda image: image[::-1]),
        (TRANSPOSED, lambda image: tf.transpose(image, (1, 0, 2))),
    )
    channels = image.shape[-1]
    for table, step in steps:
        image = tf.cond(
            _is(table, orientation, tf),
            lambda image=image, step=step: step(image),
            lambda image=image: image,
        )
    return tf.ensure_shape(image, (None, None, channels))


def upright_size(height, width, orientation, xp=np):
    """Height and width of the upright image; `xp` is as in `Crop.window`."""
    swapped = _is(TRANSPOSED, orientation, xp)
    return xp.where(swapped, width, height), xp.where(swapped, height, width)


def upright_box(box, height, width, orientation, xp=np):
    """The place in the upright image of a stored box `x0, y0, x1, y1`.

    `height` and `width` belong to the stored image.
    """
    x0, y0, x1, y1 = (box[i] for i in range(4))
    mirrored = _is(LEFT_TO_RIGHT, orientation, xp)
    x0, x1 = (
        xp.where(mirrored, width - x1, x0),
        xp.where(mirrored, width - x0, x1),
    )
    upside_down = _is(TOP_TO_BOTTOM, orientation, xp)
    y0, y1 = (
        xp.where(upside_down, height - y1, y0),
        xp.where(upside_down, height - y0, y1),
    )
    swapped = _is(TRANSPOSED, orientation, xp)
    x0, y0 = xp.where(swapped, y0, x0), xp.where(swapped, x0, y0)
    x1, y1 = xp.where(swapped, y1, x1), xp.where(swapped, x1, y1)
    return x0, y0, x1, y1


def stored_window(window, height, width, orientation, xp=np):
    """The place in the stored image of an upright window.

    A window is `top, left, rows, columns`. `height` and `width` belong to
    the stored image.
    """
    top, left, rows, columns = window
    swapped = _is(TRANSPOSED, orientation, xp)
    top, left = xp.where(swapped, left, top), xp.where(swapped, top, left)
    rows, columns = (
        xp.where(swapped, columns, rows),
        xp.where(swapped, rows, columns),
    )
    mirrored = _is(LEFT_TO_RIGHT, orientation, xp)
    left = xp.where(mirrored, width - left - columns, left)
    upside_down = _is(TOP_TO_BOTTOM, orientation, xp)
    top = xp.where(upside_down, height - top - rows, top)
    return top, left, rows, columns


def _is(table, orientation, xp):
    """Whether a table has a 1 for an orientation, as a boolean of `xp`."""
    if xp is np:
        return bool(table[orientation])
    flags = xp.constant([bool(flag) for flag in table])
    return xp.gather(flags, xp.cast(orientation, "int32"))
