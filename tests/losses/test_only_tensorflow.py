"""What only TensorFlow has: unknown shapes and `tf.distribute`."""

import numpy as np
import pytest
import tensorflow as tf
from autodiff import to_numpy
from test_compiled import LABELS
from test_compiled import LOGITS
from test_compiled import RNG
from test_compiled import compiled_model

import crl_keras
from crl_keras.metrics import _within


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_names_no_class_is_named(label):
    loss = crl_keras.SparseCompetingRatioLoss(from_logits=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"of {label} whi"):
        loss(np.array([0, label]), LOGITS[:2])


@pytest.mark.parametrize("axis", [-1, 1])
def test_logits_in_a_variable(axis):
    loss = crl_keras.SparseCompetingRatioLoss(from_logits=True, axis=axis)
    logits = np.stack([LOGITS[:5], LOGITS[1:6]], axis=-1)  # (5, 5, 2)
    labels = RNG.integers(0, logits.shape[axis], (5, logits.shape[-axis]))
    expected = to_numpy(loss(labels, logits))
    assert to_numpy(loss(labels, tf.Variable(logits))) == expected


def test_unknown_batch_size_and_label_rank():
    loss = crl_keras.SparseCompetingRatioLoss(from_logits=True)

    @tf.function(
        input_signature=[
            tf.TensorSpec(None, tf.int32),
            tf.TensorSpec([None, 5], tf.float32),
        ]
    )
    def unknown(y_true, y_pred):
        return loss(y_true, y_pred)

    expected = to_numpy(loss(LABELS, LOGITS))
    for labels in (LABELS, LABELS[:, None]):
        np.testing.assert_allclose(
            to_numpy(unknown(labels, LOGITS)), expected, rtol=1e-6
        )


@pytest.mark.parametrize("alpha", [0.0, 1.5])
@pytest.mark.parametrize("from_logits", [True, False])
def test_unknown_number_of_classes(alpha, from_logits):
    x = LOGITS if from_logits else to_numpy(tf.nn.softmax(LOGITS))
    x = x.astype("float32")
    options = dict(alpha=alpha, from_logits=from_logits)
    dense = crl_keras.CompetingRatioLoss(**options, label_smoothing=0.1)
    sparse = crl_keras.SparseCompetingRatioLoss(**options)
    one_hot = np.eye(5, dtype="float32")[LABELS]
    unknown = tf.TensorSpec([None, None], tf.float32)
    for loss, y_true, spec in [
        (dense, one_hot, unknown),
        (sparse, LABELS, tf.TensorSpec([None], LABELS.dtype)),
    ]:
        traced = tf.function(loss, input_signature=[spec, unknown])
        np.testing.assert_allclose(
            to_numpy(traced(y_true, x)), to_numpy(loss(y_true, x)), rtol=1e-6
        )


def test_one_off_accuracy_of_labels_of_unknown_width():
    unknown = [tf.TensorSpec([None, None], tf.int32)]
    traced = tf.function(
        lambda y_true, y_pred: _within(y_true, y_pred, k=0),
        input_signature=[*unknown, tf.TensorSpec([None, 5], tf.float32)],
    )
    expected = LOGITS.argmax(axis=1) == LABELS
    found = traced(np.int32(LABELS)[:, None], np.float32(LOGITS))
    np.testing.assert_array_equal(to_numpy(found), expected)


@pytest.mark.parametrize("form", ["dense", "sparse", "margin"])
def test_tf_distribute(form):
    """With a margin, too: each device has part of the batch, all one step."""
    x = RNG.normal(size=(12, 6)).astype("float32")

    def train(strategy):
        with strategy.scope():
            model, y_true = compiled_model(form)
        history = model.fit(
            x, y_true, batch_size=12, epochs=3, shuffle=False, verbose=0
        ).history["loss"]
        if form == "margin":
            assert int(to_numpy(model.layers[-1].step)) == 3
        return history

    devices = [d.name for d in tf.config.list_logical_devices("CPU")]
    assert len(devices) == 2
    np.testing.assert_allclose(
        train(
            tf.distribute.MirroredStrategy(
                devices,
                # Another strategy's collectives in this process would collide.
                cross_device_ops=tf.distribute.ReductionToOneDevice(),
            )
        ),
        train(tf.distribute.get_strategy()),
        rtol=1e-5,
    )
