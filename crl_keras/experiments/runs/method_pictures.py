"""Pictures of what a method saw: patches of DFL, destroyed images of DCL."""

import warnings

import numpy as np

from crl_keras.experiments.runs.feeds import shrunk
from crl_keras.experiments.runs.filter_start import feature_function
from crl_keras.experiments.runs.filter_start import some_of_each
from crl_keras.experiments.runs.method_names import split_method
from crl_keras.experiments.runs.records import write_arrays

CLASSES, FILTERS, IMAGES = 6, 8, 10
SIZE = 128  # Most pixels per side.
DESTROYED = 4  # Images, and as many pictures of each.


def write_method_pictures(folder, feed, model, network):
    """Writes method.npz for the report of a run with DFL or DCL.

    Its arrays are `images`, uint8 `(rows, columns, h, w, 3)`, `titles`
    `(rows,)`, `heading` and `caption`. An error here is only a warning: the
    run is done.

    Args:
        folder: `RunFolder`.
        feed: `Feed`.
        model: The model that was trained, of `models.build_model`.
        network: Name of the network with its method.
    """
    method = split_method(network)[1]
    make = {"dfl": _patches, "dcl": _destroyed}.get(method)
    if make is None:
        return
    try:
        arrays = make(feed, *model.unaugmented.args)
    # The pictures are optional: no error of device or memory counts.
    except Exception as error:
        warnings.warn(
            f"No pictures of the method for the report of {folder.path}: "
            f"{type(error).__name__}: {error}",
            stacklevel=2,
        )
        return
    write_arrays(folder.path / "method.npz", **arrays)


def _destroyed(feed, network, scaling):
    import keras

    config = network.network.get_layer("confusion").get_config()
    confusion = type(network.network.get_layer("confusion")).from_config(
        config | {"seed": 0}
    )
    images = next(feed.sample(DESTROYED))[:DESTROYED]
    x = images.astype("float32")
    views = [images]
    for _ in range(DESTROYED - 1):
        pairs, _ = confusion(x, training=True)
        pairs = keras.ops.convert_to_numpy(pairs)
        views.append(np.clip(np.rint(pairs[:, 1]), 0, 255).astype("uint8"))
    return dict(
        images=np.stack([shrunk(view, SIZE) for view in views], axis=1),
        titles=np.array([f"Training image {k + 1}" for k in range(len(x))]),
        heading=np.array("Images that DCL destroyed"),
        caption=np.array(
            "Each row shows a training image, then the versions of it that the "
            f"network also saw, with {config['regions']} x {config['regions']} "
            "regions moved to other places."
        ),
    )


def _patches(feed, network, scaling):
    """Finds the patch with the largest answer of each filter, per class."""
    bank = network.network.get_layer("filters")
    kernel, bias = bank.get_weights()
    features = feature_function(network, scaling)
    classes = min(CLASSES, bank.classes)
    images, labels = some_of_each(feed, IMAGES, classes)
    images, labels = np.stack(images), np.array(labels)
    side = max(1, min(images.shape[1:3]) // 4)
    count = min(FILTERS, bank.filters)
    found = np.zeros((classes, count, side, side, images.shape[-1]), "uint8")
    for c in range(classes):
        of_class = images[labels == c]
        if not len(of_class):
            continue
        own = slice(c * bank.filters, c * bank.filters + count)
        answers = features(of_class) @ kernel[:, own] + bias[own]
        for m in range(count):
            k, i, j = np.unravel_index(
                np.argmax(answers[..., m]), answers.shape[:3]
            )
            found[c, m] = _patch(of_class[k], (i, j), answers.shape[1:3], side)
    shown = [shrunk(row, SIZE) for row in found]
    return dict(
        images=np.stack(shown),
        titles=np.array(feed.dataset.class_names[:classes]),
        heading=np.array("What the filters of a class look for"),
        caption=np.array(
            "Each picture shows the place where a filter answers most, in up "
            f"to {IMAGES} training images of its class. It is a quarter of the "
            "image wide; the filter itself sees more than that."
        ),
    )


def _patch(image, place, places, side):
    corner = []
    for position, count, size in zip(place, places, image.shape, strict=False):
        middle = (position + 0.5) / count * size
        corner.append(int(np.clip(middle - side / 2, 0, size - side)))
    i, j = corner
    return image[i : i + side, j : j + side]
