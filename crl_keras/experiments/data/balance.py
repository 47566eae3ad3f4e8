"""How many images each class has, and whether they are far from equal."""

import numpy as np

from crl_keras.experiments.words import listed

RATIO = 1.5  # Of the largest to the smallest class: above it, it is said.
NAMED = 3


def class_counts(dataset, split="train"):
    """Images of each class, int64 `[classes]`.

    Args:
        dataset: `Dataset` or `FileDataset`.
        split: str, "train", "test" or "held_out".
    """
    labels = getattr(dataset, split).labels
    return np.bincount(labels, minlength=dataset.classes)


def said_of_balance(counts, class_names, ratio=RATIO):
    """A sentence on how unequal the classes are, or None where they are not.

    Args:
        counts: Images of each class, integers, at least one each.
        class_names: Their names.
        ratio: Of the largest class to the smallest, up to which classes count
            as balanced.

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
