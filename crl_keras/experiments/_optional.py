"""Optional packages: imported when needed, named when missing."""

import importlib


def require(module, extra="experiments"):
    """Imports and returns an optional module.

    Args:
        module: str, the name to import, such as `"scipy.io"`.
        extra: str, the extra of crl-keras that brings it; `"experiments"` by
            default.

    Raises:
        ImportError: if it cannot be imported; names the pip command and the
            reason.

    >>> require("json").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(
            f"{package} is needed here and could not be imported ({error}). "
            f'Install it with: pip install "crl-keras[{extra}]"',
            name=package,
        ) from error
