"""
# CRL in your JAX training loop

On JAX the losses of `crl_keras` are pure functions of arrays. They work under
`jit`, `grad` and `vmap`. This guide trains a network of plain JAX, and then a
Keras model in a loop of your own.

Set `KERAS_BACKEND=jax` before Keras is imported.
"""

import jax
import jax.numpy as jnp
import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from crl_keras import SparseCompetingRatioLoss
from crl_keras import sparse_competing_ratio_loss

EPOCHS = 20
BATCH = 32

assert keras.backend.backend() == "jax"
keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(
    x.astype("float32") / 16, y, test_size=0.3, stratify=y, random_state=0
)


def batches(rng):
    order = rng.permutation(len(x_train))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        chosen = order[start : start + BATCH]
        yield x_train[chosen], y_train[chosen]


"""
## A network of plain JAX

`sparse_competing_ratio_loss` returns one value per sample. Mind the order of
the arguments: the labels come first, other than in optax.
"""


def network(weights, inputs):
    hidden = jax.nn.relu(inputs @ weights["hidden"])
    return hidden @ weights["logits"]


def objective(weights, inputs, labels):
    return sparse_competing_ratio_loss(
        labels, network(weights, inputs), from_logits=True
    ).mean()


@jax.jit
def step(weights, velocity, inputs, labels):
    gradient = jax.grad(objective)(weights, inputs, labels)
    velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.1 * g, velocity, gradient)
    return jax.tree.map(jnp.add, weights, velocity), velocity


first, second = jax.random.split(jax.random.key(0))
weights = {
    "hidden": jax.random.normal(first, (64, 64)) * 64**-0.5,
    "logits": jax.random.normal(second, (64, 10)) * 64**-0.5,
}
velocity = jax.tree.map(jnp.zeros_like, weights)
rng = np.random.default_rng(0)
for _ in range(EPOCHS):
    for inputs, labels in batches(rng):
        weights, velocity = step(weights, velocity, inputs, labels)

accuracy = np.mean(network(weights, x_test).argmax(axis=1) == y_test)
print(f"plain JAX: accuracy {accuracy:.3f}")

"""
## A Keras model in your loop

Keras models and optimizers have stateless forms for JAX: they take their
variables and return new ones.
"""

model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dense(10),  # Logits: no softmax.
    ]
)
optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
optimizer.build(model.trainable_variables)
loss = SparseCompetingRatioLoss(alpha=1.5, beta=1.0, from_logits=True)


def value_and_state(trainable, fixed, inputs, labels):
    logits, fixed = model.stateless_call(
        trainable, fixed, inputs, training=True
    )
    return loss(labels, logits), fixed


@jax.jit
def model_step(state, inputs, labels):
    trainable, fixed, of_optimizer = state
    (value, fixed), gradient = jax.value_and_grad(
        value_and_state, has_aux=True
    )(trainable, fixed, inputs, labels)
    trainable, of_optimizer = optimizer.stateless_apply(
        of_optimizer, gradient, trainable
    )
    return value, (trainable, fixed, of_optimizer)


state = tuple(
    [v.value for v in variables]
    for variables in (
        model.trainable_variables,
        model.non_trainable_variables,
        optimizer.variables,
    )
)
for _ in range(EPOCHS):
    for inputs, labels in batches(rng):
        value, state = model_step(state, inputs, labels)

"""
Write the variables back into the model. Then `predict` and `save` work as
always.
"""

for variable, value in zip(model.trainable_variables, state[0], strict=True):
    variable.assign(value)
for variable, value in zip(
    model.non_trainable_variables, state[1], strict=True
):
    variable.assign(value)
predicted = model.predict(x_test, verbose=0).argmax(axis=1)
model_accuracy = np.mean(predicted == y_test)
print(f"Keras model: accuracy {model_accuracy:.3f}")

"""
## Good to know

- A batch that is sharded over devices works. The loss is a mean over the whole
  batch.
- An integer label that names no class gives NaN. JAX cannot raise in compiled
  code.
- [Migrating](../migrating.md#from-a-loop-of-jaxs-own) has the shortest loop.
"""
