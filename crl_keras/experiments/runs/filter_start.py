"""Starts the filters of DFL-CNN from patches of training images.

This follows Section 3.3 of the paper, as others describe it. A heat map is the
L2 norm over the channels of an image's feature maps. For each class, k-means
clusters the columns at the peaks of the heat maps; the centres become the
filters of the class. What the paper leaves open is chosen here: a peak is the
largest of its 3 x 3 places, and an image has ten; columns and centres have
length 1. Then the bias of each filter gives its maxima over the images seen the
mean 0, and one factor gives all maxima a standard deviation of 1. Without the
bias the maxima are far above 0, as features are, and the dense layer after them
begins with huge logits.
"""

import numpy as np

from crl_keras.experiments._optional import require

PEAKS = 10
BATCH = 16


def start_filters(network, scaling, feed, images=10, seed=0, say=None):
    """Sets the filters of a DFL-CNN from training images of each class.

    Args:
        network: `MultiHeadClassifier` of `crl_keras.methods.dfl_cnn`.
        scaling: Function from uint8 images to what the network takes.
        feed: `Feed`.
        images: Most images of each class, integer >= 1.
        seed: Integer, for k-means.
        say: Function called with (images done, images in all), or None.
    """
    bank = network.network.get_layer("filters")
    columns, maps = columns_of_classes(network, scaling, feed, images, say)
    rng = np.random.default_rng(seed)
    filters = [
        centres(of_class, bank.filters, int(rng.integers(2**31)))
        for of_class in columns
    ]
    # Filters of a class stand side by side.
    kernel = np.concatenate(filters).T
    responses = np.concatenate([(x @ kernel).max(axis=(1, 2)) for x in maps])
    means = responses.mean(axis=0)
    factor = 1.0 / ((responses - means).std() or 1.0)
    bank.kernel.assign((factor * kernel).astype("float32"))
    bank.bias.assign((-factor * means).astype("float32"))


def columns_of_classes(network, scaling, feed, images, say=None):
    """Computes the columns at each class's peaks, and the feature maps.

    Returns:
        `(columns, maps)`: a list of float arrays `[peaks, channels]`, one per
        class, and a list of float arrays `[batch, h, w, channels]`.
    """
    features = feature_function(network, scaling)
    columns = [[] for _ in range(feed.dataset.classes)]
    maps, total = [], 0
    chosen, labels = some_of_each(feed, images)
    for start in range(0, len(chosen), BATCH):
        part = np.stack(chosen[start : start + BATCH])
        found = features(part)
        maps.append(found)
        for one, label in zip(found, labels[start:], strict=False):
            columns[label].append(columns_at_peaks(one))
        total += len(part)
        if say:
            say(total, len(chosen))
    empty = np.zeros((0, maps[0].shape[-1]))
    return [np.concatenate([*c, empty]) for c in columns], maps


def columns_at_peaks(features, count=PEAKS):
    """Columns of length 1 at the peaks of a feature map `[h, w, channels]`."""
    heat = np.linalg.norm(features, axis=-1)
    columns = np.array([features[place] for place in peaks(heat, count)])
    lengths = np.linalg.norm(columns, axis=1, keepdims=True)
    return columns / np.where(lengths > 0, lengths, 1.0)


def peaks(heat, count=PEAKS, radius=1):
    """Returns the hottest places, none within `radius` of a hotter one.

    >>> peaks(np.array([[1.0, 3.0, 2.0, 0.5]]), count=2)
    [(0, 1), (0, 3)]
    """
    heat, found = np.array(heat, float), []
    while len(found) < count and np.isfinite(heat).any():
        i, j = map(int, np.unravel_index(np.argmax(heat), heat.shape))
        found.append((i, j))
        rows = slice(max(0, i - radius), i + radius + 1)
        heat[rows, max(0, j - radius) : j + radius + 1] = -np.inf
    return found


def centres(columns, count, seed=0, start="k-means++"):
    """Returns k-means centres of length 1; noisy copies if columns are few.

    Args:
        columns: Float `[n, channels]`, n >= 0.
        count: Integer >= 1.
        seed: Integer, for k-means.
        start: The `init` of scikit-learn's `KMeans`.

    Returns:
        float64 `[count, channels]`.
    """
    rng = np.random.default_rng(seed)
    distinct = np.unique(columns, axis=0)
    if len(distinct) > count:
        found = _k_means(columns, count, seed, start)
    else:
        if not len(distinct):  # A class without images.
            distinct = rng.normal(size=(1, columns.shape[1]))
        copies = np.resize(np.arange(len(distinct)), count)
        found = distinct[copies].astype(float)
        scale = 0.01 * (np.abs(found).mean() or 1.0)
        again = np.arange(count) >= len(distinct)
        noise = rng.normal(0.0, scale, found.shape)
        found = found + again[:, None] * noise
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return found / np.where(lengths > 0, lengths, 1.0)


def _k_means(columns, count, seed, start):
    cluster = require("sklearn.cluster", "experiments")
    fit = cluster.KMeans(
        count,
        init=start,
        n_init=10 if isinstance(start, str) else 1,
        random_state=seed,
    ).fit(np.asarray(columns, float))
    return fit.cluster_centers_


def feature_function(network, scaling):
    """Returns a function from uint8 images to the filters' input, float32."""
    import keras

    graph = network.network
    trunk = keras.Model(graph.inputs[0], graph.get_layer("filters").input)

    def features(images):
        return np.asarray(trunk.predict_on_batch(scaling(images)), np.float32)

    return features


def some_of_each(feed, count, classes=None):
    """Returns the first `count` training images of each class, and labels.

    It takes the first `classes` classes, or all.
    """
    images, labels = [], []
    taken = np.zeros(feed.dataset.classes if classes is None else classes, int)
    for batch, of_batch in feed.ordered("train"):
        of_batch = np.asarray(of_batch)
        if of_batch.ndim == 2:
            of_batch = of_batch.argmax(axis=1)
        for image, label in zip(np.asarray(batch), of_batch, strict=True):
            if label < len(taken) and taken[label] < count:
                taken[label] += 1
                images.append(image)
                labels.append(int(label))
        if (taken >= count).all():
            break
    return images, labels
