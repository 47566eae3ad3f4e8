"""Chooses which runs are trained as one program, and how many at a time.

It measures what is fastest; `stack` trains the runs.
"""

import contextlib
import dataclasses
import gc
import itertools
import json
import math
import os
import pathlib
import tempfile
import time

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from crl_keras.experiments.devices import device_name
from crl_keras.experiments.runs import training
from crl_keras.experiments.runs.batch_norm import to_numpy
from crl_keras.experiments.runs.config import make_head
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.models import build_model
from crl_keras.experiments.runs.programs import STEPS_A_CALL
from crl_keras.experiments.runs.programs import Lane
from crl_keras.experiments.runs.programs import Programs
from crl_keras.experiments.runs.programs import in_lanes
from crl_keras.experiments.runs.programs import most_lanes
from crl_keras.experiments.runs.programs import train_lanes
from crl_keras.experiments.runs.records import write_json
from crl_keras.experiments.runs.stack import Stack
from crl_keras.experiments.runs.stack import loaded
from crl_keras.experiments.words import counted

# Unused models are freed when they take this many bytes.
GARBAGE = 2**28
# Fields that are trained here as in `training`. A run with any other field that
# is not at its default is trained by itself.
KNOWN = """
    dataset network loss recipe seed held_out precision weights fold own
    crop_to_box reader backend devices train_limit test_limit

    name epochs batch_size learning_rate optimizer milestones decay momentum
    nesterov weight_decay accumulate augmentation randaugment mixup cutmix
    label_smoothing image_size crop resize_ratio keep_aspect head_rate
    head_epochs freeze_backbone scaling mean std source schedule warmup_epochs
    sampling
""".split()


def why_alone(config, dataset, options):
    """Why a run cannot be trained together with others, or None."""
    unknown = [
        field.name
        for part in (config, config.recipe)
        for field in dataclasses.fields(part)
        if field.name not in KNOWN
        and getattr(part, field.name) != field.default
    ]
    reasons = {
        "their images are in files or streamed": (
            dataset.kind not in ("memory", "own")
        ),
        "several devices share their batches": config.devices > 1,
        "mixed_float16 scales the loss of each run as it goes": (
            config.precision == "mixed_float16"
        ),
        "their backbone has weights to load": "/" in config.network,
        "--tensorboard and --csv are written by `fit`": (
            options.tensorboard or options.csv
        ),
        f"they have {', '.join(unknown)}": unknown,
    }
    why = next((why for why, holds in reasons.items() if holds), None)
    return dataset.why_alone() if why is None and dataset.kind == "own" else why


def kin(config):
    """Returns a key: runs with equal keys can be one program."""
    # A layer with a margin changes the network.
    loss = "ce" if make_head(config.loss, 2) is None else config.loss
    recipe = dataclasses.replace(
        config.recipe, learning_rate=1.0, weight_decay=0.0, source=""
    )
    return dataclasses.replace(config, seed=0, loss=loss, recipe=recipe)


@contextlib.contextmanager
def compiled_once():
    """Makes JAX compile equal programs once.

    Runs that are trained one by one differ in their seeds. Seeds are
    variables, so all seeds of a loss share one program.
    """
    if jax.config.jax_compilation_cache_dir:
        yield  # The user has set a cache folder.
        return
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "jax_compilation_cache_dir": folder,
            "jax_persistent_cache_min_compile_time_secs": 0.0,
        }
        before = {name: getattr(jax.config, name) for name in values}
        try:
            for name, value in values.items():
                jax.config.update(name, value)
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()


@dataclasses.dataclass
class Choice:
    """How many runs of one `kin` are one program, and why.

    Args:
        asked: The value of --together: "auto", "off" or a number.
        runs: Most runs in one program; 1 means one by one.
        why: The reason, in words.
        speeds: Measured images per second, a dict of `together`, over all
            runs, and `one_by_one`; or None.
        compiled: Dict of the `Programs` so far, by the losses of the runs.
        garbage: Bytes of the models that Python may not have freed yet.
    """

    asked: str | int
    runs: int
    why: str
    speeds: dict | None = None
    compiled: dict = dataclasses.field(default_factory=dict)
    garbage: int = 0

    def run(self, runs, dataset, options, on_run=None, on_epoch=None):
        """Trains, resumes or finishes runs as one program.

        If it is killed, the next call goes on from the last saved epoch and
        ends with the same numbers.

        Args:
            runs: List of `(RunConfig, RunFolder)`, of one `kin`, locked by the
                caller.
            dataset: Their `Dataset`.
            options: `Options`.
            on_run: Function called with the config and the result of each.
            on_epoch: Function called after each epoch of all runs with a dict:
                `epoch`, counted over all runs; `train_loss` and accuracies,
                means over the runs; `images_per_second` of all.
        """
        with training.session(runs[0][0], collect=False):
            begun = loaded(runs, dataset)
            self.garbage += sum(v.nbytes for run in begun for v in run.values)
            # After a kill, some runs may be an epoch ahead.
            for _, group in itertools.groupby(begun, lambda r: len(r.rows)):
                stack = Stack([*group], dataset, options, self, on_run)
                stack.train(on_epoch)
                stack.finish()
        if self.garbage > GARBAGE:
            gc.collect()
            self.garbage = 0

    def record(self, runs):
        """Returns the entry of result.json."""
        return dict(
            asked=self.asked,
            runs=runs,
            why=self.why,
            images_per_second=self.speeds,
        )

    def line(self, configs):
        """Returns the line to print."""
        first, runs = configs[0], counted(len(configs), "run")
        how = f"{min(self.runs, len(configs))} at a time as one program"
        if self.runs == 1:
            how = "one by one"
        line = f"{first.dataset}, {first.network}: {runs} {how}, as {self.why}"
        if self.speeds is None:
            return line
        speeds = [
            f"{speed:,.0f} images/s {way.replace('_', ' ')}"
            for way, speed in self.speeds.items()
            if speed
        ]
        return f"{line} ({', '.join(speeds)})"

    def programs_of(self, configs, dataset):
        key = tuple(config.loss for config in configs)
        if key not in self.compiled:
            self.compiled[key] = Programs(configs, dataset)
        return self.compiled[key]

    def parts(self, configs):
        """Cuts runs into lists of at most `runs`, of about equal size."""
        if self.runs == 1:
            return [[config] for config in configs]
        if len(configs) <= self.runs:
            return [configs]
        losses = len({config.loss for config in configs})
        size = math.ceil(len(configs) / math.ceil(len(configs) / self.runs))
        for whole in (losses * most_lanes(), losses):
            if whole <= self.runs:
                # Parts with the same losses share a program; no pair is cut.
                size = min(math.ceil(size / whole), self.runs // whole) * whole
                break
        return [configs[i : i + size] for i in range(0, len(configs), size)]


def choose(configs, dataset, options, output):
    """Returns the `Choice` for runs of one `kin` that are to be trained.

    It saves the measurements in the folder `output`, so that a comparison that
    was stopped goes on in the same way, with the same numbers.
    """
    asked, first = options.together, configs[0]
    why = why_alone(first, dataset, options)
    if asked == "off":
        return Choice(asked, 1, "it was asked for")
    if len(configs) == 1:
        return Choice(asked, 1, "it is a single run")
    if why:
        return Choice(asked, 1, why)
    if asked != "auto":
        return Choice(asked, min(asked, len(configs)), "it was asked for")
    path = pathlib.Path(output) / "together.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    # The fastest way may differ on another device or with more runs.
    key = f"{kin(first).run_id}, {len(configs)} runs, {device_name()}"
    if key in kept:
        return Choice("auto", **kept[key])
    with training.session(first, collect=False):
        choice = _measured(configs, dataset)
    values = dict(runs=choice.runs, why=choice.why, speeds=choice.speeds)
    write_json(path, kept | {key: values})
    return choice


# A trial may cost this share of the training that it could shorten. Steps
# shorter than SHORT_STEP are always tried: their time is mostly Keras's own.
TRIAL_SHARE = 0.03
SHORT_STEP = 0.01
TRIAL_SECONDS = 0.1  # For the steps of each way, without compilation.
FIRST = 3  # Runs per lane to try first: about so many, in whole pairs.
# Stacked convolutions can take forty times as long on a CPU. One run and few
# images show that within seconds. Few images alone explain at most a factor of
# four, when a step mostly moves weights.
PROBED = 32
PROBE_SHARE = 1 / 8


def _measured(configs, dataset):
    """Times steps of both ways and takes the faster."""
    recipe = configs[0].recipe
    feed = make_feed(dataset, recipe, configs[0].seed)
    compilation, step = time_alone(configs[0], feed)
    speeds = dict(one_by_one=feed.step_size / step, together=None)
    choice = Choice("auto", len(configs), "it is faster", speeds)
    losses = len({config.loss for config in configs})
    first = math.ceil(FIRST / losses) * losses * most_lanes()
    first = min(len(configs), first)
    # If stacked runs are no faster, their trial takes about this long.
    trial = 3 * compilation + 2 * first * step
    training_alone = compilation + recipe.epochs * feed.steps * step
    if step > SHORT_STEP and trial > (
        TRIAL_SHARE * len(configs) * training_alone
    ):
        why = "a trial would take too much of a training that is so short"
        return Choice("auto", 1, why, speeds)
    if step > SHORT_STEP and jax.default_backend() == "cpu":
        speed, _ = time_together(choice, configs[:1], dataset, PROBED)
        if speed < PROBE_SHARE * speeds["one_by_one"]:
            speeds["together"] = speed
            return Choice("auto", 1, "it is faster", speeds)
    work = len(configs) * recipe.epochs * feed.size("train")
    speeds["together"], choice.runs = _fastest(
        choice, configs, first, dataset, work
    )
    if speeds["together"] <= speeds["one_by_one"]:
        return Choice("auto", 1, "it is faster", speeds)
    return choice


def _fastest(choice, configs, first, dataset, work):
    """Finds the fastest number of runs: `(images per second, runs)`.

    Many runs fill a GPU, but their states do not fit the caches of a CPU. So
    it tries four times as many runs, again and again, while that is faster and
    takes at most a tenth of the training, which has `work` images.
    """
    best, tried = (0.0, 0), configs[:first]
    while True:
        started = time.perf_counter()
        found = time_together(choice, tried, dataset)
        seconds = time.perf_counter() - started
        if found[0] < 1.1 * best[0]:
            return best
        best = found
        is_all = best[1] < len(tried) or len(tried) == len(configs)
        if is_all or seconds > work / best[0] / 10:
            return best
        tried = configs[: 4 * len(tried)]


def time_alone(config, feed):
    """Seconds of compiling (the first step of a run), and of a later step."""
    model, _, _ = build_model(config, feed)
    batch = feed.training()[0]
    started = time.perf_counter()
    model.train_on_batch(*batch)
    compiled = time.perf_counter()
    times = [compiled]
    while times[-1] - compiled < TRIAL_SECONDS:
        model.train_on_batch(*batch)
        times.append(time.perf_counter())
    return compiled - started, float(np.median(np.diff(times)))


def time_together(choice, configs, dataset, images=None):
    """Times runs as one program: `(images per second, number of runs)`.

    It takes as many runs as fit the memory, and the first `images` of each
    batch.
    """
    configs = sorted(configs, key=lambda config: config.loss)
    runs, lanes = len(configs), []
    for part in in_lanes(configs, [config.loss for config in configs]):
        programs = choice.programs_of(part, dataset)
        values = [to_numpy(v) for v in programs.variables()]
        lanes.append(Lane(programs, part, [values] * len(part)))
        lanes[-1].begin_trial(1 + STEPS_A_CALL, images)
    needed = sum(lane.bytes() for lane in lanes)
    most = int(runs * _memory() / needed)
    if most < runs:
        return time_together(choice, configs[: max(1, most)], dataset, images)
    _, most, batch = lanes[0].parts[0][-1].shape

    def seconds(steps):
        started = time.perf_counter()
        train_lanes(lanes, steps)
        return time.perf_counter() - started

    seconds(1)
    # The fastest of three: other work of the machine must not decide.
    steps = max(1, min(int(TRIAL_SECONDS / 3 / seconds(1)), most, STEPS_A_CALL))
    fastest = min(seconds(steps) for _ in range(3 if steps > 1 else 1))
    return runs * steps * batch / fastest, runs


def _memory():
    """Bytes that a program may take: most of a GPU's, half of the RAM."""
    found = jax.devices()[0].memory_stats()
    if found and "bytes_limit" in found:
        return 0.9 * found["bytes_limit"] - found["bytes_in_use"]
    with contextlib.suppress(AttributeError, ValueError):  # On Windows.
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    return 2**32
