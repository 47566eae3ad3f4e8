"""Finds the layer of a backbone that gives a method its features."""

from typing import Any

import keras

__all__ = ["find_tap"]

# The papers' layers: after the activation and before the pooling.
VGG = {
    "last": {"vgg16": "block5_conv3", "vgg19": "block5_conv4"},
    "finer": {"vgg16": "block4_conv3", "vgg19": "block4_conv4"},
}


def find_tap(backbone: Any, tap: str | None = None, where: str = "last") -> Any:
    """Returns the output of a layer inside a backbone.

    Args:
        backbone: Functional `keras.Model` without its classifier.
        tap: Name of a layer, such as "conv4_block6_out", or of a level of a
            backbone with `pyramid_outputs`, such as "P4". None for the layer
            that the papers use in VGG16 and ResNet-50, or a similar layer in
            other backbones.
        where: Used without `tap`. "last" is the last feature map; in VGG it is
            the map before the last pooling. "finer" is the last map that is
            larger than that; in VGG it is the map before the fourth pooling.

    Returns:
        Keras tensor `(batch, height, width, channels)`.

    Raises:
        ValueError: If there is no such layer, or its output is not a feature
            map.

    Example:

        >>> backbone = keras.applications.ResNet50(
        ...     include_top=False, weights=None, input_shape=(64, 64, 3)
        ... )
        >>> find_tap(backbone).shape, find_tap(backbone, where="finer").shape
        ((None, 2, 2, 2048), (None, 4, 4, 1024))
    """
    return Taps(backbone).find(tap, where)


class Taps:
    """The layers of a backbone and their outputs, in one graph.

    Args:
        backbone: Functional `keras.Model`.

    Attributes:
        start: Keras tensor that is the input of the backbone.
    """

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone
        self.start = backbone.inputs[0]
        end = backbone.outputs[-1]
        self.outputs: dict[str, Any] = {}
        if getattr(backbone.layers[-1], "output", None) is end:
            for layer in backbone.layers:
                self._add(layer, getattr(layer, "output", None))
        else:
            # The backbone is cut out of another model: its layers know that
            # model's graph.
            copy = keras.models.clone_model(
                backbone,
                clone_function=lambda layer: layer,
                call_function=self._call,
            )
            self.start, end = copy.inputs[0], copy.outputs[-1]
        self.levels = getattr(backbone, "pyramid_outputs", None) or {}
        self.maps = [x for x in self.outputs.values() if len(x.shape) == 4]
        # Before the pooling, if the backbone pools.
        self.last = end if len(end.shape) == 4 else None
        if self.last is None and self.maps:
            self.last = self.maps[-1]

    def _call(self, layer: Any, *arguments: Any, **options: Any) -> Any:
        output = layer(*arguments, **options)
        self._add(layer, output)
        return output

    def _add(self, layer: Any, output: Any) -> None:
        start = isinstance(layer, keras.layers.InputLayer)
        if isinstance(output, keras.KerasTensor) and not start:
            self.outputs[layer.name] = output

    def find(self, tap: str | None = None, where: str = "last") -> Any:
        """See `find_tap`."""
        tap = tap or VGG[where].get(self.backbone.name)
        if tap is not None:
            return self._named(tap)
        if self.last is None:
            raise ValueError(
                "Expected a backbone with feature maps (batch, height, width, "
                f"channels). Received: {self.backbone.name}, whose output is "
                f"{self.backbone.outputs[-1]}"
            )
        if where == "last":
            return self.last
        if len(self.levels) > 1:
            return self.levels[sorted(self.levels)[-2]]
        finer = [x for x in self.maps if _places(x) > _places(self.last)]
        if not finer:
            raise ValueError(
                f"No feature map of {self.backbone.name} is larger than its "
                "last one. Name a layer: tap= (--tap)"
            )
        return finer[-1]

    def call(self, outputs: Any, inputs: Any, frozen: bool) -> tuple[Any, Any]:
        """`(part, outputs)` of the backbone; if frozen, in inference mode."""
        part = keras.Model(self.start, outputs, name=self.backbone.name)
        part.trainable = not frozen
        return part, part(inputs, training=False if frozen else None)

    def _named(self, tap: str) -> Any:
        if tap in self.levels:
            return self.levels[tap]
        output = self.outputs.get(tap)
        if output is None:
            names = [*self.levels, *self.outputs]
            near = [name for name in names if tap.lower() in name.lower()]
            raise ValueError(
                f"`tap` must be a layer of {self.backbone.name}, such as "
                f"{', '.join((near or names)[-8:])}. Received: tap={tap!r}"
            )
        if len(output.shape) != 4:
            raise ValueError(
                "Expected a feature map (batch, height, width, channels). "
                f"Received: {tap}, whose output is {output}"
            )
        return output


def _places(output: Any) -> int:
    height, width = output.shape[1:3]
    return int((height or 0) * (width or 0))
