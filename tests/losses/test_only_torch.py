"""What only PyTorch has: its function transforms and its own loops."""

import numpy as np
import pytest
import torch
from autodiff import to_numpy
from autodiff import value_and_gradient
from test_compiled import ALPHAS
from test_compiled import FORMS
from test_compiled import LOGITS
from test_compiled import make

import crl_keras


@FORMS
@ALPHAS
def test_per_sample_gradients_by_vmap(form, alpha):
    """No custom autograd function stands in the way of torch.func."""
    loss, y_true = make(form, alpha)
    per_sample = torch.func.vmap(torch.func.grad(lambda x, y: loss.call(y, x)))(
        torch.from_numpy(LOGITS), torch.from_numpy(np.asarray(y_true))
    )
    _, expected = value_and_gradient(lambda x: loss.call(y_true, x), LOGITS)
    np.testing.assert_allclose(to_numpy(per_sample), expected, atol=1e-6)


@FORMS
@ALPHAS
def test_the_mean_of_float64_has_its_digits(form, alpha):
    """Keras's own mean is of float32 on PyTorch."""
    loss, y_true = make(form, alpha, dtype="float64")
    logits = torch.from_numpy(LOGITS).double().requires_grad_()
    value = loss(y_true, logits)
    assert value.dtype == torch.float64
    expected = loss.call(y_true, logits).mean()
    np.testing.assert_allclose(to_numpy(value), to_numpy(expected), rtol=1e-15)
    assert torch.autograd.gradcheck(lambda x: loss(y_true, x), (logits,))


@FORMS
@ALPHAS
def test_torch_compile_breaks_no_graph(form, alpha):
    loss, y_true = make(form, alpha)
    y_true = torch.from_numpy(np.asarray(y_true))

    def of_each(x):
        return loss.call(y_true, x)

    explained = torch._dynamo.explain(of_each)(torch.from_numpy(LOGITS))
    assert explained.graph_break_count == 0, explained.break_reasons


@FORMS
def test_native_loop(form):
    """The loss in a loop of PyTorch's own, as the README shows it."""
    loss, y_true = make(form, 1.5)
    y_true = torch.from_numpy(np.asarray(y_true))
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    x = torch.randn(12, 6)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss(y_true, model(x))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] - 0.1


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_names_no_class_is_named(label):
    loss = crl_keras.SparseCompetingRatioLoss(from_logits=True)
    with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
        loss(np.array([0, label]), LOGITS[:2])
