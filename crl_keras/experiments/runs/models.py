"""The compiled model of a run: augmentation, scaling and network in one."""

import functools
import time

from crl_keras.experiments.runs import batch_norm
from crl_keras.experiments.runs.backbones import build_backbone
from crl_keras.experiments.runs.config import make_head
from crl_keras.experiments.runs.config import make_loss
from crl_keras.experiments.runs.filter_start import start_filters
from crl_keras.experiments.runs.method_names import HEAD_LAYERS
from crl_keras.experiments.runs.method_names import MANY_HEADS
from crl_keras.experiments.runs.method_names import split_method
from crl_keras.experiments.runs.recipes import augmentation_layers
from crl_keras.experiments.runs.recipes import layer_seed
from crl_keras.experiments.runs.recipes import make_optimizer
from crl_keras.experiments.runs.recipes import scaling_layer

LINE_SECONDS = 10


def loss_of(name, feed):
    """Returns the loss of a configuration, for the data of a feed."""
    if feed.dataset.kind == "own":
        return feed.dataset.make_loss(name)
    recipe, classes = feed.recipe, feed.dataset.classes
    return make_loss(name, classes, recipe.soft_labels, recipe.label_smoothing)


def build_model(config, feed, begins=True):
    """Builds augmentation, scaling and network in one model, from the seed.

    Args:
        config: `RunConfig`.
        feed: `Feed` of the data.
        begins: Whether training begins. If so, DFL-CNN's filters start from
            training images, which takes a while.

    Returns:
        `(model, deployed, parameters)`: the compiled model, from uint8 images
        to float32 logits; the same without augmentation, not compiled; the
        number of parameters of the network.
    """
    import keras

    from crl_keras.networks import build_network

    if feed.dataset.kind == "own":
        return feed.dataset.build_model(config, feed)
    recipe, classes = config.recipe, feed.dataset.classes
    keras.utils.set_random_seed(config.seed)
    if "/" in config.network:
        network, scaling = build_backbone(
            config.network,
            feed.input_shape,
            classes,
            config.weights,
            recipe.freeze_backbone,
            layer_seed(config.seed, "regions"),
        )
    else:
        network = build_network(config.network, feed.input_shape, classes)
        scaling = None
    if recipe.scaling != "backbone" or scaling is None:
        scaling = _scaling(config, feed)
    network = with_head(
        network, make_head(config.loss, classes, config.recipe.accumulate)
    )
    batch_norm.prepare(network, recipe.batch_norm, recipe.epochs * feed.steps)
    method, options = split_method(config.network)[1:]
    if begins and options.get("start") == "patches":
        images = options["start_images"]
        start_filters(network, scaling, feed, images, config.seed, _lines())
    inputs = keras.Input(feed.input_shape, dtype="uint8")
    x = inputs
    for layer in augmentation_layers(recipe, config.seed):
        x = layer(x)
    if method in MANY_HEADS:
        model = network.behind(inputs, scaling(x))
        # DCL trains on destroyed images, too: so must its statistics.
        model.unaugmented = functools.partial(_unaugmented, network, scaling)
    else:
        model = keras.Model(inputs, network(scaling(x)))
    model.compile(
        make_optimizer(recipe, feed.steps, HEAD_LAYERS[method]),
        loss_of(config.loss, feed),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    inputs = keras.Input(feed.input_shape, dtype="uint8")
    classifier = getattr(network, "classifier", network)
    deployed = keras.Model(inputs, classifier(scaling(inputs)))
    return model, deployed, network.count_params()


def _unaugmented(network, scaling):
    import keras

    inputs = keras.Input(network.input_shape[1:], dtype="uint8")
    return network.behind(inputs, scaling(inputs))


def _lines():
    """Makes a function that prints progress every ten seconds, and the end."""
    last = 0.0

    def say(done, total):
        nonlocal last
        now = time.monotonic()
        if done == total or now - last >= LINE_SECONDS:
            last = now
            print(
                f"  filters: {done:,} of {total:,} training images", flush=True
            )

    return say


def _scaling(config, feed):
    recipe = config.recipe
    if recipe.scaling == "backbone":
        raise ValueError(
            f"The recipe {recipe.name!r} scales images as a backbone needs "
            f"them. Received: network={config.network!r}, which is not a "
            "backbone; choose another recipe"
        )
    mean, std = None, None
    if recipe.scaling == "standardise" and recipe.mean is None:
        mean, std = feed.statistics()
    return scaling_layer(recipe, mean, std)


def with_head(network, head):
    """Replaces the last layer of a network; it starts from the same kernel.

    All other layers are the same objects, so for one seed every loss starts
    from the same weights. A bias is left out. If `head` is None, nothing
    changes.
    """
    import keras

    if head is None:
        return network
    last = network.layers[-1]
    if hasattr(network, "behind"):
        raise ValueError(
            "Losses with a margin, lsoftmax and asoftmax, need a last layer "
            f"of their own, and {network.name} has several heads: leave them "
            "out"
        )
    if not isinstance(last, keras.layers.Dense):
        raise ValueError(
            "The last layer of the network must be keras.layers.Dense, to be "
            f"replaced by {type(head).__name__}. Received: {last}"
        )
    changed = keras.Model(
        network.inputs[0], head(last.input), name=network.name
    )
    head.kernel.assign(last.kernel)
    return changed
