"""CoupledSGD under what only TensorFlow has: replicas and sparse gradients."""

import keras
import numpy as np
import tensorflow as tf
from autodiff import to_numpy

from crl_keras.optimizers import CoupledSGD


def test_two_replicas_decay_as_one():
    x = np.random.default_rng(2).normal(size=(12, 4)).astype("float32")
    y = np.zeros((12, 3), "float32")
    results = []
    for strategy in (
        tf.distribute.get_strategy(),
        tf.distribute.MirroredStrategy(
            ["CPU:0", "CPU:1"],
            # Another strategy's collectives in this process would collide.
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        ),
    ):
        with strategy.scope():
            model = keras.Sequential(
                [keras.Input((4,)), keras.layers.Dense(3, "relu")]
            )
            model.set_weights([np.full((4, 3), 0.5), np.ones(3)])
            model.compile(CoupledSGD(0.1, 0.9, True, 0.1), "mse")
        model.fit(x, y, batch_size=6, epochs=3, shuffle=False, verbose=0)
        results.append(model.get_weights())
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_sparse_gradients_decay_all_rows():
    variable = keras.Variable(np.ones((3, 2), "float32"))
    gradient = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]), (3, 2))
    CoupledSGD(0.1, 0.9, coupled_weight_decay=0.5).apply([gradient], [variable])
    expected = np.full((3, 2), 0.95)
    expected[1] -= 0.1
    np.testing.assert_allclose(to_numpy(variable), expected, rtol=1e-6)
