"""Grad-CAM: where in an image a network saw the class that it predicts."""

import contextlib
import warnings

import numpy as np

from crl_keras.experiments.measures import scores
from crl_keras.experiments.runs.backbone_files import steps_of
from crl_keras.experiments.runs.feeds import shrunk
from crl_keras.experiments.runs.records import write_arrays

PICTURES = 6  # Mistakes, and as many hits.
PICTURE_SIZE = 160


def write_gradcam(folder, feed, model, logits):
    """Writes gradcam.npz for the report: pictures with their heat maps.

    It shows the most confident mistakes and the least confident hits of the
    test set, see `scores.telling`. Its arrays are `indices` (k,), positions in
    the test set, `images` (k, h, w, C), uint8, at most 160 pixels a side, and
    `maps` (k, a, b), float16, of `heat_maps`. Nothing is written for a network
    without feature maps. An error here is only a warning: the run is done.

    Args:
        folder: `RunFolder`.
        feed: `Feed`.
        model: `keras.Model` from uint8 images to logits.
        logits: logits of the test set, `[N, C]`.
    """
    try:
        if feature_maps(model) is None:
            return
        labels = feed.labels("test")
        indices = np.concatenate(scores.telling(logits, labels, PICTURES))
        images = _pictures(feed, indices)
        maps = heat_maps(model, images, np.argmax(logits[indices], axis=1))
    # A picture is optional: no error of network, device or memory counts.
    except Exception as error:
        warnings.warn(
            f"No Grad-CAM for the report of {folder.path}: "
            f"{type(error).__name__}: {error}",
            stacklevel=2,
        )
        return
    write_arrays(
        folder.path / "gradcam.npz",
        indices=indices,
        images=shrunk(images, PICTURE_SIZE),
        maps=maps.astype(np.float16),
    )


def heat_maps(model, images, classes):
    r"""Grad-CAM of a model, for a class of each image.

    $$L_i = \frac{\max(0, M_i)}{\max_{uv} \max(0, M_{iuv})}, \quad
    M_i = \sum_k \alpha_{ik} A_{ik}, \quad
    \alpha_{ik} = \frac{1}{Z} \sum_{uv} \frac{\partial x_{ic}}
    {\partial A_{ikuv}}$$

    for image $i$ with class $c$ of logit $x_{ic}$ and the channels $A_{ik}$ of
    the last feature maps, $Z$ places each. A map without a positive place is
    0.

    Args:
        model: `keras.Model` from images to logits that has feature maps, or
            whose last layer is a `keras.Model` that has them.
        images: uint8 `[N, H, W, C]`, or what the model takes.
        classes: integers, shape `[N]`.

    Returns:
        float32 `[N, h, w]` in `[0, 1]`, of the size of the feature maps.

    Raises:
        ValueError: the model has no feature maps.

    Source: Selvaraju et al., arXiv:1610.02391, Eq. (1) and (2), divided by the
    largest value for display.
    """
    import keras

    found = feature_maps(model)
    if found is None:
        raise ValueError(
            "Expected a model with convolutions whose maps, of more than one "
            f"place, go into its last layers. Received: {model.name!r}."
        )
    trunk, head = found
    with _no_gradients():
        features = trunk(keras.ops.convert_to_tensor(images))
        features = keras.ops.cast(features, "float32")
    gradients = _gradient(head, features, np.asarray(classes))
    features = np.asarray(keras.ops.convert_to_numpy(features))
    weights = gradients.mean(axis=(1, 2), keepdims=True)
    maps = np.maximum((weights * features).sum(axis=-1), 0)
    largest = maps.max(axis=(1, 2), keepdims=True)
    return maps / np.where(largest > 0, largest, 1)


def feature_maps(model):
    """Splits a model at its last feature maps.

    These are the input of the last layer that takes an image-like tensor,
    `[batch, height, width, channels]`: mostly the global average.

    Returns:
        `(trunk, head)`, a function from images to feature maps and a
        `keras.Model` from these to logits; None if there are no feature maps,
        as in a network with only dense layers.
    """
    import keras

    prepare, network = None, model
    if isinstance(model.layers[-1], keras.Model):
        # Before it, layers or operations such as `/ 127.5` scale the pixels.
        pixels, steps = steps_of(model)
        network, scaled, _ = steps[-1]
        if scaled is not pixels:
            prepare = keras.Model(pixels, scaled)
    start, tensors, end = _graph(network)
    inner = next((x for x in reversed(tensors) if len(x.shape) == 4), start)
    if inner is start or inner.shape[1] * inner.shape[2] < 2:
        return None
    try:
        body, head = keras.Model(start, inner), keras.Model(inner, end)
    except ValueError:  # Layers of a cut file still know its old graph.
        return None

    def trunk(images):
        if prepare is not None:
            images = prepare(images, training=False)
        return body(images, training=False)

    return trunk, head


def _graph(network):
    """Returns a network's input, the inputs of its layers and its output."""
    import keras

    if isinstance(network, keras.Sequential):
        # After loading from a file, its layers have inputs of another graph.
        tensors = [keras.Input(batch_shape=network.input_shape)]
        for layer in network.layers:
            tensors.append(layer(tensors[-1]))
        return tensors[0], tensors[:-1], tensors[-1]
    tensors = []
    for layer in network.layers:
        # It fails or is None unless the layer was called exactly once.
        with contextlib.suppress(AttributeError, ValueError):
            tensors.append(layer.input)
    tensors = [x for x in tensors if isinstance(x, keras.KerasTensor)]
    return network.inputs[0], tensors, network.outputs[0]


def _gradient(head, features, classes):
    """Gradient of the logit of each image's class, float32 `[N, h, w, k]`."""
    import keras

    chosen = np.eye(head.output_shape[-1], dtype=np.float32)[classes]
    chosen = keras.ops.convert_to_tensor(chosen)

    def total(logits):
        return keras.ops.sum(keras.ops.cast(logits, "float32") * chosen)

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(features)
            value = total(head(features, training=False))
        gradient = tape.gradient(value, features)
    elif backend == "jax":
        import jax

        state = [
            [variable.value for variable in variables]
            for variables in (
                head.trainable_variables,
                head.non_trainable_variables,
            )
        ]

        def value(features):
            logits, _ = head.stateless_call(*state, features, training=False)
            return total(logits)

        gradient = jax.grad(value)(features)
    else:
        import torch

        leaf = features.detach().requires_grad_(True)
        value = total(head(leaf, training=False))
        (gradient,) = torch.autograd.grad(value, leaf)
    return np.asarray(keras.ops.convert_to_numpy(gradient))


def _no_gradients():
    """Turns gradients off; PyTorch would keep all activations for them."""
    import keras

    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def _pictures(feed, indices):
    """Images of the test set at these positions, `[k, H, W, C]`."""
    batches, found = feed.ordered("test"), {}
    size = len(batches[0][0])
    for number in sorted({int(i) // size for i in indices}):
        images = batches[number][0]
        for i in indices:
            if i // size == number:
                found[int(i)] = images[i - number * size]
    return np.stack([found[int(i)] for i in indices])
