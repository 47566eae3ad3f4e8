"""SGD as in PyTorch, learning rates for parts of a network, and warm-up."""

import fnmatch
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import keras
from keras import ops

__all__ = [
    "CoupledSGD",
    "HeadRate",
    "HeadRateAdam",
    "HeadRateRMSprop",
    "HeadRateSGD",
    "WarmUp",
]


if TYPE_CHECKING:  # The class that the mixin extends.
    from keras.optimizers import Optimizer as _Optimizer
else:
    _Optimizer = object


@keras.saving.register_keras_serializable(package="crl_keras")
class CoupledSGD(keras.optimizers.SGD):
    """SGD with the steps of `torch.optim.SGD`: weight decay before momentum.

    For a variable `w` with gradient `g` and velocity `v`, which starts at 0:

    ```
    g = g + coupled_weight_decay * w
    v = momentum * v + g
    w = w - learning_rate * v                      (nesterov=False)
    w = w - learning_rate * (g + momentum * v)     (nesterov=True)
    ```

    `keras.optimizers.SGD(weight_decay=)` is different: it decays the weights
    separately from the momentum, and `1 / (1 - momentum)` times less. For
    example, 1000 steps with gradient 0, learning rate 0.1, momentum 0.9 and
    decay 5e-4 take a weight of 1 to 0.6078 here and in PyTorch, and to 0.9512
    in Keras.

    Keras's SGD also keeps the learning rate inside the velocity, PyTorch's SGD
    outside. The two differ for a few steps after the rate changes. In Keras,
    old gradients keep the old rate. Here all gradients use the new rate.

    As in PyTorch, weight decay applies to every trainable variable, including
    biases and batch normalisation. Use `exclude_from_weight_decay` to exclude
    variables. Gradients are clipped, accumulated, and unscaled by
    `LossScaleOptimizer` before the decay is added.

    Args:
        learning_rate: Float, or a `keras.optimizers.schedules` schedule.
            Defaults to `0.01`.
        momentum: Float in [0, 1]. Defaults to `0.0`.
        nesterov: Whether the momentum is Nesterov's. Defaults to `False`.
        coupled_weight_decay: Finite float >= 0, the `weight_decay` of
            `torch.optim.SGD`. Defaults to `0.0`.
        name: Name of the optimizer. Defaults to `"coupled_sgd"`.
        **kwargs: Other arguments of `keras.optimizers.SGD`, such as `clipnorm`,
            but not `weight_decay`.

    Raises:
        ValueError: If `coupled_weight_decay` or `momentum` is out of range, or
            `weight_decay` is given.

    Example:

        >>> optimizer = CoupledSGD(0.1, momentum=0.9, coupled_weight_decay=0.5)
        >>> weight = keras.Variable([2.0])
        >>> optimizer.apply([np.float32([1.0])], [weight])
        >>> print(keras.ops.convert_to_numpy(weight))
        [1.8]

    Source: Loshchilov and Hutter,
    [Decoupled Weight Decay Regularization](https://arxiv.org/abs/1711.05101),
    for the two kinds of decay; the documentation of `torch.optim.SGD` for its
    steps.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        coupled_weight_decay: float = 0.0,
        name: str = "coupled_sgd",
        **kwargs: Any,
    ) -> None:
        if kwargs.get("weight_decay") is not None:
            raise ValueError(
                "CoupledSGD takes `coupled_weight_decay`; `weight_decay` is "
                "the decoupled weight decay of keras.optimizers.SGD. "
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

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Updates one variable."""
        learning_rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(gradient, variable.dtype)
        # `decay` is a traced number if one program trains several runs.
        decay = self.coupled_weight_decay
        is_0 = isinstance(decay, float) and decay == 0
        if not is_0 and self._use_weight_decay(variable):
            step = step + ops.multiply(variable, decay)
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

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "coupled_weight_decay": self.coupled_weight_decay,
        }


class HeadRate(_Optimizer):
    """Optimizer mixin: gives parts of a network their own learning rates.

    Layers named in `head_layers` use `head_rate` times the learning rate; all
    others use the learning rate itself. In the first `head_updates` updates the
    others do not change, because an untrained last layer gives them gradients
    of little use. Their momentum still accumulates.

    `part_rates` sets a factor for any layers, for all of the training or for
    its first updates. Its entries are `(pattern, factor, updates)`. The pattern
    matches layer names with the wildcards `*`, `?` and `[]`. An entry is active
    during the first `updates` updates, or always if `updates` is 0. A layer
    uses the first active entry that matches its name. With a factor of 0
    the variable does not change, and its momentum receives no gradient, only
    weight decay.

    Keras loads a saved model with its optimizer if the optimizer's class is
    registered. `HeadRateSGD`, `HeadRateAdam` and `HeadRateRMSprop` are
    registered.

    Args:
        *args: Arguments of the optimizer.
        head_rate: Number > 0. Defaults to the class attribute, `1.0`.
        head_updates: Integer >= 0. Defaults to the class attribute, `0`.
        head_layers: Names of layers. Defaults to `("logits",)`.
        part_rates: Sequence of `(pattern, factor, updates)`. Defaults to `()`.
        no_decay: Patterns of layer names. `CoupledSGD` does not decay the
            weights of these layers. Defaults to `()`.
        **kwargs: Arguments of the optimizer.

    Example:

        >>> class HeadSGD(HeadRate, keras.optimizers.SGD):
        ...     pass
        >>> model = keras.Sequential([
        ...     keras.Input((1,)),
        ...     keras.layers.Dense(1, use_bias=False),
        ...     keras.layers.Dense(2, use_bias=False, name="logits"),
        ... ])
        >>> model.set_weights([np.ones((1, 1)), np.ones((1, 2))])
        >>> optimizer = HeadSGD(0.01, head_rate=10.0, head_updates=1)
        >>> gradients = [np.ones((1, 1), "f"), np.ones((1, 2), "f")]
        >>> for _ in range(2):
        ...     optimizer.apply(gradients, model.trainable_variables)
        ...     print([f"{w[0, 0]:.2f}" for w in model.get_weights()])
        ['1.00', '0.90']
        ['0.99', '0.80']
    """

    head_rate = 1.0
    head_updates = 0
    head_layers: tuple[str, ...] = ("logits",)
    part_rates: tuple[tuple[str, float, int], ...] = ()
    no_decay: tuple[str, ...] = ()

    def __init__(
        self,
        *args: Any,
        head_rate: float | None = None,
        head_updates: int | None = None,
        head_layers: Sequence[str] | None = None,
        part_rates: Sequence[tuple[str, float, int]] | None = None,
        no_decay: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if head_rate is not None:
            self.head_rate = head_rate
        if head_updates is not None:
            self.head_updates = head_updates
        if head_layers is not None:
            self.head_layers = tuple(head_layers)
        if part_rates is not None:
            self.part_rates = tuple(
                (pattern, factor, updates)
                for pattern, factor, updates in part_rates
            )
        if no_decay is not None:
            self.no_decay = tuple(no_decay)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "head_rate": self.head_rate,
            "head_updates": self.head_updates,
            "head_layers": list(self.head_layers),
            "part_rates": [list(entry) for entry in self.part_rates],
            "no_decay": list(self.no_decay),
        }

    def build(self, variables: list[Any]) -> None:
        super().build(variables)
        # By index: on TensorFlow `update_step` gets variables without a path.
        paths = [variable.path.split("/")[:-1] for variable in variables]
        self._of_head = [bool({*self.head_layers} & {*p}) for p in paths]
        self._entries = [
            [entry[1:] for entry in self.part_rates if _fits(p, entry[0])]
            for p in paths
        ]
        self._undecayed = [
            any(_fits(p, pattern) for pattern in self.no_decay) for p in paths
        ]

    def update_step(
        self, gradient: Any, variable: Any, learning_rate: Any
    ) -> None:
        """Updates one variable."""
        learning_rate = ops.cast(learning_rate, variable.dtype)
        index = self._get_variable_index(variable)
        if self._of_head[index]:
            rate = learning_rate * self.head_rate
        else:
            rate = learning_rate
            if self.head_updates:
                waiting = ops.less(self.iterations, self.head_updates)
                rate = ops.where(waiting, ops.zeros_like(rate), rate)
        share = 1.0  # Factor of the gradient; with 0 no momentum builds up.
        for factor, updates in reversed(self._entries[index]):
            of_part, rests = learning_rate * factor, 1.0 if factor else 0.0
            if updates:
                now = ops.less(self.iterations, updates)
                rate = ops.where(now, of_part, rate)
                share = ops.where(now, rests, share)
            else:
                rate, share = of_part, rests
        if self._entries[index]:
            gradient = gradient * ops.cast(share, gradient.dtype)
        super().update_step(gradient, variable, rate)

    def _use_weight_decay(self, variable: Any) -> bool:
        if self._undecayed[self._get_variable_index(variable)]:
            return False
        return bool(super()._use_weight_decay(variable))


def _fits(layers: list[str], pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(layer, pattern) for layer in layers)


@keras.saving.register_keras_serializable(package="crl_keras")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate schedule with a linear warm-up.

    Step `i`, counted from 0, uses the rate `min(1, (i + 1) / steps) * rate(i)`.
    The first step uses `1 / steps` of the rate. From step `steps - 1` on, the
    rate is `rate(i)`.

    Args:
        rate: The learning rate after the warm-up: a number > 0, or a
            `LearningRateSchedule`.
        steps: Number of warm-up steps, integer >= 1.

    Raises:
        ValueError: If `steps` is below 1.

    Example:

        >>> rate = WarmUp(0.4, steps=4)
        >>> [round(float(rate(i)), 3) for i in (0, 1, 3, 9)]
        [0.1, 0.2, 0.4, 0.4]

    Source: Goyal et al., [Accurate, Large Minibatch
    SGD](https://arxiv.org/abs/1706.02677), Section 2.2, gradual warmup.
    """

    def __init__(self, rate: Any, steps: int) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(
                f"`steps` must be an integer >= 1. Received: steps={steps}"
            )
        self.rate, self.steps = rate, int(steps)

    def __call__(self, step: Any) -> Any:
        rate = self.rate
        if callable(rate):
            rate = rate(step)
        rate = ops.convert_to_tensor(rate, "float32")
        share = ops.divide(ops.cast(step, "float32") + 1.0, self.steps)
        return ops.multiply(rate, ops.minimum(share, 1.0))

    def get_config(self) -> dict[str, Any]:
        rate = self.rate
        if callable(rate):
            rate = keras.optimizers.schedules.serialize(rate)
        return {"rate": rate, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        rate = config["rate"]
        if isinstance(rate, dict):
            rate = keras.optimizers.schedules.deserialize(rate)
        return cls(rate, config["steps"])


@keras.saving.register_keras_serializable(package="crl_keras")
class HeadRateSGD(HeadRate, CoupledSGD):
    """`CoupledSGD` with `HeadRate`."""


@keras.saving.register_keras_serializable(package="crl_keras")
class HeadRateAdam(HeadRate, keras.optimizers.Adam):
    """`keras.optimizers.Adam` with `HeadRate`."""


@keras.saving.register_keras_serializable(package="crl_keras")
class HeadRateRMSprop(HeadRate, keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop` with `HeadRate`."""
