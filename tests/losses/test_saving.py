"""Configs, and models saved and loaded in Keras's safe mode."""

import inspect

import keras
import numpy as np
import pytest
from autodiff import to_numpy
from fresh import run_python

import crl_keras
from crl_keras import layers
from crl_keras import losses
from crl_keras import metrics
from crl_keras import optimizers

# A value other than the default for every argument of the constructors.
OTHER = {
    "alpha": 2.0,
    "beta": 0.5,
    "gamma": 3.0,
    "classes": 5,
    "from_logits": True,
    "label_smoothing": 0.1,
    "ignore_class": 255,
    "axis": 1,
    "reduction": "sum",
    "name": "another",
    "dtype": "bfloat16",
}
OURS = [crl_keras.CompetingRatioLoss, crl_keras.SparseCompetingRatioLoss]
COMPARED = [
    losses.FocalLoss,
    losses.SparseFocalLoss,
    losses.TamedCrossEntropy,
    losses.SparseTamedCrossEntropy,
    losses.DualCrossEntropy,
    losses.SparseDualCrossEntropy,
    losses.ReleasedCompetingRatioLoss,
]
CLASSES = pytest.mark.parametrize("cls", [*OURS, *COMPARED])


def arguments(cls):
    parameters = dict(inspect.signature(cls.__init__).parameters)
    del parameters["self"]
    return parameters


@pytest.mark.once
@pytest.mark.parametrize(
    "cls", [*OURS, *COMPARED, losses.SparseMarginCrossEntropy]
)
def test_every_argument_survives(cls):
    chosen = {name: OTHER[name] for name in arguments(cls)}
    for name, parameter in arguments(cls).items():
        assert chosen[name] != parameter.default
    loss = cls(**chosen)
    assert loss.get_config() == chosen
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is cls
    assert again.get_config() == chosen
    assert again.dtype == "bfloat16"


@pytest.mark.once
@CLASSES
def test_defaults_survive_and_are_those_of_the_papers(cls):
    config = cls().get_config()
    assert config == {n: p.default for n, p in arguments(cls).items()}
    expected = {"alpha": 1.5, "beta": 1.0}
    if "Focal" in cls.__name__:
        expected = {"gamma": 2.0}
    elif "Tamed" in cls.__name__:
        expected = {"alpha": 0.8}
    elif "Dual" in cls.__name__:
        expected = {"alpha": 1.0, "beta": 4.5}
    assert expected.items() <= config.items()
    assert cls.from_config(config).get_config() == config


@pytest.mark.once
@pytest.mark.parametrize(
    "cls", [*OURS, *COMPARED, losses.SparseMarginCrossEntropy]
)
def test_a_loss_by_its_name(cls):
    """As docs/migrating.md says, for Keras's strings know its own alone."""
    config = {"classes": 3} if "Margin" in cls.__name__ else {"axis": 1}
    name = f"crl_keras>{cls.__name__}"
    loss = keras.losses.get({"class_name": name, "config": config})
    assert type(loss) is cls and config.items() <= loss.get_config().items()
    assert keras.losses.deserialize(name) is cls
    function = keras.losses.deserialize(f"crl_keras>{cls.function.__name__}")
    assert function is cls.function


@pytest.mark.once
def test_a_dtype_policy_survives():
    loss = crl_keras.CompetingRatioLoss(
        dtype=keras.DTypePolicy("mixed_bfloat16")
    )
    again = crl_keras.CompetingRatioLoss.from_config(loss.get_config())
    assert again.dtype == loss.dtype == "bfloat16"


def saved_models():
    """{name: (model, whether its labels are one-hot)}, with all of ours."""
    options = dict(alpha=0.5, beta=0.25, from_logits=True)
    dense = {
        "dense": crl_keras.CompetingRatioLoss(
            label_smoothing=0.1, dtype="float32", **options
        ),
        "dense_function": crl_keras.competing_ratio_loss,
        "dense_focal": losses.FocalLoss(gamma=3.0, from_logits=True),
        "dense_dual": losses.DualCrossEntropy(beta=2.0, from_logits=True),
    }
    sparse = {
        "sparse": crl_keras.SparseCompetingRatioLoss(ignore_class=2, **options),
        "sparse_function": crl_keras.sparse_competing_ratio_loss,
        "sparse_tamed": losses.SparseTamedCrossEntropy(0.5, from_logits=True),
        "sparse_released": losses.ReleasedCompetingRatioLoss(
            alpha=0.5, from_logits=True
        ),
        "sparse_margin": losses.SparseMarginCrossEntropy(3),
    }
    models = {}
    for name, loss in (dense | sparse).items():
        head = keras.layers.Dense(
            3, activation="softmax" if name.endswith("function") else None
        )
        if name == "sparse_margin":
            head = layers.LSoftmaxDense(3)
        model = keras.Sequential([keras.Input((4,)), head])
        model.compile(
            optimizers.CoupledSGD(0.1, momentum=0.9),
            loss,
            metrics=[metrics.OneOffAccuracy()] if name in sparse else None,
            # Compiled once for each form of labels; eager is faster to start.
            run_eagerly=name not in ("dense", "sparse"),
            jit_compile=False,
        )
        models[name] = model, name in dense
    return models


def test_saved_models_load_in_a_fresh_process(tmp_path):
    """Safe mode, no custom_objects: importing crl_keras is enough."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 4)).astype("float32")
    labels = rng.integers(0, 3, 8)
    expected, configs = {}, {}
    for name, (model, one_hot) in saved_models().items():
        y_true = np.eye(3)[labels] if one_hot else labels
        model.fit(x, y_true, verbose=0)
        model.save(tmp_path / f"{name}.keras")
        found = model.evaluate(x, y_true, verbose=0)
        expected[name] = np.append(found, one_hot)
        configs[name] = described(model.loss)
    np.savez(tmp_path / "data.npz", x=x, y=labels, **expected)
    code = (
        "import crl_keras, keras, numpy as np\n"
        "d = np.load('data.npz')\n"
        "for name in d.files[2:]:\n"
        "    m = keras.models.load_model(name + '.keras')\n"
        "    *found, one_hot = d[name]\n"
        "    y = np.eye(3)[d['y']] if one_hot else d['y']\n"
        "    got = np.ravel(m.evaluate(d['x'], y, verbose=0))\n"
        "    np.testing.assert_allclose(got, found, rtol=1e-5)\n"
        "    print(type(m.optimizer).__name__, m.loss.get_config()"
        " if hasattr(m.loss, 'get_config') else m.loss.__name__)\n"
    )
    printed = run_python(code, tmp_path)
    found = printed.strip().splitlines()[-len(configs) :]
    assert found == [f"CoupledSGD {text}" for text in configs.values()]


def described(loss):
    if hasattr(loss, "get_config"):
        return str(loss.get_config())
    return loss.__name__


def test_functions_work_in_compile():
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3, activation="softmax")]
    )
    model.compile("sgd", crl_keras.sparse_competing_ratio_loss)
    x = np.random.default_rng(0).normal(size=(8, 4))
    labels = np.arange(8) % 3
    value = model.evaluate(x, labels, verbose=0)
    expected = crl_keras.SparseCompetingRatioLoss()(
        labels, model.predict(x, verbose=0)
    )
    np.testing.assert_allclose(value, to_numpy(expected), rtol=1e-5)
