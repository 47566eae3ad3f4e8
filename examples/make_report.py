"""Writes the report on an experiment again, from its records only.

    python examples/make_report.py runs/digits-mlp
    python examples/make_report.py runs/digits-mlp --baseline nllr

RUNS is the folder that examples/compare_losses.py wrote. Unfinished runs are
left out. The program loads no backend, so it runs on machines without one. It
prints the tables, and writes report.html, table.md, table.csv, table.tex and
calibration.csv to RUNS/report. With a single loss, the report describes the
model, and there is classes.csv too.
"""

import os

# With this, the package imports neither its losses nor Keras.
os.environ["CRL_KERAS_RECORDS_ONLY"] = "1"

from crl_keras.experiments.commands.report import report_parser  # noqa: E402
from crl_keras.experiments.commands.report import run_report  # noqa: E402

if __name__ == "__main__":
    run_report(report_parser(__doc__), "make_report")
