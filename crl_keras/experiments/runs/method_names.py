"""Names and options of the fine-grained methods, as data.

A method is part of the name of a network: "keras/resnet50+dcl" is DCL on that
backbone, "keras/resnet50+dcl(gamma=0.01)" changes the weight of its location
loss. Imports no backend.
"""

import re

# Options with their defaults, for `crl_keras.methods` and the start.
METHODS = {
    "bcnn": {"tap": "", "pooling": "bilinear", "dimensions": 8192},
    "dfl": {
        "tap": "",
        "filters": 10,
        "side_weight": 0.1,
        "loss_on_patch": "given",
        "loss_on_side": "given",
        # How filters start: patches of training images, or random numbers.
        "start": "patches",
        "start_images": 10,
    },
    "dcl": {
        "tap": "",
        "regions": 7,
        "reach": 2,
        "mode": "exact",
        "form": "code",
        "swap": "classes",
        "gamma": 1.0,
        "loss_on_swap": "ce",
        "fusion": "classifier",
    },
}
# Layers on top of the backbone; they learn at `Recipe.head_rate`.
HEAD_LAYERS = {
    None: ("logits",),
    "bcnn": ("logits",),
    "dfl": ("filters", "logits_global", "logits_patch"),
    "dcl": ("logits", "swap", "alignment"),
}
MANY_HEADS = ("dfl", "dcl")
STARTS = ("patches", "random")
TITLES = {"bcnn": "B-CNN", "dfl": "DFL-CNN", "dcl": "DCL"}
_NAMED = re.compile(rf"(.+/.+)\+({'|'.join(METHODS)})(\(.*\))?")


def split_method(network):
    """Splits a network's name into `(backbone, method or None, options)`.

    >>> split_method("keras/resnet50+dcl(gamma=0.01)")[:2]
    ('keras/resnet50', 'dcl')
    >>> split_method("keras/resnet50")
    ('keras/resnet50', None, {})
    """
    match = _NAMED.fullmatch(network)
    if match is None:
        return network, None, {}
    backbone, method, options = match.groups()
    return backbone, method, parse_method(method + (options or ""))[1]


def parse_method(spec):
    """Splits "dcl(gamma=0.01)" into its name and all its options.

    Raises:
        ValueError: The method, an option or its value is not valid.

    >>> parse_method("bcnn(pooling=compact)")[1]["pooling"]
    'compact'
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", spec)
    if match is None or match[1] not in METHODS:
        raise ValueError(
            f"--method must be one of {', '.join(METHODS)}, with options in "
            f'parentheses: "dcl(gamma=0.01)". Received: {spec!r}'
        )
    name = match[1]
    options = dict(METHODS[name])
    for part in filter(None, re.split(r"\s*,\s*", (match[2] or "").strip())):
        key, equals, value = map(str.strip, part.partition("="))
        if not equals or key not in options:
            raise ValueError(
                f"The method {name} takes {', '.join(options)}. "
                f"Received: {part!r}"
            )
        options[key] = _value(name, key, value)
    if options.get("start", STARTS[0]) not in STARTS:
        raise ValueError(
            f"`start` must be one of: {', '.join(STARTS)}. "
            f"Received: start={options['start']!r}"
        )
    return name, options


def with_method(backbone, spec):
    """Returns the canonical name, with only the options that differ.

    >>> with_method("keras/vgg16", "bcnn( dimensions=8192, tap=block4_conv3 )")
    'keras/vgg16+bcnn(tap=block4_conv3)'
    """
    name, options = parse_method(spec)
    text = ",".join(
        f"{key}={options[key]}"
        for key, default in METHODS[name].items()
        if options[key] != default
    )
    return f"{backbone}+{name}({text})" if text else f"{backbone}+{name}"


def canonical_network(network):
    """Returns a network's name with its method, if any, in canonical form."""
    match = _NAMED.fullmatch(network)
    if match is None:
        return network
    return with_method(match[1], match[2] + (match[3] or ""))


def _value(name, key, text):
    default = METHODS[name][key]
    try:
        value = type(default)(text)
    except ValueError:
        expected = "an integer" if isinstance(default, int) else "a number"
        raise ValueError(
            f"`{key}` of {name} must be {expected}. Received: {text!r}"
        ) from None
    if isinstance(value, str) and "/" in value:
        # A slash in a network's name marks a backbone.
        raise ValueError(
            f"`{key}` of {name} must have no slash. Received: {text!r}"
        )
    return value
