"""
# Soft labels: smoothing, MixUp, distillation

A soft label is a row of probabilities, such as `[0.7, 0.3, 0]`.
`CompetingRatioLoss` takes soft labels as `CategoricalCrossentropy` does. For
one soft label the loss is lowest where the prediction equals the label, as for
cross-entropy.
"""

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from crl_keras import CompetingRatioLoss

EPOCHS = 20

keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(
    x.astype("float32") / 16, y, test_size=0.3, stratify=y, random_state=0
)
hard_labels = np.eye(10, dtype="float32")[y_train]
test_labels = np.eye(10, dtype="float32")[y_test]


def build_model(width):
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(10),  # Logits: no softmax.
        ]
    )


def accuracy(model):
    return np.mean(model.predict(x_test, verbose=0).argmax(axis=1) == y_test)


"""
## Label smoothing

It is an argument of the loss. `label_smoothing=0.1` moves a tenth of each
label to all classes, in equal parts.
"""

model = build_model(64)
model.compile("adam", CompetingRatioLoss(from_logits=True, label_smoothing=0.1))
model.fit(x_train, hard_labels, epochs=EPOCHS, verbose=0)
print(f"accuracy with smoothing: {accuracy(model):.3f}")

"""
## MixUp

MixUp blends two images and their labels. A `PyDataset` does it for each batch,
on every backend. CutMix works the same way: it blends the labels too.
"""


class MixUp(keras.utils.PyDataset):
    """Batches of blended samples; alpha is that of the Beta distribution."""

    def __init__(self, x, y, batch_size=32, alpha=0.2):
        super().__init__()
        self.x, self.y = x, y
        self.batch_size, self.alpha = batch_size, alpha
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return len(self.x) // self.batch_size

    def __getitem__(self, _):
        one, other = self.rng.integers(len(self.x), size=(2, self.batch_size))
        share = self.rng.beta(self.alpha, self.alpha, size=(self.batch_size, 1))
        share = share.astype("float32")
        return tuple(
            share * values[one] + (1 - share) * values[other]
            for values in (self.x, self.y)
        )


model = build_model(64)
model.compile("adam", CompetingRatioLoss(from_logits=True))
model.fit(MixUp(x_train, hard_labels), epochs=EPOCHS, verbose=0)
print(f"accuracy with MixUp: {accuracy(model):.3f}")

"""
**Mix the labels, not the losses.** Many implementations of MixUp compute
`share * loss(y1) + (1 - share) * loss(y2)`. For cross-entropy both give the
same number. For CRL they do not: [the
loss](../loss.md#soft-labels-smoothing-mixup-and-cutmix) shows the difference.

## Distillation

A small student learns the probabilities of a large teacher. First train the
teacher, with any loss.
"""

teacher = build_model(256)
teacher.compile("adam", CompetingRatioLoss(from_logits=True))
teacher.fit(x_train, hard_labels, epochs=EPOCHS, verbose=0)
print(f"accuracy of the teacher: {accuracy(teacher):.3f}")

"""
A temperature above 1 makes the probabilities of the teacher softer. The
student uses the same temperature in training. Its label is half the true class
and half the teacher's probabilities.
"""

TEMPERATURE = 2.0
teacher_logits = teacher.predict(x_train, verbose=0)
soft_labels = keras.ops.convert_to_numpy(
    keras.ops.softmax(teacher_logits / TEMPERATURE)
)
crl = CompetingRatioLoss(from_logits=True)


def distillation_loss(y_true, y_pred):
    return crl(y_true, y_pred / TEMPERATURE)


student = build_model(16)
student.compile("adam", distillation_loss)
labels = 0.5 * hard_labels + 0.5 * soft_labels
student.fit(x_train, labels, epochs=EPOCHS, verbose=0)
print(f"accuracy of the student: {accuracy(student):.3f}")

"""
The accuracies above are of one run each. They do not say which method is
better. To find out, [compare over several seeds](compare.md).

## Which labels are allowed

Each row must sum to 1. A row that is not a distribution makes the loss wrong:
check `labels.sum(axis=-1)`. `posterior_from_crl` is for hard labels. Do not
use it after training with soft labels ([why](../calibration.md#limits)).
"""
