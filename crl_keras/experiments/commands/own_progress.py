"""Shows the runs of `compare_losses`: as a bar, as lines, or not."""

import os
import sys

from crl_keras.experiments.runs import sweep


class Silent:
    def say(self, line):
        pass

    def on_run(self, config, result):
        pass

    def on_epoch(self, row):
        pass


class Lines(Silent):
    """One line per run, if there is no terminal."""

    def __init__(self, plan):
        self.total = len(plan.configs)
        self.done = self.total - len(plan.pending())

    def say(self, line):
        print(line, flush=True)

    def on_run(self, config, result):
        if result is not None:
            self.done += 1
            line = sweep.run_line(config, result, self.done, self.total)
            print(line, flush=True)


class Bar(Silent):
    """Keras's progress bar for the epochs of all runs."""

    def __init__(self, plan):
        import keras

        self.epochs = plan.configs[0].recipe.epochs
        self.done = len(plan.configs) - len(plan.pending())
        self.bar = keras.utils.Progbar(
            len(plan.configs) * self.epochs,
            stateful_metrics=["test error"],
            unit_name="epoch",
        )

    def on_epoch(self, row):
        last = row["epoch"] == self.epochs
        at = self.done * self.epochs + int(row["epoch"])
        error = 1 - row["test_accuracy"]
        # `on_run` shows the end of a run, also if it stopped early.
        if not last:
            self.bar.update(at, [("test error", error)], finalize=False)

    def on_run(self, config, result):
        if result is not None:
            self.done += 1
            self.bar.update(self.done * self.epochs)


def shown_by(verbose, plan):
    if verbose == "auto":
        notebook = "ipykernel" in sys.modules
        verbose = 1 if notebook or sys.stdout.isatty() else 2
        if os.environ.get("CI"):
            verbose = 2
    return {0: lambda plan: Silent(), 1: Bar, 2: Lines}[verbose](plan)
