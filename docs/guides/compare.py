"""
# Is it better? Compare losses honestly

You trained a model with CRL, and its accuracy went up by half a point. Is that
the loss? It may be chance. It may be the learning rate. This guide finds out
with one call of `compare_losses`.

It needs the extra `experiments`: `pip install ".[jax,experiments]"` in a clone.
"""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from crl_keras import SparseCompetingRatioLoss
from crl_keras import compare_losses

EPOCHS = 10
SEEDS = 6
RATES = [0.03, 0.1, 0.3]

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(
    x.astype("float32") / 16, y, test_size=0.5, stratify=y, random_state=0
)


def build_model():
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),  # Logits: no softmax.
        ]
    )


def optimizer(rate):
    return keras.optimizers.SGD(rate, momentum=0.9)


"""
## Three causes of a difference

**Chance.** Two runs that differ only in the seed have different errors. So
train with several seeds. For one seed, both losses start from the same weights
and see the same batches. Then the differences within the seeds can be tested
in pairs.

**The learning rate.** CRL makes steps up to `1 + beta / alpha` times as long
as cross-entropy. So give each loss its own best rate, the baseline too.
Held-out training images choose the rate, never the test set.

**The length of the steps.** `split_effect=True` trains two controls:
cross-entropy with CRL's steps, and CRL with cross-entropy's steps. If the
first does as well as CRL, longer steps explain the gain. If the second does,
it is the weighting of the samples. [What CRL does to
training](../what-crl-does.md) explains the controls.
"""

comparison = compare_losses(
    build_model,
    train=(x_train, y_train),
    test=(x_test, y_test),
    losses={
        "CE": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "CRL": SparseCompetingRatioLoss(from_logits=True),
    },
    optimizer=optimizer,
    learning_rates=RATES,
    held_out=0.2,
    split_effect=True,
    epochs=EPOCHS,
    seeds=SEEDS,
    verbose=0,
)

"""
## Read the result

A notebook shows tables and figures if the last line of a cell is `comparison`.
Here we print the first two tables.

- In the first, each loss has its own rate.
- The second splits the change from cross-entropy to CRL at each rate, in
  points of test error: longer steps alone, weighting alone, and what they do
  together. A star marks a change that is shown.
"""

print(str(comparison).partition("Error by learning rate")[0].strip())

"""
The first verdicts belong to the first table. Each is a sentence on what the
numbers support.
"""

for verdict in comparison.verdicts[:3]:
    print(verdict)

"""
**"No difference shown" does not mean that the losses are equal.** It means
that these runs cannot tell them apart. The sentence says how many seeds would
be needed, if the true difference is the one that was seen.

If the best rate is the smallest or the largest that you tried, as 0.03 for CRL
here, try more rates.

## What to report

- The test error after the last epoch, not of the epoch that is best on the
  test set
- Mean, standard deviation and number of seeds
- The difference to the baseline with its interval, and the p-value after
  Holm's correction if you tried several losses
- The rates that you tried, and how you chose

[Your own model](../your-model.md) describes the other arguments of
`compare_losses`: pipelines, callbacks, resuming, reports. [Comparing
losses](../comparing.md) does the same from the command line. [Which loss
should I use?](../which-loss.md) sums up what we measured this way.
"""
