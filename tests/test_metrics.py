"""OneOffAccuracy against a loop in plain Python."""

import keras
import numpy as np
import pytest
from keras import ops

from crl_keras import SparseCompetingRatioLoss
from crl_keras.experiments.measures import scores
from crl_keras.metrics import OneOffAccuracy

# As Adience: eight age groups.
CLASSES = 8


def random_case(samples=200, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(samples, CLASSES)).astype("float32")
    labels = rng.integers(CLASSES, size=samples)
    weights = rng.uniform(0.1, 2, size=samples).astype("float32")
    return logits, labels, weights


def share(logits, labels, k, weights=None):
    right = total = 0.0
    for i, (row, label) in enumerate(zip(logits, labels, strict=True)):
        weight = 1.0 if weights is None else float(weights[i])
        total += weight
        if abs(list(row).index(max(row)) - int(label)) <= k:
            right += weight
    return right / total


def result(metric, *args, **kwargs):
    metric.reset_state()
    metric.update_state(*args, **kwargs)
    return float(metric.result())


@pytest.mark.parametrize("k", [0, 1, 2, 7, 100])
def test_matches_a_loop(k):
    logits, labels, weights = random_case()
    metric = OneOffAccuracy(k)
    got = result(metric, labels, logits)
    assert got == pytest.approx(share(logits, labels, k), rel=1e-6)
    got = result(metric, labels, logits, sample_weight=weights)
    expected = share(logits, labels, k, weights)
    assert got == pytest.approx(expected, rel=1e-6)
    assert (expected == 1) == (k >= 7)


def test_batches_add_up():
    logits, labels, weights = random_case()
    metric = OneOffAccuracy()
    assert float(metric.result()) == 0
    for part in (slice(0, 30), slice(30, 31), slice(31, 200)):
        metric.update_state(labels[part], logits[part], weights[part])
    expected = share(logits, labels, 1, weights)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-6)


def test_k_of_zero_is_the_accuracy_of_keras():
    logits, labels, weights = random_case()
    theirs = keras.metrics.SparseCategoricalAccuracy()
    assert result(OneOffAccuracy(0), labels, logits, weights) == pytest.approx(
        result(theirs, labels, logits, weights), rel=1e-6
    )


def test_probabilities_and_layouts_of_labels():
    logits, labels, _ = random_case()
    metric = OneOffAccuracy()
    expected = share(logits, labels, 1)
    for y_true in (
        labels[:, None],
        labels.astype("uint8"),
        labels.astype("float32")[:, None],
        ops.convert_to_tensor(labels.astype("int32")),
        labels.tolist(),
    ):
        got = result(metric, y_true, scores.softmax(logits).astype("float32"))
        assert got == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_class_numbers_are_not_rounded(dtype):
    # bfloat16 has no 257 and float16 no 2049: there they would be 2 apart
    # from what they are next to, or none.
    classes = 2100
    labels = np.array([257, 259, 2049, 2051])
    predicted = labels + [2, -2, 2, -2]
    logits = ops.cast(10 * np.eye(classes, dtype="float32")[predicted], dtype)
    assert result(OneOffAccuracy(1), labels, logits) == 0
    assert result(OneOffAccuracy(2), labels, logits) == 1


@pytest.mark.parametrize("label", [-1, 3, 2**31 - 1, 0.5, float("nan")])
def test_a_label_that_names_no_class_is_wrong(label):
    y_pred = np.array([[9, 0, 0], [0, 0, 9]], "float32")
    y_true = np.array([label, label])
    assert result(OneOffAccuracy(), y_true, y_pred) == 0
    assert result(OneOffAccuracy(k=10), y_true, y_pred) == 0


def test_sequences_and_their_mask():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4, 5, CLASSES)).astype("float32")
    labels = rng.integers(CLASSES, size=(4, 5))
    flat = logits.reshape(-1, CLASSES)
    got = result(OneOffAccuracy(), labels, logits)
    assert got == pytest.approx(share(flat, labels.ravel(), 1), rel=1e-6)
    mask = rng.integers(2, size=(4, 5)).astype(bool)
    masked = ops.convert_to_tensor(logits)
    masked._keras_mask = ops.convert_to_tensor(mask)
    got = result(OneOffAccuracy(), labels, masked)
    expected = share(logits[mask], labels[mask], 1)
    assert got == pytest.approx(expected, rel=1e-6)
    assert abs(got - share(flat, labels.ravel(), 1)) > 1e-3


def model_of_logits(**arguments):
    """A model whose outputs are its inputs."""
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Identity()])
    # Not Keras's loss: on TensorFlow, given labels (N,) and then (N, 1), it
    # stops at their unknown rank. The metric must not.
    model.compile(loss=SparseCompetingRatioLoss(from_logits=True), **arguments)
    return model


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_in_evaluate(run_eagerly):
    logits, labels, weights = random_case(samples=70)
    model = model_of_logits(
        metrics=[OneOffAccuracy()],
        weighted_metrics=[OneOffAccuracy(k=2, name="two_off")],
        run_eagerly=run_eagerly,
    )
    for y_true in (labels, labels[:, None]):
        logs = model.evaluate(
            logits,
            y_true,
            sample_weight=weights,
            batch_size=32,
            return_dict=True,
            verbose=0,
        )
        expected = share(logits, labels, 1)
        assert logs["one_off_accuracy"] == pytest.approx(expected, rel=1e-6)
        expected = share(logits, labels, 2, weights)
        assert logs["two_off"] == pytest.approx(expected, rel=1e-6)


def test_in_fit_with_the_loss(tmp_path):
    logits, labels, _ = random_case(samples=64)
    model = keras.Sequential(
        [keras.Input((CLASSES,)), keras.layers.Dense(CLASSES)]
    )
    model.compile(
        "adam",
        SparseCompetingRatioLoss(from_logits=True),
        metrics=[OneOffAccuracy(k=2, name="off")],
    )
    history = model.fit(
        logits, labels, validation_data=(logits, labels), verbose=0
    )
    expected = share(model.predict(logits, verbose=0), labels, 2)
    got = history.history["val_off"][-1]
    assert got == pytest.approx(expected, rel=1e-6)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    got = again.evaluate(logits, labels, return_dict=True, verbose=0)["off"]
    assert got == pytest.approx(expected, rel=1e-6)


def test_config():
    metric = OneOffAccuracy(k=2, name="off", dtype="bfloat16")
    again = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(metric)
    )
    assert type(again) is OneOffAccuracy
    assert (again.k, again.name, again.dtype) == (2, "off", "bfloat16")
    assert OneOffAccuracy().get_config() == {
        "k": 1,
        "name": "one_off_accuracy",
        "dtype": "float32",
    }


@pytest.mark.parametrize("k", [1.0, "1", True, None])
def test_k_of_another_type(k):
    with pytest.raises(TypeError, match="`k` must be an integer >= 0.*k="):
        OneOffAccuracy(k)


def test_errors():
    with pytest.raises(ValueError, match="`k` must be an integer >= 0.*-1"):
        OneOffAccuracy(-1)
    metric = OneOffAccuracy()
    y_pred = np.zeros((3, 4), "float32")
    with pytest.raises(ValueError, match=r"argmax.*y_true.shape=\(3, 4\)"):
        metric.update_state(np.eye(4)[:3], y_pred)
    with pytest.raises(ValueError, match=r"integer labels.*\(2,\)"):
        metric.update_state([0, 1], y_pred)
    with pytest.raises(ValueError, match="at least 2 classes"):
        metric.update_state([0, 1, 0], y_pred[:, :1])
