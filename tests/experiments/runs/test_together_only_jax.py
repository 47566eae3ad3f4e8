"""Runs trained as one program: as one by one, resumed, diverged, chosen."""

import dataclasses
import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import keras
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from crl_keras.experiments.runs import programs
from crl_keras.experiments.runs import stack
from crl_keras.experiments.runs import sweep
from crl_keras.experiments.runs import together
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.records import RunFolder
from crl_keras.experiments.runs.records import read_records
from crl_keras.experiments.runs.sweep import Plan
from crl_keras.experiments.runs.sweep import make_configs
from crl_keras.experiments.runs.training import Options
from crl_keras.networks import NETWORKS

CRL = "crl(alpha=1.5,beta=1)"


def tiny(input_shape, classes):
    """All that has a state of its own: statistics, dropout, a kernel."""
    inputs = keras.Input(input_shape)
    # No bias: its gradient is 0 but for rounding, which Adam makes large.
    x = keras.layers.Conv2D(4, 3, use_bias=False, data_format="channels_last")(
        inputs
    )
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten(data_format="channels_last")(x)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(classes, name="logits", dtype="float32")(x)
    return keras.Model(inputs, outputs, name="tiny")


@pytest.fixture(autouse=True)
def with_tiny(monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", tiny)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """Whatever there are: runs are trained by two threads."""
    monkeypatch.setattr(programs, "cores", lambda: 2)


def make_plan(
    output, asked, losses=("ce", CRL), seeds=2, rates=(0.01,), **more
):
    """90 images to train with, by default in batches that are all whole.

    Every other size is one more program to compile.
    """
    names = ("network", "precision", "devices")
    common = {name: more.pop(name) for name in names if name in more}
    base = dict(epochs=2, batch_size=30, optimizer="sgd")
    recipes = [
        get_recipe("digits", **{**base, **more}, learning_rate=rate)
        for rate in rates
    ]
    values = dict(
        dataset="digits",
        network="logistic",
        held_out=0.1,
        backend="jax",
        train_limit=100,
        test_limit=60,
    )
    configs = make_configs(
        losses, range(seeds), recipes, **{**values, **common}
    )
    return Plan(configs, str(output), options=Options(together=asked))


def run(plan, **callbacks):
    sweep.run_sweep(plan, cache=sweep.check_plan(plan), **callbacks)
    return {r.config.run_id: r for r in read_records(plan.output)}


NUMBERS = (
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
)


def assert_alike(records, others, tolerance=1e-4):
    assert records.keys() == others.keys()
    for key, record in records.items():
        other = others[key]
        assert record.result["status"] == other.result["status"]
        assert record.result["failure"] == other.result["failure"]
        assert len(record.history) == len(other.history)
        for row, same in zip(record.history, other.history, strict=True):
            for name in NUMBERS:
                assert row[name] == pytest.approx(
                    same[name], rel=tolerance, abs=tolerance
                ), (record.config.loss, record.config.seed, row["epoch"], name)
        if record.result["status"] == "done":
            logits = other.logits()
            for name, values in record.logits().items():
                np.testing.assert_allclose(
                    values, logits[name], rtol=10 * tolerance, atol=tolerance
                )


RECIPES = {
    "losses, adam": dict(
        optimizer="adam",
        losses=("ce", "nllr", CRL, "crl(alpha=0.05,beta=-0.05)", "focal"),
        seeds=1,
    ),
    "statistics, dropout, crops, schedule, decay, rates": dict(
        batch_size=32,  # The last batch is smaller.
        network="tiny",
        augmentation="crop_flip",
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        milestones=(0.5, 0.75),
        rates=(0.01, 0.003),
        losses=(CRL,),
    ),
    "rmsprop, 1 / step, shifts": dict(
        batch_size=32,
        optimizer="rmsprop",
        decay=0.1,
        augmentation="shift_flip",
        rates=(1e-3, 1e-4),
        seeds=1,
        losses=("ce",),
    ),
    "accumulation, rate of the head": dict(
        network="tiny",
        accumulate=2,
        head_rate=10.0,
        head_epochs=1,
        losses=("ce",),
    ),
    "mixing, smoothing, controls": dict(
        batch_size=32,
        mixup=0.2,
        cutmix=1.0,
        label_smoothing=0.1,
        seeds=1,
        losses=("crl_steps", "crl_weights(beta=-1)"),
    ),
    "RandAugment": dict(randaugment=1, losses=("ce",)),
    "margin": dict(losses=("lsoftmax(gamma=0.1,power=1)",)),
    "angle": dict(losses=("asoftmax",)),
}


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_the_numbers_are_those_of_one_by_one(recipe, tmp_path):
    """Batches, dropout, augmentation, statistics and steps are the same."""
    values = RECIPES[recipe]
    alone = run(make_plan(tmp_path / "alone", 1, **values))
    plan = make_plan(tmp_path / "together", 99, **values)
    found = run(plan)
    assert_alike(found, alone)
    runs = len(plan.configs)
    for record in found.values():
        assert record.result["together"] == dict(
            asked=99, runs=runs, why="it was asked for", images_per_second=None
        )
        assert record.result["best"] is not None
        assert not (record.path / "state.npz").exists()
    # Something must have been learned for the rest to mean anything.
    losses = [r.history[-1]["train_loss"] for r in found.values()]
    firsts = [r.history[0]["train_loss"] for r in found.values()]
    assert np.mean(losses) < np.mean(firsts)


def test_bfloat16_is_alike_to_its_digits(tmp_path):
    values = dict(precision="mixed_bfloat16", losses=(CRL,))
    alone = run(make_plan(tmp_path / "alone", 1, **values))
    found = run(make_plan(tmp_path / "together", 2, **values))
    assert_alike(found, alone, tolerance=0.02)
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("runs", [2, 4])
def test_weight_decays_may_differ(tmp_path, runs):
    """Within a program, and between the parts that share one."""

    def plan(folder, asked):
        plans = [
            make_plan(tmp_path / folder, asked, ("ce",), 2, weight_decay=decay)
            for decay in (0.0, 0.5)
        ]
        configs = plans[0].configs + plans[1].configs
        return dataclasses.replace(plans[0], configs=configs)

    found = run(plan("together", runs))
    assert_alike(found, run(plan("alone", 1)))
    assert {r.result["together"]["runs"] for r in found.values()} == {runs}
    losses = [r.history[-1]["train_loss"] for r in found.values()]
    assert len(set(losses)) == 4


def test_a_run_that_diverges_touches_no_other(tmp_path):
    """It is recorded where one by one would, and its row stays finite."""
    values = dict(rates=(0.01, 1e38), losses=("ce",), momentum=0.9)
    alone = run(make_plan(tmp_path / "alone", 1, **values))
    seen = []
    found = run(
        make_plan(tmp_path / "together", 4, **values), on_epoch=seen.append
    )
    assert_alike(found, alone)
    status = sorted(r.result["status"] for r in found.values())
    assert status == ["diverged"] * 2 + ["done"] * 2
    assert [row["epoch"] for row in seen] == [4, 8]  # Of all runs.
    assert not make_plan(tmp_path / "together", 4, **values).pending()


def test_no_run_is_left_if_all_diverge(tmp_path):
    found = run(make_plan(tmp_path, 4, rates=(1e38,)))
    assert len(found) == 4
    for record in found.values():
        assert record.result["status"] == "diverged"
        assert not (record.path / "logits.npz").exists()


class Stop(Exception):
    pass


def stop(row):
    raise Stop


@pytest.mark.parametrize("then", [3, 1])
def test_broken_off_it_goes_on_either_way(tmp_path, monkeypatch, then):
    """Also when the states of some runs are an epoch older than others'."""
    monkeypatch.setattr(stack, "SAVE_SECONDS", 0)
    values = dict(
        epochs=3,
        momentum=0.9,
        network="tiny",
        augmentation="crop_flip",
        losses=(CRL,),
        seeds=3,
    )
    whole = run(make_plan(tmp_path / "whole", 3, **values))
    plan = make_plan(tmp_path / "broken", 3, **values)
    with pytest.raises(Stop):
        run(plan, on_epoch=stop)
    states = sorted((tmp_path / "broken").glob("*/state.npz"))
    assert len(states) == 3
    states[0].unlink()
    plan = make_plan(tmp_path / "broken", then, **values)
    epochs = []
    found = run(plan, on_epoch=lambda row: epochs.append(row["epoch"]))
    assert_alike(found, whole)
    # One run began again, two went on from epoch 1.
    if then == 3:
        assert epochs == [1, 2, 3, 4, 6]
    else:
        assert sorted(epochs) == [1, 2, 2, 2, 3, 3, 3]


def test_a_state_of_one_by_one_goes_on_together(tmp_path):
    whole = run(make_plan(tmp_path / "whole", 4))
    with pytest.raises(Stop):
        run(make_plan(tmp_path / "broken", "off"), on_epoch=stop)
    assert_alike(run(make_plan(tmp_path / "broken", 4)), whole)


def test_killed_it_goes_on(tmp_path):
    """kill -9, then the same command, in processes of their own."""
    values = dict(epochs=200, losses=(CRL,))
    whole = run(make_plan(tmp_path / "whole", 2, **values))
    plan = make_plan(tmp_path / "killed", 2, **values)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.to_dict()))
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import test_together_only_jax as tests\n"
        "tests.NETWORKS['tiny'] = tests.tiny\n"
        "tests.stack.SAVE_SECONDS = 0\n"
        "tests.sweep.main()\n"
    )
    here = pathlib.Path(__file__).parent
    command = [sys.executable, "-c", code, str(path), str(here)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    while process.poll() is None:
        if len([*tmp_path.glob("killed/*/state.npz")]) == 2:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert plan.pending(), "it was killed too late to show anything"
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found = {r.config.run_id: r for r in read_records(plan.output)}
    assert_alike(found, whole)
    assert len([*tmp_path.glob("killed/*/.*")]) == 2, "locks alone are left"


def test_runs_that_are_done_are_left_out(tmp_path):
    first = run(make_plan(tmp_path, 2, seeds=1))
    stamps = {k: r.result["date"] for k, r in first.items()}
    trained = []
    found = run(
        make_plan(tmp_path, 4, seeds=2),
        on_run=lambda config, result: trained.append(config.seed),
    )
    assert trained == [1, 1] and len(found) == 4
    for key, stamp in stamps.items():
        assert found[key].result["date"] == stamp


def test_parts_share_their_program_and_cut_no_pair(tmp_path, monkeypatch):
    made = []
    real = programs.Programs.__init__

    def counted(self, configs, dataset):
        made.append(len(configs))
        real(self, configs, dataset)

    monkeypatch.setattr(programs.Programs, "__init__", counted)
    stacks, lines = [], []
    found = run(
        make_plan(tmp_path, 4, seeds=5, epochs=1),
        on_stack=lambda configs: stacks.append(
            [(c.seed, c.loss) for c in configs]
        ),
        say=lines.append,
    )
    assert [len(stack) for stack in stacks] == [4, 4, 2]
    assert stacks[0] == [(0, "ce"), (0, CRL), (1, "ce"), (1, CRL)]
    # Two runs in each of two lanes, and at last in one.
    assert made == [2] and len(found) == 10
    assert lines == [
        "digits, logistic: 10 runs 4 at a time as one program, "
        "as it was asked for"
    ]


@pytest.mark.parametrize("cores", [1, 2])
def test_parts_are_of_about_one_size(monkeypatch, cores):
    monkeypatch.setattr(programs, "cores", lambda: cores)
    recipe = get_recipe("digits")
    configs = make_configs(
        ["ce", "nllr", "crl"],
        range(50),
        [recipe],
        dataset="digits",
        network="mlp",
    )
    for most, sizes in (
        (150, [150]),
        (64, [51, 51, 48] if cores == 1 else [54, 54, 42]),
        (4, [3] * 50),
        (2, [2] * 75),
    ):
        choice = together.Choice("auto", most, "")
        assert [len(part) for part in choice.parts(configs)] == sizes
        assert sum(map(list, choice.parts(configs)), []) == [*configs]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(precision="mixed_float16"), "mixed_float16 scales"),
        (dict(devices=2, batch_size=10), "devices share"),
    ],
)
def test_what_cannot_be_stacked_is_said_and_goes_one_by_one(
    tmp_path, change, message
):
    lines = []
    found = run(
        make_plan(tmp_path, 2, ("ce",), epochs=1, **change), say=lines.append
    )
    (line,) = lines
    assert "2 runs one by one" in line and message in line
    for record in found.values():
        assert record.result["together"]["runs"] == 1
        assert message in record.result["together"]["why"]


def test_why_alone_knows_what_is_new():
    """A field that is not known here must not be left out of a training."""
    dataset = type("Data", (), dict(kind="memory"))
    (config,) = make_plan("unused", 2, ("ce",), 1).configs
    assert together.why_alone(config, dataset, Options()) is None

    @dataclasses.dataclass(frozen=True)
    class Newer(type(config.recipe)):
        averaged: float = 0.0

    fields = dataclasses.asdict(config.recipe)
    for averaged, expected in ((0.0, None), (0.9, "they have averaged")):
        recipe = Newer(**fields, averaged=averaged)
        newer = dataclasses.replace(config, recipe=recipe)
        why = together.why_alone(newer, dataset, Options())
        assert why == expected
    dataset.kind = "files"
    assert "files" in together.why_alone(config, dataset, Options())
    options = Options(csv=True)
    dataset.kind = "memory"
    assert "--csv" in together.why_alone(config, dataset, options)


@pytest.mark.parametrize("faster", ["together", "one by one"])
def test_auto_takes_the_faster_and_records_both(tmp_path, monkeypatch, faster):
    real = together.time_together

    def timed(*arguments):
        speed, runs = real(*arguments)
        assert speed > 0 and runs == 4
        return (1e9 if faster == "together" else 1e-9), runs

    monkeypatch.setattr(together, "time_together", timed)
    monkeypatch.setattr(together, "TRIAL_SECONDS", 0.05)
    monkeypatch.setattr(together, "SHORT_STEP", 60)  # On a busy machine too.
    lines = []
    plan = make_plan(tmp_path, "auto", epochs=1)
    found = run(plan, say=lines.append)
    (line,) = lines
    assert "images/s one by one" in line and "images/s together" in line
    for record in found.values():
        how = record.result["together"]
        assert how["asked"] == "auto"
        assert how["runs"] == (4 if faster == "together" else 1)
        assert how["images_per_second"]["one_by_one"] > 0
    # The trial has left no trace in the numbers.
    assert_alike(found, run(make_plan(tmp_path / "alone", 1, epochs=1)))


def test_no_trial_that_costs_more_than_it_can_save(tmp_path, monkeypatch):
    monkeypatch.setattr(together, "time_alone", lambda *_: (20.0, 0.5))
    monkeypatch.setattr(
        together, "time_together", lambda *_: pytest.fail("a trial")
    )
    found = run(make_plan(tmp_path, "auto", ("ce",), epochs=1))
    for record in found.values():
        assert "a trial" in record.result["together"]["why"]


@pytest.mark.parametrize("share, tried", [(0.01, [1]), (2, [1, 4])])
def test_one_run_shows_what_stacking_makes_far_slower(
    tmp_path, monkeypatch, share, tried
):
    """As it does convolutions on a processor."""
    seen = []

    def timed(choice, configs, dataset, images=None):
        seen.append(len(configs))
        assert images == (together.PROBED if seen == [1] else None)
        return share * 60, len(configs)

    monkeypatch.setattr(together, "time_alone", lambda *_: (0.0, 1.0))
    monkeypatch.setattr(together, "TRIAL_SHARE", 1e6)
    monkeypatch.setattr(together, "time_together", timed)
    plan = make_plan(tmp_path, "auto", epochs=1)
    data = sweep.prepare_dataset(plan, plan.configs[0])
    choice = together.choose(plan.configs, data, plan.options, plan.output)
    assert seen == tried and choice.runs == tried[-1]
    assert choice.speeds["together"] == share * 60


def test_after_a_stop_auto_goes_on_in_the_same_way(tmp_path, monkeypatch):
    measured = []

    def first(configs, dataset):
        measured.append(len(configs))
        return together.Choice("auto", 3, "it is faster", dict(together=1.5))

    monkeypatch.setattr(together, "_measured", first)
    plan = make_plan(tmp_path, "auto", ("ce",), seeds=7, epochs=1)
    seen = []

    def stopped(config, result):
        seen.append((config.seed, result["together"]))
        if len(seen) == 4:
            raise Stop

    with pytest.raises(Stop):
        run(plan, on_run=stopped)
    stacks, lines = [], []
    found = run(
        plan,
        on_stack=lambda configs: stacks.append([c.seed for c in configs]),
        say=lines.append,
    )
    assert measured == [7] and len(found) == 7
    # The first three are done. Of the others, those stay together that were.
    assert [seed for seed, _ in seen] == [0, 1, 2, 3]
    assert stacks == [[4, 5]]
    assert {r.result["together"]["why"] for r in found.values()} == {
        "it is faster"
    }
    assert "3 runs 3 at a time" in lines[0] and "2 images/s" in lines[0]
    # What is fastest for more runs, or on another device, is measured anew.
    run(make_plan(tmp_path, "auto", ("ce",), seeds=8, epochs=1))
    assert measured == [7, 8]
    monkeypatch.setattr(together, "device_name", lambda: "another")
    data = sweep.prepare_dataset(plan, plan.configs[0])
    together.choose(plan.configs, data, plan.options, plan.output)
    assert measured == [7, 8, 7]


def test_few_images_are_timed_too(tmp_path, monkeypatch):
    monkeypatch.setattr(together, "TRIAL_SECONDS", 0.01)
    plan = make_plan(tmp_path, "auto", ("ce",))
    data = sweep.prepare_dataset(plan, plan.configs[0])
    choice = together.Choice("auto", 1, "")
    seen, real = [], together.train_lanes

    def noted(lanes, steps):
        seen.extend(lane.parts[0][-1].shape for lane in lanes)
        real(lanes, steps)

    monkeypatch.setattr(together, "train_lanes", noted)
    speed, runs = together.time_together(choice, plan.configs[:1], data, 3)
    assert speed > 0 and runs == 1
    assert {shape[-1] for shape in seen} == {3}


def test_less_memory_means_fewer_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(together, "TRIAL_SECONDS", 0.05)
    plan = make_plan(tmp_path, "auto", ("ce",), seeds=8)
    data = sweep.prepare_dataset(plan, plan.configs[0])
    needed = []

    def noted(lane):
        needed.append(lane_bytes(lane))
        # There is room for 0.6 of the first two lanes.
        monkeypatch.setattr(together, "_memory", lambda: 1.2 * needed[0])
        return needed[-1]

    lane_bytes = programs.Lane.bytes
    monkeypatch.setattr(programs.Lane, "bytes", noted)
    choice = together.Choice("auto", 8, "")
    with together.training.session(plan.configs[0]):
        speed, runs = together.time_together(choice, plan.configs, data)
    assert len(needed) > 2 and needed[2] < needed[0]
    assert speed > 0 and 1 <= runs < 8


@pytest.mark.parametrize(
    "runs, losses, lanes",
    [
        (6, 3, ["ace", "bdf"]),  # Each has all losses.
        (7, 2, ["aceg", "bdf"]),
        (3, 3, ["abc"]),  # Otherwise each had a program of its own.
        (3, 1, ["ac", "b"]),
    ],
)
def test_lanes(runs, losses, lanes):
    found = programs.in_lanes("abcdefg"[:runs], range(losses))
    assert found == lanes


def test_a_lane_that_fails_stops_the_others():
    class Lane:
        error, was_stopped = None, False

        def compile(self):
            pass

        def train(self, stopped, most):
            if self.error:
                raise self.error
            self.was_stopped = stopped.wait(10)

    good, bad = Lane(), Lane()
    bad.error = FloatingPointError("a lane")
    with pytest.raises(FloatingPointError, match="a lane"):
        programs.train_lanes([bad, good])
    assert good.was_stopped


@pytest.mark.parametrize("garbage, collections", [(0, 2), (2**30, 0)])
def test_models_that_are_done_with_are_freed(
    tmp_path, monkeypatch, garbage, collections
):
    """Two parts of one seed each: at once where they are large."""
    monkeypatch.setattr(together, "GARBAGE", garbage)
    seen = []
    monkeypatch.setattr(together.gc, "collect", lambda: seen.append(1))
    run(make_plan(tmp_path, 2, epochs=1))
    assert len(seen) == collections


@pytest.mark.parametrize(
    "speeds, seconds, expected",
    [
        # On a processor, whose caches hold the state of a few runs.
        ({4: 60, 16: 50}, 0, 4),
        # On a GPU; and where no more runs are wanted, or fit its memory.
        ({4: 60, 16: 200, 64: 700, 256: 710}, 0, 64),
        ({4: 60, 16: 200, 64: 700, 256: 2000, 300: 3000}, 0, 300),
        ({4: 60, 16: 200, 64: (300, 20)}, 0, 20),
        # Another trial would take more than a tenth of the training.
        ({4: 60}, 11, 4),
    ],
)
def test_auto_takes_the_number_of_runs_that_is_fastest(
    monkeypatch, speeds, seconds, expected
):
    clock = iter([0, seconds] + [0] * 20)
    monkeypatch.setattr(together.time, "perf_counter", lambda: next(clock))

    def timed(choice, configs, dataset):
        speed = speeds[len(configs)]
        return speed if isinstance(speed, tuple) else (speed, len(configs))

    monkeypatch.setattr(together, "time_together", timed)
    _, runs = together._fastest(None, [None] * 300, 4, None, 60 * 100)
    assert runs == expected


def test_one_by_one_compiles_once_a_loss(tmp_path, caplog):
    """The seeds of a loss have equal programs."""
    # Without the folder of compiled programs that all tests share.
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    caplog.set_level("DEBUG", "jax._src.compiler")
    try:
        plan = make_plan(tmp_path, 1, seeds=3, epochs=1)
        run(plan)
        left = jax.config.jax_compilation_cache_dir
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()
    compiled, found = [
        [
            record.args[0]
            for record in caplog.records
            if record.msg.startswith(start) and "train_step" in record.args[0]
        ]
        for start in ("PERSISTENT COMPILATION CACHE MISS", "Persistent comp")
    ]
    # Of two losses, on three seeds.
    assert (len(compiled), len(found)) == (2, 4)
    assert left is None


def test_the_model_that_is_kept_is_that_of_its_run(tmp_path):
    plan = make_plan(tmp_path, 2, seeds=1, epochs=1)
    options = dataclasses.replace(plan.options, save_model=True)
    found = run(dataclasses.replace(plan, options=options))
    data = sweep.prepare_dataset(plan, plan.configs[0])
    for record in found.values():
        model = keras.models.load_model(record.path / "model.keras")
        assert ("competing" in model.loss.name) == (record.config.loss == CRL)
        logits = model.predict(data.test.images, verbose=0)
        np.testing.assert_allclose(
            logits, record.logits()["test"], rtol=1e-4, atol=1e-4
        )


def test_a_run_in_other_hands_is_left_to_them(tmp_path):
    plan = make_plan(tmp_path, 2, ("ce",), epochs=1)
    with RunFolder(plan.output, plan.configs[0]).locked():
        seen = []

        def ended(config, result):
            if result is not None:
                seen.append(config.seed)
                raise Stop

        with pytest.raises(Stop):
            run(plan, on_run=ended)
    assert seen == [1]
