"""The arguments of the example scripts, and what becomes of them."""

import argparse
import contextlib
import os
import pathlib
import sys

from crl_keras.experiments.data.crops import CROPS
from crl_keras.experiments.data.sources import READERS
from crl_keras.experiments.runs.config import PRECISIONS

# Arguments of the command line that are fields of `Recipe`.
RECIPE_FIELDS = (
    "epochs",
    "batch_size",
    "accumulate",
    "weight_decay",
    "image_size",
    "crop",
    "randaugment",
    "mixup",
    "cutmix",
    "label_smoothing",
    "head_rate",
    "head_epochs",
    "freeze_backbone",
)


def compare_parser(description):
    """The parser of examples/compare_losses.py."""
    parser = new_parser(description)
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--dataset",
        default="digits",
        help="digits, digits32, mnist, cifar10, cifar100, svhn, cub, cars, "
        "adience, imagenet2012, tfds:NAME or folder:PATH",
    )
    what.add_argument(
        "--network",
        default="mlp",
        help="see crl_keras.networks, or LIBRARY/NAME of a backbone",
    )
    _add_losses(what, ["ce", "nllr", "crl"], seeds=5)
    _add_common(parser, what, backbone_of=lambda a: a.network)
    return parser


def finetune_parser(description, dataset):
    """The parser of the examples/finetune_*.py."""
    parser = new_parser(description)
    what = parser.add_argument_group("what is trained")
    what.add_argument(
        "--backbone",
        default="resnet50",
        help="resnet18, 34, 50, 101, 152, these with _v2, or mobilenet_v2",
    )
    what.add_argument(
        "--library",
        choices=("keras_cv", "keras_hub", "keras"),
        help="where the backbone comes from (the first of these that has its "
        "weights\nand is installed)",
    )
    _add_losses(what, ["crl"], seeds=1)
    if dataset is None:
        what.add_argument(
            "--dataset", required=True, help="folder:PATH or tfds:NAME"
        )
    if dataset == "adience":
        what.add_argument(
            "--faces",
            default="aligned",
            choices=("aligned", "faces"),
            help="the folder of faces: upright ones, or as found (aligned)",
        )
    _add_common(
        parser,
        what,
        backbone_of=lambda a: f"{_library(a)}/{a.backbone}",
        dataset=dataset,
        save_model=True,
    )
    return parser


def run(parser, name):
    """Parses, trains what is not trained yet, and writes the report.

    Ends the process with a message for what the user can mend.
    """
    arguments = parser.parse_args()
    from crl_keras.experiments.analysis.report import write_report

    with errors_end_script(name):
        require_backend(arguments.backend)
        plan = make_plan(arguments)
        if arguments.baseline:
            _check_baseline(plan, arguments.baseline)
        if arguments.list:
            return _print_plan(plan)
        run_plan(plan, arguments.workers, arguments.ray)
        print()
        write_report(plan.output, baseline=arguments.baseline)


@contextlib.contextmanager
def errors_end_script(name):
    """Ends the process with a message for what the user can mend."""
    from crl_keras.experiments.runs.sweep import WorkerError

    try:
        yield
    except (
        ValueError,
        OSError,
        ImportError,
        NotImplementedError,
        WorkerError,
    ) as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt:
        print(
            f"{name}: stopped. The same command goes on from there",
            file=sys.stderr,
        )
        sys.exit(130)  # What a shell expects of it.


def require_backend(backend):
    """Raises ValueError if Keras has not come up on the backend asked for."""
    import keras

    if backend and backend != keras.backend.backend():
        raise ValueError(
            f"Expected Keras to be on {backend}, as --backend says. It is on "
            f"{keras.backend.backend()} since it was imported: set "
            f"KERAS_BACKEND={backend} before"
        )


def make_plan(arguments):
    """The `Plan` of parsed arguments."""
    import keras

    from crl_keras.experiments.data import sources
    from crl_keras.experiments.devices import resolve_precision
    from crl_keras.experiments.runs.backbones import check_backbone
    from crl_keras.experiments.runs.recipes import default_recipe
    from crl_keras.experiments.runs.recipes import get_recipe
    from crl_keras.experiments.runs.sweep import Plan
    from crl_keras.experiments.runs.sweep import make_configs
    from crl_keras.experiments.runs.training import Options

    dataset, network = arguments.dataset, arguments.backbone_of(arguments)
    if getattr(arguments, "faces", None) == "faces":
        dataset = "adience_faces"
    if dataset.startswith("folder:"):
        # Another spelling of the path makes no other runs.
        path = dataset.removeprefix("folder:")
        dataset = f"folder:{os.path.normpath(path)}"
    _check_arguments(arguments, dataset, network)
    weights = "none"
    if "/" in network:
        weights = arguments.weights or "imagenet"
        check_backbone(network, weights)
    elif arguments.weights:
        raise ValueError(
            "--weights are for a backbone, LIBRARY/NAME. Received: "
            f"{network!r}, which is trained from random ones"
        )
    name = arguments.recipe or default_recipe(dataset, network)
    changes = {field: getattr(arguments, field) for field in RECIPE_FIELDS}
    recipes = [
        get_recipe(name, learning_rate=rate, **changes)
        for rate in arguments.learning_rates
    ]
    resized = recipes[0].image_size is not None
    if arguments.crop and not resized:
        raise ValueError(
            "--crop is for images that are brought to a size, by --image-size. "
            f"Received: --crop {arguments.crop} for {dataset}, whose images "
            "stay as they are"
        )
    first = arguments.first_seed
    common = dict(
        dataset=dataset,
        network=network,
        weights=weights,
        held_out=arguments.held_out,
        crop_to_box=arguments.crop_to_box,
        reader=sources.resolve_reader(dataset, resized, arguments.reader),
        precision=resolve_precision(arguments.precision),
        backend=keras.backend.backend(),
        devices=arguments.devices,
        train_limit=arguments.train_limit,
        test_limit=arguments.test_limit,
    )
    configs = [
        config
        for fold in _folds(dataset, arguments.fold)
        for config in make_configs(
            arguments.losses,
            range(first, first + arguments.seeds),
            recipes,
            fold=fold,
            **common,
        )
    ]
    title = pathlib.PurePath(
        os.path.abspath(dataset.removeprefix("folder:"))
    ).name
    title = title.replace(":", "-")
    # A loss may be given twice, in two spellings.
    once = {config.run_id: config for config in configs}
    return Plan(
        tuple(once.values()),
        arguments.output or f"runs/{title}-{network.replace('/', '-')}",
        arguments.data_dir,
        arguments.skip_unreadable,
        Options(
            arguments.tensorboard,
            arguments.csv,
            arguments.save_model,
            ("python", *sys.argv),
        ),
    )


def _check_baseline(plan, baseline):
    """Raises ValueError before the training, not at the report."""
    from crl_keras.experiments.analysis.comparison import check_baseline
    from crl_keras.experiments.runs.records import read_records

    losses = {config.loss for config in plan.configs}
    if os.path.isdir(plan.output):
        losses |= {r.config.loss for r in read_records(plan.output)}
    check_baseline(baseline, losses)


def _check_arguments(arguments, dataset, network):
    """Raises ValueError for what no run could be made of."""
    from crl_keras.experiments.data.named import BUILT_IN
    from crl_keras.networks import NETWORKS

    if "/" not in network and network not in NETWORKS:
        raise ValueError(
            f"--network must be one of {', '.join(NETWORKS)}, or LIBRARY/NAME "
            f"of a backbone. Received: {network!r}"
        )
    if arguments.seeds < 1:
        raise ValueError(
            f"--seeds must be at least 1. Received: {arguments.seeds}"
        )
    if arguments.freeze_backbone and "/" not in network:
        raise ValueError(
            "--freeze-backbone is for a backbone, LIBRARY/NAME. Received: "
            f"{network!r}, all of which is trained"
        )
    if arguments.data_dir and dataset in BUILT_IN:
        raise ValueError(
            f"{dataset} comes with scikit-learn. Received: --data-dir "
            f"{arguments.data_dir}; leave it out, or name a --dataset"
        )


def run_plan(plan, workers=1, ray=None):
    """Checks a plan, and runs what of it is not done, with progress."""
    from crl_keras.experiments.commands.progress import Progress
    from crl_keras.experiments.runs import sweep

    if workers < 1:
        raise ValueError(f"--workers must be at least 1. Received: {workers}")
    cache = sweep.check_plan(plan)
    _say_what_kept_no_model(plan)
    with Progress(plan) as progress:
        if ray:
            sweep.run_ray(plan, ray, progress.on_wait)
        elif workers > 1:
            sweep.run_workers(plan, workers, progress.on_wait)
        else:
            sweep.run_sweep(plan, progress.on_run, progress.on_epoch, cache)


def _say_what_kept_no_model(plan):
    """`--save-model` comes too late for runs that are done."""
    from crl_keras.experiments.runs.records import read_records

    wanted = {c.run_id for c in plan.configs if plan.options.save_model}
    kept_none = [
        record
        for record in read_records(plan.output)
        if record.config.run_id in wanted
        and record.result["status"] == "done"
        and not (record.path / "model.keras").exists()
    ]
    if kept_none:
        print(
            f"Of the runs that are done {len(kept_none)} kept no model, as "
            "they were made without --save-model. Delete their folders, or "
            "use another --output, to train them again"
        )


def _print_plan(plan):
    """What would be run, a line a run."""
    from crl_keras.experiments.runs.config import loss_label

    pending = {config.run_id for config in plan.pending()}
    for config in plan.configs:
        state = "to do" if config.run_id in pending else "done"
        fold = "" if config.fold is None else f" fold {config.fold}"
        print(
            f"{config.run_id}  {state:5}  {config.dataset}{fold}  "
            f"{config.network}  {loss_label(config.loss)}  seed {config.seed}  "
            f"learning rate {config.recipe.learning_rate:g}  "
            f"{config.recipe.epochs} epochs"
        )
    print(f"{len(pending)} of {len(plan.configs)} runs to do in {plan.output}")


def new_parser(description):
    """A parser whose help has the lines of the description as they are."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )


def _library(arguments):
    from crl_keras.experiments.runs.backbones import default_library

    weights = arguments.weights or "imagenet"
    return arguments.library or default_library(arguments.backbone, weights)


def _folds(dataset, fold):
    from crl_keras.experiments.data.sources import FOLDS

    folds = FOLDS.get(dataset)
    if folds is None:
        if fold is not None:
            raise ValueError(
                f"--fold is for {', '.join(FOLDS)}. Received: {dataset!r}"
            )
        return [None]
    if fold in (None, "all"):
        return range(folds)
    if fold.isdigit() and int(fold) < folds:
        return [int(fold)]
    raise ValueError(
        f"--fold must be all, or a number from 0 to {folds - 1}. "
        f"Received: {fold!r}"
    )


def _add_losses(group, losses, seeds):
    group.add_argument(
        "--losses",
        nargs="+",
        default=losses,
        help="ce, nllr, crl and others, see docs/losses.md; parameters in "
        f'parentheses: "crl(alpha=1.5,beta=-1)" ({" ".join(losses)})',
    )
    group.add_argument(
        "--baseline", help="the loss the others are paired with (ce)"
    )
    group.add_argument(
        "--seeds", type=int, default=seeds, help=f"number of seeds ({seeds})"
    )
    group.add_argument(
        "--first-seed", type=int, default=0, help="the lowest of them (0)"
    )


def _add_common(parser, what, backbone_of, dataset=None, save_model=False):
    what.add_argument(
        "--weights", help="of a backbone: imagenet, none or PATH (imagenet)"
    )
    what.add_argument(
        "--fold", help="of adience: all, or a number; the fold that is the test"
    )
    _add_training(parser.add_argument_group("how it is trained"))
    _add_data(parser.add_argument_group("data"))
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
    how.add_argument("--recipe", help="by default one that suits the data set")
    how.add_argument("--epochs", type=int, help="(the recipe's)")
    how.add_argument(
        "--batch-size", type=int, help="over all devices (the recipe's)"
    )
    how.add_argument(
        "--accumulate",
        type=int,
        help="parts a batch is computed in, for a small device",
    )
    how.add_argument(
        "--weight-decay",
        type=float,
        help="of SGD, coupled with the momentum as in PyTorch",
    )
    how.add_argument(
        "--learning-rates",
        nargs="+",
        type=float,
        default=[None],
        help="more than one: every loss is trained with each",
    )
    how.add_argument(
        "--head-rate", type=float, help="of the last layer, times the rate"
    )
    how.add_argument(
        "--head-epochs", type=int, help="first epochs of the last layer alone"
    )
    how.add_argument(
        "--freeze-backbone",
        action="store_true",
        default=None,
        help="train the last layer alone",
    )
    how.add_argument(
        "--image-size", type=int, help="pixels a side of what is cropped"
    )
    how.add_argument(
        "--crop", choices=CROPS, help="what training sees of an image"
    )
    how.add_argument(
        "--randaugment",
        type=int,
        metavar="OPERATIONS",
        help="random operations on a batch, their strength on an image (0)",
    )
    how.add_argument(
        "--mixup", type=float, metavar="ALPHA", help="0 to 1; 0.2 is usual (0)"
    )
    how.add_argument(
        "--cutmix", type=float, metavar="ALPHA", help="0 to 1; 1 is usual (0)"
    )
    how.add_argument(
        "--label-smoothing", type=float, help="0 to 1; 0.1 is usual (0)"
    )
    add_devices(how)


def add_devices(group):
    """Arguments that say on what runs are made."""
    group.add_argument(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="auto: 16 bits on a GPU, float32 on a CPU",
    )
    group.add_argument(
        "--backend",
        choices=("tensorflow", "jax", "torch"),
        help="of Keras (KERAS_BACKEND, or what is installed)",
    )
    group.add_argument(
        "--devices",
        type=int,
        default=1,
        help="that share each batch, on TensorFlow and JAX (1)",
    )


def add_records(group, output):
    """Arguments that say where runs go and how they are spread."""
    group.add_argument("--output", help=f"folder of the records ({output})")
    group.add_argument(
        "--list", action="store_true", help="print the runs, train nothing"
    )
    group.add_argument(
        "--workers", type=int, default=1, help="processes that train here (1)"
    )
    group.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster")
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


def _add_data(data):
    data.add_argument("--data-dir", help="local folder or archive of the set")
    data.add_argument(
        "--crop-to-box",
        action="store_true",
        help="cut images to the bounding boxes of their objects",
    )
    data.add_argument(
        "--reader",
        default="auto",
        choices=READERS,
        help="what decodes images: tf.data where there is TensorFlow",
    )
    data.add_argument(
        "--held-out",
        type=float,
        default=0.1,
        help="fraction kept out of training, to fit a temperature (0.1)",
    )
    data.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out images that cannot be read, with a warning",
    )
    data.add_argument(
        "--train-limit", type=int, help="train on so many images alone"
    )
    data.add_argument(
        "--test-limit", type=int, help="test on so many images alone"
    )
