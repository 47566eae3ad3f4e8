"""The Competing Ratio Loss (CRL) for Keras 3."""

import os

from crl_keras.comparing import Comparison
from crl_keras.comparing import compare_losses
from crl_keras.comparing import compare_results
from crl_keras.version import __version__

__all__ = ["Comparison", "__version__", "compare_losses", "compare_results"]

# examples/make_report.py sets this variable. It makes reports from records
# alone, on machines that may have no backend. Importing the losses loads a
# backend.
if os.environ.get("CRL_KERAS_RECORDS_ONLY") != "1":
    # These imports register all classes that a saved model may contain.
    from crl_keras import calibration
    from crl_keras import layers
    from crl_keras import losses
    from crl_keras import methods
    from crl_keras import metrics
    from crl_keras import networks
    from crl_keras import optimizers
    from crl_keras.losses import CompetingRatioLoss
    from crl_keras.losses import SparseCompetingRatioLoss
    from crl_keras.losses import competing_ratio_loss
    from crl_keras.losses import sparse_competing_ratio_loss

    __all__ += [
        "CompetingRatioLoss",
        "SparseCompetingRatioLoss",
        "calibration",
        "competing_ratio_loss",
        "layers",
        "losses",
        "methods",
        "metrics",
        "networks",
        "optimizers",
        "sparse_competing_ratio_loss",
    ]


def __dir__():
    return sorted(__all__)
