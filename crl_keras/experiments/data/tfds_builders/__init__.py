"""Builders for data sets that TensorFlow Datasets lacks or no longer loads.

Importing this package registers them:

    import tensorflow_datasets as tfds

    import crl_keras.experiments.data.tfds_builders

    config = tfds.download.DownloadConfig(manual_dir="/data/adience")
    train = tfds.load(
        "adience/fold_0",
        split="train",
        download_and_prepare_kwargs={"download_config": config},
    )

`adience` has a configuration for each fold, `fold_0` to `fold_4`.
`stanford_cars` reads any layout of `read_cars`; TFDS's own `cars196` downloads
from addresses that no longer exist. Both read the files from `manual_dir`, by
default ~/tensorflow_datasets/downloads/manual. For CUB-200-2011, TFDS itself
has `caltech_birds2011`, from version 4.9.10.

The default format, tfrecord, is built with TensorFlow and read by `tfds.load`.
With `file_format="array_record"`, neither building nor `tfds.data_source` needs
TensorFlow.
"""

from crl_keras.experiments.data.tfds_builders.adience import Adience as Adience
from crl_keras.experiments.data.tfds_builders.stanford_cars import (
    StanfordCars as StanfordCars,
)
