"""Stochastic gradient descent as PyTorch computes it."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="crl_keras")
class CoupledSGD(keras.optimizers.SGD):
    """Computes the steps of `torch.optim.SGD`: weight decay before momentum.

    With the gradient `g` of a variable `w` and its velocity `v`, 0 at first:

    ```
    g = g + coupled_weight_decay * w
    v = momentum * v + g
    w = w - learning_rate * v                      (nesterov=False)
    w = w - learning_rate * (g + momentum * v)     (nesterov=True)
    ```

    `keras.optimizers.SGD(weight_decay=)` is another thing: it decays the
    weights apart from the momentum, `1 / (1 - momentum)` times less. After
    1000 steps with gradient 0, learning rate 0.1, momentum 0.9 and decay 5e-4,
    a weight of 1 is 0.6078 here and in PyTorch, and 0.9512 there.

    Keras's SGD also keeps the learning rate inside of the velocity, PyTorch's
    outside. The two differ for the few steps after the rate has changed:
    there old gradients go on at the old rate, here all go at the new one.

    Weight decay applies to every trainable variable, those of batch
    normalisation and biases too, as in PyTorch;
    `exclude_from_weight_decay` excepts some. It is applied to gradients that
    are clipped already, accumulated, and unscaled by `LossScaleOptimizer`.

    Args:
        learning_rate: Float, or a `keras.optimizers.schedules` schedule.
            Defaults to `0.01`.
        momentum: Float in [0, 1]. Defaults to `0.0`.
        nesterov: Whether the momentum is Nesterov's. Defaults to `False`.
        coupled_weight_decay: Finite float >= 0, `weight_decay` of
            `torch.optim.SGD`. Defaults to `0.0`.
        name: Name of the optimizer. Defaults to `"coupled_sgd"`.
        **kwargs: Those of `keras.optimizers.SGD`, such as `clipnorm`, except
            for `weight_decay`.

    Raises:
        ValueError: `coupled_weight_decay` or `momentum` is out of its range,
            or `weight_decay` is given.

    Example:

    >>> optimizer = CoupledSGD(0.1, momentum=0.9, coupled_weight_decay=0.5)
    >>> weight = keras.Variable([2.0])
    >>> optimizer.apply([np.float32([1.0])], [weight])
    >>> print(keras.ops.convert_to_numpy(weight))
    [1.8]

    Source: Loshchilov and Hutter,
    [Decoupled Weight Decay Regularization](https://arxiv.org/abs/1711.05101),
    on the two kinds; the documentation of `torch.optim.SGD` for its steps.
    """

    def __init__(
        self,
        learning_rate=0.01,
        momentum=0.0,
        nesterov=False,
        coupled_weight_decay=0.0,
        name="coupled_sgd",
        **kwargs,
    ):
        if kwargs.get("weight_decay") is not None:
            raise ValueError(
                "CoupledSGD takes `coupled_weight_decay`; `weight_decay` is "
                "the decoupled one of keras.optimizers.SGD. "
                f"Received: weight_decay={kwargs['weight_decay']}"
            )
        decay = float(coupled_weight_decay)
        if not (math.isfinite(decay) and decay >= 0):
            raise ValueError(
                "`coupled_weight_decay` must be a finite number >= 0. "
                f"Received: coupled_weight_decay={coupled_weight_decay}"
            )
        super().__init__(
            learning_rate=learning_rate,
            momentum=float(momentum),
            nesterov=nesterov,
            name=name,
            **kwargs,
        )
        self.coupled_weight_decay = decay

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable."""
        learning_rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(gradient, variable.dtype)
        if self.coupled_weight_decay and self._use_weight_decay(variable):
            step = step + ops.multiply(variable, self.coupled_weight_decay)
        if self.momentum:
            velocity = self.momentums[self._get_variable_index(variable)]
            self.assign(
                velocity, ops.add(ops.multiply(velocity, self.momentum), step)
            )
            if self.nesterov:
                step = ops.add(step, ops.multiply(velocity, self.momentum))
            else:
                step = velocity
        self.assign_sub(variable, ops.multiply(step, learning_rate))

    def get_config(self):
        return {
            **super().get_config(),
            "coupled_weight_decay": self.coupled_weight_decay,
        }


class HeadRate:
    """Mixin of an optimizer: the last layer learns at a rate of its own.

    A variable below the layer named "logits" is updated with `head_rate` times
    the learning rate. All others are with the learning rate itself, and not at
    all before `head_updates` updates have been made: until then the gradients
    of a new last layer say little about the layers below it. Their momentum
    gathers meanwhile.

    Attributes:
        head_rate: Number > 0. Defaults to `1.0`.
        head_updates: Integer >= 0. Defaults to `0`.

    Example:

    >>> class HeadSGD(HeadRate, keras.optimizers.SGD):
    ...     head_rate, head_updates = 10.0, 1
    >>> model = keras.Sequential([
    ...     keras.Input((1,)),
    ...     keras.layers.Dense(1, use_bias=False),
    ...     keras.layers.Dense(2, use_bias=False, name="logits"),
    ... ])
    >>> model.set_weights([np.ones((1, 1)), np.ones((1, 2))])
    >>> optimizer = HeadSGD(0.01)
    >>> gradients = [np.ones((1, 1), "f"), np.ones((1, 2), "f")]
    >>> for _ in range(2):
    ...     optimizer.apply(gradients, model.trainable_variables)
    ...     print([f"{w[0, 0]:.2f}" for w in model.get_weights()])
    ['1.00', '0.90']
    ['0.99', '0.80']
    """

    head_rate = 1.0
    head_updates = 0

    def build(self, variables):
        super().build(variables)
        # By number: on TensorFlow `update_step` gets variables without a path.
        self._of_head = [
            "logits" in variable.path.split("/") for variable in variables
        ]

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable."""
        learning_rate = ops.cast(learning_rate, variable.dtype)
        if self._of_head[self._get_variable_index(variable)]:
            learning_rate = learning_rate * self.head_rate
        elif self.head_updates:
            waiting = ops.less(self.iterations, self.head_updates)
            learning_rate = ops.where(
                waiting, ops.zeros_like(learning_rate), learning_rate
            )
        super().update_step(gradient, variable, learning_rate)
