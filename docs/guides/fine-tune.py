"""
# Fine-tune MobileNetV2 on your own photos

This guide trains a classifier for your photos, in plain Keras code: a backbone
with ImageNet weights, two phases, callbacks, mixed precision. The loss is CRL.

You do not have to write code for this: [fine-tuning](../fine-tuning.md) does
it with one command. Read on if you want to change the training.

It needs TensorFlow for `image_dataset_from_directory`, whatever backend
trains, and Pillow.
"""

import pathlib
import tempfile

import keras
import numpy as np

from crl_keras import SparseCompetingRatioLoss

FOLDER = None  # The folder of your photos.
WEIGHTS = "imagenet"  # None: random weights, without a download.
IMAGE_SIZE = 96
WIDTH = 0.35  # Of MobileNetV2. 1.0 is the usual network.
PHOTOS = 60  # Of each class, if they are drawn.
BATCH_SIZE = 32
HEAD_EPOCHS = 5
EPOCHS = 10
PRECISION = "float32"

"""
## Photos in folders

Put the photos of each class into a folder of its own: `photos/heron/1.jpg`,
`photos/mallard/1.jpg`. If you have none at hand, this cell draws some: stripes
in three directions, with noise.
"""


def draw_photos(folder):
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:96, :96]
    stripes = {
        "across": rows,
        "down": columns,
        "oblique": (rows + columns) / 2**0.5,
    }
    for name, position in stripes.items():
        (folder / name).mkdir(parents=True)
        for i in range(PHOTOS):
            wave = np.sin(position / rng.uniform(2, 5) + rng.uniform(0, 6))
            colour = rng.uniform(0.3, 1, size=3)
            image = 128 + 80 * wave[..., None] * colour
            image += rng.normal(scale=20, size=image.shape)
            path = folder / name / f"{i}.png"
            keras.utils.save_img(path, np.clip(image, 0, 255), scale=False)


if FOLDER is None:
    FOLDER = pathlib.Path(tempfile.mkdtemp(), "photos")
    draw_photos(FOLDER)

keras.utils.set_random_seed(0)
train, validation = keras.utils.image_dataset_from_directory(
    FOLDER,
    validation_split=0.2,
    subset="both",
    seed=0,
    image_size=(IMAGE_SIZE, IMAGE_SIZE),
    batch_size=BATCH_SIZE,
    verbose=False,
)
classes = train.class_names
print(classes)

"""
The labels are integers, so the loss is `SparseCompetingRatioLoss`. Arrays work
as well: `model.fit(images, labels, ...)` with uint8 images.

Keep a test set in another folder, and use it once, at the end.

## Mixed precision

On a GPU, set `PRECISION = "mixed_bfloat16"`, or `"mixed_float16"` on a card
older than Ampere. On a CPU keep `"float32"`. Keras scales the loss for float16
by itself.
"""

keras.config.set_dtype_policy(PRECISION)

"""
## Backbone and head

- The scaling of the pixels is a part of the model. So the saved model takes
  photos as they are.
- The last layer is float32 and gives logits.
"""

backbone = keras.applications.MobileNetV2(
    input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3),
    alpha=WIDTH,
    include_top=False,
    weights=WEIGHTS,
)
inputs = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3))
x = keras.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect")(inputs)
x = keras.layers.Rescaling(1 / 127.5, offset=-1)(x)
x = backbone(x)
x = keras.layers.GlobalAveragePooling2D()(x)
x = keras.layers.Dropout(0.2)(x)
outputs = keras.layers.Dense(len(classes), dtype="float32")(x)
model = keras.Model(inputs, outputs)

"""
For a ResNet-50 of KerasCV, replace the backbone and leave out the offset:

```
backbone = keras_cv.models.ResNetBackbone.from_preset("resnet50_imagenet")
x = keras.layers.Rescaling(1 / 255)(x)
```

## Phase 1: the head alone

The head starts with random weights. Train it first, so that its large
gradients do not destroy the backbone. Keras runs a frozen batch normalisation
with the statistics that came with the weights.
"""

loss = SparseCompetingRatioLoss(alpha=1.5, beta=1.0, from_logits=True)
backbone.trainable = False
model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
history = model.fit(
    train, validation_data=validation, epochs=HEAD_EPOCHS, verbose=0
)
print(f"head: accuracy {history.history['val_accuracy'][-1]:.3f}")

"""
## Phase 2: all layers, small steps

Unfreeze the backbone, but not its batch normalisation. MobileNetV2 updates the
statistics with momentum 0.999, so a short training would leave them between
the old values and the new ones, and the test would be wrong
([why](../fine-tuning.md#batch-normalisation-on-small-sets)).

Set `trainable` on the layers. Do not rely on `backbone(x, training=False)`: in
Keras 3.15.1, `fit` overrides it, and the statistics move.

Compile again after you change `trainable`. Use a rate that is ten times
smaller or less.

`ModelCheckpoint` keeps the epoch with the best validation accuracy, and
`EarlyStopping` ends the training if nothing improves. Both look at the
validation part, never at the test set.
"""

path = FOLDER.parent / "photos.keras"
backbone.trainable = True
for layer in backbone.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.trainable = False
steps = EPOCHS * len(train)
model.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-4, steps)),
    loss,
    metrics=["accuracy"],
)
history = model.fit(
    train,
    validation_data=validation,
    epochs=EPOCHS,
    callbacks=[
        keras.callbacks.ModelCheckpoint(
            path, monitor="val_accuracy", save_best_only=True
        ),
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=5),
    ],
    verbose=0,
)
print(f"all layers: accuracy {max(history.history['val_accuracy']):.3f}")

"""
If the training loss rises, halve the rate: CRL's steps are up to 1.67 times as
long as those of cross-entropy.

## Load and predict

`import crl_keras` before you load the model. The softmax turns logits into
probabilities; [calibrate](calibration.md) them if you use them.
"""

model = keras.saving.load_model(path)
photo = next(pathlib.Path(FOLDER, classes[0]).iterdir())
image = keras.utils.load_img(photo, target_size=(IMAGE_SIZE, IMAGE_SIZE))
logits = model.predict(np.array(image)[None], verbose=0)
probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))[0]
print(f"{photo.parent.name} is taken for {classes[probabilities.argmax()]}")

"""
## Next

- [When something goes wrong](../troubleshooting.md)
- [Is it better than cross-entropy?](compare.md) `compare_losses` takes the two
  pipelines of this guide.
- [Fine-tuning](../fine-tuning.md) from the command line computes the
  statistics of batch normalisation again, reads other formats, resumes, and
  writes a report.
"""
