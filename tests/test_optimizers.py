"""CoupledSGD: NumPy and PyTorch, compiled, scaled, clipped, distributed."""

import keras
import numpy as np
import pytest
from autodiff import to_numpy

from crl_keras.optimizers import CoupledSGD
from crl_keras.optimizers import HeadRateSGD

BACKEND = keras.backend.backend()
STEPS = 40
VARIANTS = pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)]
)


def gradients(steps=STEPS, shape=(3, 2)):
    return np.random.default_rng(0).normal(size=(steps, *shape))


def rate_of(step):
    return 0.1 if step < 15 else 0.01 if step < 30 else 0.001


def schedule():
    # Keras keeps the old rate at the boundary itself.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [14, 29], [0.1, 0.01, 0.001]
    )


def by_hand(w, grads, momentum, nesterov, decay, rate=rate_of):
    """SGD in float64, from its formula."""
    w, v, path = w.astype("float64"), 0.0, []
    for step, g in enumerate(grads):
        g = g + decay * w
        v = momentum * v + g
        w = w - rate(step) * (g + momentum * v if nesterov else v)
        path.append(w)
    return np.array(path)


def trajectory(optimizer, w, grads):
    variable = keras.Variable(w.astype("float32"))
    path = []
    for g in grads:
        g = keras.ops.convert_to_tensor(g.astype("float32"))
        optimizer.apply([g], [variable])
        path.append(to_numpy(variable).copy())
    return np.array(path)


@VARIANTS
def test_against_numpy(momentum, nesterov):
    w, grads = np.linspace(-2, 3, 6).reshape(3, 2), gradients()
    optimizer = CoupledSGD(schedule(), momentum, nesterov, 0.05)
    expected = by_hand(w, grads, momentum, nesterov, 0.05)
    found = trajectory(optimizer, w, grads)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    # The test can tell: without decay the end is elsewhere.
    other = by_hand(w, grads, momentum, nesterov, 0.0)
    assert np.abs(other[-1] - expected[-1]).max() > 0.01


@VARIANTS
@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_against_pytorch(momentum, nesterov, decay):
    import torch

    w, grads = np.linspace(-2, 3, 6).reshape(3, 2), gradients()
    parameter = torch.nn.Parameter(torch.tensor(w, dtype=torch.float32))
    theirs = torch.optim.SGD(
        [parameter],
        lr=0.1,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=decay,
    )
    expected = []
    for step, g in enumerate(grads):
        theirs.param_groups[0]["lr"] = rate_of(step)
        parameter.grad = torch.tensor(g, dtype=torch.float32)
        theirs.step()
        expected.append(parameter.detach().cpu().numpy().copy())
    optimizer = CoupledSGD(schedule(), momentum, nesterov, decay)
    found = trajectory(optimizer, w, grads)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_a_thousand_steps_of_decay():
    """The numbers of the docstring: coupled, PyTorch's, 0.6078."""
    momentum, steps = 0.9, 1000
    zeros = np.zeros((steps, 1))
    expected = by_hand(
        np.ones(1), zeros, momentum, False, 5e-4, rate=lambda step: 0.1
    )[-1]
    assert expected == pytest.approx(0.6078, abs=5e-5)
    ours = keras.Variable(np.ones(1, "float32"))
    theirs = keras.Variable(np.ones(1, "float32"))
    coupled = CoupledSGD(0.1, momentum, coupled_weight_decay=5e-4)
    decoupled = keras.optimizers.SGD(0.1, momentum, weight_decay=5e-4)
    zero = keras.ops.zeros(1)
    for _ in range(steps):
        coupled.apply([zero], [ours])
        decoupled.apply([zero], [theirs])
    assert to_numpy(ours) == pytest.approx(0.6078, abs=5e-5)
    assert to_numpy(theirs) == pytest.approx(0.9512, abs=5e-5)


def test_without_decay_it_is_the_sgd_of_keras():
    w, grads = np.ones((3, 2)), gradients()
    for nesterov in (False, True):
        ours = trajectory(CoupledSGD(0.1, 0.9, nesterov), w, grads)
        theirs = trajectory(keras.optimizers.SGD(0.1, 0.9, nesterov), w, grads)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_keras_lets_old_gradients_go_on_at_the_old_rate():
    """Why the velocity is PyTorch's: after a drop, Keras's SGD lags."""
    w, grads = np.zeros((1, 1)), np.ones((20, 1, 1))
    optimizer = keras.optimizers.SGD(schedule(), 0.9)
    expected = by_hand(w, grads, 0.9, False, 0.0)
    found = trajectory(optimizer, w, grads)
    np.testing.assert_allclose(found[:15], expected[:15], rtol=1e-5)
    assert found[19] < 1.1 * expected[19] < 0


def small_model():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, dtype="float32"),
        ]
    )
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(1, 0.2, variable.shape))
    return model


def fit(model, optimizer, x, **compile_arguments):
    """Trains on the constant 0: no gradient but weight decay."""

    def zero(y_true, y_pred):
        return 0.0 * keras.ops.sum(y_pred, axis=-1)

    model.compile(optimizer, zero, **compile_arguments)
    model.fit(x, np.zeros((len(x), 1)), batch_size=4, epochs=5, verbose=0)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_compiled_fit_decays_every_variable(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = small_model()
    finally:
        keras.config.set_dtype_policy("float32")
    before = [to_numpy(v).copy() for v in model.trainable_variables]
    assert len(before) == 6  # Kernels, biases, gamma, beta.
    jit_compile = BACKEND != "torch"
    optimizer = CoupledSGD(0.1, 0.9, True, 0.1)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    x = np.ones((12, 4), "float32")
    fit(model, optimizer, x, jit_compile=jit_compile)
    for value, variable in zip(before, model.trainable_variables, strict=True):
        expected = by_hand(
            value, np.zeros((15, 1)), 0.9, True, 0.1, rate=lambda step: 0.1
        )[-1]
        np.testing.assert_allclose(
            to_numpy(variable), expected, rtol=1e-5, err_msg=variable.path
        )


def test_loss_scale_does_not_scale_the_decay():
    # Compiled: on JAX Keras's LossScaleOptimizer does not run eagerly.
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False)]
    )
    model.set_weights([np.ones((2, 1))])
    x = np.array([[1.0, -2.0]] * 10, "float32")
    inner = CoupledSGD(0.1, 0.9, coupled_weight_decay=0.05)
    model.compile(
        keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0),
        lambda y_true, y_pred: y_pred[:, 0],  # Its gradient is x.
    )
    model.fit(x, np.zeros((10, 1)), batch_size=1, verbose=0)
    grads = x[:, :, None]
    expected = by_hand(
        np.ones((2, 1)), grads, 0.9, False, 0.05, rate=lambda step: 0.1
    )[-1]
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=2e-5)


def test_gradients_are_clipped_before_the_decay():
    w, grads = np.full((3, 2), 10.0), 100 * np.ones((1, 3, 2))
    optimizer = CoupledSGD(0.1, coupled_weight_decay=0.5, clipvalue=1.0)
    found = trajectory(optimizer, w, grads)
    np.testing.assert_allclose(found[0], 10 - 0.1 * (1 + 5), rtol=1e-6)


def test_accumulated_gradients_decay_once():
    w, grads = np.ones((3, 2)), gradients(8)
    optimizer = CoupledSGD(
        0.1, 0.9, coupled_weight_decay=0.05, gradient_accumulation_steps=2
    )
    means = (grads[::2] + grads[1::2]) / 2
    expected = by_hand(w, means, 0.9, False, 0.05, rate=lambda step: 0.1)
    found = trajectory(optimizer, w, grads)[1::2]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_excluded_variables_do_not_decay():
    kernel = keras.Variable(np.ones(2, "float32"), name="kernel")
    bias = keras.Variable(np.ones(2, "float32"), name="bias")
    optimizer = CoupledSGD(0.1, coupled_weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    zero = keras.ops.zeros(2)
    optimizer.apply([zero, zero], [kernel, bias])
    np.testing.assert_allclose(to_numpy(kernel), 0.95, rtol=1e-6)
    np.testing.assert_array_equal(to_numpy(bias), 1.0)


@pytest.mark.once
def test_config():
    chosen = dict(
        learning_rate=0.25,
        momentum=0.5,
        nesterov=True,
        coupled_weight_decay=0.125,
        clipnorm=2.0,
        name="another",
    )
    optimizer = CoupledSGD(**chosen)
    assert chosen.items() <= optimizer.get_config().items()
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is CoupledSGD
    assert again.get_config() == optimizer.get_config()
    assert CoupledSGD().name == "coupled_sgd"
    assert keras.saving.get_registered_name(CoupledSGD) == (
        "crl_keras>CoupledSGD"
    )


def test_a_saved_model_goes_on_where_it_was(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
    y = np.zeros((12, 3), "float32")
    model = small_model()
    model.compile(CoupledSGD(schedule(), 0.9, True, 0.05), "mse")
    model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.optimizer.coupled_weight_decay == 0.05
    for m in (model, again):
        m.fit(x, y, epochs=2, shuffle=False, verbose=0)
    for one, two in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(two))


@pytest.mark.once
def test_errors():
    with pytest.raises(ValueError, match="Received: weight_decay=0.1"):
        CoupledSGD(0.1, weight_decay=0.1)
    for decay in (-1e-4, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"coupled_weight_decay={decay}"):
            CoupledSGD(0.1, coupled_weight_decay=decay)
    with pytest.raises(ValueError, match="momentum"):
        CoupledSGD(0.1, momentum=1.5)
    CoupledSGD(0.1, momentum=0, coupled_weight_decay=1)  # Integers will do.


def test_parts_have_rates_and_decay_of_their_own():
    """By name and for a time; what rests gathers no momentum."""
    names = ("conv1", "conv2", "other", "logits")
    model = keras.Sequential(
        [keras.Input((1,))]
        + [keras.layers.Dense(1, use_bias=False, name=name) for name in names]
    )
    model.set_weights([np.ones((1, 1))] * 4)
    optimizer = HeadRateSGD(
        0.1,
        momentum=0.5,
        coupled_weight_decay=0.5,
        head_rate=10.0,
        head_layers=["other"],
        part_rates=[
            ["logits", 3.0, 0],
            ["conv2", 0.5, 0],
            ["*", 0.0, 2],
        ],
        no_decay=["logits", "conv*"],
    )
    # It is made again from what is saved of it.
    optimizer = HeadRateSGD.from_config(optimizer.get_config())
    gradients = [np.ones((1, 1), "float32")] * 4
    found = []
    for _ in range(4):
        tensors = [keras.ops.convert_to_tensor(g) for g in gradients]
        optimizer.apply(tensors, model.trainable_variables)
        found.append([float(w[0, 0]) for w in model.get_weights()])
    v, expected = 0.0, []
    for _ in range(4):
        v = 0.5 * v + 1
        expected.append(v)
    total = np.cumsum(expected)
    found = np.transpose(found)
    # Two steps of rest, then as at the start.
    np.testing.assert_allclose(found[0], [1, 1, 0.9, 0.9 - 0.15], rtol=1e-5)
    np.testing.assert_allclose(found[1], 1 - 0.05 * total, rtol=1e-5)
    np.testing.assert_allclose(found[3], 1 - 0.3 * total, rtol=1e-5)
    # The head is at ten times the rate after its rest, and decays.
    assert found[2][:2].tolist() == [1, 1]
    assert found[2][2] < 1 - 10 * 0.1
