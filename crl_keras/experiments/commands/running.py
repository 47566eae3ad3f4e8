"""Runs a command: checks, training, warnings and report."""

import contextlib
import os
import sys

from crl_keras.experiments.commands.plans import make_plan
from crl_keras.experiments.devices import share_gpu


def run(parser, name, argv=None):
    """Parses the arguments, trains the missing runs and writes the report.

    Ends the process with a message for errors that the user can fix.
    """
    arguments = parser.parse_args(argv)
    from crl_keras.experiments.analysis.report import write_report
    from crl_keras.experiments.commands.find_rate import find_rates

    with errors_end_script(name):
        require_backend(arguments.backend)
        leave_gpu_to_workers(arguments)
        plan = make_plan(arguments)
        if arguments.baseline:
            _check_baseline(plan, arguments.baseline)
        if arguments.list:
            return _print_plan(plan)
        if arguments.find_rate:
            return find_rates(plan)
        run_plan(plan, arguments.workers, arguments.ray)
        print_signs(plan)
        print()
        write_report(plan.output, baseline=arguments.baseline)


@contextlib.contextmanager
def errors_end_script(name):
    """Ends the process with a message for errors that the user can fix."""
    from crl_keras.experiments.runs.sweep import WorkerError

    try:
        yield
    except (
        ValueError,
        OSError,
        ImportError,
        NotImplementedError,
        WorkerError,
    ) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print(
            f"{name}: stopped. Give the same command again to continue",
            file=sys.stderr,
        )
        sys.exit(130)  # The usual exit code after Ctrl-C.


def require_backend(backend):
    """Raises ValueError if Keras does not use the backend of --backend."""
    import keras

    if backend and backend != keras.backend.backend():
        raise ValueError(
            f"Expected Keras on {backend}, because of --backend. Keras was "
            f"imported on {keras.backend.backend()}: set "
            f"KERAS_BACKEND={backend} before the import"
        )


def leave_gpu_to_workers(arguments):
    """Keeps this process from taking all the GPU memory of the workers.

    This process uses the backend before the workers start.
    """
    if arguments.workers > 1 or arguments.ray:
        share_gpu(os.environ)


def _check_baseline(plan, baseline):
    """Raises ValueError before the training for a baseline without runs."""
    from crl_keras.experiments.analysis.comparison import check_baseline
    from crl_keras.experiments.runs.records import read_records

    losses = {config.loss for config in plan.configs}
    if os.path.isdir(plan.output):
        losses |= {r.config.loss for r in read_records(plan.output)}
    check_baseline(baseline, losses)


def run_plan(plan, workers=1, ray=None):
    """Checks a plan and trains its missing runs, with progress."""
    from crl_keras.experiments.commands.progress import Progress
    from crl_keras.experiments.runs import sweep

    if workers < 1:
        raise ValueError(f"--workers must be at least 1. Received: {workers}")
    cache = sweep.check_plan(plan)
    _say_of_data(cache.values())
    _say_what_kept_no_model(plan)
    with Progress(plan) as progress:
        if ray:
            sweep.run_ray(plan, ray, progress.on_wait)
        elif workers > 1:
            sweep.run_workers(plan, workers, progress.on_wait)
        else:
            sweep.run_sweep(
                plan,
                progress.on_run,
                progress.on_epoch,
                cache,
                progress.on_stack,
                progress.console.print,
            )


def print_signs(plan):
    """Warns about runs that cannot be trusted, with advice."""
    from crl_keras.experiments.analysis.diagnosis import signs
    from crl_keras.experiments.runs.records import read_records

    wanted = {config.run_id for config in plan.configs}
    records = read_records(plan.output)
    for sentence in signs(r for r in records if r.config.run_id in wanted):
        print(f"Warning: {sentence}")


def _say_of_data(datasets):
    """Prints how image files were read and how unequal their classes are."""
    from crl_keras.experiments.data.balance import class_counts
    from crl_keras.experiments.data.balance import said_of_balance

    said = set()
    for data in datasets:
        of_files = data.kind == "files" or data.name.startswith("folder:")
        # The folds of a data set have similar class counts.
        if not of_files or data.name in said:
            continue
        said.add(data.name)
        balance = said_of_balance(class_counts(data), data.class_names)
        for sentence in (*data.notes, balance):
            if sentence:
                print(f"{data.name}: {sentence}")


def _say_what_kept_no_model(plan):
    """Says that finished runs have no model despite `--save-model`."""
    from crl_keras.experiments.runs.records import read_records

    wanted = {c.run_id for c in plan.configs if plan.options.save_model}
    kept_none = [
        record
        for record in read_records(plan.output)
        if record.config.run_id in wanted
        and record.result["status"] == "done"
        and not (record.path / "model.keras").exists()
    ]
    if kept_none:
        print(
            f"{len(kept_none)} of the finished runs have no model, because "
            "they were trained without --save-model. To train them again, "
            "delete their folders or use another --output"
        )


def _print_plan(plan):
    """Prints one line per run, without training."""
    from crl_keras.experiments.runs.config import loss_label

    pending = {config.run_id for config in plan.pending()}
    for config in plan.configs:
        state = "to do" if config.run_id in pending else "done"
        fold = "" if config.fold is None else f" fold {config.fold}"
        print(
            f"{config.run_id}  {state:5}  {config.dataset}{fold}  "
            f"{config.network}  {loss_label(config.loss)}  seed {config.seed}  "
            f"learning rate {config.recipe.learning_rate:g}  "
            f"{config.recipe.epochs} epochs"
        )
    print(f"{len(pending)} of {len(plan.configs)} runs to do in {plan.output}")
