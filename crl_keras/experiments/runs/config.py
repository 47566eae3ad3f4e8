"""What one run is: its configuration, and the id made from it.

Imports no backend: reports are made from configurations on machines that have
none.
"""

import dataclasses
import hashlib
import json
import re

from crl_keras.experiments.runs.recipes import Recipe

# Names a user may write, with the parameters each takes and their defaults.
LOSSES = {
    "ce": {},
    "nllr": {},
    "crl": {"alpha": 1.5, "beta": 1.0},
    "focal": {"gamma": 2.0},
    "dualce": {"alpha": 1.0, "beta": 4.5},
    "tamed": {"alpha": 0.8},
    "released": {"alpha": 1.5, "beta": 1.0},
    "lsoftmax": {
        "margin": 4.0,
        "base": 1000.0,
        "gamma": 2.5e-5,
        "power": 35.0,
        "minimum": 0.0,
    },
    "asoftmax": {
        "margin": 4.0,
        "base": 1000.0,
        "gamma": 0.12,
        "power": 1.0,
        "minimum": 5.0,
    },
}
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training: everything that its numbers depend on.

    Two configurations that differ in `loss` alone are a pair: they start from
    the same weights and see the same batches with the same augmentation.

    Args:
        dataset: Name of the data set, as `load_dataset` takes it.
        network: Name of the network, a key of `crl_keras.networks.NETWORKS`,
            or "LIBRARY/NAME" of a backbone, as `build_backbone` takes it.
        loss: Loss with its parameters, in the form of `canonical_loss`.
        recipe: How it is trained.
        seed: Integer from 0 to 2**32 - 1, of initial weights, batches and
            augmentation.
        held_out: Fraction of the training split, in [0, 1), that is kept out
            of training, for fitting a temperature.
        precision: Keras dtype policy: "float32", "mixed_bfloat16" or
            "mixed_float16".
        weights: Of a backbone: "none", "imagenet", or the path of a file.
        fold: Which fold of a cross-validation is the test, or None.
        crop_to_box: Whether images are cut to their bounding boxes.
        reader: What decodes the images: "memory", "pillow" or "tf.data".
        backend: "tensorflow", "jax" or "torch".
        devices: Number of devices that share each batch.
        train_limit: Train on this many images only, or None for all.
        test_limit: Test on this many images only, or None for all.

    Example:

    >>> from crl_keras.experiments.runs.recipes import get_recipe
    >>> config = RunConfig("digits", "mlp", "crl", get_recipe("digits"), 0)
    >>> config.loss
    'crl(alpha=1.5,beta=1)'
    """

    dataset: str
    network: str
    loss: str
    recipe: Recipe
    seed: int
    held_out: float = 0.0
    precision: str = "float32"
    weights: str = "none"
    fold: int | None = None
    crop_to_box: bool = False
    reader: str = "memory"
    backend: str = "jax"
    devices: int = 1
    train_limit: int | None = None
    test_limit: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "loss", canonical_loss(self.loss))
        if not 0 <= self.seed < 2**32:
            raise ValueError(
                f"`seed` must be from 0 to 2**32 - 1. Received: {self.seed}"
            )
        if not 0 <= self.held_out < 1:
            raise ValueError(
                "`held_out` must be a fraction in [0, 1). "
                f"Received: held_out={self.held_out}"
            )
        for name in ("devices", "train_limit", "test_limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {value}"
                )

    def to_dict(self):
        """A dict of plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values):
        """The configuration that `to_dict` wrote; unknown keys are an error."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise ValueError(
                f"Unknown fields in a run's configuration: {sorted(unknown)}. "
                f"Expected: {sorted(known)}"
            )
        recipe = dict(values["recipe"])
        for name, value in recipe.items():
            if isinstance(value, list):  # JSON has no tuples.
                recipe[name] = tuple(value)
        return cls(**{**values, "recipe": Recipe(**recipe)})

    @property
    def run_id(self):
        """12 hexadecimal digits, the same for equal configurations."""
        return hashlib.sha256(self._identity().encode()).hexdigest()[:12]

    @property
    def group(self):
        """JSON of everything but loss, seed and fold: what may be compared."""
        return self._identity("loss", "seed", "fold")

    @property
    def pair(self):
        """What two runs must share to be a pair: the seed, and the fold."""
        return self.seed if self.fold is None else (self.seed, self.fold)

    def _identity(self, *without):
        values = self.to_dict()
        # Words about the recipe: another wording makes no other run.
        del values["recipe"]["source"]
        for name in without:
            del values[name]
        return json.dumps(values, sort_keys=True)


def parse_loss(spec):
    """Splits "crl(alpha=1.5,beta=-1)" into its name and its parameters.

    Missing parameters take their defaults. Raises ValueError for a name or a
    parameter that does not exist, or a value that is no number.

    >>> parse_loss("crl(beta=-1)")
    ('crl', {'alpha': 1.5, 'beta': -1.0})
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", spec)
    name = match.group(1).lower() if match else None
    if name not in LOSSES:
        raise ValueError(
            f"A loss must be one of {', '.join(LOSSES)}, with parameters in "
            f"parentheses as in crl(alpha=1.5,beta=1). Received: {spec!r}"
        )
    parameters, given = dict(LOSSES[name]), set()
    for part in filter(None, (match.group(2) or "").split(",")):
        key, _, value = (word.strip() for word in part.partition("="))
        if key not in parameters:
            raise ValueError(
                f"The loss {name} takes {', '.join(parameters) or 'nothing'}. "
                f"Received: {spec!r}"
            )
        if key in given:
            raise ValueError(
                f"`{key}` of a loss must be given once. Received: {spec!r}"
            )
        given.add(key)
        try:
            parameters[key] = float(value)
        except ValueError:
            raise ValueError(
                f"`{key}` of a loss must be a number. Received: {spec!r}"
            ) from None
    return name, parameters


def canonical_loss(spec):
    """The one way to write a loss: all parameters, in the order of LOSSES.

    >>> canonical_loss("CRL( beta = 1 )"), canonical_loss("crl(alpha=0)")
    ('crl(alpha=1.5,beta=1)', 'nllr')
    """
    name, parameters = parse_loss(spec)
    if name == "crl" and parameters == crl_parameters("nllr"):
        return "nllr"  # The same loss, which would be compared with itself.
    text = ",".join(
        f"{key}={_number_text(value)}" for key, value in parameters.items()
    )
    return f"{name}({text})" if text else name


def loss_label(spec):
    """How tables and figures call a loss.

    >>> loss_label("crl(alpha=1.5,beta=1)"), loss_label("crl(beta=-1)")
    ('CRL', 'CRL(1.5, -1)')
    """
    name, parameters = parse_loss(spec)
    if parameters == LOSSES[name]:
        return name.upper()
    values = ", ".join(map(_number_text, parameters.values()))
    return f"{name.upper()}({values})"


def _number_text(value):
    """All digits: two losses have two names, and `0.0` is not `-0.0`."""
    return repr(value + 0.0).removesuffix(".0")


def crl_parameters(spec):
    """`alpha` and `beta` of a loss that is a CRL.

    Raises ValueError for another loss.

    >>> crl_parameters("nllr")
    {'alpha': 0.0, 'beta': 1.0}
    """
    name, parameters = parse_loss(spec)
    if name == "nllr":
        return {"alpha": 0.0, "beta": 1.0}
    if name == "crl":
        return parameters
    raise ValueError(
        "Expected a loss that is a CRL, crl or nllr, of which the posterior is "
        f"known. Received: {spec!r}"
    )


def make_loss(spec, classes, soft_labels=False, label_smoothing=0.0):
    """The Keras loss of a configuration, from logits.

    Args:
        spec: Loss with its parameters, as `parse_loss` takes it.
        classes: Number of classes.
        soft_labels: Whether labels are one-hot or soft, not integers.
        label_smoothing: Number in [0, 1), of soft labels.

    Raises:
        ValueError: The loss is for integer labels alone.
    """
    import keras

    from crl_keras import losses

    name, parameters = parse_loss(spec)
    if name == "nllr":
        parameters = crl_parameters(spec)
    kinds = {  # For integer labels, and for soft ones.
        "ce": (
            keras.losses.SparseCategoricalCrossentropy,
            keras.losses.CategoricalCrossentropy,
        ),
        "nllr": (losses.SparseCompetingRatioLoss, losses.CompetingRatioLoss),
        "crl": (losses.SparseCompetingRatioLoss, losses.CompetingRatioLoss),
        "focal": (losses.SparseFocalLoss, losses.FocalLoss),
        "dualce": (losses.SparseDualCrossEntropy, losses.DualCrossEntropy),
        "tamed": (losses.SparseTamedCrossEntropy, losses.TamedCrossEntropy),
        "released": (losses.ReleasedCompetingRatioLoss, None),
        "lsoftmax": (losses.SparseMarginCrossEntropy, None),
        "asoftmax": (losses.SparseMarginCrossEntropy, None),
    }
    sparse, dense = kinds[name]
    if sparse is losses.SparseMarginCrossEntropy and not soft_labels:
        return sparse(classes)  # Its parameters are those of the last layer.
    if not soft_labels:
        return sparse(**parameters, from_logits=True)
    if dense is None:
        raise ValueError(
            f"The loss {name} is for integer labels. Leave out --mixup, "
            "--cutmix and --label-smoothing, or the loss"
        )
    return dense(
        **parameters, from_logits=True, label_smoothing=label_smoothing
    )


def make_head(spec, classes, accumulate=1):
    """The last layer that a loss needs, or None where a dense one will do.

    Args:
        spec: Loss with its parameters, as `parse_loss` takes it.
        classes: Number of classes.
        accumulate: Parts of a batch whose gradients make one step. The layer
            counts them; `gamma` is per step, and divided by it.
    """
    from crl_keras import layers

    name, parameters = parse_loss(spec)
    if "gamma" in parameters:
        parameters["gamma"] /= accumulate
    heads = {"lsoftmax": layers.LSoftmaxDense, "asoftmax": layers.ASoftmaxDense}
    if name not in heads:
        return None
    return heads[name](classes, **parameters, dtype="float32", name="logits")
