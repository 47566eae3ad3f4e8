"""Fine-tunes a backbone on the 196 models of Stanford Cars.

    python examples/finetune_cars.py --backbone resnet50 \\
        --data-dir ~/data/stanford_cars
    python examples/finetune_cars.py --backbone resnet50 \\
        --data-dir ~/data/stanford_cars --losses ce crl --seeds 5

The folder may have any of the layouts that docs/data.md lists. All else is as
in examples/finetune_cub.py.
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.arguments import finetune_parser
from crl_keras.experiments.commands.running import run

if __name__ == "__main__":
    run(finetune_parser(__doc__, "cars"), "finetune_cars")
