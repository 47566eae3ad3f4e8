"""Fine-tunes a backbone on the eight age groups of Adience, fold by fold.

    python examples/finetune_adience.py --backbone resnet34 --fold all \\
        --weights none --data-dir ~/data/adience
    python examples/finetune_adience.py --backbone resnet101 --fold all \\
        --library keras --losses ce crl --data-dir ~/data/adience

The program trains on four folds and tests on the fifth, five times. It reports
the mean and the deviation of accuracy and 1-off accuracy over the folds. Losses
are compared by pairs of the same fold and seed. All else is as in
examples/finetune_cub.py.
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.arguments import finetune_parser
from crl_keras.experiments.commands.running import run

if __name__ == "__main__":
    run(finetune_parser(__doc__, "adience"), "finetune_adience")
