"""A learning-rate range test: finds rates that can train a network.

The network trains while the rate rises by a constant factor per step, until the
loss explodes (Smith, "Cyclical Learning Rates for Training Neural Networks",
arXiv:1506.01186, Section 3.3). It suggests the rate where the smoothed loss
falls most steeply, as fastai's `steep` does.
"""

import dataclasses
import math

import numpy as np

from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.models import build_model
from crl_keras.experiments.runs.training import session

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 100
SMOOTHING = 0.9  # Momentum of the averaged loss.
EXPLODED = 4.0  # Times the lowest loss.
FEWEST = 10  # Steps that a useful curve needs.


@dataclasses.dataclass(frozen=True)
class RateCurve:
    """The result of a range test.

    Attributes:
        rates: float64 `[steps]`, rising.
        losses: The smoothed training loss of each step, float64 `[steps]`.
        suggestion: The rate of the steepest fall, or None if the loss did not
            fall.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggestion: float | None


def find_rate(config, dataset, steps=STEPS, lowest=LOWEST, highest=HIGHEST):
    """Trains a fresh network with rising rates; its weights are thrown away.

    Args:
        config: `RunConfig`; its recipe's schedule is not used.
        dataset: Data set of any kind. Only training images are read.
        steps: Most steps to take, at least 10.
        lowest, highest: Rates of the first and the last step, > 0.

    Returns:
        `RateCurve`.

    Raises:
        ValueError: Too few steps, or rates that do not rise.
    """
    if steps < FEWEST or not 0 < lowest < highest:
        raise ValueError(
            f"Expected at least {FEWEST} steps and rates that rise from above "
            f"0. Received: steps={steps}, lowest={lowest}, highest={highest}"
        )
    recipe = dataclasses.replace(
        config.recipe,
        schedule="steps",
        milestones=(),
        decay=0.0,
        warmup_epochs=0.0,
        head_epochs=0,
        accumulate=1,
    )
    config = dataclasses.replace(config, recipe=recipe, devices=1)
    feed = make_feed(dataset, recipe, config.seed, config.reader)
    with session(config):
        model, _, _ = build_model(config, feed)
        losses = _losses(model, feed, np.geomspace(lowest, highest, steps))
    rates = np.geomspace(lowest, highest, steps)[: len(losses)]
    smoothed = smooth(losses)
    return RateCurve(rates, smoothed, suggest(rates, smoothed))


def _losses(model, feed, rates):
    losses, batches = [], feed.training()
    for i, rate in enumerate(rates):
        if i and i % len(batches) == 0:
            batches.on_epoch_end()
        model.optimizer.learning_rate = rate
        images, labels = batches[i % len(batches)]
        found = model.train_on_batch(images, labels)
        losses.append(float(np.ravel(found)[0]))
        model.reset_metrics()
        smoothed = smooth(losses)
        if not math.isfinite(losses[-1]):
            return losses[:-1]
        if i >= FEWEST and smoothed[-1] > EXPLODED * smoothed.min():
            break
    return losses


def smooth(losses):
    """Exponential moving average without the bias of its start.

    >>> smooth([2.0, 2.0]).round(6).tolist()
    [2.0, 2.0]
    """
    average, found = 0.0, []
    for i, loss in enumerate(losses, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        found.append(average / (1 - SMOOTHING**i))
    return np.array(found)


def suggest(rates, losses):
    """The rate of the steepest fall before the lowest loss, or None.

    Args:
        rates: Rising, `[steps]`, equally spaced in their logarithms.
        losses: Smoothed losses, `[steps]`.

    >>> rates = np.geomspace(1e-3, 1, 7)
    >>> round(suggest(rates, np.array([4, 4, 3, 1, 0.9, 2, 9.0])), 4)
    0.01
    """
    if len(losses) < 3:
        return None
    lowest = int(np.argmin(losses))
    if lowest == 0:
        return None
    slope = np.gradient(losses, np.log(rates))[: lowest + 1]
    steepest = int(np.argmin(slope))
    return float(rates[steepest]) if slope[steepest] < 0 else None
