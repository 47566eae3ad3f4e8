"""Compares losses over several seeds, with statistics and a report.

    python examples/compare_losses.py --dataset digits --network mlp \\
        --losses ce nllr crl --seeds 5
    python examples/compare_losses.py --dataset cifar10 --network resnet20 \\
        --losses ce nllr crl "crl(beta=-1)" --seeds 10

For one seed, every loss starts from the same weights and sees the same batches
with the same augmentation, so paired tests are right. You can give the same
command again at any time. It skips runs that are done, and a run that was
killed continues after its last epoch.
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.arguments import compare_parser
from crl_keras.experiments.commands.running import run

if __name__ == "__main__":
    run(compare_parser(__doc__), "compare_losses")
