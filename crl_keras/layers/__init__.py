"""Keras layers: augmentation, last layers with a margin, fine-grained pooling.

Those of bilinear CNNs, of DFL-CNN and of DCL are what `crl_keras.methods`
builds its networks of. On `keras` alone.
"""

from crl_keras.layers.alignment import RegionAlignment
from crl_keras.layers.augmentation import RandomPadCrop
from crl_keras.layers.bilinear import BilinearPooling
from crl_keras.layers.bilinear import CompactBilinearPooling
from crl_keras.layers.discriminative import DiscriminativeFilters
from crl_keras.layers.margin import ASoftmaxDense
from crl_keras.layers.margin import LSoftmaxDense
from crl_keras.layers.regions import RegionConfusion

__all__ = [
    "ASoftmaxDense",
    "BilinearPooling",
    "CompactBilinearPooling",
    "DiscriminativeFilters",
    "LSoftmaxDense",
    "RandomPadCrop",
    "RegionAlignment",
    "RegionConfusion",
]


def __dir__():
    return sorted(__all__)
