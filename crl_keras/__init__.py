"""The Competing Ratio Loss (CRL) for Keras 3."""

import os

from crl_keras.version import __version__ as __version__

# Set by examples/make_report.py: reports are made from records alone, on
# machines that may have no backend, and importing the losses loads one.
if os.environ.get("CRL_KERAS_RECORDS_ONLY") != "1":
    # All that a saved model may hold registers itself here.
    from crl_keras import calibration as calibration
    from crl_keras import layers as layers
    from crl_keras import losses as losses
    from crl_keras import metrics as metrics
    from crl_keras import optimizers as optimizers
    from crl_keras.losses import CompetingRatioLoss as CompetingRatioLoss
    from crl_keras.losses import (
        SparseCompetingRatioLoss as SparseCompetingRatioLoss,
    )
    from crl_keras.losses import competing_ratio_loss as competing_ratio_loss
    from crl_keras.losses import (
        sparse_competing_ratio_loss as sparse_competing_ratio_loss,
    )
