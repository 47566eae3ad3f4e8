"""Each loss at the learning rate that its held-out images choose."""

import csv

import pytest
from made_runs import CRL
from made_runs import compare_folder
from made_runs import write_run
from scipy import stats
from statsmodels.stats.multitest import multipletests

from crl_keras.experiments.analysis import tables
from crl_keras.experiments.analysis.report import write_report

pytestmark = pytest.mark.once
SEEDS = range(4)
# By rate: wrong on the test set and on the held-out images, for each seed. The
# test set alone would choose other rates.
CE = {
    0.1: ([10, 12, 11, 13], [30, 31, 30, 32]),
    0.3: ([14, 15, 13, 17], [20, 22, 21, 20]),
    1.0: ([20, 21, 20, 22], [40, 41, 40, 42]),
}
CRLS = {
    0.1: ([15, 16, 15, 17], [30, 31, 29, 18]),
    0.3: ([8, 9, 9, 9], [28, 29, 30, 28]),
    1.0: ([12, 12, 10, 15], [19, 21, 20, 25]),
}
NLLR = {rate: ([30, 33, 31, 34], [50, 50, 50, 50]) for rate in CE}


def write_family(folder, **changes):
    for loss, by_rate in (("ce", CE), ("crl", CRLS), ("nllr", NLLR)):
        for rate, (test, held_out) in by_rate.items():
            for seed in SEEDS:
                write_run(
                    folder,
                    loss,
                    seed,
                    changes.get(loss, {}).get((rate, seed), test[seed]),
                    held_out_wrong=held_out[seed],
                    rate=rate,
                )


def test_held_out_images_choose_and_the_test_set_does_not(tmp_path):
    write_family(tmp_path)
    (family,) = compare_folder(tmp_path)
    assert family.best_rates == {"ce": 0.1, CRL: 0.3, "nllr": 0.1}
    own = family.own
    rates = {loss: set(found.values()) for loss, found in own.own_rates.items()}
    assert rates == {"ce": {0.3}, CRL: {1.0}, "nllr": {0.1}}
    assert [r.last.mean for r in own.losses] == pytest.approx(
        [0.1475, 0.32, 0.1225]
    )
    p = []
    for comparison, losses in zip(own.comparisons, (NLLR, CRLS), strict=True):
        rate = 0.1 if losses is NLLR else 1.0
        expected = stats.ttest_rel(losses[rate][0], CE[0.3][0])
        assert comparison.test.p == pytest.approx(expected.pvalue)
        p.append(expected.pvalue)
    _, holm, *_ = multipletests(p, method="holm")
    assert [c.p_holm for c in own.comparisons] == pytest.approx(holm)


def test_by_seed(tmp_path):
    """Seed 3 of CRL has its own rate."""
    write_family(tmp_path)
    (family,) = compare_folder(tmp_path, rates_by_seed=True)
    own = family.own
    assert own.own_rates[CRL] == {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.1}
    crl = next(r for r in own.losses if r.loss == CRL)
    assert crl.errors == {0: 0.12, 1: 0.12, 2: 0.10, 3: 0.17}
    assert [*crl.evaluations] == [0, 1, 2, 3] and crl.last.n == 4
    text = tables.to_markdown(tables.own_rate_table(family))
    assert "0.1 to 1 " in text and "of each seed on held-out images" in text


def test_what_a_reader_is_told(tmp_path):
    write_family(tmp_path)
    report = write_report(tmp_path, show=False)
    (family,) = report.families
    edge = next(n for n in family.own.notes if "smallest or largest" in n)
    # NLLR has no lowest: the first of equal rates is at the edge.
    assert "CRL" in edge and "NLLR" in edge and "CE," not in edge
    page = report.files[0].read_text()
    lead = page[page.index('class="lead"') : page.index("</header>")]
    assert "each loss at its own learning rate" in lead
    # It is the first table.
    title = f"{family.title}, each loss at its own learning rate"
    assert page.index(f"<h2>{title}") < page.index("learning rates</h2>")
    path = next(p for p in report.files if p.name == "own-rates.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["learning_rate"]) for row in rows] == [0.3, 0.1, 1.0]
    assert [row["loss"] for row in rows] == ["ce", "nllr", CRL]


def test_a_rate_with_fewer_runs_is_not_chosen(tmp_path):
    write_family(tmp_path, crl={(1.0, 3): None})
    (family,) = compare_folder(tmp_path)
    assert {*family.own.own_rates[CRL].values()} == {0.1}
    # A seed by itself knows nothing of the others.
    (family,) = compare_folder(tmp_path, rates_by_seed=True)
    assert family.own.own_rates[CRL] == {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.1}


def test_without_held_out_images_nothing_is_chosen(tmp_path):
    for rate in (0.1, 0.3):
        write_run(tmp_path, "ce", 0, 10, rate=rate, held_out=False)
        write_run(tmp_path, "crl", 0, 9, rate=rate, held_out=False)
    (family,) = compare_folder(tmp_path)
    assert family.own is None
    assert "--held-out 0.1" in family.notes[0]
    assert tables.own_rate_table(family) is None


def test_one_rate_leaves_no_choice(tmp_path):
    write_run(tmp_path, "ce", 0, 10)
    (family,) = compare_folder(tmp_path)
    assert family.own is None and family.notes == ()
