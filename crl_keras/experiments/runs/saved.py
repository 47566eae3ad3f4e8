"""Saves a trained model, compiled, with its inputs and outputs described."""

from crl_keras.experiments.runs.records import replacing
from crl_keras.experiments.runs.records import write_json


def save_model(folder, config, feed, model, deployed, exif=True):
    """Writes model.keras and model.json into the folder of a run.

    model.keras is `deployed` with the loss and the optimizer of training:
    after `import crl_keras`, `keras.models.load_model` gives a model whose
    `evaluate` and `fit` work.

    Args:
        folder: `RunFolder`.
        config: `RunConfig`.
        feed: `Feed` that the model was trained with.
        model: the compiled `keras.Model` that was trained.
        deployed: the same without augmentation, from uint8 images to logits.
        exif: bool, whether images were turned upright when they were read.
    """
    optimizer = model.optimizer
    if hasattr(model, "unaugmented"):
        # The saved model lacks some heads: it needs a new optimizer.
        optimizer = type(optimizer).from_config(optimizer.get_config())
        optimizer.build(deployed.trainable_variables)
    deployed.compile(optimizer, model.loss, metrics=["accuracy"])
    with replacing(folder.path / "model.keras") as temporary:
        deployed.save(temporary)
    write_json(folder.path / "model.json", model_info(config, feed, exif))


def model_info(config, feed, exif=True):
    """Returns model.json: the inputs, outputs and origin of the model."""
    crop = feed.crop
    channels = feed.input_shape[2]
    return dict(
        classes=list(feed.dataset.class_names),
        input_shape=list(feed.input_shape),
        # Pixels as in image files: the model scales them.
        input_dtype="uint8",
        input_range=[0, 255],
        input_channels={1: "grey", 3: "RGB"}.get(channels, f"{channels}"),
        output="logits",
        labels="one-hot" if config.recipe.soft_labels else "integers",
        # Images that were not cropped are only resized.
        resize_ratio=1.0 if crop is None else crop.resize_ratio,
        keep_aspect=False if crop is None else crop.keep_aspect,
        crop_to_box=config.crop_to_box,
        # Images from TensorFlow Datasets are read as stored, not turned.
        exif=exif and feed.dataset.kind != "tfds",
        dataset=feed.dataset.name,
        network=config.network,
        loss=config.loss,
    )
