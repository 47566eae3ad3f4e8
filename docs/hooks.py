"""Changes for `make docs` in pages that are also read as Markdown."""

import pathlib
import re

from mkdocs.structure.files import File

CHANGELOG = pathlib.Path(__file__).parents[1] / "CHANGELOG.md"


def on_files(files, config):
    """Adds the changelog, which lies beside the README."""
    text = CHANGELOG.read_text().replace("](docs/", "](")
    files.append(File.generated(config, "changelog.md", content=text))
    return files


def on_page_markdown(markdown, **_):
    """Replaces the summaries of docs/reference.py by whole docstrings."""
    return re.sub(
        r"<!-- (::: .*?) -->.*?<!-- end -->", _directive, markdown, flags=re.S
    )


def _directive(match):
    path, *options = match[1].split("; ")
    lines = [path, "    options:", *(f"      {text}" for text in options)]
    return "\n".join(lines)
