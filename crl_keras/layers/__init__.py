"""Keras layers: augmentation, last layers with a margin, fine-grained pooling.

`crl_keras.methods` builds its networks with the layers for bilinear CNNs,
DFL-CNN and DCL. The layers need `keras` only.
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
