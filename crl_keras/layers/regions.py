"""DCL's destruction: shuffles the regions of an image."""

from typing import Any

import keras
from keras import ops

from crl_keras.losses import _validation

__all__ = ["RegionConfusion"]

MODES = ("exact", "authors")
BORDER = 10  # Pixels that the authors' code cuts off all around.


@keras.saving.register_keras_serializable(package="crl_keras")
class RegionConfusion(keras.layers.Layer):
    r"""Pairs every image with a copy whose regions are shuffled.

    The image is cut into $N \times N$ regions. In row $j$ each region $i$ gets
    the number $q_{ji} = i + r$ with $r$ uniform in $(-k, k)$, and the row is
    sorted by these numbers. Then each column of the result is sorted in the
    same way. So every region appears once, and no region moves $2k$ or more
    along an axis.

    The paper's Eq. (3), taken literally, sorts rows and columns of the
    *original* image at once. This is not a permutation: with $N = 7$, $k = 2$,
    ten of 49 places stay empty on average. `mode="authors"` does what the
    released code does. It cuts off 10 pixels on all sides. In every row it
    swaps each pair of neighbours, from the left, with probability 1/2. Then it
    swaps whole rows in the same way. As the source of a region it guesses the
    region of the original with the nearest mean, which is wrong for most
    regions.

    Args:
        regions: Integer >= 1, `N`. Defaults to `7`.
        reach: Integer >= 1, `k`. Defaults to `2`, from memory of the paper.
        mode: "exact" or "authors". Defaults to `"exact"`.
        seed: Integer in [0, 2**31), or None to draw it from Keras's global
            seed. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        images: `(batch, height, width, channels)`, float, in any scaling.
            Height and width must be multiples of `regions`.
        training: Outside of training the second image is a copy of the first.

    Returns:
        `(pairs, sources)`. The pairs, `(batch, 2, height, width, channels)`,
        are the image and the destroyed image, in the dtype of the images. The
        sources, int32 `(batch, 2, N * N)`, give for each region, by rows, the
        number of the original region that it shows.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range, or the image cannot be cut into so many regions.

    Example:

        >>> images = np.random.default_rng(0).random((1, 8, 8, 3), "float32")
        >>> pairs, sources = RegionConfusion(4, seed=0)(images, training=True)
        >>> tuple(pairs.shape), tuple(sources.shape)
        ((1, 2, 8, 8, 3), (1, 2, 16))

    Source: Chen et al., Destruction and Construction Learning for Fine-grained
    Image Recognition, CVPR 2019, Eq. (1) to (3); JDAI-CV/DCL @8950816,
    transforms/functional.py.
    """

    def __init__(
        self,
        regions: int = 7,
        reach: int = 2,
        mode: str = "exact",
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        # No autocast: under a mixed policy 16-bit floats would round pixels.
        super().__init__(autocast=False, **kwargs)
        self.regions = _validation.check_count("regions", regions, 1)
        self.reach = _validation.check_count("reach", reach, 1)
        _validation.check_choice("mode", mode, MODES)
        self.mode = mode
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def call(self, images: Any, training: bool = False) -> Any:
        images = ops.convert_to_tensor(images)
        self._check(images.shape)
        destroyed = images
        batch = ops.shape(images)[0]
        in_order = ops.arange(self.regions**2, dtype="int32")
        in_order = ops.broadcast_to(in_order, (batch, self.regions**2))
        sources = in_order
        if training and self.mode == "exact":
            sources = self._drawn(batch)
            destroyed = self.moved(images, sources)
        elif training:
            swapped = self._swapped(batch)
            destroyed = self._without_border(images, swapped)
            sources = nearest_regions(images, destroyed, self.regions)
        pairs = ops.stack([images, destroyed], axis=1)
        return pairs, ops.stack([in_order, sources], axis=1)

    def moved(self, images: Any, sources: Any) -> Any:
        """Images that show the regions `sources`, int `(batch, N * N)`."""
        n = self.regions
        _, height, width, channels = images.shape
        high, wide = height // n, width // n
        cells = ops.reshape(images, (-1, n, high, n, wide, channels))
        cells = ops.transpose(cells, (0, 1, 3, 2, 4, 5))
        cells = ops.reshape(cells, (-1, n * n, high * wide * channels))
        cells = ops.take_along_axis(cells, sources[:, :, None], axis=1)
        cells = ops.reshape(cells, (-1, n, n, high, wide, channels))
        cells = ops.transpose(cells, (0, 1, 3, 2, 4, 5))
        return ops.reshape(cells, (-1, height, width, channels))

    def _drawn(self, batch: Any) -> Any:
        draws = keras.random.uniform(
            (batch, 2, self.regions, self.regions),
            -float(self.reach),
            float(self.reach),
            dtype="float32",
            seed=self.seed_generator,
        )
        return confused(draws[:, 0], draws[:, 1])

    def _swapped(self, batch: Any) -> Any:
        n = self.regions
        draws = keras.random.uniform(
            (batch, n + 1, max(n - 1, 1)),
            dtype="float32",
            seed=self.seed_generator,
        )
        bits = ops.less(draws, 0.5)
        return swapped(bits[:, :n], bits[:, n])

    def _without_border(self, images: Any, sources: Any) -> Any:
        _, height, width, _ = images.shape
        inner = images[:, BORDER : height - BORDER, BORDER : width - BORDER]
        n = self.regions
        size = (height - 2 * BORDER) // n * n, (width - 2 * BORDER) // n * n
        # The authors' code resizes each region, from 61 or 62 pixels to 61.
        inner = _resized(inner, size)
        return _resized(self.moved(inner, sources), (height, width))

    def _check(self, shape: Any) -> None:
        height, width = shape[1:3]
        least = BORDER * 2 + self.regions if self.mode == "authors" else 1
        if (
            None in (height, width)
            or height % self.regions
            or width % self.regions
            or min(height, width) < least
        ):
            raise ValueError(
                f"Expected images that can be cut into {self.regions} x "
                f"{self.regions} regions, of at least {least} pixels a side. "
                f"Received: {height} x {width} pixels; choose other `regions`"
            )

    def compute_output_spec(self, images: Any, training: bool = False) -> Any:
        self._check(images.shape)
        batch, *shape = images.shape
        return (
            keras.KerasTensor((batch, 2, *shape), dtype=images.dtype),
            keras.KerasTensor((batch, 2, self.regions**2), dtype="int32"),
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "regions": self.regions,
            "reach": self.reach,
            "mode": self.mode,
            "seed": self.seed,
        }


def confused(row_draws: Any, column_draws: Any) -> Any:
    """The source of every region: rows are sorted, then columns of the result.

    Args:
        row_draws, column_draws: `(batch, N, N)`, float, added to the number of
            a region along its row and its column.

    Returns:
        int32 `(batch, N * N)`.
    """
    n = row_draws.shape[-1]
    along = ops.arange(n, dtype="float32")
    start = ops.arange(n, dtype="int32")[:, None] * n
    rows = start + ops.cast(ops.argsort(along + row_draws, axis=-1), "int32")
    # argsort names the source of each place, not the place of each source.
    order = ops.argsort(along[:, None] + column_draws, axis=-2)
    found = ops.take_along_axis(rows, ops.cast(order, "int32"), axis=-2)
    return ops.reshape(found, (-1, n * n))


def swapped(of_rows: Any, of_all: Any) -> Any:
    """The source of every region after swaps of neighbours, in order.

    Args:
        of_rows: bool `(batch, N, N - 1)`: whether in each row the regions at
            places m - 1 and m are swapped, m = 1, 2, and so on.
        of_all: bool `(batch, N - 1)`, the same for whole rows.

    Returns:
        int32 `(batch, N * N)`.
    """
    batch, n = ops.shape(of_rows)[0], of_rows.shape[1]
    numbers = ops.reshape(ops.arange(n * n, dtype="int32"), (n, n))
    numbers = ops.broadcast_to(numbers, (batch, n, n))
    columns = [numbers[:, :, i] for i in range(n)]
    for i in range(1, n):
        swap = of_rows[:, :, i - 1]
        before, after = columns[i - 1], columns[i]
        columns[i - 1] = ops.where(swap, after, before)
        columns[i] = ops.where(swap, before, after)
    numbers = ops.stack(columns, axis=-1)
    rows = [numbers[:, i] for i in range(n)]
    for i in range(1, n):
        swap = of_all[:, i - 1, None]
        before, after = rows[i - 1], rows[i]
        rows[i - 1] = ops.where(swap, after, before)
        rows[i] = ops.where(swap, before, after)
    return ops.reshape(ops.stack(rows, axis=1), (-1, n * n))


def nearest_regions(images: Any, destroyed: Any, regions: int) -> Any:
    """For each region of `destroyed`, the region of `images` nearest in mean.

    Of equally near regions the first; int32 `(batch, N * N)`.
    """
    ours, theirs = _means(destroyed, regions), _means(images, regions)
    far = ops.abs(ours[:, :, None] - theirs[:, None, :])
    return ops.cast(ops.argmin(far, axis=-1), "int32")


def _means(images: Any, n: int) -> Any:
    _, height, width, channels = images.shape
    cells = ops.cast(images, "float32")
    cells = ops.reshape(cells, (-1, n, height // n, n, width // n, channels))
    return ops.reshape(ops.mean(cells, axis=(2, 4, 5)), (-1, n * n))


def _resized(images: Any, size: tuple[int, int]) -> Any:
    return ops.image.resize(
        images, size, interpolation="bilinear", data_format="channels_last"
    )
