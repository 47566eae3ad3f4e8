"""Configurations: their ids, their JSON, and the losses they name."""

import dataclasses
import json

import pytest

from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.config import canonical_loss
from crl_keras.experiments.runs.config import control_of
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.config import make_head
from crl_keras.experiments.runs.config import make_loss
from crl_keras.experiments.runs.config import parse_loss
from crl_keras.experiments.runs.config import with_controls
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.losses import StepMatchedCrossEntropy
from crl_keras.losses import StepNormalizedLoss


def make_config(**changes):
    values = dict(
        dataset="digits",
        network="mlp",
        loss="crl",
        recipe=get_recipe("digits"),
        seed=0,
    )
    return RunConfig(**{**values, **changes})


@pytest.mark.once
def test_json_gives_back_an_equal_configuration():
    for recipe in ("digits", "paper", "released", "zhu2018"):
        config = make_config(recipe=get_recipe(recipe), held_out=0.1)
        again = RunConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert again == config
        assert again.run_id == config.run_id


@pytest.mark.once
def test_every_field_changes_the_id_and_all_but_three_the_group():
    config = make_config()
    changes = dict(
        dataset="mnist",
        network="logistic",
        loss="ce",
        recipe=get_recipe("digits", learning_rate=0.123),
        seed=1,
        held_out=0.2,
        precision="mixed_bfloat16",
        weights="imagenet",
        fold=1,
        crop_to_box=True,
        reader="pillow",
        backend="torch",
        devices=2,
        train_limit=10,
        test_limit=10,
    )
    assert set(changes) == {f.name for f in dataclasses.fields(RunConfig)}
    for name, value in changes.items():
        other = dataclasses.replace(config, **{name: value})
        assert other.run_id != config.run_id, name
        shared = name in ("loss", "seed", "fold")
        assert (other.group == config.group) == shared


@pytest.mark.once
def test_other_words_on_a_recipe_make_no_other_run():
    config = make_config()
    reworded = dataclasses.replace(config.recipe, source="in other words")
    other = dataclasses.replace(config, recipe=reworded)
    assert other.run_id == config.run_id and other.group == config.group


@pytest.mark.once
def test_a_pair_shares_seed_and_fold():
    assert make_config(seed=3).pair == 3
    assert make_config(seed=3, fold=1).pair == (3, 1)


@pytest.mark.once
def test_an_unknown_field_is_an_error():
    values = make_config().to_dict()
    with pytest.raises(ValueError, match="Unknown fields.*'sead'"):
        RunConfig.from_dict({**values, "sead": 1})


@pytest.mark.once
@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(seed=-1), "`seed`"),
        (dict(held_out=1.0), "`held_out`"),
        (dict(devices=0), "`devices`"),
        (dict(train_limit=0), "`train_limit` must be at least 1"),
        (dict(test_limit=-5), "`test_limit` must be at least 1"),
        (dict(loss="crl(alpha=1,alpha=2)"), "given once"),
        (dict(loss="hinge"), "must be one of ce, nllr, crl.*'hinge'"),
        (dict(loss="crl(gamma=1)"), "takes alpha, beta.*gamma"),
        (dict(loss="ce(alpha=1)"), "takes nothing"),
        (dict(loss="crl(alpha=x)"), "`alpha` of a loss must be a number"),
        (dict(loss="crl(alpha=1"), "with parameters in parentheses"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(ValueError, match=message):
        make_config(**changes)


@pytest.mark.once
def test_one_loss_has_one_name():
    specs = ["crl", "CRL", "crl()", "crl(beta=1)", " crl( beta=1.0, alpha=1.5)"]
    assert {canonical_loss(s) for s in specs} == {"crl(alpha=1.5,beta=1)"}
    assert canonical_loss(canonical_loss("crl(beta=-1)")) == (
        "crl(alpha=1.5,beta=-1)"
    )
    assert len({make_config(loss=s).run_id for s in specs}) == 1
    assert [loss_label(s) for s in ("ce", "nllr", "crl", "crl(alpha=2)")] == [
        "CE",
        "NLLR",
        "CRL",
        "CRL(2, 1)",
    ]
    assert canonical_loss("crl(alpha=0)") == "nllr"
    assert canonical_loss("crl(beta=-0)") == canonical_loss("crl(beta=0)")
    # Two losses have two names.
    labels = [loss_label(f"crl(beta={b})") for b in ("0.3333333", "0.33333333")]
    assert labels == ["CRL(1.5, 0.3333333)", "CRL(1.5, 0.33333333)"]


def test_the_losses_are_what_they_are_called():
    import numpy as np
    from autodiff import to_numpy

    logits = np.array([[2.0, 0.5, -1.0, 0.3]], "float32")
    for spec, expected in [
        ("ce", 0.3754187038),
        ("nllr", -0.7861383956),
        ("crl", 0.9704007705),
        ("crl(alpha=2,beta=0.25)", 0.5850548801),
        ("focal", 0.0367790264),
        ("focal(gamma=0)", 0.3754187038),
        ("dualce", 1.7005879841),
        ("tamed", 0.329138281),
        ("released", 0.9704007705),
    ]:
        loss = make_loss(spec, 4)
        assert make_head(spec, 4) is None
        np.testing.assert_allclose(
            to_numpy(loss(np.array([0]), logits)), expected, rtol=1e-5
        )
        parse_loss(spec)


@pytest.mark.parametrize("name", ["lsoftmax", "asoftmax"])
def test_a_loss_with_a_margin_comes_with_its_layer(name):
    """Its defaults are those of the layer."""
    head, loss = make_head(name, 4), make_loss(name, 4)
    assert type(head).__name__ == {"l": "L", "a": "A"}[name[0]] + "SoftmaxDense"
    assert head.units == loss.classes == 4
    default = type(head)(4, dtype="float32", name="logits")
    assert head.get_config() == default.get_config()
    assert make_head(f"{name}(margin=2,gamma=1e-3)", 4).gamma == 1e-3
    # The layer counts parts of batches.
    parts = make_head(f"{name}(margin=2,gamma=1e-3)", 4, accumulate=4)
    assert parts.gamma == 1e-3 / 4
    assert canonical_loss(f"{name}(gamma=1e-3)").split(",")[2] == "gamma=0.001"


def test_a_control_is_named_after_its_loss():
    assert canonical_loss("CRL_Steps( beta = -1 )") == (
        "crl_steps(alpha=1.5,beta=-1)"
    )
    assert canonical_loss("crl_weights(alpha=0)") == "nllr_weights"
    assert loss_label("crl_steps") == "CE with CRL's steps"
    assert loss_label("crl_weights(beta=-1)") == (
        "CRL(1.5, -1) with CE's steps"
    )
    assert control_of("focal_weights(gamma=1)") == ("focal(gamma=1)", "weights")
    for name in ("ce_steps", "lsoftmax_steps", "crl_step"):
        with pytest.raises(ValueError, match="crl_steps and crl_weights"):
            canonical_loss(name)
    assert control_of("ce_steps") is None


@pytest.mark.parametrize("soft", [False, True])
def test_a_control_is_made_of_its_loss(soft):
    for spec in ("crl_steps(beta=-1)", "dualce_weights", "nllr_steps"):
        loss = make_loss(spec, 3, soft, 0.1 if soft else 0.0)
        is_steps = "steps" in spec
        kind = StepMatchedCrossEntropy if is_steps else StepNormalizedLoss
        assert type(loss) is kind
        base, _ = control_of(spec)
        expected = make_loss(base, 3, soft, 0.1 if soft else 0.0)
        assert type(loss.loss) is type(expected)
        assert loss.loss.get_config() == expected.get_config()
    with pytest.raises(ValueError, match="is for integer labels"):
        make_loss("released_steps", 3, soft_labels=True)


def test_the_effect_of_every_loss_that_weighs_is_split():
    assert with_controls(["crl(beta=-1)", "lsoftmax"])[:4] == (
        "ce",
        "crl(alpha=1.5,beta=-1)",
        "crl_steps(alpha=1.5,beta=-1)",
        "crl_weights(alpha=1.5,beta=-1)",
    )
    with pytest.raises(ValueError, match="nllr, crl, focal.*Received: ce, lso"):
        with_controls(["ce", "lsoftmax"])
