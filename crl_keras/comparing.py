"""Does a loss help? Own models and data, or results that are there already.

`compare_losses` trains a model with several losses over several seeds and says
what the numbers support; `compare_results` says it of numbers made elsewhere.
Both are the experiments of the command line behind two functions. Importing
this module imports nothing but the standard library.
"""

import functools
import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

__all__ = ["Comparison", "compare_losses", "compare_results"]


def compare_losses(
    build_model: Callable[[], Any],
    train: Any,
    test: Any,
    losses: Mapping[str, Any] | Sequence[str],
    optimizer: str | Callable[..., Any] = "adam",
    *,
    epochs: int,
    seeds: int | Sequence[int] = 10,
    batch_size: int = 32,
    validation: Any = None,
    held_out: float | None = None,
    baseline: str | None = None,
    learning_rates: Sequence[float] | None = None,
    rates_by_seed: bool = False,
    split_effect: bool = False,
    metrics: Sequence[Any] = (),
    callbacks: Sequence[Callable[[], Any]] = (),
    class_weight: Mapping[int, float] | None = None,
    sample_weight: Any = None,
    class_names: Sequence[str] | None = None,
    steps_per_epoch: int | None = None,
    jit_compile: bool | str = "auto",
    dtype_policy: Any = None,
    name: str = "own data",
    output: str | os.PathLike[str] | None = None,
    keep_models: bool = False,
    together: int | str = "auto",
    verbose: int | str = "auto",
) -> "Comparison":
    """Trains a model with each loss over several seeds, and compares.

    For a seed every loss starts from the same weights and sees the same
    batches in the same order, with the same dropout. Differences in test error
    are tested by pairs of the same seed: a paired t-test with Holm's
    correction over the losses, Wilcoxon's test beside it.

    Args:
        build_model: Function without arguments that returns a new
            `keras.Model` that ends in logits, `[N, C]` with `C >= 2`. It is
            called after `keras.utils.set_random_seed(seed)`, once a run.
        train: `(inputs, labels)` or `(inputs, labels, weights)` of arrays
            (NumPy, tensors, pandas), several inputs as a dict or tuple; or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or PyTorch `DataLoader`
            that gives such batches; or a function of the seed that returns one
            of these. Labels are integers `[N]` in `[0, C)`, or one-hot or soft
            `[N, C]`.
        test: The same, in a fixed order.
        losses: Dict from names of your own to Keras losses, loss functions or
            names such as `"crl(alpha=2,beta=1)"`; or a list of such names.
        optimizer: Function that returns a new Keras optimizer (with
            `learning_rates`, function of the rate), or the name of one.
            Defaults to `"adam"`.
        epochs: Integer >= 1.
        seeds: Number of seeds, or the seeds. Defaults to `10`.
        batch_size: Integer >= 1, of arrays. Defaults to `32`.
        validation: Data like `test`. Temperatures are fitted on it, and
            callbacks see it. Defaults to `None`, none.
        held_out: Fraction in [0, 1) of the arrays in `train` that is kept out
            of training and used as `validation`. Defaults to 0.1 for arrays
            without `validation`, otherwise 0.
        baseline: Name of the loss with which the others are compared. Defaults
            to the first.
        learning_rates: Rates to train every loss with, or None for the
            optimizer's own.
        rates_by_seed: With several `learning_rates`, choose the rate of a loss
            for every seed by itself. Defaults to `False`: one rate for all
            seeds of a loss. The held-out samples choose, never the test set.
        split_effect: Whether to train the two controls of each loss of this
            package too, which tell its longer steps from its weighting of
            samples: `StepMatchedCrossEntropy` and `StepNormalizedLoss`.
            Defaults to `False`.
        metrics: Keras metrics, of labels and logits on the test set: in the
            tables by name, with the same tests.
        callbacks: Functions that each return a new Keras callback. Their
            `val_loss` is that of the held-out part, never of the test set.
        class_weight: Dict from a class to its weight in training.
        sample_weight: Weights `[N]` of the arrays in `train`.
        class_names: Names of the classes, in their order.
        steps_per_epoch: Batches of an epoch. Defaults to all there are.
        jit_compile: As `Model.compile` takes it.
        dtype_policy: Keras dtype policy. Defaults to the global one.
        name: What tables call the data.
        output: Folder of the records. Finished runs in it are not repeated,
            and stopped runs continue. Defaults to `None`: nothing stays on
            disk.
        keep_models: Whether to keep the trained models for
            `Comparison.model`.
        together: On JAX, how many runs to train as one compiled program, which
            is faster for small models: a number, `"off"`, or `"auto"`, which
            times both ways and takes the faster. The runs are the same up to
            rounding. For arrays, without weights, callbacks and schedules of
            the learning rate; other runs are trained one by one. Defaults to
            `"auto"`.
        verbose: 0 for silence, 1 for a bar, 2 for a line a run. Defaults to
            `"auto"`: a bar on a terminal and in a notebook, else lines.

    Returns:
        A `Comparison`. If you interrupt the call (Ctrl-C, the stop button), it
        has the finished runs.

    Raises:
        ValueError: An argument is wrong. It is raised before any training,
            also for regression and for several classes in one sample.
        ImportError: Without the extra `experiments`.

    Example:

        >>> x, y = np.random.rand(60, 4), np.arange(60) % 3
        >>> comparison = crl_keras.compare_losses(
        ...     lambda: keras.Sequential([keras.layers.Dense(3)]),
        ...     train=(x, y), test=(x, y), losses=["ce", "crl"],
        ...     epochs=1, seeds=2, verbose=0,
        ... )
        >>> len(comparison.runs)
        4

    Reference:
        - The tests and what they assume: `docs/comparing.md`.
    """
    from crl_keras.experiments.commands import own

    arguments = {k: v for k, v in locals().items() if k != "own"}
    records, first, make_model = own.compared(**arguments)
    return Comparison(records, first, make_model, rates_by_seed)


def compare_results(
    results: Any,
    baseline: str | None = None,
    *,
    paired: bool | str = "auto",
    percent: bool | str = "auto",
    name: str | None = None,
) -> "Comparison":
    """Compares losses by results that you already have.

    Args:
        results: `pandas.DataFrame`, path of a CSV file, list of dicts or dict
            of columns, with one row for each run. Columns: `loss` (or
            `method`), and `error` or `accuracy`. Optional: `seed`; `dataset`,
            `network` and `learning_rate`, which make groups. Any other column
            of numbers is a further metric.
        baseline: The loss the others are compared with. Defaults to the first.
        paired: Whether runs of the same seed are pairs. They are if one seed
            gives all losses the same initial weights and batches. Defaults to
            `"auto"`: pairs if seeds are given and shared. Otherwise the test
            is Welch's.
        percent: Whether errors and accuracies are in percent. Defaults to
            `"auto"`: yes if one is above 1.
        name: What tables call the results. Defaults to the file's name.

    Returns:
        A `Comparison`, without calibration and models.

    Raises:
        ValueError: A column is missing, or a cell is no number.
        ImportError: Without the extra `experiments`.

    Example:

        >>> comparison = crl_keras.compare_results({
        ...     "loss": ["CE", "CE", "CE", "CRL", "CRL", "CRL"],
        ...     "seed": [0, 1, 2, 0, 1, 2],
        ...     "accuracy": [91.2, 90.8, 91.1, 91.9, 91.6, 91.6],
        ... })
        >>> print(comparison.verdicts[0].partition(" (")[0])
        With 3 seeds, the mean test error of CRL is 0.67 points lower than CE's
    """
    from crl_keras.experiments.analysis.given import given_records

    records, baseline = given_records(results, baseline, paired, percent, name)
    return Comparison(records, baseline)


class Comparison:
    """What `compare_losses` and `compare_results` return.

    In a notebook it shows its verdicts, table and figure; `print` gives the
    tables of a terminal.

    Attributes:
        runs: Tuple of `Record`: `config`, `result`, `history`, and `logits()`.
        families: What `crl_keras.experiments.analysis.comparison.compare`
            makes of them: every number of the tables.
    """

    def __init__(
        self,
        runs: Iterable[Any],
        baseline: str | None = None,
        make_model: Callable[..., Any] | None = None,
        rates_by_seed: bool = False,
    ) -> None:
        from crl_keras.experiments.analysis.comparison import compare

        self.runs, self._baseline = tuple(runs), baseline
        self._make_model = make_model
        self.families = compare(
            self.runs, baseline, rates_by_seed=rates_by_seed
        )

    @functools.cached_property
    def _groups(self):
        return [group for f in self.families for group in f.groups]

    @property
    def verdicts(self) -> list[str]:
        """List of sentences on what the numbers support, one a loss."""
        from crl_keras.experiments.analysis.report import verdicts

        return [sentence for _, sentence in verdicts(self.families)]

    @property
    def notes(self) -> list[str]:
        """List of sentences on what needs care."""
        notes = [note for group in self._groups for note in group.notes]
        return [*dict.fromkeys(notes)]

    def _tables(self):
        from crl_keras.experiments.analysis.metrics import metric_table
        from crl_keras.experiments.analysis.tables import calibration_table
        from crl_keras.experiments.analysis.tables import effect_table
        from crl_keras.experiments.analysis.tables import error_table
        from crl_keras.experiments.analysis.tables import own_rate_table
        from crl_keras.experiments.analysis.tables import rate_table

        makers = (own_rate_table, effect_table, rate_table)
        found = [make(family) for family in self.families for make in makers]
        for group in self._groups:
            found.append(error_table(group))
            found.append(metric_table(group))
            found.append(calibration_table(group))
        return [table for table in found if table is not None]

    def table(self, width: int = 100) -> Any:
        """The errors of every loss as a `rich.table.Table`.

        With several data sets or rates, a `rich.console.Group` of them.
        """
        from crl_keras.experiments._optional import require
        from crl_keras.experiments.analysis.tables import error_table
        from crl_keras.experiments.analysis.tables import to_rich

        made = [to_rich(error_table(group), width) for group in self._groups]
        if len(made) == 1:
            return made[0]
        return require("rich.console").Group(*made)

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` of the errors and tests, a row a loss.

        Errors are fractions; its columns are those of `table.csv` of a report.
        """
        import io

        from crl_keras.experiments._optional import require
        from crl_keras.experiments.analysis import tables
        from crl_keras.experiments.analysis.comparison import is_given
        from crl_keras.experiments.runs.config import loss_label

        pandas = require("pandas", "experiments")
        made = [tables.error_table(group) for group in self._groups]
        frame = pandas.read_csv(io.StringIO(tables.to_csv(made)))
        for column in ("loss", "baseline"):
            frame[column] = frame[column].map(loss_label)
        if is_given(self.runs[0]):  # Of their training nothing is known.
            frame = frame.drop(columns=["backend", "precision", "epochs"])
        return frame

    def to_markdown(self) -> str:
        """All tables and verdicts as Markdown."""
        from crl_keras.experiments.analysis.report import to_markdown

        return to_markdown(self.families)

    def to_latex(self) -> str:
        r"""All tables as LaTeX, to be \input; needs booktabs, graphicx."""
        from crl_keras.experiments.analysis.report import to_latex

        return to_latex(self.families)

    def report(
        self, path: str | os.PathLike[str] = "report.html"
    ) -> pathlib.Path:
        """Writes the whole report as one HTML page that needs nothing else.

        Args:
            path: Path of the file. Defaults to `"report.html"`.

        Returns:
            `pathlib.Path` of the file.
        """
        from crl_keras.experiments.analysis.report import to_html

        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_html(self.families), encoding="utf-8")
        return path

    FIGURES = ("errors", "runs", "differences", "reliability", "rates")

    def figure(self, name: str = "differences") -> Any:
        """A figure of the report, of the first of several groups.

        Args:
            name: "errors" (test error over the epochs), "runs" (every run,
                joined by seed), "differences" (to the baseline, with
                intervals), "reliability" (as trained) or "rates" (error by
                learning rate). Defaults to `"differences"`.

        Returns:
            `matplotlib.figure.Figure`, or None where there is nothing to draw.

        Raises:
            ValueError: There is no figure of that name.
        """
        drawn = self._drawn(name)
        return drawn and drawn.svg.figure

    def _drawn(self, name):
        from crl_keras.experiments.analysis import figures

        if name not in self.FIGURES:
            raise ValueError(
                f"Expected one of {', '.join(self.FIGURES)}. Received: {name!r}"
            )
        styles, group = figures.loss_styles(self.families), self._groups[0]
        return {
            "errors": lambda: figures.error_curves(group, styles),
            "runs": lambda: figures.seed_strip(group, styles),
            "differences": lambda: figures.differences(group, styles),
            "reliability": lambda: figures.reliability(
                group, "as trained", styles
            ),
            "rates": lambda: figures.rate_figure(self.families[0], styles),
        }[name]()

    def model(
        self, loss: str, seed: int, learning_rate: float | None = None
    ) -> Any:
        """The trained model of a run.

        Args:
            loss: Name of the loss, as in the tables.
            seed: Its seed.
            learning_rate: Its rate, where there are several.

        Returns:
            `keras.Model`, built by your function, with the trained weights.

        Raises:
            ValueError: It was not kept: see `keep_models`.
        """
        if self._make_model is None:
            raise ValueError(
                "Expected a comparison that kept its models. Received one "
                "without: give compare_losses keep_models=True"
            )
        return self._make_model(loss, seed, learning_rate)

    def __repr__(self) -> str:
        from crl_keras.experiments._optional import require
        from crl_keras.experiments.analysis.tables import to_rich

        # In a notebook it would show what it is to give back.
        console = require("rich.console").Console(
            width=100, color_system=None, force_jupyter=False
        )
        with console.capture() as captured:
            for table in self._tables():
                console.print(to_rich(table, console.width))
            for sentence in self.verdicts:
                console.print(sentence, markup=False, highlight=False)
            for note in self.notes:
                console.print(f"Note: {note}", markup=False, highlight=False)
        return captured.get().rstrip()

    def _repr_html_(self):
        """For notebooks: verdicts, tables and figure, without any link."""
        from crl_keras.experiments.analysis.notebook import to_notebook

        several = len(self.families[0].groups) > 1
        name = "rates" if several else "differences"
        return to_notebook(self.families, self._drawn(name))
