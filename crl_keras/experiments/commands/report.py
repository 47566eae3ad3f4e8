"""The commands for reports on runs and on results from a CSV file."""

from crl_keras.experiments.commands.arguments import new_parser
from crl_keras.experiments.commands.running import errors_end_script


def report_parser(description):
    """The parser of examples/make_report.py."""
    parser = new_parser(description)
    parser.add_argument("runs", metavar="RUNS", help="folder of the records")
    parser.add_argument(
        "--baseline",
        help="compare the other losses with this one (ce, or the first)",
    )
    parser.add_argument(
        "--rates-by-seed",
        action="store_true",
        help="choose the learning rate of a loss for each seed "
        "(one rate for all seeds)",
    )
    parser.add_argument("--output", help="folder of the report (RUNS/report)")
    return parser


def run_report(parser, name, argv=None):
    """Parses the arguments, prints the tables and writes the report."""
    arguments = parser.parse_args(argv)
    from crl_keras.experiments.analysis.report import write_report

    with errors_end_script(name):
        write_report(
            arguments.runs,
            arguments.output,
            arguments.baseline,
            rates_by_seed=arguments.rates_by_seed,
        )


def results_parser(description):
    """The parser of `crl-keras results`."""
    parser = new_parser(description)
    parser.add_argument(
        "file",
        metavar="FILE.csv",
        help="one row for each run; columns loss, seed, and error or accuracy",
    )
    parser.add_argument(
        "--baseline", help="compare the other losses with this one (the first)"
    )
    parser.add_argument(
        "--unpaired",
        action="store_true",
        help="do not pair runs of the same seed: Welch's test",
    )
    parser.add_argument(
        "--percent",
        action="store_true",
        help="numbers are in percent (automatic if one is above 1)",
    )
    parser.add_argument("--output", help="HTML file of the report")
    return parser


def run_results(parser, name, argv=None):
    """Parses the arguments and compares the results in a file."""
    arguments = parser.parse_args(argv)
    from crl_keras.comparing import compare_results

    with errors_end_script(name):
        comparison = compare_results(
            arguments.file,
            arguments.baseline,
            paired=False if arguments.unpaired else "auto",
            percent=True if arguments.percent else "auto",
        )
        print(comparison)
        if arguments.output:
            print(f"Written: {comparison.report(arguments.output)}")
