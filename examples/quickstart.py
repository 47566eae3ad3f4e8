"""Trains on real digits with cross-entropy and CRL, from the same weights.

    python examples/quickstart.py

The data are the 1,797 8x8 digits of scikit-learn. Set KERAS_BACKEND, or
--backend, to tensorflow, jax or torch. It takes less than a minute on a CPU.
"""

import argparse
import pathlib
import sys

import _backend  # Before Keras is imported.

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
)
parser.add_argument("--backend", choices=_backend.BACKENDS, help="of Keras")
parser.parse_args()

try:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
except ImportError as error:
    sys.exit(
        f"quickstart: the digits come with scikit-learn ({error}). Install it "
        "with: pip install scikit-learn"
    )

import keras  # noqa: E402

from crl_keras import SparseCompetingRatioLoss  # noqa: E402

digits = load_digits()
x_train, x_test, y_train, y_test = train_test_split(
    digits.images[..., None] / 16.0,  # Pixels are 0 to 16.
    digits.target,
    test_size=0.25,
    stratify=digits.target,
    random_state=0,
)

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Conv2D(64, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),  # Logits: no softmax.
    ]
)
initial_weights = model.get_weights()

losses = {
    "cross-entropy": keras.losses.SparseCategoricalCrossentropy(
        from_logits=True
    ),
    "CRL": SparseCompetingRatioLoss(alpha=1.5, beta=1, from_logits=True),
}
lines = []
for name, loss in losses.items():
    print(f"\nTraining with {name} on {keras.backend.backend()}")
    keras.utils.set_random_seed(1)  # The same batches in the same order.
    model.set_weights(initial_weights)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=64, epochs=30)
    value, accuracy = model.evaluate(x_test, y_test, verbose=0)
    lines.append(f"{name:<13}  accuracy {accuracy:.2%}  its loss {value:.4f}")

print(f"\nOn {len(y_test)} test images, one run each:", *lines, sep="\n  ")
print("(One run proves nothing. docs/loss.md says what to compare.)")
path = pathlib.Path("runs", "quickstart", "crl.keras").resolve()
path.parent.mkdir(parents=True, exist_ok=True)
model.save(path)
print(f"The model trained with CRL is saved in {path}")
