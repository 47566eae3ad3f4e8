"""Fine-tunes a backbone on the 200 birds of CUB-200-2011.

    python examples/finetune_cub.py --backbone resnet50 \\
        --data-dir ~/data/CUB_200_2011
    python examples/finetune_cub.py --backbone resnet50 \\
        --data-dir ~/data/CUB_200_2011 --losses ce crl --seeds 5

Trains with CRL, or compares the losses that are named, over seeds that are
pairs. Writes the trained models, their records and a report below
runs/cub-LIBRARY-BACKBONE; the same command goes on where it was stopped. For
the names of the birds in a photo see examples/predict.py; for how to get the
data set, docs/data.md. KerasCV needs TensorFlow on every backend; --library
keras does without. A GPU makes it hours instead of weeks.
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.arguments import finetune_parser
from crl_keras.experiments.commands.running import run

if __name__ == "__main__":
    run(finetune_parser(__doc__, "cub"), "finetune_cub")
