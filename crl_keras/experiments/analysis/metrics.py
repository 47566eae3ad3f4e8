"""Tables of metrics other than the error, with the same tests.

The metrics of a run are in `last["metrics"]` of its result, by their names.
Imports no backend.
"""

from crl_keras.experiments.analysis.comparison import is_unpaired
from crl_keras.experiments.analysis.comparison import tested
from crl_keras.experiments.analysis.evaluation import as_floats
from crl_keras.experiments.analysis.tables import PLUS_MINUS
from crl_keras.experiments.analysis.tables import Cell
from crl_keras.experiments.analysis.tables import Column
from crl_keras.experiments.analysis.tables import Table
from crl_keras.experiments.analysis.tables import mean_std_cell
from crl_keras.experiments.measures import statistics
from crl_keras.experiments.words import LEVEL
from crl_keras.experiments.words import p_text


def metric_table(group):
    """Compares the metrics of each loss with the baseline; None without any."""
    names = dict.fromkeys(
        name
        for result in group.losses
        for record in result.records
        for name in record.result["last"].get("metrics", ())
    )
    if not names:
        return None
    baseline = group.losses[0].label
    columns = (
        Column("Metric", ("metric",), numeric=False),
        Column("Loss", ("loss",), numeric=False),
        Column("n", ("n",)),
        Column("Value", ("mean", "std")),
        Column(
            f"Difference to {baseline}, 95% CI",
            ("difference_mean", "difference_low", "difference_high"),
            short=f"difference\nto {baseline}",
        ),
        Column("p", ("p",)),
        Column("p, Holm", ("p_holm",), short="p\nHolm"),
    )
    rows = [row for name in names for row in _rows(name, group.losses)]
    notes = (
        f"Test set, after the last epoch. Mean {PLUS_MINUS} standard deviation "
        f"over the runs. Difference: loss minus {baseline}. Holm's correction "
        "is over the losses of one metric.",
    )
    title = f"Further metrics: {group.title}"
    return Table(title, columns, tuple(rows), notes)


def _rows(name, losses):
    values = [_values(result, name) for result in losses]
    tests = [None] + [
        tested(of_loss, values[0], is_unpaired(result, losses[0]))
        for result, of_loss in zip(losses[1:], values[1:], strict=True)
    ]
    corrected = statistics.holm([t.p for t in tests[1:]])
    for result, of_loss, test, p in zip(
        losses, values, tests, (None, *corrected), strict=True
    ):
        summary = statistics.summarise(as_floats(of_loss.values()))
        yield (
            Cell(name, (name,)),
            Cell(result.label, (result.loss,), loss=result.loss),
            Cell(f"{summary.n}", (summary.n,)),
            mean_std_cell(summary, 1, ".4g", ".2g"),
            _difference(test),
            Cell(p_text(test and test.p), (test and test.p,)),
            Cell(p_text(p), (p,), strong=p is not None and p < LEVEL),
        )


def _values(result, name):
    found = {
        r.config.pair: r.result["last"].get("metrics", {}).get(name)
        for r in result.records
    }
    return {seed: x for seed, x in found.items() if x is not None}


def _difference(test):
    if test is None or test.mean_difference is None:
        return Cell(values=(None,) * 3)
    numbers = (test.mean_difference, *(test.ci or (None, None)))
    texts = [f"{x:+.3g}" for x in numbers if x is not None]
    interval = f" [{', '.join(texts[1:])}]" if texts[1:] else ""
    text = (texts[0] + interval).replace("-", "\N{MINUS SIGN}")
    return Cell(text, numbers)
