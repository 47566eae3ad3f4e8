"""
# Segmentation with ignore_class

In segmentation every pixel has a label. Some pixels have none: borders, or
regions that nobody annotated. This guide trains with CRL and leaves these
pixels out.

## Images and label maps

We draw small images with a bright square or a bright disc on a noisy
background. The classes are 0 (background), 1 (square) and 2 (disc). A pixel at
the border of the image has the label 255, which means "unknown", as in Pascal
VOC and Cityscapes.
"""

import keras
import numpy as np

from crl_keras import SparseCompetingRatioLoss

IMAGES = 400
EPOCHS = 30
SIZE = 32
UNKNOWN = 255

keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)


def draw(n):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    labels = np.zeros((n, SIZE, SIZE), "int32")
    for label in labels:
        y, x = rng.integers(11, SIZE - 11, size=2)
        radius = rng.integers(5, 9)
        if rng.random() < 0.5:
            square = np.maximum(abs(rows - y), abs(columns - x)) < radius
            label[square] = 1
        else:
            disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            label[disc] = 2
    images = (labels > 0) + 0.3 * rng.normal(size=labels.shape)
    labels[:, [0, -1]] = labels[:, :, [0, -1]] = UNKNOWN
    return images[..., None].astype("float32"), labels


x_train, y_train = draw(IMAGES)
x_test, y_test = draw(IMAGES // 4)
print(x_train.shape, y_train.shape, np.unique(y_train))

"""
## A small network

It returns logits of the shape `(batch, height, width, classes)`. The label map
has the shape `(batch, height, width)`.
"""


def convolution(filters, strides=1):
    return keras.layers.Conv2D(
        filters, 3, strides, padding="same", activation="relu"
    )


model = keras.Sequential(
    [
        keras.Input((SIZE, SIZE, 1)),
        convolution(16),
        convolution(32, strides=2),
        convolution(32, strides=2),
        convolution(32),
        keras.layers.UpSampling2D(4),
        convolution(16),
        keras.layers.Conv2D(3, 1, dtype="float32"),
    ]
)

"""
## Train

`ignore_class=255` gives the unknown pixels a loss and a gradient of exactly 0.
The mean is over the other pixels.

Give `ignore_class` to the metrics too. Keras's plain `"accuracy"` would count
every unknown pixel as a mistake; `MeanIoU` can leave them out.
"""

model.compile(
    keras.optimizers.Adam(3e-3),
    loss=SparseCompetingRatioLoss(from_logits=True, ignore_class=UNKNOWN),
    metrics=[
        keras.metrics.MeanIoU(
            3, ignore_class=UNKNOWN, sparse_y_pred=False, name="iou"
        )
    ],
)
model.fit(x_train, y_train, batch_size=16, epochs=EPOCHS, verbose=0)
scores = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
print({name: round(value, 3) for name, value in scores.items()})

"""
## Check that unknown pixels do not count

We change the logits of the unknown pixels. The loss stays the same.
"""

loss = SparseCompetingRatioLoss(from_logits=True, ignore_class=UNKNOWN)
logits = model.predict(x_test, verbose=0)
before = float(loss(y_test, logits))
logits[y_test == UNKNOWN] = 1e4 * rng.normal(size=3)
print(f"{before:.6f} {float(loss(y_test, logits)):.6f}")

"""
## Good to know

- **Channels first.** For logits of the shape `(batch, classes, height, width)`
  add `axis=1`. It works on every backend.
- **Negative labels.** `ignore_class=-100` works too, as in PyTorch.
- **A wrong label** that is not the ignored one, such as 3 here, gives NaN or
  an exception, never a plausible number.
- **Rare classes.** Pass `sample_weight` with one weight per pixel.
"""
