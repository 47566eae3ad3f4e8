"""Makes the pages of the API reference, docs/api.md and docs/api/*.md.

    python docs/reference.py           # write the pages
    python docs/reference.py --check   # fail if a page is not up to date

For every name in the `__all__` of a public module, a page shows its signature,
the first line of its docstring and its source file. `make docs` shows the whole
docstring instead: see docs/hooks.py.
"""

import argparse
import importlib
import inspect
import pathlib
import sys

DOCS = pathlib.Path(__file__).parent
NOTE = "<!-- Made by docs/reference.py: change it and the docstrings. -->"
PACKAGE = "crl_keras"

# Name of a page: its title, its module, and the text above its names.
PAGES = {
    "losses": (
        "Losses",
        "crl_keras.losses",
        "The four forms of the Competing Ratio Loss can also be imported from\n"
        "`crl_keras` itself. [The loss](../loss.md) and [the compared\n"
        "losses](../losses.md) explain them.",
    ),
    "comparing": (
        "Comparing losses",
        "crl_keras.comparing",
        "All of them can be imported from `crl_keras`. [Your own\n"
        "model](../your-model.md) shows them at work.",
    ),
    "calibration": (
        "Calibration",
        "crl_keras.calibration",
        "[Calibration](../calibration.md) explains when to use it.",
    ),
    "layers": ("Layers", "crl_keras.layers", ""),
    "methods": (
        "Fine-grained methods",
        "crl_keras.methods",
        "[Fine-grained methods](../fine-grained.md) says what they are for.",
    ),
    "metrics": ("Metrics", "crl_keras.metrics", ""),
    "optimizers": ("Optimizers", "crl_keras.optimizers", ""),
    "networks": (
        "Networks",
        "crl_keras.networks",
        "[Networks](../networks.md) says where they are from and how many\n"
        "parameters they have.",
    ),
    "prediction": (
        "Saved models",
        "crl_keras.experiments.runs.prediction",
        "What `crl-keras predict` does, from Python: see\n"
        "[fine-tuning](../fine-tuning.md).",
    ),
}
# Modules whose names are imported from the package itself.
AT_THE_TOP = {"crl_keras.comparing": PACKAGE}
# Users call the methods of these classes. Keras calls those of the others.
WITH_MEMBERS = {"Comparison", "Classifier"}
# Pages with a single list, although several files define the names.
WITHOUT_GROUPS = {"crl_keras.networks"}
OVERVIEW = f"""# API reference

{NOTE}

All public names, by module. A name that is not listed here may change without
notice."""


def public(module):
    """Returns the classes and functions in the `__all__` of a module."""
    found = [getattr(module, name) for name in module.__all__]
    return [x for x in found if inspect.isclass(x) or inspect.isfunction(x)]


def members(thing):
    """Returns the names of the public members that a class itself defines."""
    return [
        name
        for name, value in vars(thing).items()
        if not name.startswith("_") and inspect.getdoc(value)
        if isinstance(value, property) or inspect.isfunction(value)
    ]


def source(thing):
    """Returns the file of a class or function, within the repository."""
    file = pathlib.Path(sys.modules[thing.__module__].__file__)
    folder = pathlib.Path(importlib.import_module(PACKAGE).__file__).parents[1]
    return file.relative_to(folder).as_posix()


def summary(thing):
    return inspect.getdoc(thing).partition("\n\n")[0].replace("\n", " ")


def signature(path, thing):
    """Returns the call as a user writes it, without types."""
    call = thing
    if inspect.isclass(thing):
        call = next(c for c in thing.__mro__ if "__init__" in vars(c)).__init__
    empty, parts, kinds = inspect.Parameter.empty, [], set()
    for parameter in inspect.signature(call).parameters.values():
        if parameter.name == "self":
            continue
        kind = parameter.kind
        if kind is parameter.KEYWORD_ONLY and not kinds & {
            kind,
            parameter.VAR_POSITIONAL,
        }:
            parts.append("*")
        kinds.add(kind)
        parts.append(str(parameter.replace(annotation=empty)))
    parts = [part.replace("'", '"') for part in parts]
    line = f"{path}({', '.join(parts)})"
    if len(line) <= 79:
        return line
    return "\n".join([f"{path}(", *(f"    {part}," for part in parts), ")"])


def entry(path, thing, level):
    """Returns the Markdown of a name, between marks for docs/hooks.py."""
    options, shown = [f"heading_level: {level}"], []
    if thing.__name__ in WITH_MEMBERS:
        names = members(thing)
        options.append(f"members: [{', '.join(names)}]")
        shown = [f"- `{m}`: {summary(getattr(thing, m))}" for m in names]
        shown.append("")
    lines = [
        f"<!-- ::: {path}; {'; '.join(options)} -->",
        f'<a id="{path}"></a>',
        "",
        f"{'#' * level} {thing.__name__}",
        "",
        summary(thing),
        "",
        "```python",
        signature(path, thing),
        "```",
        "",
        *shown,
        f"[Source](../../{source(thing)})",
        "<!-- end -->",
        "",
    ]
    return "\n".join(lines)


def page(title, name, text):
    """Returns the page of a module, and its names as (path, object)."""
    module = importlib.import_module(name)
    files = {}  # Names by the file that defines them.
    for thing in public(module):
        files.setdefault(thing.__module__, []).append(thing)
    lines = [f"# {title}", "", NOTE, "", f"`{name}`: {summary(module)}", ""]
    lines += [text, ""] if text else []
    is_grouped = len(files) > 1 and name not in WITHOUT_GROUPS
    listed = []
    for file, things in files.items():
        if is_grouped:
            lines += [f"## {summary(sys.modules[file]).rstrip('.')}", ""]
        for thing in things:
            path = f"{AT_THE_TOP.get(name, name)}.{thing.__name__}"
            lines.append(entry(path, thing, 3 if is_grouped else 2))
            listed.append((path, thing))
    return "\n".join(lines).rstrip() + "\n", listed


def pages():
    """Returns all pages as {file: text}."""
    overview, made = [OVERVIEW], {}
    for name, description in PAGES.items():
        text, listed = page(*description)
        made[DOCS / "api" / f"{name}.md"] = text
        overview += [f"\n## [{description[0]}](api/{name}.md)\n"]
        overview += ["| Name | What it is |", "|---|---|"]
        for path, thing in listed:
            link = f"[`{thing.__name__}`](api/{name}.md#{path})"
            overview.append(f"| {link} | {summary(thing)} |")
    made[DOCS / "api.md"] = "\n".join(overview) + "\n"
    return made


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true")
    is_check = parser.parse_args().check
    for path, text in pages().items():
        if not is_check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            sys.exit(f"{path} is not up to date: run docs/reference.py")


if __name__ == "__main__":
    main()
