"""Chooses Keras's backend for a script, before anything imports Keras.

It is that of --backend, KERAS_BACKEND or Keras's own file, in this order. Where
none is named and the one that Keras would take is not installed, the first that
is: so a script runs with whatever backend there is.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import sys

BACKENDS = ("tensorflow", "jax", "torch")


def choose(argv, environment, installed):
    """The name of the backend.

    Args:
        argv: The arguments of the script.
        environment: A mapping such as `os.environ`.
        installed: Function that says whether a backend is there.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--backend")
    asked = parser.parse_known_args(argv)[0].backend
    if asked in BACKENDS:  # Of others the script itself says what is wrong.
        return asked
    if environment.get("KERAS_BACKEND"):
        return environment["KERAS_BACKEND"]
    home = pathlib.Path(environment.get("KERAS_HOME", "~/.keras")).expanduser()
    try:
        usual = json.loads((home / "keras.json").read_text())["backend"]
    except (OSError, ValueError, KeyError):
        usual = "tensorflow"
    return next(filter(installed, (usual, *BACKENDS)), usual)


os.environ["KERAS_BACKEND"] = choose(
    sys.argv[1:],
    os.environ,
    lambda name: importlib.util.find_spec(name) is not None,
)
