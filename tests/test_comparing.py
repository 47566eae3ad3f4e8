"""`compare_losses` on models and data of one's own, and `compare_results`."""

import json
import re
import runpy
import subprocess
import sys
import tempfile
import time

import keras
import numpy as np
import pytest
from fresh import python
from scipy import stats

import crl_keras
from crl_keras import SparseCompetingRatioLoss
from crl_keras import compare_losses
from crl_keras import compare_results
from crl_keras import losses
from crl_keras.experiments.analysis.effects import effects
from crl_keras.experiments.commands import own_progress
from crl_keras.experiments.commands.main import main
from crl_keras.experiments.data.named import load_dataset
from crl_keras.experiments.data.splits import channel_statistics
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.recipes import scaling_layer
from crl_keras.experiments.runs.records import read_records
from crl_keras.networks import build_network

BACKEND = keras.backend.backend()
CE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
DENSE_CE = keras.losses.CategoricalCrossentropy(from_logits=True)
rng = np.random.default_rng(0)
X = rng.normal(size=(48, 6)).astype("float32")
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)  # Three classes.
DATA = dict(train=(X, Y), test=(X[:20] + 0.5, Y[:20]))
QUIET = dict(epochs=2, seeds=1, batch_size=16, verbose=0, together="off")


def build_model():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3),
        ]
    )


def adam():
    return keras.optimizers.Adam(0.01)


def logits(comparison):
    return {
        (r.config.loss, r.config.seed): r.logits()["test"]
        for r in comparison.runs
    }


def by_label(comparison):
    labels = [loss.label for loss in comparison._groups[0].losses]
    found = [r.logits()["test"] for r in comparison.runs]
    return dict(zip(labels, found, strict=True))


@pytest.mark.once
def test_the_numbers_of_the_command_line(tmp_path, script):
    code, _, error = script(
        "compare_losses.py",
        *"--dataset digits --network mlp --losses ce crl --seeds 1".split(),
        *"--epochs 2 --train-limit 150 --test-limit 60 --held-out 0.2".split(),
        *"--together off --output cli".split(),
    )
    assert code == 0, error
    expected = {r.config.loss: r.logits() for r in read_records("cli")}
    data = load_dataset("digits").limited(150, 60)
    recipe = get_recipe("digits")
    numbers = channel_statistics(data.with_held_out(0.2).train)

    def model():
        network = build_network("mlp", (8, 8, 1), 10)
        inputs = keras.Input((8, 8, 1), dtype="uint8")
        return keras.Model(
            inputs, network(scaling_layer(recipe, *numbers)(inputs))
        )

    found = compare_losses(
        model,
        (data.train.images, data.train.labels),
        (data.test.images, data.test.labels),
        ["ce", "crl"],
        lambda: keras.optimizers.Adam(recipe.learning_rate),
        epochs=2,
        seeds=1,
        batch_size=recipe.batch_size,
        held_out=0.2,
        together="off",  # Together the numbers are equal up to rounding.
        verbose=0,
    )
    assert [r.config.loss for r in found.runs] == [*expected]
    for record in found.runs:
        for name, values in expected[record.config.loss].items():
            np.testing.assert_array_equal(record.logits()[name], values)


class TwoInputs(keras.Model):
    """Makes its layers' weights in its first call."""

    def __init__(self):
        super().__init__()
        self.normalization = keras.layers.BatchNormalization()
        self.dropout = keras.layers.Dropout(0.5)
        self.hidden = keras.layers.Dense(8, activation="relu")
        self.head = keras.layers.Dense(3)

    def call(self, inputs, training=False):
        x = keras.ops.concatenate([inputs["a"], inputs["b"]], axis=-1)
        x = self.normalization(self.hidden(x), training=training)
        return self.head(self.dropout(x, training=training))


def test_losses_differ_in_the_loss_alone():
    """CRL with beta=0 is the cross-entropy: all its numbers are the same."""
    soft = 0.8 * np.eye(3)[Y] + 0.2 / 3
    found = compare_losses(
        TwoInputs,
        ({"a": X[:, :4], "b": X[:, 4:]}, soft),
        ({"a": X[:20, :4], "b": X[:20, 4:]}, soft[:20]),
        {
            "CE": DENSE_CE,
            "same": crl_keras.CompetingRatioLoss(beta=0, from_logits=True),
            "other": crl_keras.CompetingRatioLoss(from_logits=True),
        },
        adam,
        class_weight={0: 3.0},
        metrics=[keras.metrics.CategoricalCrossentropy(from_logits=True)],
        **QUIET,
    )
    of = by_label(found)
    np.testing.assert_allclose(of["same"], of["CE"], rtol=1e-4, atol=1e-5)
    assert np.abs(of["other"] - of["CE"]).max() > 1e-3
    assert len({r.result["initial_weights"] for r in found.runs}) == 1
    # Of soft labels no posterior is known.
    calibrated = {row.method for row in found._groups[0].losses[2].calibration}
    assert "CRL posterior" not in calibrated
    # The metric by hand.
    value = found.runs[0].result["last"]["metrics"]["categorical_crossentropy"]
    log_p = of["CE"] - np.log(np.exp(of["CE"]).sum(1, keepdims=True))
    assert value == pytest.approx(-(soft[:20] * log_p).sum(1).mean(), rel=1e-4)


class Batches(keras.utils.PyDataset):
    """With weights, 0 for half of the samples."""

    def __init__(self, x, y, weighted=False):
        super().__init__()
        self.x, self.y, self.weighted = x, y, weighted

    def __len__(self):
        return 3

    def __getitem__(self, i):
        x, y = self.x[16 * i : 16 * i + 16], self.y[16 * i : 16 * i + 16]
        return (x, y, np.arange(16.0) % 2) if self.weighted else (x, y)


@pytest.mark.parametrize(
    "soft", [False, pytest.param(True, marks=pytest.mark.once)]
)
def test_the_effect_is_split_and_each_loss_has_its_rate(soft):
    """Of a loss that is an object, and of one that is a name."""
    labels = 0.8 * np.eye(3)[Y] + 0.2 / 3 if soft else Y
    loss = "crl(beta=-1)" if soft else losses.SparseFocalLoss(from_logits=True)
    found = compare_losses(
        build_model,
        (X, labels),
        (X[:20], labels[:20]),
        {"mine": loss},
        keras.optimizers.SGD,
        learning_rates=[0.01, 0.1],
        split_effect=True,
        held_out=0.25,
        **QUIET,
    )
    labels = [loss.label for loss in found._groups[0].losses]
    controls = ["CE with mine's steps", "mine with CE's steps"]
    assert labels == ["CE", "mine", *controls]
    (family,) = found.families
    assert [e.label for e in effects(family)] == ["mine", "mine"]
    assert {*family.own.own_rates} == {x.loss for x in family.groups[0].losses}
    text = repr(found)
    assert "each loss at its own learning rate" in text
    assert "Steps or weighting" in text and "Longer steps" in text
    # The controls are what their names say, not copies of the loss.
    assert len({r.logits()["test"].tobytes() for r in found.runs}) == 8


def test_nothing_to_split():
    with pytest.raises(ValueError, match="split_effect.*Received: CE"):
        compare_losses(
            build_model,
            **DATA,
            losses={"CE": DENSE_CE},
            split_effect=True,
            **QUIET,
        )


def pipelines():
    yield "PyDataset", Batches
    if BACKEND == "tensorflow":
        import tensorflow as tf

        yield (
            "tf.data",
            lambda x, y, w=False: tf.data.Dataset.from_tensor_slices(
                (x, y, np.arange(48.0) % 2)[: 3 if w else 2]
            ).batch(16),
        )
    if BACKEND == "torch":
        import torch

        yield (
            "DataLoader",
            lambda x, y, w=False: torch.utils.data.DataLoader(
                torch.utils.data.TensorDataset(
                    *map(torch.tensor, (x, y, np.arange(48.0) % 2)[: 2 + w])
                ),
                batch_size=16,
            ),
        )


@pytest.mark.parametrize("pipeline", [p for _, p in pipelines()])
def test_a_pipeline_is_read_in_its_own_order(pipeline):
    found = compare_losses(
        build_model,
        pipeline(X, Y, True),
        pipeline(X, Y),
        {"CE": CE, "CRL": SparseCompetingRatioLoss(from_logits=True)},
        adam,
        validation=pipeline(X[::-1].copy(), Y[::-1].copy()),
        **QUIET,
    )
    keras.utils.set_random_seed(0)
    model = build_model()
    model.compile(adam(), CE)
    for _ in range(2):
        for x, y, weights in Batches(X, Y, True):
            model.train_on_batch(x, y, sample_weight=weights)
    np.testing.assert_allclose(
        found.runs[0].logits()["test"],
        model.predict(X, verbose=0),
        rtol=1e-4,
        atol=1e-5,
    )
    assert len(found.runs[0].logits()["held_out"]) == 48
    (note,) = [n for n in found.notes if "pipeline" in n]
    assert note.endswith("All losses of a seed saw the same batches.")


@pytest.mark.once
def test_a_pipeline_that_shuffles_itself():
    """A function of the seed makes pairs of it; the test may not do it."""

    def shuffled(seed):
        order = np.random.default_rng(seed).permutation(48)
        return Batches(X[order], Y[order])

    losses = {
        "CE": CE,
        "same": SparseCompetingRatioLoss(beta=0, from_logits=True),
    }
    common = dict(QUIET, losses=losses, optimizer=adam, test=DATA["test"])
    found = compare_losses(build_model, shuffled, **common)
    of = by_label(found)
    np.testing.assert_allclose(of["same"], of["CE"], rtol=1e-4, atol=1e-5)
    assert not [n for n in found.notes if "pipeline" in n]

    generator = np.random.default_rng(0)

    class Anew(Batches):
        def on_epoch_end(self):
            order = generator.permutation(48)
            self.x, self.y = self.x[order], self.y[order]

    found = compare_losses(build_model, Anew(X, Y), **common)
    assert any(
        "may have seen different batches" in note for note in found.notes
    )

    class Testing(Batches):
        def __getitem__(self, i):
            return X[:16], generator.permutation(Y[:16])

    with pytest.raises(ValueError, match="in the same order each time"):
        compare_losses(
            build_model, DATA["train"], **dict(common, test=Testing(X, Y))
        )


@pytest.mark.once
def test_the_run_that_is_shown_is_chosen_by_held_out_samples():
    """Of one loss, without a folder that the choice could read later."""
    common = dict(DATA, losses=["ce"], optimizer=adam, **QUIET)
    found = compare_losses(build_model, held_out=0.25, **common | {"seeds": 3})
    (group,) = found._groups
    kept = [run.logits() for run in found.runs]
    errors = [
        (x["held_out"].argmax(1) != x["held_out_labels"]).mean() for x in kept
    ]
    assert group.model.record is found.runs[int(np.argmin(errors))]
    assert "lowest error on its held-out samples" in group.model.why


@pytest.mark.once  # test_runs.py goes on with runs on every backend.
def test_stopped_and_given_again(tmp_path, monkeypatch):
    def model():
        return keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(8),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.5),
                keras.layers.Dense(3),
            ]
        )

    common = dict(DATA, losses=["ce", "crl"], optimizer=adam, **QUIET)
    common["epochs"] = 3
    # A folder of its own: other tests run at the same time.
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(temporary))
        whole = compare_losses(model, **common)
    assert not [*temporary.glob("crl_keras-*")]  # Nothing is left on disk.
    epochs = []

    def stop(self, row):
        epochs.append(row)
        if len(epochs) in (1, 6):
            raise KeyboardInterrupt

    output = tmp_path / "runs"
    with monkeypatch.context() as patch:
        patch.setattr(own_progress.Silent, "on_epoch", stop)
        with pytest.raises(KeyboardInterrupt, match="The same call.*goes on"):
            compare_losses(model, output=output, **common)
    with monkeypatch.context() as patch:
        patch.setattr(own_progress.Silent, "on_epoch", stop)
        part = compare_losses(model, output=output, **common)
    assert len(part.runs) == 1
    assert any("Stopped after 1 run of 2" in note for note in part.notes)
    stamp = (part.runs[0].path / "history.csv").stat().st_mtime_ns
    again = compare_losses(model, output=output, **common)
    for key, values in logits(whole).items():
        np.testing.assert_array_equal(logits(again)[key], values)
    assert (part.runs[0].path / "history.csv").stat().st_mtime_ns == stamp
    assert again.notes == whole.notes
    # Another optimizer makes other runs.
    other = dict(common, optimizer=lambda: keras.optimizers.Adam(0.02))
    other.update(losses=["ce"], epochs=1)
    assert len(compare_losses(model, output=output, **other).runs) == 1
    assert len(read_records(output)) == 3


# As a user would write it in a file.
KILLED = """
import sys
import keras
import keras_hub
import numpy as np
import crl_keras

rng = np.random.default_rng(0)
x = rng.normal(size=(24, 16, 16, 3)).astype("float32")
y = np.arange(24) % 3

def build_model():
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64], input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64], stackwise_num_blocks=[1],
        stackwise_num_strides=[1], block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    pooled = keras.layers.GlobalAveragePooling2D()(backbone.output)
    return keras.Model(backbone.input, keras.layers.Dense(3)(pooled))

found = crl_keras.compare_losses(
    build_model, (x, y), (x[:9], y[:9]), ["ce", "crl"], epochs=4, seeds=2,
    batch_size=8, output=sys.argv[1], verbose=2,
)
print(len(found.runs), "runs")
"""


@pytest.mark.once
def test_killed_and_given_again_with_a_backbone_of_keras_hub(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "compare.py"
    path.write_text(KILLED)

    def start():
        return subprocess.Popen(
            [sys.executable, str(path), str(tmp_path / "killed")],
            stdout=subprocess.PIPE,
            text=True,
        )

    killed = start()
    while not [*tmp_path.glob("killed/*/result.json")]:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    killed.communicate()
    done = {p.parent.name for p in tmp_path.glob("killed/*/result.json")}
    assert 1 <= len(done) < 4
    again, _ = start().communicate()
    assert again.endswith("4 runs\n")
    monkeypatch.setattr(sys, "argv", [str(path), str(tmp_path / "whole")])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.endswith("4 runs\n")
    expected, found = (
        {r.config.run_id: r.logits()["test"] for r in read_records(folder)}
        for folder in (tmp_path / "whole", tmp_path / "killed")
    )
    assert found.keys() == expected.keys()
    for key, values in found.items():
        np.testing.assert_array_equal(values, expected[key])


def report_text(comparison, path):
    """The report that a reader sees: without styles."""
    text = comparison.report(path).read_text(encoding="utf-8")
    return re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


@pytest.mark.once
def test_a_report_on_one_loss_calls_the_data_samples(tmp_path):
    found = compare_losses(
        build_model,
        **DATA,
        losses={"CE": CE},
        learning_rates=None,
        optimizer=lambda: keras.optimizers.SGD(0.1),
        held_out=0.25,
        **QUIET,
    )
    report = report_text(found, tmp_path / "r.html")
    for said in (report, found.to_markdown(), " ".join(found.verdicts)):
        assert "test samples" in said and "image" not in said


def test_what_a_comparison_gives(tmp_path):
    def early():
        return keras.callbacks.EarlyStopping("val_loss", patience=0)

    found = compare_losses(
        build_model,
        **DATA,
        losses={"CE": CE, "CRL": "crl(alpha=2)", "<b>": lambda y, z: CE(y, z)},
        baseline="CRL",
        optimizer=lambda rate: keras.optimizers.SGD(rate),
        learning_rates=[0.1, 1e6],  # The second makes it stop, or diverge.
        callbacks=[early],
        metrics=["accuracy"],
        keep_models=True,
        class_names=["a", "b", "c"],
        held_out=0.25,
        **QUIET,
    )
    assert [loss.label for loss in found._groups[0].losses] == [
        "CRL",
        "CE",
        "<b>",
    ]
    frame = found.to_frame()
    assert list(frame.loss[:3]) == ["CRL", "CE", "<b>"]
    record = found.runs[0]
    error = np.mean(record.logits()["test"].argmax(1) != Y[:20])
    assert frame.error_mean[1] == error
    metrics = record.result["last"]["metrics"]
    assert metrics["accuracy"] == pytest.approx(1 - error)
    # Two at the losses' own rates, two at each of the rates.
    assert len(found.verdicts) == 6 and "CRL" in found.verdicts[0]
    text = repr(found)
    assert "Test error: own data, build_model" in text and "accuracy" in text
    page = found._repr_html_()
    assert "<svg" in page and "&lt;b&gt;" in page and "<b></td>" not in page
    assert not re.search(r"(src|href)=\"http", page)
    assert "CRL" in found.to_markdown() and r"\toprule" in found.to_latex()
    report = report_text(found, tmp_path / "new" / "r.html")
    assert "What the numbers support" in report
    for said in (report, found.to_markdown(), found.to_latex()):
        assert "samples" in said and "image" not in said
    assert "image" not in text
    assert found.figure("runs").axes[0].get_ylabel().startswith("test error")
    with pytest.raises(ValueError, match="one of errors, runs"):
        found.figure("pie")
    model = found.model("CE", 0, 0.1)
    np.testing.assert_allclose(
        model.predict(DATA["test"][0], verbose=0),
        record.logits()["test"],
        rtol=1e-5,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="of several, its learning rate"):
        found.model("CE", 0)


def test_callbacks_see_what_is_held_out_and_not_the_test():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(dict(logs))

    common = dict(losses=["ce"], optimizer=adam, callbacks=[Watch], **QUIET)
    # Of the test all labels are wrong: its loss is not that of the held-out.
    test = (X[:20], (Y[:20] + 1) % 3)
    compare_losses(
        build_model, DATA["train"], test, validation=DATA["train"], **common
    )
    model_loss = seen[-1]["val_loss"]
    assert seen[-1]["val_accuracy"] == pytest.approx(
        seen[-1]["accuracy"], abs=0.25
    )
    assert model_loss < 3
    seen.clear()
    compare_losses(build_model, DATA["train"], test, held_out=0, **common)
    assert not [name for name in seen[-1] if name.startswith("val_")]


def no_softmax():
    model = build_model()
    return keras.Sequential([model, keras.layers.Softmax()])


def one_output():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])


def unlike():
    """Draws its weights from a generator of its own."""
    model = build_model()
    model.layers[0].kernel.assign(np.random.default_rng().random((6, 8)))
    return model


@pytest.mark.once
@pytest.mark.parametrize(
    "change, message",
    [
        (dict(build_model=build_model()), "must be a function that returns a"),
        (dict(build_model=lambda: 3), "to return a keras.Model. Received: int"),
        (dict(build_model=no_softmax), "ends in probabilities; leave out"),
        (dict(build_model=one_output), "of two classes or more"),
        (dict(build_model=unlike), "the same initial weights for the same"),
        (dict(losses={"CE": keras.losses.SparseCategoricalCrossentropy()}),
         "'CE' with from_logits=False"),
        (dict(losses={"f": keras.losses.sparse_categorical_crossentropy}),
         "'f' with from_logits=False"),
        (dict(losses={"CE": DENSE_CE}), "Use its sparse form"),
        (dict(losses=["hinge"]), "must be one of ce, nllr, crl"),
        (dict(losses=["lsoftmax"]), "needs its own last layer"),
        (dict(losses={"x": 3}), "to be a Keras loss, a function or a name"),
        (dict(losses="ce"), "must be a dict from names to Keras losses"),
        (dict(baseline="focal"), "`baseline` must be one of CE, CRL"),
        (dict(train=(X, X[:, 0])), "as those of a regression"),
        (dict(train=(X, np.ones((48, 3)))), "of several classes a sample"),
        (dict(train=(X, np.array(["a"] * 48))), "LabelEncoder"),
        (dict(train=(X, Y + 3)), "Received: labels up to 5"),
        (dict(train=(X[:9], Y)), "as many inputs (and weights) as labels"),
        (dict(train=(X, Y, Y, Y)), "Received: 4 parts"),
        (dict(train=3), "Received: int"),
        (dict(test=(X, np.eye(3)[Y])), "integer in train, one-hot in test"),
        (dict(train=Batches(X, Y), sample_weight=X), "`sample_weight` is for"),
        (dict(train=Batches(X, Y), held_out=0.1), "give the part as `valid"),
        (dict(held_out=1), "must be a fraction in [0, 1)"),
        (dict(optimizer=keras.optimizers.Adam()), "returns a new optimizer"),
        (dict(optimizer=3), "must be a function or a name"),
        (dict(learning_rates=[0.1]), "must be a function of the rate"),
        (
            dict(learning_rates=0.1, optimizer=keras.optimizers.Adam),
            "must be a list of numbers, as [0.001, 0.003]. Received: 0.1",
        ),
        (
            dict(learning_rates="fast", optimizer=keras.optimizers.Adam),
            "Received: 'fast'",
        ),
        (dict(callbacks=[keras.callbacks.History()]), "return a new callback"),
        (dict(metrics=["top"]), "Could not interpret"),
        (dict(metrics=[keras.metrics.F1Score()]), "cannot be com"),
        (dict(metrics="accuracy"), "must be a list of Keras metrics"),
        (dict(class_weight={5: 1}), "of classes from 0 to 2"),
        (dict(class_names=["a"]), "Expected 3 `class_names`"),
        (dict(epochs=0), "`epochs` must be at least 1. Received: 0"),
        (dict(batch_size=1.5), "`batch_size` must be an integer"),
        (dict(seeds=[1, 1]), "a list of different seeds"),
        (dict(seeds=0), "`seeds` must be a number of seeds, at least 1"),
        (dict(verbose=3), '`verbose` must be 0, 1, 2 or "auto"'),
        (dict(together=0), "number of runs, at least 1. Received: 0"),
        (dict(together="on"), '"auto", "off" or a number'),
        (dict(together=2), "it needs JAX, and Keras is on"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_said_before_training(change, message):
    arguments = dict(
        build_model=build_model,
        **DATA,
        losses={"CE": CE, "CRL": SparseCompetingRatioLoss(from_logits=True)},
        optimizer=adam,
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        compare_losses(**{**arguments, **QUIET, **change})


A = [9.1, 8.7, 9.0, 9.4, 8.8, 9.2]
B = [8.6, 8.5, 8.6, 9.0, 8.7, 8.9]
C = [9.0, 9.1, 8.6, 9.5, 9.2, 8.9]


@pytest.mark.once
def test_results_of_others_in_pairs(tmp_path):
    rows = [
        dict(method=loss, seed=seed, error=error, f1=100 - 2 * error, note="x")
        for loss, errors in (("ce", A), ("crl", B), ("focal", C))
        for seed, error in enumerate(errors)
    ]
    found = compare_results(rows)
    (group,) = found._groups
    expected = stats.ttest_rel(B, A), stats.ttest_rel(C, A)
    for c, test in zip(group.comparisons, expected, strict=True):
        assert c.test.p == pytest.approx(test.pvalue, rel=1e-9)
        assert c.test.t == pytest.approx(test.statistic, rel=1e-9)
    # Holm's correction of two: twice the smaller, once the larger.
    low, high = sorted(test.pvalue for test in expected)
    holm = sorted(c.p_holm for c in group.comparisons)
    assert holm == pytest.approx([2 * low, max(2 * low, high)], rel=1e-9)
    frame = found.to_frame()
    assert frame.error_mean[0] == pytest.approx(np.mean(A) / 100)
    assert "best_error_mean" not in frame
    assert "f1" in repr(found) and "note" not in repr(found)
    assert group.baseline == "own[given]:ce"
    page = found.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert "read as percent" in page and "Further metrics" in page
    assert "over the epochs" not in page and "McNemar" in page
    # Any order of rows, accuracies, fractions, a baseline that is named.
    other = compare_results(
        [
            dict(loss=r["method"], seed=r["seed"], accuracy=100 - r["error"])
            for r in rows[::-1]
        ],
        baseline="ce",
    )
    p = {c.label: c.test.p for c in other._groups[0].comparisons}
    assert p["crl"] == pytest.approx(expected[0].pvalue, rel=1e-6)


@pytest.mark.once
def test_results_that_are_no_pairs():
    import pandas

    frame = pandas.DataFrame(
        {"loss": ["ce"] * 6 + ["crl"] * 5, "error": [*A, *B[:5]]}
    )
    found = compare_results(frame)
    test = stats.ttest_ind(B[:5], A, equal_var=False)
    (c,) = found._groups[0].comparisons
    assert c.test.p == pytest.approx(test.pvalue, rel=1e-9)
    low, high = test.confidence_interval()
    assert c.test.ci == pytest.approx((low / 100, high / 100), rel=1e-9)
    assert (
        "5 runs of crl and 6 of ce, not in pairs (Welch's"
        in (found.verdicts[0])
    )
    assert found.figure("differences") is not None
    # Seeds that are not shared are no pairs either.
    frame["seed"] = range(11)
    again = compare_results(frame)
    assert again._groups[0].comparisons[0].test.p == c.test.p
    assert compare_results(frame, paired=False).verdicts == found.verdicts


@pytest.mark.once
def test_results_in_groups():
    rows = [
        dict(loss=loss, seed=seed, error=e + shift, dataset=data)
        for data, shift in (("cars", 0), ("birds", 1))
        for loss, errors in (("ce", A), ("crl", B))
        for seed, e in enumerate(errors)
    ]
    titles = [group.title for group in compare_results(rows)._groups]
    assert titles == ["cars", "birds"]
    for row in rows:
        row["learning_rate"] = 0.1 if row["dataset"] == "cars" else 0.2
        del row["dataset"]
    found = compare_results(rows, name="mine")
    titles = [group.title for group in found._groups]
    assert titles == ["mine, learning rate 0.1", "mine, learning rate 0.2"]
    assert found.figure("rates") is not None
    for title, verdict in zip(titles, found.verdicts, strict=True):
        assert verdict.startswith(f"{title}: With 6 seeds")


@pytest.mark.once
def test_losses_of_several_rates_keep_the_order_of_their_user():
    names = [*"nahcwqbzk"]
    rows = [
        dict(loss=name, seed=seed, error=e, learning_rate=rate)
        for name in names
        for rate in (0.1, 0.2)
        for seed, e in enumerate(A)
    ]
    (family,) = compare_results(rows).families
    assert [loss[-1] for loss in family.losses] == names


@pytest.mark.once
def test_a_table_of_a_spreadsheet(tmp_path):
    """Semicolons; and small errors in percent are no fractions."""
    path = tmp_path / "results.csv"
    rows = "".join(f"{x};{k};{0.8 + k / 7}\n" for x in "ab" for k in range(3))
    path.write_text(f"loss;seed;error\n{rows}")
    frame = compare_results(path).to_frame()
    assert frame.error_mean[0] == pytest.approx((0.8 + 1 / 7) / 100)


@pytest.mark.once
@pytest.mark.parametrize(
    "rows, message",
    [
        ([], "at least one run"),
        ([dict(loss="a", score=1)], "a column `error` or `accuracy`"),
        ([dict(loss="a", error="x")], "a number in column 'error' of row 1"),
        ([dict(loss="a", error=float("nan"))], "leave out runs that did not"),
        ([dict(loss="a", error=101)], "from 0 to 100"),
        (
            [dict(loss="a", error=x) for x in (9.1, 0.085, 9)],
            "Received: 0.085 in row 2, where 9 is typical",
        ),
        ([dict(loss="a", error=1, seed=0)] * 2, "Rows 1 and 2 are the same"),
        ([dict(loss="a", error=1, seed=0.5)], "whole numbers in column 'seed'"),
        (
            [dict(loss="a", error=1, learning_rate=r) for r in (0.1, "x")],
            "a number in column 'learning_rate' of row 2",
        ),
    ],
)
def test_results_that_cannot_be_read(rows, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        compare_results(rows)


@pytest.mark.once
def test_wrong_arguments_of_results():
    rows = [dict(loss="a", error=1)]
    with pytest.raises(ValueError, match="`paired` must be True, False"):
        compare_results(rows, paired="yes")
    with pytest.raises(ValueError, match="Pairs need a column `seed`"):
        compare_results(rows, paired=True)
    with pytest.raises(ValueError, match="`baseline` must be one of a."):
        compare_results(rows, baseline="b")
    with pytest.raises(
        ValueError, match="call compare_losses with keep_models"
    ):
        compare_results(rows).model("a", 0)


@pytest.mark.once
def test_help_of_the_command_loads_no_backend(tmp_path):
    code = (
        "import sys, crl_keras_command as c; sys.argv = ['crl-keras', {}]\n"
        "try: c.main()\n"
        "except SystemExit as end: print(end.code)\n"
        "print({{'keras', 'tensorflow', 'jax', 'torch'}} & {{*sys.modules}})"
    )
    for words, expected in (
        ("'--help'", "0"),
        ("'--version'", "0"),
        ("'compare', '--help'", "0"),
        ("'reproduce', '--help'", "0"),
        ("'report', 'nowhere'", "crl-keras report: There is no folder of runs"),
    ):
        done = python("-c", code.format(words), cwd=tmp_path)
        *_, said, loaded = done.stdout.splitlines()
        assert said.startswith(expected) and loaded == "set()", done.stderr


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs `crl-keras` in this process: code, and all it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["crl-keras"])

    def run(*words):
        try:
            code = main([*words])
        except SystemExit as end:
            code = end.code
        out, error = capsys.readouterr()
        if isinstance(code, str):
            code, error = 1, error + code
        return code, out + error

    return run


@pytest.mark.once
def test_what_the_command_says(command, tmp_path):
    code, text = command("--help")
    assert code == 0 and len(text.splitlines()) < 24
    assert command()[1] == text
    assert "Stanford Cars" in command("finetune")[1]
    code, text = command("finetune", "dogs")
    assert code == 2 and "invalid choice: 'dogs'" in text
    assert command("train")[0] == 2
    for name in ("cub", "cars", "adience", "folder"):
        text = command("finetune", name, "--help")[1]
        assert f"usage: crl-keras finetune {name}" in text
        assert ("--faces" in text) == (name == "adience")
    code, text = command("compare", "--losses", "hinge")
    assert code == 1 and "crl-keras compare: A loss must be one of" in text
    assert "table1 to table10" in command("reproduce", "--help")[1]
    assert "a saved model" in command("predict", ".", "a.jpg")[1]
    (tmp_path / "r.csv").write_text("loss,seed,error\na,0,1\na,1,2\nb,0,2\n")
    code, text = command("results", "r.csv", "--output", "r.html")
    assert code == 0 and "Written: r.html" in text
    assert "With 1 seed, the test error of b is 1.00 points higher" in text


@pytest.mark.once
def test_the_command_trains(tmp_path):
    """In a process of its own, where the package is not loaded whole."""
    words = "demo --epochs 1 --seeds 1 --train-limit 60 --test-limit 30"
    python("-m", "crl_keras_command", *words.split(), cwd=tmp_path)
    found = read_records(tmp_path / "runs" / "demo")
    losses = [record.config.loss for record in found]
    assert losses == ["ce", "crl(alpha=1.5,beta=1)", "nllr"]


@pytest.mark.once
def test_the_command_completes(tmp_path, monkeypatch):
    """What a shell asks, and is answered on file descriptor 8."""
    ask = (
        "import os; fd = os.open('out', os.O_WRONLY | os.O_CREAT)\n"
        "os.dup2(fd, 8)\n"
        "import crl_keras_command; crl_keras_command.main()"
    )
    for line, expected in (
        ("crl-keras ", ["compare", "finetune", "results"]),
        ("crl-keras finetune ", ["cub", "cars", "adience", "folder"]),
        ("crl-keras compare --los", ["--losses"]),
    ):
        monkeypatch.setenv("_ARGCOMPLETE", "1")
        monkeypatch.setenv("_ARGCOMPLETE_IFS", " ")
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        subprocess.run([sys.executable, "-c", ask], cwd=tmp_path)
        found = (tmp_path / "out").read_text().split()
        assert set(expected) <= set(found), (line, found)


@pytest.mark.once
def test_records_of_own_models_are_read_by_the_report(tmp_path, script):
    compare_losses(
        build_model,
        **DATA,
        losses={"mine": CE, "yours": "crl"},
        baseline="yours",
        optimizer=adam,
        output=tmp_path / "runs",
        **QUIET,
    )
    code, out, error = script("make_report.py", "runs")
    assert code == 0, error
    assert re.search("of mine (is|equals)", " ".join(out.split()))
    code, out, error = script("make_report.py", "runs", "--baseline", "mine")
    assert re.search("of yours (is|equals)", " ".join(out.split()))
    config = json.loads(next(tmp_path.glob("runs/*/config.json")).read_text())
    assert "Adam" in config["own"]
