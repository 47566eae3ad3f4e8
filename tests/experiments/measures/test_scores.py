import math
import sys

import numpy as np
import pytest
from sklearn import metrics

from crl_keras.experiments.measures import scores

pytestmark = pytest.mark.once

# Three classes, exact in binary; by hand: predicted 0, 1, 1, 0, 1, 0.
LOGITS = np.array(
    [
        [3.0, 1.0, 0.0],
        [0.0, 2.0, 1.0],
        [0.5, 1.0, 0.0],
        [2.0, 0.0, 1.0],
        [-1.0, 0.0, -2.0],
        [4.0, -1.0, 3.0],
    ]
)
LABELS = np.array([0, 1, 0, 0, 2, 2])


def random_case(samples=400, classes=7, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(samples, classes)) * 3
    labels = rng.integers(classes, size=samples)
    logits[np.arange(samples), labels] += 2
    return logits, labels


def probability_rows(logits):
    """Softmax in plain Python, one exponential a term."""
    rows = []
    for row in logits:
        exponentials = [math.exp(x) for x in row]
        rows.append([e / math.fsum(exponentials) for e in exponentials])
    return rows


def two_class_logits(confidence):
    confidence = np.asarray(confidence)
    return np.log(np.stack([confidence, 1 - confidence], axis=1))


@pytest.mark.parametrize("k, right", [(0, 4), (1, 5), (2, 6), (9, 6)])
def test_one_off_accuracy_by_hand(k, right):
    # Of the labels, the predictions are 0, 0, 0, 0, 1 and 2 classes away.
    labels = LABELS.copy()
    labels[2] = 1
    assert scores.one_off_accuracy(LOGITS, labels, k) == right / 6


def test_one_off_accuracy_without_k_is_adiences():
    logits, labels = random_case()
    at_one = scores.one_off_accuracy(logits, labels, k=1)
    assert scores.one_off_accuracy(logits, labels) == at_one
    exact = scores.one_off_accuracy(logits, labels, k=0)
    assert exact == scores.accuracy(logits, labels) < at_one


@pytest.mark.parametrize("k", [-1, 1.0, True, "1"])
def test_one_off_accuracy_refuses_k(k):
    with pytest.raises(ValueError, match="`k` must be an integer of 0 or more"):
        scores.one_off_accuracy(LOGITS, LABELS, k)


def test_softmax_matches_a_loop():
    logits, _ = random_case()
    expected = probability_rows(logits)
    np.testing.assert_allclose(scores.softmax(logits), expected, rtol=1e-14)


def test_softmax_keeps_log_probabilities():
    p = np.array([[0.7, 0.2, 0.1], [1e-30, 0.25, 0.75]])
    np.testing.assert_allclose(scores.softmax(np.log(p)), p, rtol=1e-13)


@pytest.mark.parametrize("shift", [1e4, -1e4, 1e90])
def test_softmax_of_large_logits_does_not_overflow(shift):
    expected = [[0.5, 0.5, 0.0]]
    assert scores.softmax([[shift, shift, -1e99]]).tolist() == expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_computes_in_float64(dtype):
    logits = np.array([[10, 0], [0, 3]], dtype)
    assert scores.softmax(logits).dtype == np.float64
    expected = (math.log1p(math.exp(-10)) + math.log1p(math.exp(-3))) / 2
    nll = scores.negative_log_likelihood(logits, [0, 1])
    assert nll == pytest.approx(expected, rel=1e-14)


def test_takes_bfloat16():
    import ml_dtypes

    logits = np.array([[0.0, 1.0]], ml_dtypes.bfloat16)
    expected = 1 / (1 + math.e)
    assert scores.softmax(logits)[0, 0] == pytest.approx(expected, rel=1e-14)


def test_accuracy_and_error_by_hand():
    assert scores.accuracy(LOGITS, LABELS) == 3 / 6
    assert scores.error(LOGITS, LABELS) == 3 / 6
    assert scores.accuracy(LOGITS[:3], LABELS[:3]) == 2 / 3
    assert scores.error(LOGITS[:3], LABELS[:3]) == 1 / 3


def test_equal_logits_predict_the_first():
    logits = np.zeros((2, 3))
    assert scores.accuracy(logits, [0, 1]) == 0.5
    assert scores.confusion_matrix(logits, [0, 1])[:, 0].tolist() == [1, 1, 0]


def test_macro_f1_by_hand():
    # F1: 2*2/(4+1+1), 2*1/(2+2+0), 0.
    expected = (4 / 6 + 2 / 4 + 0) / 3
    assert scores.macro_f1(LOGITS, LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_matches_sklearn_with_classes_absent(seed):
    logits, labels = random_case(samples=6, classes=9, seed=seed)
    predicted = logits.argmax(axis=1)
    assert len(set(labels) | set(predicted)) < 9
    expected = metrics.f1_score(
        labels, predicted, average="macro", zero_division=0
    )
    assert scores.macro_f1(logits, labels) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_top_k_matches_sklearn(k):
    logits, labels = random_case()
    expected = metrics.top_k_accuracy_score(labels, logits, k=k)
    assert scores.top_k_accuracy(logits, labels, k) == expected


def test_top_k_of_equal_logits_goes_by_class_number():
    logits = np.zeros((4, 4))
    got = [scores.top_k_accuracy(logits, range(4), k) for k in (1, 2, 3, 4)]
    assert got == [0.25, 0.5, 0.75, 1.0]
    assert scores.accuracy(logits, range(4)) == got[0]


def test_top_k_is_5_unless_told():
    logits = np.tile(np.arange(10.0), (10, 1))
    assert scores.top_k_accuracy(logits, range(10)) == 0.5


@pytest.mark.parametrize("k", [0, 8, 1.0, True, None])
def test_top_k_refuses_other_k(k):
    with pytest.raises(ValueError, match="from 1 to the number of classes, 7"):
        scores.top_k_accuracy(*random_case(), k=k)


def test_nll_matches_a_loop():
    logits, labels = random_case()
    rows = probability_rows(logits)
    terms = [-math.log(row[y]) for row, y in zip(rows, labels, strict=True)]
    expected = math.fsum(terms) / len(terms)
    nll = scores.negative_log_likelihood(logits, labels)
    assert nll == pytest.approx(expected, rel=1e-13)
    assert nll == pytest.approx(metrics.log_loss(labels, rows), rel=1e-12)


def test_nll_far_out_is_exact():
    # exp(-1000) and 1 - exp(-50) are beyond float64.
    nll = scores.negative_log_likelihood
    assert nll([[1000.0, 0.0]], [1]) == 1000.0
    assert nll([[50.0, 0.0]], [0]) == pytest.approx(
        math.exp(-50), rel=1e-14, abs=0
    )
    assert math.copysign(1, nll([[1000.0, 0.0]], [0])) == 1


def test_nll_of_log_probabilities():
    p = np.array([[0.2, 0.8], [0.5, 0.5]])
    expected = -(math.log(0.2) + math.log(0.5)) / 2
    nll = scores.negative_log_likelihood(np.log(p), [0, 1])
    assert nll == pytest.approx(expected, rel=1e-14)


def test_brier_matches_a_loop():
    logits, labels = random_case()
    total = 0.0
    for row, label in zip(probability_rows(logits), labels, strict=True):
        for k, p in enumerate(row):
            total += (p - (k == label)) ** 2
    brier = scores.brier_score(logits, labels)
    assert brier == pytest.approx(total / len(labels), rel=1e-13)


def test_brier_of_two_classes_is_twice_the_binary_one():
    logits, labels = random_case(classes=2)
    p = [row[1] for row in probability_rows(logits)]
    expected = 2 * metrics.brier_score_loss(labels, p)
    brier = scores.brier_score(logits, labels)
    assert brier == pytest.approx(expected, rel=1e-12)


def test_brier_bounds():
    assert scores.brier_score([[1e3, 0.0]], [0]) == 0.0
    assert scores.brier_score([[1e3, 0.0]], [1]) == 2.0


def test_calibration_by_hand():
    # Sorted: .55 wrong, .6 right | .7 right, .8 right | .9 wrong, .95 right.
    logits = two_class_logits([0.9, 0.55, 0.8, 0.6, 0.95, 0.7])
    labels = [1, 1, 0, 0, 0, 0]
    curve = scores.reliability_curve(logits, labels, bins=3)
    assert curve.confidence == pytest.approx([0.575, 0.75, 0.925])
    assert curve.accuracy.tolist() == [0.5, 1.0, 0.5]
    assert curve.count.tolist() == [2, 2, 2]
    ece = scores.expected_calibration_error(logits, labels, bins=3)
    assert ece == pytest.approx((0.075 + 0.25 + 0.425) / 3)


def test_calibration_matches_a_loop():
    logits, labels = random_case(samples=107)
    logits /= 2  # Some bins too sure, some not enough: their number matters.
    rows = probability_rows(logits)
    triples = sorted(
        (max(row), row.index(max(row)) == label)
        for row, label in zip(rows, labels, strict=True)
    )
    # 107 = 2 bins of 8 and 13 of 7.
    sizes = [8] * 2 + [7] * 13
    expected, start = 0.0, 0
    for size in sizes:
        part = triples[start : start + size]
        start += size
        confidence = sum(c for c, _ in part) / size
        right = sum(r for _, r in part) / size
        expected += size / 107 * abs(confidence - right)
    assert start == 107
    ece = scores.expected_calibration_error(logits, labels)
    assert ece == pytest.approx(expected, rel=1e-12)
    in_10 = scores.expected_calibration_error(logits, labels, bins=10)
    assert abs(in_10 - ece) > 0.001
    curve = scores.reliability_curve(logits, labels)
    assert curve.count.tolist() == sizes


def test_calibration_ignores_the_order_of_equal_confidences():
    # Half of the sure ones are wrong: a cut by order would find bins of 0, 1.
    logits = np.tile([1000.0, 0.0], (20, 1))
    labels = np.array([0] * 10 + [1] * 10)
    curve = scores.reliability_curve(logits, labels, bins=4)
    assert curve.accuracy.tolist() == [0.5] * 4
    order = np.random.default_rng(0).permutation(20)
    ece = scores.expected_calibration_error
    assert ece(logits[order], labels[order]) == ece(logits, labels) == 0.5


def test_calibration_of_fewer_samples_than_bins():
    logits = two_class_logits([0.75, 0.5])
    curve = scores.reliability_curve(logits, [0, 1], bins=15)
    assert curve.count.tolist() == [1, 1]
    assert curve.confidence == pytest.approx([0.5, 0.75])


@pytest.mark.parametrize("bins", [0, -1, 2.0, True])
def test_calibration_refuses_other_bins(bins):
    with pytest.raises(ValueError, match="integer of 1 or more"):
        scores.reliability_curve(LOGITS, LABELS, bins=bins)
    with pytest.raises(ValueError, match="integer of 1 or more"):
        scores.expected_calibration_error(LOGITS, LABELS, bins=bins)


def test_confusion_matrix_by_hand():
    counts = scores.confusion_matrix(LOGITS, LABELS)
    assert counts.tolist() == [[2, 1, 0], [0, 1, 0], [1, 1, 0]]
    assert counts.dtype == np.int64


def test_confusion_matrix_matches_sklearn():
    logits, labels = random_case()
    expected = metrics.confusion_matrix(labels, logits.argmax(axis=1))
    got = scores.confusion_matrix(logits, labels)
    np.testing.assert_array_equal(got, expected)


def test_confusion_matrix_without_the_last_class():
    counts = scores.confusion_matrix([[1, 0, 0], [0, 1, 0]], [0, 0])
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_all_scores_are_those_of_the_functions():
    logits, labels = random_case()
    expected = {
        "accuracy": scores.accuracy(logits, labels),
        "error": scores.error(logits, labels),
        "macro_f1": scores.macro_f1(logits, labels),
        "top_5_accuracy": scores.top_k_accuracy(logits, labels, 5),
        "nll": scores.negative_log_likelihood(logits, labels),
        "brier": scores.brier_score(logits, labels),
        "ece": scores.expected_calibration_error(logits, labels, bins=15),
    }
    got = scores.all_scores(logits, labels)
    assert got == expected
    assert len(set(got.values())) == len(got)
    assert {type(value) for value in got.values()} == {float}


def test_all_scores_have_no_top_5_of_5_classes():
    logits, labels = random_case(classes=5)
    assert scores.all_scores(logits, labels)["top_5_accuracy"] is None
    logits, labels = random_case(classes=6)
    assert scores.all_scores(logits, labels)["top_5_accuracy"] < 1


def test_scores_do_not_change_their_input():
    logits, labels = random_case()
    logits_before, labels_before = logits.copy(), labels.copy()
    scores.all_scores(logits, labels)
    scores.fit_temperature(logits, labels)
    np.testing.assert_array_equal(logits, logits_before)
    np.testing.assert_array_equal(labels, labels_before)


@pytest.mark.parametrize("gap", [0.01, 2.0, 300.0])
@pytest.mark.parametrize("right, wrong", [(3, 1), (9, 1), (51, 49)])
def test_temperature_by_hand(gap, right, wrong):
    # Two classes, one gap: softmax(gap / T) must be the share that is right.
    expected = gap / math.log(right / wrong)
    expected = min(max(expected, 1e-3), 1e3)
    logits = np.tile([gap, 0.0], (right + wrong, 1))
    labels = [0] * right + [1] * wrong
    got = scores.fit_temperature(logits, labels)
    assert got == pytest.approx(expected, rel=1e-6)


def test_temperature_is_the_best_of_a_grid():
    logits, labels = random_case()
    got = scores.fit_temperature(logits, labels)
    rows = {t: probability_rows(logits / t) for t in (0.99 * got, got)}
    rows[1.01 * got] = probability_rows(logits / (1.01 * got))
    nll = {
        t: -math.fsum(math.log(p[y]) for p, y in zip(ps, labels, strict=True))
        for t, ps in rows.items()
    }
    assert min(nll, key=nll.get) == got
    for t in np.geomspace(0.05, 50, 40):
        score = scores.negative_log_likelihood(logits / t, labels)
        assert score * len(labels) >= nll[got]


def test_temperature_undoes_a_scale():
    logits, labels = random_case()
    one = scores.fit_temperature(logits, labels)
    ten = scores.fit_temperature(10 * logits, labels)
    assert ten == pytest.approx(10 * one, rel=1e-6)


def test_temperature_recovers_the_one_the_labels_were_drawn_with():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(20000, 4)) * 2
    noisy = logits + rng.gumbel(size=logits.shape)
    got = scores.fit_temperature(2.5 * logits, noisy.argmax(axis=1))
    assert got == pytest.approx(2.5, rel=0.05)


def test_temperature_at_its_bounds():
    fit = scores.fit_temperature
    assert fit([[1.0, 0.0], [0.0, 0.5]], [0, 1]) == pytest.approx(1e-3)
    assert fit([[1.0, 0.0], [0.0, 0.5]], [1, 0]) == pytest.approx(1e3)


def test_temperature_of_logits_that_say_nothing_is_1():
    assert scores.fit_temperature(np.zeros((4, 3)), [0, 1, 2, 0]) == 1.0
    assert scores.fit_temperature([[1e90, 0.0]], [0]) == 1.0


def test_temperature_without_scipy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ImportError, match=r'install "crl-keras\[experiments\]'):
        scores.fit_temperature(LOGITS, LABELS)
    assert scores.accuracy(LOGITS, LABELS) == 0.5


SCORES = [
    scores.accuracy,
    scores.error,
    scores.macro_f1,
    scores.top_k_accuracy,
    scores.negative_log_likelihood,
    scores.brier_score,
    scores.reliability_curve,
    scores.expected_calibration_error,
    scores.confusion_matrix,
    scores.all_scores,
    scores.fit_temperature,
]


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    "logits, labels, message",
    [
        (np.zeros(3), [0, 1, 2], r"shape \(samples, classes\).*shape \(3,\)"),
        (np.zeros((0, 3)), [], r"at least 1 and 2.*shape \(0, 3\)"),
        (np.zeros((2, 1)), [0, 0], r"make two, 0 and x.*shape \(2, 1\)"),
        (np.zeros((2, 2, 2)), [0, 0], r"shape \(2, 2, 2\)"),
        (np.zeros((2, 2), complex), [0, 0], "real numbers.*complex"),
        ([["a", "b"]], [0], "real numbers"),
        ([[0.0, 1.0], [np.nan, 0.0]], [0, 0], "nan in row 1, column 0"),
        ([[0.0, -np.inf]], [0], "clip.*-inf in row 0, column 1"),
        ([[1e101, 0.0]], [0], r"at most 1e\+100"),
        (np.zeros((2, 3)), [0], r"shape \(2,\).*shape \(1,\)"),
        (np.zeros((2, 3)), [[0], [1]], r"the column.*shape \(2, 1\)"),
        (np.zeros((2, 3)), np.eye(3)[:2], r"the argmax.*shape \(2, 3\)"),
        (np.zeros((2, 3)), [0.0, 1.0], "integer dtype.*float64"),
        (np.zeros((2, 3)), [True, False], "integer dtype.*bool"),
        (np.zeros((2, 3)), [0, 3], "from 0 to 2.*Received: 3 at index 1"),
        (np.zeros((3, 3)), [0, -1, -1], "Received: -1 at index 1, 2 such"),
    ],
)
def test_bad_input_is_named(score, logits, labels, message):
    with pytest.raises(ValueError, match=message):
        score(logits, labels)


def test_softmax_checks_its_logits():
    with pytest.raises(ValueError, match="nan in row 0, column 0"):
        scores.softmax([[np.nan, 0.0]])
