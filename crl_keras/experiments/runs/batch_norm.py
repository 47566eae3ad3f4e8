"""Batch normalisation that tests as it trains.

Keras tests with moving averages of each batch's mean and variance. With a
momentum of 0.99 (KerasCV) or 0.999 (keras.applications' MobileNetV2) these
need hundreds or thousands of steps to get near, and a few hundred photographs
give fewer: a network that has learnt then predicts at chance. Wu and Johnson,
"Rethinking 'Batch' in BatchNorm" (arXiv:2105.07576), Section 3, compute exact
averages instead once the weights are trained ("precise BN"); so does
`recompute` here.
"""

import contextlib
import time

import numpy as np

# How the statistics of batch normalisation come about.
MODES = ("moving", "recompute", "momentum", "freeze")
IMAGES = 1024  # Training images that statistics are computed from, at most.
# Steps that moving averages with an adapted momentum reach back, as a share of
# the training.
REACH = 0.1


def trained_layers(model):
    """The layers of batch normalisation that normalise by their batch.

    Keras runs those that are not trainable with their moving statistics, in
    training too.
    """
    return [layer for layer in _all_layers(model) if layer.trainable]


def _all_layers(model):
    import keras

    return [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]


def prepare(model, mode, steps):
    """Sets the layers up before the model is compiled.

    Args:
        model: `keras.Model`.
        mode: One of MODES. "moving" and "recompute" change nothing yet;
            "momentum" lowers the momentum so that the averages reach back
            over a tenth of the training, at least 2 steps; "freeze" keeps the
            statistics and the scale that the weights came with.
        steps: Steps of the whole training, integer >= 1.
    """
    for layer in trained_layers(model):
        if mode == "momentum":
            reach = max(2.0, REACH * steps)
            layer.momentum = min(layer.momentum, 1.0 - 1.0 / reach)
        elif mode == "freeze":
            layer.trainable = False


def describe(model, mode, steps):
    """What result.json says of the layers, or None for a model without."""
    # Those that are frozen are no longer trained.
    layers = _all_layers(model) if mode == "freeze" else trained_layers(model)
    if not layers:
        return None
    momentum = max(layer.momentum for layer in layers)
    return dict(mode=mode, layers=len(layers), momentum=momentum, steps=steps)


class Recompute:
    """Computes the moving statistics of a model again, exactly.

    One pass over training images that are not augmented, each layer
    normalising by its batch as in training. A statistic becomes the mean and
    the variance over all values that the layer saw: variances of batches are
    joined with that of their means.

    Args:
        model: `keras.Model` without augmentation, whose layers of batch
            normalisation are those of the model that is trained.

    Attributes:
        seconds: What all calls took.
        images: Number of images of the last call.
    """

    def __init__(self, model):
        self.model = model
        self.layers = trained_layers(model)
        self.seconds, self.images = 0.0, 0
        self._forward = _forward(model)

    def __call__(self, batches):
        """Computes the statistics from batches of uint8 images."""
        if not self.layers:
            return
        started = time.perf_counter()
        statistics = [
            (layer.moving_mean, layer.moving_variance) for layer in self.layers
        ]
        flat = [variable for pair in statistics for variable in pair]
        others = _Kept(self.model, flat)
        counts, found = [], []
        with _without_memory(self.layers):
            for images in batches:
                counts.append(len(images))
                found.append(self._forward(images, flat))
        others.restore()
        for k, variables in enumerate(statistics):
            pairs = [row[2 * k : 2 * k + 2] for row in found]
            for variable, value in zip(
                variables, joined(counts, pairs), strict=True
            ):
                variable.assign(value.astype("float32"))
        self.images = sum(counts)
        self.seconds += time.perf_counter() - started


def joined(counts, pairs):
    """Mean and variance of samples that come in batches.

    Args:
        counts: Numbers of samples of the batches.
        pairs: For each batch its mean and its variance (over n), arrays of one
            shape.

    Returns:
        Mean and variance over all samples, float64.

    >>> [float(x) for x in joined([1, 3], [(2.0, 0.0), (4.0, 2.0)])]
    [3.5, 2.25]
    """
    means, variances = np.float64(pairs).swapaxes(0, 1)
    mean = np.average(means, axis=0, weights=counts)
    # Not mean(x**2) - mean**2, which cancels.
    spread = variances + (means - mean) ** 2
    return mean, np.average(spread, axis=0, weights=counts)


@contextlib.contextmanager
def _without_memory(layers):
    """A step leaves the statistics of its batch alone in the variables."""
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


class _Kept:
    """The state of a model but for some variables: seeds of dropout."""

    def __init__(self, model, variables):
        changing = {id(variable) for variable in variables}
        self.state = [
            (variable, to_numpy(variable))
            for variable in model.non_trainable_variables
            if id(variable) not in changing
        ]

    def restore(self):
        for variable, value in self.state:
            variable.assign(value)


def _forward(model):
    """A function of images and variables: their values after one step."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        return _forward_jax(model)
    if backend == "torch":
        import torch

        def call(images):
            with torch.no_grad():
                model(images, training=True)

    else:
        import tensorflow as tf

        @tf.function(reduce_retracing=True)
        def call(images):
            model(images, training=True)

    def forward(images, variables):
        call(keras.ops.convert_to_tensor(images))
        return [to_numpy(variable) for variable in variables]

    return forward


def _forward_jax(model):
    import jax

    @jax.jit
    def call(trainable, state, images):
        return model.stateless_call(trainable, state, images, training=True)[1]

    def forward(images, variables):
        state = call(
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            images,
        )
        number = {id(v): i for i, v in enumerate(model.non_trainable_variables)}
        return [np.asarray(state[number[id(v)]]) for v in variables]

    return forward


def to_numpy(variable):
    """A copy; of one device, where a variable is mirrored on several."""
    import keras

    tensor = keras.ops.convert_to_tensor(variable)
    return np.array(keras.ops.convert_to_numpy(tensor))
