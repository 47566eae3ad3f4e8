"""DFL-CNN's filter bank: each filter looks for one patch of a class."""

from typing import Any

import keras
from keras import ops

from crl_keras.losses import _validation

__all__ = ["DiscriminativeFilters"]


@keras.saving.register_keras_serializable(package="crl_keras")
class DiscriminativeFilters(keras.layers.Layer):
    r"""Finds the most discriminative patches of each class by filter maxima.

    With the features $f_p$ at place $p$ of a map and $k$ filters per class,
    filter $m = c k + i$ is the $i$-th filter of class $c$:

    $$v_m = \max_p \left(w_m^T f_p + b_m\right), \quad
    \mathrm{side}_c = \frac{1}{k} \sum_{i<k} v_{c k + i}$$

    There is no activation between the filter and the maximum. A filter gets its
    gradient only from the place of its maximum. Only a loss on `side` ties a
    filter to its class.

    Args:
        classes: Integer >= 2.
        filters: Integer >= 1, `k`, for each class. Defaults to `10`.
        kernel_initializer: Defaults to `"glorot_uniform"`. The paper
            initialises the filters from patches of each class; see
            `examples/finetune_cub.py --method dfl`.
        **kwargs: Arguments of `keras.layers.Layer`: `name`, `dtype`.

    Call arguments:
        inputs: `(batch, height, width, channels)`, float.

    Returns:
        `(v, side)`: `(batch, classes * filters)` and `(batch, classes)`.

    Raises:
        TypeError, ValueError: If an argument has the wrong type or is out of
            range.

    Example:

        >>> layer = DiscriminativeFilters(classes=3, filters=4)
        >>> v, side = layer(np.ones((2, 5, 5, 8), "float32"))
        >>> tuple(v.shape), tuple(side.shape)
        ((2, 12), (2, 3))

    Source: Wang, Morariu and Davis, [Learning a Discriminative Filter Bank
    within a CNN](https://arxiv.org/abs/1611.09932), Sections 3.1 and 3.2.
    """

    def __init__(
        self,
        classes: int,
        filters: int = 10,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.classes = _validation.check_count("classes", classes, 2)
        self.filters = _validation.check_count("filters", filters, 1)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: Any) -> None:
        units = self.classes * self.filters
        self.kernel = self.add_weight(
            shape=(input_shape[-1], units),
            initializer=self.kernel_initializer,
            name="kernel",
        )
        self.bias = self.add_weight(
            shape=(units,), initializer="zeros", name="bias"
        )

    def responses(self, inputs: Any) -> Any:
        """Output of all filters, `(batch, height, width, units)`."""
        return ops.matmul(inputs, self.kernel) + self.bias

    def call(self, inputs: Any) -> Any:
        # The bias does not change which place has the maximum.
        v = ops.max(ops.matmul(inputs, self.kernel), axis=(1, 2)) + self.bias
        of_class = ops.reshape(v, (-1, self.classes, self.filters))
        return v, ops.mean(of_class, axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        batch = input_shape[0]
        return (batch, self.classes * self.filters), (batch, self.classes)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "classes": self.classes,
            "filters": self.filters,
            "kernel_initializer": keras.initializers.serialize(
                self.kernel_initializer
            ),
        }
