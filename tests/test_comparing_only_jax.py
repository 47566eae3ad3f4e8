"""`compare_losses` with many runs in one compiled program."""

import keras
import numpy as np
import pytest

from crl_keras import CompetingRatioLoss
from crl_keras import SparseCompetingRatioLoss
from crl_keras import compare_losses
from crl_keras.experiments.runs import sweep

rng = np.random.default_rng(0)
X = rng.normal(size=(45, 6)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)  # Three classes.
CE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LOSSES = {"CE": CE, "CRL": SparseCompetingRatioLoss(from_logits=True)}


def build_model():
    return keras.Sequential(
        [
            keras.Input((6,)),
            # With a bias, rounding would decide the steps of Adam: the
            # normalisation takes its gradient away.
            keras.layers.Dense(8, use_bias=False, kernel_regularizer="l2"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(3),
        ]
    )


def build_two_inputs():
    inputs = dict(a=keras.Input((6,), name="a"), b=keras.Input((6,), name="b"))
    x = keras.layers.Concatenate()([*inputs.values()])
    return keras.Model(inputs, keras.layers.Dense(3)(x))


def as_function(labels, logits):
    return keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )


def dense(inputs):
    return dict(a=inputs, b=inputs[:, ::-1])


CASES = {
    "state, rates, steps": dict(
        optimizer=lambda rate: keras.optimizers.SGD(2 * rate, momentum=0.9),
        learning_rates=(0.01, 0.03),
        steps_per_epoch=2,
    ),
    "two inputs, soft labels": dict(
        build_model=build_two_inputs,
        train=(dense(X), 0.9 * np.eye(3)[Y] + 0.1 / 3),
        test=(dense(X[:20]), np.eye(3)[Y[:20]]),
        losses={
            "CE": keras.losses.CategoricalCrossentropy(from_logits=True),
            "CRL": CompetingRatioLoss(from_logits=True),
        },
        class_names="abc",
    ),
    "a function, names": dict(losses={"CE": as_function, "CRL": "crl"}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_the_numbers_are_those_of_one_by_one(case):
    values = dict(
        build_model=build_model,
        train=(X, Y),
        test=(X[:20] + 0.5, Y[:20]),
        losses=LOSSES,
        optimizer=lambda: keras.optimizers.Adam(0.01),
        epochs=2,
        seeds=2,
        batch_size=16,
        held_out=0,
        keep_models=True,
        verbose=0,
    )
    values |= CASES[case]
    alone = compare_losses(**values, together="off")
    found = compare_losses(**values, together=99)
    rates = values.get("learning_rates", [None])
    assert len(found.runs) == len(alone.runs) == 4 * len(rates)
    for run, other in zip(found.runs, alone.runs, strict=True):
        assert run.config == other.config
        assert run.result["together"]["runs"] == len(found.runs)
        assert other.result["together"]["runs"] == 1
        for row, same in zip(run.history, other.history, strict=True):
            for name in ("train_loss", "test_loss", "test_accuracy"):
                assert row[name] == pytest.approx(same[name], rel=1e-4), name
            assert row["learning_rate"] == pytest.approx(same["learning_rate"])
        np.testing.assert_allclose(
            run.logits()["test"], other.logits()["test"], rtol=1e-3, atol=1e-4
        )
    for loss in values["losses"]:
        weights = [
            comparison.model(loss, 1, rates[-1]).get_weights()
            for comparison in (found, alone)
        ]
        for value, same in zip(*weights, strict=True):
            np.testing.assert_allclose(value, same, rtol=1e-3, atol=1e-4)


def scheduled():
    return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9))


@pytest.mark.parametrize(
    "change, why",
    [
        (dict(class_weight={0: 2.0}), "have weights"),
        (dict(sample_weight=np.ones(len(X))), "have weights"),
        (dict(callbacks=[keras.callbacks.Callback]), "have callbacks"),
        (dict(optimizer=scheduled), "has a schedule"),
        (dict(jit_compile=False), "not to be compiled"),
    ],
)
def test_what_cannot_be_stacked_is_said(change, why, monkeypatch, capsys):
    class Trained(Exception):
        pass

    def run_alone(config, folder, data, plan, choice, *callbacks):
        assert choice.runs == 1 and why in choice.why
        raise Trained

    monkeypatch.setattr(sweep, "_run_alone", run_alone)
    values = dict(optimizer="sgd", epochs=1, seeds=1, verbose=2) | change
    with pytest.raises(Trained):
        compare_losses(
            build_model, (X, Y), (X, Y), LOSSES, together=2, **values
        )
    assert why in capsys.readouterr().out
