"""Writes the report on an experiment again, from its records alone.

    python examples/make_report.py runs/digits-mlp
    python examples/make_report.py runs/digits-mlp --baseline nllr

RUNS is the folder that examples/compare_losses.py wrote; unfinished runs are
left out. Loads no backend: it runs where Keras cannot. The tables go to the
terminal; report.html, table.md, table.csv, table.tex and calibration.csv to
RUNS/report. Of a single loss it is a report on the model, with classes.csv.
"""

import os

# The package leaves its losses out then, and with them Keras.
os.environ["CRL_KERAS_RECORDS_ONLY"] = "1"

from crl_keras.experiments.commands.report import report_parser  # noqa: E402
from crl_keras.experiments.commands.report import run_report  # noqa: E402

if __name__ == "__main__":
    run_report(report_parser(__doc__), "make_report")
