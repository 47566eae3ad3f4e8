"""Lists the backbones of each library, and their weights.

Imports no backend and no library: it reads the names from the files of the
installed libraries, so --list-backbones answers at once.
"""

import ast
import dataclasses
import difflib
import functools
import hashlib
import importlib.util
import pathlib
import re
import textwrap

from crl_keras.experiments._optional import install_command
from crl_keras.experiments._optional import require
from crl_keras.experiments.runs.method_names import split_method

# Names of the libraries, in the order in which they are tried.
LIBRARIES = {
    "keras_cv": "KerasCV",
    "keras_hub": "KerasHub",
    "keras": "keras.applications",
}
RESNETS = tuple(
    f"resnet{depth}{v2}"
    for v2 in ("", "_v2")
    for depth in (18, 34, 50, 101, 152)
)
# Names that are older than the lists of names, and their ImageNet weights.
IMAGENET = {
    "keras_cv": {
        "resnet50": "resnet50_imagenet",
        "resnet50_v2": "resnet50_v2_imagenet",
    },
    "keras_hub": {
        "resnet18": "resnet_18_imagenet",
        # KerasHub has no weights of its own for it; it converts timm's.
        "resnet34": "hf://timm/resnet34.a1_in1k",
        "resnet50": "resnet_50_imagenet",
        "resnet101": "resnet_101_imagenet",
        "resnet152": "resnet_152_imagenet",
        "resnet50_v2": "resnet_v2_50_imagenet",
        "resnet101_v2": "resnet_v2_101_imagenet",
    },
}
# KerasCV's backbones only for videos or for images of 1,024 pixels.
NO_CLASSIFIERS = ("video_swin", "vit_det")
FILE = "file"  # Replaces the library's name for a user's own backbone.


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A backbone that was found for a user's words.

    Attributes:
        network: "LIBRARY/NAME", as `build_backbone` takes it.
        weights: "none", "imagenet" or the path of a file.
        chosen: Sentence that says why it comes from that library, or None if
            the user chose the library.
    """

    network: str
    weights: str
    chosen: str | None = None


def names_of(library):
    """Returns {name: ImageNet weights, or None} of a library's backbones.

    The weights are a preset of KerasCV or KerasHub, or a class of
    keras.applications. If a library is not installed, only its ResNets are
    known.

    >>> names_of("keras")["efficientnet_v2_b0"]
    'EfficientNetV2B0'
    """
    if library == "keras":
        return {_snake(name): name for name in application_families()}
    found = {name: IMAGENET[library].get(name) for name in RESNETS}
    known = set(filter(None, found.values()))
    presets = {"keras_cv": _cv_presets, "keras_hub": _hub_presets}[library]()
    for name, weights in presets.items():
        if name not in known:  # A second name would be a second run.
            found.setdefault(name, weights)
    return found


@functools.cache
def application_families():
    """The networks of keras.applications, each with the module of its family.

    >>> application_families()["ResNet50V2"]
    'resnet_v2'
    """
    folder = _folder("keras")
    text = "".join(
        path.read_text()
        for path in (
            folder / "applications" / "__init__.py",
            folder / "api" / "applications" / "__init__.py",  # Keras 3.8.
        )
        if path.is_file()
    )
    pattern = r"keras\.src\.applications\.(\w+) import \(?\s*([A-Z]\w+) as"
    return {name: family for family, name in re.findall(pattern, text)}


@functools.cache
def _cv_presets():
    found = {}
    for path in _preset_files("keras_cv", "models/backbones"):
        if path.parent.name in NO_CLASSIFIERS:
            continue
        tables = _tables(path)
        trained = tables.get("backbone_presets_with_weights", {})
        for name in tables.get("backbone_presets_no_weights", {}):
            weights = f"{name}_imagenet"
            found[name] = weights if weights in trained else None
    return found


@functools.cache
def _hub_presets():
    found = {}
    for path in _preset_files("keras_hub", "models"):
        if not [*path.parent.glob("*image_classifier.py")]:
            continue
        for name, entry in _tables(path).get("backbone_presets", {}).items():
            words = f"{name} {entry['metadata']['description']}".lower()
            if "imagenet" in words or "in1k" in words:
                found[name] = name
    return found


def _preset_files(library, models):
    folder = _folder(library)
    if folder is None:
        return []
    return sorted((folder / "src" / models).glob("*/*_presets.py"))


def _tables(path):
    """Returns the literal dicts that a module assigns."""
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:  # Built from other dicts.
                continue
    return found


def _folder(library):
    spec = importlib.util.find_spec(library)
    places = getattr(spec, "submodule_search_locations", None)
    return pathlib.Path(places[0]) if places else None


def _snake(name):
    """Spells the name of a class of keras.applications our way."""
    for old, new in (("NASNet", "Nasnet"), ("Net", "net"), ("NeXt", "next")):
        name = name.replace(old, new)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _spelled(library, name):
    """Returns the name as the library's list spells it, or None."""
    names = names_of(library)
    if name in names:
        return name
    alike = [
        other
        for other, weights in names.items()
        if weights == name or _letters(other) == _letters(name)
    ]
    return alike[0] if alike else None


def _letters(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def find_backbone(name, library=None, weights=None):
    """Finds the backbone that a user means.

    Args:
        name: A name of `names_of`, in any spelling such as "EfficientNetV2B0",
            maybe after "LIBRARY/"; or the path of a .keras file.
        library: A key of `LIBRARIES`, or None for the first that has it.
        weights: "none", "imagenet" or the path of a file. None means
            "imagenet"; it must be None for a .keras file, which has weights.

    Returns:
        `Backbone`.

    Raises:
        ValueError: The backbone does not exist, or not with these weights.
        ImportError: Its library has to be installed to know the name.

    >>> find_backbone("EfficientNetV2B0", "keras").network
    'keras/efficientnet_v2_b0'
    """
    if name.endswith(".keras"):
        return _own(name, library, weights)
    weights = weights or "imagenet"
    before, _, after = name.partition("/")
    if library is None and after:
        library, name = before, after
    chosen = None
    if library is None:
        library, chosen = choose_library(name, weights)
    if library in LIBRARIES:
        name = _spelled(library, name) or name
    network = f"{library}/{name}"
    check_backbone(network, weights)
    return Backbone(network, weights, chosen)


def _own(path, library, weights):
    if library or weights:
        raise ValueError(
            f"{path} is a backbone of your own, with its weights. Received "
            "--library or --weights beside it: leave them out"
        )
    fingerprint = weights_fingerprint(_existing(path))
    stem = re.sub(r"[^A-Za-z0-9_.-]", "_", pathlib.Path(path).stem)
    return Backbone(f"{FILE}/{stem}-{fingerprint}", path)


def _existing(path):
    if not pathlib.Path(path).expanduser().is_file():
        raise ValueError(
            "Expected a backbone in a .keras file that exists. "
            f"Received: {path!r}"
        )
    return path


def choose_library(backbone, weights="none"):
    """Chooses the library of a backbone if the user does not, and says why.

    It takes the first installed library that has the backbone with the wanted
    weights; if none is installed, the first one to install. For ResNets,
    KerasCV comes first, as it always did here. For others it comes last, as
    it is frozen.

    Returns:
        `(library, sentence)`.

    >>> print(choose_library("mobilenet_v2")[1])
    mobilenet_v2 comes from keras (keras.applications), the only one that has it
    >>> choose_library("resnet34", "imagenet")[0]
    'keras_hub'
    """
    order = list(LIBRARIES)
    if backbone not in RESNETS:
        order.reverse()
    spelled = {key: _spelled(key, backbone) for key in order}
    having = [key for key in order if spelled[key] == backbone]
    having = having or [key for key in order if spelled[key]]
    weighted = [key for key in having if names_of(key)[spelled[key]]]
    what = "has it"
    if weights == "imagenet" and weighted:
        having, what = weighted, "has it with ImageNet weights"
    installed = [key for key in having if _installed(key)]
    library = (installed or having or order)[0]
    text = f"{backbone} comes from {library} ({LIBRARIES[library]}), "
    if len(having) < 2:
        return library, f"{text}the only one that {what}"
    text += f"the first of {', '.join(having)} that {what} and is installed"
    missing = [key for key in having if key not in installed]
    if missing:
        text += f" (not installed: {', '.join(missing)})"
    return library, f"{text}. --library chooses another"


def _installed(library):
    return importlib.util.find_spec(library) is not None


def check_backbone(name, weights="none"):
    """Raises ValueError if a backbone or its weights do not exist.

    Args:
        name: "LIBRARY/NAME", maybe with "+METHOD".
        weights: "none", "imagenet" or a path.

    Raises:
        ValueError: The backbone does not exist, or not with these weights.
        ImportError: Its library has to be installed to know the name.
    """
    name = split_method(name)[0]
    library, _, backbone = name.partition("/")
    if library == FILE:
        return _check_own(name, weights)
    if library not in LIBRARIES or backbone not in names_of(library):
        if library in LIBRARIES:
            require_library(library)
        raise ValueError(
            f"Expected a backbone that exists{_suggested(backbone or name)}. "
            f"Received: {name!r}. --list-backbones prints all"
        )
    if weights == "imagenet" and not names_of(library)[backbone]:
        others = [key for key in LIBRARIES if names_of(key).get(backbone)]
        raise ValueError(
            f"{LIBRARIES[library]} has no ImageNet weights for {backbone}. "
            f"Take it from {' or '.join(others) or 'a file'} "
            "(--library, --weights PATH), or train from random weights with "
            "--weights none. --list-backbones prints which have weights"
        )
    if weights not in ("none", "imagenet"):
        if not pathlib.Path(weights).expanduser().is_file():
            raise ValueError(
                'Expected weights "none", "imagenet" or the path of a '
                f".weights.h5 file. Received: {weights!r}, which does not "
                "exist"
            )


def _check_own(name, path):
    fingerprint = weights_fingerprint(_existing(path))
    if not name.endswith(f"-{fingerprint}"):
        raise ValueError(
            f"Expected in {path} the backbone {name}, whose name ends in the "
            f"fingerprint of its file. Received: another file, {fingerprint}. "
            "Give the command again, with --backbone and the file"
        )


def _suggested(backbone):
    """Suggests a few backbones with a similar name."""
    known = [f"{key}/{name}" for key in LIBRARIES for name in names_of(key)]
    letters = {name: _letters(name.partition("/")[2]) for name in known}
    wanted = _letters(backbone)
    alike = [name for name in known if wanted and wanted in letters[name]]
    near = difflib.get_close_matches(wanted, letters.values(), 4, 0.7)
    alike += [name for name in known if letters[name] in near]
    some = list(dict.fromkeys(alike))[:6]
    return f", such as {', '.join(some)}" if some else ""


def require_library(library):
    """Imports the library of a backbone; does nothing for a user's file.

    Raises:
        ImportError: if it is not installed; the message has the command.
    """
    if library != FILE:
        require(library, library.replace("_", "-"))


def list_backbones():
    """Returns the text of --list-backbones.

    >>> "efficientnet_v2_b0*" in list_backbones()
    True
    """
    lines = ["Backbones by --library; * means with ImageNet weights:"]
    for library, product in LIBRARIES.items():
        title = f"{library} ({product})"
        if not _installed(library):
            command = install_command(library.replace("_", "-"))
            title += f". Not installed; install it to see more: {command}"
        names = ", ".join(
            name + "*" * (weights is not None)
            for name, weights in names_of(library).items()
        )
        lines += _wrapped(title, "") + _wrapped(names, "  ")
    lines.append("Or the path of a .keras file with a model of your own.")
    return "\n".join(lines)


def _wrapped(text, indent):
    return textwrap.wrap(
        text,
        80,
        initial_indent=indent,
        subsequent_indent="  ",
        break_on_hyphens=False,
    )


def weights_fingerprint(weights):
    """Returns 16 hexadecimal digits of a file of weights; None without one.

    >>> weights_fingerprint("imagenet")
    """
    if weights in ("none", "imagenet"):
        return None
    path = pathlib.Path(weights).expanduser()
    found = path.stat()
    return _digest(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache
def _digest(path, changed, size):
    # Many records ask for the same large file.
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
