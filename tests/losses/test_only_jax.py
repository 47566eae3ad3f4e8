"""What only JAX has: vmap and `keras.distribution`."""

import jax
import keras
import numpy as np
import pytest
from autodiff import to_numpy
from autodiff import value_and_gradient
from test_compiled import ALPHAS
from test_compiled import FORMS
from test_compiled import LOGITS
from test_compiled import RNG
from test_compiled import compiled_model
from test_compiled import make


@FORMS
@ALPHAS
def test_vmap(form, alpha):
    loss, y_true = make(form, alpha)
    single = jax.vmap(lambda y, x: loss.call(y, x))(y_true, LOGITS)
    np.testing.assert_allclose(
        to_numpy(single), to_numpy(loss.call(y_true, LOGITS)), rtol=1e-5
    )
    per_sample = jax.vmap(jax.grad(lambda x, y: loss.call(y, x)))(
        LOGITS, y_true
    )
    _, expected = value_and_gradient(lambda x: loss.call(y_true, x), LOGITS)
    np.testing.assert_allclose(to_numpy(per_sample), expected, atol=1e-6)


@pytest.mark.parametrize("form", ["dense", "sparse", "margin"])
def test_keras_distribution(form):
    """With a margin, too: each device has part of the batch, all one step."""
    assert len(jax.devices()) == 2
    x = RNG.normal(size=(12, 6)).astype("float32")

    def train():
        model, y_true = compiled_model(form)
        # A tensor kept beyond its trace would raise here.
        with jax.checking_leaks():
            history = model.fit(
                x, y_true, batch_size=12, epochs=3, shuffle=False, verbose=0
            ).history["loss"]
        if form == "margin":
            assert int(model.layers[-1].step) == 3
        return history

    single = train()
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    try:
        several = train()
    finally:
        keras.distribution.set_distribution(None)
    np.testing.assert_allclose(several, single, rtol=1e-5)
