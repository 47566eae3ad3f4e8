"""Makes the `Plan` of the runs from parsed arguments."""

import dataclasses
import os
import pathlib
import sys


def make_plan(arguments):
    """Makes the `Plan` of parsed arguments."""
    from crl_keras.experiments.runs.config import with_controls
    from crl_keras.experiments.runs.sweep import Plan
    from crl_keras.experiments.runs.sweep import make_configs
    from crl_keras.experiments.runs.training import Options

    dataset = _dataset(arguments)
    network, weights = _network(arguments)
    network = _with_method(network, arguments, dataset)
    _check_arguments(arguments, dataset, network)
    recipes = _recipes(arguments, dataset, network, weights)
    losses = arguments.losses
    if arguments.split_effect:
        losses = with_controls(losses)
    first = arguments.first_seed
    configs = [
        config
        for fold in _folds(dataset, arguments.fold)
        for config in make_configs(
            losses,
            range(first, first + arguments.seeds),
            recipes,
            fold=fold,
            dataset=dataset,
            network=network,
            weights=weights,
            **_settings(arguments, dataset, recipes[0]),
        )
    ]
    # The user may give a loss twice, in two spellings.
    once = {config.run_id: config for config in configs}
    return Plan(
        tuple(once.values()),
        arguments.output or f"runs/{_title(dataset)}-{_folder_name(network)}",
        _data_dir(arguments),
        arguments.skip_unreadable,
        Options(
            arguments.tensorboard,
            arguments.csv,
            arguments.save_model,
            _command_line(),
            arguments.exif,
            together=resolve_together(arguments),
        ),
    )


def _dataset(arguments):
    """The name of the data set in the arguments."""
    from crl_keras.experiments.data.label_lists import list_name

    dataset = arguments.dataset
    if labels := getattr(arguments, "labels", None):
        if dataset is not None:
            raise ValueError(
                "Use --labels or --dataset, not both. "
                f"Received: --labels {labels} and --dataset {dataset}"
            )
        return list_name(
            os.path.normpath(labels),
            arguments.file_column,
            arguments.label_column,
        )
    if getattr(arguments, "default_dataset", None):
        dataset = dataset or arguments.default_dataset
    if dataset is None:
        raise ValueError(
            "Expected --dataset folder:PATH or tfds:NAME, or --labels FILE "
            "with --images FOLDER. Received none of these"
        )
    if getattr(arguments, "faces", None) == "faces":
        return "adience_faces"
    if dataset.startswith("folder:"):
        # Two spellings of a path must give the same runs.
        path = dataset.removeprefix("folder:")
        return f"folder:{os.path.normpath(path)}"
    return dataset


def _recipes(arguments, dataset, network, weights):
    """The `Recipe` of each learning rate.

    An argument that has the name of a field changes it, unless it is None.
    """
    from crl_keras.experiments.runs.recipes import Recipe
    from crl_keras.experiments.runs.recipes import default_recipe
    from crl_keras.experiments.runs.recipes import get_recipe
    from crl_keras.experiments.runs.recipes import parse_part_rate

    name = arguments.recipe or default_recipe(dataset, network, weights)
    fields = {field.name for field in dataclasses.fields(Recipe)}
    changes = {k: v for k, v in vars(arguments).items() if k in fields}
    if arguments.part_rates is not None:
        changes["part_rates"] = [*map(parse_part_rate, arguments.part_rates)]
    if "/" in network and changes["batch_norm"] is None:
        changes["batch_norm"] = "recompute"
    recipes = [
        get_recipe(name, learning_rate=rate, **changes)
        for rate in arguments.learning_rates
    ]
    if arguments.crop and recipes[0].image_size is None:
        raise ValueError(
            "--crop needs --image-size, which resizes the images. "
            f"Received: --crop {arguments.crop} for {dataset}, whose images "
            "are not resized"
        )
    if recipes[0].batch_norm == "freeze" and weights == "none":
        raise ValueError(
            "--batch-norm freeze keeps the statistics of pretrained weights. "
            f"Received: random weights for {network}, which have none. Use "
            "--batch-norm recompute"
        )
    return recipes


def _settings(arguments, dataset, recipe):
    """The other fields of `RunConfig` as a dict."""
    import keras

    from crl_keras.experiments.data import sources
    from crl_keras.experiments.devices import resolve_precision

    resized = recipe.image_size is not None
    return dict(
        held_out=arguments.held_out,
        crop_to_box=arguments.crop_to_box,
        reader=sources.resolve_reader(dataset, resized, arguments.reader),
        precision=resolve_precision(arguments.precision),
        backend=keras.backend.backend(),
        devices=arguments.devices,
        train_limit=arguments.train_limit,
        test_limit=arguments.test_limit,
    )


def _title(dataset):
    """The name of a data set in the name of a folder of runs."""
    from crl_keras.experiments.data.label_lists import split_list_name

    path = dataset.removeprefix("folder:")
    if dataset.startswith("csv:"):
        path, columns = split_list_name(dataset)
        path = "-".join([path.removesuffix(".csv"), *columns.values()])
    return pathlib.PurePath(os.path.abspath(path)).name.replace(":", "-")


def _data_dir(arguments):
    if getattr(arguments, "labels", None):
        return arguments.images
    return arguments.data_dir


def _command_line():
    """The command that starts this process again."""
    path, *arguments = sys.argv
    name = pathlib.PurePath(path).stem
    if name.startswith("crl-keras"):  # Installed, or crl-keras.exe.
        return ("crl-keras", *arguments)
    return ("python", *sys.argv)


def _check_arguments(arguments, dataset, network):
    """Raises ValueError for arguments that cannot make a run."""
    from crl_keras.experiments.data.named import BUILT_IN
    from crl_keras.experiments.data.sources import check_name
    from crl_keras.networks import NETWORKS

    check_name(dataset)
    _check_list(arguments)
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
            "--freeze-backbone needs a backbone, LIBRARY/NAME. Received: "
            f"{network!r}"
        )
    if arguments.data_dir and dataset in BUILT_IN:
        raise ValueError(
            f"{dataset} comes with scikit-learn and needs no --data-dir. "
            f"Received: --data-dir {arguments.data_dir}. Leave it out, or "
            "choose another --dataset"
        )


def _check_list(arguments):
    """Raises ValueError for arguments that do not fit --labels."""
    if getattr(arguments, "labels", None):
        if arguments.data_dir:
            raise ValueError(
                "With --labels, give the folder of the images as --images. "
                f"Received: --data-dir {arguments.data_dir}"
            )
        return
    for name in ("images", "file_column", "label_column"):
        if value := getattr(arguments, name, None):
            raise ValueError(
                f"--{name.replace('_', '-')} needs --labels FILE. "
                f"Received: {value!r} without it"
            )


def _network(arguments):
    """Returns the network and its weights; prints what it chose."""
    from crl_keras.experiments.runs.backbone_files import describe
    from crl_keras.experiments.runs.backbone_names import find_backbone

    name, library = arguments.backbone_of(arguments)
    own = name.endswith(".keras")
    name, plus, method = name.partition("+") if "/" in name else (name, "", "")
    # compare_losses.py has no --library.
    if not hasattr(arguments, "library") and "/" not in name and not own:
        if arguments.weights:
            raise ValueError(
                "--weights is for a backbone, LIBRARY/NAME. Received: "
                f"{name!r}, which starts from random weights"
            )
        return name, "none"
    found = find_backbone(name, library, arguments.weights)
    sentence = describe(found.weights) if own else found.chosen
    if sentence:
        print(f"{sentence}\n")
    return found.network + plus + method, found.weights


def _with_method(network, arguments, dataset):
    """The network with the fine-grained method of the arguments."""
    from crl_keras.experiments.runs.method_names import METHODS
    from crl_keras.experiments.runs.method_names import canonical_network
    from crl_keras.experiments.runs.method_names import split_method
    from crl_keras.experiments.runs.method_names import with_method

    spec = arguments.method
    for name in ("tap", "pooling"):
        value = getattr(arguments, name)
        if value is not None and spec is None:
            raise ValueError(
                f"--{name} needs a --method: {', '.join(METHODS)}. "
                f"Received: --{name} {value} without one"
            )
        if value is not None:
            spec = _with_option(spec, name, value)
    if spec is None:
        return canonical_network(network)
    if "/" not in network or split_method(network)[1]:
        raise ValueError(
            "--method needs a backbone, LIBRARY/NAME, without a method. "
            f"Received: --method {spec} for {network!r}"
        )
    if dataset == "cars" and spec.startswith("dcl") and "gamma" not in spec:
        # The value for rigid objects in the released code.
        spec = _with_option(spec, "gamma", 0.01)
    return with_method(network, spec)


def _with_option(spec, name, value):
    """Adds an option to a method: "dcl" becomes "dcl(tap=...)"."""
    inside = spec.rstrip().removesuffix(")")
    return f"{inside}{',' if '(' in inside else '('}{name}={value})"


def _folder_name(network):
    """The name of a network in the name of a folder of runs."""
    return network.partition("(")[0].replace("/", "-")


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


def resolve_together(arguments):
    """Finds `Options.together` from arguments: "auto", "off" or a number.

    Raises ValueError for a number if one program cannot train several runs.
    """
    import keras

    asked, backend = arguments.together, keras.backend.backend()
    why = {
        f"it needs JAX, and Keras is on {backend}: use --backend jax": backend
        != "jax",
        "--ray gives every run its own task": arguments.ray,
    }
    for reason, holds in why.items():
        if holds and isinstance(asked, int):
            raise ValueError(
                f"Runs cannot be trained as one program: {reason}. Received: "
                f"--together {asked}. Leave it out"
            )
        if holds:
            return "off"
    # One worker would take all runs and leave none for the others.
    return "off" if arguments.workers > 1 and asked == "auto" else asked
