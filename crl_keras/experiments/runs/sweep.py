"""Trains many runs in one folder: here, in worker processes, or on Ray.

Every process works through the same plan. It skips runs that are done or that
another process has locked, so workers need no coordinator: the locks are the
queue.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time
import uuid

from crl_keras.experiments._optional import require
from crl_keras.experiments.data import sources
from crl_keras.experiments.devices import device_scope
from crl_keras.experiments.devices import share_gpu
from crl_keras.experiments.runs.backbone_names import require_library
from crl_keras.experiments.runs.backbone_names import weights_fingerprint
from crl_keras.experiments.runs.backbones import build_backbone
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.config import make_head
from crl_keras.experiments.runs.config import make_loss
from crl_keras.experiments.runs.epochs import check_validation
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.records import RunFolder
from crl_keras.experiments.runs.records import check_output
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.records import write_json
from crl_keras.experiments.runs.training import Options
from crl_keras.experiments.words import counted

MEGABYTE = 2**20
# The share to hold out by default, if a data set has no part for it.
HELD_OUT = 0.1


@dataclasses.dataclass(frozen=True)
class Plan:
    """All runs of a comparison, and the folders of their data and records.

    Args:
        configs: Tuple of `RunConfig`, in the order in which they run.
        output: Folder of the records.
        data_dir: Folder or archive of the data set, or None.
        skip_unreadable: Leave unreadable images out instead of stopping.
        options: `Options` of the runs.
    """

    configs: tuple
    output: str
    data_dir: str | None = None
    skip_unreadable: bool = False
    options: Options = dataclasses.field(default_factory=Options)

    def to_dict(self):
        values = dataclasses.asdict(self)
        values["configs"] = [config.to_dict() for config in self.configs]
        return values

    @classmethod
    def from_dict(cls, values):
        configs = tuple(RunConfig.from_dict(c) for c in values["configs"])
        options = dict(values["options"])
        options["command"] = tuple(options["command"])
        return cls(
            **{**values, "configs": configs, "options": Options(**options)}
        )

    def pending(self):
        """Configurations without a result, in order."""
        return [c for c in self.configs if not RunFolder(self.output, c).done]


def make_configs(losses, seeds, recipes, **common):
    """Makes configurations of every recipe and seed with every loss.

    The losses of one seed follow each other, so that an experiment that is
    stopped early has whole pairs.

    >>> from crl_keras.experiments.runs.recipes import get_recipe
    >>> configs = make_configs(
    ...     ["ce", "crl"], range(2), [get_recipe("digits")],
    ...     dataset="digits", network="mlp",
    ... )
    >>> [(c.seed, c.loss) for c in configs][:3]
    [(0, 'ce'), (0, 'crl(alpha=1.5,beta=1)'), (1, 'ce')]
    """
    return tuple(
        RunConfig(loss=loss, seed=seed, recipe=recipe, **common)
        for recipe, seed, loss in itertools.product(recipes, seeds, losses)
    )


def prepare_dataset(plan, config, cache=None):
    """Loads the data of a configuration, limits them, holds a part out."""
    cache = {} if cache is None else cache
    key = data_key(config)
    if key not in cache:
        cache[key] = _prepared(plan, config)
    return cache[key]


def data_key(config):
    """Returns a cache key: the settings that the data depend on."""
    return (
        config.dataset,
        config.fold,
        config.recipe.image_size is not None,
        config.crop_to_box,
        config.held_out,
        config.train_limit,
        config.test_limit,
    )


def _prepared(plan, config):
    data = sources.open_dataset(
        config.dataset,
        plan.data_dir,
        config.fold,
        config.recipe.image_size is not None,
        plan.skip_unreadable,
        config.reader,
        plan.options.exif,
    )
    if data.kind == "tfds" and config.reader != "tf.data":
        raise ValueError(
            f"TensorFlow Datasets has prepared {config.dataset} in "
            f"{plan.data_dir}, so tf.data must read it. Received: reader "
            f"{config.reader!r}; leave out --reader, or give the unpacked "
            "folder of the set."
        )
    if (config.train_limit, config.test_limit) != (None, None):
        data = data.limited(config.train_limit, config.test_limit)
    data = data.cut_to_boxes(config.crop_to_box)
    if data.held_out is not None and config.held_out == HELD_OUT:
        return data  # It has its own part, such as a "val" folder.
    # One split for all seeds: a seed must vary the training, not the data.
    return data.with_held_out(config.held_out)


def check_plan(plan):
    """Checks data, weights and existing records before any training.

    Raises OSError if records cannot be written or weights cannot be fetched,
    ValueError if existing records were made from other data, ImportError if
    the library of a backbone is not installed.
    """
    for network in {config.network for config in plan.pending()}:
        if "/" in network:
            require_library(network.partition("/")[0])
    if plan.options.tensorboard:
        require("tensorflow", "tensorboard")
        require("tensorboard", "tensorboard")
    check_output(plan.output, 1)
    for config in plan.pending():
        # Raise errors of a loss here, not after other runs.
        recipe = config.recipe
        make_loss(config.loss, 2, recipe.soft_labels, recipe.label_smoothing)
        make_head(config.loss, 2)
    cache, needed = {}, 0
    made_of, built = {}, set()
    groups = {config.group for config in plan.pending()}
    for record in read_records(plan.output):
        key = (record.config.group, record.config.fold)
        made_of[key] = record.result["dataset"]["fingerprint"]
        if record.config.group in groups:
            _check_weights(record)
    for config in plan.pending():
        data = prepare_dataset(plan, config, cache)
        check_validation(config.recipe, data)
        feed = make_feed(data, config.recipe, config.seed, config.reader)
        _check_devices(config, feed)
        backbone = (config.network, feed.input_shape, 2, config.weights)
        if "/" in config.network and backbone not in built:
            # Missing weights or too small images must not stop a comparison
            # halfway.
            build_backbone(*backbone)
            built.add(backbone)
        RunFolder(plan.output, config).check_data(data)
        key = (config.group, config.fold)
        found = made_of.get(key, data.fingerprint)
        if found != data.fingerprint:
            raise ValueError(
                f"The records in {plan.output} were made from other data with "
                f"the name {config.dataset} (fingerprint {found}, now "
                f"{data.fingerprint}): use another --output"
            )
        held_out = 0 if data.held_out is None else len(data.held_out)
        tested = len(data.test) + held_out
        needed += 8 * tested * data.classes / MEGABYTE
        needed += 0.1
    # Plus the states of the current runs, twice while they are replaced.
    check_output(plan.output, needed + 200)
    return cache


def _check_weights(record):
    """Raises ValueError if a run began with other weights of this name."""
    config, found = record.config, record.result.get("weights")
    if found is None or not pathlib.Path(config.weights).expanduser().exists():
        return
    now = weights_fingerprint(config.weights)
    if now != found:
        raise ValueError(
            f"{record.path} was trained from other weights with the name "
            f"{config.weights} (fingerprint {found}, now {now}): give the new "
            "file another name, or use another --output"
        )


def _check_devices(config, feed):
    """Checks devices; on JAX, Keras must cut each batch into equal parts."""
    with device_scope(config.devices):
        pass  # Raises if there are fewer.
    if config.backend != "jax" or config.devices == 1:
        return
    uneven = [size for size in feed.batch_sizes() if size % config.devices]
    if uneven:
        raise ValueError(
            f"On JAX, every batch must be divisible by --devices "
            f"{config.devices}, also the last one and test batches. "
            f"Received: batches of {', '.join(map(str, uneven))}. Change "
            "--batch-size, --train-limit and --test-limit, or take "
            "--backend tensorflow"
        )


class WorkerError(RuntimeError):
    """A worker process has failed; its log says why."""


def run_sweep(
    plan, on_run=None, on_epoch=None, cache=None, on_stack=None, say=None
):
    """Trains the runs of a plan in this process, unless others do.

    Args:
        plan: `Plan`.
        on_run: Function called with (config, result) after every run made
            here, and (config, None) before one that is trained by itself.
        on_epoch: Function called with the row of every epoch, or with the dict
            of `together.Choice.run`.
        cache: What `check_plan` returned.
        on_stack: Function called with the configurations that are about to be
            trained as one program.
        say: Function called with a line on what was chosen.
    """
    cache = {} if cache is None else cache
    backends = {config.backend for config in plan.configs}
    if plan.options.together == "off" or backends != {"jax"}:
        return _run_parts(plan, _one_by_one, cache, on_run, on_epoch, on_stack)
    from crl_keras.experiments.runs import together

    parts = functools.partial(
        _parts, choices={}, say=say or (lambda line: None)
    )
    with together.compiled_once():
        _run_parts(plan, parts, cache, on_run, on_epoch, on_stack)


def _run_parts(plan, parts, cache, on_run, on_epoch, on_stack):
    while pending := plan.pending():
        worked = False
        for configs, choice in parts(plan, pending, cache):
            with contextlib.ExitStack() as locks:
                runs = _taken(plan, configs, locks)
                if not runs:
                    continue
                data = prepare_dataset(plan, configs[0], cache)
                if len(runs) == 1:
                    _run_alone(*runs[0], data, plan, choice, on_run, on_epoch)
                else:
                    if on_stack:
                        on_stack([config for config, _ in runs])
                    choice.run(runs, data, plan.options, on_run, on_epoch)
                worked = True
        if not worked:
            # Other processes have the rest: wait, as one may be killed.
            time.sleep(1)


def _one_by_one(plan, pending, cache):
    return (([config], None) for config in pending)


def _taken(plan, configs, locks):
    """Locks the runs that are left; returns `(config, folder)` of each."""
    taken = []
    for config in configs:
        folder = RunFolder(plan.output, config)
        # Another process may have finished it since.
        if locks.enter_context(folder.locked()) and not folder.done:
            taken.append((config, folder))
    return taken


def _run_alone(config, folder, data, plan, choice, on_run, on_epoch):
    from crl_keras.experiments.runs.training import run_one

    if on_run:
        on_run(config, None)
    record = None if choice is None else choice.record(1)
    result = run_one(config, data, folder, plan.options, on_epoch, record)
    if on_run:
        on_run(config, result)


def _parts(plan, pending, cache, choices, say):
    """Yields lists of runs that are trained as one program, and a `Choice`."""
    from crl_keras.experiments.runs import together

    # Groups of the whole plan: after a stop, the same runs go on together.
    groups = {}
    for config in plan.configs:
        groups.setdefault(together.kin(config), []).append(config)
    pending = {*pending}
    for kin, configs in groups.items():
        left = [config for config in configs if config in pending]
        if not left:
            continue
        if kin not in choices:
            data = prepare_dataset(plan, configs[0], cache)
            choices[kin] = together.choose(
                configs, data, plan.options, plan.output
            )
            say(choices[kin].line(left))
        for part in choices[kin].parts(configs):
            if part := [config for config in part if config in pending]:
                yield part, choices[kin]


def run_workers(plan, workers, on_wait=None):
    """Runs a plan in `workers` processes on this machine.

    `on_wait` is called every half second. Raises WorkerError if a worker
    fails; the others finish their runs first.
    """
    # Another command may work on the same folder with its own plan.
    path = pathlib.Path(plan.output) / f"plan-{uuid.uuid4().hex}.json"
    write_json(path, plan.to_dict())
    command = [
        sys.executable,
        "-m",
        "crl_keras.experiments.runs.sweep",
        str(path),
    ]
    logs = [
        open(pathlib.Path(plan.output) / f"worker-{i}.log", "ab")
        for i in range(workers)
    ]
    processes = [
        subprocess.Popen(
            command, env=worker_environment(workers), stdout=log, stderr=log
        )
        for log in logs
    ]
    try:
        while any(process.poll() is None for process in processes):
            time.sleep(0.5)
            if on_wait:
                on_wait()
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for log in logs:
            log.close()
        path.unlink(missing_ok=True)
    for process, log in zip(processes, logs, strict=True):
        if process.returncode:
            raise WorkerError(
                f"A worker stopped with exit code {process.returncode}: see "
                f"{log.name}. What is finished is kept; the same command goes "
                "on from there"
            )
    if left := len(plan.pending()):
        raise WorkerError(
            f"The workers have stopped and left {left} runs: see their logs in "
            f"{plan.output}. The same command goes on from there"
        )


def worker_environment(workers):
    """Returns the environment of each of `workers` processes here."""
    # Each gets its share of the cores, or they slow each other down.
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    return dict(
        share_gpu(dict(os.environ)),
        NPROC=threads,  # For JAX.
        OMP_NUM_THREADS=threads,
        TF_NUM_INTRAOP_THREADS=threads,
    )


def run_ray(plan, address, on_wait=None):
    """Runs a plan on a Ray cluster, one task per run.

    Args:
        plan: `Plan`. All nodes must share its output and data folders, and the
            working directory if paths are relative. If the cluster has GPUs, a
            run gets as many as it has devices.
        address: Address of the cluster, "auto" for the one of this machine,
            or "local" to start one here.
        on_wait: Function called every half second.
    """
    ray = require("ray", "ray")
    ray.init(
        address=address,
        runtime_env={"env_vars": {"KERAS_BACKEND": plan.configs[0].backend}},
    )
    try:
        # Without a share of the GPUs a task would see none.
        gpus = ray.cluster_resources().get("GPU", 0) > 0
        waiting = []
        for config in plan.pending():
            run = ray.remote(
                num_cpus=1,
                num_gpus=config.devices if gpus else 0,
                max_retries=2,
            )(_run_planned)
            values = dict(
                plan.to_dict(),
                configs=[config.to_dict()],
                output=os.path.abspath(plan.output),
            )
            waiting.append(run.remote(values, os.getcwd()))
        while waiting:
            done, waiting = ray.wait(waiting, timeout=0.5)
            for task in done:
                ray.get(task)  # Raises what the task raised.
            if on_wait:
                on_wait()
    finally:
        ray.shutdown()


def _run_planned(values, folder):
    if os.path.isdir(folder):  # Paths of the plan may be relative.
        os.chdir(folder)
    run_sweep(Plan.from_dict(values))


def run_line(config, result, done, total):
    """Formats one line on a finished run, for logs and plain terminals."""
    name = f"{loss_label(config.loss)} seed {config.seed}"
    if config.fold is not None:
        name += f" fold {config.fold}"
    what = f"{config.dataset}, {config.network}"
    rate = f"learning rate {config.recipe.learning_rate:g}"
    if result["status"] == "diverged":
        how = f"diverged: {result['failure']['message']}"
    else:
        how = (
            f"test error {result['last']['error']:.2%} after "
            f"{counted(result['epochs'], 'epoch')}, "
            f"{result['wall_seconds']:.1f} s"
        )
    return f"[{done}/{total}] {what}, {name}, {rate}: {how}"


def main():
    """Runs a worker; the argument is the path of its plan."""
    plan = Plan.from_dict(json.loads(pathlib.Path(sys.argv[1]).read_text()))
    total = len(plan.configs)

    def on_run(config, result):
        if result is not None:
            done = total - len(plan.pending())
            print(run_line(config, result, done, total), flush=True)

    run_sweep(plan, on_run, say=functools.partial(print, flush=True))


if __name__ == "__main__":
    main()
