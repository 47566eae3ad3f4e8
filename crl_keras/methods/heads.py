"""A classifier with more heads in training than in prediction."""

import dataclasses
from typing import Any

import keras
from keras import ops

from crl_keras.losses._validation import check_choice

__all__ = ["Head", "MultiHeadClassifier"]

LABELS = ("class", "pair", "swap", "origin", "none")
LOSSES = ("given", "ce", "mean", "sum")


@dataclasses.dataclass(frozen=True)
class Head:
    """Labels, loss and weight of one output in training.

    Args:
        labels: Labels of the rows, for a batch of `B` images with labels `y` of
            `C` classes. "class": `y`, for `B` rows. The others are for `2 B`
            rows, in which image and destroyed image alternate. "pair": `y` for
            both. "swap": `y` and `y + C`. "origin": 1 and 0. "none": no labels;
            the output is trained towards 0.
        loss: "given" for the loss given to `compile`, "ce" for cross-entropy in
            any case. With labels "none": the "mean" of the absolute values, or
            their "sum" over a pair of images.
        weight: Factor of the loss, number >= 0.

    Raises:
        ValueError: If a value is not one of these, or labels and loss do not
            fit together.

    >>> Head("swap", "ce", 1.0).weight
    1.0
    """

    labels: str = "class"
    loss: str = "given"
    weight: float = 1.0

    def __post_init__(self) -> None:
        for field, choices in (("labels", LABELS), ("loss", LOSSES)):
            check_choice(field, getattr(self, field), choices)
        if (self.labels == "none") != (self.loss in ("mean", "sum")):
            raise ValueError(
                '"mean" and "sum" are for outputs without labels. '
                f"Received: {self}"
            )
        if not self.weight >= 0:
            raise ValueError(
                f"`weight` must be >= 0. Received: weight={self.weight}"
            )


@keras.saving.register_keras_serializable(package="crl_keras")
class MultiHeadClassifier(keras.Model):
    """Trains all heads of a network with one loss, and predicts with one.

    `compile` and `fit` take the loss and the labels of a plain classifier. In
    training every head gets its own labels, and the loss is

    ```
    sum over heads of weight * loss(labels of the head, output of the head)
    ```

    In `evaluate` and `predict` the model is `classifier`, a plain functional
    model from images to logits, and computes nothing else. Save or export
    `classifier` for use. The training accuracy is the accuracy of the output
    `shown`.

    Args:
        network: Functional `keras.Model` from images to a dict of outputs. The
            model predicts "logits", `(batch, classes)`; it is not a head.
        heads: Dict that maps names of outputs to `Head`s.
        shown: Name of an output with class logits, used for the training
            accuracy.
        **kwargs: Arguments of `keras.Model`: `name`.

    Attributes:
        classifier: `keras.Model` from images to logits. It shares the layers of
            `network`.
        training_network: `keras.Model` from images to the outputs of training.

    Raises:
        ValueError: If the network does not have these outputs.

    Example:

        >>> inputs = keras.Input((4,))
        >>> first, second = (keras.layers.Dense(3)(inputs) for _ in range(2))
        >>> model = MultiHeadClassifier(
        ...     keras.Model(inputs, {"a": first, "b": second, "logits": first}),
        ...     {"a": Head(), "b": Head(weight=0.1)},
        ...     shown="a",
        ... )
        >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        >>> model.compile(loss=loss)
        >>> x, y = np.ones((2, 4), "float32"), np.array([0, 2])
        >>> sorted(model.fit(x, y, verbose=0).history)
        ['loss']
        >>> model.predict(x, verbose=0).shape
        (2, 3)
    """

    def __init__(
        self, network: Any, heads: dict[str, Head], shown: str, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        outputs = network.output
        wanted = {*heads, shown}
        if not isinstance(outputs, dict) or not wanted | {"logits"} <= {
            *outputs
        }:
            raise ValueError(
                "Expected a network with a dict of outputs, among them "
                f"{sorted(wanted | {'logits'})}. Received: {outputs}"
            )
        if "logits" in wanted:
            raise ValueError(
                '"logits" is the output for prediction: give the outputs for '
                f"training another name. Received: heads={sorted(heads)}, "
                f"shown={shown!r}"
            )
        self.network = network
        self.heads, self.shown = dict(heads), shown
        self.classifier = keras.Model(
            network.input, outputs["logits"], name="classifier"
        )
        self.training_network = keras.Model(
            network.input,
            {name: outputs[name] for name in sorted(wanted)},
            name="training_network",
        )
        self.built = True

    @property
    def input_shape(self) -> Any:
        """Shape of the images, with the batch axis."""
        return self.network.input_shape

    @property
    def output_shape(self) -> Any:
        """Shape of the logits."""
        return self.classifier.output_shape

    def behind(self, inputs: Any, images: Any) -> "MultiHeadClassifier":
        """Returns this model with layers in front, such as augmentation.

        Args:
            inputs: `keras.Input`.
            images: Keras tensor computed from `inputs`; this model takes it as
                input.

        Returns:
            `MultiHeadClassifier` that shares all layers.
        """
        outputs = dict(self.training_network(images))
        outputs["logits"] = self.classifier(images)
        network = keras.Model(inputs, outputs)
        return MultiHeadClassifier(network, self.heads, self.shown)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if training:
            return self.training_network(inputs, training=True)
        return self.classifier(inputs, training=False)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The weighted sum of the head losses, or the loss of the logits."""
        if not isinstance(y_pred, dict):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        losses = self.head_losses(y, y_pred, sample_weight)
        terms = [
            self.heads[name].weight * value for name, value in losses.items()
        ]
        return sum(terms + list(self.losses))

    def head_losses(
        self, y: Any, outputs: dict[str, Any], sample_weight: Any = None
    ) -> dict[str, Any]:
        """The loss of each head, without its weight.

        Args:
            y: Labels, integers `(batch,)` or `(batch, 1)`, or one-hot or soft
                ones `(batch, classes)`.
            outputs: Dict that `training_network` returns.
            sample_weight: `(batch,)` or None.

        Returns:
            Dict of scalars.
        """
        return {
            name: self._loss_of(head, y, outputs[name], sample_weight)
            for name, head in self.heads.items()
        }

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        """The metrics of `compile`; in training for the output `shown`."""
        if isinstance(y_pred, dict):
            y_pred = y_pred[self.shown]
            head = self.heads.get(self.shown, Head())
            if head.labels == "pair":  # Keep the original image.
                y_pred = _halves(y_pred)[:, 0]
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _loss_of(
        self, head: Head, y: Any, output: Any, sample_weight: Any
    ) -> Any:
        if head.loss == "mean":
            return ops.mean(ops.abs(ops.cast(output, "float32")))
        if head.loss == "sum":
            pairs = ops.cast(ops.shape(output)[0], "float32") / 2.0
            return ops.sum(ops.abs(ops.cast(output, "float32"))) / pairs
        labels, soft = self._labels(head.labels, y)
        if head.labels != "class" and sample_weight is not None:
            sample_weight = ops.repeat(sample_weight, 2, axis=0)
        loss = self._given()
        if head.loss == "ce":
            kind = keras.losses.SparseCategoricalCrossentropy
            if soft:
                kind = keras.losses.CategoricalCrossentropy
            loss = kind(from_logits=True)
        return loss(labels, output, sample_weight=sample_weight)

    def _given(self) -> Any:
        loss = self.loss
        if isinstance(loss, str):
            loss = keras.losses.get(loss)
        if not isinstance(loss, keras.losses.Loss):
            raise ValueError(
                "Expected one loss from logits for all heads, such as "
                "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
                f". Received: loss={self.loss!r}"
            )
        return loss

    def _labels(self, kind: str, y: Any) -> tuple[Any, bool]:
        """Labels of a head, and whether they are one-hot or soft."""
        y = ops.convert_to_tensor(y)
        classes = self.classifier.output_shape[-1]
        soft = len(y.shape) == 2 and y.shape[-1] == classes
        if kind == "origin":
            shown = ops.stack([ops.ones_like(y), ops.zeros_like(y)], axis=1)
            if soft:
                shown = shown[:, :, 0]
            return ops.reshape(ops.cast(shown, "int32"), (-1,)), False
        if not soft:
            y = ops.reshape(y, (-1,))
        if kind == "class":
            return y, soft
        if kind == "pair":
            return ops.repeat(y, 2, axis=0), soft
        if not soft:
            return ops.reshape(ops.stack([y, y + classes], axis=1), (-1,)), soft
        nothing = ops.zeros_like(y)
        both = [
            ops.concatenate([y, nothing], axis=1),
            ops.concatenate([nothing, y], axis=1),
        ]
        both = ops.stack(both, axis=1)
        return ops.reshape(both, (-1, 2 * classes)), soft

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "network": keras.saving.serialize_keras_object(self.network),
            "heads": {
                name: dataclasses.asdict(head)
                for name, head in self.heads.items()
            },
            "shown": self.shown,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "MultiHeadClassifier":
        network = keras.saving.deserialize_keras_object(
            config["network"], custom_objects
        )
        heads = {name: Head(**kw) for name, kw in config["heads"].items()}
        return cls(network, heads, config["shown"], name=config["name"])


def _halves(x: Any) -> Any:
    """Reshapes `(2 B, ...)` to `(B, 2, ...)`, image and destroyed image."""
    return ops.reshape(x, (-1, 2, *x.shape[1:]))
