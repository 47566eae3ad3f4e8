"""Reruns the tables and figures of the paper, arXiv:1912.11642.

    python examples/reproduce.py table3 --list
    python examples/reproduce.py table3 --scale short --data-dir data
    python examples/reproduce.py table3 --scale short --report
    python examples/reproduce.py fig2

--list prints the runs with their commands and their cost. --report prints the
table with the results so far: paper | ours, mean and deviation (n) |
difference. Without these options, the program trains the runs that are not done
yet, and a run that was killed continues after its last epoch. Tables share the
runs that they have in common. docs/reproduction.md explains the rest.
"""

import _backend  # noqa: F401  Before Keras is imported.

from crl_keras.experiments.commands.reproduce import reproduce_parser
from crl_keras.experiments.commands.reproduce import run_reproduce

if __name__ == "__main__":
    run_reproduce(reproduce_parser(__doc__))
