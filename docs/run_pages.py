"""Makes pages of docs/results from folders of runs.

    python docs/run_pages.py steps-or-weighting RUNS [RUNS ...]
    python docs/run_pages.py fine-grained-methods RUNS

The first command writes a section for each folder, with a figure and a CSV
file, and keeps the sections of other folders. The second writes a table for
each network. The commands on the pages make the folders. No backend is needed.
"""

import argparse
import os
import pathlib
import re

# Reports need only the records.
os.environ.setdefault("CRL_KERAS_RECORDS_ONLY", "1")

from crl_keras.experiments.analysis import figures  # noqa: E402
from crl_keras.experiments.analysis import report  # noqa: E402
from crl_keras.experiments.analysis import tables  # noqa: E402
from crl_keras.experiments.analysis.comparison import compare  # noqa: E402
from crl_keras.experiments.analysis.verdicts import verdict  # noqa: E402
from crl_keras.experiments.runs.method_names import TITLES  # noqa: E402
from crl_keras.experiments.runs.method_names import split_method  # noqa: E402
from crl_keras.experiments.runs.records import read_records  # noqa: E402

FOLDER = pathlib.Path(__file__).parent / "results"
EFFECTS = "steps-or-weighting"
METHODS = "fine-grained-methods"
INTRODUCTIONS = {
    EFFECTS: """# Steps or weighting: where the gain of CRL comes from

CRL makes longer steps than cross-entropy, and it gives more weight to samples
that are nearly right. Each of two controls has only one of these effects:
cross-entropy with CRL's steps, and CRL with cross-entropy's steps.
[What CRL does to training](../what-crl-does.md) explains them and draws the
conclusions. Each experiment below trains all of them from the same weights on
the same batches, at every learning rate. `python docs/run_pages.py` makes this
page from the folders that the commands write.
""",
    METHODS: """# Does CRL go together with the fine-grained methods?

This small comparison trains [B-CNN, DFL-CNN and DCL](../fine-grained.md) and
their plain backbone, each with cross-entropy and with CRL. It shows that the
methods train with both losses, and the effect of CRL on each. It does not rank
the methods, and says nothing about birds: eight epochs from random weights are
far too few. The data are the first 100 images of each class of CIFAR-10, and 50
for the test, at 32 pixels. The backbone has six convolutions and random
weights, the same for every seed:

    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 127.5, -1)(x)
    for filters in (16, 32, 64):
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.9)(x)
            x = layers.ReLU()(x)
        if filters < 64:
            x = layers.MaxPooling2D()(x)
    x = layers.GlobalAveragePooling2D()(x)
    keras.Model(inputs, layers.Dense(10)(x)).save("small.keras")

`python docs/run_pages.py` makes this page from the folder that the commands
write.
""",
}
SHOWN = ("Data", "Seeds", "Training", "Device", "Software", "Time", "Date")


def about(families, records):
    """Returns lines that say how the runs were made."""
    lines = []
    for name, values in report.facts(families):
        if name in SHOWN:
            text = "; ".join(tables.escape_markdown(value) for value in values)
            lines.append(f"- **{name}:** {text}")
    made = [f"    {command}" for command in report.commands(records)]
    return [*lines, "", "Made by:", "", *made, ""]


def effects_section(folder):
    """Returns an experiment as Markdown; writes its figures and numbers."""
    records = read_records(folder)
    (family,) = families = compare(records)
    slug = f"{EFFECTS}-{folder.name}"
    optimizer = family.config.recipe.optimizer.replace("sgd", "SGD")
    title = f"{family.title}, {optimizer.replace('adam', 'Adam')}"
    parts = [f"## {title}", "", *about(families, records)]
    parts += ["Each loss at the learning rate that held-out images chose:", ""]
    parts += [
        f"- {tables.escape_markdown(verdict(c))}"
        for c in family.own.comparisons
    ]
    parts += ["", tables.to_markdown(tables.own_rate_table(family))]
    for figure in figures.effect_figures(family):
        (FOLDER / f"{slug}.svg").write_text(figure.svg + "\n", encoding="utf-8")
        parts += [f"![{figure.caption}]({slug}.svg)", "", figure.caption, ""]
    effects = tables.effect_table(family)
    (FOLDER / f"{slug}.csv").write_text(tables.to_csv([effects]), "utf-8")
    parts += [tables.to_markdown(effects), f"Numbers: [CSV]({slug}.csv).", ""]
    parts.append(tables.to_markdown(tables.rate_table(family)))
    return "\n".join(parts)


def effects_page(folders):
    path, sections = FOLDER / f"{EFFECTS}.md", []
    if path.exists():
        before = path.read_text(encoding="utf-8")
        sections = re.split(r"^(?=## )", before, flags=re.MULTILINE)[1:]
    sections += [effects_section(folder) for folder in folders]
    # A new section replaces an earlier one with its title.
    by_title = {part.partition("\n")[0]: part.rstrip() for part in sections}
    return [f"{part}\n" for part in by_title.values()]


def methods_page(folders):
    records = [record for path in folders for record in read_records(path)]
    families = compare(records)
    parts, made = [], []
    for family in families:
        for group in family.groups:
            method = split_method(family.config.network)[1]
            parts += [f"## {TITLES.get(method, 'Plain backbone')}", ""]
            parts += [
                f"- {tables.escape_markdown(verdict(c))}"
                for c in group.comparisons
            ]
            table = tables.error_table(group)
            parts += ["", tables.to_markdown(table)]
            made.append(table)
    (FOLDER / f"{METHODS}.csv").write_text(tables.to_csv(made), "utf-8")
    parts += [f"Numbers: [CSV]({METHODS}.csv).", ""]
    parts += ["## How it was measured", "", *about(families, records)]
    return parts


PAGES = {EFFECTS: effects_page, METHODS: methods_page}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("page", choices=tuple(PAGES))
    parser.add_argument("runs", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    parts = PAGES[arguments.page](arguments.runs)
    page = "\n".join([INTRODUCTIONS[arguments.page], *parts])
    (FOLDER / f"{arguments.page}.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
