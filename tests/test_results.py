"""Pages of results: their tables and figures are those of the CSV files."""

import csv
import pathlib
import re
import runpy

import pytest

RESULTS = pathlib.Path(__file__).parents[1] / "docs" / "results"
CRL = "crl(alpha=1.5,beta=1)"
MINUS = "\N{MINUS SIGN}"
pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        # The script sets it, and it is not to outlive the test.
        patch.setenv("CRL_KERAS_RECORDS_ONLY", "")
        yield runpy.run_path(RESULTS.parent / "result_figures.py")


def rows(name):
    text = (RESULTS / "raw" / f"{name}.csv").read_text()
    return list(csv.DictReader(text.splitlines()))


def errors(experiment, rate):
    """The rows of one table of a report, by loss."""
    return {
        row["loss"]: row
        for row in rows("errors")
        if (row["experiment"], row["learning_rate"]) == (experiment, rate)
    }


def percent(row, name):
    return (
        f"{100 * float(row[f'{name}_mean']):.2f} ± "
        f"{100 * float(row[f'{name}_std']):.2f}"
    )


def difference(row):
    mean, low, high = (
        f"{100 * float(row[f'difference_{x}']):+.2f}".replace("-", MINUS)
        for x in ("mean", "low", "high")
    )
    return f"{mean} [{low}, {high}]"


def table(page, head):
    """Cells of the table whose first column is called `head`."""
    text = (RESULTS / f"{page}.md").read_text()
    found = re.search(rf"^\| {head} \|.*\n\|[-|:]+\n((?:\|.*\n)+)", text, re.M)
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in found[1].splitlines()
    ]


def setting(alpha, beta):
    if (alpha, beta) == ("0", "1"):
        return "nllr"
    return f"crl(alpha={alpha},beta={beta})"


def test_the_figures_are_those_of_the_tables(script):
    for path, svg in script["svgs"]().items():
        assert path.read_text() == svg, "run docs/result_figures.py"


def test_the_heat_map_has_each_error_at_its_place(script):
    (axes, _) = script["drawn"]("alpha-and-beta").axes
    (mesh,) = axes.collections
    found = mesh.get_array()
    names = {
        t.get_position(): t.get_text().replace("\n", " ") for t in axes.texts
    }
    by_loss = errors("table1-resnet20", "0.05")
    for y, alpha in enumerate(("0", "1", "1.5", "2")):
        for x, beta in enumerate(("0.25", "0.5", "0.75", "1", "1.25")):
            row = by_loss.pop(setting(alpha, beta))
            expected = 100 * float(row["difference_mean"])
            assert found[y, x] == pytest.approx(expected)
            assert names.pop((x, y)) == percent(row, "error")
    assert percent(by_loss.pop("ce"), "error") in names.values()
    assert not by_loss


def test_intervals_are_drawn_where_the_table_has_them(script):
    (axes,) = script["drawn"]("other-losses-cifar10").axes
    drawn = [[x for x, _ in bar.get_segments()[0]] for bar in axes.collections]
    expected = [
        [100 * float(row[f"difference_{x}"]) for x in ("low", "high")]
        for row in (
            *errors("table6-resnet20", "0.02").values(),
            *errors("table6-resnet20", "0.05").values(),
            *errors("cifar10-zhu2018", "0.02").values(),
        )
        if row["difference_mean"] and row["loss"] != "nllr"
    ]
    assert len(drawn) == len(expected) == 9
    for found, wanted in zip(drawn, expected, strict=True):
        assert found == pytest.approx(wanted)


def test_the_page_on_alpha_and_beta():
    by_loss = errors("table1-resnet20", "0.05")
    for alpha, *shown in table("alpha-and-beta", "alpha"):
        for beta, cell in zip(
            ("0.25", "0.5", "0.75", "1", "1.25"), shown, strict=True
        ):
            assert cell == percent(by_loss.pop(setting(alpha, beta)), "error")
    text = (RESULTS / "alpha-and-beta.md").read_text()
    assert f"Cross-entropy: {percent(by_loss.pop('ce'), 'error')}." in text
    assert not by_loss


def test_the_page_on_other_losses():
    names = {
        "cross-entropy": "ce",
        "CRL(1.5, 1)": "crl",
        "dual cross-entropy": "dualce",
        "focal loss": "focal",
        "A-Softmax": "asoftmax",
        "tamed cross-entropy": "tamed",
        "L-Softmax": "lsoftmax",
        "NLLR": "nllr",
    }
    at_one, at_other = (
        {loss.partition("(")[0]: row for loss, row in found.items()}
        for found in (
            errors("table6-resnet20", "0.02"),
            errors("table6-resnet20", "0.05"),
        )
    )
    for name, *shown in table("other-losses", "ResNet-20, CIFAR-10"):
        row, other = at_one.pop(names[name]), at_other.pop(names[name], None)
        compared = row["difference_mean"]
        assert shown == [
            percent(row, "error"),
            difference(row) if compared else "",
            row["p_holm"],
            percent(other, "error") if other else "",
        ]
    assert not at_one and not at_other


def test_the_page_on_probabilities():
    found = {}
    for row in rows("calibration"):
        case = found.setdefault((row["experiment"], row["learning_rate"]), {})
        case[row["loss"], row["method"]] = row
    kinds = [
        ("ce", "as trained"),
        ("ce", "temperature"),
        (CRL, "as trained"),
        (CRL, "CRL posterior"),
        (CRL, "temperature"),
    ]
    page = table("probabilities", "Network, rate")
    for (name, *shown), ((_, rate), case) in zip(
        page, found.items(), strict=True
    ):
        assert name.endswith(f", {rate}")
        expected = [percent(case[kind], "ece").split()[0] for kind in kinds]
        assert shown == expected
        nll = {kind: float(case[kind]["nll_mean"]) for kind in kinds}
        assert nll[CRL, "temperature"] < nll[CRL, "CRL posterior"]


def test_the_page_on_the_papers_tables():
    expected = [
        [row["paper"], f"{row['mean']} ± {row['std']} ({row['n']})"]
        for row in rows("paper-tables")
        if row["mean"] and not row["number"].startswith("F1")
    ]
    page = table("paper-tables", "Table, network, loss")
    assert [cells[2:4] for cells in page] == expected
    text = (RESULTS / "paper-tables.md").read_text().replace(MINUS, "-")
    for row in rows("paper-differences"):
        for name in ("points", "points_low", "points_high"):
            assert row[name].lstrip("-") in text
