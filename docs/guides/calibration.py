"""
# Calibrate a model trained with CRL

A model is calibrated if it is right in 80 % of the cases in which it says 80
%. The softmax of a model trained with CRL is too sure (for `beta > 0`). This
guide corrects it in two ways: with a temperature, and with
`posterior_from_crl`.

It needs the extra `experiments`, for the scores.

## Data with uncertain labels

Three classes of points in the plane overlap. So no model can be sure, and
calibration matters. The same happens when annotators disagree.
"""

import keras
import numpy as np
from sklearn.datasets import make_blobs
from sklearn.model_selection import train_test_split

from crl_keras import SparseCompetingRatioLoss
from crl_keras.calibration import posterior_from_crl
from crl_keras.experiments.measures.scores import expected_calibration_error
from crl_keras.experiments.measures.scores import fit_temperature
from crl_keras.experiments.measures.scores import negative_log_likelihood

EPOCHS = 10

x, y = make_blobs(30000, centers=[[0, 0], [1.5, 0], [0, 1.5]], random_state=0)
x_rest, x_test, y_rest, y_test = train_test_split(
    x, y, test_size=0.5, random_state=0
)
x_train, x_val, y_train, y_val = train_test_split(
    x_rest, y_rest, test_size=0.3, random_state=0
)


def trained(loss):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.02), loss)
    model.fit(x_train, y_train, batch_size=128, epochs=EPOCHS, verbose=0)
    return model


def show(name, logits):
    nll = negative_log_likelihood(logits, y_test)
    ece = expected_calibration_error(logits, y_test)
    right = np.mean(logits.argmax(axis=1) == y_test)
    print(f"{name:17} accuracy {right:.3f}  NLL {nll:.3f}  ECE {ece:.3f}")


"""
NLL is the negative log likelihood, ECE the expected calibration error. Lower
is better for both.
"""

cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
crl = SparseCompetingRatioLoss(alpha=1.5, beta=1.0, from_logits=True)
model = trained(crl)
logits = model.predict(x_test, verbose=0)
show("cross-entropy", trained(cross_entropy).predict(x_test, verbose=0))
show("CRL as trained", logits)

"""
## With held-out data: a temperature

Divide the logits by a number, the temperature. Fit it on images that were not
used in training. This is our advice if you have such images, because it
corrects other causes of overconfidence too.
"""

temperature = fit_temperature(model.predict(x_val, verbose=0), y_val)
print(f"temperature {temperature:.2f}")
show("CRL, temperature", logits / temperature)

"""
## Without held-out data: the class posterior

`posterior_from_crl` undoes what CRL does to the softmax, by a formula. Give it
the `alpha` and `beta` of the training.
"""

posterior = keras.ops.convert_to_numpy(
    posterior_from_crl(logits, alpha=1.5, beta=1.0, from_logits=True)
)
show("CRL, posterior", np.log(posterior))

"""
Both corrections keep the predicted class, so the accuracy stays the same.

The formula holds for hard labels, and for a model that reached the minimum of
its loss. [Calibration](../calibration.md) derives it, lists its limits and
shows more numbers.
"""
