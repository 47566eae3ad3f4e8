"""The configuration of one run, and the id made from it.

Imports no backend: reports need configurations on machines without a backend.
"""

import dataclasses
import hashlib
import json
import re

from crl_keras.experiments.runs.method_names import canonical_network
from crl_keras.experiments.runs.recipes import ADDED
from crl_keras.experiments.runs.recipes import Recipe

# Names that a user may write, with their parameters and default values.
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
# Losses that weigh samples. A name with `_steps` or `_weights` appended is a
# control of docs/what-crl-does.md, with the same parameters.
WEIGHTINGS = ("nllr", "crl", "focal", "dualce", "tamed", "released")
CONTROLS = ("steps", "weights")
LOSSES |= {
    f"{name}_{control}": LOSSES[name]
    for name in WEIGHTINGS
    for control in CONTROLS
}
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training: everything that its numbers depend on.

    Two configurations that differ in `loss` alone are a pair: they start from
    the same weights and see the same batches with the same augmentation.

    Args:
        dataset: Name of the data set, as `load_dataset` takes it.
        network: Name of the network: a key of `crl_keras.networks.NETWORKS`,
            or a backbone as `build_backbone` takes it: "LIBRARY/NAME", or
            "file/NAME-FINGERPRINT" for your own. A backbone may have "+METHOD"
            for a fine-grained method, see `method_names`.
        loss: Loss with its parameters, in the form of `canonical_loss`.
        recipe: How it is trained.
        seed: Integer from 0 to 2**32 - 1, for initial weights, batches and
            augmentation.
        held_out: Fraction of the training split, in [0, 1), that is kept out
            of training, for fitting a temperature.
        precision: Keras dtype policy: "float32", "mixed_bfloat16" or
            "mixed_float16".
        weights: For a backbone: "none", "imagenet", or the path of a file; for
            your own backbone, the path of its .keras file.
        fold: Fold of a cross-validation to test on, or None.
        crop_to_box: Whether images are cut to their bounding boxes.
        reader: What decodes the images: "memory", "pillow", "simplejpeg" or
            "tf.data".
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
    noun = "image"  # What a report calls a sample of the data.

    def __post_init__(self):
        object.__setattr__(self, "loss", canonical_loss(self.loss))
        object.__setattr__(self, "network", canonical_network(self.network))
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
        if "own" in values and cls is RunConfig:
            return OwnConfig.from_dict(values)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = set(values) - known
        if unknown:
            raise ValueError(
                f"Unknown fields in a run's configuration: {sorted(unknown)}. "
                f"Expected: {sorted(known)}"
            )
        return cls(**{**values, "recipe": Recipe(**values["recipe"])})

    @property
    def run_id(self):
        """12 hexadecimal digits, the same for equal configurations."""
        return hashlib.sha256(self._identity().encode()).hexdigest()[:12]

    @property
    def group(self):
        """JSON of all but loss, seed and fold; runs that share it compare."""
        return self._identity("loss", "seed", "fold")

    @property
    def pair(self):
        """The seed (and fold) that two runs must share to be a pair."""
        return self.seed if self.fold is None else (self.seed, self.fold)

    def _identity(self, *without):
        values = self.to_dict()
        # Text about the recipe: a new wording does not make a new run.
        del values["recipe"]["source"]
        for name, value in ADDED.items():
            if values["recipe"][name] == value:
                del values["recipe"][name]
        if self.network.startswith("file/"):
            # The name has the file's fingerprint, so the path does not matter.
            del values["weights"]
        for name in without:
            del values[name]
        return json.dumps(values, sort_keys=True)


@dataclasses.dataclass(frozen=True)
class OwnConfig(RunConfig):
    """One training of a user's own model, see `crl_keras.compare_losses`.

    Args:
        own: JSON of what the names do not tell: configurations of model and
            optimizer, weights of classes and samples, callbacks, and the
            fingerprint of the data.
    """

    own: str = "{}"
    noun = "sample"


def own_loss(label, definition):
    """Returns the spec of a loss that a user has named.

    Args:
        label: Its name in tables.
        definition: A loss that `parse_loss` takes, or a text that tells the
            loss apart from others with the same name.

    >>> own_loss("mine", "crl"), loss_label("own[crl(alpha=1.5,beta=1)]:mine")
    ('own[crl(alpha=1.5,beta=1)]:mine', 'mine')
    """
    if re.match(r"\w+", definition)[0].lower() in LOSSES:
        definition = canonical_loss(definition)
    return f"own[{definition}]:{label}"


def own_parts(spec):
    """`(definition, label)` of a loss that a user has named, else None."""
    match = re.fullmatch(r"own\[([^\]]+)\]:(.+)", spec, flags=re.DOTALL)
    return match and match.groups()


def parse_loss(spec):
    """Splits "crl(alpha=1.5,beta=-1)" into its name and its parameters.

    Missing parameters take their defaults. If a user has named the loss, its
    definition is parsed; if that is not a known loss, the name is "own".
    Raises ValueError for an unknown name or parameter, or a value that is not
    a number.

    >>> parse_loss("crl(beta=-1)")
    ('crl', {'alpha': 1.5, 'beta': -1.0})
    """
    if own := own_parts(spec):
        known = re.match(r"\w*", own[0])[0] in LOSSES
        return parse_loss(own[0]) if known else ("own", {})
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", spec)
    name = match.group(1).lower() if match else None
    if name not in LOSSES:
        plain = [name for name in LOSSES if not control_of(name)]
        raise ValueError(
            f"A loss must be one of {', '.join(plain)}, with parameters in "
            "parentheses as in crl(alpha=1.5,beta=1), or a control of one as "
            f"in crl_steps and crl_weights. Received: {spec!r}"
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
    """Returns the canonical spec: all parameters, in the order of LOSSES.

    >>> canonical_loss("CRL( beta = 1 )"), canonical_loss("crl(alpha=0)")
    ('crl(alpha=1.5,beta=1)', 'nllr')
    """
    if own_parts(spec):
        return spec
    name, parameters = parse_loss(spec)
    if name.startswith("crl") and parameters == crl_parameters("nllr"):
        # The two are the same loss, which must not be compared with itself.
        return name.replace("crl", "nllr")
    text = ",".join(
        f"{key}={_number_text(value)}" for key, value in parameters.items()
    )
    return f"{name}({text})" if text else name


def loss_label(spec):
    """Returns the name of a loss in tables and figures.

    >>> loss_label("crl(alpha=1.5,beta=1)"), loss_label("crl(beta=-1)")
    ('CRL', 'CRL(1.5, -1)')
    """
    if own := own_parts(spec):
        return own[1]
    if control := control_of(spec):
        label = loss_label(control[0])
        steps, weighting = (
            f"CE with {label}'s steps",
            f"{label} with CE's steps",
        )
        return steps if control[1] == "steps" else weighting
    name, parameters = parse_loss(spec)
    if parameters == LOSSES[name]:
        return name.upper()
    values = ", ".join(map(_number_text, parameters.values()))
    return f"{name.upper()}({values})"


def control_of(spec):
    """Splits a control into its loss and its kind; None for other losses.

    >>> control_of("crl_steps(alpha=1.5,beta=-1)")
    ('crl(alpha=1.5,beta=-1)', 'steps')
    """
    match = re.match(r"\s*([a-z]+)_(steps|weights)\b(.*)", spec, re.IGNORECASE)
    if not match or match[1].lower() not in WEIGHTINGS:
        return None
    return match[1].lower() + match[3], match[2].lower()


def controls(spec):
    """Returns the two controls of a loss, steps and weights, or ().

    >>> controls("nllr"), controls("ce")
    (('nllr_steps', 'nllr_weights'), ())
    """
    if own_parts(spec) or parse_loss(spec)[0] not in WEIGHTINGS:
        return ()
    return tuple(control_named(canonical_loss(spec), x) for x in CONTROLS)


def control_named(definition, control):
    """Returns the definition of a loss's control, one of CONTROLS.

    >>> control_named("crl(alpha=2,beta=1)", "steps")
    'crl_steps(alpha=2,beta=1)'
    """
    return re.sub(r"^\w+", rf"\g<0>_{control}", definition)


def _number_text(value):
    """Writes all digits, so that names differ; `-0.0` becomes 0."""
    return repr(value + 0.0).removesuffix(".0")


def crl_parameters(spec):
    """Returns `alpha` and `beta` of a loss that is a CRL.

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
        "Expected a loss that is a CRL, crl or nllr: its posterior is known. "
        f"Received: {spec!r}"
    )


def with_controls(losses):
    """Returns the losses, each followed by its two controls if it has any.

    If cross-entropy, the baseline, is missing, it is put first.

    Raises ValueError if no loss has controls.

    >>> with_controls(["ce", "nllr"])
    ('ce', 'nllr', 'nllr_steps', 'nllr_weights')
    """
    losses = [canonical_loss(loss) for loss in losses]
    if not any(map(controls, losses)):
        raise ValueError(
            "The effect can be split for losses that weigh samples: "
            f"{', '.join(WEIGHTINGS)}. Received: {', '.join(losses)}"
        )
    first = () if "ce" in losses else ("ce",)
    found = (x for loss in losses for x in (loss, *controls(loss)))
    return tuple(dict.fromkeys((*first, *found)))


def make_loss(spec, classes, soft_labels=False, label_smoothing=0.0):
    """Makes the Keras loss of a configuration, from logits.

    Args:
        spec: Loss with its parameters, as `parse_loss` takes it.
        classes: Number of classes.
        soft_labels: Whether labels are one-hot or soft, not integers.
        label_smoothing: Number in [0, 1), for soft labels.

    Raises:
        ValueError: The loss takes only integer labels.
    """
    import keras

    from crl_keras import losses

    if control := control_of(spec):
        loss = make_loss(control[0], classes, soft_labels, label_smoothing)
        is_steps = control[1] == "steps"
        cls = "StepMatchedCrossEntropy" if is_steps else "StepNormalizedLoss"
        return getattr(losses, cls)(loss)
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
        return sparse(classes)  # The last layer has its parameters.
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
    """Makes the last layer that a loss needs; None if it takes a dense one.

    Args:
        spec: Loss with its parameters, as `parse_loss` takes it.
        classes: Number of classes.
        accumulate: Parts of a batch whose gradients make one step. The layer
            counts parts, but `gamma` is per step: it is divided by this.
    """
    from crl_keras import layers

    name, parameters = parse_loss(spec)
    if "gamma" in parameters:
        parameters["gamma"] /= accumulate
    heads = {"lsoftmax": layers.LSoftmaxDense, "asoftmax": layers.ASoftmaxDense}
    if name not in heads:
        return None
    return heads[name](classes, **parameters, dtype="float32", name="logits")
