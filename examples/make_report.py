"""Writes the report on an experiment again, from its records alone.

    python examples/make_report.py runs/digits-mlp
    python examples/make_report.py runs/digits-mlp --baseline nllr

RUNS is the folder that examples/compare_losses.py wrote; unfinished runs are
left out. Loads no backend: it runs where Keras cannot. The tables go to the
terminal; report.html, table.md, table.csv, table.tex and calibration.csv to
RUNS/report.
"""

import argparse
import os
import sys

# The package leaves its losses out then, and with them Keras.
os.environ["CRL_KERAS_RECORDS_ONLY"] = "1"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", metavar="RUNS", help="folder of the records")
    parser.add_argument(
        "--baseline",
        help="loss the others are compared with (ce, or the first there is)",
    )
    parser.add_argument("--output", help="folder of the report (RUNS/report)")
    arguments = parser.parse_args()

    from crl_keras.experiments.analysis.report import write_report

    try:
        write_report(arguments.runs, arguments.output, arguments.baseline)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"make_report: {error}")


if __name__ == "__main__":
    main()
