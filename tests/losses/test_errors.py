"""Bad input names the argument, what was expected and what was received."""

import inspect
import re

import numpy as np
import pytest

import crl_keras
from crl_keras import losses

CLASSES = [crl_keras.CompetingRatioLoss, crl_keras.SparseCompetingRatioLoss]
FUNCTIONS = [
    crl_keras.competing_ratio_loss,
    crl_keras.sparse_competing_ratio_loss,
]
# All of them are raised before anything is computed.
pytestmark = pytest.mark.once
LOGITS = np.zeros((4, 3), "float32")
LABELS = np.zeros(4, "int32")
ONE_HOT = np.eye(3)[LABELS]


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(alpha=-0.1), ValueError, "`alpha` must be >= 0.*alpha=-0.1"),
        (dict(alpha=float("nan")), ValueError, "`alpha`.*finite.*alpha=nan"),
        (dict(alpha=float("inf")), ValueError, "`alpha`.*finite.*alpha=inf"),
        (dict(alpha="1"), TypeError, "`alpha`.*number.*alpha='1' of type str"),
        (dict(alpha=None), TypeError, "`alpha`.*number.*of type NoneType"),
        (dict(alpha=True), TypeError, "`alpha`.*number.*of type bool"),
        (dict(beta=float("nan")), ValueError, "`beta`.*finite.*beta=nan"),
        (dict(beta=-float("inf")), ValueError, "`beta`.*finite.*beta=-inf"),
        (dict(beta=[1]), TypeError, r"`beta`.*number.*beta=\[1\] of type list"),
        (
            dict(alpha=0.5, beta=-0.6),
            ValueError,
            r"`alpha \+ beta` must be >= 0.*alpha=0.5, beta=-0.6",
        ),
        (dict(axis=1.0), TypeError, "`axis` must be an int.*of type float"),
        (dict(axis=True), TypeError, "`axis` must be an int.*of type bool"),
    ],
)
def test_arguments(arguments, error, message):
    for cls in CLASSES:
        with pytest.raises(error, match=message):
            cls(**arguments)
    for function, y_true in zip(FUNCTIONS, (ONE_HOT, LABELS), strict=True):
        with pytest.raises(error, match=message):
            function(y_true, LOGITS, **arguments)


def test_numpy_numbers_are_numbers():
    loss = crl_keras.CompetingRatioLoss(np.float32(1.5), np.int64(1))
    assert loss.get_config()["beta"] == 1.0
    assert type(loss.alpha) is float
    assert type(crl_keras.CompetingRatioLoss(axis=np.int64(1)).axis) is int


def test_from_logits():
    """A number there is the argument of another loss."""
    for cls in CLASSES:
        for value in (0.1, "yes", None):
            with pytest.raises(TypeError, match="`from_logits` must be True"):
                cls(1.5, 1.0, value)
        assert cls(from_logits=np.bool_(True)).from_logits is True
    functions = [
        function
        for function in vars(losses).values()
        if inspect.isfunction(function)
        and "from_logits" in inspect.signature(function).parameters
    ]
    assert len(functions) == 9
    for function in functions:
        with pytest.raises(TypeError, match="`from_logits` must be True"):
            function(LABELS, LOGITS, from_logits="no")


def test_the_edges_of_the_range_are_admissible():
    crl_keras.CompetingRatioLoss(0.0, 0.0)
    crl_keras.CompetingRatioLoss(1.0, -1.0)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), "0.1", None])
def test_label_smoothing(value):
    error = TypeError if value is None or value == "0.1" else ValueError
    message = r"`label_smoothing` must be a number in \[0, 1\].*Received"
    with pytest.raises(error, match=message):
        crl_keras.CompetingRatioLoss(label_smoothing=value)
    with pytest.raises(error, match=message):
        crl_keras.competing_ratio_loss(ONE_HOT, LOGITS, label_smoothing=value)


def test_label_smoothing_of_integer_labels():
    with pytest.raises(TypeError, match="label_smoothing"):
        crl_keras.SparseCompetingRatioLoss(label_smoothing=0.1)
    loss = crl_keras.CompetingRatioLoss(label_smoothing=0.1)
    with pytest.raises(
        ValueError, match="`label_smoothing` needs one-hot.*keras.ops.one_hot"
    ):
        loss(LABELS, LOGITS)


@pytest.mark.parametrize(
    "value", [0.5, "0", True, 2**31, -(2**31), float("nan"), float("inf")]
)
def test_ignore_class(value):
    error = TypeError if value in ("0", True) else ValueError
    with pytest.raises(error, match="`ignore_class` must be an integer"):
        crl_keras.SparseCompetingRatioLoss(ignore_class=value)


@pytest.mark.parametrize("reduction", ["avg", 1])
def test_reduction(reduction):
    for cls in CLASSES:
        with pytest.raises(ValueError, match="`reduction`.*Received"):
            cls(reduction=reduction)


@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None]])
def test_integer_labels_handed_to_the_dense_loss(labels):
    with pytest.raises(ValueError, match="SparseCompetingRatioLoss") as error:
        crl_keras.CompetingRatioLoss()(labels, LOGITS)
    assert re.search(
        r"`y_true` must hold one-hot.*y_true.shape=\(4,.*y_pred.shape=\(4, 3\)",
        str(error.value),
    )


def test_one_hot_labels_handed_to_the_sparse_loss():
    with pytest.raises(ValueError, match=r"use CompetingRatioLoss"):
        crl_keras.SparseCompetingRatioLoss()(ONE_HOT, LOGITS)


@pytest.mark.parametrize(
    "y_true",
    [
        ONE_HOT[:3],
        ONE_HOT[:, :2],
        ONE_HOT[None],
        ONE_HOT[:1],  # Would broadcast.
        np.zeros((3, 4)),
    ],
)
def test_dense_shapes_that_do_not_fit(y_true):
    with pytest.raises(ValueError, match=r"`y_true`.*y_pred.shape=\(4, 3\)"):
        crl_keras.competing_ratio_loss(y_true, LOGITS)


@pytest.mark.parametrize(
    "labels", [LABELS[:3], LABELS[:1], LABELS[None], np.zeros((4, 2)), 1]
)
def test_sparse_shapes_that_do_not_fit(labels):
    with pytest.raises(
        ValueError, match=r"`y_true`.*integer labels.*y_pred.shape=\(4, 3\)"
    ):
        crl_keras.sparse_competing_ratio_loss(labels, LOGITS)


def test_axis_outside_the_rank():
    for function, y_true in zip(FUNCTIONS, (ONE_HOT, LABELS), strict=True):
        with pytest.raises(ValueError, match=r"`axis`.*2 dimensions.*axis=2"):
            function(y_true, LOGITS, axis=2)


def test_a_single_class():
    """Keras returns 0 for it, whatever the output."""
    with pytest.raises(ValueError, match="at least 2 classes.*two logits"):
        crl_keras.sparse_competing_ratio_loss(LABELS, LOGITS[:, :1])
    with pytest.raises(ValueError, match="at least 2 classes.*two logits"):
        crl_keras.sparse_competing_ratio_loss(LABELS, LOGITS[:, :0])
    with pytest.raises(ValueError, match="at least 2 classes.*two logits"):
        crl_keras.competing_ratio_loss(ONE_HOT[:, :1], LOGITS[:, :1])


def test_alpha_and_beta_cannot_be_swapped_in_the_functions():
    with pytest.raises(TypeError, match="positional"):
        crl_keras.competing_ratio_loss(ONE_HOT, LOGITS, 1.5, 1.0)
