"""Reports: their numbers, their files, and what no file of theirs may hold."""

import base64
import csv
import html.parser
import io
import pathlib
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from fresh import python
from made_runs import CE_WRONG
from made_runs import CRL
from made_runs import CRL_WRONG
from made_runs import NLLR_WRONG
from made_runs import compare_folder
from made_runs import only_group
from made_runs import write_run
from made_runs import write_runs
from PIL import Image
from rich.console import Console
from scipy import stats

from crl_keras.experiments.analysis import figures
from crl_keras.experiments.analysis import pictures
from crl_keras.experiments.analysis import tables
from crl_keras.experiments.analysis.report import print_report
from crl_keras.experiments.analysis.report import to_markdown
from crl_keras.experiments.analysis.report import write_report

pytestmark = pytest.mark.once

REPOSITORY = pathlib.Path(__file__).parents[3]
HOSTILE = "<script>alert('x')</script> & $x_1$ \\frac \"quoted\""
FILES = [
    "report.html",
    "table.md",
    "table.csv",
    "table.tex",
    "calibration.csv",
]
MINUS = "\N{MINUS SIGN}"
NONE = "\N{EM DASH}"


@pytest.fixture(scope="module")
def three_losses(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_runs(folder, ce=CE_WRONG, crl=CRL_WRONG, nllr=NLLR_WRONG)
    return folder


@pytest.fixture(scope="module")
def report(three_losses):
    return write_report(three_losses, show=False)


def read(report, name):
    path = next(path for path in report.files if path.name == name)
    return path.read_text(encoding="utf-8")


def rows_of_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


class Page(html.parser.HTMLParser):
    """Tags of a page, checked to be closed in order; its text and ids."""

    VOID = {"meta", "br", "img", "link", "input"}

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        self.text.append(data)


def test_all_files_are_in_the_folder_of_the_runs(report, three_losses):
    folder = three_losses / "report"
    assert report.files == tuple(folder / name for name in FILES)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)


def test_the_same_records_give_the_same_bytes(report, three_losses, tmp_path):
    again = write_report(three_losses, tmp_path / "a" / "b", show=False)
    for a, b in zip(report.files, again.files, strict=True):
        assert b.parent == tmp_path / "a" / "b"
        assert a.read_bytes() == b.read_bytes()


def test_csv_gives_every_number_back(report):
    rows = rows_of_csv(read(report, "table.csv"))
    assert [row["loss"] for row in rows] == ["ce", "nllr", CRL]
    ce, _, crl = rows
    a, b = np.array(CRL_WRONG) / 100, np.array(CE_WRONG) / 100
    test = stats.ttest_rel(a, b)
    interval = test.confidence_interval(0.95)
    expected = dict(
        learning_rate=0.1,
        epochs=4,
        n=5,
        n_diverged=0,
        error_mean=np.mean(a),
        error_std=np.std(a, ddof=1),
        best_error_mean=np.mean(a),
        pairs=5,
        difference_mean=np.mean(a - b),
        difference_low=interval.low,
        difference_high=interval.high,
        p_t_test=test.pvalue,
        p_holm=test.pvalue,  # The larger of the two.
        d_z=np.mean(a - b) / np.std(a - b, ddof=1),
        seeds_high=np.inf,
        p_wilcoxon=0.25,
    )
    for name, value in expected.items():
        assert float(crl[name]) == pytest.approx(value), name
    assert float(ce["error_mean"]) == pytest.approx(np.mean(b))
    assert ce["difference_mean"] == ce["p_holm"] == ce["g"] == ""
    assert crl["dataset"] == "digits" and crl["baseline"] == "ce"
    # To the last digit, not to the two that people read.
    found = report.families[0].groups[0].comparisons[1]
    assert float(crl["p_t_test"]) == found.test.p
    assert float(crl["g"]) == found.effect.g
    assert int(crl["seeds_for_80_power"]) == found.seeds_needed


def test_calibration_csv_gives_every_number_back(report):
    rows = rows_of_csv(read(report, "calibration.csv"))
    group = report.families[0].groups[0]
    expected = {
        (row.loss, row.method): row
        for result in group.losses
        for row in result.calibration
    }
    assert len(rows) == len(expected) == 8
    for row in rows:
        summary = expected[row["loss"], row["method"]]
        assert float(row["nll_mean"]) == summary.nll.mean
        assert float(row["ece_std"]) == summary.ece.std
        if row["method"] == "temperature":
            assert float(row["temperature_mean"]) == summary.temperature
        else:
            assert row["temperature_mean"] == ""


def test_markdown_shows_the_numbers(report):
    text = read(report, "table.md")
    line = next(x for x in text.splitlines() if x.startswith("| CRL | 5 |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    d = np.array(CRL_WRONG) - np.array(CE_WRONG)
    half = stats.t.isf(0.025, 4) * np.std(d, ddof=1) / 5**0.5
    p = f"{stats.ttest_rel(CRL_WRONG, CE_WRONG).pvalue:.2f}"
    assert cells[2] == f"10.00 ± {np.std(CRL_WRONG, ddof=1):.2f}"
    assert cells[4] == (
        rf"{MINUS}1.00 \[{MINUS}{1 + half:.2f}, +{half - 1:.2f}\]"
    )
    assert cells[5:7] == [p, p]
    assert "best on test, optimistic" in text
    # NLLR is worse by far, which is what bold says.
    nllr = next(x for x in text.splitlines() if x.startswith("| NLLR | 5 |"))
    assert "**" in nllr and "**" not in line
    assert "- **Seeds:** 0 to 4" in text
    assert "NLLR does worse than CE here" in text
    assert "\n\n    python compare.py --losses 'crl(beta=-1)'\n" in text


def table_blocks(latex):
    return re.findall(r"\\begin\{table\}.*?\\end\{table\}", latex, re.DOTALL)


def test_latex_is_well_formed(report):
    text = read(report, "table.tex")
    blocks = table_blocks(text)
    assert len(blocks) == 3
    for name in re.findall(r"\\begin\{(\w+)\}", text):
        begins = len(re.findall(rf"\\begin\{{{name}\}}", text))
        assert begins == len(re.findall(rf"\\end\{{{name}\}}", text))
    bare = re.sub(r"\\[{}\\]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert all(ord(character) < 128 for character in text)
    for block in blocks:
        for rule in ("toprule", "midrule", "bottomrule"):
            assert rf"\{rule}" in block
        layout = re.search(r"\\begin\{tabular\}\{(\w+)\}", block).group(1)
        body = block[block.index(r"\toprule") : block.index(r"\bottomrule")]
        rows = [row for row in body.split("\n") if row.endswith(r" \\")]
        assert len(rows) > 2
        for row in rows:
            assert len(re.findall(r"(?<!\\)&", row)) == len(layout) - 1
        # Outside of comments, a bare % would swallow the rest of its line.
        assert not re.search(r"(?<![\\%{])%", block.replace("{!}{%", ""))


def test_latex_escapes_everything_it_acts_on():
    found = tables.escape_latex(r"50% of $x_1$ & {a} ~ #1 ^2 \cmd [b] − ±")
    assert found == (
        r"50\% of \$x\_1\$ \& \{a\} \textasciitilde{} \#1 "
        r"\textasciicircum{}2 \textbackslash{}cmd {[}b{]} $-$ $\pm$"
    )


def test_a_line_break_in_a_name_ends_no_item_of_a_list():
    assert tables.escape_markdown("one\ntwo") == "one two"


def test_markdown_escapes_everything_it_acts_on():
    assert tables.escape_markdown("a|b *c* <d> [e] _f_") == (
        r"a\|b \*c\* \<d\> \[e\] \_f\_"
    )


def test_a_cell_must_fit_its_column():
    column = tables.Column("Loss", ("loss",))
    with pytest.raises(ValueError, match="must have the values"):
        tables.Table("t", (column,), ((tables.Cell("CE"),),))


def assert_self_contained(text):
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert re.match(r"#|data:image/(png|jpeg);base64,", value), (
                    value
                )
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(set(page.ids)) == len(page.ids)
    references = re.findall(r'(?:url\(|href=")#([^")]+)', text)
    assert set(references) <= set(page.ids)
    return page


def test_html_needs_nothing_else(report):
    page = assert_self_contained(read(report, "report.html"))
    tags = [tag for tag, _ in page.tags]
    # Curves, strip, differences; 3 reliability diagrams, 3 matrices.
    assert tags.count("svg") == 9
    assert 1 <= tags.count("img") <= 6
    names = [a for tag, a in page.tags if tag == "meta"]
    assert {"charset": "utf-8"} in names
    assert any("width=device-width" in a.get("content", "") for a in names)
    assert "@media print" in read(report, "report.html")


def test_html_says_what_was_run(report):
    text = " ".join(Page(read(report, "report.html")).text)
    for words in (
        "digits: 1,200 training, 100 held-out and 100 test images, 10 classes",
        "mlp, 12,345 parameters",
        "python compare.py --losses 'crl(beta=-1)'",
        "keras 3.15.1, python 3.11.7",
        "1 \N{MULTIPLICATION SIGN} CPU (test)",
        "float32",
        "2026-11-23",
        "8 min for 15 runs, 1,000 images/s",
        "CRL: competing ratio loss, alpha 1.5, beta 1",
        "no difference shown",
        "NLLR does worse than CE here",
        "With 5 seeds Wilcoxon's test cannot reach 0.05",
        "Band: from the lowest to the highest seed",
    ):
        assert words in text, words


def test_html_says_how_a_backbone_saw_its_images(tmp_path):
    values = dict(
        network="keras/resnet50",
        weights="imagenet",
        reader="pillow",
        crop_to_box=True,
    )
    write_run(tmp_path, "ce", 0, 10, **values)
    text = to_markdown(compare_folder(tmp_path))
    assert "keras/resnet50, 12,345 parameters, from weights imagenet" in text
    assert "reader pillow, crop to box true" in text


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_are_drawn_by_the_reader(tmp_path):
    write_run(tmp_path, "ce", 0, 10, names=[f"\u732b{k}" for k in range(10)])
    text = read(write_report(tmp_path, show=False), "report.html")
    assert "\u732b3" in text


def test_names_are_text_and_never_markup(tmp_path):
    names = [f"{HOSTILE} {k}" for k in range(10)]
    command = ["python", "x.py", HOSTILE]
    for loss, wrong in (("ce", 10), ("crl", 14)):
        write_run(
            tmp_path,
            loss,
            0,
            wrong,
            names=names,
            dataset=f"folder:{HOSTILE}",
            result=dict(command=command),
        )
    report = write_report(tmp_path, show=False)
    text = read(report, "report.html")
    page = assert_self_contained(text)
    assert "<script" not in text
    assert any(HOSTILE in part for part in page.text)
    latex = read(report, "table.tex")
    assert r"\frac" not in latex and r"\textbackslash{}frac" in latex
    # All but the command, which is a block of code.
    lines = read(report, "table.md").splitlines()
    lines = [line for line in lines if not line.startswith("    ")]
    assert not re.search(r"(?<!\\)[<$&]", "\n".join(lines))


def test_dollars_in_names_are_no_formula(tmp_path):
    write_run(tmp_path, "ce", 0, 10, names=[f"$\\zz{k}$" for k in range(10)])
    text = read(write_report(tmp_path, show=False), "report.html")
    assert text.count("$\\zz3$") >= 2  # On both axes of the matrix.


def test_more_than_20_classes_give_a_table_of_pairs(tmp_path):
    write_run(tmp_path, "ce", 0, 10, classes=25)
    write_run(tmp_path, "ce", 1, 30, classes=25)
    group = only_group(tmp_path)
    names = [f"class {k}" for k in range(25)]
    assert figures.confusion_matrices(group, names) == []
    table = figures.confused_pairs(group, names)
    assert 0 < len(table.rows) <= figures.MOST_PAIRS
    total = sum(e.confusion for e in group.losses[0].evaluations.values())
    np.fill_diagonal(total, 0)
    assert table.rows[0][2].values == (total.max() / 2,)
    true, predicted, _ = table.rows[0]
    found = total[names.index(true.text), names.index(predicted.text)]
    assert found == total.max()
    text = read(write_report(tmp_path, show=False), "report.html")
    assert "Confusion matrix" not in text and "Predicted as" in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_make_a_report_that_says_so(tmp_path, seeds):
    write_runs(tmp_path, ce=(10, 11)[:seeds], crl=(9, 12)[:seeds])
    report = write_report(tmp_path, show=False)
    text = " ".join(Page(read(report, "report.html")).text)
    assert f"With {seeds} seed" in text
    assert "Use 6 seeds or more" in text
    _, crl = rows_of_csv(read(report, "table.csv"))
    assert (crl["p_t_test"] == "") == (seeds == 1)
    assert (crl["error_std"] == "") == (seeds == 1)
    if seeds == 1:
        assert "nothing is shown" in text


def test_diverged_runs_are_listed(tmp_path):
    write_runs(tmp_path, ce=(10, 11, 9), crl=(9, None, 10))
    report = write_report(tmp_path, show=False)
    (table,) = [
        table
        for table in tables.all_tables(report.families)
        if table.title == "Runs that diverged"
    ]
    (row,) = table.rows
    assert [cell.values[0] for cell in row[1:]] == [CRL, 1, 2, 17, 0.1]
    for name in ("report.html", "table.md", "table.tex"):
        assert "Runs that diverged" in read(report, name)
    assert "2 (1 diverged)" in read(report, "report.html")


def test_only_diverged_runs_still_make_a_report(tmp_path):
    write_runs(tmp_path, ce=(None,), crl=(None,))
    report = write_report(tmp_path, show=False)
    assert_self_contained(read(report, "report.html"))
    assert read(report, "calibration.csv") == ""


def test_learning_rates_are_shown_beside_each_other(tmp_path):
    for rate, ce, crl in ((0.1, 10, 12), (0.3, 12, 9)):
        for seed in range(2):
            write_run(tmp_path, "ce", seed, ce + seed, rate=rate)
            write_run(tmp_path, "crl", seed, crl + seed, rate=rate)
    write_run(tmp_path, "crl", 2, None, rate=0.3)
    report = write_report(tmp_path, show=False)
    (family,) = report.families
    low, high = tables.rate_table(family).rows
    assert [cell.text for cell in low] == [
        "0.1",
        "10.50 ± 0.71 (2)",
        "12.50 ± 0.71 (2)",
    ]
    assert [cell.strong for cell in low] == [False, True, False]
    assert high[2].text == "9.50 ± 0.71 (2, 1 diverged)"
    assert [cell.strong for cell in high] == [False, False, True]
    text = read(report, "report.html")
    assert_self_contained(text)
    assert "Error by learning rate" in text and "optimistic" in text
    assert len(rows_of_csv(read(report, "table.csv"))) == 4


def test_runs_without_logits_make_a_report(tmp_path):
    write_runs(tmp_path, ce=(10, 11), crl=(9, 12))
    for path in tmp_path.glob("*/logits.npz"):
        path.unlink()
    report = write_report(tmp_path, show=False)
    text = read(report, "report.html")
    assert "4 runs came without logits" in text
    assert "Reliability" not in text and "Confusion" not in text


def test_calibration_says_why_a_temperature_is_missing(tmp_path):
    write_run(tmp_path, "ce", 0, 10, held_out=False)
    table = tables.calibration_table(only_group(tmp_path))
    assert "no part of the training split was held out" in table.notes[-1]


@pytest.mark.parametrize("width", [80, 120])
def test_no_number_is_cut_on_the_terminal(report, three_losses, width):
    file = io.StringIO()
    print_report(report, Console(file=file, width=width))
    text = file.getvalue()
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    d = np.array(CRL_WRONG) - np.array(CE_WRONG)
    half = stats.t.isf(0.025, 4) * np.std(d, ddof=1) / 5**0.5
    assert f"[{MINUS}{1 + half:.2f}, +{half - 1:.2f}]" in text
    assert f"10.00 ± {np.std(CRL_WRONG, ddof=1):.2f}" in text
    assert str(three_losses / "report" / "report.html") in text
    # Of the table; the paths below it may be of any length.
    folder = str(three_losses)
    rows = [line for line in text.splitlines() if folder not in line]
    assert max(map(len, rows[:40])) <= width
    assert ("d_z" in text) == (width == 120)
    # NLLR's difference is shown, CRL's is not.
    assert len(re.findall(r"\d\*", text)) == 1


@pytest.mark.parametrize("width", [72, 80, 100, 120])
def test_wide_numbers_are_not_cut_either(three_losses, tmp_path, width):
    for path in three_losses.glob("*/config.json"):
        shutil.copytree(path.parent, tmp_path / path.parent.name)
    shutil.copytree(three_losses / "data", tmp_path / "data")
    for seed, wrong in enumerate((45, 12, 50, 14, 48)):
        write_run(tmp_path, "crl(beta=-1)", seed, wrong)
    table = tables.error_table(only_group(tmp_path))
    file = io.StringIO()
    Console(file=file, width=width).print(tables.to_rich(table, width))
    text = file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    head, *_ = text.split("\N{BOX DRAWINGS LIGHT HORIZONTAL}")
    columns, rows = table.shown
    for i, column in enumerate(columns):
        # What is left out is left out with its title.
        if not column.optional or column.short.split()[0] in head:
            for row in rows:
                words = row[i].text.replace("(", " (").split()
                assert set(words) <= set(text.replace("*", "").split())
    assert ("seeds" in head) >= ("effect" in head) == (width == 120)


def test_smoothing_is_a_centred_mean():
    values = np.array([[1.0, 2.0, 6.0, 3.0]])
    np.testing.assert_allclose(
        figures.smoothed(values, 3), [[1.5, 3.0, 11 / 3, 4.5]]
    )
    np.testing.assert_array_equal(figures.smoothed(values, 1), values)
    windows = [figures.smoothing_window(n) for n in (5, 29, 30, 60, 300)]
    assert windows == [1, 1, 3, 5, 21]


def test_the_longest_curve_is_not_cut():
    """Of a loss that went on when the first had stopped early."""

    def ran(loss, epochs):
        history = [{"test_accuracy": 0.9}] * epochs
        return SimpleNamespace(
            loss=loss, records=[SimpleNamespace(history=history)]
        )

    group = SimpleNamespace(losses=[ran("ce", 3), ran(CRL, 8)])
    styles = figures.loss_styles([SimpleNamespace(losses=["ce", CRL])])
    drawn = figures.error_curves(group, styles)
    (axes,) = drawn.svg.figure.axes
    assert axes.get_xlim() == (1, 8)


def test_labels_are_moved_apart_and_no_further():
    assert figures.spread([0.5, 0.1], 0.1) == [0.5, 0.1]
    np.testing.assert_allclose(
        figures.spread([0.5, 0.5, 0.5], 0.1), [0.4, 0.5, 0.6]
    )
    found = np.sort(figures.spread([0.30, 0.31, 0.39, 0.9], 0.1))
    assert np.diff(found).min() >= 0.1 - 1e-12
    assert found[-1] == 0.9
    assert np.mean(found[:3]) == pytest.approx(1 / 3)


def test_a_loss_looks_the_same_throughout(tmp_path):
    write_run(tmp_path, "crl", 0, 9, rate=0.3)
    write_runs(tmp_path, ce=(10,), crl=(9,), nllr=(8,))
    families = compare_folder(tmp_path)
    styles = figures.loss_styles(families)
    assert list(styles) == ["ce", "nllr", CRL]
    assert len({style.color for style in styles.values()}) == 3
    assert len({style.marker for style in styles.values()}) == 3
    assert len({str(style.dash) for style in styles.values()}) == 3
    drawn = figures.seed_strip(families[0].groups[-1], styles)
    assert styles[CRL].color in drawn.svg


def test_a_far_loss_does_not_hide_the_rest(tmp_path):
    far = figures.far_losses
    assert far({"ce": [10, 11], "nllr": [30], "crl": [9, 12]}) == {"nllr"}
    assert far({"ce": [10, 11], "nllr": [15], "crl": [9, 12]}) == set()
    assert far({"ce": [1], "a": [90], "b": [50], "c": [2]}) == {"a", "b"}
    assert far({"ce": [30], "a": [1], "b": [2]}) == set()  # The baseline.
    assert far({"ce": [3], "a": [3], "b": [9]}) == set()  # No scale to tell.
    assert far({"ce": [1], "a": [90]}) == set()
    write_runs(tmp_path, ce=(10, 11), crl=(9, 12), nllr=(40, 41))
    (family,) = compare_folder(tmp_path)
    styles = figures.loss_styles([family])
    for draw, value in (
        (figures.seed_strip, "40.50%"),
        (figures.differences, "+30.00 points"),
    ):
        drawn = draw(family.groups[0], styles)
        assert f"could not be told apart: NLLR at {value}." in drawn.caption
        assert styles["nllr"].color not in drawn.svg


def test_examples_are_chosen_by_rule(tmp_path):
    # The first 10 are wrong with CE, the first 14 with CRL, by construction.
    write_run(tmp_path, "ce", 3, 10)
    write_run(tmp_path, "crl", 3, 14)
    write_run(tmp_path, "nllr", 3, 5)
    group = only_group(tmp_path)
    seed, examples = figures.disagreements(group)
    assert seed == 3
    assert [e.index for e in examples] == [10, 11, 12, 5, 6, 7]
    record = group.losses[0].records[0]
    data, logits = record.data(), record.logits()["test"]
    for example in examples:
        ce, nllr, crl = example.bars
        assert [ce.right, nllr.right, crl.right] == [
            example.index >= 10,
            True,
            False,
        ]
        assert example.truth == f"class {data['labels'][example.index]}"
        assert example.truth in example.classes
        assert ce.predicted in example.classes
        x = np.exp(logits[example.index].astype(float))
        shown = [int(name.split()[-1]) for name in example.classes]
        np.testing.assert_allclose(ce.probabilities, (x / x.sum())[shown])
        png = base64.b64decode(example.image.partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(png)))
        np.testing.assert_array_equal(
            pixels, data["thumbnails"][example.index][..., 0]
        )


def test_without_disagreement_the_report_says_so(tmp_path):
    write_run(tmp_path, "ce", 0, 10)
    write_run(tmp_path, "crl", 0, 10)
    assert figures.disagreements(only_group(tmp_path)) == (0, [])
    text = read(write_report(tmp_path, show=False), "report.html")
    assert "no disagreement on the images in the records" in text


def test_color_images_keep_their_pixels():
    pixels = np.random.default_rng(0).integers(
        256, size=(5, 4, 3), dtype="uint8"
    )
    uri = pictures.png_data_uri(pixels)
    png = base64.b64decode(uri.partition(",")[2])
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(png))), pixels
    )


def test_a_folder_without_finished_runs_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder of runs"):
        write_report(tmp_path / "none")
    run = write_run(tmp_path, "ce", 0, 10)
    (run.path / "result.json").unlink()
    with pytest.raises(ValueError, match=r"no finished run in .* \(1 begun\)"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


def run_example(*arguments, code=None):
    script = REPOSITORY / "examples" / "make_report.py"
    start = ("-c", code, script) if code else (script,)
    command = ("-W", "error", *start, *arguments)
    return python(*command, exit_code=None, KERAS_BACKEND="none")


def test_the_example_loads_no_backend(three_losses, tmp_path):
    done = run_example(
        three_losses,
        "--output",
        tmp_path,
        code=(
            "import runpy, sys\n"
            "sys.argv = sys.argv[1:]\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "print({'keras', 'jax', 'torch', 'tensorflow'} & set(sys.modules))"
        ),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"
    assert "no difference shown" in done.stdout
    assert str(tmp_path / "report.html") in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(FILES)


def test_the_example_takes_a_baseline(three_losses, tmp_path):
    done = run_example(three_losses, "--baseline", "nllr", "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "CRL does better than NLLR here" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["none"], "There is no folder of runs"),
        (["."], "There is no finished run in"),
        ([".", "--baseline", "mse"], "no finished run"),
    ],
)
def test_the_example_explains_its_errors(script, monkeypatch, arguments, words):
    monkeypatch.setenv("CRL_KERAS_RECORDS_ONLY", "1")  # Which it sets itself.
    code, _, error = script("make_report.py", *arguments)
    assert code == 1
    assert error.startswith("make_report: ") and words in error
    assert "Traceback" not in error
