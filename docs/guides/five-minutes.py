"""
# CRL in your model in five minutes

You have a Keras classifier. This guide trains it with the Competing Ratio Loss
(CRL). One line changes: the loss that you give to `compile`.

## Data and a model

We use the 1,797 handwritten digits of scikit-learn. Put your own data and
model in their place.
"""

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from crl_keras import SparseCompetingRatioLoss

EPOCHS = 20

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(
    x.astype("float32") / 16, y, test_size=0.3, stratify=y, random_state=0
)

model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),  # Logits: no softmax.
    ]
)

"""
## The one line

Integer labels take `SparseCompetingRatioLoss`, as they take
`SparseCategoricalCrossentropy` in Keras. The arguments have the same names.

The last layer has no softmax, so we say `from_logits=True`. If your model ends
in a softmax, remove it if you can. Otherwise leave out `from_logits=True`.
[Numerics](../loss.md#numerics) explains why logits are better.

The values of two different losses cannot be compared. We add cross-entropy as
a metric, so that you can compare this run with your earlier ones.
"""

model.compile(
    "adam",
    loss=SparseCompetingRatioLoss(alpha=1.5, beta=1.0, from_logits=True),
    metrics=[
        "accuracy",
        keras.metrics.SparseCategoricalCrossentropy(from_logits=True),
    ],
)
model.fit(x_train, y_train, batch_size=32, epochs=EPOCHS, verbose=0)
scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
print({name: round(value, 3) for name, value in scores.items()})

"""
## Predict

`predict` returns logits. A softmax turns them into probabilities. The class
with the highest logit is the class with the highest probability.
"""

logits = model.predict(x_test[:3], verbose=0)
probabilities = keras.ops.softmax(logits)
print("classes", keras.ops.convert_to_numpy(probabilities).argmax(axis=1))
print("labels ", y_test[:3])

"""
CRL makes the probabilities too sure. Accuracy is not affected. If you use the
probabilities, read [calibrate a model](calibration.md).

## Save and load

Import `crl_keras` before you load the model. Then Keras finds the loss,
without `custom_objects`.
"""

model.save("digits.keras")
loaded = keras.saving.load_model("digits.keras")
print(loaded.loss.alpha, loaded.loss.beta)

"""
## Other labels

- **One-hot and soft labels**, label smoothing, MixUp: use
  `CompetingRatioLoss`. [Soft labels](soft-labels.md) shows how.
- **Label maps of images**: `SparseCompetingRatioLoss(ignore_class=255)`.
  [Segmentation](segmentation.md) shows how.
- **Several classes for one sample**, such as `[1, 0, 1, 0]` for an image with
  two objects: CRL is not for them. Use `keras.losses.BinaryCrossentropy`.

## Mixed precision

Set the policy as for any other loss, and give the last layer
`dtype="float32"`, so that the logits keep their digits:

```
keras.config.set_dtype_policy("mixed_bfloat16")
outputs = keras.layers.Dense(10, dtype="float32")(x)
```

CRL computes 16-bit logits in float32.

## Does it help?

Measure it. `beta=0` is cross-entropy, so you can compare without another
change to your code. One run shows nothing: [is it better?](compare.md)
compares the two losses over several seeds and learning rates. If training
diverges, try half the learning rate, because CRL's steps are up to `1 + beta /
alpha` times as long.
"""
