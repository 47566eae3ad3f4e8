"""The parsers of the commands that compare and fine-tune."""

import argparse

from crl_keras.experiments.data.crops import CROPS
from crl_keras.experiments.data.sources import READERS
from crl_keras.experiments.runs.backbone_names import LIBRARIES
from crl_keras.experiments.runs.batch_norm import MODES
from crl_keras.experiments.runs.config import PRECISIONS
from crl_keras.experiments.runs.method_names import METHODS
from crl_keras.experiments.runs.recipes import BALANCES
from crl_keras.experiments.runs.recipes import KEPT
from crl_keras.experiments.runs.recipes import SCHEDULES


def compare_parser(description):
    """The parser of examples/compare_losses.py."""
    parser = new_parser(description)
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--dataset",
        help="digits, digits32, mnist, cifar10, cifar100, svhn, cub, cars, "
        "adience, imagenet2012, tfds:NAME or folder:PATH (digits);\n"
        "or see --labels",
    )
    what.add_argument(
        "--network",
        default="mlp",
        help="a network of crl_keras.networks, a backbone LIBRARY/NAME (see\n"
        "--list-backbones), or the path of your own .keras file",
    )
    _add_list_of_backbones(what)
    _add_method(what)
    _add_losses(what, ["ce", "nllr", "crl"], seeds=5)
    _add_common(parser, what, backbone_of=lambda a: (a.network, None))
    parser.set_defaults(default_dataset="digits")
    return parser


def finetune_parser(description, dataset):
    """The parser of the examples/finetune_*.py."""
    parser = new_parser(description)
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "--backbone",
        default="resnet50",
        help="a name from --list-backbones, such as resnet50, mobilenet_v2 or\n"
        "efficientnet_v2_b0, or the path of your own .keras file, which is\n"
        "cut at its last pooling (resnet50)",
    )
    what.add_argument(
        "--library",
        choices=tuple(LIBRARIES),
        help="library of the backbone (an installed one that has its weights;\n"
        "the first printed line names it)",
    )
    _add_list_of_backbones(what)
    _add_method(what)
    _add_losses(what, ["crl"], seeds=1)
    if dataset is None:
        what.add_argument(
            "--dataset", help="folder:PATH or tfds:NAME; or see --labels"
        )
    if dataset == "adience":
        what.add_argument(
            "--faces",
            default="aligned",
            choices=("aligned", "faces"),
            help="folder of faces: upright, or as found (aligned)",
        )
    _add_common(
        parser,
        what,
        backbone_of=lambda a: (a.backbone, a.library),
        dataset=dataset,
        save_model=True,
    )
    return parser


def new_parser(description):
    """Makes a parser that keeps the line breaks of its description."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )


class _ListBackbones(argparse.Action):
    """Prints the backbones and exits, as --help does."""

    def __call__(self, parser, *arguments):
        from crl_keras.experiments.runs.backbone_names import list_backbones

        print(list_backbones())
        parser.exit()


def _add_list_of_backbones(group):
    group.add_argument(
        "--list-backbones",
        action=_ListBackbones,
        nargs=0,
        help="print the names of all backbones, by library",
    )


def _add_method(group):
    group.add_argument(
        "--method",
        metavar="{" + ",".join(METHODS) + "}",
        help="a fine-grained method on the backbone; options in parentheses:\n"
        '"dcl(regions=4,gamma=0.01)", see docs/fine-grained.md',
    )
    group.add_argument(
        "--tap",
        metavar="LAYER",
        help="with --method: the layer whose features it uses (the paper's)",
    )
    group.add_argument(
        "--pooling",
        choices=("bilinear", "compact"),
        help="pooling of --method bcnn (bilinear)",
    )


def _add_losses(group, losses, seeds):
    group.add_argument(
        "--losses",
        nargs="+",
        default=losses,
        help="ce, nllr, crl and others, see docs/losses.md; parameters in "
        f'parentheses:\n"crl(alpha=1.5,beta=-1)" ({" ".join(losses)})',
    )
    group.add_argument(
        "--split-effect",
        action="store_true",
        help="also train two controls of each loss, to separate its longer "
        "steps from\nits weighting of samples: see docs/what-crl-does.md",
    )
    group.add_argument(
        "--baseline", help="compare the other losses with this one (ce)"
    )
    add_seeds(group, seeds, str(seeds))


def _add_common(parser, what, backbone_of, dataset=None, save_model=False):
    what.add_argument(
        "--weights",
        help="weights of the backbone: imagenet, none or PATH (imagenet)",
    )
    what.add_argument(
        "--fold", help="test fold of adience: all, or a number (all)"
    )
    _add_training(parser.add_argument_group("how it is trained"))
    _add_data(parser.add_argument_group("data"), dataset is None)
    where = parser.add_argument_group("records")
    add_records(where, "runs/DATASET-NETWORK")
    where.add_argument(
        "--save-model",
        action=argparse.BooleanOptionalAction,
        default=save_model,
        help="keep every trained model, for examples/predict.py",
    )
    fixed = {} if dataset is None else {"dataset": dataset}
    parser.set_defaults(backbone_of=backbone_of, **fixed)


def _add_training(how):
    how.add_argument(
        "--recipe", help="training recipe (one that suits the data set)"
    )
    add_length(how)
    _add_rates(how)
    _add_layers(how)
    _add_epochs(how)
    _add_augmentation(how)
    add_devices(how)


def add_seeds(group, seeds, shown):
    """Adds the arguments for seeds; `shown` stands for the default in help."""
    group.add_argument(
        "--seeds", type=int, default=seeds, help=f"number of seeds ({shown})"
    )
    group.add_argument(
        "--first-seed", type=int, default=0, help="the lowest seed (0)"
    )


def add_length(how):
    """Adds the arguments that recipes of every data set have."""
    how.add_argument(
        "--epochs", type=int, help="number of epochs (the recipe's)"
    )
    how.add_argument(
        "--batch-size",
        type=int,
        help="images in a batch, over all devices (the recipe's)",
    )
    how.add_argument(
        "--accumulate",
        type=int,
        help="split each batch into this number of parts, for a small device",
    )
    how.add_argument(
        "--weight-decay",
        type=float,
        help="weight decay of SGD, coupled with the momentum as in PyTorch\n"
        "(the recipe's)",
    )


def _add_rates(how):
    how.add_argument(
        "--learning-rates",
        nargs="+",
        type=float,
        default=[None],
        help="one or more learning rates; every loss is trained with each",
    )
    how.add_argument(
        "--find-rate",
        action="store_true",
        help="suggest a learning rate for each loss, by a range test",
    )
    how.add_argument(
        "--schedule",
        choices=SCHEDULES,
        help="decay of the learning rate: in steps, or to 0 as half a cosine",
    )
    how.add_argument(
        "--warmup-epochs",
        type=float,
        help="number of epochs at the start in which the learning rate rises",
    )
    how.add_argument(
        "--ema",
        type=float,
        nargs="?",
        const=0.99,
        metavar="MOMENTUM",
        help="test and keep the moving average of the weights (0.99)",
    )


def _add_layers(how):
    how.add_argument(
        "--head-rate",
        type=float,
        help="factor of the learning rate for the last layer",
    )
    how.add_argument(
        "--part-rates",
        nargs="+",
        metavar="NAME=FACTOR[@EPOCHS]",
        help="factor of the learning rate for layers by name, always or for\n"
        "the first epochs: 'conv5_*=0.1' '*=0@5'; the first match counts",
    )
    how.add_argument(
        "--no-decay",
        nargs="+",
        metavar="NAME",
        help="names of layers without weight decay",
    )
    how.add_argument(
        "--head-epochs",
        type=int,
        help="number of epochs at the start that train only the last layer",
    )
    how.add_argument(
        "--freeze-backbone",
        action="store_true",
        default=None,
        help="train only the last layer",
    )


def _add_epochs(how):
    how.add_argument(
        "--early-stopping",
        type=int,
        metavar="EPOCHS",
        help="stop after this number of epochs without a lower validation\n"
        "error",
    )
    how.add_argument(
        "--keep",
        choices=KEPT,
        help="keep the weights of the last epoch, or of the lowest validation\n"
        "error",
    )
    how.add_argument(
        "--batch-norm",
        choices=MODES,
        help="statistics of batch normalisation: recompute them from training\n"
        "images before each test (default for backbones), adapt the momentum,\n"
        "freeze the pretrained ones, or use Keras's moving averages",
    )
    how.add_argument(
        "--class-weights",
        choices=BALANCES,
        help="balanced: the loss of rare classes counts more",
    )
    how.add_argument(
        "--sampling",
        choices=BALANCES,
        help="balanced: images of rare classes are drawn more often",
    )


def _add_augmentation(how):
    how.add_argument(
        "--image-size", type=int, help="side of the cropped image in pixels"
    )
    how.add_argument(
        "--crop",
        choices=CROPS,
        help="how images are cropped in training",
    )
    how.add_argument(
        "--randaugment",
        type=int,
        metavar="OPERATIONS",
        help="number of random operations on each batch (0)",
    )
    how.add_argument(
        "--mixup",
        type=float,
        metavar="ALPHA",
        help="strength of MixUp, 0 to 1; 0.2 is usual (0)",
    )
    how.add_argument(
        "--cutmix",
        type=float,
        metavar="ALPHA",
        help="strength of CutMix, 0 to 1; 1 is usual (0)",
    )
    how.add_argument(
        "--label-smoothing",
        type=float,
        help="strength of label smoothing, 0 to 1; 0.1 is usual (0)",
    )


def add_devices(group):
    """Adds the arguments for devices, backend and precision."""
    group.add_argument(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="auto: 16 bits on a GPU, float32 on a CPU",
    )
    group.add_argument(
        "--backend",
        choices=("tensorflow", "jax", "torch"),
        help="backend of Keras (KERAS_BACKEND, or what is installed)",
    )
    group.add_argument(
        "--devices",
        type=int,
        default=1,
        help="split each batch over this number of devices, on TensorFlow and\n"
        "JAX (1)",
    )


def add_records(group, output):
    """Adds the arguments for the records and the processes of the runs."""
    group.add_argument("--output", help=f"folder of the records ({output})")
    group.add_argument(
        "--list", action="store_true", help="print the runs; train nothing"
    )
    group.add_argument(
        "--workers",
        type=int,
        default=1,
        help="number of processes that train on this machine (1)",
    )
    group.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster")
    group.add_argument(
        "--together",
        type=_together,
        default="auto",
        metavar="{auto,off,N}",
        help="on JAX, train many runs as one program: auto (if that is "
        "faster),\noff, or N runs at a time (auto)",
    )
    group.add_argument(
        "--tensorboard",
        action="store_true",
        help="write curves for TensorBoard into each run's folder",
    )
    group.add_argument(
        "--csv",
        action="store_true",
        help="write Keras's own epoch log into each run's folder",
    )


def _together(text):
    """Parses "auto", "off", or a number of runs."""
    if text in ("auto", "off"):
        return text
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"expected auto, off or a number of runs. Received: {text!r}"
        )
    return int(text)


def add_reader(data):
    """Adds the arguments for reading image files."""
    data.add_argument(
        "--reader",
        default="auto",
        choices=READERS,
        help="library that decodes the images (tf.data if TensorFlow is\n"
        "installed, otherwise pillow)",
    )
    data.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out images that cannot be read, with a warning",
    )


def _add_data(data, lists):
    data.add_argument(
        "--data-dir", help="local folder or archive of the data set"
    )
    if lists:
        _add_list(data)
    data.add_argument(
        "--exif",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="turn photos upright by their EXIF orientation",
    )
    data.add_argument(
        "--crop-to-box",
        action="store_true",
        help="cut images to the bounding boxes of their objects",
    )
    add_reader(data)
    data.add_argument(
        "--held-out",
        type=float,
        default=0.1,
        help="share of the training images for validation and for fitting a\n"
        "temperature (0.1; a folder val beside train and test replaces it)",
    )
    data.add_argument(
        "--train-limit", type=int, help="maximum number of training images"
    )
    data.add_argument(
        "--test-limit", type=int, help="maximum number of test images"
    )


def _add_list(data):
    data.add_argument(
        "--labels",
        metavar="FILE",
        help="CSV file with the images and their labels, instead of --dataset",
    )
    data.add_argument(
        "--images",
        metavar="FOLDER",
        help="folder of the images in --labels (the folder of FILE)",
    )
    data.add_argument(
        "--file-column",
        metavar="NAME",
        help="column of --labels with the file names (file, filename, image,\n"
        "path or similar)",
    )
    data.add_argument(
        "--label-column",
        metavar="NAME",
        help="column of --labels with the classes (label, class, species,\n"
        "target or similar)",
    )
