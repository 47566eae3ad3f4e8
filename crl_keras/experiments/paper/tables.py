"""The tables of the paper as data: each printed number and the runs for it.

arXiv:1912.11642v2, Tables I to X. results.csv has the numbers as printed. A
setting that the paper does not state is a field of `Protocol` with a default.
Imports no backend.
"""

import csv
import dataclasses
import json
import math
import pathlib

from crl_keras.experiments.data.sources import FILE_SETS
from crl_keras.experiments.data.sources import FOLDS
from crl_keras.experiments.runs.config import LOSSES
from crl_keras.experiments.runs.config import RunConfig
from crl_keras.experiments.runs.config import canonical_loss
from crl_keras.experiments.runs.config import parse_loss
from crl_keras.experiments.runs.method_names import METHODS
from crl_keras.experiments.runs.method_names import with_method
from crl_keras.experiments.runs.recipes import get_recipe

RESULTS = pathlib.Path(__file__).parent / "results.csv"
SOURCE = "arXiv:1912.11642v2"

# The paper's names and our names.
DATASETS = {
    "CIFAR-10": "cifar10",
    "CIFAR-100": "cifar100",
    "MNIST": "mnist",
    "SVHN": "svhn",
    "ImageNet": "imagenet2012",
    "CUB-200-2011": "cub",
    "Stanford Cars": "cars",
    "Adience": "adience",
}
NETWORKS = {
    "4conv+2fc CNN of ref [18]": "zhu2018",
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "ResNet34": "resnet34",
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "ResNet164": "resnet164",
    "DenseNet40": "densenet40",
    "MobileNetV2": "mobilenetv2",
    "Logistic Regression": "logistic",
    "Multilayer Perceptron": "mlp",
    # The paper's VGGNet is two networks, see the notes of Table IX.
    "B-CNN / VGGNet": "vgg16+bcnn",
    "DFL / ResNet50": "resnet50+dfl",
    "DCL / ResNet50": "resnet50+dcl",
}
LOSS_NAMES = {
    "CEL": "ce",
    "NLLR": "nllr",
    "CRL": "crl",
    "FL": "focal",
    "L-Softmax": "lsoftmax",
    "A-Softmax": "asoftmax",
    "DualCE": "dualce",
    "TCE": "tamed",
}
# The paper does not give the parameters of these losses.
UNSTATED_LOSSES = ("focal", "lsoftmax", "asoftmax", "dualce", "tamed")
RECIPE_OF = {
    "mnist": "mnist",
    "svhn": "svhn",
    "imagenet2012": "imagenet",
    "cub": "fine_grained",
    "cars": "fine_grained",
    "adience": "adience",
}
# Numbers of images for training and for the test.
SIZES = {
    "mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "svhn": (604_388, 26_032),
    "imagenet2012": (1_281_167, 50_000),
    "cub": (5_994, 5_794),
    "cars": (8_144, 8_041),
    "adience": (13_914, 3_479),  # The mean of the folds.
    "digits": (1_347, 450),
    "digits32": (1_347, 450),
}
WITH_WIDTHS = ("resnet34", "resnet50", "resnet101")
BACKBONES = ("imagenet2012", "cub", "cars", "adience")
PLAIN = ("logistic", "mlp", "zhu2018")


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of result.json in the form of the paper.

    Attributes:
        title: Name of the number, with its unit.
        key: Key of the score of the last epoch.
        complement: Whether the number is 1 minus the score.
    """

    title: str
    key: str
    complement: bool = False


ERROR = Metric("error [%]", "error")
ACCURACY = Metric("accuracy [%]", "accuracy")
P_VALUE = Metric("p, paired t-test", "accuracy")
METRICS = {
    "test_error_pct": ERROR,
    "mean_test_error_pct": ERROR,
    "top1_error_pct": Metric("top-1 error [%]", "error"),
    "top5_error_pct": Metric("top-5 error [%]", "top_5_accuracy", True),
    "test_accuracy_pct": ACCURACY,
    "mean_test_accuracy_pct": ACCURACY,
    "accuracy_pct": ACCURACY,
    "exact_accuracy_pct": ACCURACY,
    "one_off_accuracy_pct": Metric("1-off accuracy [%]", "one_off_accuracy"),
    "f1_score_pct": Metric("F1, macro [%]", "macro_f1"),
    "paired_t_test_p_value": P_VALUE,
}


@dataclasses.dataclass(frozen=True)
class Printed:
    """A number of the paper, a row of results.csv.

    Attributes:
        table: Roman number of the table.
        dataset, network, pretrained, loss, alpha, beta, metric: As in the
            file; `alpha` and `beta` are "" if the loss has none.
        value: The number as printed, or "" for a dash.
        spread: The printed standard deviation (Table V) or variance (Table
            VIII), or "".
        note: Our note.
    """

    table: str
    dataset: str
    network: str
    pretrained: str
    loss: str
    alpha: str
    beta: str
    metric: str
    value: str
    spread: str
    note: str

    @property
    def number(self):
        """The value as a float, None for a dash."""
        return float(self.value) if self.value else None

    @property
    def epochs(self):
        """The number of epochs in Table II, None in other tables."""
        found = [n for n in self.note.split("; ") if n.startswith("epochs=")]
        return int(found[0].removeprefix("epochs=")) if found else None


def read_results():
    """Reads the numbers of the paper by table; returns a tuple of `Printed`.

    >>> numbers = read_results()
    >>> len(numbers), numbers[0].value, numbers[-1].value
    (183, '6.63', '93.25')
    """
    with open(RESULTS, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return tuple(Printed(*row) for row in rows[1:])


@dataclasses.dataclass(frozen=True)
class Scale:
    """The amount of training compared with the paper.

    Attributes:
        name: Key of SCALES.
        about: A sentence for reports.
        seeds: Number of seeds, or None for the paper's number of runs.
    """

    name: str
    about: str
    seeds: int | None = None


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            "smoke",
            "Enlarged scikit-learn digits replace every data set, as files "
            "if it has files. Every backbone is a ResNet-18 with random "
            "weights. 1 epoch on 100 digits shows that the code runs; it is "
            "no result.",
            seeds=2,
        ),
        Scale(
            "short",
            "A tenth of the paper's epochs, but at least 10, and 3 seeds; "
            "everything else as in the paper.",
            seeds=3,
        ),
        Scale("full", "The paper's epochs and its number of runs."),
    )
}


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The settings of a rerun: a scale, and choices the paper leaves open.

    Args:
        scale: Key of SCALES.
        recipe: Recipe for CIFAR: "paper" (the text), "released" (the code) or
            another key of `RECIPES`.
        width: First width of ResNet-34, -50 and -101 on CIFAR: 16 as in the
            released code, or 64 as usual. The paper does not say.
        library: Library of the backbones for ImageNet, CUB, Cars and Adience.
        clamped: Whether NLLR and CRL have the clamps of the released code.
        losses: Specifications such as "focal(gamma=1)" for the losses of
            Table VI, because the paper gives no parameters. The default is
            `LOSSES`.
        seeds: Number of seeds, or None for the number of the scale.
        first_seed: The lowest seed.
        changes: Pairs of a field of `Recipe` and its value, for every run.
        shown: Pairs of "backend", "precision", "reader" or "devices" and a
            value: a report shows only these runs. The pairs do not change
            which runs are trained.
        only: Our names of data sets, networks and losses: other rows are left
            out. "crl" is CRL with any parameters, "crl(alpha=1,beta=0.5)" is
            CRL with these. Empty for all rows.

    Raises:
        ValueError: If a value is not valid.

    Example:

    >>> Protocol(scale="short").epochs(300), Protocol("full").epochs(300)
    (30, 300)
    """

    scale: str = "full"
    recipe: str = "paper"
    width: int = 16
    library: str = "keras_hub"
    clamped: bool = False
    losses: tuple = ()
    seeds: int | None = None
    first_seed: int = 0
    changes: tuple = ()
    shown: tuple = ()
    only: tuple = ()

    def __post_init__(self):
        if self.scale not in SCALES:
            raise ValueError(
                f"`scale` must be one of: {', '.join(SCALES)}. "
                f"Received: {self.scale!r}"
            )
        if self.width not in (16, 64):
            raise ValueError(
                f"`width` must be 16 or 64. Received: {self.width!r}"
            )
        if self.seeds is not None and self.seeds < 1:
            raise ValueError(
                f"`seeds` must be at least 1. Received: {self.seeds}"
            )
        get_recipe(self.recipe, **dict(self.changes))
        names = [parse_loss(spec)[0] for spec in self.losses]
        if len(set(names)) < len(names):
            raise ValueError(
                "Expected each loss once, because a table has one row for it. "
                f"Received: {', '.join(self.losses)}"
            )
        for spec in self.losses:
            if parse_loss(spec)[0] not in UNSTATED_LOSSES:
                raise ValueError(
                    "Parameters are only for losses without parameters in the "
                    f"paper: {', '.join(UNSTATED_LOSSES)}. Received: {spec!r}"
                )
        known = (
            *DATASETS.values(),
            *NETWORKS.values(),
            *LOSS_NAMES.values(),
            *METHODS,
        )
        for word in self.only:
            if word not in known and not _is_crl(word):
                raise ValueError(
                    "Expected our name of a data set, network or loss: "
                    f"{', '.join(known)}, crl(alpha=1,beta=0.5). "
                    f"Received: {word!r}"
                )

    def epochs(self, of_paper):
        """Number of epochs at this scale for the paper's number."""
        if self.scale == "smoke":
            return 1
        if self.scale == "short":
            return min(of_paper, max(10, of_paper // 10))
        return of_paper

    @property
    def about(self):
        """The scale and the changed settings, as sentences for reports.

        >>> Protocol(width=64, changes=(("epochs", 5),)).about.split(". ")[1]
        'Changed: width 64, epochs 5.'
        """
        text = f"Scale {self.scale}: {SCALES[self.scale].about}"
        changed = [
            f"{name} {getattr(self, name)}"
            for name in ("recipe", "width", "library", "seeds", "first_seed")
            if getattr(self, name) != getattr(Protocol, name)
        ]
        changed += ["clamped"] * self.clamped
        changed += [f"{name} {value:g}" for name, value in self.changes]
        changed += self.losses
        return f"{text} Changed: {', '.join(changed)}." if changed else text

    def shows(self, config):
        """Whether a report may show a run of this `RunConfig`.

        Its seed must be requested, and it must have the settings in `shown`.
        The reader counts only for data sets with image files.
        """
        first, seeds = self.first_seed, self.seeds
        last = config.seed if seeds is None else first + seeds - 1
        return first <= config.seed <= last and all(
            getattr(config, name) == value
            for name, value in self.shown
            if name != "reader" or config.dataset in FILE_SETS
        )

    def chosen(self, dataset, network, loss, spec=None):
        """Whether `only` keeps the row of a data set, network and loss.

        Args:
            dataset, network, loss: Our names.
            spec: CRL with its parameters, None for another loss.
        """
        exact = {canonical_loss(word) for word in self.only if _is_crl(word)}
        losses = exact | set(self.only) & set(LOSS_NAMES.values())
        if losses and not losses & {loss, spec and canonical_loss(spec)}:
            return False
        asked = set(self.only) & set(DATASETS.values())
        if asked and dataset not in asked:
            return False
        asked = set(self.only) & {*NETWORKS.values(), *METHODS}
        # `only` may name a method, for any backbone.
        return not asked or bool({network, network.partition("+")[2]} & asked)


def _is_crl(word):
    """Whether a word is CRL with parameters; wrong ones raise ValueError.

    >>> _is_crl("crl(alpha=1,beta=0.5)"), _is_crl("crl"), _is_crl("vgg11")
    (True, False, False)
    """
    return word.startswith("crl(") and parse_loss(word)[0] == "crl"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of a table: a number of the paper and the runs that repeat it.

    Attributes:
        printed: `Printed`, or None if the paper does not have the row.
        names: Names in the row: data set, network, loss.
        metric: `Metric`.
        configs: Tuple of `RunConfig`. The caller chooses reader, backend and
            precision later.
        versus: For a p-value, `RunConfig`s of the other loss of the pairs.
        missing: The reason if there are no runs, or "".
    """

    printed: Printed | None
    names: tuple
    metric: Metric
    configs: tuple = ()
    versus: tuple = ()
    missing: str = ""


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        name: "table1" to "table10".
        number: Roman number in the paper.
        title: Subject of the table.
        runs: Number of the paper's trainings behind each number.
        notes: Notes for the reader: contradictions in the table, with another
            table or with the text, and settings that are not stated.
    """

    name: str
    number: str
    title: str
    runs: int
    notes: tuple

    def entries(self, protocol):
        """Makes the rows of this table for a `Protocol`, a tuple of `Entry`."""
        rows = [r for r in read_results() if r.table == self.number]
        found = [_entry(self, row, protocol) for row in rows]
        if self.number == "IX":
            found += _fine_tuned(self, protocol)
        return tuple(entry for entry in found if entry is not None)


ONE_EACH = (
    "As far as the paper says, each number is a single run. One seed does not "
    "measure a loss."
)
TABLES = {
    table.name: table
    for table in (
        PaperTable(
            "table1",
            "I",
            "alpha and beta, ResNet-34 on CIFAR",
            1,
            (
                "CIFAR-100: the bold 27.26 (alpha 1.5, beta 1) is third, after "
                "26.78 (2, 0.25) and 27.18 (2, 0.5). Alpha 1.5 and beta 1 are "
                "best only for CIFAR-10.",
                '"Test errors of alpha 1.5 are lower than others": false on '
                "CIFAR-100 at beta 0.25 and 0.5.",
                '"At beta 1 the error is lowest": false for CIFAR-10 at alpha '
                '1 (6.18 at 0.5) and for CIFAR-100 at alpha 2; "from 1 to '
                '1.25 errors increase": false for CIFAR-10 at alpha 1.',
                '"At alpha 0 errors are worse": false for CIFAR-100 at beta '
                "0.25 (28.04, and 28.14 at alpha 1). CRL is worse than "
                "cross-entropy (27.87) in four cells with alpha > 0.",
                '"At alpha 0 and beta other than 1 errors are worse": on '
                "CIFAR-10, beta 1 is the worst, 8.55.",
                "The text has five values of beta, the table six.",
                "The released logs of CIFAR-100 at alpha 0, beta 0.25 end at "
                "29.45; their best is 27.99. So the table's 28.04 is near the "
                "best epoch on the test set. At beta 0.5, the best of the logs "
                "is 29.39, and the table has 28.79.",
                ONE_EACH,
            ),
        ),
        PaperTable(
            "table2",
            "II",
            "four convolutions and two dense layers on CIFAR-10",
            1,
            (
                "The text says that cross-entropy was trained for 100 epochs "
                "and NLLR for 500; the table has both numbers for both losses.",
                '"NLLR at 500 epochs is similar to CRL at 100": 85.31 and '
                "84.29.",
                "Layers, rates and optimizer are not stated. Ours are those of "
                "the Keras example of the time; this is not verified. Whether "
                "NLLR and CEL were rerun is not stated.",
                ONE_EACH,
            ),
        ),
        PaperTable(
            "table3",
            "III",
            "networks on CIFAR",
            1,
            (
                "ResNet-164, CIFAR-10, CEL: 4.76 here, 5.27 in Tables VI and "
                "VII, 5.38 on average in Table VIII. CRL's gain is 0.40 or "
                "0.91 points, depending on the table.",
                "ResNet-34, CIFAR-100, CRL: 27.34 here, 27.26 in Table I. "
                "There, 27.34 is the cell of alpha 1 and beta 1.",
                "There is no MobileNetV2 on CIFAR-10.",
                "MobileNetV2: 23.75 and 23.16 here; the means of Table V are "
                "23.54 and 23.21.",
                "ResNet-34, -50 and -101 have width 16 as in the released code "
                "(--width 64 is the usual width). DenseNet-40 is not in the "
                "released code.",
                ONE_EACH,
            ),
        ),
        PaperTable(
            "table4",
            "IV",
            "simple classifiers on MNIST",
            1,
            (
                "Nothing is stated about layers, optimizer, rates or epochs: "
                "we chose the recipe mnist and the networks. An error of 9.1% "
                "is far from the error of a trained perceptron, about 2%.",
                "The averaging of F1 is not stated; ours is macro.",
                ONE_EACH,
            ),
        ),
        PaperTable(
            "table5",
            "V",
            "MobileNetV2 on CIFAR-100, ten runs",
            10,
            (
                "The significance level is printed as 0.005. From the means "
                "and deviations an unpaired test gives t = 3.03, p = 0.0072. "
                "The printed p needs a correlation of 0.59 between paired "
                "runs, but the paper does not say what pairs them. Our pairs "
                'share a seed. The claim that "our CE loss is not due to '
                'chance" does not follow from a test of a difference.',
                "The means are errors of 23.54 and 23.21; Table III has 23.75 "
                "and 23.16.",
            ),
        ),
        PaperTable(
            "table6",
            "VI",
            "losses, ResNet-164 on CIFAR",
            1,
            (
                "CEL on CIFAR-10: 5.27 here, 4.76 in Table III.",
                "The parameters of FL, L-Softmax, A-Softmax, DualCE and TCE "
                "are not stated: we use our defaults (--losses changes them). "
                "With fewer steps, the margins of L-Softmax and A-Softmax come "
                "earlier in proportion. TCE is our reading of its paper.",
                "TCE, and DualCE on CIFAR-100, are worse than cross-entropy; "
                "no tuning is described.",
                "The single runs of NLLR, CEL and CRL on CIFAR-10 are all "
                "below the means of ten in Table VIII.",
                ONE_EACH,
            ),
        ),
        PaperTable(
            "table7",
            "VII",
            "CIFAR, SVHN and ImageNet",
            1,
            (
                "ResNet-164, CIFAR-10, CEL: 5.27 here, 4.76 in Table III.",
                'SVHN: "about 7.3% lower" is 7.8%, (2.04 - 1.88) / 2.04.',
                "The single runs of ResNet-164 on CIFAR-10 are all below the "
                "means of ten in Table VIII.",
                "ImageNet has a dash for NLLR, so we do not rerun it.",
                "Weight decay on SVHN and ImageNet is not stated; ours is 1e-4 "
                "as on CIFAR (--weight-decay).",
                ONE_EACH,
            ),
        ),
        PaperTable(
            "table8",
            "VIII",
            "ResNet-164 on CIFAR-10, ten runs",
            10,
            (
                "The paper's column is a variance; we also show the standard "
                "deviation. CRL's 0.073 is bold although CEL's 0.071 is "
                "smaller.",
                "The single runs of Tables VI and VII lie below all three "
                "means: 6.48, 5.27 and 4.36.",
            ),
        ),
        PaperTable(
            "table9",
            "IX",
            "CUB-200-2011 and Stanford Cars",
            1,
            (
                "The paper says only that it uses the setups of the three "
                "methods. It gives no epochs, rates, batches or heads. We use "
                "the recipes bcnn, dfl and dcl. CRL replaces every "
                "classification loss except the loss of DCL's swap head.",
                "B-CNN: 84.1 and 91.3 are two different streams, VGG16 and "
                "VGG-M, with support vector machines; ours is VGG16 alone with "
                "a softmax. For that, the authors' code has 84.1 and 90.5.",
                "DFL: 93.8 on Cars seems to be the two-scale VGG16 of its "
                "paper; the ResNet50 there has 93.1 (from memory). No public "
                "code reaches 87 on CUB.",
                "The plain fine-tuned networks are not in the paper.",
                "The gains of CRL over the rerun are 9 to 22 test images on "
                "CUB, 13 to 17 on Cars, in single runs. The standard error of "
                "the accuracies is 0.25 to 0.48 points.",
                "84.06, 84.27 and 87.84 (CUB) and 93.95 (Cars) fit a number of "
                "test images only if cut, 91.27 only if rounded.",
            ),
        ),
        PaperTable(
            "table10",
            "X",
            "Adience, five folds",
            1,
            (
                "No spread over the folds is given. Ours is over the folds, "
                "each averaged over its seeds.",
                "There are no pretrained rows for NLLR.",
                "The recipe of the networks without pretraining is not stated: "
                "we use the same recipe for all. We chose momentum, crops and "
                "mirroring.",
                "The paper has 26,580 images; the folds have 17,393 faces of "
                "the eight groups. The paper does not say how it counted.",
                "The group (8, 12) of the data is 8-13 in the paper.",
            ),
        ),
    )
}


FIGURES = {
    "fig1": "softmax of one image before and after steps of each loss",
    "fig2": "gradient over p_c, as printed and as it really is",
    "fig3": "test error over the epochs, ResNet-34 on CIFAR",
    "fig4": "faces with the predictions of each loss",
    "fig5": "softmax outputs on the faces of Fig. 4",
}


def figure_entries(name, protocol):
    """The entries with the runs of a figure; none for Figs. 1 and 2."""
    if name == "fig3":
        shown = (("", "0"), ("0", "1"), ("1.5", "1"))
        entries = TABLES["table1"].entries(protocol)
        return [
            e for e in entries if (e.printed.alpha, e.printed.beta) in shown
        ]
    if name in ("fig4", "fig5"):
        entries = TABLES["table10"].entries(protocol)
        return [
            e
            for e in entries
            if e.printed.pretrained == "none" and e.metric is ACCURACY
        ]
    return []


def is_crl_proper(spec):
    """Whether a loss is CRL, released or not, with alpha > 0: not NLLR.

    >>> [is_crl_proper(s) for s in ("crl", "released(alpha=0)", "dualce")]
    [True, False, False]
    """
    name, parameters = parse_loss(spec)
    return name in ("crl", "released") and parameters["alpha"] > 0


def has_ce_and_crl(losses):
    """Whether losses include cross-entropy and CRL with alpha > 0."""
    return "ce" in losses and any(map(is_crl_proper, losses))


def why_nothing(name, protocol):
    """The reason if `only` leaves nothing of a table or figure, or "".

    >>> why_nothing("table4", Protocol(only=("cifar10",)))
    '--only leaves no row of it'
    """
    if name in TABLES:
        entries = TABLES[name].entries(protocol)
    elif figure_entries(name, Protocol()):
        entries = figure_entries(name, protocol)
    else:
        return ""  # Drawn without runs.
    if not entries:
        return "--only leaves no row of it"
    losses = {config.loss for entry in entries for config in entry.configs[:1]}
    if name in ("fig4", "fig5") and not has_ce_and_crl(losses):
        return "it needs ce and crl, which --only leaves out"
    if name == "fig3" and len(losses) < 2:
        return "it needs two losses, and --only leaves one"
    return ""


def protocol_key(config):
    """JSON of the settings that all runs of one protocol share.

    It has the whole configuration except the seed, the fold, and settings that
    should change results only by rounding and chance: precision, backend,
    reader and number of devices.
    """
    values = config.to_dict()
    del values["recipe"]["source"]
    for name in ("seed", "fold", "precision", "backend", "reader", "devices"):
        del values[name]
    return json.dumps(values, sort_keys=True)


def all_configs(entries):
    """The `RunConfig`s of entries, each once, by seed and fold.

    With this order, a rerun that stops early has all losses of its first seeds.
    """
    found = {}
    for entry in entries:
        for config in (*entry.configs, *entry.versus):
            found.setdefault(config.run_id, config)
    return sorted(found.values(), key=lambda c: (c.seed, c.fold or 0))


def grouped(configs):
    """Groups configurations that differ only in loss, seed and fold."""
    groups = {}
    for config in configs:
        groups.setdefault(config.group, []).append(config)
    return list(groups.values())


def _entry(table, row, protocol):
    """Makes the `Entry` of a `Printed`, or None if `only` leaves it out."""
    metric = METRICS[row.metric]
    names = (row.dataset, row.network, loss_of_row(row))
    if row.pretrained != "none" and table.number != "IX":
        names = (row.dataset, f"Pre-{row.network}", names[2])
    dataset = DATASETS[row.dataset]
    network = NETWORKS.get(row.network, row.network)
    loss = LOSS_NAMES.get(row.loss.partition(" vs ")[0], row.loss)
    spec = f"crl(alpha={row.alpha},beta={row.beta})" if row.alpha else None
    if not protocol.chosen(dataset, network, loss, spec):
        return None
    missing = _why_not(table, row, loss)
    if missing:
        return Entry(row, names, metric, missing=missing)
    spec = _loss(row, protocol)
    weights = "imagenet" if row.pretrained == "ImageNet" else "none"

    def configs(spec):
        return _configs(
            table, dataset, network, weights, spec, row.epochs, protocol
        )

    made = configs(spec)
    if not made:
        why = "smoke trains each network once, with CRL"
        return Entry(row, names, metric, missing=why)
    versus = configs("ce") if metric is P_VALUE else ()
    return Entry(row, names, metric, made, versus)


def loss_of_row(row):
    """The name of the loss in a row; in Table I with alpha and beta."""
    if row.table == "I" and row.loss == "CRL":
        return f"CRL({row.alpha}, {row.beta})"
    if row.epochs:
        return f"{row.loss}, {row.epochs} epochs"
    return row.loss


def _why_not(table, row, loss):
    if not row.value:
        return "not in the paper"
    if row.loss == "as published":
        return "cited"
    if loss not in LOSSES:
        return "not built"
    return ""


def _loss(row, protocol):
    name = LOSS_NAMES[row.loss.partition(" vs ")[0]]
    for spec in protocol.losses:
        if parse_loss(spec)[0] == name:
            return canonical_loss(spec)
    if name in ("nllr", "crl") and protocol.clamped:
        return canonical_loss(f"released(alpha={row.alpha},beta={row.beta})")
    if name == "crl" and (row.alpha, row.beta) == ("0", "1"):
        return "nllr"  # The same loss, so Tables I and III share a run.
    if name == "crl":
        return canonical_loss(f"crl(alpha={row.alpha},beta={row.beta})")
    return name


def _fine_tuned(table, protocol):
    """Our own rows in Table IX: a network without the methods."""
    for dataset in ("CUB-200-2011", "Stanford Cars"):
        for loss in ("CEL", "CRL"):
            ours = DATASETS[dataset], "resnet50", LOSS_NAMES[loss]
            if not protocol.chosen(*ours):
                continue
            spec = "crl" if loss == "CRL" else "ce"
            if spec == "crl" and protocol.clamped:
                spec = "released"
            configs = _configs(
                table, *ours[:2], "imagenet", spec, None, protocol
            )
            names = (dataset, "ResNet50, fine-tuned", loss)
            yield Entry(None, names, ACCURACY, configs)


def _configs(table, dataset, network, weights, loss, epochs, protocol):
    """The runs of one row, by seed and fold."""
    common = _common(table, dataset, network, weights, loss, epochs, protocol)
    if common is None:
        return ()
    loss = _annealed_alike(loss, dataset, common, protocol)
    seeds = protocol.seeds or SCALES[protocol.scale].seeds or table.runs
    smoke = protocol.scale == "smoke" and protocol.seeds is None
    if smoke and common["network"] not in PLAIN:
        seeds = 1
    first = protocol.first_seed
    folds = range(FOLDS.get(common["dataset"], 0)) or [None]
    return tuple(
        RunConfig(loss=loss, seed=seed, fold=fold, held_out=0.0, **common)
        for seed in range(first, first + seeds)
        for fold in folds
    )


def _annealed_alike(loss, dataset, common, protocol):
    """Adapts the schedule of a margin to a shorter training.

    The schedules of L-Softmax and A-Softmax count steps. Their defaults are
    for the steps of the paper's recipe, so `gamma` grows in inverse proportion
    to the steps. Losses in `--losses` are not changed.
    """
    name, parameters = parse_loss(loss)
    given = {parse_loss(spec)[0] for spec in protocol.losses}
    if "gamma" not in parameters or "power" not in parameters or name in given:
        return loss
    recipe = common["recipe"]
    images = SIZES[dataset][0]
    full = get_recipe(RECIPE_OF.get(dataset, "paper"))
    steps = full.epochs * math.ceil(images / full.batch_size)
    images = common.get("train_limit") or images
    made = recipe.epochs * math.ceil(images / recipe.batch_size)
    if made == steps:
        return loss
    gamma = parameters["gamma"] * steps / made
    return canonical_loss(f"{name}(gamma={gamma:.3g})")


def _common(table, dataset, network, weights, loss, epochs, protocol):
    """The settings that runs of a row share, or None without runs."""
    network, _, method = network.partition("+")
    recipe = method or RECIPE_OF.get(dataset, protocol.recipe)
    if network == "zhu2018":
        recipe = "zhu2018"
    recipe = get_recipe(recipe)
    changes = {
        "epochs": protocol.epochs(epochs or recipe.epochs),
        **dict(protocol.changes),
    }
    if dataset in BACKBONES:  # As the command line does.
        changes.setdefault("batch_norm", "recompute")
    if recipe.optimizer != "sgd":
        changes.pop("weight_decay", None)
    if protocol.scale == "smoke":
        # Networks with a hundred layers take a minute to compile.
        if table.number == "III":
            if not is_crl_proper(loss):
                return None
            network = _of_width(network, protocol)
        elif dataset in BACKBONES:
            network = _backbone("resnet18", method, dataset, protocol)
        elif network not in PLAIN:
            network = "zhu2018"
        changes.setdefault("batch_size", 32)
        if dataset in FILE_SETS:
            changes["image_size"] = 64 if method else 32
        else:
            dataset = "digits" if dataset == "mnist" else "digits32"
            recipe = (
                recipe if recipe.image_size is None else get_recipe("short")
            )
        return dict(
            dataset=dataset,
            network=network,
            recipe=get_recipe(recipe.name, **changes),
            train_limit=100,
            test_limit=100,
        )
    if dataset in BACKBONES:
        network = _backbone(network, method, dataset, protocol)
    else:
        network = _of_width(network, protocol)
    recipe = get_recipe(recipe.name, **changes)
    return dict(
        dataset=dataset, network=network, recipe=recipe, weights=weights
    )


def _backbone(name, method, dataset, protocol):
    """The name of a backbone, with a method if one is given."""
    # KerasHub and KerasCV have other names and weights for VGG.
    library = "keras" if name.startswith("vgg") else protocol.library
    options = []
    if method == "dcl" and protocol.scale == "smoke":
        options.append("regions=2")  # 64 pixels end in a 2 x 2 map.
    if method == "dcl" and dataset == "cars":
        options.append("gamma=0.01")
    spec = f"{method}({','.join(options)})"
    backbone = f"{library}/{name}"
    return with_method(backbone, spec) if method else backbone


def _of_width(network, protocol):
    wide = network in WITH_WIDTHS and protocol.width == 64
    return f"{network}_w64" if wide else network


def printed_std(printed):
    """The standard deviation in the paper, or None."""
    if not printed.spread:
        return None
    spread = float(printed.spread)
    return math.sqrt(spread) if "variance" in printed.note else spread
