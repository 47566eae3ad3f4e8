"""Fine-tunes a backbone on any folder of images, or set of TensorFlow Datasets.

    python examples/finetune.py --dataset folder:~/data/flowers \\
        --backbone mobilenet_v2
    python examples/finetune.py --dataset tfds:oxford_flowers102 \\
        --backbone resnet50 --losses ce crl --seeds 5

The folder has one folder of images for each class, which may lie in train and
test folders. All else is as in examples/finetune_cub.py.
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.arguments import finetune_parser
from crl_keras.experiments.commands.running import run

if __name__ == "__main__":
    run(finetune_parser(__doc__, None), "finetune")
