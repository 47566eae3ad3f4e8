"""Shows the progress of runs: bars on a terminal, otherwise lines."""

import contextlib
import time

from crl_keras.experiments._optional import require
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.records import RunFolder
from crl_keras.experiments.runs.sweep import run_line

LINE_SECONDS = 1.0  # Minimum time between lines on epochs.


def epoch_text(row):
    """The scores of an epoch as text for a line or a bar.

    >>> epoch_text(dict(train_loss=1.5, train_accuracy=0.5, test_loss=2.0,
    ...     test_accuracy=0.25, images_per_second=70.4))
    'train loss 1.5, accuracy 50.0%; test 25.0%; 70 images/s'
    """
    parts = [
        f"train loss {row['train_loss']:.4g}, accuracy "
        f"{row['train_accuracy']:.1%}"
    ]
    if "val_accuracy" in row:
        parts.append(f"validation {row['val_accuracy']:.1%}")
    parts.append(f"test {row['test_accuracy']:.1%}")
    parts.append(f"{row['images_per_second']:.0f} images/s")
    return "; ".join(parts)


class Progress:
    """Shows runs and epochs of a plan; a context manager.

    `run_sweep`, `run_workers` and `run_ray` call its methods `on_run`,
    `on_stack`, `on_epoch` and `on_wait`.
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
        self.printed = time.monotonic()
        if self.seen:
            self.console.print(
                f"{len(self.seen)} of {self.total} runs are done already."
            )
        return self

    def __exit__(self, *error):
        self.bars.stop()

    def on_run(self, config, result):
        if result is None:
            title = f"{loss_label(config.loss)} seed {config.seed}"
            self._begin(title, config.recipe.epochs)
        else:
            self._ended(config, result)

    def on_stack(self, configs):
        """Shows one bar for runs that are trained as one program."""
        epochs = sum(config.recipe.epochs for config in configs)
        self._begin(f"{len(configs)} runs together", epochs, len(configs))

    def _begin(self, title, epochs, step=1):
        self.title, self.epochs, self.step = title, epochs, step
        self.started, self.before = time.monotonic(), None
        self.bars.reset(self.run, description=title, total=epochs, visible=True)

    def on_epoch(self, row):
        if self.before is None:  # A resumed run starts after epoch 1.
            self.before = int(row["epoch"]) - self.step
        note = epoch_text(row)
        self.bars.update(self.run, completed=row["epoch"], note=note)
        now = time.monotonic()
        # Not a line for each epoch if epochs are shorter than a second.
        if not self.console.is_terminal and now - self.printed >= LINE_SECONDS:
            self.console.print(self._epoch_line(row, now), soft_wrap=True)
            self.printed = now

    def _epoch_line(self, row, now):
        epoch, epochs = int(row["epoch"]), self.epochs
        each = (now - self.started) / (epoch - self.before)
        left = round(each * (epochs - epoch))
        return (
            f"  {self.title}, epoch {epoch}/{epochs}: {epoch_text(row)}, "
            f"{left // 60}:{left % 60:02} left"
        )

    def on_wait(self):
        """Shows runs that other processes have finished."""
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
