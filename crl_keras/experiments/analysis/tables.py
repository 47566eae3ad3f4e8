"""The tables of a comparison, for terminal, Markdown, LaTeX and CSV.

Each cell of a `Table` holds a text for people and its numbers at full
precision. Terminal, Markdown and LaTeX show the text. CSV shows only the
numbers, with errors as fractions. Imports no backend.
"""

import csv
import dataclasses
import io
import re

import numpy as np

from crl_keras.experiments._optional import require
from crl_keras.experiments.analysis.effects import PARTS
from crl_keras.experiments.analysis.effects import effects
from crl_keras.experiments.analysis.evaluation import METHODS
from crl_keras.experiments.analysis.rates import rates_text
from crl_keras.experiments.analysis.single import interval
from crl_keras.experiments.measures import statistics
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.config import parse_loss
from crl_keras.experiments.words import counted
from crl_keras.experiments.words import listed
from crl_keras.experiments.words import p_text
from crl_keras.experiments.words import pair_text
from crl_keras.experiments.words import plural
from crl_keras.experiments.words import points
from crl_keras.experiments.words import seeds_text

NONE = "\N{EM DASH}"
MOST_CLASS_ROWS = 50
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
MINUS = "\N{MINUS SIGN}"
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # After a line break, [ would start an argument.
    "]": "{]}",
    '"': r"\textquotedbl{}",
    PLUS_MINUS: r"$\pm$",
    MINUS: r"$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{INFINITY}": r"$\infty$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    NONE: "---",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a `Table`.

    Attributes:
        title: the heading; "" if only CSV shows the numbers.
        names: the CSV columns of the numbers in its cells.
        numeric: whether the text is aligned to the right.
        short: the heading on a terminal, where space is short.
        optional: whether a narrow terminal leaves the column out; the widest
            optional column goes first.
    """

    title: str
    names: tuple = ()
    numeric: bool = True
    short: str = ""
    optional: bool = False


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a `Table`.

    Attributes:
        text: the text for people.
        values: one number per name of the column, None if missing.
        strong: whether it is bold, or has a star on a terminal.
        loss: the canonical loss that the cell names, or None.
    """

    text: str = NONE
    values: tuple = ()
    strong: bool = False
    loss: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, which can be written in several formats.

    Attributes:
        title: the line above the table.
        columns: tuple of `Column`.
        rows: tuple of tuples of `Cell`.
        notes: tuple of sentences below the table.
        context: dict of first columns that are the same in every CSV row.
    """

    title: str
    columns: tuple
    rows: tuple
    notes: tuple = ()
    context: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for row in self.rows:
            for column, cell in zip(self.columns, row, strict=True):
                if len(column.names) != len(cell.values):
                    raise ValueError(
                        f"A cell of {column.title!r} must have the values "
                        f"{column.names}. Received: {cell.values}"
                    )

    @property
    def shown(self):
        """Columns and rows without the columns that only CSV shows."""
        keep = [i for i, column in enumerate(self.columns) if column.title]
        return (
            [self.columns[i] for i in keep],
            [[row[i] for i in keep] for row in self.rows],
        )


def error_table(group):
    """The test error of each loss and its difference to the baseline."""
    by_loss = {c.loss: c for c in group.comparisons}
    columns = _error_columns(loss_label(group.baseline), _pairs(group))
    rows = [
        _result_cells(result) + _comparison_cells(by_loss.get(result.loss))
        for result in group.losses
    ]
    if any(r.result.get("given") for r in group.records):
        # Results from `compare_results` have no best epoch.
        error = dataclasses.replace(
            columns[2], title="Error [%]", short="error %"
        )
        columns = (*columns[:2], error, *columns[4:])
        rows = [row[:3] + row[4:] for row in rows]
    if group.own_rates:
        rate = Column("Learning rate", ("learning_rate",), short="rate")
        columns = (columns[0], rate, *columns[1:])
        rows = [
            (row[0], Cell(rates_text(rates), (_only(rates),)), *row[1:])
            for row, rates in zip(rows, group.own_rates.values(), strict=True)
        ]
    title = f"Test error: {group.title}"
    notes = (*_error_notes(group), *group.notes)
    return Table(title, columns, tuple(rows), notes, _context(group))


def _error_columns(baseline, pairs):
    return (
        Column("Loss", ("loss",), numeric=False),
        Column("n", ("n", "n_diverged")),
        Column(
            "Error, last epoch [%]",
            ("error_mean", "error_std"),
            short="error %\nlast",
        ),
        Column(
            "Error, best epoch [%] (best on test, optimistic)",
            ("best_error_mean", "best_error_std"),
            short="error %\nbest\non test",
        ),
        Column(
            f"Difference to {baseline} [points], 95% CI",
            ("pairs", "difference_mean", "difference_low", "difference_high"),
            short=f"points\nto {baseline}",
        ),
        Column("p", ("p_t_test",)),
        Column("p, Holm", ("p_holm",), short="p\nHolm"),
        Column(
            "Effect d_z, 95% CI",
            ("d_z", "d_z_low", "d_z_high"),
            short="effect\nd_z",
            optional=True,
        ),
        Column(
            f"{pairs.capitalize()} for 80% power",
            ("seeds_for_80_power",),
            short=f"{pairs}\n80%",
            optional=True,
        ),
        Column("", ("seeds_low", "seeds_high", "p_wilcoxon")),
        Column("", ("g", "g_low", "g_high", "p_mcnemar_median")),
    )


def own_rate_table(family):
    """The errors of each loss at its own learning rate, or None."""
    return family.own and error_table(family.own)


def effect_table(family):
    """The change of each loss by steps and by weighting, or None."""
    found = effects(family)
    if not found:
        return None
    names = ("mean", "low", "high", "p", "p_holm")
    titles = {
        "step": "Longer steps alone",
        "weighting": "Weighting alone",
        "interaction": "Interaction",
        "total": "Together",
    }
    columns = (
        Column("Loss", ("loss",), numeric=False),
        Column("Learning rate", ("learning_rate",), short="rate"),
        Column("n", ("n",)),
        *(
            Column(titles[part], tuple(f"{part}_{name}" for name in names))
            for part in PARTS
        ),
    )
    rows = tuple(
        (
            Cell(effect.label, (effect.loss,), loss=effect.loss),
            Cell(f"{effect.rate:g}", (effect.rate,)),
            Cell(f"{effect.n}", (effect.n,)),
            *(_effect_cell(effect.parts[part]) for part in PARTS),
        )
        for effect in found
    )
    notes = (
        "Change in test error against cross-entropy in points, with its 95% "
        "CI; a negative one is fewer errors. Longer steps alone: "
        "cross-entropy that pulls as hard as the loss. Weighting alone: the "
        "loss that pulls as hard as cross-entropy. Together is the sum of the "
        "three.",
        "Marked: p < 0.05 of a paired t-test after Holm's correction over "
        f"all {len(found) * len(PARTS)} changes. The intervals are not "
        "corrected.",
    )
    title = f"Steps or weighting: {family.title}"
    return Table(title, columns, rows, notes)


def _effect_cell(part):
    test = part.test
    values = (test.mean_difference, *(test.ci or (None, None)), test.p)
    text = _difference_text(test)
    return Cell(text, (*values, part.p_holm), strong=part.shown)


def _only(rates):
    """The one rate of all seeds, or None."""
    return next(iter(rates.values())) if len({*rates.values()}) == 1 else None


def accuracy_table(group):
    """The accuracy of each run in a `Group` with one loss.

    Args:
        group: `Group` with a `model`; the run of the model is marked.
    """
    (result,), model = group.losses, group.model
    samples = plural(group.config.noun)
    columns = (
        Column("Run", ("seed", "fold"), numeric=False),
        Column(f"Test {samples}", ("n",), short="n"),
        Column("Right", ("right",)),
        Column(
            "Accuracy [%], 95% interval",
            ("accuracy", "accuracy_low", "accuracy_high"),
            short="accuracy %\n95% interval",
        ),
        Column("Macro F1 [%]", ("macro_f1",), short="macro\nF1 %"),
        Column("Top-5 accuracy [%]", ("top_5_accuracy",), short="top-5 %"),
        Column(
            "Training accuracy, last epoch [%]",
            ("train_accuracy",),
            short="train %",
        ),
        Column(
            "Error, best epoch [%] (best on test, optimistic)",
            ("best_error",),
            short="error %\nbest\non test",
            optional=True,
        ),
    )
    rows = tuple(_accuracy_cells(r, result, model) for r in result.records)
    notes = [
        "Last epoch. The interval is Wilson's: how far the accuracy may be off "
        f"because the test set has no more {samples}. It says nothing of "
        f"other seeds or other {samples} than these."
    ]
    if len(rows) > 1:
        notes.append(f"Marked: the run that is shown, because {model.why}.")
    title = f"Accuracy of {result.label}: {group.title}"
    return Table(title, columns, rows, tuple(notes), _context(group))


def _accuracy_cells(record, result, model):
    last, config = record.result["last"], record.config
    n = record.result["dataset"]["test"]
    right = round((1 - last["error"]) * n)
    low, high = interval(right, n)
    text = f"{points(right / n)} [{points(low)}, {points(high)}]"
    train = record.history[-1].get("train_accuracy")
    is_shown = len(result.records) > 1 and record is model.record
    return (
        Cell(
            f"seed {pair_text(config.pair)}",
            (config.seed, config.fold),
            strong=is_shown,
        ),
        Cell(f"{n:,}", (n,)),
        Cell(f"{right:,}", (right,)),
        Cell(text, (right / n, low, high)),
        *map(
            _percent,
            (last.get("macro_f1"), last.get("top_5_accuracy"), train),
        ),
        _percent(record.result["best"]["test_error"]),
    )


def class_table(group, most=None):
    """The scores of each class, the lowest F1 first.

    Args:
        group: `Group` with a `model`.
        most: the maximum number of rows; None for all classes.
    """
    model, samples = group.model, plural(group.config.noun)
    columns = (
        Column("Class", ("class",), numeric=False),
        Column(f"Test {samples}", ("n",), short="n"),
        Column("Predicted", ("predicted",), optional=True),
        Column("Precision [%]", ("precision",), short="prec. %"),
        Column(
            "Recall [%], 95% interval",
            ("recall", "recall_low", "recall_high"),
            short="recall %\n95% interval",
        ),
        Column("F1 [%]", ("f1",), short="F1 %"),
        Column(
            "Most taken for",
            ("confused_with", "confused"),
            numeric=False,
            optional=True,
        ),
    )
    shown = model.classes[:most]
    rows = tuple(map(_class_cells, shown))
    notes = [
        f"Of {model.name}, the lowest F1 first. Precision: how many of the "
        f"{samples} predicted as the class are of it. Recall: how many of its "
        f"{samples} are predicted as it. F1: their harmonic mean."
    ]
    if len(shown) < len(model.classes):
        notes.append(
            f"{len(shown)} of {len(model.classes)} classes; classes.csv has "
            "all."
        )
    title = f"Classes: {group.title}"
    return Table(title, columns, rows, tuple(notes), _context(group))


def _class_cells(scores):
    low, high = scores.recall_interval or (None, None)
    recall = NONE
    if scores.recall is not None:
        recall = f"{points(scores.recall)} [{points(low)}, {points(high)}]"
    confused, count = scores.confused or (None, None)
    return (
        Cell(scores.name, (scores.name,)),
        Cell(f"{scores.n:,}", (scores.n,)),
        Cell(f"{scores.predicted:,}", (scores.predicted,)),
        _percent(scores.precision),
        Cell(recall, (scores.recall, low, high)),
        _percent(scores.f1),
        Cell(f"{confused} ({count})" if confused else NONE, (confused, count)),
    )


def _percent(value):
    """Cell of a fraction that may be missing or NaN."""
    if value is None or np.isnan(value):
        return Cell(NONE, (None,))
    return Cell(points(value), (value,))


def further_table(group):
    """Wilcoxon, Hedges's g, power and McNemar of a `Group`, or None."""
    if not group.comparisons:
        return None
    columns = (
        Column("Loss", ("loss",), numeric=False),
        Column("Pairs", ("pairs",)),
        Column("p, Wilcoxon", ("p_wilcoxon",)),
        Column("Hedges's g, 95% CI", ("g", "g_low", "g_high")),
        Column(
            f"{_pairs(group).capitalize()} for 80% power, at the ends of the "
            "effect's CI",
            ("seeds_low", "seeds_high"),
        ),
        Column("McNemar, median p", ("p_mcnemar_median",)),
        Column(
            "McNemar, pairs with p < 0.05",
            ("mcnemar_below", "mcnemar_pairs"),
        ),
    )
    rows = tuple(_further_cells(c) for c in group.comparisons)
    notes = (
        "McNemar's test takes one seed's two trained networks and asks "
        "whether these two differ on this test set; it says nothing on other "
        "seeds. Its p-values are not corrected.",
        f"The numbers of {_pairs(group)} are as uncertain as the effect: they "
        "belong to both ends of its interval, \N{INFINITY} where that holds 0.",
    )
    title = f"Further tests: {group.title}"
    return Table(title, columns, rows, notes, _context(group))


def calibration_table(group):
    """NLL, Brier score and ECE of each loss and method, or None."""
    columns = (
        Column("Loss", ("loss",), numeric=False),
        Column("Probabilities", ("method",), numeric=False, short="kind"),
        Column("n", ("n",)),
        Column("NLL [nats]", ("nll_mean", "nll_std")),
        Column("Brier", ("brier_mean", "brier_std")),
        Column("ECE [%]", ("ece_mean", "ece_std")),
        Column("Temperature", ("temperature_mean",), short="T"),
    )
    rows = [
        _calibration_cells(row)
        for method in METHODS
        for result in group.losses
        for row in result.calibration
        if row.method == method
    ]
    if not rows:
        return None
    title = f"Calibration: {group.title}"
    notes = tuple(_calibration_notes(group, rows))
    return Table(title, columns, tuple(rows), notes, _context(group))


def fold_table(group):
    """Accuracy of each loss over the folds of a cross-validation, or None.

    Each fold is first averaged over its seeds. The standard deviation is over
    the folds.
    """
    if group.config.fold is None:
        return None
    columns = (
        Column("Loss", ("loss",), numeric=False),
        Column("Folds", ("folds",)),
        Column("Seeds", ("seeds",)),
        Column("Accuracy [%]", ("accuracy_mean", "accuracy_std")),
        Column(
            "1-off accuracy [%]", ("one_off_mean", "one_off_std"), short="1-off"
        ),
    )
    rows = tuple(_fold_cells(r) for r in group.losses if r.records)
    notes = (
        f"Last epoch, mean {PLUS_MINUS} standard deviation over the folds. "
        "1-off: predicted within one class of the true one.",
    )
    title = f"Accuracy over the folds: {group.title}"
    return Table(title, columns, rows, notes, _context(group))


def _fold_cells(result):
    by_fold = {}
    for record in result.records:
        by_fold.setdefault(record.config.fold, []).append(record.result["last"])
    summaries = []
    for name in ("accuracy", "one_off_accuracy"):
        means = [
            np.mean([last[name] for last in of_fold])
            for of_fold in by_fold.values()
        ]
        summaries.append(statistics.summarise(np.array(means)))
    seeds = {record.config.seed for record in result.records}
    return (
        Cell(result.label, (result.loss,), loss=result.loss),
        Cell(f"{len(by_fold)}", (len(by_fold),)),
        Cell(f"{len(seeds)}", (len(seeds),)),
        *map(mean_std_cell, summaries),
    )


def rate_table(family):
    """Error by learning rate and loss of a `Family`, or None for one rate."""
    if len(family.groups) < 2:
        return None
    columns = [Column("Learning rate", ("learning_rate",))]
    for loss in family.losses:
        names = ("mean", "std", "n", "n_diverged")
        columns.append(
            Column(loss_label(loss), tuple(f"{loss} {name}" for name in names))
        )
    rows = tuple(_rate_cells(group, family) for group in family.groups)
    over = _over(family.groups[0])
    notes = (
        f"Test error in %, last epoch, mean {PLUS_MINUS} standard deviation "
        f"over the {over} (their number); the lowest of each loss is marked.",
        *family.notes,
    )
    title = f"Error by learning rate and loss: {family.title}"
    return Table(title, tuple(columns), rows, notes)


def diverged_table(families):
    """The diverged runs with epoch, step and learning rate, or None."""
    found = [(g, r) for f in families for g in f.groups for r in g.diverged]
    if not found:
        return None
    columns = (
        Column("Runs", ("title",), numeric=False),
        Column("Loss", ("loss",), numeric=False),
        Column("Seed", ("seed",)),
        Column("Epoch", ("epoch",)),
        Column("Step", ("step",)),
        Column("Learning rate", ("learning_rate",)),
    )
    rows = []
    for group, record in found:
        loss, pair = record.config.loss, record.config.pair
        failure = record.result["failure"]
        epoch, step = failure["epoch"], failure["step"]
        rate = failure["learning_rate"]
        rows.append(
            (
                Cell(group.title, (group.title,)),
                Cell(loss_label(loss), (loss,), loss=loss),
                Cell(pair_text(pair), (record.config.seed,)),
                Cell(f"{epoch:,}", (epoch,)),
                Cell(f"{step:,}", (step,)),
                Cell(f"{rate:g}", (rate,)),
            )
        )
    notes = (
        "Their loss became NaN or infinite there. They have no test error and "
        "are in no mean; the learning rate is the one of that step.",
    )
    return Table("Runs that diverged", columns, tuple(rows), notes)


def all_tables(families):
    """Every table of a comparison, in reading order."""
    found = []
    for family in families:
        found.append(own_rate_table(family))
        found.append(effect_table(family))
        found.append(rate_table(family))
        for group in family.groups:
            if group.model:
                found.append(accuracy_table(group))
                found.append(class_table(group, MOST_CLASS_ROWS))
            else:
                found.append(error_table(group))
            found.append(fold_table(group))
            found.append(further_table(group))
            found.append(calibration_table(group))
    found.append(diverged_table(families))
    return [table for table in found if table is not None]


def to_rich(table, width=80):
    """Makes a `rich.table.Table` for a terminal with `width` characters."""
    rich_table = require("rich.table", "experiments")
    rich_box = require("rich.box", "experiments")
    # `Text`, because Rich reads a name in brackets as markup.
    text = require("rich.text", "experiments").Text
    columns, rows = table.shown
    cells = [[_terminal_text(cell) for cell in row] for row in rows]
    heads = [column.short or column.title for column in columns]
    keep = _fitting(columns, [heads, *cells], width)
    made = rich_table.Table(
        title=text(table.title),
        title_justify="left",
        box=rich_box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for i in keep:
        made.add_column(
            text(heads[i]),
            justify="right" if columns[i].numeric else "left",
            overflow="fold",  # Never cut a number.
        )
    for row in cells:
        made.add_row(*(text(row[i]) for i in keep))
    return made


def to_markdown(table):
    """Writes a Markdown table with its title and a list of its notes."""
    columns, rows = table.shown
    head = [escape_markdown(column.title) for column in columns]
    rule = ["---:" if column.numeric else ":---" for column in columns]
    body = [[_markdown_cell(cell) for cell in row] for row in rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]
    notes = [f"- {escape_markdown(note)}" for note in table.notes]
    parts = [f"### {escape_markdown(table.title)}", "\n".join(lines)]
    return "\n\n".join(parts + ["\n".join(notes)] * bool(notes)) + "\n"


def to_csv(tables):
    """Writes tables with the same columns below each other as CSV.

    Numbers have all digits. A missing number is an empty cell.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for i, table in enumerate(tables):
        names = [name for column in table.columns for name in column.names]
        if i == 0:
            writer.writerow([*table.context, *names])
        for row in table.rows:
            values = [*table.context.values()]
            values += [value for cell in row for value in cell.values]
            writer.writerow(values)
    return buffer.getvalue()


def to_latex(table):
    """Writes a LaTeX `table` with booktabs rules, for \\input.

    The document needs `\\usepackage{booktabs}`, and `graphicx` to shrink wide
    tables.
    """
    columns, rows = table.shown
    layout = "".join("r" if column.numeric else "l" for column in columns)
    heads = [_latex_head(column) for column in columns]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(table.title)}.}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
    ]
    for row in rows:
        lines.append(" & ".join(map(_latex_cell, row)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    if table.notes:
        lines.append(r"\par\medskip\begin{minipage}{\linewidth}")
        lines.append(r"\footnotesize\raggedright")
        lines += [rf"{escape_latex(note)}\par" for note in table.notes]
        lines.append(r"\end{minipage}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def escape_latex(text):
    """Escapes the special characters of LaTeX."""
    return "".join(LATEX.get(character, character) for character in text)


def _context(group):
    config = group.config
    # If each loss has its own rate, the rate is a column.
    rate = {} if group.own_rates else {"learning_rate": group.rate}
    return {
        "runs": group.title,
        "dataset": config.dataset,
        "network": config.network,
        "backend": config.backend,
        "precision": config.precision,
        "epochs": config.recipe.epochs,
        **rate,
        "baseline": group.baseline,
    }


def mean_std_cell(summary, scale=100.0, form=".2f", std_form=None):
    """Cell of a mean and its standard deviation, in these format codes."""
    values = (summary.mean, summary.std)
    if summary.mean is None:
        return Cell(NONE, values)
    text = format(scale * summary.mean, form)
    if summary.std is not None:
        std = format(scale * summary.std, std_form or form)
        text += f" {PLUS_MINUS} {std}"
    return Cell(text, values)


def _result_cells(result):
    n, diverged = len(result.records), len(result.diverged)
    text = f"{n} ({diverged} diverged)" if diverged else f"{n}"
    return (
        Cell(result.label, (result.loss,), loss=result.loss),
        Cell(text, (n, diverged)),
        mean_std_cell(result.last),
        mean_std_cell(result.best),
    )


def _comparison_cells(c):
    if c is None:  # The baseline.
        return tuple(
            Cell(NONE, (None,) * count) for count in (4, 1, 1, 3, 1, 3, 4)
        )
    test = c.test
    low, high = test.ci or (None, None)
    return (
        Cell(_difference_text(test), (test.n, test.mean_difference, low, high)),
        Cell(p_text(test.p), (test.p,)),
        Cell(p_text(c.p_holm), (c.p_holm,), strong=c.shown),
        _with_interval(c.effect.d_z, c.effect.ci),
        Cell(seeds_text(c.seeds_needed), (c.seeds_needed,)),
        Cell(values=(*(c.seeds_needed_range or (None, None)), c.wilcoxon.p)),
        Cell(
            values=(c.effect.g, *(c.effect.g_ci or (None, None)), c.mcnemar_p)
        ),
    )


def _difference_text(test):
    if test.mean_difference is None:
        return NONE
    text = points(test.mean_difference, sign=True)
    if test.ci is None:
        return text
    low, high = (points(limit, sign=True) for limit in test.ci)
    return f"{text} [{low}, {high}]"


def _with_interval(value, ci):
    values = (value, *(ci or (None, None)))
    if value is None:
        return Cell(NONE, values)
    texts = [f"{x:+.2f}".replace("-", MINUS) for x in values]
    return Cell(f"{texts[0]} [{texts[1]}, {texts[2]}]", values)


def _further_cells(c):
    low, high = c.seeds_needed_range or (None, None)
    needed = NONE if low is None else f"{seeds_text(low)} to {seeds_text(high)}"
    made = [test.p for test in c.mcnemar if test.p is not None]
    below = sum(p < 0.05 for p in made)
    return (
        Cell(c.label, (c.loss,), loss=c.loss),
        Cell(f"{c.test.n}", (c.test.n,)),
        Cell(p_text(c.wilcoxon.p), (c.wilcoxon.p,)),
        _with_interval(c.effect.g, c.effect.g_ci),
        Cell(needed, (low, high)),
        Cell(p_text(c.mcnemar_p), (c.mcnemar_p,)),
        Cell(f"{below} of {len(made)}" if made else NONE, (below, len(made))),
    )


def _calibration_cells(row):
    temperature = NONE if row.temperature is None else f"{row.temperature:.3f}"
    return (
        Cell(loss_label(row.loss), (row.loss,), loss=row.loss),
        Cell(row.method, (row.method,)),
        Cell(f"{row.n}", (row.n,)),
        mean_std_cell(row.nll, scale=1, form=".4f"),
        mean_std_cell(row.brier, scale=1, form=".4f"),
        mean_std_cell(row.ece),
        Cell(temperature, (row.temperature,)),
    )


def _rate_cells(group, family):
    cells = [Cell(f"{group.rate:g}", (group.rate,))]
    by_loss = {result.loss: result for result in group.losses}
    for loss in family.losses:
        result = by_loss.get(loss)
        if result is None:
            cells.append(Cell(NONE, (None, None, 0, 0)))
            continue
        cell = mean_std_cell(result.last)
        n, diverged = len(result.records), len(result.diverged)
        count = f"{n}, {diverged} diverged" if diverged else f"{n}"
        cells.append(
            Cell(
                f"{cell.text} ({count})",
                (*cell.values, n, diverged),
                strong=family.best_rates.get(loss) == group.rate,
            )
        )
    return tuple(cells)


def _over(group):
    """The noun for what a mean is over and what pairs share."""
    return "seeds" if group.config.fold is None else "seeds and folds"


def _pairs(group):
    """The noun for the pairs of a comparison."""
    return "seeds" if group.config.fold is None else "pairs"


def _error_notes(group):
    if any(r.result.get("given") for r in group.records):
        yield from _notes_of_given(group)
        return
    yield (
        f"Mean {PLUS_MINUS} standard deviation (n {MINUS} 1) over the "
        f"{_over(group)}. Best epoch: the lowest test error of any epoch, "
        "chosen on the test set itself and so optimistic; the tests use the "
        "last epoch."
    )
    if not group.comparisons:
        return
    baseline = loss_label(group.baseline)
    tested = group.comparisons[0].family_size
    pairs = sorted({c.test.n for c in group.comparisons})
    by = "seed" if group.config.fold is None else "seed and fold"
    made = (
        "with a paired t-test, two-sided. Holm's correction is over "
        f"{counted(tested, 'test')}, all of this table. The intervals are not "
        "corrected."
        if tested
        else f"of too few {_pairs(group)} for a test."
    )
    yield (
        f"Difference: loss minus {baseline}, a negative one is in favour of "
        f"the loss; paired by {by} ({listed([str(n) for n in pairs])} "
        f"{'pair' if pairs == [1] else 'pairs'}), {made}"
    )
    yield (
        "Effect: mean difference over the standard deviation of the "
        f"differences. {_pairs(group).capitalize()}: what a paired t-test at "
        "0.05 needs to find an effect as large as the one seen with 80% power."
    )


def _notes_of_given(group):
    baseline = loss_label(group.baseline)
    yield f"Mean {PLUS_MINUS} standard deviation (n {MINUS} 1) over the runs."
    if group.comparisons:
        unpaired = any(c.unpaired for c in group.comparisons)
        test = "Welch's t-test" if unpaired else "a t-test of pairs by seed"
        tested = group.comparisons[0].family_size
        yield (
            f"Difference: loss minus {baseline}, a negative one is in favour "
            f"of the loss; with {test}, two-sided. Holm's correction is over "
            f"{counted(tested, 'test')}."
        )


def _calibration_notes(group, rows):
    methods = {row[1].text for row in rows}
    samples = plural(group.config.noun)
    yield (
        "Test set; lower is better. ECE: 15 bins of equal mass, biased "
        f"upwards for few samples a bin. Mean {PLUS_MINUS} standard deviation "
        f"over the {_over(group)}."
    )
    if "CRL posterior" in methods:
        yield (
            "CRL posterior: the class posterior in closed form from the "
            "softmax of a CRL-trained network, whose optimum is not the "
            "posterior itself. At alpha = 0 (NLLR) it gives no class more "
            "than 1/2."
        )
    if group.config.recipe.soft_labels and any(
        parse_loss(row[0].loss)[0] in ("crl", "nllr") for row in rows
    ):
        yield (
            "No CRL posterior: it is for hard labels, and these were smoothed "
            "or mixed."
        )
    left_out = [
        f"{counted(n, 'run')} of {result.label}"
        for result in group.losses
        if (n := _without_temperature(result))
    ]
    if left_out:
        yield (
            f"No temperature fits {listed(left_out)}: the logits do worse "
            f"than guessing, or have all held-out {samples} right, so that "
            "ever sharper would be better (then --held-out more)."
        )
    if "temperature" in methods:
        held_out = group.records[0].result["dataset"]["held_out"]
        yield (
            "Temperature: logits divided by one number, fitted to each run on "
            f"{held_out:,} {samples} held out of the training split."
        )
    elif not left_out:
        yield (
            "No temperature scaling: no part of the training split was held "
            "out to fit one on (--held-out)."
        )


def _without_temperature(result):
    """Counts runs with held-out samples but no usable temperature."""
    return sum(
        bool(record.result["dataset"]["held_out"])
        and record.config.pair in result.evaluations
        and "temperature"
        not in result.evaluations[record.config.pair].calibrations
        for record in result.records
    )


def _fitting(columns, lines, width):
    """Leaves out optional columns until the others fit the width."""
    keep = list(range(len(columns)))
    widths = [
        max(len(part) for line in lines for part in line[i].split("\n"))
        for i in keep
    ]
    optional = [i for i in keep if columns[i].optional]
    # Two characters between columns and at both ends.
    optional.sort(key=lambda i: widths[i])
    while optional and sum(widths[i] + 2 for i in keep) > width:
        keep.remove(optional.pop())
    return keep


def _terminal_text(cell):
    """The text of a cell, with the interval below the number."""
    text = cell.text.replace(" [", "\n[")
    text = text.replace("(", "\n(") if cell.loss else text
    return f"{text}*" if cell.strong else text


def escape_markdown(text):
    """Escapes the special characters of Markdown."""
    text = " ".join(text.splitlines())
    return re.sub(r"([\\`*_\[\]<>|#$&~])", r"\\\1", text)


def _markdown_cell(cell):
    text = escape_markdown(cell.text)
    return f"**{text}**" if cell.strong else text


def _latex_head(column):
    text = column.title
    # A long title is broken into lines to keep the column narrow.
    words, lines = text.split(" "), [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > 16:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    if len(lines) == 1:
        return escape_latex(text)
    side = "r" if column.numeric else "l"
    stacked = r"\\".join(map(escape_latex, lines))
    return rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}"


def _latex_cell(cell):
    text = escape_latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.strong else text
