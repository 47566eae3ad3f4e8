"""Imports optional packages when needed, and names those missing."""

import importlib


def install_command(extra):
    """Returns how to install an extra of crl-keras, from a clone or an index.

    Extras are written with hyphens: if the package says `keras-cv`, pip 23.2
    and older install nothing for `keras_cv` and only warn.

    >>> install_command("keras-cv").partition(",")[0]
    'pip install ".[keras-cv]" in a clone of the repository'
    """
    return (
        f'pip install ".[{extra}]" in a clone of the repository, or pip '
        f'install "crl-keras[{extra}]" from a package index'
    )


def require(module, extra="experiments"):
    """Imports and returns an optional module.

    Args:
        module: str, the name to import, such as `"scipy.io"`.
        extra: str, the extra of crl-keras that installs it, as pyproject.toml
            spells it; `"experiments"` by default.

    Raises:
        ImportError: if it cannot be imported; the message has the reason and
            the pip commands.

    >>> require("json").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is needed here and could not be imported ({error}). "
            f"Install it with: {install_command(extra)}",
            name=package,
        ) from error
