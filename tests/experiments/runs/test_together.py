"""`--together` on every backend: where it is off, and where an error."""

import io
import os

import keras
import pytest
import rich.console

from crl_keras.experiments import devices
from crl_keras.experiments.commands.arguments import compare_parser
from crl_keras.experiments.commands.plans import resolve_together
from crl_keras.experiments.commands.progress import Progress
from crl_keras.experiments.runs import sweep
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.sweep import Plan
from crl_keras.experiments.runs.sweep import make_configs
from crl_keras.experiments.runs.training import Options

BACKEND = keras.backend.backend()
ON_JAX = BACKEND == "jax"


def resolved(*words):
    parser = compare_parser("about")
    return resolve_together(parser.parse_args(words))


def test_auto_is_off_where_one_program_cannot_be():
    assert resolved() == ("auto" if ON_JAX else "off")
    assert resolved("--together", "off") == "off"
    assert resolved("--workers", "2") == "off"
    assert resolved("--ray", "local") == "off"


def test_a_number_is_an_error_where_one_program_cannot_be():
    if ON_JAX:
        assert resolved("--together", "8") == 8
        assert resolved("--together", "8", "--workers", "2") == 8
    else:
        with pytest.raises(ValueError, match=f"JAX.*on {BACKEND}.*together 8"):
            resolved("--together", "8")
    with pytest.raises(ValueError, match="--ray|needs JAX"):
        resolved("--together", "8", "--ray", "local")


@pytest.mark.once
def test_cores_are_those_that_jax_is_told(monkeypatch):
    monkeypatch.setenv("NPROC", "3")
    assert devices.cores() == 3
    monkeypatch.delenv("NPROC")
    assert 1 <= devices.cores() <= os.cpu_count()


@pytest.mark.once
@pytest.mark.parametrize("word", ["0", "-1", "on", "2.5"])
def test_another_word_is_an_error(word, capsys):
    with pytest.raises(SystemExit):
        resolved(f"--together={word}")
    assert "auto, off or a number of runs" in capsys.readouterr().err


def test_other_backends_train_one_by_one_whatever_a_plan_says(tmp_path):
    """A plan may come from Python, or from another machine."""
    recipe = get_recipe("digits", epochs=1)
    configs = make_configs(
        ["ce"],
        range(2),
        [recipe],
        dataset="digits",
        network="logistic",
        backend=BACKEND,
        train_limit=64,
        test_limit=32,
    )
    plan = Plan(configs, str(tmp_path), options=Options(together=2))
    assert Plan.from_dict(plan.to_dict()) == plan
    results, stacks = [], []
    sweep.run_sweep(
        plan,
        on_run=lambda config, result: results.append(result),
        on_stack=stacks.append,
    )
    results = [result for result in results if result is not None]
    expected = 2 if ON_JAX else 1
    assert [result["together"]["runs"] for result in results] == [expected] * 2
    assert len(stacks) == expected - 1


@pytest.mark.once
def test_one_bar_for_the_epochs_of_all(tmp_path):
    recipe = get_recipe("digits", epochs=10)
    configs = make_configs(
        ["ce", "crl"], range(3), [recipe], dataset="digits", network="mlp"
    )
    text = io.StringIO()
    console = rich.console.Console(file=text, force_terminal=True, width=120)
    with Progress(Plan(configs, str(tmp_path)), console) as progress:
        progress.on_stack(configs)
        row = dict(epoch=12, train_loss=1.0, train_accuracy=0.5)
        row.update(test_accuracy=0.75, images_per_second=5e4)
        progress.on_epoch(row)
        task = progress.bars.tasks[progress.run]
        assert (task.completed, task.total, task.visible) == (12, 60, True)
        assert "50000 images/s" in task.fields["note"]
        assert "6 runs" in task.description
