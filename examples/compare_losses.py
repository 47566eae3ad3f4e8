"""Compares losses over several seeds, with statistics and a report.

    python examples/compare_losses.py --dataset digits --network mlp \\
        --losses ce nllr crl --seeds 5
    python examples/compare_losses.py --dataset cifar10 --network resnet20 \\
        --losses ce nllr crl "crl(beta=-1)" --seeds 10

For one seed, every loss starts from the same weights and sees the same batches
with the same augmentation: that makes the paired tests right. Runs that are
done are skipped and a killed one goes on from its last epoch, so the same
command can be given again at any time.
"""

import argparse
import os
import pathlib
import sys


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--dataset",
        default="digits",
        help="digits, mnist, cifar10, cifar100, svhn or folder:PATH",
    )
    what.add_argument("--network", default="mlp", help="see crl_keras.networks")
    what.add_argument(
        "--losses",
        nargs="+",
        default=["ce", "nllr", "crl"],
        help="ce, nllr, crl, focal, dualce, tamed, released, lsoftmax, "
        'asoftmax, or with parameters: "crl(alpha=1.5,beta=-1)"',
    )
    what.add_argument("--baseline", help="the loss the others are paired with")
    what.add_argument("--seeds", type=int, default=5, help="number of seeds")
    what.add_argument("--first-seed", type=int, default=0)

    how = parser.add_argument_group("how it is trained")
    how.add_argument("--recipe", help="by default one that suits the data set")
    how.add_argument("--epochs", type=int)
    how.add_argument("--batch-size", type=int)
    how.add_argument(
        "--learning-rates",
        nargs="+",
        type=float,
        default=[None],
        help="more than one: every loss is trained with each",
    )
    how.add_argument("--precision", default="auto")
    how.add_argument("--backend", choices=("tensorflow", "jax", "torch"))
    how.add_argument("--devices", type=int, default=1)

    data = parser.add_argument_group("data")
    data.add_argument("--data-dir", help="local folder or archive of the set")
    data.add_argument(
        "--held-out",
        type=float,
        default=0.1,
        help="fraction kept out of training, to fit a temperature (0.1)",
    )
    data.add_argument("--skip-unreadable", action="store_true")
    data.add_argument("--train-limit", type=int, help="use fewer images")
    data.add_argument("--test-limit", type=int)

    where = parser.add_argument_group("records")
    where.add_argument(
        "--output", help="folder of the records (runs/DATASET-NETWORK)"
    )
    where.add_argument("--workers", type=int, default=1)
    where.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster")
    where.add_argument("--tensorboard", action="store_true")
    where.add_argument("--csv", action="store_true")
    return parser.parse_args()


def make_plan(arguments):
    import keras

    from crl_keras.experiments.devices import resolve_precision
    from crl_keras.experiments.recipes import default_recipe
    from crl_keras.experiments.recipes import get_recipe
    from crl_keras.experiments.sweep import Plan
    from crl_keras.experiments.sweep import make_configs
    from crl_keras.experiments.training import Options

    name = arguments.recipe or default_recipe(arguments.dataset)
    recipes = [
        get_recipe(
            name,
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            learning_rate=rate,
        )
        for rate in arguments.learning_rates
    ]
    first = arguments.first_seed
    configs = make_configs(
        arguments.losses,
        range(first, first + arguments.seeds),
        recipes,
        dataset=arguments.dataset,
        network=arguments.network,
        held_out=arguments.held_out,
        precision=resolve_precision(arguments.precision),
        backend=keras.backend.backend(),
        devices=arguments.devices,
        train_limit=arguments.train_limit,
        test_limit=arguments.test_limit,
    )
    dataset = pathlib.PurePath(arguments.dataset.removeprefix("folder:")).name
    return Plan(
        configs,
        arguments.output or f"runs/{dataset}-{arguments.network}",
        arguments.data_dir,
        arguments.skip_unreadable,
        Options(
            arguments.tensorboard,
            arguments.csv,
            ("python", *sys.argv),
        ),
    )


def run(plan, arguments):
    from crl_keras.experiments import sweep
    from crl_keras.experiments.progress import Progress

    cache = sweep.check_plan(plan)
    with Progress(plan) as progress:
        if arguments.ray:
            sweep.run_ray(plan, arguments.ray, progress.on_wait)
        elif arguments.workers > 1:
            sweep.run_workers(plan, arguments.workers, progress.on_wait)
        else:
            sweep.run_sweep(plan, progress.on_run, progress.on_epoch, cache)


def main():
    arguments = parse_arguments()
    if arguments.backend:
        os.environ["KERAS_BACKEND"] = arguments.backend
    from crl_keras.experiments.report import write_report

    try:
        plan = make_plan(arguments)
        run(plan, arguments)
        print()
        write_report(plan.output, baseline=arguments.baseline or "ce")
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        sys.exit(f"compare_losses: {error}")


if __name__ == "__main__":
    main()
