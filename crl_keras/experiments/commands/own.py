"""Trains the runs of `compare_losses` and keeps their records."""

import contextlib
import json
import pathlib
import tempfile

import numpy as np

from crl_keras.experiments.commands.own_arguments import add_losses
from crl_keras.experiments.commands.own_arguments import check_numbers
from crl_keras.experiments.commands.own_arguments import dtype_policy
from crl_keras.experiments.commands.own_arguments import make_configs
from crl_keras.experiments.commands.own_arguments import make_metrics
from crl_keras.experiments.commands.own_arguments import make_problem
from crl_keras.experiments.commands.own_arguments import measured
from crl_keras.experiments.commands.own_arguments import policy_name
from crl_keras.experiments.commands.own_progress import shown_by
from crl_keras.experiments.runs import own
from crl_keras.experiments.runs import records
from crl_keras.experiments.runs import sweep
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.training import Options
from crl_keras.experiments.words import counted

OWN_ORDER = (
    "Training batches come from a pipeline in its own order. The seed of "
    "compare_losses does not set this order."
)


def compared(**given):
    """Trains the runs that are not done yet.

    Returns:
        `(records, baseline, make_model)`: the arguments of `Comparison`.
    """
    check_numbers(given)
    policy = policy_name(given["dtype_policy"])
    with dtype_policy(policy):
        problem, model = make_problem(given)
        baseline = add_losses(problem, model, given)
        metrics = make_metrics(problem, model, given["metrics"])
        configs = make_configs(problem, model, policy, given)
    model = None
    with _folder(given["output"]) as folder:
        work = _Work(problem, configs, folder, given, baseline)
        work.run()
        found = work.records(metrics)
    return found, baseline, work.model if given["keep_models"] else None


@contextlib.contextmanager
def _folder(output):
    if output is not None:
        yield pathlib.Path(output).expanduser()
        return
    with tempfile.TemporaryDirectory(prefix="crl_keras-") as folder:
        yield pathlib.Path(folder)


class _Work:
    """Trains, shows and keeps the runs of one call."""

    def __init__(self, problem, configs, folder, given, baseline):
        self.problem, self.folder = problem, folder
        self.configs, self.baseline = configs, baseline
        self.keep, self.kept = given["keep_models"], {}
        self.on_disk = given["output"] is not None
        self.plan = sweep.Plan(
            tuple(configs),
            str(folder),
            options=Options(together=given["together"]),
        )
        self.shown = shown_by(given["verbose"], self.plan)
        self.stopped = False

    def run(self):
        samples = len(self.problem.test) + 1
        runs = len(self.plan.pending())
        megabytes = 8 * samples * self.problem.classes * runs / 2**20
        records.check_output(self.folder, megabytes + 1)
        self._look_at_records()
        cache = {sweep.data_key(self.configs[0]): self.problem}
        try:
            sweep.run_sweep(
                self.plan,
                self._on_run,
                self.shown.on_epoch,
                cache,
                say=self.shown.say,
            )
        except KeyboardInterrupt:
            # In a notebook, finished runs must not be lost.
            self.stopped = any(self._folder(c).done for c in self.configs)
            if not self.stopped:
                how = (
                    f"The same call with output={str(self.folder)!r} goes on"
                    if self.on_disk
                    else "With `output`, the same call would go on from here"
                )
                raise KeyboardInterrupt(
                    f"Stopped before the first run was done. {how}"
                ) from None

    def _folder(self, config):
        return records.RunFolder(self.folder, config)

    def _look_at_records(self):
        for config in self.configs:
            folder = self._folder(config)
            if folder.done:
                result = json.loads((folder.path / "result.json").read_text())
                weights = result.get("initial_weights")
                if weights:
                    self.problem.weights.setdefault(config.seed, weights)
            elif self.problem.make_callbacks:
                # The state of callbacks is not saved: start the run again.
                (folder.path / "state.npz").unlink(missing_ok=True)

    def _on_run(self, config, result):
        if result is not None:
            problem = self.problem
            result["initial_weights"] = problem.weights[config.seed]
            result["baseline"] = self.baseline
            result["batches"] = _first_epoch(
                problem.seen.get((config.seed, config.loss), {})
            )
            path = self._folder(config).path
            records.write_json(path / "result.json", result)
            if self.keep and result["status"] == "done":
                values = problem.model.get_weights()
                self.kept[config.run_id] = values
                if self.on_disk:
                    named = {f"weights_{i}": v for i, v in enumerate(values)}
                    records.write_arrays(path / "weights.npz", **named)
        self.shown.on_run(config, result)

    def records(self, metrics):
        """The finished records with metrics, in the order of the losses."""
        found = {r.config.run_id: r for r in records.read_records(self.folder)}
        made = [found[c.run_id] for c in self.configs if c.run_id in found]
        notes = self._notes(made)
        kept = []
        for record in made:
            record.result["notes"] = notes
            if record.result["status"] == "done":
                logits, targets = (
                    record.logits()["test"],
                    self.problem.test.targets,
                )
                values = {
                    name: measured(metric, targets, logits)
                    for name, metric in metrics.items()
                }
                if values:
                    record.result["last"]["metrics"] = values
            records.write_json(record.path / "result.json", record.result)
            kept.append(records.KeptRecord.of(record))
        return kept

    def _notes(self, made):
        notes = []
        if self.problem.train.fixed:
            by_seed = {}
            for record in made:
                seen = record.result.get("batches")
                by_seed.setdefault(record.config.seed, set()).add(seen)
            unlike = any(len(s) > 1 or None in s for s in by_seed.values())
            also = (
                " The losses of a seed may have seen different batches, so "
                "pairs share only their initial weights. Give a function of "
                "the seed that makes the pipeline."
                if unlike
                else " All losses of a seed saw the same batches."
            )
            notes.append(OWN_ORDER + also)
        if self.stopped:
            done = counted(len(made), "run")
            notes.append(
                f"Stopped after {done} of {len(self.configs)}. The numbers are "
                "from the finished runs."
            )
        return notes

    def model(self, loss, seed, learning_rate=None):
        found = [
            c
            for c in self.configs
            if loss in (loss_label(c.loss), c.loss)
            and c.seed == seed
            and learning_rate in (None, c.recipe.learning_rate)
        ]
        if len(found) != 1:
            names = dict.fromkeys(loss_label(c.loss) for c in self.configs)
            raise ValueError(
                f"Expected one run of a loss among {', '.join(names)}, its "
                "seed and, of several, its learning rate. Received: "
                f"{loss!r}, {seed!r}, {learning_rate!r}"
            )
        return self._rebuilt(found[0])

    def _rebuilt(self, config):
        import keras

        values = self.kept.get(config.run_id)
        path = self._folder(config).path / "weights.npz"
        if values is None and path.exists():
            with np.load(path) as arrays:
                names = [f"weights_{i}" for i in range(len(arrays.files))]
                values = [arrays[name] for name in names]
        if values is None:
            raise ValueError(
                f"The run of {loss_label(config.loss)}, seed {config.seed}, "
                "diverged, or was trained without keep_models=True. To train "
                f"it again, delete {path.parent}"
            )
        with dtype_policy(config.precision):
            keras.utils.set_random_seed(config.seed)
            model = self.problem.make_model()
            inputs = self.problem.train.first(2)[0]
            model(own.as_tensors(inputs), training=False)
        model.set_weights(values)
        return model


def _first_epoch(seen):
    """A checksum of the batches of the first epoch, or None if not seen."""
    # `fit` calls `on_epoch_end` before the first epoch, so that epoch is 1.
    found = sorted(
        (i, value) for (epoch, i), value in seen.items() if epoch == 1
    )
    return str(hash(tuple(found)) % 2**32) if found else None
