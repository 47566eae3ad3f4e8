"""Batch normalisation whose tests fit its training.

Keras tests with moving averages of the mean and variance of batches. With a
momentum of 0.99 (KerasCV) or 0.999 (MobileNetV2 of keras.applications), these
need hundreds or thousands of steps to get close. A few hundred photographs give
fewer steps, and a trained network then predicts at chance. Wu and Johnson,
"Rethinking 'Batch' in BatchNorm" (arXiv:2105.07576), Section 3, compute exact
averages after training instead ("precise BN"); so does `recompute` here.
"""

import contextlib
import time

import numpy as np

# Ways to get the statistics of batch normalisation.
MODES = ("moving", "recompute", "momentum", "freeze")
IMAGES = 1024  # Most training images to compute statistics from.
# With an adapted momentum, moving averages reach back over this share of the
# training.
REACH = 0.1


def trained_layers(model):
    """Returns the batch normalisation layers that normalise by the batch.

    Layers that are not trainable use their moving statistics, even in
    training.
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
    """Sets up batch normalisation before the model is compiled.

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
    """Describes the layers for result.json; None if a model has none."""
    # Frozen layers are no longer trainable.
    layers = _all_layers(model) if mode == "freeze" else trained_layers(model)
    if not layers:
        return None
    momentum = max(layer.momentum for layer in layers)
    return dict(mode=mode, layers=len(layers), momentum=momentum, steps=steps)


class Recompute:
    """Computes the moving statistics of a model again, exactly.

    It makes one pass over training images without augmentation; each layer
    normalises by its batch, as in training. The statistics become the mean and
    the variance of all values that the layer saw, which includes the variance
    of the batch means.

    Args:
        model: `keras.Model` without augmentation. It shares its batch
            normalisation layers with the model that is trained.

    Attributes:
        seconds: Time of all calls.
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
        kept = [  # Among them are dropout's seeds.
            (variable, to_numpy(variable))
            for variable in self.model.non_trainable_variables
        ]
        counts, found = [], []
        with _without_memory(self.layers):
            for images in batches:
                counts.append(len(images))
                found.append(self._forward(images, flat))
        for variable, value in kept:
            variable.assign(value)
        for k, variables in enumerate(statistics):
            pairs = [row[2 * k : 2 * k + 2] for row in found]
            for variable, value in zip(
                variables, joined(counts, pairs), strict=True
            ):
                variable.assign(value.astype("float32"))
        self.images = sum(counts)
        self.seconds += time.perf_counter() - started

    def costs(self):
        """{"images": of the last call, "seconds": of all calls}."""
        return dict(images=self.images, seconds=self.seconds)


def joined(counts, pairs):
    """Mean and variance of samples that come in batches.

    Args:
        counts: Number of samples of each batch.
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
    """Makes a step store only the statistics of its own batch."""
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def _forward(model):
    """Returns a function that gives variables' values after one step."""
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
    """Copies a variable, from one device if it is mirrored on several."""
    import keras

    tensor = keras.ops.convert_to_tensor(variable)
    return np.array(keras.ops.convert_to_numpy(tensor))
