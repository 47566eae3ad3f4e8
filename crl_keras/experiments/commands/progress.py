"""Progress of an experiment: bars on a terminal, a line a run elsewhere."""

import contextlib

from crl_keras.experiments._optional import require
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.records import RunFolder
from crl_keras.experiments.runs.sweep import run_line


class Progress:
    """Shows runs and epochs of a plan; a context manager.

    Its methods `on_run`, `on_epoch` and `on_wait` are what `run_sweep`,
    `run_workers` and `run_ray` call.
    """

    def __init__(self, plan, console=None):
        rich_console = require("rich.console", "experiments")
        bars = require("rich.progress", "experiments")
        self.plan = plan
        self.console = console or rich_console.Console()
        self.total = len(plan.configs)
        self.seen = {c.run_id for c in plan.configs} - {
            c.run_id for c in plan.pending()
        }
        self.bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("left"),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self):
        self.bars.start()
        self.runs = self.bars.add_task(
            "runs", total=self.total, completed=len(self.seen), note=""
        )
        self.run = self.bars.add_task("run", total=1, visible=False, note="")
        if self.seen:
            self.console.print(
                f"{len(self.seen)} of {self.total} runs are done already."
            )
        return self

    def __exit__(self, *error):
        self.bars.stop()

    def on_run(self, config, result):
        if result is None:
            self.bars.reset(
                self.run,
                description=f"{loss_label(config.loss)} seed {config.seed}",
                total=config.recipe.epochs,
                visible=True,
            )
        else:
            self._ended(config, result)

    def on_epoch(self, row):
        note = (
            f"{row['images_per_second']:.0f} images/s, "
            f"test error {1 - row['test_accuracy']:.2%}"
        )
        self.bars.update(self.run, completed=row["epoch"], note=note)

    def on_wait(self):
        """Looks for runs that other processes have ended."""
        import json

        for config in self.plan.configs:
            if config.run_id in self.seen:
                continue
            folder = RunFolder(self.plan.output, config)
            if folder.done:
                with contextlib.suppress(ValueError, OSError):
                    text = (folder.path / "result.json").read_text()
                    self._ended(config, json.loads(text))

    def _ended(self, config, result):
        self.seen.add(config.run_id)
        self.bars.update(self.runs, completed=len(self.seen))
        self.bars.update(self.run, visible=False)
        self.console.print(run_line(config, result, len(self.seen), self.total))
