"""The command line of examples/reproduce.py."""

import dataclasses
import datetime
import os
import pathlib
import shlex
import sys
import textwrap
import warnings

from crl_keras.experiments.commands.arguments import add_devices
from crl_keras.experiments.commands.arguments import add_length
from crl_keras.experiments.commands.arguments import add_reader
from crl_keras.experiments.commands.arguments import add_records
from crl_keras.experiments.commands.arguments import add_seeds
from crl_keras.experiments.commands.arguments import new_parser
from crl_keras.experiments.commands.plans import resolve_together
from crl_keras.experiments.commands.running import errors_end_script
from crl_keras.experiments.commands.running import leave_gpu_to_workers
from crl_keras.experiments.commands.running import require_backend
from crl_keras.experiments.commands.running import run_plan
from crl_keras.experiments.data.digit_files import write_digit_files
from crl_keras.experiments.data.image_files import IncompleteDataWarning
from crl_keras.experiments.data.named import BUILT_IN
from crl_keras.experiments.data.sources import FILE_SETS
from crl_keras.experiments.paper import costs
from crl_keras.experiments.paper.tables import FIGURES
from crl_keras.experiments.paper.tables import SCALES
from crl_keras.experiments.paper.tables import SIZES
from crl_keras.experiments.paper.tables import TABLES
from crl_keras.experiments.paper.tables import Protocol
from crl_keras.experiments.paper.tables import all_configs
from crl_keras.experiments.paper.tables import figure_entries
from crl_keras.experiments.paper.tables import grouped
from crl_keras.experiments.paper.tables import why_nothing
from crl_keras.experiments.runs.config import loss_label
from crl_keras.experiments.runs.recipes import RECIPES
from crl_keras.experiments.words import counted

# Arguments that are fields of `Recipe`.
RECIPE_FIELDS = (
    "epochs",
    "batch_size",
    "accumulate",
    "learning_rate",
    "weight_decay",
)
# Arguments that limit a report to some runs, with their defaults: all runs.
SETTINGS = {
    "backend": None,
    "precision": "auto",
    "reader": "auto",
    "devices": 1,
}


def reproduce_parser(description):
    """The parser of examples/reproduce.py."""
    parser = new_parser(description)
    parser.add_argument(
        "what",
        nargs="+",
        choices=(*TABLES, *FIGURES, "all", "cost", "measure"),
        metavar="WHAT",
        help="table1 to table10, fig1 to fig5, or all;\n"
        "cost: the device hours of every table;\n"
        "measure: the speed of networks on this machine, for cost",
    )
    parser.add_argument(
        "--scale",
        choices=tuple(SCALES),
        default="full",
        help="\n".join(
            textwrap.fill(f"{s.name}: {s.about}", 72) for s in SCALES.values()
        ),
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="print the tables and draw the figures of the finished runs; "
        "train nothing",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="keep only rows of these data sets, networks or losses, such as\n"
        "cifar10 ce 'crl(alpha=1.5,beta=1)'; crl is CRL with any parameters;\n"
        "with measure: names of networks",
    )
    _add_open(parser.add_argument_group("what the paper leaves open"))
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data-dir",
        help="folder with your copies of the data: cifar10.tar.gz, svhn/,\n"
        "cub/, cars/, adience/ and so on",
    )
    add_reader(data)
    add_devices(parser.add_argument_group("devices"))
    where = parser.add_argument_group("records")
    add_records(where, "runs/paper-SCALE")
    _add_costs(parser.add_argument_group("costs"))
    return parser


def _add_costs(cost):
    cost.add_argument(
        "--rates",
        metavar="FILE",
        help="CSV file of measured speeds (the one in the package)",
    )
    cost.add_argument(
        "--device",
        help="use the speeds of the device with this text in its name",
    )
    cost.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="with measure: side of the images, for a backbone such as\n"
        "--only keras_hub/resnet50 (224)",
    )


def _add_open(group):
    group.add_argument(
        "--recipe",
        default="paper",
        choices=tuple(RECIPES),
        help="for CIFAR: paper (the text) or released (the authors' code)",
    )
    group.add_argument(
        "--width",
        type=int,
        default=16,
        choices=(16, 64),
        help="first width of ResNet-34, -50 and -101 on CIFAR: 16 (the\n"
        "authors' code) or 64",
    )
    group.add_argument(
        "--library",
        default="keras_hub",
        choices=("keras_hub", "keras_cv"),
        help="library of the networks for ImageNet, CUB, Cars and Adience",
    )
    group.add_argument(
        "--clamped",
        action="store_true",
        help="train NLLR and CRL with the clamps of the authors' code",
    )
    group.add_argument(
        "--losses",
        nargs="+",
        default=[],
        metavar="LOSS",
        help='parameters of the losses of Table VI: "focal(gamma=1)"',
    )
    group.add_argument(
        "--learning-rate", type=float, help="learning rate (the recipe's)"
    )
    add_length(group)
    add_seeds(group, None, "the scale's")


def run_reproduce(parser, name="reproduce", argv=None):
    """Parses the arguments, then lists, trains or reports.

    Ends the process with a message for errors that the user can fix.
    """
    arguments = parser.parse_args(argv)
    with errors_end_script(name):
        _run(arguments)


def _run(arguments):
    names = _names(arguments.what)
    if len(arguments.what) > 1 and {"cost", "measure"} & {*arguments.what}:
        raise ValueError(
            "cost and measure cannot be combined with anything else. Received: "
            f"{' '.join(arguments.what)}"
        )
    if "measure" in arguments.what:
        require_backend(arguments.backend)
        return _measure(arguments)
    if arguments.image_size is not None:
        raise ValueError(
            "--image-size is for measure only. For tables and figures the "
            "recipes set the paper's sizes. "
            f"Received: {' '.join(arguments.what)}"
        )
    protocol = make_protocol(arguments)
    if "cost" in arguments.what:
        return _print_costs(arguments, protocol)
    names = _with_rows(names, protocol)
    if arguments.report:
        return _report(names, protocol, arguments)
    require_backend(arguments.backend)
    leave_gpu_to_workers(arguments)
    if protocol.scale == "smoke":  # It never has full data.
        warnings.simplefilter("ignore", IncompleteDataWarning)
    plan = make_paper_plan(names, protocol, arguments)
    if arguments.list:
        return _list(names, plan, arguments)
    if plan.configs:
        run_plan(plan, arguments.workers, arguments.ray)
        print()
    trained = {(c.backend, c.precision) for c in plan.configs}
    if len(trained) == 1:  # Report only the runs of this backend.
        ((backend, precision),) = trained
        arguments.backend, arguments.precision = backend, precision
        protocol = make_protocol(arguments)
    _report(names, protocol, arguments)


def _with_rows(names, protocol):
    """The tables and figures that still have rows after --only."""
    why = {name: why_nothing(name, protocol) for name in names}
    if all(why.values()):
        raise ValueError(
            "; ".join(f"{name}: {reason}" for name, reason in why.items())
            + f". Received: --only {' '.join(protocol.only)}"
        )
    for name, reason in why.items():
        if reason:
            print(f"{name} is left out: {reason}.")
    return [name for name in names if not why[name]]


def make_protocol(arguments):
    """Makes the `Protocol` of parsed arguments."""
    shown = {
        name: getattr(arguments, name)
        for name, default in SETTINGS.items()
        if getattr(arguments, name) != default
    }
    changes = {name: getattr(arguments, name) for name in RECIPE_FIELDS}
    return Protocol(
        scale=arguments.scale,
        recipe=arguments.recipe,
        width=arguments.width,
        library=arguments.library,
        clamped=arguments.clamped,
        losses=tuple(arguments.losses),
        seeds=arguments.seeds,
        first_seed=arguments.first_seed,
        changes=tuple((k, v) for k, v in changes.items() if v is not None),
        shown=tuple(shown.items()),
        only=tuple(arguments.only),
    )


def make_paper_plan(names, protocol, arguments):
    """Makes the `Plan` of tables and figures, with each run once."""
    from crl_keras.experiments.runs.backbone_names import check_backbone
    from crl_keras.experiments.runs.sweep import Plan
    from crl_keras.experiments.runs.training import Options

    configs = _settled(all_configs(_entries(names, protocol)), arguments)
    for network, weights in {(c.network, c.weights) for c in configs}:
        if "/" in network:
            check_backbone(network, weights)
    data_dir = arguments.data_dir
    files = any(config.dataset in FILE_SETS for config in configs)
    if arguments.reader != "auto" and not files:
        raise ValueError(
            f"--reader is for image files, the format of "
            f"{', '.join(FILE_SETS)}. Received: --reader {arguments.reader} "
            "without these data sets"
        )
    if protocol.scale == "smoke":
        # Digits replace all data sets.
        data_dir = None
        if files:
            data_dir = os.path.join(_folder(arguments), "digits")
            write_digit_files(data_dir)
    return Plan(
        tuple(configs),
        _folder(arguments),
        data_dir,
        arguments.skip_unreadable,
        Options(
            arguments.tensorboard,
            arguments.csv,
            command=("python", *sys.argv),
            together=resolve_together(arguments),
        ),
    )


def command_of(configs, arguments, data_dir):
    """The command of examples/compare_losses.py that makes the same runs.

    Args:
        configs: `RunConfig`s that differ only in loss, seed and fold.
        arguments: Parsed arguments.
        data_dir: Folder of the data in the `Plan`, or None.

    Returns:
        List of words.
    """
    config, seeds = configs[0], {c.seed for c in configs}
    recipe, named = config.recipe, RECIPES[config.recipe.name]
    words = ["python", "examples/compare_losses.py"]
    words += ["--dataset", config.dataset, "--network", config.network]
    words += ["--losses", *dict.fromkeys(c.loss for c in configs)]
    words += ["--seeds", str(len(seeds))]
    if min(seeds):
        words += ["--first-seed", str(min(seeds))]
    if "/" in config.network:
        words += ["--weights", config.weights]
    words += ["--recipe", recipe.name]
    for field in (*RECIPE_FIELDS, "image_size"):
        value = getattr(recipe, field)
        if value != getattr(named, field):
            name = "learning-rates" if field == "learning_rate" else field
            # All digits, because a rounded value would be another run.
            value = repr(value).removesuffix(".0")
            words += [f"--{name.replace('_', '-')}", value]
    words += ["--held-out", "0"]
    for name in ("train_limit", "test_limit"):
        if getattr(config, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    for name, default in SETTINGS.items():
        value = getattr(arguments, name)
        if name == "reader" and config.dataset not in FILE_SETS:
            continue
        if value != default:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if data_dir is not None and config.dataset not in BUILT_IN:
        words += ["--data-dir", data_dir]
    return [*words, "--output", _folder(arguments)]


def _names(what):
    """The tables and figures that the user asked for, in order, each once."""
    every = (*TABLES, *FIGURES)
    return every if "all" in what else [n for n in every if n in what]


def _folder(arguments):
    return arguments.output or f"runs/paper-{arguments.scale}"


def _entries(names, protocol):
    found = []
    for name in names:
        if name in TABLES:
            found += TABLES[name].entries(protocol)
        else:
            found += figure_entries(name, protocol)
    return found


def _settled(configs, arguments):
    """Sets the reader, backend and precision of configurations."""
    import keras

    from crl_keras.experiments.data.sources import resolve_reader
    from crl_keras.experiments.devices import resolve_precision

    precision = resolve_precision(arguments.precision)
    return [
        dataclasses.replace(
            config,
            reader=resolve_reader(
                config.dataset,
                config.recipe.image_size is not None,
                # Only data sets with image files have several readers.
                arguments.reader if config.dataset in FILE_SETS else "auto",
            ),
            precision=precision,
            backend=keras.backend.backend(),
            devices=arguments.devices,
        )
        for config in configs
    ]


def _report(names, protocol, arguments):
    from crl_keras.experiments.paper.figures import write_figures
    from crl_keras.experiments.paper.report import write_paper_report

    tables = [name for name in names if name in TABLES]
    if tables:
        write_paper_report(tables, protocol, _folder(arguments))
    figures = [name for name in names if name in FIGURES]
    if figures:
        write_figures(figures, protocol, _folder(arguments))


def _list(names, plan, arguments):
    """Prints the groups of runs of each table with command and cost."""
    device, rates = _rates(arguments)
    pending = {config.run_id for config in plan.pending()}
    by_id = {config.run_id: config for config in plan.configs}
    protocol = make_protocol(arguments)
    for name in names:
        title = FIGURES.get(name) or TABLES[name].title
        print(f"{name}: {title} (scale {protocol.scale})")
        configs = _settled(all_configs(_entries([name], protocol)), arguments)
        if not configs:
            print("  no runs")
        for group in grouped(configs):
            _print_group(group, pending, rates, arguments, plan.data_dir)
        print()
    hours = sum(_hours(config, rates)[0] for config in by_id.values())
    left = sum(_hours(by_id[run_id], rates)[0] for run_id in pending)
    print(
        f"{len(pending)} of {counted(len(by_id), 'run')} to do in "
        f"{plan.output}: about {_hours_text(left)} of {_hours_text(hours)}. "
        "Tables that share a run count it once."
    )
    print(_device_note(device, rates))


def _print_group(group, pending, rates, arguments, data_dir):
    config, recipe = group[0], group[0].recipe
    to_do = sum(c.run_id in pending for c in group)
    seeds = len({c.seed for c in group})
    folds = len({c.fold for c in group})
    pretrained = ", pretrained" if config.weights != "none" else ""
    losses = dict.fromkeys(loss_label(c.loss) for c in group)
    hours, measured = 0.0, True
    for c in group:
        of_run, measured = _hours(c, rates)
        hours += of_run
    print(
        f"  {config.dataset}, {config.network}{pretrained}: recipe "
        f"{recipe.name}, {counted(recipe.epochs, 'epoch')}, "
        f"{counted(seeds, 'seed')}"
        f"{f', {folds} folds' if folds > 1 else ''}: "
        f"{counted(len(group), 'run')}, {to_do} to do, about "
        f"{_hours_text(hours)}{'' if measured else ' (estimated)'}"
    )
    print(f"    {', '.join(losses)}")
    print(f"    {shlex.join(command_of(group, arguments, data_dir))}")


def _hours(config, rates):
    return costs.run_hours(config, SIZES, rates)


def _hours_text(hours):
    if hours < 1 / 60:
        return "a minute"
    if hours < 1:
        return f"{60 * hours:.2g} minutes"
    return f"{hours:,.1f} hours" if hours < 100 else f"{hours:,.0f} hours"


def _rates(arguments):
    return costs.choose_device(
        costs.read_rates(arguments.rates), arguments.device
    )


def _device_note(device, rates):
    dates = sorted({rate.date for rate in rates})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    settings = sorted({f"{r.backend}, {r.precision}" for r in rates})
    return (
        f"The hours are for one device, {device}, where "
        f"{len({r.network for r in rates})} networks were measured ({when}; "
        f"{'; '.join(settings)}). The other networks are estimated by their "
        "multiplications, which may be wrong by a factor of 3. The time to "
        "read image files is not counted."
    )


def _print_costs(arguments, protocol):
    """Prints a Markdown table of the runs, hours and operations by table."""
    device, rates = _rates(arguments)
    print("| Table | What | Runs | Hours | Of these measured | EFLOP |")
    print("| :--- | :--- | ---: | ---: | ---: | ---: |")
    found = {}
    for table in TABLES.values():
        of_table = {c.run_id: c for c in all_configs(table.entries(protocol))}
        found.update(of_table)
        _print_cost(table.number, table.title, of_table, rates)
    _print_cost("all", "each run once", found, rates)
    print(f"\nScale {protocol.scale}. {_device_note(device, rates)}")
    print(
        "One EFLOP is 10^18 floating-point operations, the same on every "
        "device. At a sustained 10 TFLOP/s it takes 27.8 hours."
    )


def _print_cost(number, title, configs, rates):
    pairs = [_hours(config, rates) for config in configs.values()]
    hours = sum(hours for hours, _ in pairs)
    known = sum(hours for hours, measured in pairs if measured)
    share = f"{known / hours:.0%}" if hours else "-"
    operations = sum(costs.run_operations(c, SIZES) for c in configs.values())
    print(
        f"| {number} | {title} | {len(pairs)} | {hours:,.1f} | {share} | "
        f"{operations / 1e18:,.3g} |"
    )


def _measure(arguments):
    """Measures networks on this machine and prints rows of a rates file."""
    import keras

    from crl_keras.experiments.devices import device_name
    from crl_keras.experiments.devices import resolve_precision
    from crl_keras.experiments.runs.speed import training_speed

    networks = arguments.only or [n for n in costs.MACS if "/" not in n]
    sizes = {  # Checks all networks before the first measurement.
        network: costs.measured_size(network, arguments.image_size)
        for network in networks
    }
    asked = arguments.batch_size
    if asked is not None and asked < 2:
        raise ValueError(
            f"--batch-size must be at least 2, one image per class. Received: "
            f"{asked}"
        )
    precision = resolve_precision(arguments.precision)
    path = pathlib.Path(arguments.rates) if arguments.rates else None
    if path is not None and path.exists():
        costs.read_rates(path)  # Raises if it is not a file of rates.
    else:
        _write_rate(path, costs.FIELDS)
    for network, image_size in sizes.items():
        # Most devices cannot hold 256 large images.
        batch_size = asked or (32 if "/" in network else 256)
        speed = training_speed(
            network, image_size, batch_size, precision=precision
        )
        rate = costs.Rate(
            network=network,
            image_size=image_size,
            batch_size=batch_size,
            precision=precision,
            backend=keras.backend.backend(),
            device=device_name(),
            images_per_second=round(speed, 1),
            date=datetime.date.today().isoformat(),
            command=_measure_command(network, arguments),
        )
        _write_rate(path, dataclasses.astuple(rate))


def _measure_command(network, arguments):
    import keras

    command = (
        "python examples/reproduce.py measure --backend "
        f"{keras.backend.backend()} --only {network}"
    )
    for name in ("image_size", "batch_size"):
        if value := getattr(arguments, name):
            command += f" --{name.replace('_', '-')} {value}"
    if arguments.precision != "auto":
        command += f" --precision {arguments.precision}"
    return command


def _write_rate(path, values):
    line = ",".join(map(str, values))
    print(line, flush=True)
    if path is not None:
        with open(path, "a", encoding="utf-8", newline="") as file:
            file.write(line + "\n")
