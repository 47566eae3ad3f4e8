"""Measures how fast a network trains on this device, on random images."""

import time

import numpy as np

from crl_keras.experiments.data.splits import Dataset
from crl_keras.experiments.data.splits import Split
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.models import build_model
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.training import session


def training_speed(
    network, image_size, batch_size=256, steps=20, precision="float32"
):
    """Measures the images per second that a network trains on, with CRL.

    Compilation and the first steps are not counted.

    Args:
        network: A key of `crl_keras.networks.NETWORKS`, or "LIBRARY/NAME" of
            a backbone, as `build_backbone` takes it; with random weights.
        image_size: Side of the images in pixels: the size that the network
            takes, or any size for a backbone.
        batch_size: Images per step.
        steps: Steps to time, at least 1.
        precision: Keras dtype policy.

    Returns:
        Images per second, a float.

    Raises:
        ImportError: The library of the backbone is not installed.
    """
    import keras

    rng = np.random.default_rng(0)
    channels = 1 if image_size == 28 else 3
    shape = (batch_size, image_size, image_size, channels)
    images = rng.integers(256, size=shape, dtype=np.uint8)
    classes = min(10, batch_size)
    split = Split(images, np.arange(batch_size) % classes)
    dataset = Dataset("random", split, split, [*map(str, range(classes))])
    recipe = get_recipe("paper", batch_size=batch_size, epochs=1)
    settings = dict(precision=precision, backend=keras.backend.backend())
    config = RunConfig("random", network, "crl", recipe, 0, **settings)
    with session(config):
        model, _, _ = build_model(config, make_feed(dataset, recipe))
        for _ in range(3):
            model.train_on_batch(split.images, split.labels)
        started = time.perf_counter()
        for _ in range(steps):
            # It returns numbers, so it waits for the device.
            model.train_on_batch(split.images, split.labels)
        seconds = time.perf_counter() - started
    return steps * batch_size / seconds
