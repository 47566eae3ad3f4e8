"""Cuts out and resizes the part of an image that the network sees.

Pillow, TensorFlow and libjpeg-turbo get the same window from the same four
numbers, so the readers differ only in their interpolation.
"""

import dataclasses
import io
import math

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.data.formats import image_opener
from crl_keras.experiments.data.orientation import orientation_of
from crl_keras.experiments.data.orientation import stored_window
from crl_keras.experiments.data.orientation import upright
from crl_keras.experiments.data.orientation import upright_box
from crl_keras.experiments.data.orientation import upright_size
from crl_keras.experiments.data.orientation import upright_tensor

CROPS = ("random", "random_resized", "centre")
# As in `torchvision.transforms.RandomResizedCrop`: the smallest share of the
# area, and the largest ratio of the sides.
SMALLEST_AREA = 0.08
LARGEST_ASPECT = 4 / 3


@dataclasses.dataclass(frozen=True)
class Crop:
    """How images of any size become squares.

    Args:
        image_size: Side of the square in pixels, integer >= 1.
        kind: The crop for training. "random": the image is resized to
            `resize_ratio * image_size`, and a square of `image_size` is cut
            out at a random place. "random_resized": a random 8 to 100 % of the
            area, with sides of 3:4 to 4:3, is stretched to the square.
            "centre": the middle of the resized image, as in the test.
        resize_ratio: Number >= 1. Defaults to 256/224.
        keep_aspect: `True` resizes the shorter side to that size and the
            longer side in proportion; `False` resizes both sides to it.
            Defaults to `True`.

    Raises:
        ValueError: A value is out of its range.

    Source: He et al., arXiv:1512.03385, section 3.4, for "random" and the
    test; Szegedy et al., arXiv:1409.4842, section 6, for "random_resized".
    Here a window that exceeds the image is cut off instead of drawn again.
    """

    image_size: int
    kind: str = "random"
    resize_ratio: float = 256 / 224
    keep_aspect: bool = True

    def __post_init__(self):
        if self.kind not in CROPS:
            raise ValueError(
                f"Expected one of the crops {', '.join(CROPS)}. "
                f"Received: {self.kind!r}."
            )
        if self.image_size < 1 or self.image_size != int(self.image_size):
            raise ValueError(
                "Expected image_size as an integer of at least 1. Received: "
                f"image_size={self.image_size}."
            )
        if not self.resize_ratio >= 1:
            raise ValueError(
                "Expected resize_ratio to be at least 1, to crop inside the "
                f"image. Received: resize_ratio={self.resize_ratio}."
            )

    def window(self, height, width, draws=None, xp=np):
        """The window of an image that becomes the square.

        Args:
            height, width: Size of the image in pixels, numbers > 0; floats
                with TensorFlow.
            draws: Four numbers in `[0, 1)` for training, None for the test.
            xp: `numpy` or `tensorflow`; both have functions of these names.

        Returns:
            `(top, left, height, width)`, whole numbers, inside the image.

        >>> Crop(4, resize_ratio=1).window(6, 8)
        (0.0, 1.0, 6.0, 6.0)
        """
        if draws is None or self.kind == "centre":
            u, v, *shape = 0.5, 0.5, None, None
        else:
            u, v, *shape = (draws[i] for i in range(4))
        if self.kind == "random_resized" and draws is not None:
            area = SMALLEST_AREA + (1 - SMALLEST_AREA) * shape[0]
            skew = math.log(LARGEST_ASPECT) * (shape[1] - 0.5)
            side = xp.sqrt(area * height * width)
            rows, columns = side / xp.exp(skew), side * xp.exp(skew)
        elif self.keep_aspect:
            rows = columns = xp.minimum(height, width) / self.resize_ratio
        else:
            rows = height / self.resize_ratio
            columns = width / self.resize_ratio
        rows = xp.minimum(xp.maximum(xp.round(rows), 1.0), height)
        columns = xp.minimum(xp.maximum(xp.round(columns), 1.0), width)
        # Every place is equally likely, and 0.5 is the middle.
        top = xp.minimum(xp.floor(u * (height - rows + 1)), height - rows)
        left = xp.minimum(xp.floor(v * (width - columns + 1)), width - columns)
        if xp is np:
            return float(top), float(left), float(rows), float(columns)
        return top, left, rows, columns

    def read(self, path, box=None, draws=None, orientation=None):
        """Reads an image file with Pillow.

        Args:
            path: An image file, or its bytes.
            box: `(x0, y0, x1, y1)`, the part of the image to use, in pixels
                of the stored image; None for the whole image.
            draws: As in `window`.
            orientation: The EXIF orientation to apply, 1 to 8. None, the
                default, uses the orientation in the file; 1 leaves the pixels
                as they are stored.

        Returns:
            uint8 `[image_size, image_size, 3]`.

        Raises:
            OSError: The file is missing or is not an image.
        """
        pillow = image_opener()
        file = io.BytesIO(path) if isinstance(path, bytes) else path
        with pillow.open(file) as image:
            if orientation is None:
                orientation = orientation_of(image)
            width, height = image.size
            top, left, rows, columns = self._place(
                height, width, draws, box, orientation
            )
            # Pillow can decode a JPEG at a half, a quarter or an eighth of its
            # size, as long as the window stays larger than the square.
            least = min(rows, columns) / self.image_size
            image.draft("RGB", (int(width / least), int(height / least)))
            scale = (image.width / width, image.height / height)
            edges = (left, top, left + columns, top + rows)
            window = [edge * scale[i % 2] for i, edge in enumerate(edges)]
            if image.mode.startswith("I"):
                # Pillow would clip 16 bits at 255: keep the upper 8 bits.
                upper = np.clip(np.asarray(image) >> 8, 0, 255)
                image = pillow.fromarray(upper.astype(np.uint8))
            square = image.convert("RGB").resize(
                (self.image_size, self.image_size),
                pillow.Resampling.BILINEAR,
                box=window,
            )
            return upright(np.asarray(square), orientation)

    def read_jpeg(self, path, box=None, draws=None, orientation=None):
        """Reads an image file as TensorFlow does, without TensorFlow.

        libjpeg-turbo decodes a JPEG with the same fast transform, and OpenCV
        shrinks it with the mean over areas. Large images are decoded at a
        half, a quarter or an eighth of their size, as with Pillow. Pillow
        reads all other files: other formats, damaged JPEGs, CMYK JPEGs.

        Args, returns and errors are the same as for `read`.
        """
        simplejpeg = require("simplejpeg", "simplejpeg")
        if orientation is None:
            with image_opener().open(path) as image:
                orientation = orientation_of(image)
        with open(path, "rb") as file:
            data = file.read()
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
            if colours not in ("Gray", "YCbCr", "RGB"):
                return self.read(data, box, draws, orientation)
            window = self._place(height, width, draws, box, orientation)
            least = min(window[2:]) / self.image_size
            part = max(n for n in (1, 2, 4, 8) if n <= max(1, least))
            image = simplejpeg.decode_jpeg(
                data,
                fastdct=True,
                min_height=math.ceil(height / part),
                min_width=math.ceil(width / part),
                min_factor=part,
            )
        except ValueError:  # Damaged, or an unknown kind of JPEG.
            return self.read(data, box, draws, orientation)
        top, left, rows, columns = window
        edges = (top, top + rows, left, left + columns)
        top, bottom, left, right = (round(edge / part) for edge in edges)
        square = self._shrunk(image[top:bottom, left:right])
        return upright(square, orientation)

    def _shrunk(self, image):
        """`_square` with OpenCV; its linear resize equals TensorFlow's."""
        cv2 = require("cv2", "simplejpeg")
        shrunk = min(image.shape[:2]) >= self.image_size
        return cv2.resize(
            image,
            (self.image_size, self.image_size),
            interpolation=cv2.INTER_AREA if shrunk else cv2.INTER_LINEAR,
        )

    def tensorflow(self, image, draws=None, box=None):
        """Cuts and resizes a decoded image, a uint8 tensor `[H, W, C]`."""
        return self._square(self._cut(image, draws, box))

    def tensorflow_file(self, path, draws=None, box=None, orientation=None):
        """Reads an image file with TensorFlow.

        Args:
            path, draws, box: As in `read`, tensors.
            orientation: Integer tensor, the EXIF orientation to apply. None
                leaves the pixels as they are stored, because TensorFlow does
                not read the tag.
        """
        tf = require("tensorflow", "tensorflow")
        file = tf.io.read_file(path)

        def jpeg():
            # Decode only the window. The pixels beside it then do not bleed
            # into the colour of its outer columns.
            height, width, _ = tf.unstack(tf.image.extract_jpeg_shape(file))
            sides = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
            window = self._within(*sides, draws, box, orientation)
            return tf.image.decode_and_crop_jpeg(file, window, channels=3)

        def other():
            return self._cut(decoded(file), draws, box, orientation)

        image = tf.cond(tf.io.is_jpeg(file), jpeg, other)
        if orientation is not None:
            image = upright_tensor(image, orientation)
        return self._square(image)

    def _cut(self, image, draws, box, orientation=None):
        tf = require("tensorflow", "tensorflow")
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        y, x, height, width = self._within(
            shape[0], shape[1], draws, box, orientation
        )
        return image[y : y + height, x : x + width]

    def _within(self, height, width, draws, box, orientation):
        """The window in the stored image, four int32 tensors."""
        tf = require("tensorflow", "tensorflow")
        window = self._place(height, width, draws, box, orientation, tf)
        return [tf.cast(edge, tf.int32) for edge in window]

    def _place(self, height, width, draws, box, orientation, xp=np):
        """The window in the stored image, chosen in the upright image."""
        shown = height, width
        turned = orientation is not None
        if xp is np:
            turned = orientation != 1
        if turned:
            shown = upright_size(height, width, orientation, xp)
            if box is not None:
                box = upright_box(box, height, width, orientation, xp)
        x0, y0, x1, y1 = _inside(box, shown[1], shown[0], xp)
        top, left, rows, columns = self.window(y1 - y0, x1 - x0, draws, xp)
        window = (top + y0, left + x0, rows, columns)
        if turned:
            window = stored_window(window, height, width, orientation, xp)
        return window

    def _square(self, image):
        tf = require("tensorflow", "tensorflow")
        size = (self.image_size, self.image_size)
        channels = image.shape[-1]
        # A large image would get jagged edges when it shrinks. The mean over
        # areas avoids them, in a fifth of the time of `antialias=True`.
        shrunk = tf.reduce_min(tf.shape(image)[:2]) >= self.image_size
        image = tf.cond(
            shrunk,
            lambda: tf.image.resize(image, size, method="area"),
            lambda: tf.image.resize(image, size),
        )
        image = tf.cast(tf.round(image), tf.uint8)
        return tf.ensure_shape(image, (*size, channels))


def decoded(file):
    """Decodes the bytes of an image file to a uint8 tensor `[H, W, 3]`."""
    tf = require("tensorflow", "tensorflow")
    return tf.io.decode_image(file, channels=3, expand_animations=False)


def _inside(box, width, height, xp=np):
    """A box in whole pixels inside the image, at least one pixel large."""
    if box is None:
        return 0.0, 0.0, 1.0 * width, 1.0 * height
    x0, y0, x1, y1 = (box[i] for i in range(4))
    x0 = xp.minimum(xp.maximum(xp.floor(x0), 0.0), width - 1.0)
    y0 = xp.minimum(xp.maximum(xp.floor(y0), 0.0), height - 1.0)
    # -floor(-x) is ceil(x): TensorFlow has no `ceil` like NumPy's.
    x1 = xp.minimum(xp.maximum(-xp.floor(-x1), x0 + 1.0), 1.0 * width)
    y1 = xp.minimum(xp.maximum(-xp.floor(-y1), y0 + 1.0), 1.0 * height)
    return x0, y0, x1, y1
