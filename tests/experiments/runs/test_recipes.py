"""Recipes: what they hold, what they refuse, and what Keras makes of them."""

import dataclasses
import pathlib
import re

import keras
import numpy as np
import pytest
from keras.ops import convert_to_numpy as to_numpy

from crl_keras.experiments.runs import recipes
from crl_keras.experiments.runs.recipes import RECIPES
from crl_keras.experiments.runs.recipes import Recipe
from crl_keras.experiments.runs.recipes import default_recipe
from crl_keras.experiments.runs.recipes import get_recipe
from crl_keras.layers import RandomPadCrop
from crl_keras.optimizers import CoupledSGD

REPOSITORY = pathlib.Path(__file__).parents[3]
FIELDS = {
    "name": "mine",
    "epochs": 4,
    "batch_size": 8,
    "learning_rate": 0.1,
}


def rates(recipe, steps_per_epoch, steps=None):
    """The rates of some or all steps, with the counter set by hand."""
    optimizer = recipes.make_optimizer(recipe, steps_per_epoch)
    found = []
    for step in steps or range(recipe.epochs * steps_per_epoch):
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    return np.array(found)


@pytest.mark.once
def test_paper_and_released_code():
    """Section IV-A of the paper, and main.py of CRL-code @b66d835."""
    both = dict(
        epochs=300,
        batch_size=256,
        learning_rate=0.1,
        optimizer="sgd",
        milestones=(0.5, 0.75),
        momentum=0.9,
        augmentation="crop_flip",
        scaling="standardise",
    )
    paper = dict(nesterov=True, weight_decay=1e-4, mean=None, std=None)
    released = dict(
        nesterov=False,
        weight_decay=5e-4,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    )
    for name, own in (("paper", paper), ("released", released)):
        found = dataclasses.asdict(get_recipe(name))
        assert {**both, **own}.items() <= found.items()


@pytest.mark.once
def test_all_recipes():
    assert list(RECIPES) == [
        "paper",
        "released",
        "zhu2018",
        "short",
        "digits",
        "mnist",
        "svhn",
        "imagenet",
        "adience",
        "fine_grained",
        "bcnn",
        "dfl",
        "dcl",
        "finetune",
        "scratch",
    ]
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.source and "\n" not in recipe.source
        assert get_recipe(name) is not None
    for name in ("short", "digits", "mnist"):  # Digits have no mirror image.
        assert RECIPES[name].augmentation == "none"
        assert RECIPES[name].epochs <= 20
    assert RECIPES["mnist"].milestones == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 1


@pytest.mark.once
def test_overrides():
    changed = get_recipe("paper", epochs=7, nesterov=False, batch_size=None)
    assert changed == dataclasses.replace(
        RECIPES["paper"], epochs=7, nesterov=False
    )
    assert get_recipe("paper", milestones=()).milestones == ()
    assert get_recipe("paper").epochs == 300
    assert get_recipe("released", scaling="standardise").mean is None
    assert get_recipe("released", scaling="unit").std is None
    own = get_recipe("released", scaling="standardise", mean=[0.5], std=[1])
    assert (own.mean, own.std) == ((0.5,), (1.0,))


@pytest.mark.once
def test_equal_values_are_equal_recipes():
    """Run ids are made of the text of the values: 1 must become 1.0."""
    one = Recipe(
        "x",
        np.int64(2),
        4,
        1,
        milestones=[0.5],
        mean=np.float32([0.5]),
        std=[2],
    )
    other = Recipe("x", 2, 4, 1.0, milestones=(0.5,), mean=(0.5,), std=(2.0,))
    assert repr(one) == repr(other)


@pytest.mark.once
def test_unknown_names():
    with pytest.raises(ValueError, match="paper, released, .*Received: 'papr'"):
        get_recipe("papr")
    with pytest.raises(ValueError, match="epochs, .*Received: epoch, lr"):
        get_recipe("paper", lr=0.1, epoch=3)


@pytest.mark.once
@pytest.mark.parametrize(
    ("field", "values"),
    {
        "epochs": [0, -1, 1.5, "3", True, float("nan")],
        "batch_size": [0, 2.0, None],
        "learning_rate": [0, -0.1, float("nan"), float("inf"), "0.1", True],
        "decay": [-1e-6, float("nan")],
        "momentum": [-0.1, 1.0, 1.5],
        "weight_decay": [-1e-4, float("inf")],
        "milestones": [(0,), (1,), (0.5, 0.5), (0.75, 0.5), 0.5, None, "0.5"],
        "optimizer": ["SGD", None],
        "augmentation": ["flipped", None],
        "scaling": ["none", None],
        "accumulate": [0, 3, 1.5],
        "randaugment": [-1, 1.5, None],
        "mixup": [-0.1, 1.5],
        "cutmix": [-0.1, float("nan")],
        "label_smoothing": [-0.1, 1.0],
        "image_size": [0, 1.5, "224"],
        "crop": ["center", None],
        "resize_ratio": [0.9],
        "keep_aspect": [1, None],
        "head_rate": [0, -1.0],
        "head_epochs": [-1, 0.5],
        "freeze_backbone": [1],
        "mean": [(0.5,), 0.5],
        "std": [(0.5,)],
        "nesterov": [1, "yes", True],
    }.items(),
)
def test_values_out_of_range(field, values):
    Recipe(**FIELDS)
    for value in values:
        with pytest.raises(ValueError, match=f"`{field}`.*Received"):
            Recipe(**{**FIELDS, field: value})


@pytest.mark.once
@pytest.mark.parametrize(
    "fields",
    [
        dict(mean=(0.5, 0.5), std=(1.0,)),
        dict(mean=(), std=()),
        dict(mean=(0.5,), std=(0.0,)),
        dict(mean=(0.5,), std=(1.0,), scaling="unit"),
        dict(optimizer="adam", momentum=0.9),
        dict(optimizer="rmsprop", weight_decay=1e-4),
        dict(decay=1e-6, milestones=(0.5,)),
        dict(freeze_backbone=True, head_epochs=1),
    ],
)
def test_values_that_do_not_fit_each_other(fields):
    with pytest.raises(ValueError, match="Received"):
        Recipe(**FIELDS, **fields)


@pytest.mark.once
def test_default_recipe():
    for dataset in ("digits", "mnist", "cifar10", "folder:/data"):
        assert recipes.default_recipe(dataset) in RECIPES
    assert recipes.default_recipe("mnist") == "mnist"
    assert recipes.default_recipe("folder:/data") == "short"
    backbone = "keras_cv/resnet50"
    assert recipes.default_recipe("folder:/data", backbone) == "finetune"
    assert recipes.default_recipe("cub", backbone) == "fine_grained"
    assert recipes.default_recipe("adience", backbone) == "adience"


def test_the_rate_falls_at_the_first_step_of_the_second_half():
    """Released code: .1, .01 from epoch 150, .001 from 225, from 0."""
    steps = [0, 1, 150 * 196 - 1, 150 * 196, 225 * 196 - 1, 225 * 196, 58_799]
    expected = [0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    found = rates(get_recipe("released"), 196, steps)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("epochs", "steps", "milestones", "expected"),
    [
        (1, 1, (0.5, 0.75), [1]),
        (1, 5, (0.5, 0.75), [1, 1, 1, 0.1, 0.01]),
        (50, 1, (0.14,), [1] * 7 + [0.1] * 43),  # 0.14 * 50 > 7 in floats.
        (2, 2, (), [1] * 4),
    ],
)
def test_milestones_are_fractions_of_all_steps(
    epochs, steps, milestones, expected
):
    recipe = Recipe(
        "x", epochs, 8, learning_rate=1.0, milestones=milestones, momentum=0.9
    )
    np.testing.assert_allclose(rates(recipe, steps), expected, rtol=1e-6)


def test_optimizers():
    sgd = recipes.make_optimizer(get_recipe("paper"), 196)
    assert type(sgd) is CoupledSGD
    assert (sgd.momentum, sgd.nesterov) == (0.9, True)
    assert sgd.coupled_weight_decay == 1e-4 and sgd.weight_decay is None
    assert not recipes.make_optimizer(get_recipe("released"), 196).nesterov
    adam = recipes.make_optimizer(get_recipe("digits"), 3)
    assert isinstance(adam, keras.optimizers.Adam)
    assert float(adam.learning_rate) == pytest.approx(2e-3)
    for steps in (0, -1, 2.5, None):
        with pytest.raises(ValueError, match="`steps_per_epoch`"):
            recipes.make_optimizer(get_recipe("paper"), steps)


def test_rmsprop_is_that_of_keras_2():
    """Against its formula, with gradients small enough to tell epsilon."""
    recipe = get_recipe("zhu2018", decay=0.25)
    optimizer = recipes.make_optimizer(recipe, 782)
    variable = keras.Variable(np.ones(3, "float32"))
    gradient = np.array([1.0, 1e-4, -1e-5])
    w, mean_square = np.ones(3), np.zeros(3)
    for step in range(5):
        optimizer.apply([keras.ops.cast(gradient, "float32")], [variable])
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        rate = 1e-4 / (1 + 0.25 * step)
        w = w - rate * gradient / (np.sqrt(mean_square) + 1e-7)
    moved, expected = to_numpy(variable) - 1.0, w - 1
    np.testing.assert_allclose(moved, expected, rtol=0.05)


def pixels(n=64, size=8):
    shape = (n, size, size, 3)
    return np.random.default_rng(0).integers(1, 256, shape).astype("uint8")


def augmented(recipe, seed, x):
    for layer in recipes.augmentation_layers(recipe, seed):
        x = layer(x, training=True)
    return to_numpy(x)


def test_augmentation_none():
    for name in ("short", "digits", "mnist"):
        assert recipes.augmentation_layers(get_recipe(name), 0) == []


def test_crop_flip():
    """Every image is a crop of the padded one, mirrored half of the time."""
    recipe = get_recipe("released")
    crop, flip = recipes.augmentation_layers(recipe, 0)
    assert type(crop) is RandomPadCrop and crop.padding == 4
    assert type(flip) is keras.layers.RandomFlip
    x = pixels(200)
    found = augmented(recipe, 0, x)
    padded = np.pad(x, ((0, 0), (4, 4), (4, 4), (0, 0)))
    mirrored = 0
    for image, result in zip(padded, found, strict=True):
        crops = [
            image[top : top + 8, left : left + 8]
            for top in range(9)
            for left in range(9)
        ]
        straight = any(np.array_equal(c, result) for c in crops)
        mirror = any(np.array_equal(c[:, ::-1], result) for c in crops)
        assert straight or mirror
        mirrored += mirror and not straight
    assert 70 < mirrored < 130


def test_shift_flip():
    recipe = get_recipe("zhu2018")
    shift, flip = recipes.augmentation_layers(recipe, 0)
    config = shift.get_config()
    assert type(shift) is keras.layers.RandomTranslation
    assert (config["height_factor"], config["width_factor"]) == (0.1, 0.1)
    assert config["fill_mode"] == "nearest"
    assert flip.get_config()["mode"] == "horizontal"
    # The border is repeated: a constant image stays what it is.
    x = np.full((4, 20, 20, 3), 77, "uint8")
    np.testing.assert_allclose(augmented(recipe, 0, x), 77, rtol=1e-5)


@pytest.mark.parametrize("name", ["released", "zhu2018"])
def test_seeds(name):
    recipe, x = get_recipe(name), pixels()
    same = [augmented(recipe, seed, x) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(same[0], same[1])
    assert not np.array_equal(same[0], same[2])
    seeds = [
        layer.seed
        for seed in range(100)
        for layer in recipes.augmentation_layers(recipe, seed)
    ]
    # Far apart, or PyTorch's streams overlap: 58,800 steps in the paper.
    assert len(seeds) == 200 and np.diff(sorted(seeds)).min() > 0
    assert 0 <= min(seeds) and 2**29 < max(seeds) < 2**30
    assert np.median(np.diff(sorted(seeds))) > 1e6


@pytest.mark.parametrize("name", ["released", "zhu2018"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_in_a_compiled_model(name, policy):
    recipe = get_recipe(name)
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((8, 8, 3), dtype="uint8")
        x = inputs
        for layer in recipes.augmentation_layers(recipe, 0):
            x = layer(x)
            assert x.dtype in ("uint8", "float32")
        x = recipes.scaling_layer(recipe, [0.5] * 3, [0.25] * 3)(x)
        assert x.dtype == "float32"
        x = keras.layers.Dense(2, dtype="float32")(keras.layers.Flatten()(x))
    finally:
        keras.config.set_dtype_policy("float32")
    model = keras.Model(inputs, x)
    model.compile(
        recipes.make_optimizer(recipe, 2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    # Uncompiled, the whole model would run op by op on JAX.
    assert model.jit_compile or keras.backend.backend() != "jax"
    x = pixels(12)
    history = model.fit(x, np.arange(12) % 2, batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    # Nothing random is left in prediction.
    np.testing.assert_array_equal(
        model.predict(x, verbose=0), model.predict(x, verbose=0)
    )


def scaled(recipe, x, *statistics):
    y = recipes.scaling_layer(recipe, *statistics)(x)
    assert keras.backend.standardize_dtype(y.dtype) == "float32"
    return to_numpy(y)


def test_scaling():
    x = pixels()
    np.testing.assert_allclose(
        scaled(get_recipe("mnist"), x), x / 255, rtol=1e-6
    )
    mean = (x / 255).mean((0, 1, 2))
    std = (x / 255).std((0, 1, 2))
    y = scaled(get_recipe("paper"), x, mean, std)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-5)
    # The recipe's own statistics come before those of the data.
    released = get_recipe("released")
    expected = (x / 255 - released.mean) / released.std
    for statistics in [(), (mean, std)]:
        np.testing.assert_allclose(
            scaled(released, x, *statistics), expected, rtol=1e-4, atol=1e-5
        )


def test_a_constant_channel_is_shifted():
    x = np.full((1, 2, 2, 1), 51, "uint8")
    y = scaled(get_recipe("paper"), x, [0.2], [0.0])
    np.testing.assert_allclose(y, 0, atol=1e-5)
    y = scaled(get_recipe("paper"), x + 1, [0.2], [0.0])
    np.testing.assert_allclose(y, 1, atol=1e-5)


@pytest.mark.once
def test_statistics_are_needed():
    for statistics in [(), ([0.5], None), ([0.5], [0.1, 0.1])]:
        with pytest.raises(ValueError, match="`mean` and `std` of each"):
            recipes.scaling_layer(get_recipe("paper"), *statistics)
    # Colour statistics, grey images.
    with pytest.raises(ValueError, match="expected axis -1 .* value 3"):
        recipes.scaling_layer(get_recipe("released"))(
            np.zeros((1, 8, 8, 1), "uint8")
        )


def test_randaugment_is_drawn_from_the_seed():
    recipe = get_recipe("finetune", randaugment=2, augmentation="none")
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), "uint8")

    def augmented(seed, training=True):
        (layer,) = recipes.augmentation_layers(recipe, seed)
        return to_numpy(layer(images, training=training))

    found = augmented(1)
    assert (
        found.shape == images.shape and 0 <= found.min() <= found.max() <= 255
    )
    np.testing.assert_array_equal(augmented(1), found)
    assert np.abs(found - images).max() > 10
    assert np.abs(augmented(2) - found).max() > 10
    np.testing.assert_array_equal(augmented(1, training=False), images)


def test_the_head_learns_at_its_own_rate_from_the_first_step():
    dense = keras.layers.Dense
    model = keras.Sequential(
        [
            keras.Input((1,)),
            dense(1, use_bias=False),
            dense(2, use_bias=False, name="logits"),
        ]
    )
    before = [np.ones((1, 1), "float32"), np.ones((1, 2), "float32")]
    model.set_weights(before)
    recipe = Recipe(**FIELDS, head_rate=10.0)
    optimizer = recipes.make_optimizer(recipe, steps_per_epoch=5)
    gradients = [keras.ops.convert_to_tensor(value) for value in before]
    optimizer.apply(gradients, model.trainable_variables)
    below, head = model.get_weights()
    np.testing.assert_allclose(below, 1 - 0.1, rtol=1e-6)
    np.testing.assert_allclose(head, 1 - 1.0, atol=1e-6)


@pytest.mark.once
def test_the_documentation_has_every_recipe():
    """The columns of numbers in docs/comparing.md are those of `RECIPES`."""
    text = (REPOSITORY / "docs" / "comparing.md").read_text()
    rows = {}
    for line in text.splitlines():
        if line.startswith("| `") and line.count("|") == 10:
            name, *cells = [cell.strip() for cell in line.split("|")[1:-1]]
            rows[name.strip("`")] = cells
    assert [*rows] == [*RECIPES]
    for name, recipe in RECIPES.items():
        optimizer, rate, drops, epochs, batch, decay, seen, default = rows[name]
        assert optimizer.split(",")[0].lower() == recipe.optimizer
        assert (f"momentum {recipe.momentum:g}" in optimizer) == (
            recipe.momentum > 0
        )
        assert ("Nesterov" in optimizer) == recipe.nesterov
        assert float(rate) == recipe.learning_rate
        found = re.findall(r"[\d.]+", drops.partition("never")[0])
        expected = [share * recipe.epochs for share in recipe.milestones]
        assert [*map(float, found)] == pytest.approx(expected)
        assert int(epochs) == recipe.epochs
        assert int(batch) == recipe.batch_size
        assert float(decay) == recipe.weight_decay
        assert ("mirror" in seen) == (recipe.augmentation != "none")
        assert (f" {recipe.image_size}" in seen) == bool(recipe.image_size)
        if "--weights none" in default:
            found = default_recipe("folder:pets", "keras/resnet50", "none")
            assert found == name
            continue
        if "--method" in default:
            network = f"keras/resnet50+{default.split()[1].strip('`')}"
            assert default_recipe("cub", network) == name
            continue
        for dataset in re.findall("`(.*?)`", default):
            assert default_recipe(dataset, "keras/resnet50") == name
    assert default_recipe("adience_faces", "keras/resnet50") == "adience"
    assert default_recipe("cifar10", "resnet20") == "short"
    assert default_recipe("folder:pets", "keras/resnet50") == "finetune"
