"""Three fine-grained methods under any backbone: B-CNN, DFL-CNN and DCL.

Each method is one Keras model. Train it with `compile` and `fit` and any loss
that takes logits; `predict` returns class logits. The methods need `keras`
only.
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
