"""Three fine-grained methods under any backbone: B-CNN, DFL-CNN and DCL.

Each is one Keras model that trains by `compile` and `fit` with any loss from
logits, and whose `predict` gives class logits. On `keras` alone.
"""

from crl_keras.methods.bilinear import bilinear_cnn
from crl_keras.methods.destruction import dcl
from crl_keras.methods.discriminative import dfl_cnn
from crl_keras.methods.heads import Head
from crl_keras.methods.heads import MultiHeadClassifier
from crl_keras.methods.taps import find_tap

__all__ = [
    "Head",
    "MultiHeadClassifier",
    "bilinear_cnn",
    "dcl",
    "dfl_cnn",
    "find_tap",
]


def __dir__():
    return sorted(__all__)
