"""The command `crl-keras`, which does all that the example scripts do.

It makes the parser of the given command only, so that --help is fast.
"""

import argparse
import importlib
import os

from crl_keras.experiments._optional import require

ROOM = "crl_keras.experiments.commands"
FINETUNE = {
    "cub": "the 200 birds of CUB-200-2011",
    "cars": "the 196 models of Stanford Cars",
    "adience": "the eight age groups of Adience, fold by fold",
    "folder": "your own folder of images, or a set of TensorFlow Datasets: "
    "--dataset",
}
COMMANDS = {
    "demo": "compare cross-entropy, NLLR and CRL on real digits, in a minute",
    "compare": "compare losses over several seeds, with statistics and a "
    "report",
    "finetune": "fine-tune a backbone on: " + ", ".join(FINETUNE),
    "predict": "classify images with a model saved by finetune",
    "export": "export a saved model for other runtimes and phones",
    "report": "write the report on a folder of runs again",
    "results": "compare results of any framework from a CSV file",
    "reproduce": "rerun the tables and figures of the paper",
}


def main(argv):
    """Runs a command; returns the exit code."""
    if "_ARGCOMPLETE" in os.environ:
        complete()
    words = 2 if argv[:1] == ["finetune"] else 1
    name, commands = " ".join(argv[:words]), _commands()
    if name not in commands:
        parser = finetune_parser() if words == 2 else main_parser()
        # Prints the error or the help, and exits.
        parser.parse_args(argv[words - 1 : words] or ["--help"])
        return 2
    make, run = commands[name]
    parser = make()
    parser.prog = f"crl-keras {name}"
    run(parser, parser.prog, argv[words:])
    return 0


def main_parser():
    """The parser of the command name; its help is the help of `crl-keras`."""
    from crl_keras.version import __version__

    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {about}" for name, about in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="crl-keras",
        usage="crl-keras COMMAND ...",
        description="The Competing Ratio Loss for Keras: does it help?",
        epilog="commands:\n"
        + "\n".join(lines)
        + "\n\ncrl-keras COMMAND --help lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS
    )
    return parser


def finetune_parser():
    """The parser of the word after `finetune`."""
    lines = [f"  {name:8} {about}" for name, about in FINETUNE.items()]
    parser = argparse.ArgumentParser(
        prog="crl-keras finetune",
        usage="crl-keras finetune DATA ...",
        description="Fine-tunes a backbone of KerasCV, KerasHub or Keras.",
        epilog="data:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "data", choices=FINETUNE, metavar="DATA", help=argparse.SUPPRESS
    )
    return parser


def _commands():
    """For each command, a function that makes its parser and one to run it."""
    run = _run("running", "run")
    compare = _maker("arguments", "compare_parser", COMMANDS["compare"])
    found = {"demo": (_demo_parser, run), "compare": (compare, run)}
    for name in ("predict", "export", "report", "results", "reproduce"):
        module = "report" if name == "results" else name
        found[name] = (
            _maker(module, f"{name}_parser", COMMANDS[name]),
            _run(module, f"run_{name}"),
        )
    for data, about in FINETUNE.items():
        dataset = None if data == "folder" else data
        found[f"finetune {data}"] = (
            _maker("arguments", "finetune_parser", about, dataset),
            run,
        )
    return found


def _call(module, function):
    return getattr(importlib.import_module(f"{ROOM}.{module}"), function)


def _maker(module, function, about, *arguments):
    about = f"{about[0].upper()}{about[1:]}."
    return lambda: _call(module, function)(about, *arguments)


def _run(module, function):
    return lambda parser, name, argv: _call(module, function)(
        parser, name, argv
    )


def _demo_parser():
    """The parser of `compare` with another default --output."""
    parser = _maker("arguments", "compare_parser", COMMANDS["demo"])()
    parser.set_defaults(output="runs/demo")
    return parser


def complete():
    """Completes words for the shell with argcomplete."""
    argcomplete = require("argcomplete", "completion")
    parser = argparse.ArgumentParser(prog="crl-keras")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    finetune = commands.add_parser("finetune").add_subparsers()
    for name, (make, _) in _commands().items():
        first, _, data = name.partition(" ")
        made = make()
        (finetune if data else commands).add_parser(
            data or first, parents=[made], conflict_handler="resolve"
        )
    argcomplete.autocomplete(parser)
