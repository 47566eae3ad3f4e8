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
from crl_keras.losses.dual_cross_entropy import (
    DualCrossEntropy as DualCrossEntropy,
)
from crl_keras.losses.dual_cross_entropy import (
    SparseDualCrossEntropy as SparseDualCrossEntropy,
)
from crl_keras.losses.dual_cross_entropy import (
    dual_cross_entropy as dual_cross_entropy,
)
from crl_keras.losses.dual_cross_entropy import (
    sparse_dual_cross_entropy as sparse_dual_cross_entropy,
)
from crl_keras.losses.focal import FocalLoss as FocalLoss
from crl_keras.losses.focal import SparseFocalLoss as SparseFocalLoss
from crl_keras.losses.focal import focal_loss as focal_loss
from crl_keras.losses.focal import sparse_focal_loss as sparse_focal_loss
from crl_keras.losses.large_margin import (
    SparseMarginCrossEntropy as SparseMarginCrossEntropy,
)
from crl_keras.losses.large_margin import (
    sparse_a_softmax_loss as sparse_a_softmax_loss,
)
from crl_keras.losses.large_margin import (
    sparse_l_softmax_loss as sparse_l_softmax_loss,
)
from crl_keras.losses.large_margin import (
    sparse_margin_cross_entropy as sparse_margin_cross_entropy,
)
from crl_keras.losses.released import (
    ReleasedCompetingRatioLoss as ReleasedCompetingRatioLoss,
)
from crl_keras.losses.released import (
    released_competing_ratio_loss as released_competing_ratio_loss,
)
from crl_keras.losses.tamed_cross_entropy import (
    SparseTamedCrossEntropy as SparseTamedCrossEntropy,
)
from crl_keras.losses.tamed_cross_entropy import (
    TamedCrossEntropy as TamedCrossEntropy,
)
from crl_keras.losses.tamed_cross_entropy import (
    sparse_tamed_cross_entropy as sparse_tamed_cross_entropy,
)
from crl_keras.losses.tamed_cross_entropy import (
    tamed_cross_entropy as tamed_cross_entropy,
)
