"""What is tested at the end of an epoch, kept, and when training ends."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers
from keras.ops import convert_to_numpy as to_numpy
from sklearn.utils.class_weight import compute_class_weight

from crl_keras import networks
from crl_keras.experiments.data.named import load_dataset
from crl_keras.experiments.data.splits import Dataset
from crl_keras.experiments.data.splits import Split
from crl_keras.experiments.runs import epochs
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.models import build_model
from crl_keras.experiments.runs.rate_finder import find_rate
from crl_keras.experiments.runs.recipes import Recipe
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.recipes import make_optimizer
from crl_keras.experiments.runs.records import RunFolder
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.training import run_one

BACKEND = keras.backend.backend()


@pytest.fixture(scope="module")
def digits():
    data = load_dataset("digits").limited(200, 100)
    return data.with_held_out(0.2)


@pytest.fixture(autouse=True)
def small_network(monkeypatch):
    def build(name, shape, classes):
        inputs = keras.Input(shape)
        x = layers.Conv2D(8, 3, strides=2, use_bias=False)(inputs)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.Dropout(0.1)(layers.Flatten()(x))
        return keras.Model(inputs, layers.Dense(classes, name="logits")(x))

    monkeypatch.setattr(networks, "build_network", build)


def config_of(loss="crl", **changes):
    values = dict(
        epochs=4,
        batch_size=32,
        learning_rate=0.02,
        optimizer="adam",
        batch_norm="recompute",
        keep="best",
    )
    recipe = Recipe("mine", **{**values, **changes})
    return RunConfig("digits", "mlp", loss, recipe, 0, backend=BACKEND)


class Stopped(Exception):
    pass


def stop_after(epoch):
    def stop(row):
        if row["epoch"] == epoch:
            raise Stopped

    return stop


def test_all_of_it_resumes_with_the_same_numbers(digits, tmp_path):
    config = config_of(
        schedule="cosine",
        warmup_epochs=1.5,
        ema=0.8,
        early_stopping=3,
        sampling="balanced",
        class_weights="balanced",
    )
    whole, broken = RunFolder(tmp_path / "a", config), None
    run_one(config, digits, whole)
    broken = RunFolder(tmp_path / "b", config)
    for epoch in (1, 3):
        with pytest.raises(Stopped):
            run_one(config, digits, broken, on_epoch=stop_after(epoch))
    run_one(config, digits, broken)
    (a,), (b,) = (read_records(tmp_path / name) for name in "ab")
    timed = ("seconds", "test_seconds", "images_per_second")
    for one, other in zip(a.history, b.history, strict=True):
        for name in one.keys() - timed:
            assert one[name] == other[name], name
    assert a.result["last"] == b.result["last"]
    assert a.result["last"]["error"] < 0.5
    for name, value in a.logits().items():
        np.testing.assert_array_equal(value, b.logits()[name])
    assert not [*(tmp_path / "b").glob("*/best.npz")]


def test_the_best_validated_epoch_is_kept(digits, tmp_path):
    config = config_of(epochs=6, learning_rate=0.05)
    run_one(config, digits, RunFolder(tmp_path, config))
    (record,) = read_records(tmp_path)
    errors = [1 - row["val_accuracy"] for row in record.history]
    losses = [row["val_loss"] for row in record.history]
    best = min(range(6), key=lambda i: (round(errors[i], 6), losses[i]))
    last = record.result["last"]
    assert last["epoch"] == best + 1
    row = record.history[best]
    assert last["error"] == pytest.approx(1 - row["test_accuracy"])
    assert last["test_loss"] == row["test_loss"]
    # The logits are of that epoch too.
    logits = record.logits()
    found = logits["held_out"].argmax(1) == logits["held_out_labels"]
    assert 1 - found.mean() == pytest.approx(errors[best])


@pytest.mark.once
def test_when_training_ends():
    rows = [
        dict(epoch=i + 1, val_accuracy=accuracy, val_loss=loss)
        for i, (accuracy, loss) in enumerate(
            [(0.5, 2.0), (0.7, 2.0), (0.7, 1.0), (0.6, 0.5), (0.7, 1.0)]
        )
    ]
    assert [epochs.best_validated(rows[:n]) for n in range(1, 6)] == [
        1,
        2,
        3,
        3,
        3,
    ]
    recipe = config_of(epochs=9, early_stopping=2).recipe
    ends = [epochs.finished(rows[:n], recipe) for n in range(6)]
    assert ends == [False] * 5 + [True]
    patient = dataclasses.replace(recipe, early_stopping=0, keep="last")
    assert not epochs.finished(rows, patient)
    assert epochs.finished(rows, dataclasses.replace(patient, epochs=5))


@pytest.mark.once
def test_no_epoch_is_chosen_by_the_test(tmp_path):
    data = load_dataset("digits").limited(100, 50)
    for changes in (dict(keep="best"), dict(keep="last", early_stopping=3)):
        recipe = config_of(**changes).recipe
        with pytest.raises(ValueError, match="--held-out"):
            epochs.check_validation(recipe, data)


def test_averaged_weights_are_tested_and_kept(digits):
    config = config_of(ema=0.5, keep="last", batch_norm="moving")
    feed = make_feed(digits, config.recipe)
    model, _, _ = build_model(config, feed)
    averages = None
    images, labels = feed.training()[0]
    for _ in range(3):
        model.train_on_batch(images, labels)
        now = [to_numpy(v) for v in model.trainable_variables]
        averages = averages or now  # Keras begins with the first step's.
        averages = [
            0.5 * a + 0.5 * w for a, w in zip(averages, now, strict=True)
        ]
    with epochs.averaged_weights(model):
        for found, wanted in zip(
            model.trainable_variables, averages, strict=True
        ):
            np.testing.assert_allclose(
                to_numpy(found), wanted, rtol=1e-4, atol=1e-6
            )
    for found, wanted in zip(model.trainable_variables, now, strict=True):
        np.testing.assert_array_equal(to_numpy(found), wanted)


def test_rates_rise_and_fall_as_a_cosine():
    recipe = Recipe(
        "mine",
        epochs=10,
        batch_size=1,
        learning_rate=0.2,
        schedule="cosine",
        warmup_epochs=2,
    )
    rate = make_optimizer(recipe, 5)._learning_rate
    for step in (0, 4, 9, 10, 25, 49):
        cosine = 0.1 * (1 + np.cos(np.pi * step / 50))
        expected = cosine * min(1, (step + 1) / 10)
        assert float(rate(step)) == pytest.approx(expected, rel=1e-5)
    steps = dataclasses.replace(recipe, schedule="steps", milestones=(0.5,))
    rate = make_optimizer(steps, 5)._learning_rate
    rates = [float(rate(step)) for step in (0, 9, 24, 25)]
    assert rates == pytest.approx([0.02, 0.2, 0.2, 0.02], rel=1e-5)
    with pytest.raises(ValueError, match="cosine.*milestones"):
        dataclasses.replace(steps, schedule="cosine")
    assert get_recipe("paper", schedule="cosine").milestones == ()


def uneven():
    labels = np.repeat([0, 1, 2], [40, 8, 2])
    images = np.arange(50, dtype=np.uint8).reshape(-1, 1, 1, 1)
    images = np.broadcast_to(images, (50, 4, 4, 1))
    return Dataset(
        "uneven", Split(images, labels), Split(images, labels), "abc"
    )


@pytest.mark.once
def test_classes_are_balanced_by_weight_or_by_drawing():
    data = uneven()
    recipe = Recipe("mine", epochs=1, batch_size=10, learning_rate=0.1)
    weighted = dataclasses.replace(recipe, class_weights="balanced")
    found = make_feed(data, weighted).class_weights()
    expected = compute_class_weight(
        "balanced", classes=np.arange(3), y=data.train.labels
    )
    assert [found[k] for k in range(3)] == pytest.approx(expected)
    drawn = dataclasses.replace(recipe, sampling="balanced")
    feeds = [make_feed(data, drawn, seed) for seed in (0, 0, 1)]
    orders = [
        np.concatenate([labels for _, labels in (b[i] for i in range(5))])
        for b in (feed.training(3) for feed in feeds)
    ]
    assert np.bincount(orders[0]).tolist() == [17, 17, 16]
    np.testing.assert_array_equal(orders[0], orders[1])
    assert (orders[0] != orders[2]).any()
    images = [feeds[0].training()[i][0][:, 0, 0, 0] for i in range(5)]
    times = np.bincount(np.concatenate(images), minlength=50)
    # Of 40 images none comes twice, of 8 each twice or three times.
    assert times[:40].max() == 1
    assert set(times[40:48]) == {2, 3} and set(times[48:]) == {8}


def test_the_range_test_finds_a_rate_that_trains(digits):
    config = config_of(loss="ce", optimizer="sgd", momentum=0.9, keep="last")
    curve = find_rate(config, digits, steps=60, lowest=1e-5, highest=10.0)
    assert 1e-3 < curve.suggestion < 1
    assert curve.losses.min() < 0.9 * curve.losses[0]
    assert (np.diff(curve.rates) > 0).all()
    assert len(curve.rates) == len(curve.losses) <= 60
    with pytest.raises(ValueError, match="at least 10 steps"):
        find_rate(config, digits, steps=3)
