"""Training recipes as data: rates, schedules, augmentation, scaling.

Imports no backend: reports need recipes on machines without a backend.
"""

import dataclasses
import hashlib
import math
import numbers

from crl_keras.experiments.data.crops import CROPS
from crl_keras.experiments.runs.batch_norm import MODES
from crl_keras.experiments.runs.method_names import split_method

OPTIMIZERS = ("sgd", "adam", "rmsprop")
AUGMENTATIONS = ("none", "flip", "crop_flip", "shift_flip")
SCALINGS = ("unit", "standardise", "backbone")
SCHEDULES = ("steps", "cosine")
KEPT = ("last", "best")
BALANCES = ("none", "balanced")
# Fields that older versions did not have, with the value that does what these
# did: a run with this value keeps its id.
ADDED = {
    "schedule": "steps",
    "warmup_epochs": 0.0,
    "ema": 0.0,
    "early_stopping": 0,
    "keep": "last",
    "batch_norm": "moving",
    "class_weights": "none",
    "sampling": "none",
    "part_rates": (),
    "no_decay": (),
}


def _check_choice(field, value, choices):
    if value not in choices:
        raise ValueError(
            f"`{field}` must be one of: {', '.join(choices)}. "
            f"Received: {field}={value!r}"
        )


def _integer(field, value, least=1):
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Integral)
        or value < least
    ):
        raise ValueError(
            f"`{field}` must be an integer, at least {least}. "
            f"Received: {field}={value!r}"
        )
    return int(value)


def _number(field, value):
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Real)
        or not math.isfinite(value)
    ):
        raise ValueError(
            f"`{field}` must be a finite number. Received: {field}={value!r}"
        )
    return float(value)


def _numbers(field, values):
    if values is None:
        return None
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ValueError(
            f"`{field}` must be a sequence of numbers. "
            f"Received: {field}={values!r}"
        )
    return tuple(_number(field, value) for value in values)


def _boolean(field, value):
    if not isinstance(value, bool):
        raise ValueError(
            f"`{field}` must be True or False. Received: {field}={value!r}"
        )
    return value


def _part_rates(entries):
    """Checks entries `(pattern, factor, epochs)`; may raise ValueError."""
    found = []
    for entry in entries:
        fits = not isinstance(entry, str) and len(entry) == 3
        if not fits or not isinstance(entry[0], str) or not entry[0]:
            raise ValueError(
                "`part_rates` must have entries (pattern of names, factor, "
                f"epochs or 0). Received: {entry!r}"
            )
        factor = _number("part_rates", entry[1])
        epochs = _number("part_rates", entry[2])
        if factor < 0 or epochs < 0:
            raise ValueError(
                "`part_rates` must have factors and epochs >= 0. "
                f"Received: {entry!r}"
            )
        found.append((entry[0], factor, epochs))
    return tuple(found)


def _patterns(names):
    if isinstance(names, str) or not all(isinstance(n, str) for n in names):
        raise ValueError(
            "`no_decay` must be a sequence of names of layers. "
            f"Received: {names!r}"
        )
    return tuple(names)


def parse_part_rate(text):
    """Parses an entry of `part_rates`, "NAME=FACTOR" or "NAME=FACTOR@EPOCHS".

    >>> parse_part_rate("conv5_*=0.1"), parse_part_rate("*=0@25")
    (('conv5_*', 0.1, 0.0), ('*', 0.0, 25.0))
    """
    name, equals, rest = text.partition("=")
    factor, _, epochs = rest.partition("@")
    try:
        return name, float(factor), float(epochs or 0)
    except ValueError:
        raise ValueError(
            "--part-rates must be NAME=FACTOR, or NAME=FACTOR@EPOCHS for the "
            f"first epochs. Received: {text!r}"
        ) from None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All settings of a training except data, network, loss and seed.

    Args:
        name: Name of the recipe.
        epochs: Passes over the training split, integer >= 1.
        batch_size: Images per step, over all devices; integer >= 1.
        learning_rate: Rate of the first step, finite and > 0.
        optimizer: "sgd", "adam" or "rmsprop". Defaults to `"sgd"`.
        milestones: Where the rate is divided by 10: rising fractions of the
            training, in (0, 1). Defaults to `()`, a constant rate.
        decay: Number >= 0: step `i`, from 0, has the rate
            `learning_rate / (1 + decay * i)`, as in Keras 2. Not together with
            `milestones`. Defaults to `0.0`.
        momentum: Momentum of SGD, in [0, 1). Defaults to `0.0`.
        nesterov: Whether to use Nesterov momentum. Defaults to `False`.
        weight_decay: Weight decay of SGD, >= 0, coupled with the momentum as
            in PyTorch, for all trainable variables. Defaults to `0.0`.
        accumulate: Integer >= 1 that divides the batch size: the gradients of
            this many parts of a batch are averaged before a step, so that a
            batch fits a small device. Batch normalisation sees the parts.
            Defaults to `1`.
        augmentation: "none", "flip" (half of the images mirrored), "crop_flip"
            (padded by 4 black pixels, cropped at random, half of the images
            mirrored) or "shift_flip" (shifted by up to a tenth, border
            repeated, half of the images mirrored). Mirrored digits are wrong
            digits. Defaults to `"none"`.
        randaugment: Number of operations of Keras's RandAugment, integer >= 0.
            The operations are drawn for each batch, their strength for each
            image. Defaults to `0`.
        mixup: Parameter of MixUp's beta distribution, in [0, 1]; 0 for none.
            Defaults to `0.0`.
        cutmix: The same for CutMix. With both, each batch gets one of them.
            Defaults to `0.0`.
        label_smoothing: In [0, 1). It makes labels soft, as do MixUp and
            CutMix. Defaults to `0.0`.
        image_size: Pixels per side of the crops from images in files or
            streams. None is for images of one size, which keep it. Defaults to
            `None`.
        crop: "random", "random_resized" or "centre", see `Crop`. Defaults to
            `"random"`.
        resize_ratio: Number >= 1, see `Crop`. Defaults to 256/224.
        keep_aspect: See `Crop`. Defaults to `True`.
        head_rate: Number > 0: learning rate of the last layer, as a multiple
            of the backbone's. Defaults to `1.0`.
        head_epochs: Number >= 0 of first epochs in which only the last layer
            learns. Batch statistics still change. Defaults to `0`.
        freeze_backbone: Whether only the last layer is trained; batch
            statistics do not change then. Defaults to `False`.
        schedule: "steps", which `milestones` or `decay` describe, or "cosine":
            the rate falls to 0 as half a cosine. Defaults to `"steps"`.
        warmup_epochs: Number >= 0 of first epochs, may be a fraction, in which
            the rate rises from 0 in equal steps. Defaults to `0.0`.
        ema: Momentum in [0, 1) of a moving average of the weights, which is
            tested and kept; 0 for the weights themselves. Defaults to `0.0`.
        early_stopping: Training ends after this many epochs without a lower
            validation error; integer >= 0, 0 for never. Defaults to `0`.
        keep: "last" keeps the weights of the last epoch, "best" those of the
            epoch with the lowest validation error (at a tie, the lowest
            validation loss). The test has no influence. Defaults to `"last"`.
        batch_norm: How batch normalisation gets its statistics for a test:
            "moving" averages as Keras keeps them; "recompute" computes them
            exactly from training images before every test; "momentum" uses
            moving averages that reach back over a tenth of the training;
            "freeze" keeps the statistics of the loaded weights, in training
            too. Defaults to `"moving"`.
        class_weights: "balanced" weights the loss of each class by the inverse
            of its number of training images; the mean weight of a sample is 1.
            Defaults to `"none"`.
        sampling: "balanced" draws images of each class equally often, so
            images of small classes come several times per epoch. Defaults to
            `"none"`.
        part_rates: Learning rates of parts of the network: entries
            `(pattern, factor, epochs)`. For each layer, the first entry counts
            whose pattern matches the layer's name, as for file names, and
            whose first `epochs` are not over. Its factor multiplies the rate;
            0 keeps the part as it is. Epochs between 0 and 1 are a share of
            the training, 0 is all of it. `(("logits", 10, 0), ("*", 0, 5))`
            trains only the last layer for 5 epochs. Defaults to `()`.
        no_decay: Name patterns of layers without weight decay. Defaults to
            `()`.
        scaling: "unit" (divided by 255), "standardise" (each channel to mean
            0 and standard deviation 1) or "backbone" (what the weights of a
            backbone were trained with). Defaults to `"standardise"`.
        mean: Mean of each channel for "standardise", in units of 1 (pixels
            divided by 255), or None for the mean of the training split.
        std: Standard deviation of each channel, likewise; > 0.
        source: Where the numbers come from, one line.

    Raises:
        ValueError: A value is out of its range, or two values conflict.

    Example:

    >>> recipe = Recipe("mine", epochs=5, batch_size=64, learning_rate=0.1)
    >>> recipe.milestones, recipe.scaling
    ((), 'standardise')
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str = "sgd"
    milestones: tuple = ()
    decay: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    accumulate: int = 1
    augmentation: str = "none"
    randaugment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    image_size: int | None = None
    crop: str = "random"
    resize_ratio: float = 256 / 224
    keep_aspect: bool = True
    head_rate: float = 1.0
    head_epochs: int = 0
    freeze_backbone: bool = False
    schedule: str = "steps"
    warmup_epochs: float = 0.0
    ema: float = 0.0
    early_stopping: int = 0
    keep: str = "last"
    batch_norm: str = "moving"
    class_weights: str = "none"
    sampling: str = "none"
    part_rates: tuple = ()
    no_decay: tuple = ()
    scaling: str = "standardise"
    mean: tuple | None = None
    std: tuple | None = None
    source: str = ""

    def __post_init__(self):
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("augmentation", self.augmentation, AUGMENTATIONS)
        _check_choice("scaling", self.scaling, SCALINGS)
        _check_choice("crop", self.crop, CROPS)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("keep", self.keep, KEPT)
        _check_choice("batch_norm", self.batch_norm, MODES)
        for field in ("class_weights", "sampling"):
            _check_choice(field, getattr(self, field), BALANCES)
        for field in ("epochs", "batch_size", "accumulate"):
            self._set(field, _integer(field, getattr(self, field)))
        for field in ("randaugment", "head_epochs", "early_stopping"):
            self._set(field, _integer(field, getattr(self, field), least=0))
        if self.image_size is not None:
            self._set("image_size", _integer("image_size", self.image_size))
        # 1 and 1.0, or a list and a tuple, must give the same run id.
        for field in NUMBERS:
            self._set(field, _number(field, getattr(self, field)))
        for field in ("milestones", "mean", "std"):
            self._set(field, _numbers(field, getattr(self, field)))
        for field in ("nesterov", "keep_aspect", "freeze_backbone"):
            self._set(field, _boolean(field, getattr(self, field)))
        self._set("part_rates", _part_rates(self.part_rates))
        self._set("no_decay", _patterns(self.no_decay))
        self._check_ranges()
        self._check_channels()
        self._check_optimizer()

    def _set(self, field, value):
        object.__setattr__(self, field, value)

    def _check_ranges(self):
        fits = {
            "learning_rate": (self.learning_rate > 0, "> 0"),
            "decay": (self.decay >= 0, ">= 0"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (self.weight_decay >= 0, ">= 0"),
            "accumulate": (
                self.batch_size % self.accumulate == 0,
                f"a divisor of the batch size, {self.batch_size}",
            ),
            "mixup": (0 <= self.mixup <= 1, "in [0, 1]"),
            "cutmix": (0 <= self.cutmix <= 1, "in [0, 1]"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "resize_ratio": (self.resize_ratio >= 1, ">= 1"),
            "head_rate": (self.head_rate > 0, "> 0"),
            "milestones": (
                self.milestones is not None
                and all(0 < m < 1 for m in self.milestones)
                and list(self.milestones) == sorted(set(self.milestones)),
                "rising fractions in (0, 1), or () for none",
            ),
            "warmup_epochs": (self.warmup_epochs >= 0, ">= 0"),
            "ema": (0 <= self.ema < 1, "in [0, 1)"),
            "std": (all(s > 0 for s in self.std or ()), "> 0"),
        }
        for field, (fit, expected) in fits.items():
            if not fit:
                raise ValueError(
                    f"`{field}` must be {expected}. "
                    f"Received: {field}={getattr(self, field)!r}"
                )

    def _check_channels(self):
        if self.mean is None and self.std is None:
            return
        received = (
            f"Received: scaling={self.scaling!r}, mean={self.mean}, "
            f"std={self.std}"
        )
        if not self.mean or len(self.mean) != len(self.std or ()):
            raise ValueError(
                "`mean` and `std` must both be None, or both have one number "
                f"for each channel. {received}"
            )
        if self.scaling != "standardise":
            raise ValueError(
                f'`mean` and `std` are for scaling="standardise". {received}'
            )

    @property
    def needs_validation(self):
        """Whether an epoch is chosen by held-out images."""
        return bool(self.early_stopping) or self.keep == "best"

    @property
    def soft_labels(self):
        """Whether training needs labels of more than one class."""
        return bool(self.mixup or self.cutmix or self.label_smoothing)

    def _check_optimizer(self):
        if self.freeze_backbone and self.head_epochs:
            raise ValueError(
                "`freeze_backbone` trains only the last layer in all epochs, "
                "`head_epochs` in the first ones: choose one. "
                f"Received: head_epochs={self.head_epochs}"
            )
        if self.schedule != "steps" and (self.decay or self.milestones):
            raise ValueError(
                f"`schedule` {self.schedule!r} takes no `decay` and no "
                f"`milestones`. Received: decay={self.decay}, "
                f"milestones={self.milestones}"
            )
        if self.decay and self.milestones:
            raise ValueError(
                "`decay` and `milestones` are two schedules, choose one. "
                f"Received: decay={self.decay}, milestones={self.milestones}"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("`nesterov` needs a `momentum` > 0. Received: 0")
        if self.optimizer != "sgd" and (self.momentum or self.weight_decay):
            raise ValueError(
                "`momentum` and `weight_decay` are for SGD, set them to 0 and "
                f"`nesterov` to False. Received: optimizer={self.optimizer!r}, "
                f"momentum={self.momentum}, weight_decay={self.weight_decay}"
            )


# Fields that hold one float.
NUMBERS = [f.name for f in dataclasses.fields(Recipe) if f.type is float]

# From the DCL code: CRL's paper follows its setup, with any method.
_FINE_GRAINED = Recipe(
    "fine_grained",
    epochs=180,
    batch_size=16,
    learning_rate=8e-4,
    milestones=(1 / 3, 2 / 3),
    momentum=0.9,
    augmentation="flip",
    image_size=448,
    resize_ratio=512 / 448,
    keep_aspect=False,
    head_rate=10.0,
    scaling="backbone",
    source="JDAI-CV/DCL @8950816, whose setup arXiv:1912.11642, IV-A, "
    "says to follow: optimizer, rates, 512 cut to 448; its epochs and "
    "steps by the DCL paper (unverified), not turned",
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "paper",
            epochs=300,
            batch_size=256,
            learning_rate=0.1,
            milestones=(0.5, 0.75),
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            augmentation="crop_flip",
            source="arXiv:1912.11642, IV-A, CIFAR; scaling is not stated there",
        ),
        Recipe(
            "released",
            epochs=300,
            batch_size=256,
            learning_rate=0.1,
            milestones=(0.5, 0.75),
            momentum=0.9,
            weight_decay=5e-4,
            augmentation="crop_flip",
            mean=(0.4914, 0.4822, 0.4465),
            std=(0.2023, 0.1994, 0.2010),
            source="main.py of guoyurong0104/CRL-code @b66d835, CIFAR-10 and "
            "-100; it differs from the paper's text",
        ),
        Recipe(
            "zhu2018",
            epochs=100,
            batch_size=64,
            learning_rate=1e-4,
            optimizer="rmsprop",
            decay=1e-6,
            augmentation="shift_flip",
            scaling="unit",
            source="examples/cifar10_cnn.py of keras-team/keras @4f2e65c385, "
            "taken to be Zhu et al.'s (unverified); batch 64 from "
            "arXiv:1912.11642, Table II",
        ),
        Recipe(
            "short",
            epochs=10,
            batch_size=128,
            learning_rate=0.02,
            milestones=(0.5, 0.75),
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            source="our choice, for CIFAR or MNIST in minutes on a CPU; not "
            "augmented, as few epochs overfit little and digits have no mirror",
        ),
        Recipe(
            "digits",
            epochs=20,
            batch_size=32,
            learning_rate=2e-3,
            optimizer="adam",
            source="our choice, for the 8x8 digits of scikit-learn; Adam, as "
            "NLLR on mlp diverges with SGD at every rate that trains the rest",
        ),
        Recipe(
            "mnist",
            epochs=10,
            batch_size=128,
            learning_rate=0.01,
            momentum=0.9,
            scaling="unit",
            source="our choice, a constant rate for logistic and mlp on "
            "MNIST: arXiv:1912.11642, Table IV, gives none",
        ),
        Recipe(
            "svhn",
            epochs=40,
            batch_size=64,
            learning_rate=0.1,
            milestones=(0.5, 0.75),
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            source="arXiv:1912.11642, IV-A, SVHN: epochs, batch, rates, no "
            "augmentation; optimizer and weight decay are those it gives for "
            "CIFAR, scaling is not stated",
        ),
        Recipe(
            "imagenet",
            epochs=90,
            batch_size=256,
            learning_rate=0.1,
            milestones=(1 / 3, 2 / 3),
            momentum=0.9,
            nesterov=True,
            weight_decay=1e-4,
            augmentation="flip",
            image_size=224,
            crop="random_resized",
            scaling="backbone",
            source="arXiv:1912.11642, IV-A, ImageNet: epochs, batch, rates, "
            "one crop of 224; crops and mirroring by what it cites "
            "(unverified), optimizer and weight decay as for CIFAR",
        ),
        Recipe(
            "adience",
            epochs=120,
            batch_size=64,
            learning_rate=0.01,
            milestones=(80 / 120,),
            momentum=0.9,
            augmentation="flip",
            image_size=224,
            scaling="backbone",
            source="arXiv:1912.11642, IV-A, Adience: SGD, batch, epochs and "
            "rates; momentum, crop and mirroring are our choice, there is no "
            "weight decay in it",
        ),
        _FINE_GRAINED,
        Recipe(
            "bcnn",
            epochs=70,
            batch_size=64,
            learning_rate=1e-3,
            momentum=0.9,
            weight_decay=5e-4,
            augmentation="flip",
            image_size=448,
            resize_ratio=1.0,
            head_rate=1000.0,
            part_rates=(("logits", 1000.0, 0), ("*", 0.0, 25 / 70)),
            no_decay=("logits",),
            scaling="backbone",
            source="the last layer alone for 25 epochs, then all for 45, as "
            "cvl-umass/bilinear-cnn @d6a05aa; rates, batch, weight decay and "
            "mirroring of the second step by the authors' MatConvNet code "
            "(kcyu2014/bcnn_kyu @b76230b), 1.0 for the last layer throughout",
        ),
        Recipe(
            "dfl",
            epochs=120,
            batch_size=16,
            learning_rate=1e-3,
            milestones=(0.5, 0.75),
            momentum=0.9,
            weight_decay=1e-4,
            augmentation="flip",
            image_size=448,
            resize_ratio=1.0,
            head_rate=10.0,
            scaling="backbone",
            source="our choice, as the DFL-CNN paper's recipe is not known "
            "and there is no official code; crops and epochs as in "
            "songdejia/DFL-CNN @f035b5c",
        ),
        dataclasses.replace(
            _FINE_GRAINED,
            name="dcl",
            source="JDAI-CV/DCL @8950816: optimizer, rates by part, 16 pairs, "
            "512 cut to 448, not turned; 180 epochs, which its author says "
            "are enough",
        ),
        Recipe(
            "finetune",
            epochs=20,
            batch_size=32,
            learning_rate=0.01,
            milestones=(0.5, 0.75),
            momentum=0.9,
            weight_decay=1e-4,
            augmentation="flip",
            image_size=224,
            crop="random_resized",
            head_rate=10.0,
            scaling="backbone",
            source="our choice, for any folder of images",
        ),
        Recipe(
            "scratch",
            epochs=60,
            batch_size=32,
            learning_rate=0.02,
            schedule="cosine",
            warmup_epochs=3,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            augmentation="flip",
            image_size=64,
            crop="random_resized",
            scaling="backbone",
            source="our choice, for a backbone with random weights on any "
            "folder of images",
        ),
    )
}


def get_recipe(name, **overrides):
    """Returns a recipe, with some of its values changed.

    Args:
        name: A key of `RECIPES`.
        **overrides: Fields of `Recipe` with their new values; None leaves a
            field as it is. A new `scaling` drops the recipe's `mean` and
            `std`, and a new `schedule` its `milestones` and `decay`, unless
            these are given too.

    Returns:
        `Recipe`. It keeps the `source` of the recipe that it is made from.

    Raises:
        ValueError: No such recipe or field, or a value out of its range.

    Example:

    >>> get_recipe("released", epochs=30, learning_rate=None).epochs
    30
    """
    if name not in RECIPES:
        raise ValueError(
            f"Unknown recipe. Expected one of: {', '.join(RECIPES)}. "
            f"Received: {name!r}"
        )
    fields = [field.name for field in dataclasses.fields(Recipe)]
    unknown = sorted(set(overrides) - set(fields))
    if unknown:
        raise ValueError(
            f"Unknown fields of a recipe. Expected some of: "
            f"{', '.join(fields)}. Received: {', '.join(unknown)}"
        )
    changes = {k: v for k, v in overrides.items() if v is not None}
    if "scaling" in changes:
        changes = {"mean": None, "std": None, **changes}
    if "schedule" in changes:
        changes = {"milestones": (), "decay": 0.0, **changes}
    return dataclasses.replace(RECIPES[name], **changes)


def default_recipe(dataset, network="", weights="imagenet"):
    """Returns the name of the default recipe for a data set.

    Args:
        dataset: Name of a data set, as `load_dataset` takes it.
        network: Name of the network. A slash in it marks a backbone, which
            takes images of another size and scale.
        weights: Weights of a backbone; "none" for random ones.

    Returns:
        A key of `RECIPES`: the recipe of the network's method, if it has a
        method and weights; "digits", "mnist" and "adience" for these data
        sets; "fine_grained" for "cub" and "cars". For other data sets it is
        "finetune" for a backbone with weights, "scratch" for a backbone with
        random weights, and "short" for other networks.

    Example:

    >>> default_recipe("digits"), default_recipe("cifar10")
    ('digits', 'short')
    """
    method = split_method(network)[1]
    if method is not None and weights != "none":
        return method
    if dataset in ("digits", "mnist"):
        return dataset
    if dataset in ("adience", "adience_faces"):
        return "adience"
    if dataset in ("cub", "cars"):
        return "fine_grained"
    if "/" not in network:
        return "short"
    return "scratch" if weights == "none" else "finetune"


def make_optimizer(recipe, steps_per_epoch, head_layers=("logits",)):
    """Makes the Keras optimizer of a recipe, with its schedule.

    SGD is `crl_keras.optimizers.CoupledSGD`. RMSprop works as in Keras 2, with
    its epsilon of 1e-7 outside the square root.

    Args:
        recipe: `Recipe`.
        steps_per_epoch: Integer >= 1; counts the parts of accumulated batches.
        head_layers: Names of the layers that learn at the recipe's
            `head_rate`.

    Returns:
        `keras.optimizers.Optimizer`, not built yet.

    Raises:
        ValueError: `steps_per_epoch` is not an integer >= 1.

    Example:

    >>> optimizer = make_optimizer(get_recipe("released"), 196)
    >>> round(float(optimizer.learning_rate), 6)
    0.1
    """
    import keras

    from crl_keras import optimizers

    steps = _integer("steps_per_epoch", steps_per_epoch)
    arguments = {"learning_rate": rate_schedule(recipe, steps)}
    if recipe.ema:
        arguments.update(use_ema=True, ema_momentum=recipe.ema)
    if recipe.accumulate > 1:
        arguments["gradient_accumulation_steps"] = recipe.accumulate
    if recipe.optimizer == "adam":
        kinds = keras.optimizers.Adam, optimizers.HeadRateAdam
    elif recipe.optimizer == "rmsprop":
        kinds = keras.optimizers.RMSprop, optimizers.HeadRateRMSprop
        # Keras 3 adds epsilon under the root, where 1e-7 would damp every
        # gradient below 3e-4.
        arguments["epsilon"] = 1e-14
    else:
        kinds = optimizers.CoupledSGD, optimizers.HeadRateSGD
        arguments["momentum"] = recipe.momentum
        arguments["nesterov"] = recipe.nesterov
        arguments["coupled_weight_decay"] = recipe.weight_decay
    plain, with_head_rate = kinds
    parts = recipe.part_rates or recipe.no_decay
    if recipe.head_rate == 1 and not recipe.head_epochs and not parts:
        return plain(**arguments)

    def updates(epochs):
        if 0 < epochs < 1:
            epochs = epochs * recipe.epochs
        return math.ceil(round(epochs * steps / recipe.accumulate, 6))

    return with_head_rate(
        **arguments,
        head_rate=recipe.head_rate,
        head_updates=updates(recipe.head_epochs),
        head_layers=head_layers,
        part_rates=[
            (pattern, factor, updates(epochs))
            for pattern, factor, epochs in recipe.part_rates
        ],
        no_decay=recipe.no_decay,
    )


def rate_schedule(recipe, steps_per_epoch):
    """The learning rate of a recipe: a float, or a Keras schedule of steps."""
    from crl_keras.optimizers import WarmUp

    rate = _schedule(recipe, steps_per_epoch)
    # Keras's schedules count the parts of an accumulated batch as steps.
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    return WarmUp(rate, warmup) if warmup else rate


def _schedule(recipe, steps_per_epoch):
    from keras.optimizers import schedules

    if recipe.schedule == "cosine":
        steps = recipe.epochs * steps_per_epoch
        return schedules.CosineDecay(recipe.learning_rate, steps)
    if recipe.decay:
        # Keras's schedules count the parts of an accumulated batch as steps.
        decay = recipe.decay / recipe.accumulate
        return schedules.InverseTimeDecay(recipe.learning_rate, 1, decay)
    if not recipe.milestones:
        return recipe.learning_rate
    steps = recipe.epochs * steps_per_epoch
    # Steps count from 0, and Keras keeps the old rate up to and including its
    # boundary: the last step of the first half is the boundary. Without
    # rounding, 0.14 * 50, a little above 7, would become 8.
    boundaries = [
        math.ceil(round(milestone * steps, 6)) - 1
        for milestone in recipe.milestones
    ]
    rates = [
        recipe.learning_rate / 10**count for count in range(len(boundaries) + 1)
    ]
    return schedules.PiecewiseConstantDecay(boundaries, rates)


def augmentation_layers(recipe, seed):
    """Makes the augmentation of a recipe: Keras layers for uint8 images.

    They act only in training, before the scaling. The random numbers depend
    on the seed and the layer, but not on the loss.

    Args:
        recipe: `Recipe`.
        seed: Integer >= 0.

    Returns:
        List of `keras.layers.Layer`, to apply in this order; may be empty.

    Example:

    >>> [layer.name for layer in augmentation_layers(get_recipe("paper"), 0)]
    ['random_pad_crop', 'random_flip']
    """
    import keras

    from crl_keras.layers import RandomPadCrop

    layers = []
    if recipe.augmentation == "crop_flip":
        layers.append(
            RandomPadCrop(
                4, seed=layer_seed(seed, "crop"), name="random_pad_crop"
            )
        )
    if recipe.augmentation == "shift_flip":
        shift = keras.layers.RandomTranslation(
            0.1,
            0.1,
            fill_mode="nearest",
            seed=layer_seed(seed, "shift"),
            data_format="channels_last",
            dtype="float32",
            name="random_translation",
        )
        # Keras says that it does not compile. That is true for XLA on
        # TensorFlow, but not on JAX, where the whole model would then stay
        # uncompiled.
        shift.supports_jit = keras.backend.backend() == "jax"
        layers.append(shift)
    if recipe.augmentation != "none":
        layers.append(
            keras.layers.RandomFlip(
                "horizontal",
                seed=layer_seed(seed, "flip"),
                data_format="channels_last",
                dtype="float32",
                name="random_flip",
            )
        )
    if recipe.randaugment:
        layers.append(
            keras.layers.RandAugment(
                value_range=(0, 255),
                num_ops=recipe.randaugment,
                seed=layer_seed(seed, "randaugment"),
                data_format="channels_last",
                dtype="float32",
                name="rand_augment",
            )
        )
    return layers


def layer_seed(seed, layer):
    """Returns a seed of 30 bits, far from other seeds and layers.

    Keras on PyTorch seeds its generator with seed + number of the draw. With
    seeds 0 and 1, two layers or two runs would draw the same numbers, one draw
    apart.
    """
    digest = hashlib.sha256(f"{layer} {seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 2


def scaling_layer(recipe, mean=None, std=None):
    """Makes the scaling of a recipe: pixels of 0 to 255 to float32.

    Args:
        recipe: `Recipe`.
        mean: Mean of each channel over the training split, in units of 1
            (pixels divided by 255). Needed for "standardise" if the recipe has
            no mean, otherwise not used.
        std: Standard deviation, likewise. A constant channel, with 0, is only
            shifted.

    Returns:
        `keras.layers.Layer`, float32 under any dtype policy.

    Raises:
        ValueError: `mean` or `std` is needed and missing, or they differ in
            length. The layer raises it for another number of channels.

    Example:

    >>> layer = scaling_layer(get_recipe("digits"), mean=[0.5], std=[0.25])
    >>> black_and_white = np.uint8([0, 255]).reshape(1, 1, 2, 1)
    >>> print(keras.ops.convert_to_numpy(layer(black_and_white)).ravel())
    [-2.  2.]
    """
    import keras

    if recipe.scaling == "unit":
        return keras.layers.Rescaling(1 / 255, dtype="float32", name="scaling")
    if recipe.mean is not None:
        mean, std = recipe.mean, recipe.std
    if mean is None or std is None or len(mean) != len(std):
        raise ValueError(
            "The recipe standardises: `mean` and `std` of each channel of the "
            f"training split are needed. Received: mean={mean}, std={std}"
        )
    # Not Rescaling, which follows Keras's global image_data_format.
    layer = keras.layers.Normalization(
        axis=-1,
        mean=[255 * float(m) for m in mean],
        variance=[(255 * float(s)) ** 2 if s else 1.0 for s in std],
        dtype="float32",
        name="scaling",
    )
    # A clear error if grey images meet statistics of colours.
    layer.input_spec = keras.layers.InputSpec(axes={-1: len(mean)})
    return layer
