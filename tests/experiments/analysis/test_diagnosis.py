"""What is said of runs that cannot be right."""

import dataclasses
import math
import types

import numpy as np
import pytest

from crl_keras.experiments.analysis.diagnosis import diagnose
from crl_keras.experiments.analysis.diagnosis import loss_of_guessing
from crl_keras.experiments.analysis.diagnosis import signs
from crl_keras.experiments.runs.config import OwnConfig
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.recipes import get_recipe

pytestmark = pytest.mark.once


def record(
    losses=(2.0, 1.0, 0.5),
    train_accuracy=0.9,
    test_accuracy=0.85,
    test_loss=0.6,
    loss="ce",
    batch_norm=None,
    status="done",
):
    history = [
        dict(
            train_loss=value,
            train_accuracy=train_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
        )
        for value in losses
    ]
    result = dict(
        status=status,
        dataset=dict(classes=10),
        last=dict(error=1 - test_accuracy),
    )
    if batch_norm:
        result["batch_norm"] = batch_norm
    names = np.array([f"bird {k}" for k in range(10)])
    return types.SimpleNamespace(
        config=RunConfig("digits", "mlp", loss, get_recipe("digits"), 0),
        result=result,
        history=history,
        data=lambda: dict(class_names=names),
        logits=lambda: dict(test=np.eye(10)),
    )


def test_no_advice_is_given_that_is_followed_already():
    def said(loss_curve, network="mlp", weights="none", **recipe):
        made = record(loss_curve, train_accuracy=0.1, test_accuracy=0.1)
        recipe = get_recipe("digits", **recipe)
        changes = dict(network=network, weights=weights, recipe=recipe)
        made.config = dataclasses.replace(made.config, **changes)
        return " ".join(diagnose(made).values())

    rising, flat = (2.3, 3.0), (2.31, 2.31)
    assert "--warmup-epochs" in said(rising)
    assert "--warmup-epochs" not in said(rising, warmup_epochs=1)
    assert "--weights imagenet" in said(flat, "keras/resnet50")
    assert "--weights" not in said(flat)
    fitted = record(train_accuracy=0.9, test_accuracy=0.2)
    assert "--freeze-backbone" not in diagnose(fitted)["overfitted"]
    config = dataclasses.replace(fitted.config, weights="imagenet")
    fitted.config = dataclasses.replace(config, network="keras/resnet50")
    assert "--freeze-backbone" in diagnose(fitted)["overfitted"]
    for weights in ("imagenet", "mine.keras"):
        assert "--weights" not in said(flat, "keras/resnet50", weights)


def test_a_run_that_is_right_has_no_signs():
    assert diagnose(record(), np.eye(10)) == {}
    bad = record(status="diverged", test_accuracy=0.1)
    assert diagnose(bad) == {}


@pytest.mark.parametrize(
    "changes, kind, words",
    [
        (
            dict(losses=(2.31, 2.31), train_accuracy=0.3, test_accuracy=0.3),
            "guessing",
            "has not learned.*2.31.*guessing gives 2.3.*--find-rate",
        ),
        (
            dict(losses=(2.3, 2.2), train_accuracy=0.11, test_accuracy=0.1),
            "guessing",
            "accuracy 11.0%",
        ),
        (dict(test_loss=2.31), "guessing", "test loss, 2.31, is not below"),
        (
            # Below log(10), and above it by the second logarithm.
            dict(test_loss=3.1, loss="crl"),
            None,
            "",
        ),
        (dict(test_loss=3.2, loss="crl"), "guessing", "guessing, 3.18"),
        (dict(losses=(2.0, 4.0, 1.0)), "rising", "from 2 to 4.*lower"),
        (
            dict(train_accuracy=0.95, test_accuracy=0.6),
            "overfitted",
            "95.0% and test accuracy 60.0%.*more images",
        ),
        (
            dict(batch_norm=dict(mode="moving", momentum=0.99, steps=84)),
            "lagging",
            "100 steps, but training had only 84.*--batch-norm recompute",
        ),
        (
            dict(batch_norm=dict(mode="moving", momentum=0.9, steps=84)),
            None,
            "",
        ),
        (
            dict(batch_norm=dict(mode="recompute", momentum=0.99, steps=84)),
            None,
            "",
        ),
    ],
)
def test_each_sign_is_said_with_what_helps(changes, kind, words):
    found = diagnose(record(**changes), np.eye(10))
    assert set(found) == ({kind} if kind else set())
    if kind:
        import re

        assert re.search(words, found[kind])


def test_classes_that_are_never_predicted_are_named():
    logits = np.eye(10)[[0, 1, 2, 2]]
    found = diagnose(record(), logits)["unpredicted"]
    assert found.startswith("7 of 10 classes are never predicted: bird 3,")
    assert "bird 7 and 2 more" in found and "--class-weights" in found


@pytest.mark.parametrize(
    "changes",
    [
        dict(losses=(2.31, 2.31), train_accuracy=0.3, test_accuracy=0.3),
        dict(test_loss=2.31),
        dict(losses=(2.0, 4.0, 1.0)),
        dict(train_accuracy=0.95, test_accuracy=0.6),
        dict(batch_norm=dict(mode="moving", momentum=0.99, steps=84)),
    ],
)
def test_data_of_ones_own_are_samples_and_no_option_is_advised(changes):
    own = record(**changes)
    own.config = OwnConfig("mine", "mlp", "ce", get_recipe("digits"), 0)
    found = diagnose(own, np.eye(10)[[0, 1, 2, 2]])
    assert len(found) == 2 and "samples" in found["unpredicted"]
    for sentence in found.values():
        assert "image" not in sentence.lower() and "--" not in sentence


def test_runs_with_the_same_sign_are_one_sentence():
    runs = [record(losses=(2.0, 4.0, 1.0)) for _ in range(3)]
    for run in runs:
        run.logits = lambda: dict(test=np.eye(10))
    (sentence,) = signs([*runs, record()])
    assert sentence.startswith("CE seed 0: The training loss rose")
    assert sentence.endswith("The same holds for 2 runs more.")


def test_losses_of_guessing():
    assert loss_of_guessing("ce", 7) == math.log(7)
    expected = math.log(7) + 2 * math.log(1.5 - 1 / 7)
    found = loss_of_guessing("crl(alpha=0.5,beta=2)", 7)
    assert found == pytest.approx(expected)
    expected = math.log(7) + math.log(1 - 1 / 7)
    assert loss_of_guessing("nllr", 7) == pytest.approx(expected)
    assert loss_of_guessing("lsoftmax", 7) is None
