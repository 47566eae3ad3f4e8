"""Layers: a random crop, and the heads of the large-margin losses."""

from crl_keras.layers.margin import ASoftmaxDense
from crl_keras.layers.margin import LSoftmaxDense
from crl_keras.layers.margin import MarginDense
from crl_keras.layers.margin import RandomPadCrop

__all__ = ["ASoftmaxDense", "LSoftmaxDense", "MarginDense", "RandomPadCrop"]
