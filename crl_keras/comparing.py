"""Compares losses on your own models and data, or from existing results.

`compare_losses` trains a model with several losses and seeds, and says what the
numbers support. `compare_results` does the same for numbers from elsewhere.
Both functions run the code behind the command line. Importing this module
imports only the standard library.
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

    For each seed, all losses start from the same weights, see the same batches
    in the same order, and use the same dropout. The test errors are compared in
    pairs with the same seed, by a paired t-test with Holm's correction over the
    losses. Wilcoxon's test is reported too.

    Args:
        build_model: Function without arguments that returns a new `keras.Model`
            that ends in logits, `[N, C]` with `C >= 2`. It is called once for
            each run, after `keras.utils.set_random_seed(seed)`.
        train: Arrays `(inputs, labels)` or `(inputs, labels, weights)` (NumPy,
            tensors, pandas); several inputs are a dict or tuple. Or a
            `tf.data.Dataset`, `keras.utils.PyDataset` or PyTorch `DataLoader`
            that yields such batches. Or a function that takes the seed and
            returns one of these. Labels are integers `[N]` in `[0, C)`, or
            one-hot or soft `[N, C]`.
        test: Test data in the same form, in a fixed order.
        losses: Dict that maps your own names to Keras losses, loss functions or
            names such as `"crl(alpha=2,beta=1)"`; or a list of such names.
        optimizer: Function that returns a new Keras optimizer, or the name of
            an optimizer. With `learning_rates`, the function takes the rate.
            Defaults to `"adam"`.
        epochs: Integer >= 1.
        seeds: Number of seeds, or the seeds. Defaults to `10`.
        batch_size: Integer >= 1, used if the data are arrays. Defaults to `32`.
        validation: Data in the same form as `test`. Temperatures are fitted on
            it, and callbacks see it. Defaults to `None`: no such data.
        held_out: Fraction in [0, 1) of the arrays in `train` that is kept out
            of training and used as `validation`. Defaults to 0.1 if the data
            are arrays and `validation` is None, otherwise 0.
        baseline: Name of the loss that the others are compared with. Defaults
            to the first.
        learning_rates: Learning rates; each loss is trained with each rate.
            Defaults to `None`: the optimizer's own rate.
        rates_by_seed: With several `learning_rates`, whether to choose a
            separate rate for each seed of a loss. Defaults to `False`: one rate
            for all seeds of a loss. Rates are chosen on the held-out samples,
            never on the test set.
        split_effect: Whether to also train two controls of each loss of this
            package, `StepMatchedCrossEntropy` and `StepNormalizedLoss`. They
            separate the effect of its longer steps from the effect of its
            weighting of the samples. Defaults to `False`.
        metrics: Keras metrics, computed from labels and logits of the test set.
            The tables show them by name, with the same tests.
        callbacks: Functions that each return a new Keras callback. Its
            `val_loss` is computed on the held-out part, never on the test set.
        class_weight: Dict that maps a class to its weight in training.
        sample_weight: Weights `[N]` of the samples, if `train` is arrays.
        class_names: Names of the classes, ordered by class id.
        steps_per_epoch: Number of batches in an epoch. Defaults to all batches.
        jit_compile: As in `Model.compile`.
        dtype_policy: Keras dtype policy. Defaults to the global one.
        name: Name of the data in the tables.
        output: Folder for the records. Finished runs in it are not repeated,
            and stopped runs continue. Defaults to `None`: no files are kept.
        keep_models: Whether to keep the trained models for
            `Comparison.model`.
        together: On JAX, how many runs to train in one compiled program, which
            is faster for small models: a number, `"off"`, or `"auto"`, which
            times both ways and takes the faster one. The results are the same
            up to rounding. It works for arrays without weights, callbacks or
            learning rate schedules; other runs are trained one by one. Defaults
            to `"auto"`.
        verbose: 0 for no output, 1 for a progress bar, 2 for one line per run.
            Defaults to `"auto"`: a bar in a terminal or notebook, otherwise
            lines.

    Returns:
        A `Comparison`. If you interrupt the call (Ctrl-C, the stop button), it
        contains the finished runs.

    Raises:
        ValueError: If an argument is wrong, or the task is regression or has
            several classes per sample. It is raised before any training.
        ImportError: If the extra `experiments` is not installed.

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
        - The tests and their assumptions: `docs/comparing.md`.
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
        results: `pandas.DataFrame`, path of a CSV file (with commas or
            semicolons), list of dicts or dict of columns, with one row for each
            run. Columns: `loss` (or `method`), and `error` or `accuracy`.
            Optional: `seed`; `dataset`, `network` and `learning_rate`, which
            split the runs into groups. Any other column of numbers is another
            metric.
        baseline: Name of the loss that the others are compared with. Defaults
            to the first.
        paired: Whether runs with the same seed form a pair. They do if one seed
            gives all losses the same initial weights and batches. Defaults to
            `"auto"`: pairs if seeds are given and shared. Without pairs the
            test is Welch's.
        percent: Whether errors and accuracies are in percent. Defaults to
            `"auto"`: yes if any value is above 1. Then a value that looks like
            a fraction among percents is an error.
        name: Name of the results in the tables. Defaults to the file's name.

    Returns:
        A `Comparison`, without calibration or models.

    Raises:
        ValueError: If a column is missing, a cell is not a number, or a column
            mixes fractions and percent.
        ImportError: If the extra `experiments` is not installed.

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

    A notebook shows its verdicts, tables and figure. `print` shows the tables
    as text.

    Attributes:
        runs: Tuple of `Record`: `config`, `result`, `history`, and `logits()`.
        families: What `crl_keras.experiments.analysis.comparison.compare`
            computes from the runs: every number in the tables.
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
        """List of sentences on what the numbers support, one for each loss.

        With several learning rates or data sets, each begins with the name of
        its group. The losses at their own rates come first.
        """
        from crl_keras.experiments.analysis.report import verdicts

        found = verdicts(self.families)
        if len({title for title, _ in found}) < 2:
            return [sentence for _, sentence in found]
        return [f"{title}: {sentence}" for title, sentence in found]

    @property
    def notes(self) -> list[str]:
        """List of sentences that warn of possible problems."""
        from crl_keras.experiments.analysis.diagnosis import signs

        groups = [f.own for f in self.families if f.own] + self._groups
        notes = [note for group in groups for note in group.notes]
        return [*dict.fromkeys(notes), *signs(self.runs)]

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

        With several data sets or rates, it is a `rich.console.Group` of tables.
        """
        from crl_keras.experiments._optional import require
        from crl_keras.experiments.analysis.tables import error_table
        from crl_keras.experiments.analysis.tables import to_rich

        made = [to_rich(error_table(group), width) for group in self._groups]
        if len(made) == 1:
            return made[0]
        return require("rich.console").Group(*made)

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` of the errors and tests, one row per loss.

        Errors are fractions. The columns are the same as in a report's
        `table.csv`.
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
        if is_given(self.runs[0]):  # How they were trained is unknown.
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
        """Writes the whole report as one HTML page that needs no other file.

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
        """A figure of the report; of several groups, it shows the first.

        Args:
            name: "errors" (test error over the epochs), "runs" (every run,
                joined by seed), "differences" (to the baseline, with
                intervals), "reliability" (as trained) or "rates" (error by
                learning rate). Defaults to `"differences"`.

        Returns:
            `matplotlib.figure.Figure`, or None if there is nothing to draw.

        Raises:
            ValueError: If there is no figure with this name.
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
            seed: Seed of the run.
            learning_rate: Learning rate of the run, if there are several.

        Returns:
            `keras.Model`, built by your function, with the trained weights.

        Raises:
            ValueError: If the model was not kept: see `keep_models`.
        """
        if self._make_model is None:
            raise ValueError(
                "Expected a comparison that kept its models. Received one "
                "without models: call compare_losses with keep_models=True"
            )
        return self._make_model(loss, seed, learning_rate)

    def __repr__(self) -> str:
        from crl_keras.experiments._optional import require
        from crl_keras.experiments.analysis.tables import to_rich

        # In a notebook rich would show the text instead of returning it.
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
