"""Builders for TensorFlow Datasets of sets that it has not, or not any more.

Importing this package registers them:

    import tensorflow_datasets as tfds

    import crl_keras.experiments.data.tfds_builders

    config = tfds.download.DownloadConfig(manual_dir="/data/adience")
    train = tfds.load(
        "adience/fold_0",
        split="train",
        download_and_prepare_kwargs={"download_config": config},
    )

`adience` has a configuration for each fold, `fold_0` to `fold_4`;
`stanford_cars` reads any layout of `read_cars`, where TFDS's own `cars196`
downloads from addresses that are gone. Both take the files from `manual_dir`,
by default ~/tensorflow_datasets/downloads/manual. CUB-200-2011 is TFDS's own
`caltech_birds2011`, from version 4.9.10.

Built with TensorFlow, the default format, tfrecord, is read by `tfds.load`;
with `file_format="array_record"` neither building nor `tfds.data_source`
needs TensorFlow.
"""

from crl_keras.experiments.data.tfds_builders.adience import Adience as Adience
from crl_keras.experiments.data.tfds_builders.stanford_cars import (
    StanfordCars as StanfordCars,
)
