"""Encodes images as data URIs for a page, with or without a heat map."""

import base64
import io

import numpy as np

from crl_keras.experiments._optional import require

SMALL = 64  # Images up to this side are shown pixel by pixel.
OVERLAY = 96  # Images under a heat map are enlarged to this side.
OPACITY = 0.7


def data_uri(image):
    """Encodes a uint8 image `[height, width, channels]` as a data URI.

    Small images become PNG, which keeps their pixels. Larger images become
    JPEG, which is ten times smaller.
    """
    picture = _picture(image)
    if max(picture.size) <= SMALL:
        return _encoded(picture, "PNG")
    return _encoded(picture, "JPEG", quality=85)


def png_data_uri(image):
    """Encodes a uint8 image `[height, width, channels]` as a PNG data URI."""
    return _encoded(_picture(image), "PNG")


def overlay_data_uri(image, heat):
    """Encodes a grey image under its heat map as a data URI.

    Args:
        image: uint8 `[height, width, channels]`.
        heat: floats `[a, b]` in `[0, 1]`, resized to the image. 1 is bright
            yellow, 0 is transparent.
    """
    pillow = require("PIL.Image", "experiments")
    colormaps = require("matplotlib", "experiments").colormaps
    picture = _picture(image).convert("L").convert("RGB")
    if max(picture.size) < OVERLAY:
        scale = -(-OVERLAY // max(picture.size))
        size = (scale * picture.width, scale * picture.height)
        picture = picture.resize(size, pillow.Resampling.NEAREST)
    values = np.asarray(
        pillow.fromarray(np.asarray(heat, np.float32)).resize(
            picture.size, pillow.Resampling.BICUBIC
        )
    ).clip(0, 1)
    color = colormaps["inferno"](values)[..., :3]
    share = OPACITY * values[..., None]
    mixed = (1 - share) * np.asarray(picture) + share * 255 * color
    mixed = np.rint(mixed).astype(np.uint8)
    return _encoded(pillow.fromarray(mixed), "JPEG", quality=85)


def _picture(image):
    pillow = require("PIL.Image", "experiments")
    pixels = image[..., :3] if image.shape[-1] >= 3 else image[..., 0]
    return pillow.fromarray(np.ascontiguousarray(pixels))


def _encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{encoded}"
