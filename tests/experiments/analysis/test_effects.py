"""The change of a loss split into its steps and its weighting."""

import csv
import html
import importlib.util
import pathlib
import re

import numpy as np
import pytest
from made_runs import compare_folder
from made_runs import write_run
from scipy import stats
from statsmodels.stats.multitest import multipletests

from crl_keras.experiments.analysis import tables
from crl_keras.experiments.analysis.effects import PARTS
from crl_keras.experiments.analysis.effects import effects
from crl_keras.experiments.analysis.report import write_report
from crl_keras.experiments.runs.config import own_loss

pytestmark = pytest.mark.once
WRONG = {
    "ce": [20, 22, 19, 21, 24],
    "crl": [15, 18, 14, 16, 17],
    "crl_steps": [19, 21, 19, 19, 24],
    "crl_weights": [16, 20, 15, 17, 19],
}
CHANGES = {
    "step": [-1, -1, 0, -2, 0],
    "weighting": [-4, -2, -4, -4, -5],
    "interaction": [0, -1, -1, 1, -2],
    "total": [-5, -4, -5, -5, -7],
}


def write(folder, names=None, **options):
    for loss, wrong in WRONG.items():
        for seed, count in enumerate(wrong):
            name = (names or {}).get(loss, loss)
            write_run(folder, name, seed, count, **options)


def test_the_parts_by_hand_and_by_scipy(tmp_path):
    write(tmp_path)
    (family,) = compare_folder(tmp_path)
    (effect,) = effects(family)
    assert effect.label == "CRL" and effect.n == 5 and effect.rate == 0.1
    p = []
    for part in PARTS:
        expected = stats.ttest_1samp(np.array(CHANGES[part]) / 100, 0)
        found = effect.parts[part].test
        assert found.mean_difference == pytest.approx(
            np.mean(CHANGES[part]) / 100
        )
        low, high = expected.confidence_interval()
        assert found.ci == pytest.approx((low, high))
        assert found.p == pytest.approx(expected.pvalue)
        p.append(expected.pvalue)
    _, holm, *_ = multipletests(p, method="holm")
    found = [effect.parts[part].p_holm for part in PARTS]
    assert found == pytest.approx(holm)
    total = sum(effect.parts[p].test.mean_difference for p in PARTS[:3])
    assert total == pytest.approx(effect.parts["total"].test.mean_difference)


def test_only_seeds_that_all_four_have_count(tmp_path):
    write(tmp_path)
    for i, loss in enumerate(WRONG):
        write_run(tmp_path, loss, 5, None if i == 2 else 20)
    (effect,) = effects(*compare_folder(tmp_path))
    assert effect.n == 5


def test_without_a_control_there_is_no_effect(tmp_path):
    for loss in ("ce", "crl", "crl_steps", "nllr_weights"):
        write_run(tmp_path, loss, 0, 20)
    (family,) = compare_folder(tmp_path)
    assert effects(family) == () and tables.effect_table(family) is None


def test_losses_that_a_user_has_named(tmp_path):
    crl = "crl(alpha=2,beta=1)"
    steps, weights = crl.replace("(", "_steps("), crl.replace("(", "_weights(")
    write(
        tmp_path,
        {
            "ce": own_loss("plain", "SparseCategoricalCrossentropy 0f3a"),
            "crl": own_loss("mine", crl),
            "crl_steps": own_loss("long steps", f"soft labels, {steps}"),
            "crl_weights": own_loss("weights", weights),
        },
    )
    (effect,) = effects(*compare_folder(tmp_path))
    assert effect.label == "mine" and effect.n == 5


def test_the_report_has_it_for_every_rate(tmp_path):
    for rate in (0.1, 0.3):
        write(tmp_path, rate=rate)
    report = write_report(tmp_path, show=False)
    page = html.unescape(report.files[0].read_text())
    assert page.count("steps or weighting</h2>") == 1
    assert page.count('aria-label="Steps or weighting: CRL"') == 1
    path = next(p for p in report.files if p.name == "steps-or-weighting.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [float(row["learning_rate"]) for row in rows] == [0.1, 0.3]
    for row in rows:
        for part in PARTS:
            assert float(row[f"{part}_mean"]) == pytest.approx(
                np.mean(CHANGES[part]) / 100
            )
    text = report.files[1].read_text().replace("\\", "")
    assert "CRL with CE's steps: control, the loss with the steps of" in page
    assert "−3.80 [−5.16, −2.44]" in text  # The weighting, by hand.
    assert "p < 0.05 of a paired t-test after Holm's correction" in text


def test_equal_errors_have_no_spread(tmp_path):
    for loss in WRONG:
        for seed in range(3):
            write_run(tmp_path, loss, seed, 20)
    (effect,) = effects(*compare_folder(tmp_path))
    assert effect.parts["step"].test.p is None
    assert effect.parts["step"].test.mean_difference == 0
    assert not effect.parts["step"].shown


def test_the_pages_of_results_are_made_of_folders_of_runs(
    tmp_path, monkeypatch
):
    for rate in (0.1, 0.3):
        write(tmp_path / "mine", rate=rate)
    # The script sets it, and it is not to outlive the test.
    monkeypatch.setenv("CRL_KERAS_RECORDS_ONLY", "")
    path = pathlib.Path(__file__).parents[3] / "docs" / "run_pages.py"
    spec = importlib.util.spec_from_file_location("run_pages", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FOLDER", tmp_path)

    def made(name):
        words = ["run_pages.py", name, str(tmp_path / "mine")]
        monkeypatch.setattr("sys.argv", words)
        module.main()
        return (tmp_path / f"{name}.md").read_text()

    methods = made("fine-grained-methods")
    assert methods.count("CRL is 5.20 points lower than CE") == 2  # Rates.
    assert "[CSV](fine-grained-methods.csv)" in methods
    other = "## another\n\nof a folder that is gone\n"
    (tmp_path / "steps-or-weighting.md").write_text(other)
    page = made("steps-or-weighting")
    assert other in page
    assert made("steps-or-weighting") == page
    assert "python compare.py --losses 'crl(beta=-1)'" in page
    assert "**\u22123.80 \\[\u22125.16, \u22122.44\\]**" in page
    for name in re.findall(r"\]\((steps[^)]*)\)", page):
        assert (tmp_path / name).stat().st_size > 100
