"""Adience for TensorFlow Datasets."""

from crl_keras.experiments.data.adience import AGE_GROUPS
from crl_keras.experiments.data.adience import FOLDS
from crl_keras.experiments.data.adience import SOURCE
from crl_keras.experiments.data.adience import read_adience
from crl_keras.experiments.data.tfds_builders._files import FileBuilder
from crl_keras.experiments.data.tfds_builders._files import features
from crl_keras.experiments.data.tfds_builders._files import tfds


class Adience(FileBuilder):
    """The aligned faces of Adience in eight age groups, one config per fold.

    The split `test` is the fold, `train` is the other four folds, as in
    `read_adience`.
    """

    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(
            name=f"fold_{fold}", description=f"Tested on fold {fold}."
        )
        for fold in range(FOLDS)
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Put aligned.tar.gz, or the folder aligned, and fold_0_data.txt to "
        f"fold_4_data.txt there. {SOURCE}."
    )

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description="Faces in eight age groups, in five folds that share "
            "no people.",
            features=features(AGE_GROUPS),
            supervised_keys=("image", "label"),
            homepage="https://talhassner.github.io/home/projects/Adience/"
            "Adience-data.html",
        )

    def _read(self, folder):
        fold = int(self.builder_config.name.removeprefix("fold_"))
        return read_adience(folder, fold)
