"""Whole runs on a tiny data set: paired, resumed, killed, shared, diverged."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
from fresh import run_python
from keras.ops import convert_to_numpy as to_numpy
from keras.src.utils import python_utils

from crl_keras.experiments.data.splits import Dataset
from crl_keras.experiments.devices import JAX_MEMORY
from crl_keras.experiments.runs import models
from crl_keras.experiments.runs import sweep
from crl_keras.experiments.runs import training
from crl_keras.experiments.runs.config import LOSSES
from crl_keras.experiments.runs.config import control_of
from crl_keras.experiments.runs.feeds import make_feed
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.records import RunFolder
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.sweep import Plan
from crl_keras.experiments.runs.sweep import make_configs
from crl_keras.networks import NETWORKS

BACKEND = keras.backend.backend()


def make_plan(
    output, losses=("ce", "crl"), seeds=1, epochs=3, augmented=True, **common
):
    """Small runs, augmented so that there are random numbers to resume."""
    recipe = get_recipe("digits", epochs=epochs, **common.pop("recipe", {}))
    if augmented:
        recipe = dataclasses.replace(recipe, augmentation="crop_flip")
    values = dict(
        dataset="digits",
        network="mlp",
        held_out=0.1,
        backend=BACKEND,
        train_limit=200,
        test_limit=100,
    )
    configs = make_configs(
        losses, range(seeds), [recipe], **{**values, **common}
    )
    return Plan(configs, str(output))


def run(plan, **callbacks):
    sweep.run_sweep(plan, cache=sweep.check_plan(plan), **callbacks)
    return {
        (r.config.loss, r.config.seed): r for r in read_records(plan.output)
    }


def assert_same_numbers(a, b):
    """Everything but times, to the last digit."""
    timed = ("seconds", "test_seconds", "images_per_second")
    strip = lambda h: [  # noqa: E731
        {k: v for k, v in row.items() if k not in timed} for row in h
    ]
    assert strip(a.history) == strip(b.history)
    assert a.result["last"] == b.result["last"]
    for name, value in a.logits().items():
        np.testing.assert_array_equal(value, b.logits()[name])


def test_a_run_records_what_it_is_and_found(tmp_path):
    plan = make_plan(tmp_path, ["crl"], augmented=False)
    ((_, record),) = run(plan).items()
    result, last = record.result, record.result["last"]
    assert result["status"] == "done" and result["failure"] is None
    assert result["dataset"]["train"] + result["dataset"]["held_out"] == 200
    assert result["dataset"]["test"] == 100
    assert result["backend"] == BACKEND
    assert result["versions"]["keras"] == keras.__version__
    assert result["network"]["parameters"] == 85_002
    assert [row["epoch"] for row in record.history] == [1, 2, 3]
    logits, labels = record.logits()["test"], record.data()["labels"]
    assert logits.shape == (100, 10) and len(labels) == 100
    assert last["error"] == pytest.approx((logits.argmax(1) != labels).mean())
    assert last["error"] == pytest.approx(
        1 - record.history[-1]["test_accuracy"]
    )
    # Training has to have learned something for the rest to mean anything.
    losses = [row["train_loss"] for row in record.history]
    assert losses[-1] < 0.8 * losses[0]
    assert last["error"] < 0.5
    # A count over the images, and no float32 beside it.
    best = min(row["test_accuracy"] * -100 for row in record.history)
    assert result["best"]["test_error"] == (100 + round(best)) / 100


def test_losses_of_one_seed_start_alike_and_see_the_same(tmp_path):
    """With learning rate 0 the losses see equal logits in every epoch; the
    accuracies on augmented batches show equal batches and augmentation."""
    plan = make_plan(
        tmp_path,
        ["ce", "crl"],
        seeds=2,
        recipe=dict(learning_rate=1e-30, batch_size=32),
    )
    found = run(plan)
    accuracies = {
        key: [row["train_accuracy"] for row in r.history]
        for key, r in found.items()
    }
    crl = "crl(alpha=1.5,beta=1)"
    for seed in (0, 1):
        assert accuracies["ce", seed] == accuracies[crl, seed]
    assert accuracies["ce", 0] != accuracies["ce", 1]
    first = accuracies["ce", 0]
    assert len(set(first)) > 1, "augmentation should vary over the epochs"


def test_every_loss_trains_from_the_same_weights(tmp_path, monkeypatch):
    """One epoch of digits each; the layer of a margin has no bias."""
    first = {}

    def compiled(model, *args, **kwargs):
        first[len(first)] = [to_numpy(v) for v in model.trainable_variables]
        return compile_model(model, *args, **kwargs)

    compile_model = keras.Model.compile
    monkeypatch.setattr(keras.Model, "compile", compiled)
    monkeypatch.setitem(NETWORKS, "tiny", tiny)
    losses = [loss for loss in LOSSES if not control_of(loss)]
    losses += ["crl_steps", "focal_weights"]
    plan = make_plan(
        tmp_path,
        losses,
        network="tiny",
        epochs=1,
        augmented=False,
        recipe=dict(learning_rate=0.02, batch_size=18),
    )
    found = run(plan)
    assert len(found) == len(first) == len(losses)
    for values, config in zip(first.values(), plan.configs, strict=True):
        is_margin = config.loss.startswith(("lsoftmax", "asoftmax"))
        assert len(values) == len(first[0]) - is_margin
        for value, same in zip(values, first[0], strict=not is_margin):
            np.testing.assert_array_equal(value, same)
    for (loss, _), record in found.items():
        assert record.result["status"] == "done", loss
        (row,) = record.history
        assert math.isfinite(row["train_loss"] + row["test_loss"]), loss
        assert row["test_accuracy"] > 0.3, loss
        assert record.logits()["test"].shape == (100, 10)


class Stop(Exception):
    pass


def tiny(input_shape, classes):
    """A network with all kinds of state: statistics and dropout's seed."""
    return keras.Sequential(
        [
            keras.Input(input_shape),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(classes),
        ]
    )


@pytest.mark.once
def test_a_margin_comes_by_whole_batches(tmp_path):
    """Its layer counts the parts of accumulated ones."""
    gammas = {}
    for parts in (1, 4):
        plan = make_plan(tmp_path, ["lsoftmax"], recipe={"accumulate": parts})
        (config,) = plan.configs
        feed = make_feed(sweep.prepare_dataset(plan, config), config.recipe)
        model, _, _ = models.build_model(config, feed)
        (network,) = [x for x in model.layers if x.name == "mlp"]
        gammas[parts] = network.layers[-1].gamma
    assert gammas == {1: 2.5e-5, 4: 2.5e-5 / 4}


def resumed(tmp_path, **values):
    """A run that was stopped after its first epoch, and that went on.

    It ends with the numbers of one that was not stopped.
    """
    ((_, whole),) = run(make_plan(tmp_path / "whole", **values)).items()
    plan = make_plan(tmp_path / "broken", **values)

    def stop(row):
        raise Stop

    with pytest.raises(Stop):
        run(plan, on_epoch=stop)
    ((_, broken),) = run(plan).items()
    assert_same_numbers(broken, whole)
    return broken


def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path, monkeypatch):
    """With a margin that comes fast, so that its step is state too."""
    monkeypatch.setitem(NETWORKS, "tiny", tiny)
    loss = "lsoftmax(gamma=0.1,power=1)"
    resumed(tmp_path, losses=[loss], network="tiny", epochs=3)


def test_ctrl_c_stops_a_run_though_keras_loses_it(tmp_path, monkeypatch):
    """Its conversion of a step's numbers catches every exception."""
    real, pressed = python_utils.pythonify_logs, []

    def interrupted(logs):
        if not pressed:
            pressed.append(1)
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        return real(logs)

    plan = make_plan(tmp_path, ["ce"], epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(python_utils, "pythonify_logs", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(plan)
    assert plan.pending()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(run(plan)) == 1


@pytest.mark.once
def test_ctrl_c_in_the_last_test_is_not_lost():
    """No later step could raise it."""
    with pytest.raises(KeyboardInterrupt), training.interruptible():
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_killed_sweep_goes_on(tmp_path):
    """kill -9 at random moments, then the same command."""
    whole = run(make_plan(tmp_path / "whole", epochs=4))
    plan = make_plan(tmp_path / "killed", epochs=4)
    pathlib.Path(plan.output).mkdir()
    path = pathlib.Path(plan.output) / "plan.json"
    path.write_text(json.dumps(plan.to_dict()))
    command = [
        sys.executable,
        "-m",
        "crl_keras.experiments.runs.sweep",
        str(path),
    ]
    chance = random.Random()
    kills, finished = 0, {}
    while plan.pending():
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        if kills < 2:
            # Once it trains: its start takes seconds.
            wait_for_an_epoch(plan, process)
            time.sleep(chance.uniform(0, 1.0))
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        for config in plan.configs:
            result = RunFolder(plan.output, config).path / "result.json"
            if result.exists():
                stamp = finished.setdefault(config, result.stat().st_mtime_ns)
                assert stamp == result.stat().st_mtime_ns, "done twice"
    assert kills
    killed = {
        (r.config.loss, r.config.seed): r for r in read_records(plan.output)
    }
    for key, record in killed.items():
        assert_same_numbers(record, whole[key])
    leftovers = [
        p
        for p in pathlib.Path(plan.output).glob("*/.*")
        if p.name != ".lock" and p.parent.name != "data"
    ]
    assert not leftovers


def wait_for_an_epoch(plan, process):
    """Until the process writes a state or a result that was not there."""
    output = pathlib.Path(plan.output)

    def stamps():
        files = [*output.glob("*/state.npz"), *output.glob("*/result.json")]
        return {(f, f.stat().st_mtime_ns) for f in files if f.exists()}

    before = stamps()
    while process.poll() is None and stamps() <= before:
        time.sleep(0.01)


def test_a_loss_that_is_nan_ends_its_run_and_no_other(tmp_path, monkeypatch):
    real = models.make_loss

    def broken(spec, *arguments):
        loss = real(spec, *arguments)
        if spec == "ce":
            return lambda y_true, y_pred: loss(y_true, y_pred * np.nan)
        return loss

    monkeypatch.setattr(models, "make_loss", broken)
    found = run(make_plan(tmp_path))
    failed, fine = found["ce", 0], found["crl(alpha=1.5,beta=1)", 0]
    assert failed.result["status"] == "diverged"
    assert failed.result["last"] is None
    where = failed.result["failure"]
    assert (where["epoch"], where["step"]) == (1, 1)
    assert where["learning_rate"] == pytest.approx(
        failed.config.recipe.learning_rate
    )
    assert fine.result["status"] == "done"
    line = sweep.run_line(failed.config, failed.result, 1, 2)
    assert "diverged" in line and "epoch 1, step 1" in line
    assert not make_plan(tmp_path).pending()  # It is not tried again.


@pytest.mark.once  # Killed processes go on with equal numbers on every backend.
def test_workers_make_the_same_records(tmp_path):
    alone = run(make_plan(tmp_path / "alone", seeds=2, epochs=2))
    plan = make_plan(tmp_path / "workers", seeds=2, epochs=2)
    sweep.check_plan(plan)
    waits = []
    sweep.run_workers(plan, 2, on_wait=lambda: waits.append(1))
    found = {
        (r.config.loss, r.config.seed): r for r in read_records(plan.output)
    }
    assert waits and set(found) == set(alone)
    for key, record in found.items():
        np.testing.assert_allclose(
            record.logits()["test"],
            alone[key].logits()["test"],
            rtol=1e-3,
            atol=1e-3,  # Their share of threads may round otherwise.
        )
    # Both worked, and no run was done twice.
    logs = [
        (pathlib.Path(plan.output) / f"worker-{i}.log").read_text()
        for i in (0, 1)
    ]
    lines = [line for log in logs for line in log.splitlines() if "[" in line]
    assert sum("test error" in line for line in lines) == 4


@pytest.fixture
def unset(monkeypatch):
    """No variable that says how much of a GPU a process takes."""
    for name in (*JAX_MEMORY, "TF_FORCE_GPU_ALLOW_GROWTH"):
        monkeypatch.setenv(name, "")  # So that it is put back after the test.
        monkeypatch.delenv(name)


@pytest.mark.once
@pytest.mark.parametrize(
    "name, value, expected",
    [
        (None, None, {"preallocate": False}),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "true", {"preallocate": True}),
        ("XLA_CLIENT_MEM_FRACTION", ".2", {"memory_fraction": 0.2}),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", ".2", {"memory_fraction": 0.2}),
        ("XLA_PYTHON_CLIENT_ALLOCATOR", "platform", {"allocator": "platform"}),
    ],
)
def test_workers_share_a_gpu_unless_the_user_says_how(
    unset, monkeypatch, name, value, expected
):
    """As JAX itself reads the environment that a worker gets."""
    from jaxlib import xla_client

    if name:
        monkeypatch.setenv(name, value)
    environment = sweep.worker_environment(4)
    assert environment["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert set(os.environ) <= set(environment)
    monkeypatch.setattr(os, "environ", environment)
    options = xla_client.generate_pjrt_gpu_plugin_options()
    assert expected.items() <= options.items()
    assert ("preallocate" in options) == ("preallocate" in expected)


@pytest.mark.once
@pytest.mark.parametrize("workers", [1, 2])
def test_a_command_leaves_the_gpu_to_its_workers(unset, script, workers):
    command = "--dataset digits --losses ce --seeds 1 --list --workers"
    code, out, _ = script("compare_losses.py", *command.split(), str(workers))
    assert code == 0 and "1 of 1 runs to do" in out
    set_now = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE")
    assert set_now == ("false" if workers > 1 else None)


@pytest.mark.once
def test_two_commands_with_workers_share_a_folder(tmp_path):
    """Each makes its own runs, whatever plan the other wrote there."""
    first = make_plan(tmp_path, ["ce"], epochs=1)
    second = make_plan(tmp_path, ["crl"], epochs=1)
    sweep.check_plan(first)
    other = []

    def start_second():
        if not other:
            other.append(1)
            sweep.run_workers(second, 1)

    sweep.run_workers(first, 1, on_wait=start_second)
    losses = {record.config.loss for record in read_records(tmp_path)}
    assert losses == {"ce", "crl(alpha=1.5,beta=1)"}
    assert not [*tmp_path.glob("plan-*.json")]


class Cluster:
    """What `run_ray` asks of Ray."""

    def __init__(self, gpus):
        self.gpus, self.shares, self.tasks = gpus, [], []

    def init(self, **arguments):
        pass

    def cluster_resources(self):
        return {"CPU": 4.0} | ({"GPU": self.gpus} if self.gpus else {})

    def remote(self, num_gpus, **resources):
        self.shares.append(num_gpus)
        return lambda function: types.SimpleNamespace(
            remote=lambda *arguments: arguments
        )

    def wait(self, waiting, timeout):
        return waiting[:1], waiting[1:]

    def get(self, task):
        self.tasks.append(task)

    def shutdown(self):
        pass


@pytest.mark.once
@pytest.mark.parametrize(
    "gpus, devices, share", [(0, 1, 0), (8, 1, 1), (8, 2, 2)]
)
def test_runs_on_ray_get_their_share_of_the_gpus(
    tmp_path, monkeypatch, gpus, devices, share
):
    """A task without a share would see no GPU."""
    cluster = Cluster(gpus)
    monkeypatch.setattr(sweep, "require", lambda *names: cluster)
    plan = make_plan(tmp_path, devices=devices)
    sweep.run_ray(plan, "auto")
    assert len(cluster.tasks) == len(plan.configs) == 2
    assert cluster.shares == [share, share]
    for values, folder in cluster.tasks:
        assert len(values["configs"]) == 1 and folder == os.getcwd()


@pytest.mark.once
def test_a_worker_that_fails_is_said(tmp_path):
    plan = make_plan(tmp_path, network="none_such")
    with pytest.raises(RuntimeError, match="worker-0.log.*goes on from there"):
        sweep.run_workers(plan, 1)
    assert "none_such" in (tmp_path / "worker-0.log").read_text()


def test_a_last_step_that_diverges_ends_its_run_and_no_other(tmp_path):
    """One step: no later loss could show it."""
    plan = make_plan(
        tmp_path,
        ("ce",),
        epochs=1,
        recipe=dict(learning_rate=1e38, batch_size=200),
        held_out=0.0,
    )
    (record,) = run(plan).values()
    assert record.result["status"] == "diverged"
    assert "not finite" in record.result["failure"]["message"]
    assert not plan.pending()


def test_a_run_does_not_go_on_with_other_data(tmp_path, monkeypatch):
    plan = make_plan(tmp_path, ("ce",), epochs=2)

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, on_epoch=stop)
    limited = Dataset.limited
    monkeypatch.setattr(
        Dataset,
        "limited",
        lambda data, train, test: limited(data, train - 20, test),
    )
    with pytest.raises(ValueError, match="began on other data"):
        run(plan)


def test_a_loss_that_cannot_be_made_is_said_before_any_training(tmp_path):
    for losses, recipe, message in (
        (("ce", "crl(alpha=-1)"), {}, "`alpha` must be >= 0"),
        (("ce", "released"), dict(label_smoothing=0.1), "integer labels"),
    ):
        plan = make_plan(tmp_path, losses, recipe=recipe)
        with pytest.raises(ValueError, match=message):
            run(plan)
        assert not list(tmp_path.glob("*/config.json"))


def test_records_of_other_data_are_an_error(tmp_path):
    run(make_plan(tmp_path, ["ce"], epochs=1))
    (path,) = tmp_path.glob("*/result.json")
    result = json.loads(path.read_text())
    result["dataset"]["fingerprint"] = "0" * 12
    path.write_text(json.dumps(result))
    plan = make_plan(tmp_path, ["ce", "crl"], epochs=1)
    with pytest.raises(ValueError, match="made from other data.*--output"):
        sweep.check_plan(plan)


def test_another_backend_is_an_error(tmp_path):
    plan = make_plan(tmp_path, backend="numpy")
    with pytest.raises(ValueError, match="set KERAS_BACKEND=numpy"):
        run(plan)


def test_two_devices_train_as_one(tmp_path):
    # Without augmentation: devices draw random numbers of their own.
    common = dict(
        losses=["crl"],
        epochs=2,
        augmented=False,
        recipe=dict(batch_size=50),
    )
    one = run(make_plan(tmp_path / "one", **common))
    plan = make_plan(tmp_path / "two", devices=2, **common)
    if BACKEND == "torch":
        with pytest.raises(NotImplementedError, match="JAX and TensorFlow"):
            run(plan)
        return
    ((key, two),) = run(plan).items()
    for a, b in zip(two.history, one[key].history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
    if BACKEND == "jax":
        uneven = make_plan(tmp_path / "odd", devices=2, test_limit=99)
        with pytest.raises(ValueError, match="batches of .*99.*--test-limit"):
            run(uneven)
    with pytest.raises(ValueError, match="at most the 2"):
        run(make_plan(tmp_path / "three", devices=3, **common))


def test_callbacks_of_keras_by_option(tmp_path):
    plan = make_plan(tmp_path, ["ce"], epochs=2)
    options = training.Options(tensorboard=BACKEND == "tensorflow", csv=True)
    plan = dataclasses.replace(plan, options=options)
    ((_, record),) = run(plan).items()
    rows = (record.path / "keras.csv").read_text().splitlines()
    assert len(rows) == 3 and rows[0].startswith("epoch,")
    if options.tensorboard:
        assert list((record.path / "tensorboard").rglob("events*"))


def test_mixed_precision_resumes_too(tmp_path):
    """float16 has the most to resume: its loss scale moves."""
    common = dict(losses=["crl"], precision="mixed_float16", epochs=2)
    broken = resumed(tmp_path, **common)
    assert broken.logits()["test"].dtype == np.float32
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.once
def test_a_fresh_process_needs_no_backend_for_the_records():
    code = (
        "import sys\n"
        "from crl_keras.experiments.runs import config, records, recipes\n"
        "from crl_keras.experiments.measures import scores, statistics\n"
        "print({'tensorflow', 'torch', 'jax', 'keras'} & set(sys.modules))"
    )
    assert run_python(code, CRL_KERAS_RECORDS_ONLY="1").strip() == "set()"
