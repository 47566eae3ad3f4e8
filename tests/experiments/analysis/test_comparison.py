"""Comparisons: who is paired with whom, and every number against another way.

The runs are made up: of each, the number of wrong test images is given.
"""

import dataclasses
import itertools
import json
import math
import re
import shutil

import numpy as np
import pytest
from made_runs import CE_WRONG
from made_runs import CRL
from made_runs import CRL_WRONG
from made_runs import NLLR_WRONG
from made_runs import compare_folder
from made_runs import only_group
from made_runs import write_run
from made_runs import write_runs
from scipy import optimize
from scipy import stats
from sklearn import metrics

from crl_keras.experiments.analysis.comparison import compare
from crl_keras.experiments.analysis.report import CONTROL_NAMES
from crl_keras.experiments.analysis.report import LOSS_NAMES
from crl_keras.experiments.analysis.tables import calibration_table
from crl_keras.experiments.analysis.verdicts import short_verdict
from crl_keras.experiments.analysis.verdicts import verdict
from crl_keras.experiments.measures.posterior import crl_posterior
from crl_keras.experiments.runs.config import LOSSES
from crl_keras.experiments.runs.config import control_of
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.words import p_text
from crl_keras.experiments.words import points

pytestmark = pytest.mark.once


@pytest.fixture
def three_losses(tmp_path):
    write_runs(tmp_path, ce=CE_WRONG, crl=CRL_WRONG, nllr=NLLR_WRONG)
    return tmp_path


def test_errors_are_summarised_over_the_seeds(tmp_path):
    for seed, (last, best) in enumerate([(10, 8), (12, 9), (8, 8)]):
        write_run(tmp_path, "ce", seed, last, best=best)
    (result,) = only_group(tmp_path).losses
    assert result.seeds == (0, 1, 2)
    assert result.errors == {0: 0.10, 1: 0.12, 2: 0.08}
    assert result.last.mean == pytest.approx(0.10)
    assert result.last.std == pytest.approx(0.02)
    assert result.best.mean == pytest.approx(0.25 / 3)
    assert result.best.std == pytest.approx(0.01 / math.sqrt(3))


def test_the_paired_tests_are_those_of_scipy(three_losses):
    a, b = np.array(CRL_WRONG) / 100, np.array(CE_WRONG) / 100
    group = only_group(three_losses)
    assert [result.label for result in group.losses] == ["CE", "NLLR", "CRL"]
    c = group.comparisons[1]
    assert (c.loss, c.baseline, c.seeds) == (CRL, "ce", (0, 1, 2, 3, 4))
    np.testing.assert_allclose(c.differences, a - b)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert c.test.mean_difference == pytest.approx(-0.01)
    assert c.test.p == pytest.approx(expected.pvalue)
    assert c.test.ci == pytest.approx((interval.low, interval.high))
    # Differences of -1, -2, 1, -2, -1: ranks 2, 4.5, 2, 4.5, 2, so W+ is 2.
    ranks = [2, 4.5, 2, 4.5, 2]
    sums = [
        sum(itertools.compress(ranks, signs))
        for signs in itertools.product([0, 1], repeat=5)
    ]
    share = np.mean([abs(s - 7.5) >= 5.5 for s in sums])
    assert c.wilcoxon.p == pytest.approx(share)
    d_z = -0.01 / np.std(a - b, ddof=1)
    assert c.effect.d_z == pytest.approx(d_z)


def test_seeds_for_power_are_those_of_the_noncentral_t(three_losses):
    c = only_group(three_losses).comparisons[1]

    def power(n, d):
        t = stats.t.isf(0.025, n - 1)
        # The other tail adds nothing at these effects.
        return stats.nct.sf(t, n - 1, abs(d) * math.sqrt(n))

    n = c.seeds_needed
    assert power(n, c.effect.d_z) >= 0.8 > power(n - 1, c.effect.d_z)
    low, high = c.seeds_needed_range
    largest = max(map(abs, c.effect.ci))
    assert power(low, largest) >= 0.8 > power(low - 1, largest)
    assert c.effect.ci[0] < 0 < c.effect.ci[1] and high == math.inf


def test_seeds_for_power_among_others_pass_holm(tmp_path):
    write_runs(tmp_path, ce=CE_WRONG, crl=CRL_WRONG, nllr=NLLR_WRONG)
    c = only_group(tmp_path).comparisons[1]
    n, d = c.seeds_needed_holm, c.effect.d_z
    assert n > c.seeds_needed
    # Another loss with one true difference as large, by simulation.
    draws = np.random.default_rng(0).normal(d, 1, size=(4000, 2, n))
    p = stats.ttest_1samp(draws, 0, axis=-1).pvalue
    first, second = p.T
    shown = (first < 0.025) | ((first < 0.05) & (second < 0.025))
    assert shown.mean() > 0.8
    draws = draws[..., : c.seeds_needed]
    first, second = stats.ttest_1samp(draws, 0, axis=-1).pvalue.T
    alone = (first < 0.025) | ((first < 0.05) & (second < 0.025))
    assert alone.mean() < shown.mean()


def test_holm_is_over_the_losses_of_a_group(three_losses):
    write_run(three_losses, "ce", 0, 20, rate=0.5)
    write_run(three_losses, "crl", 0, 22, rate=0.5)
    (family,) = compare_folder(three_losses)
    nllr, crl = family.groups[0].comparisons
    assert nllr.test.p < crl.test.p
    assert nllr.p_holm == pytest.approx(2 * nllr.test.p)
    assert crl.p_holm == pytest.approx(max(crl.test.p, nllr.p_holm))
    assert nllr.family_size == crl.family_size == 2
    (alone,) = family.groups[1].comparisons
    assert (alone.p_holm, alone.family_size) == (None, 0)


def test_a_test_that_could_not_be_made_does_not_count_for_holm(tmp_path):
    write_runs(tmp_path, ce=CE_WRONG, crl=CRL_WRONG, nllr=CE_WRONG[:1])
    nllr, crl = only_group(tmp_path).comparisons
    assert nllr.test.p is None and nllr.p_holm is None
    assert crl.p_holm == crl.test.p and crl.family_size == 1


def test_mcnemar_takes_the_two_networks_of_one_seed(three_losses):
    c = only_group(three_losses).comparisons[1]
    # The first images are the wrong ones: of 9 and 10, one is in one alone.
    found = [(t.only_a, t.only_b) for t in c.mcnemar]
    assert found == [(1, 0), (2, 0), (0, 1), (2, 0), (1, 0)]
    expected = [stats.binomtest(a, a + b).pvalue for a, b in found]
    assert [t.p for t in c.mcnemar] == pytest.approx(expected)
    assert c.mcnemar_p == pytest.approx(np.median(expected))


def test_only_seeds_of_both_are_paired(tmp_path):
    write_runs(tmp_path, ce=(10, False, 9, 11), crl=(9, 10, False, 12))
    group = only_group(tmp_path)
    (c,) = group.comparisons
    assert c.seeds == (0, 3)
    assert c.differences == pytest.approx((-0.01, 0.01))
    assert group.losses[0].last.n == group.losses[1].last.n == 3
    notes = " ".join(group.notes)
    assert "CE has no finished run with seed 1" in notes
    assert "CRL has no finished run with seed 2" in notes
    assert "With 2 seeds Wilcoxon's test cannot reach 0.05" in notes


def test_diverged_runs_are_in_no_number_and_are_said(tmp_path):
    write_runs(tmp_path, ce=(10, 11, 12), crl=(9, None, 10))
    group = only_group(tmp_path)
    (c,) = group.comparisons
    assert c.seeds == (0, 2)
    assert group.losses[1].last.mean == pytest.approx(0.095)
    (record,) = group.diverged
    assert (record.config.loss, record.config.seed) == (CRL, 1)
    assert "CRL diverged with seed 1" in group.notes[0]
    assert "look better than they are" in group.notes[0]


def test_a_loss_that_always_diverged_stays_in_the_table(tmp_path):
    write_runs(tmp_path, ce=(10, 11), crl=(None, None))
    group = only_group(tmp_path)
    (c,) = group.comparisons
    assert group.losses[1].last.n == 0 and group.losses[1].last.mean is None
    assert verdict(c) == (
        "CRL and CE are not compared: no seed has a finished run of both."
    )
    assert "it has no other run" in group.notes[0]
    assert short_verdict(group) == "not compared: CRL."


def test_all_runs_diverged(tmp_path):
    write_runs(tmp_path, ce=(None,), crl=(None,))
    group = only_group(tmp_path)
    assert len(group.diverged) == 2
    assert group.comparisons[0].test.n == 0


def test_one_seed_shows_nothing(tmp_path):
    write_runs(tmp_path, ce=(10,), crl=(7,))
    group = only_group(tmp_path)
    (c,) = group.comparisons
    assert c.test.p is None and not c.shown
    text = verdict(c)
    assert "3.00 points lower than CE's" in text
    assert "nothing is shown" in text
    assert any("no test. Use 6 seeds" in note for note in group.notes)


def test_equal_differences_allow_for_no_test(tmp_path):
    write_runs(tmp_path, ce=(10, 12, 14), crl=(9, 11, 13), nllr=(10, 12, 14))
    group = only_group(tmp_path)
    nllr, crl = group.comparisons
    assert crl.test.p is None and crl.seeds_needed is None
    assert "In each of 3 seeds" in verdict(crl)
    assert "1.00 points lower" in verdict(crl)
    # Ranks allow for one: 2 of the 8 ways to sign three of them.
    assert "no t-test (Wilcoxon's test: p = 0.25)" in verdict(crl)
    assert "of NLLR equals CE's." in verdict(nllr)
    assert short_verdict(group) == "not tested: NLLR and CRL."


def test_a_tie_is_shown_by_no_number_of_seeds(tmp_path):
    write_runs(tmp_path, ce=(10, 12, 9, 11), crl=(11, 11, 10, 10))
    (c,) = only_group(tmp_path).comparisons
    assert c.seeds_needed == math.inf
    assert verdict(c).endswith("no difference shown.")


def test_a_difference_below_the_digits_is_not_called_equal(tmp_path):
    write_runs(tmp_path, ce=(10, 12, 9, 11), crl=(9, 12, 9, 10))
    (c,) = only_group(tmp_path).comparisons
    small = dataclasses.replace(
        c, test=dataclasses.replace(c.test, mean_difference=-2e-5)
    )
    assert "CRL is less than 0.01 points lower than CE's" in verdict(small)


def test_verdicts_say_no_more_than_the_test(three_losses):
    nllr, crl = only_group(three_losses).comparisons
    text = verdict(crl)
    p = stats.ttest_rel(CRL_WRONG, CE_WRONG).pvalue
    half = stats.t.isf(0.025, 4) * np.std([1, 2, -1, 2, 1], ddof=1) / 5**0.5
    assert p > 0.05
    assert text.startswith(
        "With 5 seeds, the mean test error of CRL is 1.00 points lower than "
        f"CE's (95% CI \N{MINUS SIGN}{1 + half:.2f} to +{half - 1:.2f}, "
        f"p = {p:.2f}, {p:.2f} after Holm's correction): no difference shown."
    )
    assert f"about {crl.seeds_needed} seeds would show it" in text
    among = crl.seeds_needed_holm
    assert text.endswith(f"the only comparison, and about {among} as one of 2.")
    assert verdict(nllr).endswith(
        "NLLR does worse than CE here, on this data, network and recipe."
    )
    assert short_verdict(only_group(three_losses)) == (
        "worse than CE: NLLR; no difference to CE shown: CRL."
    )
    turned = only_group(three_losses, baseline="nllr").comparisons
    assert [c.label for c in turned] == ["CE", "CRL"]
    for c in turned:
        assert f"{c.label} does better than NLLR here" in verdict(c)


def test_a_difference_that_holm_takes_back_is_not_shown(tmp_path):
    # By scipy: p is 0.033 alone, and 0.066 among two.
    write_runs(
        tmp_path,
        ce=(10, 10, 10, 10, 10),
        crl=(8, 9, 9, 6, 9),
        nllr=(11, 9, 10, 12, 9),
    )
    crl = only_group(tmp_path).comparisons[1]
    p = stats.ttest_rel((8, 9, 9, 6, 9), (10,) * 5).pvalue
    assert p < 0.05 < 2 * p
    assert crl.test.p == pytest.approx(p) and not crl.shown
    assert (
        "no difference shown, because p is below 0.05 only before"
        in verdict(crl)
    )


def test_tests_that_disagree_are_pointed_at(tmp_path):
    # One far seed spoils the t-test, and not the ranks.
    write_runs(
        tmp_path, ce=(20, 20, 20, 20, 20, 45), crl=(19, 18, 19, 18, 19, 5)
    )
    group = only_group(tmp_path)
    (c,) = group.comparisons
    assert c.wilcoxon.p == pytest.approx(0.03125) and c.test.p > 0.05
    assert any("disagree at 0.05" in note for note in group.notes)


def test_the_baseline_falls_back_to_the_first_loss(tmp_path):
    write_runs(tmp_path, crl=(9, 10), nllr=(8, 11))
    group = only_group(tmp_path)
    assert group.baseline == "nllr"
    assert [c.loss for c in group.comparisons] == [CRL]
    assert not any("baseline" in note for note in group.notes)
    with pytest.raises(ValueError, match="must be one of"):
        compare_folder(tmp_path, baseline="mse")
    with pytest.raises(ValueError, match="runs: crl.*, nllr. Received: focal"):
        compare_folder(tmp_path, baseline="focal")
    # One that was run elsewhere alone.
    write_run(tmp_path, "focal", 0, 10, network="logistic")
    families = compare_folder(tmp_path, baseline="focal")
    notes = [group.notes for f in families for group in f.groups]
    assert sum("compared with NLLR" in " ".join(n) for n in notes) == 1


def test_one_loss_is_said_to_be_alone(tmp_path):
    write_runs(tmp_path, crl=(9, 10))
    group = only_group(tmp_path)
    assert group.comparisons == ()
    assert short_verdict(group) == "nothing is compared."


def test_learning_rates_are_one_family(tmp_path):
    errors = {0.1: (10, 9), 0.3: (8, 9), 1.0: (12, 8)}
    for rate, (ce, crl) in errors.items():
        for seed in range(2):
            write_run(tmp_path, "ce", seed, ce + seed, rate=rate)
            write_run(tmp_path, "crl", seed, crl + seed, rate=rate)
    write_run(tmp_path, "ce", 0, 5, network="logistic")
    write_run(tmp_path, "ce", 0, 5, network="logistic", epochs=9)
    families = compare_folder(tmp_path)
    titles = [family.title for family in families]
    assert sorted(titles) == [
        "digits, logistic, epochs 4",
        "digits, logistic, epochs 9",
        "digits, mlp",
    ]
    family = families[titles.index("digits, mlp")]
    assert [group.rate for group in family.groups] == [0.1, 0.3, 1.0]
    assert family.best_rates == {"ce": 0.3, CRL: 1.0}
    assert "For CRL the best rate is the smallest or" in family.notes[-1]
    assert not any("at one rate" in note for note in family.notes)
    assert "optimistic" in family.notes[0]
    assert all(not f.notes for f in families if f is not family)

    write_run(tmp_path, "nllr", 0, 20, rate=0.1)
    families = compare_folder(tmp_path)
    notes = families[titles.index("digits, mlp")].notes
    assert notes[-2].startswith("NLLR: trained at one rate only")
    assert notes[-1].startswith("For CRL the best rate")


def test_a_rate_at_which_runs_diverged_is_not_the_best(tmp_path):
    for seed in range(3):
        write_run(tmp_path, "ce", seed, 10 + seed, rate=0.1)
        write_run(tmp_path, "ce", seed, None if seed else 2, rate=0.3)
        write_run(tmp_path, "ce", seed, 20 + seed, rate=0.03)
    (family,) = compare_folder(tmp_path)
    assert family.best_rates == {"ce": 0.1}
    notes = " ".join(family.notes)
    assert "CE has fewer finished runs at 0.3: those rates are not" in notes
    assert "smallest or largest" not in notes  # 0.3 is beyond it.


@pytest.mark.parametrize(
    "result, words",
    [
        (dict(versions={"keras": "3.8.0"}), "differ in their versions"),
        (dict(device="GPU"), "differ in their device"),
    ],
)
def test_runs_made_elsewhere_are_pointed_at(tmp_path, result, words):
    write_run(tmp_path, "ce", 0, 10)
    write_run(tmp_path, "crl", 0, 9, result=result)
    assert words in " ".join(only_group(tmp_path).notes)


def test_a_copied_run_does_not_count_twice(tmp_path):
    run = write_run(tmp_path, "ce", 0, 10)
    shutil.copytree(run.path, tmp_path / "copy")
    with pytest.raises(ValueError, match="are the same run: delete the copy"):
        compare_folder(tmp_path)


def test_runs_of_different_data_are_no_pair(tmp_path):
    write_run(tmp_path, "ce", 0, 10)
    write_run(tmp_path, "crl", 0, 10, fingerprint="beef")
    with pytest.raises(ValueError, match="made from different data"):
        compare_folder(tmp_path)


def test_logits_that_do_not_fit_their_result_are_an_error(tmp_path):
    run = write_run(tmp_path, "ce", 0, 10)
    other = write_run(tmp_path, "ce", 1, 20)
    shutil.copy(other.path / "logits.npz", run.path)
    with pytest.raises(ValueError, match=f"{run.path} cannot be scored"):
        compare_folder(tmp_path)
    whole = (other.path / "logits.npz").read_bytes()
    for half in (b"half", whole[: len(whole) // 2]):
        (run.path / "logits.npz").write_bytes(half)
        with pytest.raises(ValueError, match=f"{run.path} cannot be scored"):
            compare_folder(tmp_path)


def test_a_result_of_another_version_is_an_error(tmp_path):
    run = write_run(tmp_path, "ce", 0, 10)
    path = run.path / "result.json"
    values = json.loads(path.read_text())
    del values["last"]["error"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=f"{path} is not what this version"):
        compare_folder(tmp_path)
    del values["precision"]
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="version writes.*precision.*Delete"):
        compare_folder(tmp_path)


def test_a_history_without_an_epoch_is_an_error(tmp_path):
    run = write_run(tmp_path, "ce", 0, 10)
    path = run.path / "history.csv"
    path.write_text(path.read_text().splitlines()[0])
    with pytest.raises(ValueError, match=f"{path} has no epoch"):
        compare_folder(tmp_path)


def test_runs_without_logits_still_count_in_the_errors(tmp_path):
    write_runs(tmp_path, ce=(10, 11), crl=(9, 12))
    for path in list(tmp_path.glob("*/logits.npz"))[:3]:
        path.unlink()
    group = only_group(tmp_path)
    assert [result.last.n for result in group.losses] == [2, 2]
    assert sum(len(result.evaluations) for result in group.losses) == 1
    assert any("3 runs came without logits" in note for note in group.notes)


def test_no_records_are_an_error():
    with pytest.raises(ValueError, match="no finished run"):
        compare([])


def test_every_run_is_counted(tmp_path):
    write_runs(tmp_path, ce=(10, None), crl=(9, 12))
    seen = []
    compare_folder(tmp_path, on_run=lambda *args: seen.append(args))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def probabilities(logits):
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def brier(p, labels):
    return np.mean(np.sum((p - np.eye(p.shape[1])[labels]) ** 2, axis=1))


def rows_by_method(result):
    return {row.method: row for row in result.calibration}


def test_calibration_as_trained_and_by_temperature(tmp_path):
    write_runs(tmp_path, ce=(10, 14), crl=(8, 12))
    ce, crl = only_group(tmp_path).losses
    for result in (ce, crl):
        nll, briers, heated, temperatures = [], [], [], []
        for record in result.records:
            arrays, labels = record.logits(), record.data()["labels"]
            p = probabilities(arrays["test"].astype(float))
            nll.append(metrics.log_loss(labels, p, labels=range(10)))
            briers.append(brier(p, labels))
            held_out = arrays["held_out"].astype(float)

            def loss(t, x=held_out, y=arrays["held_out_labels"]):
                return metrics.log_loss(
                    y, probabilities(x / t), labels=range(10)
                )

            t = optimize.minimize_scalar(loss, (0.5, 2), tol=1e-10).x
            temperatures.append(t)
            p = probabilities(arrays["test"].astype(float) / t)
            heated.append(metrics.log_loss(labels, p, labels=range(10)))
        rows = rows_by_method(result)
        assert rows["as trained"].nll.mean == pytest.approx(np.mean(nll))
        assert rows["as trained"].nll.std == pytest.approx(np.std(nll, ddof=1))
        assert rows["as trained"].brier.mean == pytest.approx(np.mean(briers))
        assert rows["temperature"].nll.mean == pytest.approx(np.mean(heated))
        assert rows["temperature"].temperature == pytest.approx(
            np.mean(temperatures), rel=1e-5
        )
    assert "CRL posterior" not in rows_by_method(ce)


@pytest.mark.parametrize(
    "loss, alpha, beta", [("crl", 1.5, 1), ("crl(beta=-1)", 1.5, -1)]
)
def test_calibration_after_the_posterior(tmp_path, loss, alpha, beta):
    write_run(tmp_path, loss, 0, 10)
    (result,) = only_group(tmp_path).losses
    (record,) = result.records
    p = probabilities(record.logits()["test"].astype(float))
    h = p * (alpha + 1 - p) / (alpha + 1 + (beta - 1) * p)
    eta = h / h.sum(axis=1, keepdims=True)
    labels = record.data()["labels"]
    row = rows_by_method(result)["CRL posterior"]
    assert row.brier.mean == pytest.approx(brier(eta, labels))
    assert row.nll.mean == pytest.approx(
        metrics.log_loss(labels, eta, labels=range(10))
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_compared_and_the_posterior_is_of_crl(tmp_path, loss):
    write_run(tmp_path, loss, 0, 10)
    (result,) = only_group(tmp_path).losses
    rows = rows_by_method(result)
    assert ("CRL posterior" in rows) == (loss in ("nllr", "crl"))
    base, control = control_of(loss) or (loss, None)
    assert ("ce" == base) == (base not in LOSS_NAMES)
    assert control is None or control in CONTROL_NAMES


def test_the_posterior_is_not_of_soft_labels(tmp_path):
    recipe = get_recipe("digits", label_smoothing=0.1)
    for loss in ("ce", "crl", "nllr"):
        write_run(tmp_path, loss, 0, 10, recipe=recipe)
    group = only_group(tmp_path)
    for result in group.losses:
        assert list(rows_by_method(result)) == ["as trained", "temperature"]
    notes = " ".join(calibration_table(group).notes)
    assert "No CRL posterior: it is for hard labels" in notes


def test_a_temperature_at_its_bound_is_not_used(tmp_path):
    write_runs(tmp_path, ce=(10, 12), crl=(9, 11))
    run = write_run(tmp_path, "crl", 2, 8)
    with np.load(run.path / "logits.npz") as file:
        arrays = dict(file)
    right = np.eye(10)[arrays["held_out_labels"]]
    np.savez(run.path / "logits.npz", **{**arrays, "held_out": right})
    group = only_group(tmp_path)
    ce, crl = group.losses
    assert [rows_by_method(x)["temperature"].n for x in (ce, crl)] == [2, 2]
    assert rows_by_method(crl)["as trained"].n == 3
    assert rows_by_method(crl)["temperature"].temperature > 0.1
    notes = " ".join(calibration_table(group).notes)
    assert "No temperature fits 1 run of CRL: the logits" in notes


def test_without_a_held_out_part_there_is_no_temperature(tmp_path):
    write_run(tmp_path, "ce", 0, 10, held_out=False)
    (result,) = only_group(tmp_path).losses
    assert list(rows_by_method(result)) == ["as trained"]


@pytest.mark.parametrize(
    "alpha, beta", [(1.5, 1), (1.5, -1), (0, 1), (2, 0.25), (1, -1), (0, 0)]
)
def test_the_posterior_is_the_closed_form(alpha, beta):
    logits = np.random.default_rng(0).normal(size=(50, 6)) * 2
    p = probabilities(logits)
    h = p * (alpha + 1 - p) / (alpha + 1 + (beta - 1) * p)
    eta = np.exp(crl_posterior(logits, alpha, beta))
    np.testing.assert_allclose(eta, h / h.sum(axis=1, keepdims=True))


def test_the_posterior_minimises_the_expected_loss():
    alpha, beta = 1.5, 1.0
    eta = np.array([0.6, 0.3, 0.1])

    def expected_loss(logits):
        p = probabilities(logits[None])[0]
        return eta @ (-np.log(p) + beta * np.log(alpha + 1 - p))

    logits = optimize.minimize(expected_loss, np.zeros(3), tol=1e-12).x
    found = np.exp(crl_posterior(logits[None], alpha, beta))[0]
    np.testing.assert_allclose(found, eta, atol=1e-6)


def test_the_posterior_of_certainty_is_finite():
    logits = np.array([[1e4, 0.0, -1e4], [50.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    log_eta = crl_posterior(logits, alpha=0, beta=1)
    assert np.isfinite(log_eta).all()
    # NLLR of a certain network: p_top q_top, against p_k of the runner-up.
    np.testing.assert_allclose(np.exp(log_eta[0]), [0.5, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(np.exp(log_eta[1]), [0.5, 0.25, 0.25])
    np.testing.assert_allclose(np.exp(log_eta[2]), 1 / 3)
    for alpha in (1.5, 1e-9):
        found = np.exp(crl_posterior(logits, alpha, 1.0)[0])
        np.testing.assert_allclose(found, [1, 0, 0], atol=1e-9)


def test_the_posterior_is_the_one_of_the_package():
    from keras import ops

    from crl_keras.calibration import posterior_from_crl

    logits = np.random.default_rng(3).normal(size=(20, 5)) * 8
    for alpha, beta in [(1.5, 1.0), (0.0, 1.0), (1.0, -1.0)]:
        expected = posterior_from_crl(logits, alpha, beta, from_logits=True)
        np.testing.assert_allclose(
            np.exp(crl_posterior(logits, alpha, beta)),
            ops.convert_to_numpy(expected),
            rtol=1e-4,
            atol=1e-7,
        )


@pytest.mark.parametrize("alpha, beta", [(-1, 1), (1, -2), (math.nan, 1)])
def test_parameters_out_of_range_are_an_error(alpha, beta):
    with pytest.raises(ValueError, match=re.escape(f"alpha={alpha}")):
        crl_posterior(np.zeros((1, 2)), alpha, beta)


def test_numbers_as_people_read_them():
    assert [
        p_text(p) for p in (0.4321, 0.0321, 0.0496, 0.0504, 1e-5, None)
    ] == [
        "0.43",
        "0.032",
        "0.0496",
        "0.0504",
        "<0.001",
        "\N{EM DASH}",
    ]
    assert points(-0.0123, sign=True) == "\N{MINUS SIGN}1.23"
    assert points(-1e-9, sign=True) == "0.00"
    assert points(0.0123, sign=True) == "+1.23"
