"""Names of the fine-grained methods, and what of a run follows from them."""

import json

import pytest

from crl_keras.experiments.commands import plans
from crl_keras.experiments.commands.arguments import finetune_parser
from crl_keras.experiments.runs import method_names
from crl_keras.experiments.runs.backbone_names import check_backbone
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.recipes import RECIPES
from crl_keras.experiments.runs.recipes import Recipe
from crl_keras.experiments.runs.recipes import default_recipe
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.experiments.runs.recipes import parse_part_rate

pytestmark = pytest.mark.once


def config(network, **recipe):
    return RunConfig(
        "cub", network, "crl", get_recipe("fine_grained", **recipe), seed=0
    )


def test_one_way_to_write_a_network():
    spellings = (
        "keras/resnet50+dcl",
        "keras/resnet50+dcl()",
        "keras/resnet50+dcl( gamma = 1, regions=7 )",
    )
    assert {config(s).network for s in spellings} == {spellings[0]}
    other = config("keras/resnet50+dcl(gamma=0.010)")
    assert other.network == "keras/resnet50+dcl(gamma=0.01)"
    assert other.run_id != config(spellings[0]).run_id
    assert other.group != config("keras/resnet50").group
    again = RunConfig.from_dict(json.loads(json.dumps(other.to_dict())))
    assert again == other
    # A file may be called what it likes.
    assert method_names.split_method("file/my+dcl-0a1b")[1] is None


def test_errors():
    for spec, said in (
        ("dlc", "bcnn, dfl, dcl"),
        ("dcl(gamma)", "gamma"),
        ("dcl(filters=3)", "regions"),
        ("dfl(filters=few)", "an integer"),
        ("dfl(start=zeros)", "patches, random"),
        ("bcnn(tap=a/b)", "no slash"),
    ):
        with pytest.raises(ValueError, match=said):
            method_names.parse_method(spec)
    check_backbone("keras/resnet50+bcnn")


@pytest.mark.parametrize("method", method_names.METHODS)
def test_recipes(method):
    network = f"keras/resnet50+{method}"
    assert default_recipe("cub", network, "imagenet") == method
    assert default_recipe("folder:birds", network, "none") == "scratch"
    assert RECIPES[method].source and RECIPES[method].image_size == 448


def test_ids_of_older_runs_stay():
    """A run that has none of the new fields is the run that it was."""
    recipe = get_recipe("paper")
    old = RunConfig("cifar10", "resnet34", "crl", recipe, seed=0)
    assert old.run_id == "c55b71c3e8a6"
    parts = get_recipe("paper", part_rates=[["*", 1, 0]])
    assert (
        RunConfig("cifar10", "resnet34", "crl", parts, 0).run_id != old.run_id
    )


def test_rates_of_parts():
    given = [["logits", 10, 0], ("*", 0.0, 5)]
    recipe = Recipe("mine", 9, 8, 0.1, part_rates=given)
    assert recipe.part_rates == (("logits", 10.0, 0.0), ("*", 0.0, 5.0))
    assert parse_part_rate("*=0@5") == recipe.part_rates[1]
    kwargs = dict(name="mine", epochs=9, batch_size=8, learning_rate=0.1)
    for wrong in ("logits", [("logits", 1)], [("*", -1.0, 0)], [("*", 1, -1)]):
        with pytest.raises(ValueError, match="part_rates"):
            Recipe(**kwargs, part_rates=wrong)
    with pytest.raises(ValueError, match="no_decay"):
        Recipe(**kwargs, no_decay="logits")
    with pytest.raises(ValueError, match="NAME=FACTOR"):
        parse_part_rate("logits")


def network_of(*words, dataset="cub"):
    parser = finetune_parser("", dataset)
    arguments = parser.parse_args(["--library", "keras", *words])
    network, _ = plans._network(arguments)
    return plans._with_method(network, arguments, dataset)


def test_of_the_command_line():
    resnet, vgg = "keras/resnet50", "keras/vgg16"
    assert network_of() == resnet
    assert network_of("--method", "dcl") == f"{resnet}+dcl"
    cars = network_of("--method", "dcl(regions=4)", dataset="cars")
    assert cars == f"{resnet}+dcl(regions=4,gamma=0.01)"
    words = "--backbone vgg16 --method bcnn --pooling compact --tap block4_pool"
    assert network_of(*words.split()) == (
        f"{vgg}+bcnn(tap=block4_pool,pooling=compact)"
    )
    with pytest.raises(ValueError, match="--tap needs a --method"):
        network_of("--tap", "conv4")
    with pytest.raises(ValueError, match="takes tap, filters"):
        network_of("--method", "dfl", "--pooling", "compact")
    assert plans._folder_name(cars) == "keras-resnet50+dcl"
