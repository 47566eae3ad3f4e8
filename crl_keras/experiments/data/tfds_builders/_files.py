"""Code that both builders share: makes TFDS examples of a `FileDataset`."""

import pathlib

from crl_keras.experiments._optional import require

# TFDS 4.9.10 imports this package without declaring it.
require("importlib_resources", "tfds")
tfds = require("tensorflow_datasets", "tfds")


class FileBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders; subclasses have `_info` and `_read`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}

    def _split_generators(self, dl_manager):
        dataset = self._read(dl_manager.manual_dir)
        names = dataset.class_names
        return {
            "train": self._generate_examples(dataset.train, names),
            "test": self._generate_examples(dataset.test, names),
        }

    def _generate_examples(self, split, class_names):
        for i, path in enumerate(split.paths):
            # The key does not depend on the location of the files.
            name = "/".join(pathlib.PurePath(path).parts[-2:])
            example = {
                # A path: TFDS keeps the file's bytes and encodes nothing.
                "image": path,
                "image/filename": name,
                # A name: a partial set has fewer classes than the builder.
                "label": class_names[split.labels[i]],
            }
            yield name, example | self._more(split, i)

    def _more(self, split, i):
        return {}


def features(class_names, **more):
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                shape=(None, None, 3), encoding_format="jpeg"
            ),
            "image/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=class_names),
            **more,
        }
    )
