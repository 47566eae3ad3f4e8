"""The paper's tables: no number lost, the right runs, what reports say."""

import collections
import csv
import dataclasses
import json
import math
import os
import pathlib
import re
import shlex
import sys

import keras
import numpy as np
import pytest
import reference
from disk_layouts import adience_files
from disk_layouts import cub_files
from disk_layouts import write as write_files
from fresh import python
from made_runs import write_run
from PIL import Image
from scipy import stats

from crl_keras.experiments.commands.arguments import compare_parser
from crl_keras.experiments.commands.plans import make_plan
from crl_keras.experiments.commands.reproduce import make_paper_plan
from crl_keras.experiments.commands.reproduce import make_protocol
from crl_keras.experiments.commands.reproduce import reproduce_parser
from crl_keras.experiments.commands.reproduce import run_reproduce
from crl_keras.experiments.data import sources
from crl_keras.experiments.data.digit_files import write_digit_files
from crl_keras.experiments.data.named import BUILT_IN
from crl_keras.experiments.data.named import NAMES
from crl_keras.experiments.data.named import load_dataset
from crl_keras.experiments.paper import costs
from crl_keras.experiments.paper.figures import draw
from crl_keras.experiments.paper.figures import printed_gradient
from crl_keras.experiments.paper.figures import softmax_after
from crl_keras.experiments.paper.figures import true_gradient
from crl_keras.experiments.paper.figures import write_figures
from crl_keras.experiments.paper.report import write_paper_report
from crl_keras.experiments.paper.tables import FIGURES
from crl_keras.experiments.paper.tables import RESULTS
from crl_keras.experiments.paper.tables import SCALES
from crl_keras.experiments.paper.tables import SIZES
from crl_keras.experiments.paper.tables import TABLES
from crl_keras.experiments.paper.tables import Protocol
from crl_keras.experiments.paper.tables import all_configs
from crl_keras.experiments.paper.tables import figure_entries
from crl_keras.experiments.paper.tables import grouped
from crl_keras.experiments.runs import backbones
from crl_keras.experiments.runs import sweep
from crl_keras.experiments.runs.backbone_names import check_backbone
from crl_keras.experiments.runs.backbones import build_backbone
from crl_keras.experiments.runs.config import LOSSES
from crl_keras.experiments.runs.config import canonical_loss
from crl_keras.experiments.runs.config import parse_loss
from crl_keras.experiments.runs.method_names import METHODS
from crl_keras.experiments.runs.recipes import RECIPES
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.networks import NETWORKS
from crl_keras.networks import build_network

pytestmark = pytest.mark.once

REPRODUCE = pathlib.Path(__file__).parents[3] / "examples" / "reproduce.py"
MINUS, NONE = "\N{MINUS SIGN}", "\N{EM DASH}"
CRL = "crl(alpha=1.5,beta=1)"
# Losses of Table VI that are in LOSSES, beside CEL, NLLR and CRL.
COMPARED = len({"focal", "lsoftmax", "asoftmax", "dualce", "tamed"} & {*LOSSES})


def entries(name, **protocol):
    return TABLES[name].entries(Protocol(**protocol))


def csv_rows():
    with open(RESULTS, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def parsed(*words):
    return reproduce_parser("").parse_args(list(words))


def plan_of(*words):
    arguments = parsed(*words)
    names = [n for n in (*TABLES, *FIGURES) if n in arguments.what]
    return make_paper_plan(names, make_protocol(arguments), arguments)


def reproduce(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *words])
    run_reproduce(reproduce_parser(""))


def report(folder, name, **protocol):
    """Rows of the CSV file and the text of the Markdown file of a report."""
    paths = write_paper_report([name], Protocol(**protocol), folder, show=False)
    text, numbers = (path.read_text(encoding="utf-8") for path in paths)
    return list(csv.DictReader(numbers.splitlines())), text


def write(folder, wrong, loss="ce", seed=0, *, entry, last=None, **options):
    """A run of the configuration of an `Entry`, with so many wrong of 100."""
    config = entry.configs[0]
    if last is not None:
        options["result"] = {"last": {"error": wrong / 100, **last}}
    write_run(
        folder,
        loss,
        seed,
        wrong,
        dataset=config.dataset,
        network=config.network,
        weights=config.weights,
        recipe=config.recipe,
        epochs=config.recipe.epochs,
        held_out=False,
        **options,
    )


@pytest.mark.parametrize("scale", SCALES)
def test_every_number_of_the_paper_is_in_one_row(scale):
    found = collections.Counter()
    for name in TABLES:
        for entry in entries(name, scale=scale):
            if entry.printed is not None:
                p = entry.printed
                found[(*dataclasses.astuple(p),)] += 1
                assert p.table == TABLES[name].number
    assert found == collections.Counter(
        tuple(row.values()) for row in csv_rows()
    )
    assert set(found.values()) == {1}


def test_the_numbers_are_those_of_the_paper():
    by_table = collections.Counter(row["table"] for row in csv_rows())
    # Two data sets of 1 + 4 x 5 cells, 2 x 3, 15 x 3, 4 x 2, and so on.
    assert by_table == dict(
        I=42, II=6, III=45, IV=8, V=3, VI=16, VII=14, VIII=3, IX=28, X=18
    )
    values = {
        (r["table"], r["dataset"], r["network"], r["pretrained"], r["loss"],
         r["alpha"], r["beta"], r["metric"]): r["value"]
        for r in csv_rows()
    }  # fmt: skip
    for key, value in (
        (("I", "CIFAR-100", "ResNet34", "none", "CRL", "2", "0.25",
          "test_error_pct"), "26.78"),
        (("VII", "SVHN", "ResNet164", "none", "CRL", "1.5", "1",
          "test_error_pct"), "1.88"),
        (("X", "Adience", "ResNet152", "ImageNet", "CEL", "", "0",
          "one_off_accuracy_pct"), "92.87"),
    ):  # fmt: skip
        assert values[key] == value


@pytest.mark.parametrize("scale", SCALES)
def test_every_name_is_one_that_can_be_run(scale):
    known = {*NAMES, *sources.FILE_SETS, "imagenet2012"}
    for name in TABLES:
        for entry in entries(name, scale=scale):
            for config in (*entry.configs, *entry.versus):
                assert config.dataset in known
                assert config.dataset in SIZES
                assert config.recipe.name in RECIPES
                assert config.held_out == 0
                if "/" in config.network:
                    check_backbone(config.network, config.weights)
                else:
                    assert config.network in NETWORKS
                    assert config.weights == "none"
            assert bool(entry.missing) != bool(entry.configs)


def test_what_is_not_built_is_known():
    reasons = collections.Counter(
        (TABLES[name].number, entry.missing)
        for name in TABLES
        for entry in entries(name)
        if entry.missing
    )
    assert reasons.pop(("VI", "not built"), 0) == 2 * (5 - COMPARED)
    assert reasons == {
        ("VII", "not in the paper"): 1,
        ("IX", "cited"): 16,
    }


def test_numbers_of_runs():
    compared = 2 * (3 + COMPARED)
    expected = dict(
        table1=42, table2=6, table3=45, table4=4, table5=2 * 10,
        table6=compared, table7=2 * 3 + 3 + 2, table8=3 * 10, table9=16,
        table10=9 * 5,
    )  # fmt: skip
    # ResNet34 is in I and III, seed 0 of MobileNetV2 in III and V, ResNet164
    # in III, VI, VII and, with seed 0, VIII.
    once = sum(expected.values()) - 6 - 2 - 6 - 6 - 3
    every = []
    for name, count in expected.items():
        assert len(all_configs(entries(name))) == count, name
        every += entries(name)
    assert len(all_configs(every)) == once
    assert len(all_configs(entries("table3", scale="short"))) == 3 * 45
    assert len(all_configs(entries("table3", seeds=2))) == 2 * 45
    assert len(all_configs(entries("table5", scale="short"))) == 3 * 2
    assert len(all_configs(entries("table3", only=("vgg16", "ce")))) == 2
    cells = ("cifar10", "ce", "crl(beta=0.5,alpha=2)", "crl(alpha=0,beta=1)")
    assert [c.loss for c in all_configs(entries("table1", only=cells))] == [
        *("ce", "crl(alpha=2,beta=0.5)", "nllr")
    ]
    # Whole pairs first: all of seed 0 before any of seed 1.
    seeds = [c.seed for c in all_configs(entries("table8"))]
    assert seeds == sorted(seeds)


@pytest.mark.parametrize("recipe", ["paper", "released", "short"])
@pytest.mark.parametrize("scale", SCALES)
def test_margins_come_at_the_same_share_of_the_training(scale, recipe):
    """The lambda of the last step is that of the paper's recipe."""
    last = {}
    options = dict(scale=scale, recipe=recipe, only=("cifar10",))
    for entry in entries("table6", **options):
        config = entry.configs[0]
        name, parameters = parse_loss(config.loss)
        if name not in ("lsoftmax", "asoftmax"):
            continue
        images = config.train_limit or 50_000
        recipe = config.recipe
        step = recipe.epochs * math.ceil(images / recipe.batch_size)
        annealed = 1000 * (1 + parameters["gamma"] * step) ** (
            -parameters["power"]
        )
        last[name] = max(parameters["minimum"], annealed)
    # 58,800 steps of the defaults: 1000 * 2.47 ** -35, and the minimum.
    assert last["lsoftmax"] == pytest.approx(1000 * 2.47**-35, rel=0.1)
    assert last["asoftmax"] == 5
    chosen = "lsoftmax(gamma=0.001)"
    specs = {
        entry.configs[0].loss
        for entry in entries("table6", scale=scale, losses=(chosen,))
    }
    assert canonical_loss(chosen) in specs


def test_smoke_is_small():
    every = [e for name in TABLES for e in entries(name, scale="smoke")]
    configs = all_configs(every)
    files = {"cub", "cars", "adience"}
    assert {c.dataset for c in configs} == {"digits", "digits32"} | files
    # The methods' feature maps need a few places.
    assert {c.recipe.image_size for c in configs} == {None, 32, 64}
    assert {c.weights for c in configs} == {"none"}
    # Folds are made by all that has them.
    folds = [c.fold for c in configs if c.dataset == "adience"]
    assert sorted(folds) == sorted(3 * [*range(5)])
    assert {c.recipe.epochs for c in configs} == {1}
    assert {(c.train_limit, c.test_limit) for c in configs} == {(100, 100)}
    large = [c for c in configs if c.network.partition("+")[0] not in
             ("logistic", "mlp", "zhu2018", "keras_hub/resnet18")]  # fmt: skip
    networks = {e.configs[0].network for e in entries("table3") if e.configs}
    assert sorted(c.network for c in large) == sorted(networks)
    # Every loss of the whole is in it, margins with the gamma of few steps.
    whole = all_configs(e for name in TABLES for e in entries(name))
    found, expected = (
        {re.sub("gamma=[^,]*,power", "power", c.loss) for c in of}
        for of in (configs, whole)
    )
    assert found == expected


@pytest.mark.parametrize(
    "table, scale, options, expected",
    [
        ("table1", "full", {}, {("paper", 300)}),
        ("table1", "short", {}, {("paper", 30)}),
        ("table1", "full", {"recipe": "released"}, {("released", 300)}),
        ("table1", "full", {"changes": (("epochs", 7),)}, {("paper", 7)}),
        ("table2", "full", {}, {("zhu2018", 100), ("zhu2018", 500)}),
        ("table2", "short", {}, {("zhu2018", 10), ("zhu2018", 50)}),
        ("table4", "full", {}, {("mnist", 10)}),
        ("table4", "short", {}, {("mnist", 10)}),
        (
            "table7",
            "full",
            {},
            {("paper", 300), ("svhn", 40), ("imagenet", 90)},
        ),
        (
            "table7",
            "short",
            {},
            {("paper", 30), ("svhn", 10), ("imagenet", 10)},
        ),
        (
            "table9",
            "full",
            {},
            {("fine_grained", 180), ("bcnn", 70), ("dfl", 120), ("dcl", 180)},
        ),
        ("table9", "full", {"only": ("dcl", "ce")}, {("dcl", 180)}),
        ("table10", "full", {}, {("adience", 120)}),
    ],
)
def test_recipes_and_epochs(table, scale, options, expected):
    configs = all_configs(entries(table, scale=scale, **options))
    assert {(c.recipe.name, c.recipe.epochs) for c in configs} == expected


def test_what_the_paper_leaves_open_is_an_option():
    def losses(name, **options):
        return {c.loss for c in all_configs(entries(name, **options))}

    focal = "focal(gamma=1)"
    assert "focal(gamma=2)" in losses("table6")
    assert focal in losses("table6", losses=(focal,))
    assert losses("table8", clamped=True) == {
        "ce",
        "released(alpha=0,beta=1)",
        "released(alpha=1.5,beta=1)",
    }
    assert {e.configs[0].network for e in entries("table1", width=64)} == {
        "resnet34_w64"
    }
    decay = (("weight_decay", 5e-4),)
    for table, expected in (("table7", 5e-4), ("table2", 0.0)):  # RMSprop.
        found = {
            c.recipe.weight_decay
            for c in all_configs(entries(table, changes=decay))
        }
        assert found == {expected}
    # The pretrained networks are those of a library that has their weights.
    assert {c.network for c in all_configs(entries("table10"))} == {
        "keras_hub/resnet34", "keras_hub/resnet101", "keras_hub/resnet152"
    }  # fmt: skip


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scale": "tiny"}, "smoke, short, full"),
        ({"width": 32}, "16 or 64"),
        ({"seeds": 0}, "at least 1"),
        ({"recipe": "mine"}, "Unknown recipe"),
        ({"losses": ("crl(alpha=1)",)}, "focal, lsoftmax"),
        ({"losses": ("focal(gamma=1)", "focal(gamma=3)")}, "each loss once"),
        ({"only": ("vgg11",)}, "vgg16"),
        ({"only": ("crl(gamma=1)",)}, "alpha, beta"),
        ({"changes": (("epochs", 0),)}, "at least 1"),
    ],
)
def test_protocols_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**options)


@pytest.mark.parametrize(
    "words",
    [
        "table1 table2 table3 --scale full",
        "table4 table6 table7 --scale short --seeds 2 --first-seed 3",
        "table5 table8 --recipe released --clamped --weight-decay 0.001",
        "table7 table10 --learning-rate 0.0123456789 --reader pillow",
        "table9 table10 --scale short --accumulate 2 --learning-rate 0.005 "
        "--reader pillow --precision float32",
        "table1 table4 table10 --scale smoke --epochs 2",
    ],
)
def test_the_listed_commands_make_the_same_runs(
    words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    arguments = [*words.split(), "--output", "out", "--data-dir", "my data"]
    plan = plan_of(*arguments)
    reproduce(monkeypatch, *arguments, "--list")
    out = capsys.readouterr().out
    commands = [
        shlex.split(line)
        for line in out.splitlines()
        if line.strip().startswith("python examples/compare_losses.py")
    ]
    made = [
        make_plan(compare_parser("").parse_args(command[2:]))
        for command in commands
    ]
    ids = {c.run_id for p in made for c in p.configs}
    assert ids == {c.run_id for c in plan.configs}
    smoke = "smoke" in words
    assert plan.data_dir == (
        os.path.join("out", "digits") if smoke else "my data"
    )
    for p in made:
        built_in = p.configs[0].dataset in BUILT_IN
        assert p.output == "out"
        assert p.data_dir == (None if built_in else plan.data_dir)
    n = len(plan.configs)
    assert f"{n} of {n} runs to do in out" in out


def test_the_list_gives_costs_and_where_they_are_from(
    tmp_path, monkeypatch, capsys
):
    rates = tmp_path / "rates.csv"
    rates.write_text(
        ",".join(costs.FIELDS)
        + "\nresnet164,32,256,float32,jax,Toaster 9,1000,2026-01-02,by hand\n"
    )
    arguments = ["table8", "--list", "--rates", str(rates)]
    reproduce(monkeypatch, *arguments)
    out = capsys.readouterr().out
    # 30 runs of 300 epochs of 50,000 images, and 10,000 forwards alone.
    hours = 30 * 300 * (50_000 + 10_000 / 3) / 1000 / 3600
    assert f"about {hours:.0f} hours" in out and "Toaster 9" in out
    assert "cifar10, resnet164: recipe paper, 300 epochs, 10 seeds" in out
    assert "(estimated)" not in out


def rate(network, size, speed, device="A"):
    return costs.Rate(
        network, size, 256, "float32", "jax", device, speed, "2026-01-02", ""
    )


def test_costs_by_hand():
    rates = (rate("resnet34", 32, 1000.0), rate("vgg16", 32, 300.0))
    assert costs.images_per_second(rates, "vgg16") == (300.0, True)
    # The nearest in multiplications: ResNet-50's 81.4 is next to 72.8.
    speed, measured = costs.images_per_second(rates, "resnet50")
    assert not measured and speed == pytest.approx(1000 * 72.8 / 81.4)
    speed, _ = costs.images_per_second(rates, "keras_hub/resnet50", 448)
    assert speed == pytest.approx(300 * 313.2 / (4 * 4089))
    (config,) = entries("table7", only=("svhn", "ce"))[0].configs
    hours, measured = costs.run_hours(config, SIZES, rates)
    speed = 300 * 313.2 / 247.6
    assert hours == pytest.approx(40 * (604_388 + 26_032 / 3) / speed / 3600)
    assert not measured
    # Forwards and twice as much backwards, a multiply-add as two operations.
    trained, tested = 6 * 247.6e6 * 604_388, 2 * 247.6e6 * 26_032
    operations = costs.run_operations(config, SIZES)
    assert operations == pytest.approx(40 * (trained + tested))


def test_devices_are_chosen_by_name():
    rates = (
        rate("mlp", 28, 1.0, "NVIDIA A"),
        rate("mlp", 28, 2.0, "CPU"),
        rate("vgg16", 32, 3.0, "CPU"),
    )
    assert costs.choose_device(rates)[0] == "CPU"
    assert costs.choose_device(rates, "nvidia") == ("NVIDIA A", rates[:1])
    with pytest.raises(ValueError, match="NVIDIA A, CPU.*'TPU'"):
        costs.choose_device(rates, "TPU")
    shipped = costs.read_rates()
    assert all(r.images_per_second > 0 and r.command for r in shipped)
    assert costs.images_per_second(shipped, "resnet34")[1]


def test_files_of_rates_are_checked(tmp_path, monkeypatch):
    path = tmp_path / "rates.csv"
    path.write_text("network,speed\nmlp,3\n")
    with pytest.raises(ValueError, match="images_per_second.*network, speed"):
        costs.read_rates(path)
    words = ("measure", "--only", "mlp", "--rates", str(path))
    with pytest.raises(SystemExit, match="images_per_second.*network, speed"):
        reproduce(monkeypatch, *words)
    assert path.read_text() == "network,speed\nmlp,3\n"
    path.write_text(",".join(costs.FIELDS) + "\nmlp,28\n")
    with pytest.raises(ValueError, match="in line 2 of .*Received: mlp,28"):
        costs.read_rates(path)


def test_the_last_rates_of_one_setting_count(tmp_path):
    path = tmp_path / "rates.csv"
    rows = [
        ("resnet34", "float32", "torch", 100),
        ("resnet34", "float32", "jax", 7),
        ("resnet34", "float32", "torch", 1000),
        ("vgg16", "float32", "torch", 3),
    ]
    path.write_text(
        "\n".join(
            [",".join(costs.FIELDS)]
            + [
                f"{name},32,256,{precision},{backend},A,{speed},2026-01-02,x"
                for name, precision, backend, speed in rows
            ]
        )
    )
    _, rates = costs.choose_device(costs.read_rates(path))
    assert {rate.backend for rate in rates} == {"torch"}
    assert costs.images_per_second(rates, "resnet34") == (1000, True)


@pytest.mark.parametrize("name", ["mlp", "zhu2018", "resnet34", "mobilenetv2"])
def test_multiplications_are_those_of_the_layers(name, no_draws):
    macs, size = costs.MACS[name]
    shape = (size, size, 1 if size == 28 else 3)
    total = 0
    for layer in build_network(name, shape, 10).layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is None:
            continue
        places = math.prod(layer.output.shape[1:-1])
        total += places * math.prod(kernel.shape)
    assert round(total / 1e6, 1) == round(macs, 1)


def test_multiplications_of_backbones(no_draws):
    model, _ = build_backbone("keras_hub/resnet18", (224, 224, 3), 1000)
    total = 0
    for layer in model._flatten_layers():
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            places = math.prod(layer.output.shape[1:-1])
            total += places * math.prod(layer.kernel.shape)
    assert round(total / 1e6) == costs.MACS["backbone/resnet18"][0]


def test_multiplications_of_methods():
    """DCL computes two images for one."""
    plain = costs.multiplications("keras_hub/resnet50", 448)
    assert costs.multiplications("keras_hub/resnet50+dfl", 448) == plain
    assert costs.multiplications("keras_hub/resnet50+dcl", 448) == 2 * plain
    assert costs.measured_size("keras_hub/resnet50+dcl", 448) == 448
    widths = (64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3
    total, channels = 0, 3
    for block, of_block in enumerate(widths):
        for width in of_block:
            total += 9 * channels * width * (224 >> block) ** 2
            channels = width
    assert round(total / 1e6) == costs.MACS["backbone/vgg16"][0]


def test_what_is_measured_is_what_the_list_uses(tmp_path, monkeypatch):
    path = tmp_path / "rates.csv"
    options = ("--rates", str(path), "--batch-size", "4")
    small = ("--only", "logistic", "resnet20")
    reproduce(monkeypatch, "measure", *small, *options)
    large = ("--only", "keras_hub/resnet18", "--image-size", "32")
    reproduce(monkeypatch, "measure", *large, *options)
    first, second, third = rates = costs.read_rates(path)
    assert [rate.network for rate in rates] == [*small[1:], large[1]]
    assert [rate.image_size for rate in rates] == [28, 32, 32]
    assert min(rate.images_per_second for rate in rates) > 0
    assert {rate.backend for rate in rates} == {keras.backend.backend()}
    # The command that is written is one that can be given.
    words = third.command.split()[2:]
    assert parsed(*words).only == [large[1]]
    assert {"--image-size 32", "--batch-size 4"} <= {
        " ".join(words[i : i + 2]) for i in range(len(words))
    }
    speed, measured = costs.images_per_second(rates, large[1], 32)
    assert measured and speed == third.images_per_second
    assert not costs.images_per_second(rates, large[1], 64)[1]
    for words, message in (
        (("resnet20", "--image-size", "64"), "which takes 32 pixels"),
        (("resnet19",), "keras_hub/NAME with resnet18, .*'resnet19'"),
        (("keras_cvv/resnet18",), "keras_hub/"),
        (("resnet20", "--batch-size", "1"), "--batch-size must be at least 2"),
        (("keras_hub/resnet18", "--image-size", "0"), "at least 1 pixel"),
    ):
        with pytest.raises(SystemExit, match=message):
            reproduce(monkeypatch, "measure", "--only", *words)


def test_rates_that_ship_are_made_by_their_commands():
    for shipped in costs.read_rates():
        arguments = parsed(*shipped.command.split()[2:])
        size = costs.measured_size(arguments.only[0], arguments.image_size)
        assert arguments.only == [shipped.network]
        assert size == shipped.image_size
        assert (arguments.batch_size or 256) == shipped.batch_size
        assert arguments.backend == shipped.backend


def test_the_report_has_the_means_and_differences(tmp_path):
    nllr, ce, crl = entries("table8")
    for seed, (wrong, best) in enumerate([(5, 4), (6, 6), (7, 5)]):
        write(tmp_path, wrong, "nllr", seed, entry=nllr, best=best)
    write(tmp_path, 5, "ce", 0, entry=ce)
    write(tmp_path, None, "ce", 1, entry=ce)
    rows, text = report(tmp_path, "table8")
    first, second, third = rows
    assert (first["table"], first["scale"]) == ("VIII", "full")
    assert float(first["paper"]) == 6.61
    assert float(first["paper_std"]) == pytest.approx(math.sqrt(0.127))
    assert float(first["mean"]) == pytest.approx(6)
    assert float(first["std"]) == pytest.approx(1)
    assert (first["n"], first["planned"]) == ("3", "10")
    assert float(first["difference"]) == pytest.approx(6 - 6.61)
    assert float(first["best_mean"]) == pytest.approx(5)
    assert float(first["best_std"]) == pytest.approx(1)
    assert "6.61 ± 0.36 (var. 0.127)" in text
    assert f"6.00 ± 1.00 (3 of 10) | {MINUS}0.61 | 5.00 ± 1.00" in text
    assert (second["n"], second["diverged"]) == ("1", "1")
    assert f"5.00 (1 of 10, 1 diverged) | {MINUS}0.38" in text
    assert third["mean"] == third["difference"] == ""
    assert f"**4.48 ± 0.27 (var. 0.073)** | {NONE} | {NONE} | {NONE}" in text


def test_the_p_value_is_that_of_the_paired_test(tmp_path):
    ce, crl, both = entries("table5")
    wrong = {"ce": [24, 23, 25, 22, 24], CRL: [23, 23, 22, 21, 22]}
    for loss, entry in (("ce", ce), (CRL, crl)):
        for seed, count in enumerate(wrong[loss]):
            write(tmp_path, count, loss, seed, entry=entry)
    write(tmp_path, 40, CRL, 7, entry=crl)  # Without a partner.
    rows, text = report(tmp_path, "table5")
    p = stats.ttest_rel(wrong[CRL], wrong["ce"]).pvalue
    assert float(rows[2]["mean"]) == pytest.approx(p)
    assert f"0.00136 | {p:.3f} (5 pairs) | {NONE}" in text
    assert float(rows[0]["mean"]) == pytest.approx(100 - 23.6)
    assert float(rows[0]["difference"]) == pytest.approx(100 - 23.6 - 76.46)


def test_folds_are_means_of_their_seeds(tmp_path):
    exact, one_off = entries("table10", only=("resnet101", "ce"))
    wrong = {(0, 0): 40, (0, 1): 30, (1, 0): 44, (1, 1): 36}
    for (seed, fold), count in wrong.items():
        last = dict(accuracy=1 - count / 100, one_off_accuracy=0.9 + fold / 50)
        write(
            tmp_path, count, "ce", seed, fold=fold, entry=exact, last=last,
            classes=8, fingerprint=f"fold{fold}",
        )  # fmt: skip
    rows, text = report(tmp_path, "table10", only=("resnet101", "ce"))
    # Accuracy of fold 0: 58, of fold 1: 67.
    assert float(rows[0]["mean"]) == pytest.approx(62.5)
    assert float(rows[0]["std"]) == pytest.approx(math.sqrt(40.5))
    assert (rows[0]["n"], rows[0]["planned"]) == ("2", "5")
    assert float(rows[1]["mean"]) == pytest.approx(91)
    assert rows[1]["best_mean"] == ""
    assert float(rows[1]["difference"]) == pytest.approx(91 - 92.18)


def test_top_5_and_f1_are_read_from_the_records(tmp_path):
    only = ("imagenet2012", "ce")
    first, second = entries("table7", only=only)
    last = dict(accuracy=0.7, top_5_accuracy=0.9, macro_f1=0.65)
    write(tmp_path, 30, "ce", entry=first, last=last)
    rows, _ = report(tmp_path, "table7", only=only)
    found = {row["metric"]: float(row["mean"]) for row in rows}
    assert found == pytest.approx(
        {"top-1 error [%]": 30, "top-5 error [%]": 10}
    )
    only = ("logistic", "ce")
    error, f1 = entries("table4", only=only)
    write(tmp_path, 30, "ce", entry=error, last=last)
    rows, _ = report(tmp_path, "table4", only=only)
    assert float(rows[1]["mean"]) == pytest.approx(65)
    assert float(rows[1]["difference"]) == pytest.approx(65 - 90.71)


def test_scales_and_protocols_are_never_mixed(tmp_path):
    for scale, wrong in (("full", 5), ("short", 9), ("smoke", 80)):
        (entry,) = entries("table8", scale=scale, only=("ce",))
        for seed in range(2):
            write(
                tmp_path, wrong + seed, "ce", seed, entry=entry,
                train_limit=entry.configs[0].train_limit,
                test_limit=entry.configs[0].test_limit,
            )  # fmt: skip
    (entry,) = entries("table8", recipe="released", only=("ce",))
    write(tmp_path, 50, "ce", 0, entry=entry)
    for scale, mean in (("full", 5.5), ("short", 9.5), ("smoke", 80.5)):
        rows, text = report(tmp_path, "table8", scale=scale)
        assert float(rows[1]["mean"]) == pytest.approx(mean)
        assert float(rows[1]["std"]) == pytest.approx(math.sqrt(0.5))
        assert f"scale {scale}" in text.splitlines()[0]
        assert "5 runs in the folder are of another scale" in text
        assert (rows[1]["difference"] == "") == (scale == "smoke")
        assert ("no result." in text) == (scale == "smoke")
    rows, _ = report(tmp_path, "table8", recipe="released")
    assert float(rows[1]["mean"]) == pytest.approx(50)


def test_what_was_changed_is_said(tmp_path):
    changes = (("epochs", 7), ("weight_decay", 5e-4))
    options = dict(recipe="released", seeds=2, changes=changes)
    _, text = report(tmp_path, "table8", **options)
    changed = "Changed: recipe released, seeds 2, epochs 7, weight_decay"
    assert f"{changed} 0.0005." in text.replace("\\", "")
    assert "Changed" not in report(tmp_path, "table8")[1]
    _, text = report(tmp_path, "table6", losses=("focal(gamma=1)",))
    assert "Changed: focal(gamma=1)." in text


def test_the_page_has_the_numbers_of_runs():
    page = (REPRODUCE.parents[1] / "docs" / "reproduction.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")]
        for line in page.splitlines()
        if line.startswith("| `table") and line.count("|") == 5
    ]
    said = {row[1].strip("`"): int(row[4].split(",")[0]) for row in rows}
    found = {name: len(all_configs(entries(name))) for name in TABLES}
    assert said == found


def test_backends_are_never_mixed(tmp_path):
    (entry,) = entries("table8", only=("ce",))
    for seed, backend in enumerate(["jax", "torch", "jax"]):
        write(tmp_path, 5 + seed, "ce", seed, entry=entry, backend=backend)
    rows, text = report(tmp_path, "table8", only=("ce",))
    assert float(rows[0]["mean"]) == pytest.approx(6)
    assert rows[0]["n"] == "2"
    assert "1 run of another backend" in text


def test_rows_that_are_compared_are_of_one_backend(tmp_path):
    """That of the most runs in the row with fewest, also in the p-value."""
    ce, crl, both = entries("table5")
    for backend, seeds in (("jax", range(9)), ("torch", range(3))):
        for seed in seeds:
            write(tmp_path, 24 + seed, "ce", seed, entry=ce, backend=backend)
    wrong = [24, 23, 27]
    for seed, count in enumerate(wrong):
        write(tmp_path, count, CRL, seed, entry=crl, backend="torch")
    write(tmp_path, 50, CRL, 0, entry=crl, backend="jax")
    rows, text = report(tmp_path, "table5")
    assert [row["n"] for row in rows] == ["3", "3", "3"]
    assert float(rows[0]["mean"]) == pytest.approx(100 - 25)
    p = stats.ttest_rel(wrong, [24, 25, 26]).pvalue
    assert float(rows[2]["mean"]) == pytest.approx(p)
    assert "(3 pairs)" in text and "of another backend" in text


@pytest.mark.parametrize("losses", [("ce", "ce"), ("ce", CRL)])
def test_runs_of_other_data_are_refused(tmp_path, losses):
    """In a row, and in rows that are compared."""
    (entry,) = entries("table8", only=("ce",))
    for seed, loss in enumerate(losses):
        write(tmp_path, 5, loss, seed, entry=entry, fingerprint=f"data{seed}")
    with pytest.raises(ValueError, match="made from different data"):
        report(tmp_path, "table8")


def test_a_p_value_of_other_data_is_refused(tmp_path):
    """Of --only crl too, where the cross-entropy has no row."""
    ce, crl, _ = entries("table5")
    write(tmp_path, 24, "ce", entry=ce, fingerprint="data0")
    write(tmp_path, 24, CRL, entry=crl, fingerprint="data1")
    with pytest.raises(ValueError, match="made from different data"):
        report(tmp_path, "table5", only=("crl",))


def test_a_reader_is_asked_of_image_files_alone():
    protocol = Protocol(shown=(("reader", "pillow"),))
    for name, network, readers in (
        ("table8", "resnet164", {"memory": True}),
        ("table10", "resnet34", {"pillow": True, "tf.data": False}),
    ):
        config = entries(name, only=(network,))[0].configs[0]
        for reader, shown in readers.items():
            of_reader = dataclasses.replace(config, reader=reader)
            assert protocol.shows(of_reader) == shown


def test_what_is_asked_for_is_shown(tmp_path):
    (entry,) = entries("table8", only=("ce",))
    for seed, backend in enumerate(["jax", "torch", "jax", "jax"]):
        write(tmp_path, 5 + seed, "ce", seed, entry=entry, backend=backend)

    def shown(**options):
        options["only"] = ("ce",)
        (row,), text = report(tmp_path, "table8", **options)
        return float(row["mean"] or -1), int(row["n"]), text

    assert shown()[:2] == (pytest.approx(20 / 3), 3)
    mean, n, text = shown(shown=(("backend", "torch"),))
    assert (mean, n) == (6, 1) and "3 runs in the folder are of other" in text
    assert shown(shown=(("precision", "mixed_bfloat16"),))[1] == 0
    assert shown(seeds=2, first_seed=2)[:2] == (7.5, 2)
    assert shown(first_seed=3)[:2] == (8, 1)
    arguments = parsed("table8", "--backend", "torch", "--precision", "float32")
    assert make_protocol(arguments).shown == (
        ("backend", "torch"),
        ("precision", "float32"),
    )


def test_a_run_of_two_rows_is_left_out_once(tmp_path):
    exact, one_off = entries("table10", only=("resnet101", "ce"))
    last = dict(accuracy=0.6, one_off_accuracy=0.9)
    for fold, backend in enumerate(["jax", "jax", "torch"]):
        write(
            tmp_path, 40, "ce", 0, fold=fold, entry=exact, last=last,
            classes=8, fingerprint=f"fold{fold}", backend=backend,
        )  # fmt: skip
    _, text = report(tmp_path, "table10", only=("resnet101", "ce"))
    assert "1 run of another backend" in text


@pytest.mark.parametrize(
    "name, parts",
    [
        (
            "table1",
            [
                "27.26",
                "third",
                "26.78",
                "28.04",
                "five values",
                "8.55",
                "29.39",
            ],
        ),
        ("table2", ["500 for NLLR", "500 epochs is similar", "not verified"]),
        ("table3", ["4.76 here, 5.27", "27.34 here, 27.26", "no MobileNetV2"]),
        ("table4", ["Nothing is stated", "macro"]),
        ("table5", ["0.005", "p = 0.0072", "0.59", "23.54", "due to chance"]),
        (
            "table6",
            ["5.27 here, 4.76", "our reading", "no tuning", "Table VIII"],
        ),
        ("table7", ["7.8%", "dash for NLLR", "Weight decay", "Table VIII"]),
        ("table8", ["variance", "0.071 is smaller", "6.48, 5.27 and 4.36"]),
        ("table9", ["VGG-M", "9 to 22 test images", "only if cut"]),
        ("table10", ["No spread", "no pretrained rows", "8-13"]),
    ],
)
def test_contradictions_are_said_where_they_are_printed(tmp_path, name, parts):
    _, text = report(tmp_path / "none", name)
    text = text.replace("epochs and NLLR for 500", "500 for NLLR")
    text = text.replace("NLLR at 500 epochs is", "500 epochs is")
    for part in parts:
        assert part in text


def test_rows_without_runs_show_the_paper(tmp_path):
    rows, text = report(tmp_path, "table9")
    assert len(rows) == 28 + 4
    assert "DCL / ResNet50 | CRL | **94.60** |" in text
    assert "not built" not in text
    assert "MA-CNN / VGG-19 | as published | 86.5 | cited" in text
    assert text.count("ResNet50, fine-tuned") == 4
    assert text.count("NaN") == text.count("nan") == 0


def images_of(drawn, tmp_path):
    """Size of the PNG in pixels, and of the SVG by its viewBox."""
    path = tmp_path / "figure.png"
    path.write_bytes(drawn.png)
    with Image.open(path) as image:
        size = image.size
        assert len(image.convert("RGB").getcolors(2**24)) > 5
    import xml.etree.ElementTree as tree

    root = tree.fromstring(drawn.svg)
    box = [float(x) for x in root.attrib["viewBox"].split()]
    return size, box[2:]


def test_fig_2_has_the_gradient_of_the_loss_and_the_printed_one(tmp_path):
    p = np.array([0.2, 0.5, 0.3])
    for c, j in ((0, 1), (1, 2), (2, 0)):
        label = np.eye(3)[c]
        for alpha, beta in ((1.5, 0.25), (1.5, 1.0), (0.0, 1.0), (2.0, 0.5)):
            slope = reference.gradient([label], [np.log(p)], alpha, beta)[0, j]
            found = true_gradient(p[c], p[j], alpha, beta)
            assert found == pytest.approx(slope, rel=1e-6)
            # Eq. (14), and with alpha = 0, beta = 1 Eq. (15).
            printed = (1 - beta * p[c] / (alpha + 1 - p[c])) * p[j]
            assert printed_gradient(p[c], p[j], alpha, beta) == printed
            assert printed < p[j] < slope
    drawn = draw("fig2")
    size, box = images_of(drawn, tmp_path)
    assert size == (1140, 525) and box == pytest.approx([547.2, 252])
    for part in ("as printed, Eq. (14)", "as it is", "CRL, beta 0.25", "NLLR"):
        assert part in drawn.svg
    assert "wrong sign" in drawn.caption


def test_fig_1_is_gradient_descent(tmp_path):
    before = np.array([0.12, 0.05, 0.75, 0.08])
    label = np.eye(4)[1]
    for alpha, beta in ((0.0, 0.0), (1.5, 1.0)):
        logits = np.log(before)
        for _ in range(3):
            slope = reference.gradient([label], [logits], alpha, beta)[0]
            logits = logits - 0.5 * slope
        p = np.exp(logits) / np.exp(logits).sum()
        found = softmax_after(before, 1, 3, 0.5, alpha, beta)
        np.testing.assert_allclose(found, p, rtol=1e-6)
        # What the caption says.
        assert (p[[0, 3]] > before[[0, 3]]).all() and p[2] < before[2]
    drawn = draw("fig1")
    size, _ = images_of(drawn, tmp_path)
    assert size[0] == 990
    assert "classes 1 and 4 rise under both" in drawn.caption
    assert f"2: {p[1]:.0%}" in drawn.svg


def test_fig_3_needs_runs_and_shows_them(tmp_path):
    found = figure_entries("fig3", Protocol())
    assert [e.configs[0].loss for e in found] == ["ce", "nllr", CRL] * 2
    with pytest.raises(ValueError, match="cifar10 NLLR.*without --report"):
        draw("fig3", Protocol(), tmp_path)
    for entry in found:
        write(tmp_path, 20, entry.configs[0].loss, 0, entry=entry)
        write(tmp_path, 25, entry.configs[0].loss, 1, entry=entry)
    drawn = draw("fig3", Protocol(), tmp_path)
    assert images_of(drawn, tmp_path)[0] == (1140, 495)
    for part in ("CIFAR-10", "CIFAR-100", "CEL", "NLLR", "CRL", "epoch"):
        assert f">{part}<" in drawn.svg
    assert "moving mean over 21 epochs" in drawn.caption
    assert "2 a curve" in drawn.caption
    with pytest.raises(ValueError, match="at the scale short"):
        draw("fig3", Protocol("short"), tmp_path)


def test_a_loss_that_diverged_is_left_out_of_a_figure(tmp_path):
    for entry in figure_entries("fig3", Protocol()):
        loss = entry.configs[0].loss
        wrong = None if loss == "nllr" else 20
        write(tmp_path, wrong, loss, 0, entry=entry)
    drawn = draw("fig3", Protocol(), tmp_path)
    assert ">CRL<" in drawn.svg and ">NLLR<" not in drawn.svg
    assert "all runs diverged: cifar10 NLLR and cifar100 NLLR" in drawn.caption
    for entry in figure_entries("fig4", Protocol()):
        loss = entry.configs[0].loss
        write(tmp_path, None if loss == CRL else 20, loss, 0, fold=0,
              entry=entry, classes=8)  # fmt: skip
    with pytest.raises(ValueError, match="adience CRL diverged: nothing"):
        draw("fig4", Protocol(), tmp_path)


@pytest.mark.parametrize(
    "words, message",
    [
        ("fig3 --only mnist", "fig3: --only leaves no row of it.*--only mnist"),
        ("fig3 --only ce", "fig3: it needs two losses"),
        ("fig4 --only cifar10", "fig4: --only leaves no row"),
        ("fig5 --only ce nllr adience", "fig5: it needs ce and crl"),
        ("table1 --only crl(alpha=3,beta=1)", "table1: --only leaves no row"),
    ],
)
def test_what_only_leaves_nothing_of(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for mode in ("--report", "--list"):
        with pytest.raises(SystemExit, match=message):
            reproduce(monkeypatch, *words.split(), mode)


def test_what_only_leaves_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reproduce(monkeypatch, "all", "--only", "mnist", "--list")
    out = capsys.readouterr().out
    assert "table1 is left out: --only leaves no row" in out
    assert "fig4 is left out" in out
    assert "4 of 4 runs to do" in out


def test_smoke_takes_what_is_asked_for():
    asked = dict(scale="smoke", seeds=3, changes=(("batch_size", 16),))
    configs = all_configs(entries("table10", **asked))
    assert {c.seed for c in configs} == {0, 1, 2}
    assert {c.recipe.batch_size for c in configs} == {16}
    wide = dict(scale="smoke", width=64, clamped=True, only=("resnet34",))
    (config,) = all_configs(entries("table3", **wide))
    assert config.network == "resnet34_w64"
    assert config.loss == "released(alpha=1.5,beta=1)"


def test_figs_4_and_5_show_agreement_and_disagreement(tmp_path):
    found = figure_entries("fig4", Protocol())
    losses = [e.configs[0].loss for e in found]
    assert losses == ["nllr", "ce", CRL]
    groups = [f"{k}-{k + 1}" for k in range(8)]
    for entry, wrong in zip(found, (30, 20, 10), strict=True):
        for fold in range(2):
            write(
                tmp_path, wrong, entry.configs[0].loss, 0, fold=fold,
                entry=entry, classes=8, names=groups,
            )  # fmt: skip
    paths = write_figures(["fig4", "fig5"], Protocol(), tmp_path, show=False)
    assert [p.name for p in paths] == [
        f"fig{k}.{suffix}" for k in (4, 5) for suffix in ("svg", "png", "md")
    ]
    faces, maps = (
        draw("fig4", Protocol(), tmp_path),
        draw("fig5", Protocol(), tmp_path),
    )
    images_of(faces, tmp_path), images_of(maps, tmp_path)
    # The first images are wrong, 30, 20 and 10 of them by loss: from image 10
    # on CRL is right, from 20 on CEL, from 30 on all.
    assert "CRL and CEL right" in faces.svg
    assert "CRL right, the others wrong" in faces.svg
    assert "CRL wrong, CEL right" not in faces.svg
    labels = np.random.default_rng(1).integers(8, size=100)
    shown = {k: sum(labels[10:20] == k) for k in range(8)}
    row_b = min(8, sum(shown.values()))
    assert faces.svg.count(">A1: 0-1<") == 1
    for k in range(1, 9):
        assert (f">B{k}: " in faces.svg) == (k <= row_b)
    # Two wrong losses under each image of row B; NLLR alone may be in row A.
    crosses = faces.svg.count("\N{MULTIPLICATION SIGN}<")
    assert 2 * row_b <= crosses <= 2 * row_b + 8
    # The correct class is framed, in each of three maps.
    images = sum(
        f">{row}{k}: " in faces.svg for row in "AB" for k in range(1, 9)
    )
    assert maps.svg.count("stroke: #ffffff") == 3 * images
    assert ">A1<" in maps.svg and ">7-8<" in maps.svg


def test_a_small_table_is_run_resumed_and_reported(tmp_path, script):
    command = ["table4", "--scale", "smoke", "--only", "logistic"]
    first = python(REPRODUCE, *command, cwd=tmp_path).stdout
    assert "[4/4] digits, logistic" in first and "no result" in first
    runs = tmp_path / "runs" / "paper-smoke"
    results = sorted(runs.glob("*/result.json"))
    assert len(results) == 4
    # Two seeds of two losses; the first is to be done again.
    results[0].unlink()
    stamps = {p: p.stat().st_mtime_ns for p in results[1:]}
    again = script(REPRODUCE.name, *command)[1]
    assert "3 of 4 runs are done already" in again and results[0].exists()
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}

    before = {p: p.read_bytes() for p in (runs / "paper").iterdir()}
    assert {p.name for p in before} == {"table4.md", "table4.csv"}
    code = (
        "import os, runpy, sys; sys.argv = sys.argv[1:];"
        "sys.path.insert(0, os.path.dirname(sys.argv[0]));"
        "runpy.run_path(sys.argv[0], run_name='__main__');"
        "print('loaded', *{'keras', 'jax', 'torch', 'tensorflow'} "
        "& set(sys.modules))"
    )
    done = python("-c", code, REPRODUCE, *command, "--report", cwd=tmp_path)
    assert done.stdout.endswith("loaded\n"), done.stderr
    assert before == {p: p.read_bytes() for p in before}


@pytest.fixture
def narrow_backbones(monkeypatch):
    monkeypatch.setitem(backbones.BLOCKS, "resnet18", ("basic", (1, 1, 1, 1)))
    monkeypatch.setattr(backbones, "WIDTHS", (64, 8, 8, 8))


def shown_rows(folder, table):
    """The rows of a report that have a result."""
    with open(folder / "paper" / f"{table}.csv", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["mean"]]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Not the full sets.
def test_files_and_folds_are_run_at_the_scale_smoke(
    tmp_path, monkeypatch, narrow_backbones
):
    monkeypatch.chdir(tmp_path)
    what = ("table9", "table10", "--scale", "smoke", "--only", "cub", "adience")
    reproduce(monkeypatch, *what, "crl", "resnet34", "resnet50")
    folder = tmp_path / "runs" / "paper-smoke"
    assert len([*folder.glob("*/result.json")]) == 1 + 5
    rows = shown_rows(folder, "table10")
    assert {(row["n"], row["planned"]) for row in rows} == {("5", "5")}
    exact, one_off = (float(row["mean"]) for row in rows[:2])
    assert 0 <= exact < one_off <= 100
    (ours,) = shown_rows(folder, "table9")
    assert ours["network"] == "ResNet50, fine-tuned"


@pytest.mark.once  # All backends: tests/experiments/runs/test_methods_runs.py
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_methods_are_run_at_the_scale_smoke(
    tmp_path, monkeypatch, narrow_backbones
):
    """All at once, as the command does it: DFL's filters start from files."""
    monkeypatch.chdir(tmp_path)
    what = ("table9", "--scale", "smoke", "--only", "cub", "crl")
    reproduce(monkeypatch, *what, *METHODS)
    folder = tmp_path / "runs" / "paper-smoke"
    assert [row["network"] for row in shown_rows(folder, "table9")] == [
        "B-CNN / VGGNet",
        "DFL / ResNet50",
        "DCL / ResNet50",
    ]
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        assert config["recipe"]["name"] in METHODS


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_digits_are_written_as_the_data_sets_lie_on_disk(tmp_path):
    folder = tmp_path / "out" / "digits"
    write_digit_files(folder)
    digits = load_dataset("digits32").train
    for name, fold, train, test in (
        ("cub", None, 100, 40),
        ("cars", None, 100, 40),
        ("adience", 1, 96, 24),
    ):
        data = sources.open_dataset(name, folder, fold)
        assert (len(data.train), len(data.test)) == (train, test)
        assert data.classes == (8 if name == "adience" else 10)
        for label in (0, 7):
            path = data.train.paths[list(data.train.labels).index(label)]
            image = np.asarray(Image.open(path), float)
            of_class = digits.images[digits.labels == label]
            nearest = min(np.abs(image - other).mean() for other in of_class)
            assert nearest < 10  # JPEG.
    stamp = (folder / "cub" / "images.txt").stat().st_mtime_ns
    write_digit_files(folder)
    assert (folder / "cub" / "images.txt").stat().st_mtime_ns == stamp
    assert os.listdir(folder.parent) == ["digits"]


@pytest.mark.parametrize(
    "words, message",
    [
        ("fig3 --report", "^reproduce: fig3"),
        ("table1 cost", "cannot be combined"),
        ("table1 --image-size 64", "is for measure"),
        ("table1 --reader pillow", "--reader is for image files"),
    ],
)
def test_bad_input_is_said(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        reproduce(monkeypatch, *words.split())


def test_costs_of_all_tables_are_a_markdown_table(monkeypatch, capsys):
    reproduce(monkeypatch, "cost")
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith("| ")]
    assert [row[0] for row in rows[2:]] == [
        *(f"| {table.number}" for table in TABLES.values()),
        "| all",
    ]
    assert int(rows[2][2]) == 42 and float(rows[2][3].replace(",", "")) > 0
    page = (REPRODUCE.parents[1] / "docs" / "reproduction.md").read_text()
    assert all(line in page for line in lines if line.startswith("| "))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Not the full sets.
def test_one_folder_holds_several_data_sets(tmp_path):
    write_files(tmp_path / "cub", cub_files()[0])
    write_files(tmp_path / "adience", adience_files())
    for name, fold in (("cub", None), ("adience", 1)):
        found = sources.open_dataset(name, tmp_path, fold)
        alone = sources.open_dataset(name, tmp_path / name, fold)
        assert alone.fingerprint == found.fingerprint
    (tmp_path / "svhn").mkdir()
    with pytest.raises(
        FileNotFoundError, match="svhn_cropped folder, in .*svhn\\."
    ):
        sources.open_dataset("svhn", tmp_path)


def test_digits32_are_the_digits_enlarged():
    small, large = load_dataset("digits"), load_dataset("digits32")
    assert large.input_shape == (32, 32, 3)
    for split in ("train", "test"):
        a, b = getattr(small, split), getattr(large, split)
        np.testing.assert_array_equal(a.labels, b.labels)
        for row, column, channel in ((0, 0, 0), (3, 2, 1), (1, 3, 2)):
            np.testing.assert_array_equal(
                b.images[:, row::4, column::4, channel], a.images[..., 0]
            )


def test_a_line_on_a_run_says_which_it_was():
    config = entries("table10")[0].configs[3]
    result = dict(
        status="done", last={"error": 0.25}, epochs=2, wall_seconds=3.0
    )
    line = sweep.run_line(config, result, 1, 2)
    assert "adience, keras_hub/resnet34, NLLR seed 0 fold 3" in line
    assert "25.00%" in line


def test_runs_of_a_group_differ_in_loss_seed_and_fold():
    groups = grouped(all_configs(entries("table10")))
    assert sorted(map(len, groups)) == [10, 10, 10, 15]
    for group in groups:
        assert len({c.network for c in group}) == 1
        assert len({(c.loss, c.fold) for c in group}) == len(group)
    assert get_recipe("adience").epochs == groups[0][0].recipe.epochs
