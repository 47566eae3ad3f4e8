"""The Competing Ratio Loss (CRL) for Keras 3."""

from crl_keras.losses import CompetingRatioLoss as CompetingRatioLoss
from crl_keras.losses import SparseCompetingRatioLoss as SparseCompetingRatioLoss
from crl_keras.losses import competing_ratio_loss as competing_ratio_loss
from crl_keras.losses import (
    sparse_competing_ratio_loss as sparse_competing_ratio_loss,
)
from crl_keras.version import __version__ as __version__
