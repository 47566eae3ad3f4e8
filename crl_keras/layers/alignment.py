"""DCL's construction: predicts where each region belongs."""

from typing import Any

import keras
from keras import ops

from crl_keras.losses import _validation

__all__ = ["RegionAlignment"]

FORMS = ("code", "paper")


@keras.saving.register_keras_serializable(package="crl_keras")
class RegionAlignment(keras.layers.Layer):
    r"""Compares the predicted source of each region with its true source.

    A 1x1 convolution of the last feature map, averaged to $N \times N$ places,
    predicts for each region of the image where it was in the original. The
    layer returns the prediction minus the truth. DCL's location loss is the
    mean ("code") or the sum ("paper") of the absolute differences.

    - `form="code"`, the released code: one channel, averaged, then `tanh`. The
      truth for region number `s` of the original, counted by rows from 0, is
      `(s - N * N // 2) / N**2`, from -24/49 to 24/49 with N = 7.
    - `form="paper"`, Eq. (7) to (9): two channels, ReLU, then averaged. The
      truth is the row and column of the region, counted from 1.

    Args:
        regions: Integer >= 1, `N`. Defaults to `7`.
        form: "code" or "paper". Defaults to `"code"`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        inputs: List `[features, sources]`. The features are
            `(batch, height, width, channels)`, float, with height and width
            multiples of `regions`. The sources are `(batch, N * N)`, integers,
            as `RegionConfusion` returns them.

    Returns:
        `(batch, N * N)`, or `(batch, N * N, 2)` for "paper".

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range, or the map cannot be cut into so many regions.

    Example:

        >>> layer = RegionAlignment(regions=2)
        >>> maps = np.zeros((1, 4, 4, 8), "float32")
        >>> sources = np.array([[0, 3, 2, 1]])
        >>> print(keras.ops.convert_to_numpy(layer([maps, sources])))
        [[ 0.5  -0.25  0.    0.25]]

    Source: Chen et al., Destruction and Construction Learning for Fine-grained
    Image Recognition, CVPR 2019, Eq. (7) to (9); JDAI-CV/DCL @8950816.
    """

    def __init__(
        self, regions: int = 7, form: str = "code", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.regions = _validation.check_count("regions", regions, 1)
        _validation.check_choice("form", form, FORMS)
        self.form = form
        self.channels = 1 if form == "code" else 2

    def build(self, input_shape: Any) -> None:
        self._check(input_shape[0])
        self.kernel = self.add_weight(
            shape=(input_shape[0][-1], self.channels),
            initializer="glorot_uniform",
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(self.channels,), initializer="zeros", name="bias"
        )

    def call(self, inputs: Any) -> Any:
        features, sources = inputs
        found = ops.matmul(features, self.kernel) + self.bias
        if self.form == "code":
            found = ops.tanh(self._averaged(found))[:, :, 0]
        else:
            found = self._averaged(ops.relu(found))
        return found - ops.cast(self.truth(sources), found.dtype)

    def truth(self, sources: Any) -> Any:
        """The true values for regions with these sources."""
        n = self.regions
        if self.form == "code":
            sources = ops.cast(sources, "float32")
            return (sources - n * n // 2) / float(n * n)
        sources = ops.cast(sources, "int32")
        rows, columns = sources // n + 1, sources % n + 1
        return ops.stack([rows, columns], axis=-1)

    def _averaged(self, maps: Any) -> Any:
        n = self.regions
        _, height, width, channels = maps.shape
        cells = ops.reshape(maps, (-1, n, height // n, n, width // n, channels))
        return ops.reshape(ops.mean(cells, axis=(2, 4)), (-1, n * n, channels))

    def _check(self, shape: Any) -> None:
        if (
            None in shape[1:]
            or shape[1] % self.regions
            or (shape[2] % self.regions)
        ):
            raise ValueError(
                "Expected a feature map with height and width divisible by "
                f"{self.regions}. Received: shape={tuple(shape)}; choose other "
                "`regions`, or larger images"
            )

    def compute_output_shape(self, input_shape: Any) -> Any:
        self._check(input_shape[0])
        shape = (input_shape[0][0], self.regions**2)
        return shape if self.form == "code" else (*shape, 2)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "regions": self.regions,
            "form": self.form,
        }
