"""Fine-tunes a backbone on the 200 birds of CUB-200-2011.

    python examples/finetune_cub.py --backbone resnet50 \\
        --data-dir ~/data/CUB_200_2011
    python examples/finetune_cub.py --backbone resnet50 \\
        --data-dir ~/data/CUB_200_2011 --losses ce crl --seeds 5

The program trains with CRL, or compares the losses that you name, with the same
seeds for all losses. It writes the trained models, their records and a report
to runs/cub-LIBRARY-BACKBONE. If it was stopped, the same command continues.
examples/predict.py names the birds in a photo; docs/data.md says how to get the
data set. KerasCV needs TensorFlow on every backend, --library keras does not.
Training takes hours on a GPU, and weeks without one.
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.arguments import finetune_parser
from crl_keras.experiments.commands.running import run

if __name__ == "__main__":
    run(finetune_parser(__doc__, "cub"), "finetune_cub")
