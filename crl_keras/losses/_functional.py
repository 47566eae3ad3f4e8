"""Losses in functional models, where Keras tensors stand for numbers."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="crl_keras")
class LossOperation(keras.Operation):
    """A loss, object or function, as one operation of a functional model.

    The losses need shapes that a Keras tensor may not have. So they run on the
    numbers, when the model is called.
    """

    def __init__(self, loss, name=None):
        super().__init__(name=name)
        self.loss = loss

    def call(self, *arguments, **options):
        return self.loss(*arguments, **options)

    def get_config(self):
        return {"loss": keras.losses.serialize(self.loss), "name": self.name}

    @classmethod
    def from_config(cls, config):
        loss = keras.losses.deserialize(config["loss"])
        return cls(loss, name=config["name"])


class BatchLoss(keras.losses.Loss):
    """Base class of the losses: a call takes numbers or Keras tensors.

    A subclass computes the loss of a batch of numbers in `of_batch`.
    """

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> Any:
        if has_keras_tensors(y_true, y_pred, sample_weight):
            return LossOperation(self)(y_true, y_pred, sample_weight)
        with keras.name_scope(self.name):
            return self.of_batch(y_true, y_pred, sample_weight)

    def of_batch(self, y_true, y_pred, sample_weight):
        raise NotImplementedError


def has_keras_tensors(*arguments):
    return any(isinstance(x, keras.KerasTensor) for x in arguments)
