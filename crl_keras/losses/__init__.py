"""Losses for classification, as functions and as `keras.losses.Loss`."""

from crl_keras.losses.competing_ratio import CompetingRatioLoss
from crl_keras.losses.competing_ratio import SparseCompetingRatioLoss
from crl_keras.losses.competing_ratio import competing_ratio_loss
from crl_keras.losses.competing_ratio import sparse_competing_ratio_loss
from crl_keras.losses.dual_cross_entropy import DualCrossEntropy
from crl_keras.losses.dual_cross_entropy import SparseDualCrossEntropy
from crl_keras.losses.dual_cross_entropy import dual_cross_entropy
from crl_keras.losses.dual_cross_entropy import sparse_dual_cross_entropy
from crl_keras.losses.focal import FocalLoss
from crl_keras.losses.focal import SparseFocalLoss
from crl_keras.losses.focal import focal_loss
from crl_keras.losses.focal import sparse_focal_loss
from crl_keras.losses.large_margin import SparseMarginCrossEntropy
from crl_keras.losses.large_margin import sparse_a_softmax_loss
from crl_keras.losses.large_margin import sparse_l_softmax_loss
from crl_keras.losses.large_margin import sparse_margin_cross_entropy
from crl_keras.losses.released import ReleasedCompetingRatioLoss
from crl_keras.losses.released import released_competing_ratio_loss
from crl_keras.losses.step_matching import StepMatchedCrossEntropy
from crl_keras.losses.step_matching import StepNormalizedLoss
from crl_keras.losses.tamed_cross_entropy import SparseTamedCrossEntropy
from crl_keras.losses.tamed_cross_entropy import TamedCrossEntropy
from crl_keras.losses.tamed_cross_entropy import sparse_tamed_cross_entropy
from crl_keras.losses.tamed_cross_entropy import tamed_cross_entropy

__all__ = [
    "CompetingRatioLoss",
    "DualCrossEntropy",
    "FocalLoss",
    "ReleasedCompetingRatioLoss",
    "SparseCompetingRatioLoss",
    "SparseDualCrossEntropy",
    "SparseFocalLoss",
    "SparseMarginCrossEntropy",
    "SparseTamedCrossEntropy",
    "StepMatchedCrossEntropy",
    "StepNormalizedLoss",
    "TamedCrossEntropy",
    "competing_ratio_loss",
    "dual_cross_entropy",
    "focal_loss",
    "released_competing_ratio_loss",
    "sparse_a_softmax_loss",
    "sparse_competing_ratio_loss",
    "sparse_dual_cross_entropy",
    "sparse_focal_loss",
    "sparse_l_softmax_loss",
    "sparse_margin_cross_entropy",
    "sparse_tamed_cross_entropy",
    "tamed_cross_entropy",
]


def __dir__():
    return sorted(__all__)
