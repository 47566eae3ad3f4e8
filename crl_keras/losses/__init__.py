"""Losses for classification, as functions and as `keras.losses.Loss`."""

from crl_keras.losses.competing_ratio import (
    CompetingRatioLoss as CompetingRatioLoss,
)
from crl_keras.losses.competing_ratio import (
    SparseCompetingRatioLoss as SparseCompetingRatioLoss,
)
from crl_keras.losses.competing_ratio import (
    competing_ratio_loss as competing_ratio_loss,
)
from crl_keras.losses.competing_ratio import (
    sparse_competing_ratio_loss as sparse_competing_ratio_loss,
)
