"""Number of images per class, and whether the classes are balanced."""

import numpy as np

from crl_keras.experiments.words import listed

RATIO = 1.5  # Largest to smallest class: the program reports a larger ratio.
NAMED = 3


def class_counts(dataset, split="train"):
    """Number of images of each class, int64 `[classes]`.

    Args:
        dataset: `Dataset` or `FileDataset`.
        split: str, "train", "test" or "held_out".
    """
    labels = getattr(dataset, split).labels
    return np.bincount(labels, minlength=dataset.classes)


def said_of_balance(counts, class_names, ratio=RATIO):
    """Says how unbalanced the classes are, or None if they are balanced.

    Args:
        counts: Number of images of each class, integers >= 1.
        class_names: Names of the classes.
        ratio: Largest ratio of the largest to the smallest class that still
            counts as balanced.

    >>> text = said_of_balance([30, 10, 20], ["cat", "dog", "owl"])
    >>> text.partition(". ")[0]
    'Training images a class: 10 to 30, median 20'
    >>> text.partition("; ")[2]
    'the rarest of 3 are dog (10), owl (20) and cat (30).'
    """
    counts = np.asarray(counts)
    if counts.max() <= ratio * counts.min():
        return None
    rarest = np.argsort(counts, kind="stable")[:NAMED]
    names = listed([f"{class_names[k]} ({counts[k]:,})" for k in rarest])
    times = counts.max() / counts.min()
    return (
        f"Training images a class: {counts.min():,} to {counts.max():,}, "
        f"median {np.median(counts):,g}. The largest has {times:.3g} times "
        f"as many as the smallest; the rarest of {len(counts):,} are {names}."
    )
