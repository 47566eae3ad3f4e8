"""What happens before Keras is imported: the entry point of `crl-keras`.

Keras chooses its backend when it is imported, and `crl_keras` imports Keras.
So the choice is made here, outside of the package; and help and reports, which
need no backend, load none.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import pathlib
import sys
import tempfile

BACKENDS = ("tensorflow", "jax", "torch")
WITHOUT = {"-h", "--help", "--list-backbones", "--report"}
TRAINING = {
    "demo",
    "compare",
    "finetune",
    "predict",
    "export",
}  # And reproduce, maybe.


def choose(argv, environment, installed):
    """The name of the backend.

    It is that of --backend, KERAS_BACKEND or Keras's own file, in this order.
    Where none is named and the one that Keras would take is not installed, the
    first that is: so a command runs with whatever backend there is.

    Args:
        argv: The arguments of the command.
        environment: A mapping such as `os.environ`.
        installed: Function that says whether a backend is there.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--backend")
    asked = parser.parse_known_args(argv)[0].backend
    if asked in BACKENDS:  # Of others the command itself says what is wrong.
        return asked
    if environment.get("KERAS_BACKEND"):
        return environment["KERAS_BACKEND"]
    home = pathlib.Path(environment.get("KERAS_HOME", "~/.keras")).expanduser()
    try:
        usual = json.loads((home / "keras.json").read_text())["backend"]
    except (OSError, ValueError, KeyError):
        usual = "tensorflow"
    return next(filter(installed, (usual, *BACKENDS)), usual)


def missing(backend, installed):
    """What to do about a backend that is not installed, or None if it is."""
    if installed(backend):
        return None
    others = list(filter(installed, BACKENDS))
    if not others:
        return (
            "Keras needs a backend, and none is installed. Install one with: "
            'pip install ".[jax]" (or tensorflow, or torch) in a clone of the '
            'repository, or pip install "crl-keras[jax]"'
        )
    return (
        f"Keras is told to use {backend}, which is not installed. Choose "
        f"{' or '.join(others)} with --backend or KERAS_BACKEND, or install it "
        f'with: pip install ".[{backend}]" in a clone of the repository, or '
        f'pip install "crl-keras[{backend}]"'
    )


def prepare(needed=True):
    """Sets the environment of this process, before Keras is imported.

    Ends the process if the backend is not installed, but for arguments that
    need none, or where it is not `needed`.
    """
    os.environ["KERAS_BACKEND"] = choose(sys.argv[1:], os.environ, _installed)
    # TensorFlow would print lines about the processor in front of the output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if WITHOUT.intersection(sys.argv):
        # The package leaves its losses out, and with them Keras.
        os.environ["CRL_KERAS_RECORDS_ONLY"] = "1"
    elif needed and (
        message := missing(os.environ["KERAS_BACKEND"], _installed)
    ):
        sys.exit(f"{pathlib.Path(sys.argv[0]).stem}: {message}")
    # Keras imports TensorFlow on other backends too, if it is there.
    sys.meta_path.insert(0, QuietTensorFlow())


class QuietTensorFlow:
    """A finder of `sys.meta_path` that lets TensorFlow start quietly."""

    def find_spec(self, name, path, target=None):
        if name != "tensorflow":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(name, path, target) for finder in others)
        spec = next(filter(None, found), None)
        if spec is not None:
            start = spec.loader.exec_module

            def quietly(module):
                with quiet_start():
                    start(module)

            spec.loader.exec_module = quietly
        return spec


@contextlib.contextmanager
def quiet_start():
    """Hides what a library writes to the terminal while it is imported.

    On some processors TensorFlow 2.21 writes four lines about oneDNN, whatever
    TF_CPP_MIN_LOG_LEVEL says, from code that Python's `sys.stderr` does not
    reach. If the import fails, they are written after all.
    """
    try:
        sys.stderr.flush()
        terminal = os.dup(2)
    except (AttributeError, OSError):  # Closed: there is nothing to hide.
        yield
        return
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            hidden.seek(0)
            os.write(terminal, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def _installed(name):
    return importlib.util.find_spec(name) is not None


def main():
    """The command `crl-keras`."""
    prepare(needed=bool(TRAINING.intersection(sys.argv[1:2])))
    # What trains imports the losses, and with them Keras, by itself.
    os.environ["CRL_KERAS_RECORDS_ONLY"] = "1"
    from crl_keras.experiments.commands.main import main

    del os.environ["CRL_KERAS_RECORDS_ONLY"]  # Worker processes import all.
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    main()
